//! ZStack's own cases of L2 networks, by their numbers in our list of them.

use std::thread;

use model::{
    Code, Kind,
    resource::{l2_network::L2Network, vtep::Vtep},
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{Cloud, Fixture},
    l2::{into_cluster, no_vlan, vlan},
};

const ATTACH: &str = "AttachL2NetworkToCluster";

/// P01: what meets in a cluster cannot both be there; elsewhere it can.
#[test]
fn p01_networks_of_one_interface_and_tag_meet_in_a_cluster() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let plain = [no_vlan(&cloud, &fixture, "eth0"), no_vlan(&cloud, &fixture, "eth0")];
    let tagged = [vlan(&cloud, &fixture, 10), vlan(&cloud, &fixture, 10)];
    for [first, second] in [&plain, &tagged] {
        cloud.call(ATTACH, into_cluster(&fixture, first)).unwrap();
        let (code, field, text) = cloud.refusal(ATTACH, into_cluster(&fixture, second));
        let seen = (code, field.as_deref());
        assert_eq!(seen, (Code::InvalidArgument, Some("l2NetworkUuid")), "{text}");
        let (code, _, _) = cloud.refusal(ATTACH, into_cluster(&fixture, first));
        assert_eq!(code, Code::OperationFailed, "it is there already");
    }
    cloud.call(ATTACH, into_cluster(&fixture, &vlan(&cloud, &fixture, 11))).unwrap();
    let cluster = json!({"name": "d", "zoneUuid": fixture.zone, "hypervisorType": "KVM"});
    let other = Fixture { cluster: cloud.made("CreateCluster", cluster), ..fixture.clone() };
    cloud.call(ATTACH, into_cluster(&other, &tagged[1])).unwrap();
    cloud.call("DetachL2NetworkFromCluster", into_cluster(&fixture, &plain[0])).unwrap();
    cloud.call(ATTACH, into_cluster(&fixture, &plain[1])).unwrap();
}

/// P01: of many who attach at once exactly one wins.
#[test]
fn p01_of_concurrent_attachments_one_wins() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let networks: Vec<String> = (0..8).map(|_| vlan(&cloud, &fixture, 10)).collect();
    let attach = |l2: &str| cloud.run(ATTACH, into_cluster(&fixture, l2), &[], None).is_ok();
    let attach = &attach;
    let won: usize = thread::scope(|scope| {
        let threads: Vec<_> = networks.iter().map(|l2| scope.spawn(move || attach(l2))).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
    });
    assert_eq!(won, 1);
}

fn pool(cloud: &Cloud, fixture: &Fixture) -> String {
    cloud.made("CreateL2VxlanNetworkPool", json!({"name": "p", "zoneUuid": fixture.zone}))
}

fn vnis(pool: &str, start: u32, end: u32) -> Value {
    json!({"name": "r", "startVni": start, "endVni": end, "l2NetworkUuid": pool})
}

/// Nothing but a zone and a cluster, so that all VNIs are free.
fn bare() -> (Cloud, Fixture) {
    let cloud = Cloud::empty();
    let zone = cloud.made("CreateZone", json!({"name": "z"}));
    let cluster = json!({"name": "c", "zoneUuid": zone, "hypervisorType": "KVM"});
    let cluster = cloud.made("CreateCluster", cluster);
    (cloud, Fixture { zone, cluster, hosts: Default::default(), pool: String::new() })
}

#[test]
fn p11_vni_ranges_are_of_pools_and_do_not_overlap() {
    let (cloud, fixture) = bare();
    let pool = pool(&cloud, &fixture);
    let plain = no_vlan(&cloud, &fixture, "eth0");
    assert_eq!(cloud.refusal("CreateVniRange", vnis(&plain, 1, 2)).0, Code::InvalidArgument);
    assert_eq!(cloud.refusal("CreateVniRange", vnis(&pool, 9, 8)).0, Code::InvalidArgument);
    cloud.made("CreateVniRange", vnis(&pool, 100, 10_000));
    cloud.made("CreateVniRange", vnis(&pool, 20, 80));
    for (start, end) in [(100, 10_000), (101, 1_000), (50, 100), (50, 20_000)] {
        let (code, _, text) = cloud.refusal("CreateVniRange", vnis(&pool, start, end));
        assert_eq!(code, Code::InvalidArgument, "{start}-{end}: {text}");
    }
}

#[test]
fn p12_a_pool_needs_its_cidr_in_braces_and_carries_no_l3_network() {
    let (cloud, fixture) = bare();
    let pool = pool(&cloud, &fixture);
    let attach = |cidr: &str| {
        let cluster = &fixture.cluster;
        let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{cidr}");
        cloud.call_tagged(ATTACH, into_cluster(&fixture, &pool), &[tag])
    };
    for wrong in ["192.168.100.0/24", "{192.168.100.0/33}", "{192.168.100}", "{}"] {
        let error = attach(wrong).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument, "{wrong}");
    }
    assert_eq!(cloud.refusal(ATTACH, into_cluster(&fixture, &pool)).0, Code::InvalidArgument);
    attach("{192.168.100.0/24}").unwrap();
    let l3 = json!({"name": "l3", "l2NetworkUuid": pool});
    assert_eq!(cloud.refusal("CreateL3Network", l3).0, Code::InvalidArgument);
}

#[test]
fn p13_vnis_are_chosen_or_given_and_run_out() {
    let (cloud, fixture) = bare();
    let pool_uuid = pool(&cloud, &fixture);
    cloud.made("CreateVniRange", vnis(&pool_uuid, 100, 10_000));
    let network = |pool: &str, vni: Value| json!({"name": "n", "poolUuid": pool, "vni": vni});
    for vni in [200, 100, 10_000, 1_001] {
        cloud.made("CreateL2VxlanNetwork", network(&pool_uuid, json!(vni)));
    }
    for (vni, code) in [(200, Code::VniExhausted), (99, Code::InvalidArgument)] {
        let refusal = cloud.refusal("CreateL2VxlanNetwork", network(&pool_uuid, json!(vni)));
        assert_eq!(refusal.0, code, "{}", refusal.2);
    }
    let elsewhere = cloud.made("CreateZone", json!({"name": "y"}));
    let mut wrong = network(&pool_uuid, Value::Null);
    wrong["zoneUuid"] = json!(elsewhere);
    assert_eq!(cloud.refusal("CreateL2VxlanNetwork", wrong).1.as_deref(), Some("zoneUuid"));
    let small = pool(&cloud, &fixture);
    cloud.made("CreateVniRange", vnis(&small, 20_000, 20_001));
    for _ in 0..2 {
        cloud.made("CreateL2VxlanNetwork", network(&small, Value::Null));
    }
    let (code, _, text) = cloud.refusal("CreateL2VxlanNetwork", network(&small, Value::Null));
    assert_eq!(code, Code::VniExhausted, "{text}");
}

#[test]
fn p14_a_vxlan_network_lives_and_dies_with_its_pool() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let cluster = json!({"name": "d", "zoneUuid": fixture.zone, "hypervisorType": "KVM"});
    let cluster = cloud.made("CreateCluster", cluster);
    let host = json!({"name": "h3", "managementIp": "172.30.1.3", "clusterUuid": cluster});
    let host = cloud.made("AddKVMHost", host);
    cloud.acked(&host, 0);
    let pool = &fixture.pool;
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.30.1.0/24}}");
    let params = json!({"l2NetworkUuid": pool, "clusterUuid": cluster});
    cloud.call_tagged(ATTACH, params, &[tag]).unwrap();
    let vteps = |cloud: &Cloud| -> Vec<String> {
        let rows = cloud.contents();
        let vteps = rows.iter().filter_map(<Vtep as model::Resource>::of);
        let mut ips: Vec<String> = vteps.map(|vtep| vtep.vtep_ip.to_string()).collect();
        ips.sort_unstable();
        ips
    };
    assert_eq!(vteps(&cloud), ["172.30.0.1", "172.30.0.2", "172.30.1.3"]);
    let l3 = cloud.l3(&fixture, "red");
    let shown = {
        let snapshot = cloud.snapshot();
        let record = snapshot.list(Kind::L2Network).find(|row| {
            <L2Network as model::Resource>::of(row).is_some_and(|l2| l2.segment.pool().is_some())
        });
        let observed = netloom_control::inventory::Observed::new(&snapshot, &cloud.board);
        netloom_control::inventory::show(&record.unwrap(), &observed)
    };
    assert_eq!(shown["attachedClusterUuids"].as_array().unwrap().len(), 2);
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[0]});
    cloud.made("CreateVmInstance", vm);
    cloud.call("DeleteHost", json!({"uuid": host})).unwrap();
    assert_eq!(vteps(&cloud), ["172.30.0.1", "172.30.0.2"]);
    cloud.call("DeleteL2Network", json!({"uuid": pool})).unwrap();
    let gone = [
        Kind::L2Network,
        Kind::VniRange,
        Kind::Vtep,
        Kind::L2NetworkClusterRef,
        Kind::L3Network,
        Kind::IpRange,
        Kind::VmNic,
    ];
    for kind in gone {
        assert_eq!(cloud.snapshot().total(kind), 0, "{kind:?}");
    }
    assert_eq!(cloud.snapshot().total(Kind::VmInstance), 1);
}
