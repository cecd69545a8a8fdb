//! The audit: every message that changed something, in the same transaction, without secrets.

use model::{Kind, Record, Resource, Timestamp, resource::audit::Audit, status::Board};
use netloom_control::{JobId, Jobs, audit};
use serde_json::json;
use store::Read;
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, Cloud, request};

fn rows(cloud: &Cloud) -> Vec<Audit> {
    let snapshot = cloud.snapshot();
    snapshot.list(Kind::Audit).map(|row| Audit::of(&row).cloned().unwrap()).collect()
}

#[test]
fn what_was_changed_is_told_with_who_from_where_and_what() {
    let cloud = Cloud::empty();
    let zone = cloud.made("CreateZone", json!({"name": "z"}));
    cloud.call("DeleteZone", json!({"uuid": zone})).unwrap();
    let rows = rows(&cloud);
    let told: Vec<_> = rows.iter().map(|row| row.message.as_str()).collect();
    assert_eq!(told.len(), 2);
    assert!(told.contains(&"CreateZone") && told.contains(&"DeleteZone"));
    for row in rows {
        assert_eq!(row.account_uuid, ADMINISTRATOR.account().unwrap().to_string());
        assert_eq!((row.source.as_str(), row.outcome.as_str()), ("127.0.0.1", "SUCCESS"));
        assert_eq!(row.resource_type.as_deref(), Some("ZoneVO"));
        assert_eq!(row.resource_uuid.as_ref(), Some(&zone));
        assert!(row.fields == r#"{"name":"z"}"# || row.fields.contains(&zone), "{}", row.fields);
    }
}

#[tokio::test]
async fn what_was_refused_when_it_ran_is_told_with_its_code() {
    let cloud = Cloud::empty();
    let (_board, reports) = watch::channel(Board::default());
    let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
    let params = json!({"name": "c", "zoneUuid": Uuid::from_u128(7).simple().to_string(), "hypervisorType": "KVM"});
    let command =
        cloud.operations.command(ADMINISTRATOR, vec![request("CreateCluster", params)]).unwrap();
    let job = JobId { uuid: model::Id::new(Uuid::from_u128(1)), is_chosen: false };
    jobs.submit(command, job, 60).await.unwrap();
    let rows = rows(&cloud);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].message.as_str(), rows[0].outcome.as_str()), ("CreateCluster", "SYS.1003"));
}

#[test]
fn a_field_of_any_message_that_may_hold_a_secret_says_so() {
    for def in model::resource::messages() {
        for field in def.fields {
            let name = field.name.to_lowercase();
            let may = ["password", "secret", "session", "token", "private", "userdata"];
            let is_port = name.starts_with("privateport");
            let may = !is_port && may.iter().any(|word| name.contains(word));
            assert_eq!(field.secret, may, "{} {}", def.name, field.name);
        }
    }
}

#[tokio::test]
async fn the_audit_has_an_end_in_time_and_in_number() {
    let cloud = Cloud::empty();
    for name in ["a", "b", "c"] {
        cloud.made("CreateZone", json!({"name": name}));
    }
    let day = Timestamp(1_000).plus_seconds(86_400);
    assert_eq!(audit::sweep(&cloud.store, day).await, Ok(0));
    let set = |name: &str, value: &str| {
        let set = json!({"category": "audit", "name": name, "value": value});
        cloud.call("UpdateGlobalConfig", set).unwrap();
    };
    set("max", "2");
    assert_eq!(audit::sweep(&cloud.store, day).await, Ok(2));
    assert_eq!(cloud.snapshot().total(Kind::Audit), 2);
    set("expiredPeriod", "3600");
    assert_eq!(audit::sweep(&cloud.store, day).await, Ok(3));
    set("max", "0");
    cloud.made("CreateZone", json!({"name": "d"}));
    let left: Vec<Record> =
        cloud.contents().into_iter().filter(|row| row.kind() == Kind::Audit).collect();
    assert_eq!(left, [], "none is written");
}
