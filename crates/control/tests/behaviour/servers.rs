//! Two servers on one store: what one decides while it has not yet seen what the other did.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use model::{Code, Error, Kind, Record, Resource, resource::release::Release};
use netloom_control::operation::Done;
use serde_json::{Value, json};
use store::Read;
use uuid::Uuid;

use crate::harness::{Cloud, Fixture, range};

pub(crate) type Message<'a> = (&'a str, Value);

/// `first` on one server, then `second` on another one that has not seen it: that one decides on
/// old state, and must decide again when its commit meets the newer head.
pub(crate) fn race(cloud: &Cloud, first: Message<'_>, second: Message<'_>) -> Result<Done, Error> {
    let behind = cloud.second_server();
    cloud.engine.delay_log();
    cloud.call(first.0, first.1).unwrap();
    let result = behind.run(second.0, second.1, &[], None);
    cloud.engine.show_log();
    cloud.store.follow().unwrap();
    result
}

/// Of two messages that exclude each other the second one is refused, with the first code; in the
/// other order with the second code.
fn only_the_first(setup: impl Fn(&Cloud, &Fixture) -> [Message<'static>; 2], codes: [Code; 2]) {
    for (reverse, code) in [false, true].into_iter().zip(codes) {
        let (cloud, fixture) = Cloud::with_two_hosts();
        let [a, b] = setup(&cloud, &fixture);
        let name = format!("{} and {}", a.0, b.0);
        let result = if reverse { race(&cloud, b, a) } else { race(&cloud, a, b) };
        assert_eq!(result.expect_err(&name).code, code, "{name}, reverse: {reverse}");
    }
}

#[test]
fn vnis_and_addresses_are_given_once() {
    let host = |fixture: &Fixture| {
        let cluster = &fixture.cluster;
        let host = json!({"name": "h", "managementIp": "172.30.0.9", "clusterUuid": cluster});
        ("AddKVMHost", host)
    };
    only_the_first(|_, f| [host(f), host(f)], [Code::InvalidArgument; 2]);
    let network = |name: &str, fixture: &Fixture| {
        ("CreateL2VxlanNetwork", json!({"name": name, "poolUuid": fixture.pool, "vni": 101}))
    };
    only_the_first(|_, f| [network("a", f), network("b", f)], [Code::VniExhausted; 2]);
    let nics = |cloud: &Cloud, fixture: &Fixture| {
        let nic = json!({"l3NetworkUuid": cloud.l3(fixture, "red"), "ip": "10.0.0.11"});
        [("CreateVmNic", nic.clone()), ("CreateVmNic", nic)]
    };
    only_the_first(nics, [Code::IpExhausted; 2]);
}

/// A new pool in the cluster.
fn attached(cloud: &Cloud, fixture: &Fixture, cidr: &str) -> String {
    let pool = json!({"name": "p", "zoneUuid": fixture.zone});
    let (pool, cluster) = (cloud.made("CreateL2VxlanNetworkPool", pool), &fixture.cluster);
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{{cidr}}}");
    let params = json!({"l2NetworkUuid": pool, "clusterUuid": cluster});
    cloud.call_tagged("AttachL2NetworkToCluster", params, &[tag]).unwrap();
    pool
}

fn vni_range(pool: &str) -> serde_json::Value {
    json!({"name": "r", "startVni": 200, "endVni": 300, "l2NetworkUuid": pool})
}

#[test]
fn ranges_do_not_overlap_across_parents() {
    let vnis = |cloud: &Cloud, fixture: &Fixture| {
        // Both with the VTEPs of the same hosts.
        let pool = || vni_range(&attached(cloud, fixture, "172.30.0.0/24"));
        [("CreateVniRange", pool()), ("CreateVniRange", pool())]
    };
    only_the_first(vnis, [Code::InvalidArgument; 2]);
    let range_and_vtep = |cloud: &Cloud, fixture: &Fixture| {
        cloud.made("CreateVniRange", vni_range(&attached(cloud, fixture, "172.30.0.0/24")));
        let pool = attached(cloud, fixture, "172.31.0.0/24");
        let vtep = json!({"hostUuid": fixture.hosts[0], "poolUuid": pool, "vtepIp": "172.30.0.1"});
        [("CreateVniRange", vni_range(&pool)), ("CreateVxlanVtep", vtep)]
    };
    only_the_first(range_and_vtep, [Code::InvalidArgument; 2]);
    let addresses = |cloud: &Cloud, fixture: &Fixture| {
        let l2 = json!({"name": "shared", "poolUuid": fixture.pool});
        let l2 = cloud.made("CreateL2VxlanNetwork", l2);
        let l3 = |name: &str| {
            let l3 = json!({"name": name, "l2NetworkUuid": l2});
            range(&cloud.made("CreateL3Network", l3), "10.0.0.10", "10.0.0.20")
        };
        [("AddIpRange", l3("a")), ("AddIpRange", l3("b"))]
    };
    only_the_first(addresses, [Code::InvalidArgument; 2]);
}

/// Both orders of two messages of which one deletes what the other uses: the second one either meets
/// that it is gone, or takes the user along. The harness checks that nothing points nowhere.
#[test]
fn what_is_being_used_while_it_is_deleted_leaves_nothing_behind() {
    let nic = |cloud: &Cloud, fixture: &Fixture| {
        let l3 = cloud.l3(fixture, "red");
        (l3.clone(), ("CreateVmNic", json!({"l3NetworkUuid": l3})))
    };
    let in_range = |cloud: &Cloud, fixture: &Fixture| {
        let (l3, create) = nic(cloud, fixture);
        [create, ("DeleteIpRange", cloud.children(Kind::IpRange, "l3NetworkUuid", &l3))]
    };
    let on_l3 = |cloud: &Cloud, fixture: &Fixture| {
        let (l3, create) = nic(cloud, fixture);
        [create, ("DeleteL3Network", json!({"uuid": l3}))]
    };
    let in_zone = |cloud: &Cloud, fixture: &Fixture| {
        let (_, create) = nic(cloud, fixture);
        [create, ("DeleteZone", json!({"uuid": fixture.zone}))]
    };
    type Setup<'a> = &'a dyn Fn(&Cloud, &Fixture) -> [Message<'static>; 2];
    let cases: [(Setup<'_>, Code); 3] =
        [(&in_range, Code::IpExhausted), (&on_l3, Code::NotFound), (&in_zone, Code::NotFound)];
    for (setup, gone) in cases {
        let (cloud, fixture) = Cloud::with_two_hosts();
        let [use_it, delete_it] = setup(&cloud, &fixture);
        let name = delete_it.0;
        race(&cloud, use_it, delete_it).expect(name);
        assert_eq!(cloud.dangling(), Vec::<String>::new(), "{name}");
        assert_eq!(cloud.snapshot().list(Kind::VmNic).filter(bound).count(), 0, "{name}");

        let (cloud, fixture) = Cloud::with_two_hosts();
        let [use_it, delete_it] = setup(&cloud, &fixture);
        assert_eq!(race(&cloud, delete_it, use_it).expect_err(name).code, gone, "{name}");
    }
}

#[test]
fn a_host_is_not_deleted_while_an_instance_is_put_on_it() {
    let messages = |cloud: &Cloud, fixture: &Fixture, is_stopped: bool| {
        let (l3, host) = (cloud.l3(fixture, "red"), &fixture.hosts[0]);
        let vm = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
        let delete = ("DeleteHost", json!({"uuid": host}));
        if !is_stopped {
            return [("CreateVmInstance", vm), delete];
        }
        let stopped = json!({"name": "vm", "l3NetworkUuids": [l3], "strategy": "CreateStopped"});
        let vm = cloud.made("CreateVmInstance", stopped);
        [("StartVmInstance", json!({"uuid": vm, "hostUuid": host})), delete]
    };
    for is_stopped in [false, true] {
        let (cloud, fixture) = Cloud::with_two_hosts();
        let [put, delete] = messages(&cloud, &fixture, is_stopped);
        assert_eq!(race(&cloud, put, delete).unwrap_err().code, Code::InUse);
        let (cloud, fixture) = Cloud::with_two_hosts();
        let [put, delete] = messages(&cloud, &fixture, is_stopped);
        assert_eq!(race(&cloud, delete, put).unwrap_err().code, Code::NotFound);
    }
}

fn bound(record: &std::sync::Arc<Record>) -> bool {
    record.home().is_some()
}

#[test]
fn what_is_being_used_is_not_deleted() {
    let in_vnis = |cloud: &Cloud, fixture: &Fixture| {
        let network = json!({"name": "n", "poolUuid": fixture.pool});
        let range = cloud.children(Kind::VniRange, "l2NetworkUuid", &fixture.pool);
        [("CreateL2VxlanNetwork", network), ("DeleteVniRange", range)]
    };
    only_the_first(in_vnis, [Code::InUse, Code::VniExhausted]);
    let on_pool = |cloud: &Cloud, fixture: &Fixture| {
        let l3 = cloud.l3(fixture, "red");
        let vm = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[0]});
        let pool = json!({"l2NetworkUuid": fixture.pool, "clusterUuid": fixture.cluster});
        [("CreateVmInstance", vm), ("DetachL2NetworkFromCluster", pool)]
    };
    only_the_first(on_pool, [Code::InUse, Code::NoHost]);
}

#[test]
fn a_pool_that_is_detached_leaves_no_vtep_on_a_new_host() {
    for reverse in [false, true] {
        let (cloud, fixture) = Cloud::with_two_hosts();
        let host = json!({
            "name": "h3", "managementIp": "172.30.0.3", "clusterUuid": fixture.cluster,
        });
        let pool = json!({"l2NetworkUuid": fixture.pool, "clusterUuid": fixture.cluster});
        let (add, detach) = (("AddKVMHost", host), ("DetachL2NetworkFromCluster", pool));
        let (first, second) = if reverse { (detach, add) } else { (add, detach) };
        race(&cloud, first, second).unwrap();
        assert_eq!(cloud.snapshot().list(Kind::Vtep).count(), 0, "reverse: {reverse}");
    }
}

/// What a handler looked at shows when somebody else changes it meanwhile: it decides again.
#[test]
fn a_pool_is_detached_without_a_look_at_the_nics_of_others() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[0]});
    let vm = cloud.made("CreateVmInstance", vm);
    let l2 = cloud.nics(&vm)[0].l2_network_uuid.to_string();
    let (zone, cluster) = (&fixture.zone, &fixture.cluster);
    let pool = cloud.made("CreateL2VxlanNetworkPool", json!({"name": "q", "zoneUuid": zone}));
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.31.0.0/24}}");
    let attachment = json!({"l2NetworkUuid": pool, "clusterUuid": cluster});
    cloud.call_tagged("AttachL2NetworkToCluster", attachment.clone(), &[tag]).unwrap();

    let behind = cloud.second_server();
    cloud.engine.delay_log();
    cloud.call("UpdateL2Network", json!({"uuid": l2, "name": "other"})).unwrap();
    behind.run("DetachL2NetworkFromCluster", attachment, &[], None).unwrap();
    assert_eq!(behind.decisions.load(Ordering::Relaxed), 1);
}

#[test]
fn a_release_names_its_objects_and_leaves_it_to_link_who_has_them() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let on = |name: &str, host: usize| json!({"name": name, "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[host]});
    let vm = cloud.made("CreateVmInstance", on("a", 0));
    let nic = cloud.nics(&vm).remove(0);
    // A host that joins meanwhile is told of the NIC and of its end by the same stream of commits.
    let join = ("CreateVmInstance", on("b", 1));
    race(&cloud, join, ("DestroyVmInstance", json!({"uuid": vm}))).unwrap();
    let snapshot = cloud.snapshot();
    let releases = snapshot.list(Kind::Release);
    let mut releases = releases.map(|row| Release::of(&row).unwrap().clone());
    let release = releases.find(|release| release.claims[0].network().is_some()).unwrap();
    let objects: BTreeSet<Uuid> = release.objects.iter().copied().collect();
    assert_eq!(objects, [nic.uuid.uuid(), nic.l2_network_uuid.uuid()].into());
    assert_eq!(release.hosts, None);
}
