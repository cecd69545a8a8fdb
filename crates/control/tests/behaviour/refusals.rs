//! What is refused, with which code, field and words; a refusal changes nothing (the harness
//! compares the whole store before and after).

use crate::harness::{Cloud, range};
use model::Code;
use serde_json::{Value, json};

#[test]
fn names_are_unique_within_their_parent() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let cases = [
        ("CreateZone", json!({"name": "z"})),
        ("CreateCluster", json!({"name": "c", "zoneUuid": fixture.zone, "hypervisorType": "KVM"})),
        (
            "AddKVMHost",
            json!({"name": "h1", "managementIp": "172.30.0.9", "clusterUuid": fixture.cluster}),
        ),
        ("CreateL2VxlanNetworkPool", json!({"name": "p", "zoneUuid": fixture.zone})),
    ];
    for (message, params) in cases {
        let (code, field, text) = cloud.refusal(message, params);
        assert_eq!((code, field.as_deref()), (Code::Duplicate, Some("name")), "{text}");
    }
    let other = cloud.made("CreateZone", json!({"name": "z2"}));
    let elsewhere = json!({"name": "c", "zoneUuid": other, "hypervisorType": "KVM"});
    cloud.call("CreateCluster", elsewhere).unwrap();
}

#[test]
fn a_name_is_free_again_after_its_owner_is_deleted() {
    let cloud = Cloud::empty();
    let zone = cloud.made("CreateZone", json!({"name": "z"}));
    cloud.call("DeleteZone", json!({"uuid": zone})).unwrap();
    cloud.call("CreateZone", json!({"name": "z"})).unwrap();
}

#[test]
fn unknown_uuids_are_named_with_their_field() {
    let (cloud, _) = Cloud::with_two_hosts();
    let nobody = "0123456789abcdef0123456789abcdef";
    let cases = [
        (
            "CreateCluster",
            json!({"name": "x", "zoneUuid": nobody, "hypervisorType": "KVM"}),
            "zoneUuid",
        ),
        ("CreateL2VxlanNetwork", json!({"name": "x", "poolUuid": nobody}), "poolUuid"),
        ("CreateVmNic", json!({"l3NetworkUuid": nobody}), "l3NetworkUuid"),
        ("CreateVmInstance", json!({"name": "x", "l3NetworkUuids": [nobody]}), "l3NetworkUuids"),
    ];
    for (message, params, expected) in cases {
        let (code, field, text) = cloud.refusal(message, params);
        assert_eq!((code, field.as_deref()), (Code::NotFound, Some(expected)), "{text}");
    }
}

#[test]
fn deleting_what_is_gone_succeeds() {
    let cloud = Cloud::empty();
    let nobody = json!({"uuid": "0123456789abcdef0123456789abcdef"});
    for message in
        ["DeleteZone", "DeleteHost", "DeleteL2Network", "DeleteL3Network", "DestroyVmInstance"]
    {
        cloud.call(message, nobody.clone()).unwrap();
    }
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    cloud.call("CreateVmNic", json!({"l3NetworkUuid": l3})).unwrap();
    let cases = [
        ("DeleteZone", &fixture.zone, "Cluster"),
        ("DeleteCluster", &fixture.cluster, "Host"),
        ("DeleteL2Network", &fixture.pool, "L2VxlanNetwork"),
        ("DeleteL3Network", &l3, "VmNic"),
    ];
    for (message, uuid, by) in cases {
        let (code, _, text) = cloud.refusal(message, json!({"uuid": uuid}));
        assert_eq!(code, Code::InUse, "{text}");
        assert!(text.contains(by), "{text}");
    }
}

#[test]
fn vnis_are_unique_and_inside_a_range_of_the_pool() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let network =
        |name: &str, vni: Value| json!({"name": name, "poolUuid": fixture.pool, "vni": vni});
    cloud.call("CreateL2VxlanNetwork", network("a", json!(101))).unwrap();
    let (code, field, text) = cloud.refusal("CreateL2VxlanNetwork", network("b", json!(101)));
    assert_eq!((code, field.as_deref()), (Code::VniExhausted, Some("vni")), "{text}");
    let (code, field, _) = cloud.refusal("CreateL2VxlanNetwork", network("b", json!(104)));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("vni")));
    for name in ["b", "c", "d"] {
        cloud.call("CreateL2VxlanNetwork", network(name, Value::Null)).unwrap();
    }
    let (code, field, _) = cloud.refusal("CreateL2VxlanNetwork", network("e", Value::Null));
    assert_eq!((code, field.as_deref()), (Code::VniExhausted, Some("poolUuid")));
    let other =
        cloud.made("CreateL2VxlanNetworkPool", json!({"name": "q", "zoneUuid": fixture.zone}));
    let overlap = json!({"name": "s", "startVni": 103, "endVni": 110, "l2NetworkUuid": other});
    assert_eq!(cloud.refusal("CreateVniRange", overlap).1.as_deref(), Some("startVni"));
    let backwards = json!({"name": "s", "startVni": 9, "endVni": 8, "l2NetworkUuid": other});
    assert_eq!(cloud.refusal("CreateVniRange", backwards).1.as_deref(), Some("endVni"));
}

#[test]
fn ranges_keep_zstacks_rules() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let with = |field: &str, value: &str| {
        let mut params = range(&l3, "10.0.0.20", "10.0.0.30");
        params[field] = value.into();
        params
    };
    let cases = [
        (with("endIp", "10.0.0.19"), "endIp"),
        (with("endIp", "10.0.1.1"), "endIp"),
        (with("startIp", "10.0.0.12"), "startIp"),
        (with("startIp", "10.0.0.0"), "startIp"),
        (with("endIp", "10.0.0.255"), "endIp"),
        (with("gateway", "10.0.0.25"), "gateway"),
        (with("gateway", "10.0.1.1"), "gateway"),
        (with("gateway", "10.0.0.2"), "gateway"),
        (with("netmask", "255.255.255.255"), "netmask"),
        (with("netmask", "255.0.255.0"), "netmask"),
        (with("startIp", "fd00::1"), "startIp"),
        (with("startIp", "224.0.0.1"), "startIp"),
    ];
    for (params, expected) in cases {
        let (code, field, text) = cloud.refusal("AddIpRange", params.clone());
        assert_eq!(
            (code, field.as_deref()),
            (Code::InvalidArgument, Some(expected)),
            "{params} {text}"
        );
    }
    cloud.call("AddIpRange", range(&l3, "10.0.0.20", "10.0.0.30")).unwrap();
}

#[test]
fn a_full_range_and_a_taken_address_are_refused() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let nic = |ip: Value| json!({"l3NetworkUuid": l3, "ip": ip});
    cloud.call("CreateVmNic", nic(json!("10.0.0.11"))).unwrap();
    let (code, field, _) = cloud.refusal("CreateVmNic", nic(json!("10.0.0.11")));
    assert_eq!((code, field.as_deref()), (Code::IpExhausted, Some("ip")));
    let (code, field, _) = cloud.refusal("CreateVmNic", nic(json!("10.0.0.14")));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("ip")));
    for _ in 0..3 {
        cloud.call("CreateVmNic", nic(Value::Null)).unwrap();
    }
    let (code, field, text) = cloud.refusal("CreateVmNic", nic(Value::Null));
    assert_eq!((code, field.as_deref()), (Code::IpExhausted, Some("l3NetworkUuid")), "{text}");
}

#[test]
fn a_pool_is_attached_once_with_its_network_named() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let attach = json!({"l2NetworkUuid": fixture.pool, "clusterUuid": fixture.cluster});
    let twice = cloud.call("AttachL2NetworkToCluster", attach).unwrap_err();
    assert_eq!(twice.code, Code::OperationFailed);
    let cluster = cloud.made(
        "CreateCluster",
        json!({"name": "d", "zoneUuid": fixture.zone, "hypervisorType": "KVM"}),
    );
    let attach = json!({"l2NetworkUuid": fixture.pool, "clusterUuid": cluster});
    let tag = |cidr: &str| {
        format!("l2NetworkUuid::{}::clusterUuid::{cluster}::cidr::{cidr}", fixture.pool)
    };
    for tags in [vec![], vec![tag("{nonsense}")], vec![tag("{10.0.0.0/8}"), tag("{11.0.0.0/8}")]] {
        let error = cloud.call_tagged("AttachL2NetworkToCluster", attach.clone(), &tags);
        assert_eq!(error.unwrap_err().field.as_deref(), Some("systemTags"), "{tags:?}");
    }
    cloud.call_tagged("AttachL2NetworkToCluster", attach, &[tag("{10.0.0.0/8}")]).unwrap();
}

#[test]
fn a_uuid_names_one_resource_of_whatever_kind() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let params = json!({"name": "n", "poolUuid": fixture.pool});
    let taken = model::id::parse_uuid(&fixture.pool);
    let error = cloud.run("CreateL2VxlanNetwork", params, &[], taken).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::UuidTaken, Some("resourceUuid")));
    assert!(error.message.contains("L2VxlanNetworkPool"), "{error}");
}
