//! What a deletion takes along (ZStack's cascades), and what it leaves.

use model::{Code, Id, Kind, resource::vm_instance::VmInstance};
use serde_json::json;
use store::Read;

use crate::harness::{Cloud, Fixture};

fn count(cloud: &Cloud, kind: Kind) -> u64 {
    cloud.snapshot().total(kind)
}

/// An instance with a NIC on `l3`.
fn instance(cloud: &Cloud, fixture: &Fixture, l3: &str) -> Id<VmInstance> {
    let params = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[0]});
    cloud.made("CreateVmInstance", params).parse().unwrap()
}

#[test]
fn an_l3_network_takes_its_ranges_and_nics_and_leaves_instances() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = instance(&cloud, &fixture, &l3);
    cloud.call("DeleteL3Network", json!({"uuid": l3})).unwrap();
    for kind in [Kind::L3Network, Kind::IpRange, Kind::VmNic, Kind::UsedIp] {
        assert_eq!(count(&cloud, kind), 0, "{kind:?}");
    }
    assert_eq!(cloud.get(vm).unwrap().default_l3_network_uuid, None);
}

#[test]
fn a_range_takes_the_nics_that_have_its_addresses_and_no_others() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    instance(&cloud, &fixture, &red);
    let stays = instance(&cloud, &fixture, &blue);
    let range = cloud.children(Kind::IpRange, "l3NetworkUuid", &red);
    cloud.call("DeleteIpRange", range).unwrap();
    assert_eq!((count(&cloud, Kind::VmNic), count(&cloud, Kind::UsedIp)), (1, 1));
    assert_eq!(cloud.nics(&stays.to_string()).len(), 1);
    assert_eq!(count(&cloud, Kind::VmInstance), 2);
}

#[test]
fn a_host_on_which_an_instance_may_run_is_not_deleted() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = instance(&cloud, &fixture, &l3);
    let refused = |message: &str, uuid: &str| {
        let (code, _, text) = cloud.refusal(message, json!({"uuid": uuid}));
        assert_eq!(code, Code::InUse, "{text}");
        assert!(text.contains(&vm.to_string()), "{text}");
        text
    };
    refused("DeleteCluster", &fixture.cluster);
    refused("DeleteHost", &fixture.hosts[0]);
    cloud.call("StopVmInstance", json!({"uuid": vm})).unwrap();
    let text = refused("DeleteHost", &fixture.hosts[0]);
    assert!(text.contains("has not confirmed"), "{text}");
    cloud.give_up_releases();
    cloud.call("DeleteHost", json!({"uuid": fixture.hosts[0]})).unwrap();
    assert_eq!(count(&cloud, Kind::Vtep), 1, "the other host's");
}

#[test]
fn a_host_that_the_caller_vouches_is_dead_leaves_its_instances_stopped() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = instance(&cloud, &fixture, &l3);
    let params = json!({"name": "other", "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[1]});
    cloud.made("CreateVmInstance", params);
    let enforcing = json!({"uuid": fixture.hosts[0], "deleteMode": "Enforcing"});
    let (code, field, text) = cloud.refusal("DeleteHost", enforcing.clone());
    assert_eq!((code, field.as_deref()), (Code::InUse, Some("deleteMode")));
    assert!(text.contains("its agent is connected"), "{text}");
    cloud.lost(&fixture.hosts[0]);
    cloud.call("DeleteHost", enforcing).unwrap();
    assert_eq!(cloud.get(vm).unwrap().host_uuid, None);
    assert_eq!(cloud.nics(&vm.to_string())[0].host_uuid, None);
    for kind in [Kind::VmInstance, Kind::VmNic, Kind::UsedIp] {
        assert_eq!(count(&cloud, kind), 2, "{kind:?}");
    }
}

#[test]
fn a_zone_takes_everything() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    instance(&cloud, &fixture, &l3);
    cloud.call("DeleteZone", json!({"uuid": fixture.zone})).unwrap();
    let stays = [
        Kind::Account,
        Kind::Audit,
        Kind::GlobalConfig,
        Kind::NetworkServiceProvider,
        Kind::Release,
    ];
    for kind in Kind::ALL.iter().filter(|kind| !stays.contains(kind)) {
        assert_eq!(count(&cloud, *kind), 0, "{kind:?}");
    }
    assert_eq!(count(&cloud, Kind::Release), 1, "hosts may still hold its networks and NICs");
}

#[test]
fn a_cluster_takes_its_hosts_and_leaves_the_pool_and_the_instances() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = instance(&cloud, &fixture, &l3);
    cloud.call("StopVmInstance", json!({"uuid": vm})).unwrap();
    cloud.give_up_releases();
    cloud.call("DeleteCluster", json!({"uuid": fixture.cluster})).unwrap();
    for kind in [Kind::Cluster, Kind::Host, Kind::Vtep, Kind::L2NetworkClusterRef] {
        assert_eq!(count(&cloud, kind), 0, "{kind:?}");
    }
    let vm = cloud.get(vm).unwrap();
    assert_eq!((vm.cluster_uuid, vm.host_uuid), (None, None));
    assert_eq!(count(&cloud, Kind::L2Network), 2);
}
