//! L2 networks: physical ones, their tags, who can be brought together, remote VTEPs.

use model::{
    Code,
    resource::{
        l2_attachment::L2NetworkClusterRef,
        l2_network::{L2Network, Segment},
        remote_vtep::RemoteVtep,
    },
};
use serde_json::{Value, json};

use crate::harness::{ADMINISTRATOR, Cloud, Fixture};

/// A VLAN on eth0.
pub(crate) fn vlan(cloud: &Cloud, fixture: &Fixture, vlan: u16) -> String {
    let params = json!({
        "name": format!("vlan-{vlan}"), "zoneUuid": fixture.zone, "physicalInterface": "eth0",
        "vlan": vlan,
    });
    cloud.made("CreateL2VlanNetwork", params)
}

/// The physical network of an interface.
pub(crate) fn no_vlan(cloud: &Cloud, fixture: &Fixture, interface: &str) -> String {
    let params =
        json!({"name": interface, "zoneUuid": fixture.zone, "physicalInterface": interface});
    cloud.made("CreateL2NoVlanNetwork", params)
}

/// The fields that bring an L2 network into the cluster.
pub(crate) fn into_cluster(fixture: &Fixture, l2: &str) -> Value {
    json!({"l2NetworkUuid": l2, "clusterUuid": fixture.cluster})
}

fn segment(cloud: &Cloud, l2: &str) -> Segment {
    cloud.get::<L2Network>(l2.parse().unwrap()).unwrap().segment
}

fn uuids(answer: &Value) -> Vec<&str> {
    answer["inventories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l2| l2["uuid"].as_str().unwrap())
        .collect()
}

#[test]
fn a_vlan_gets_another_tag_or_none_and_its_attachments_with_it() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l2 = vlan(&cloud, &fixture, 10);
    cloud.call("AttachL2NetworkToCluster", into_cluster(&fixture, &l2)).unwrap();
    cloud.call("ChangeL2NetworkVlanId", json!({"uuid": l2, "vlan": 11})).unwrap();
    assert_eq!(segment(&cloud, &l2), Segment::Vlan { vlan: 11 });
    let other = vlan(&cloud, &fixture, 10);
    cloud.call("AttachL2NetworkToCluster", into_cluster(&fixture, &other)).unwrap();
    let back = json!({"uuid": l2, "vlan": 10});
    let (code, field, text) = cloud.refusal("ChangeL2NetworkVlanId", back);
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("vlan")));
    assert!(text.contains("VLAN 10 of eth0"), "{text}");
    let untagged = json!({"uuid": l2, "type": "L2NoVlanNetwork"});
    cloud.call("ChangeL2NetworkVlanId", untagged).unwrap();
    assert_eq!(segment(&cloud, &l2), Segment::NoVlan);
    let attached = cloud.contents();
    let attached = attached.iter().filter_map(<L2NetworkClusterRef as model::Resource>::of);
    let wires: Vec<_> = attached.filter(|r| r.l2_network_uuid.to_string() == l2).collect();
    assert_eq!((wires[0].physical_interface.as_deref(), wires[0].vlan), (Some("eth0"), None));
}

#[test]
fn a_tag_goes_with_a_vlan_and_with_nothing_else() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (tagged, plain) = (vlan(&cloud, &fixture, 10), no_vlan(&cloud, &fixture, "eth1"));
    let cases = [
        (json!({"uuid": tagged}), "vlan"),
        (json!({"uuid": tagged, "type": "L2NoVlanNetwork", "vlan": 5}), "vlan"),
        (json!({"uuid": plain, "vlan": 5}), "vlan"),
        (json!({"uuid": tagged, "vlan": 4095}), "vlan"),
        (json!({"uuid": fixture.pool, "vlan": 5}), "uuid"),
    ];
    for (params, expected) in cases {
        let (code, field, text) = cloud.refusal("ChangeL2NetworkVlanId", params.clone());
        let seen = (code, field.as_deref());
        assert_eq!(seen, (Code::InvalidArgument, Some(expected)), "{params} {text}");
    }
    for tag in [0, 4095] {
        let params = json!({
            "name": "v", "zoneUuid": fixture.zone, "physicalInterface": "eth0", "vlan": tag,
        });
        assert_eq!(cloud.refusal("CreateL2VlanNetwork", params).1.as_deref(), Some("vlan"));
    }
}

#[test]
fn a_tag_stays_while_a_host_is_away() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l2 = vlan(&cloud, &fixture, 10);
    cloud.call("AttachL2NetworkToCluster", into_cluster(&fixture, &l2)).unwrap();
    cloud.lost(&fixture.hosts[1]);
    let (code, _, text) = cloud.refusal("ChangeL2NetworkVlanId", json!({"uuid": l2, "vlan": 11}));
    assert_eq!(code, Code::OperationFailed, "{text}");
    assert!(text.contains(&fixture.hosts[1]), "{text}");
}

#[test]
fn candidates_are_what_can_be_attached() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (one, two) = (vlan(&cloud, &fixture, 10), vlan(&cloud, &fixture, 10));
    let plain = no_vlan(&cloud, &fixture, "eth0");
    let networks = || {
        let params = json!({"clusterUuid": fixture.cluster});
        cloud.look(ADMINISTRATOR, "GetCandidateL2NetworksForAttachingCluster", params).unwrap()
    };
    let mut all = [one.as_str(), &two, &plain];
    all.sort_unstable();
    let mut found = networks();
    let mut seen = uuids(&found);
    seen.sort_unstable();
    assert_eq!(seen, all, "the pool is there already");
    cloud.call("AttachL2NetworkToCluster", into_cluster(&fixture, &one)).unwrap();
    found = networks();
    assert_eq!(uuids(&found), [plain.as_str()], "the other VLAN would meet the first");
    let clusters = |l2: &str| {
        let params = json!({"l2NetworkUuid": l2, "clusterTypes": ["zstack"]});
        let name = "GetCandidateClustersForAttachingL2Network";
        let answer = cloud.look(ADMINISTRATOR, name, params).unwrap();
        uuids(&answer).len()
    };
    assert_eq!([&one, &two, &plain].map(|l2| clusters(l2)), [0, 0, 1]);
    let params = json!({"l2NetworkUuid": one, "clusterTypes": ["bare"]});
    let name = "GetCandidateClustersForAttachingL2Network";
    let error = cloud.look(ADMINISTRATOR, name, params).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("clusterTypes"));
}

#[test]
fn a_remote_vtep_is_nobody_elses_address_and_goes_with_its_pool() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let with = |ip: &str| {
        let mut params = into_cluster(&fixture, &fixture.pool);
        params["remoteVtepIp"] = json!(ip);
        params
    };
    for wrong in ["172.30.0.1", "224.0.0.1", "fd99::1", "127.0.0.1"] {
        let (code, field, text) = cloud.refusal("CreateVxlanPoolRemoteVtep", with(wrong));
        let seen = (code, field.as_deref());
        assert_eq!(seen, (Code::InvalidArgument, Some("remoteVtepIp")), "{text}");
    }
    cloud.call("CreateVxlanPoolRemoteVtep", with("172.30.0.9")).unwrap();
    let twice = cloud.refusal("CreateVxlanPoolRemoteVtep", with("172.30.0.9"));
    assert_eq!(twice.0, Code::OperationFailed);
    let host = json!({"name": "h3", "managementIp": "172.30.0.9", "clusterUuid": fixture.cluster});
    assert!(cloud.refusal("AddKVMHost", host).2.contains("remote VTEP"));
    cloud.call("DetachL2NetworkFromCluster", into_cluster(&fixture, &fixture.pool)).unwrap();
    let left = cloud.contents();
    assert!(!left.iter().any(|row| <RemoteVtep as model::Resource>::of(row).is_some()));
    let (code, field, _) = cloud.refusal("CreateVxlanPoolRemoteVtep", with("172.30.0.9"));
    assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("clusterUuid")));
}

#[test]
fn types_are_listed() {
    let cloud = Cloud::empty();
    let types = |name: &str| cloud.look(ADMINISTRATOR, name, json!({})).unwrap()["types"].clone();
    assert!(types("GetL2NetworkTypes").as_array().unwrap().contains(&json!("L2VlanNetwork")));
    assert_eq!(types("GetVSwitchTypes"), json!(["LinuxBridge"]));
}
