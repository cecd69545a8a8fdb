//! Addresses of hosts are not given to instances on the same wire.

use model::{Code, Id, resource::host::Host, status::HostDevice};
use serde_json::{Value, json};

use crate::harness::{Cloud, Fixture, range};

/// An L3 network of a physical one on eth0, with a tag or without.
fn l3(cloud: &Cloud, fixture: &Fixture, vlan: Option<u16>) -> (String, String) {
    let mut params = json!({"name": "wire", "zoneUuid": fixture.zone, "physicalInterface": "eth0"});
    let message = match vlan {
        Some(vlan) => {
            params["vlan"] = json!(vlan);
            "CreateL2VlanNetwork"
        }
        None => "CreateL2NoVlanNetwork",
    };
    let l2 = cloud.made(message, params);
    let l3 = cloud.made("CreateL3Network", json!({"name": "l3", "l2NetworkUuid": l2}));
    (l2, l3)
}

fn into(fixture: &Fixture, l2: &str) -> Value {
    json!({"l2NetworkUuid": l2, "clusterUuid": fixture.cluster})
}

fn named(cloud: &Cloud, message: &str, params: Value, parts: &[&str]) {
    let (code, _, text) = cloud.refusal(message, params);
    assert_eq!(code, Code::InUse, "{text}");
    parts.iter().for_each(|part| assert!(text.contains(part), "{text}"));
}

/// 24 bits around the hosts.
fn around(l3: &str, low: &str, high: &str) -> Value {
    let mut params = range(l3, low, high);
    params["gateway"] = json!("172.30.0.254");
    params
}

/// A host says where an address of its is.
fn says(cloud: &mut Cloud, host: &str, device: &str, address: &str) {
    let host: Id<Host> = host.parse().unwrap();
    let mut status = cloud.board.status(host).clone();
    let addresses = vec![address.parse().unwrap()];
    let named = |name: &str, addresses| HostDevice {
        name: name.to_owned(),
        is_up: true,
        is_ethernet: true,
        addresses,
        ..HostDevice::default()
    };
    let mut devices = vec![named(device, addresses)];
    if device != "eth0" {
        devices.push(named("eth0", Vec::new()));
    }
    status.devices = Some(devices.into());
    cloud.board.put(host, status);
}

#[test]
fn a_range_does_not_give_out_the_address_of_a_host_on_its_wire() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let (l2, l3) = l3(&cloud, &fixture, None);
    cloud.call("AttachL2NetworkToCluster", into(&fixture, &l2)).unwrap();
    let wrong = around(&l3, "172.30.0.1", "172.30.0.9");
    named(&cloud, "AddIpRange", wrong.clone(), &["172.30.0.1 of host h1", "beside it"]);
    let wrong_too = around(&l3, "172.30.0.2", "172.30.0.2");
    named(&cloud, "AddIpRange", wrong_too, &["172.30.0.2 of host h2"]);
    // The host's only interface carries the network: it is in the subnet, and keeps its address.
    cloud.call("AddIpRange", around(&l3, "172.30.0.3", "172.30.0.9")).unwrap();
    for (message, params) in [
        (
            "AddKVMHost",
            json!({"name": "h3", "managementIp": "172.30.0.5",
            "clusterUuid": fixture.cluster}),
        ),
        ("UpdateHost", json!({"uuid": fixture.hosts[0], "managementIp": "172.30.0.5"})),
    ] {
        named(&cloud, message, params, &["172.30.0.5 is in IP range", "another address"]);
    }
    // That wire is another one than the hosts' addresses are on.
    for host in [0, 1] {
        let address = format!("172.30.0.{}", host + 1);
        says(&mut cloud, &fixture.hosts[host], "eth1", &address);
    }
    cloud.call("AddIpRange", around(&l3, "172.30.0.1", "172.30.0.2")).unwrap();
}

#[test]
fn a_network_with_the_address_of_a_host_does_not_come_to_it() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (l2, l3) = l3(&cloud, &fixture, None);
    cloud.call("AddIpRange", around(&l3, "172.30.0.1", "172.30.0.9")).unwrap();
    named(&cloud, "AttachL2NetworkToCluster", into(&fixture, &l2), &["host h1"]);
}

#[test]
fn a_vlan_may_have_the_addresses_of_hosts_that_are_not_on_it() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let (l2, l3) = l3(&cloud, &fixture, Some(7));
    cloud.call("AttachL2NetworkToCluster", into(&fixture, &l2)).unwrap();
    says(&mut cloud, &fixture.hosts[1], "eth0.7", "172.30.0.2");
    let wrong = around(&l3, "172.30.0.1", "172.30.0.9");
    named(&cloud, "AddIpRange", wrong, &["172.30.0.2 of host h2"]);
    says(&mut cloud, &fixture.hosts[1], "eth0", "172.30.0.2");
    cloud.call("AddIpRange", around(&l3, "172.30.0.1", "172.30.0.9")).unwrap();
}
