//! What hosts say of their devices decides what is attached, and where tunnels end.

use std::{net::IpAddr, sync::Arc};

use model::{
    Code, Id, Kind, Resource,
    resource::{
        l2_attachment::L2NetworkClusterRef, l2_network::L2Network, vm_instance::VmInstance,
        vtep::Vtep,
    },
    status::{HostDevice, HostStatus},
};
use serde_json::json;
use store::Read;

use crate::{
    harness::{Cloud, Fixture},
    l2::{into_cluster, no_vlan, vlan},
};

const ATTACH: &str = "AttachL2NetworkToCluster";

/// A device that is up.
fn device(name: &str, addresses: &[&str]) -> HostDevice {
    let addresses = addresses.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect();
    let (mtu_bytes, is_up, is_ethernet) = (1500, true, true);
    HostDevice { name: name.to_owned(), mtu_bytes, is_up, is_ethernet, is_owned: false, addresses }
}

/// A host is connected, and has said that it has these devices.
fn says(cloud: &mut Cloud, host: &str, devices: &[HostDevice]) {
    cloud.acked(host, 0);
    let host = host.parse().unwrap();
    let status =
        HostStatus { devices: Some(Arc::from(devices)), ..cloud.board.status(host).clone() };
    cloud.board.put(host, status);
}

fn instance(l3: &str) -> serde_json::Value {
    json!({"name": "vm", "l3NetworkUuids": [l3]})
}

#[test]
fn a_network_is_attached_where_each_connected_host_has_its_interface() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let [one, two] = fixture.hosts.clone();
    let l2 = vlan(&cloud, &fixture, 10);
    says(&mut cloud, &one, &[device("eth0", &[]), device("eth1", &[])]);
    let refused = |cloud: &Cloud| {
        let (code, field, text) = cloud.refusal(ATTACH, into_cluster(&fixture, &l2));
        assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("clusterUuid")));
        let there = l2_attachment_count(cloud, &l2);
        assert_eq!(there, 0, "nothing is attached");
        text
    };
    for (devices, why) in [
        (vec![device("eth7", &[])], "has no interface eth0"),
        (vec![HostDevice { is_up: false, ..device("eth0", &[]) }], "eth0 is down"),
        (vec![HostDevice { is_owned: true, ..device("eth0", &[]) }], "nomaster"),
        (vec![HostDevice { is_ethernet: false, ..device("eth0", &[]) }], "no Ethernet"),
    ] {
        says(&mut cloud, &two, &devices);
        let text = refused(&cloud);
        assert!(text.contains(&two) && text.contains(why), "{text}");
    }
    // One that is away may have it.
    cloud.lost(&two);
    cloud.call(ATTACH, into_cluster(&fixture, &l2)).unwrap();
}

#[test]
fn an_instance_goes_where_the_interface_of_its_network_is() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let [one, two] = fixture.hosts.clone();
    for host in [&one, &two] {
        says(&mut cloud, host, &[device("eth0", &[])]);
    }
    let l2 = no_vlan(&cloud, &fixture, "eth0");
    cloud.call(ATTACH, into_cluster(&fixture, &l2)).unwrap();
    let l3 = cloud.made("CreateL3Network", json!({"name": "n", "l2NetworkUuid": l2}));
    let range = json!({"name": "r", "l3NetworkUuid": l3, "networkCidr": "10.9.0.0/24"});
    cloud.call("AddIpRangeByNetworkCidr", range).unwrap();
    says(&mut cloud, &one, &[device("eth1", &[])]);
    let made = cloud.made("CreateVmInstance", instance(&l3));
    let host = cloud.get::<VmInstance>(made.parse().unwrap()).unwrap().host_uuid.unwrap();
    assert_eq!(host.to_string(), two);
    says(&mut cloud, &two, &[]);
    let (code, _, text) = cloud.refusal("CreateVmInstance", instance(&l3));
    assert_eq!(code, Code::NoHost);
    assert!(text.contains("has no interface eth0"), "{text}");
}

/// The pool of the fixture is attached already, with the hosts' management addresses.
fn other_pool(cloud: &Cloud, fixture: &Fixture) -> String {
    cloud.made("CreateL2VxlanNetworkPool", json!({"name": "q", "zoneUuid": fixture.zone}))
}

fn attach(cloud: &Cloud, fixture: &Fixture, pool: &str, cidr: &str) -> Result<(), String> {
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{}::cidr::{{{cidr}}}", fixture.cluster);
    let done = cloud.run(ATTACH, into_cluster(fixture, pool), &[tag], None);
    done.map(|_| ()).map_err(|error| format!("{error:?}"))
}

fn vteps(cloud: &Cloud, pool: &str) -> Vec<String> {
    let pool: Id<L2Network> = pool.parse().unwrap();
    let rows = cloud.snapshot().list(Kind::Vtep).collect::<Vec<_>>();
    let vteps = rows.iter().filter_map(|row| Vtep::of(row)).filter(|vtep| vtep.pool_uuid == pool);
    let mut ips: Vec<String> = vteps.map(|vtep| vtep.vtep_ip.to_string()).collect();
    ips.sort();
    ips
}

fn l2_attachment_count(cloud: &Cloud, l2: &str) -> usize {
    let l2: Id<L2Network> = l2.parse().unwrap();
    let rows = cloud.snapshot().list(Kind::L2NetworkClusterRef).collect::<Vec<_>>();
    let attached = rows.iter().filter_map(|row| L2NetworkClusterRef::of(row));
    attached.filter(|attached| attached.l2_network_uuid == l2).count()
}

#[test]
fn tunnels_end_at_an_address_that_the_host_has_in_the_cidr_and_follow_it() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let [one, two] = fixture.hosts.clone();
    let pool = other_pool(&cloud, &fixture);
    says(&mut cloud, &one, &[device("eth1", &["198.51.100.7", "198.51.100.5", "203.0.113.1"])]);
    says(&mut cloud, &two, &[device("eth1", &["203.0.113.2"])]);
    let refused = attach(&cloud, &fixture, &pool, "198.51.100.0/24").unwrap_err();
    assert!(refused.contains(&two) && refused.contains("has no address in"), "{refused}");
    assert_eq!(vteps(&cloud, &pool), Vec::<String>::new(), "nothing half made");

    says(&mut cloud, &two, &[device("lo", &["198.51.100.9"])]);
    attach(&cloud, &fixture, &pool, "198.51.100.0/24").unwrap();
    assert_eq!(vteps(&cloud, &pool), ["198.51.100.5", "198.51.100.9"]);

    // An address goes, another one comes: the tunnels follow when the operator says so.
    says(&mut cloud, &one, &[device("eth1", &["198.51.100.7"])]);
    assert_eq!(vteps(&cloud, &pool), ["198.51.100.5", "198.51.100.9"]);
    cloud.call("ReconnectHost", json!({"uuid": one})).unwrap();
    assert_eq!(vteps(&cloud, &pool), ["198.51.100.7", "198.51.100.9"]);
    // One without any keeps what it had, and its host says that it lacks it.
    says(&mut cloud, &one, &[device("eth1", &[])]);
    cloud.call("ReconnectHost", json!({"uuid": one})).unwrap();
    assert_eq!(vteps(&cloud, &pool), ["198.51.100.7", "198.51.100.9"]);
}
