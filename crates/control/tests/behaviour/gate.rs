//! What the gate lets through: checked messages, of callers that may send them.

use model::{Code, Kind, Record};
use netloom_control::Caller;
use serde_json::{Value, json};
use store::Read;
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, Cloud, request, tenant};

#[test]
fn nothing_runs_that_breaks_a_rule_whichever_door_it_comes_through() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let pool = &fixture.pool;
    let cases = [
        ("CreateL2VxlanNetwork", json!({"name": "n", "poolUuid": pool, "vni": 0}), "vni"),
        ("CreateL2VxlanNetwork", json!({"name": "  ", "poolUuid": pool}), "name"),
        ("CreateL2VxlanNetwork", json!({"name": "n", "poolUuid": pool, "colour": 1}), "colour"),
        ("CreateL2VxlanNetwork", json!({"poolUuid": pool}), "name"),
        ("UpdateZone", json!({"uuid": fixture.zone, "name": " "}), "name"),
        ("CreateNothing", json!({}), "message"),
    ];
    for (message, params, field) in cases {
        let error = cloud.call(message, params).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        assert_eq!(error.field.as_deref(), Some(field), "{error}");
    }
}

#[test]
fn several_messages_are_one_transaction() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let nic = |ip: &str| request("CreateVmNic", json!({"l3NetworkUuid": l3, "ip": ip}));
    let both = vec![nic("10.0.0.10"), nic("10.0.0.11")];
    cloud.send(ADMINISTRATOR, both).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::VmNic), 2);
    let second_fails = vec![nic("10.0.0.12"), nic("10.0.0.11")];
    let error = cloud.send(ADMINISTRATOR, second_fails).unwrap_err();
    assert_eq!(error.code, Code::IpExhausted);
    assert_eq!(cloud.snapshot().total(Kind::VmNic), 2, "all or none");
}

#[test]
fn each_message_says_who_may_send_it() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let zone = || vec![request("CreateZone", json!({"name": "x"}))];
    let code = |caller, requests| cloud.send(caller, requests).unwrap_err().code;
    assert_eq!(code(tenant(&cloud, 7), zone()), Code::AccessDenied);
    assert_eq!(
        code(Caller::Stranger { source: ADMINISTRATOR.source() }, zone()),
        Code::InvalidSession
    );
    let own = request("CreateL3Network", json!({"name": "x", "l2NetworkUuid": fixture.pool}));
    assert_eq!(
        code(Caller::Stranger { source: ADMINISTRATOR.source() }, vec![own]),
        Code::InvalidSession
    );
}

#[test]
fn what_is_anothers_is_not_there() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let tenant = tenant(&cloud, 7);
    let create = request("CreateVmNic", json!({"l3NetworkUuid": l3}));
    let error = cloud.send(tenant, vec![create]).unwrap_err();
    let nobody = "0123456789abcdef0123456789abcdef";
    let unknown = request("CreateVmNic", json!({"l3NetworkUuid": nobody}));
    let unknown = cloud.send(tenant, vec![unknown]).unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let told = error.to_string().replace(&l3, nobody);
    assert_eq!(told, unknown.to_string(), "an error does not tell that it exists");
    cloud.send(tenant, vec![request("DeleteL3Network", json!({"uuid": l3}))]).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::L3Network), 1, "nor does a deletion");
}

#[test]
fn an_account_makes_what_is_its_own_up_to_its_quota() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let tenant = tenant(&cloud, 7);
    let pool: Uuid = model::id::parse_uuid(&fixture.pool).unwrap();
    // Until resources can be shared, a pool of its own.
    let give = move |tx: &mut store::Tx<Record>| {
        let mut record = (*tx.get(Kind::L2Network, pool).unwrap()).clone();
        record.meta.owner = tenant.account();
        tx.put(record).unwrap();
        Ok(())
    };
    cloud.store.transact(give).unwrap();
    let range = json!({"name": "r", "startVni": 500, "endVni": 600, "l2NetworkUuid": pool});
    let range = Value::Object(range.as_object().unwrap().clone());
    cloud
        .send(
            ADMINISTRATOR,
            vec![request("CreateVniRange", {
                let mut range = range;
                range["l2NetworkUuid"] = fixture.pool.clone().into();
                range
            })],
        )
        .unwrap();
    let network =
        || request("CreateL2VxlanNetwork", json!({"name": "n", "poolUuid": fixture.pool}));
    // The pool counts too.
    for _ in 0..7 {
        cloud.send(tenant, vec![network()]).unwrap();
    }
    let error = cloud.send(tenant, vec![network()]).unwrap_err();
    assert_eq!(error.code, Code::QuotaExceeded, "{error}");
    cloud.send(ADMINISTRATOR, vec![network()]).unwrap();
}

#[test]
fn names_and_texts_are_changed_kept_and_taken_away() {
    let cloud = Cloud::empty();
    let zone = cloud.made("CreateZone", json!({"name": "z", "description": "old"}));
    let id = zone.parse().unwrap();
    let seen = |changes: Value| {
        let mut params = json!({"uuid": zone});
        params.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        cloud.call("UpdateZone", params).unwrap();
        let zone = cloud.get::<model::resource::zone::Zone>(id).unwrap();
        (zone.name, zone.description)
    };
    assert_eq!(seen(json!({"name": "y"})), ("y".into(), Some("old".into())));
    assert_eq!(seen(json!({"description": "new"})), ("y".into(), Some("new".into())));
    assert_eq!(seen(json!({"description": null})), ("y".into(), None));
    assert_eq!(seen(json!({"name": null})), ("y".into(), None), "a name cannot be taken away");
}

#[test]
fn a_message_that_only_looks_is_answered_from_a_snapshot() {
    let cloud = Cloud::empty();
    let answer = cloud.look(tenant(&cloud, 7), "GetHypervisorTypes", json!({})).unwrap();
    assert_eq!(answer, json!({"hypervisorTypes": ["KVM"]}));
    let stranger = Caller::Stranger { source: ADMINISTRATOR.source() };
    let error = cloud.look(stranger, "GetHypervisorTypes", json!({})).unwrap_err();
    assert_eq!(error.code, Code::InvalidSession);
    let error = cloud.look(ADMINISTRATOR, "CreateZone", json!({"name": "z"})).unwrap_err();
    assert_eq!(error.code, Code::Internal, "what changes something is no look");
}
