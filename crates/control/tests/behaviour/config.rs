//! Settings: what there is, what they may be, and that they take effect.

use model::{
    Code, Id, Kind, Timestamp,
    resource::account::{ADMIN, Account},
    setting::{JOB_TIMEOUT, SESSION_TIMEOUT, Setting},
};
use netloom_control::config;
use serde_json::json;
use store::Read;

use crate::harness::{ADMINISTRATOR, Cloud, request, tenant};

#[test]
fn every_setting_has_a_row_and_those_of_earlier_releases_have_none() {
    let cloud = Cloud::empty();
    let all = Setting::all().count();
    let total = || cloud.snapshot().total(Kind::GlobalConfig);
    assert_eq!(total(), all as u64);
    let odd = move |tx: &mut store::Tx<model::Record>| {
        let row = tx.get(Kind::GlobalConfig, SESSION_TIMEOUT.row()).unwrap();
        let mut odd: model::resource::config::GlobalConfig =
            model::Resource::of(&row).cloned().unwrap();
        odd.uuid = Id::new(uuid::Uuid::from_u128(7));
        odd.name = "of.an.earlier.release".into();
        tx.put(model::Record::new(odd, row.meta)).unwrap();
        Ok(())
    };
    cloud.store.transact(odd).unwrap();
    config::declare(&cloud.store, Timestamp(5)).unwrap();
    assert_eq!(total(), all as u64);
}

#[test]
fn a_setting_is_changed_within_its_range_and_reset() {
    let cloud = Cloud::empty();
    let set = |value: &str| json!({"category": "rest", "name": "api.timeout", "value": value});
    let now = || config::number(&cloud.snapshot(), &JOB_TIMEOUT);
    assert_eq!(now(), 1800);
    cloud.call("UpdateGlobalConfig", set("60")).unwrap();
    assert_eq!(now(), 60);
    config::declare(&cloud.store, Timestamp(5)).unwrap();
    assert_eq!(now(), 60, "a restart keeps it");
    for odd in ["0", "86401", "", "soon"] {
        let (code, field, text) = cloud.refusal("UpdateGlobalConfig", set(odd));
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("value")), "{text}");
    }
    let unknown = json!({"category": "rest", "name": "colour", "value": "1"});
    let (code, field, text) = cloud.refusal("UpdateGlobalConfig", unknown);
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("name")), "{text}");
    cloud.call("ResetGlobalConfig", json!({})).unwrap();
    assert_eq!(now(), 1800);
    let red = tenant(&cloud, 7);
    let error = cloud.send(red, vec![request("UpdateGlobalConfig", set("60"))]).unwrap_err();
    assert_eq!(error.code, Code::AccessDenied);
}

#[test]
fn options_tell_what_a_setting_may_be() {
    let cloud = Cloud::empty();
    let options = |category: &str, name: &str| {
        let ask = json!({"category": category, "name": name});
        cloud.look(ADMINISTRATOR, "GetGlobalConfigOptions", ask).unwrap()["options"].clone()
    };
    let range = json!({"numberGreaterThanOrEqual": 1, "numberLessThanOrEqual": 86400});
    assert_eq!(options("rest", "api.timeout"), range);
    assert_eq!(
        options("vm", "deletionPolicy"),
        json!({"validValue": ["Delay", "Direct", "Never"]})
    );
}

#[test]
fn one_resource_has_a_value_of_its_own_until_that_is_taken_away() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let red = tenant(&cloud, 7).account().unwrap();
    let at = json!({"category": "identity", "name": "session.timeout", "resourceUuid": red});
    let mut set = at.clone();
    set["value"] = "60".into();
    cloud.call("UpdateResourceConfig", set.clone()).unwrap();
    let of = |account: Id<Account>| {
        config::number_for(&cloud.snapshot(), &SESSION_TIMEOUT, account.uuid())
    };
    assert_eq!((of(red), of(Id::new(ADMIN))), (60, 7200));
    let told = cloud.look(ADMINISTRATOR, "GetResourceConfig", at.clone()).unwrap();
    assert_eq!(
        (&told["value"], &told["effectiveConfigs"][0]["value"]),
        (&json!("60"), &json!("60"))
    );
    set["resourceUuid"] = fixture.zone.into();
    let (code, field, text) = cloud.refusal("UpdateResourceConfig", set);
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("resourceUuid")), "{text}");
    assert!(text.contains("one of Account"), "{text}");
    cloud.call("DeleteResourceConfig", at.clone()).unwrap();
    cloud.call("DeleteResourceConfig", at.clone()).unwrap();
    assert_eq!(of(red), 7200);
    let told = cloud.look(ADMINISTRATOR, "GetResourceConfig", at).unwrap();
    assert_eq!(told, json!({"value": "7200", "effectiveConfigs": []}));
}

#[test]
fn a_quota_that_nobody_has_set_is_the_settings() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let red = tenant(&cloud, 7);
    cloud.call("ShareResource", json!({"resourceUuids": [l3], "toPublic": true})).unwrap();
    let none = json!({"category": "quota", "name": "vm.num", "value": "0"});
    cloud.call("UpdateGlobalConfig", none).unwrap();
    let vm = request("CreateVmInstance", json!({"name": "a", "l3NetworkUuids": [l3]}));
    assert_eq!(cloud.send(red, vec![vm.clone()]).unwrap_err().code, Code::QuotaExceeded);
    let own = json!({"identityUuid": red.account().unwrap(), "name": "vm.num", "value": 1});
    cloud.call("UpdateQuota", own).unwrap();
    cloud.send(red, vec![vm]).unwrap();
}
