//! Networks for tests, beside those of the example.

use serde_json::json;

use crate::{TestLab, rest::Rest};

/// Makes a pool of networks in GRE, whose VTEPs are those of the lab's VXLAN pool; its uuid.
pub fn gre_pool(rest: &Rest) -> String {
    let (zone, cluster) = (rest.uuid("/zones", "lab"), rest.uuid("/clusters", "cluster"));
    let pool = rest.made("/l2-networks/gre-pool", &json!({"name": "gre-pool", "zoneUuid": zone}));
    let range = json!({"name": "keys", "startVni": 1000, "endVni": 1099});
    rest.made(&format!("/l2-networks/vxlan-pool/{pool}/vni-ranges"), &range);
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.31.255.0/24}}");
    let body = json!({"systemTags": [tag]}).to_string();
    let path = format!("/l2-networks/{pool}/clusters/{cluster}");
    let attached = rest.clone().with("prefer", "wait=30").send("POST", &path, &body).unwrap();
    assert_eq!(attached.status, 200, "{attached:?}");
    pool
}

/// Lets hosts provide services to an L3 network.
///
/// # Panics
/// When they are not attached.
pub fn services(rest: &Rest, l3: &str, services: &[&str]) {
    let providers = rest.all("/network-services/providers");
    let flat = providers.iter().find(|provider| provider["type"] == "Flat").unwrap();
    let body = json!({"networkServices": {flat["uuid"].as_str().unwrap(): services}});
    rest.made(&format!("/l3-networks/{l3}/network-services"), &body);
}

/// How instances without software of their own come to addresses of an L3 network with DHCP:
/// `Client`, `Injected`, or `None` for tests that run clients in them.
///
/// # Panics
/// When that is refused.
pub fn addresses(rest: &Rest, l3: &str, how: &str) {
    let path = format!("/resource-configurations/dhcp/netnsAddresses/{l3}/actions");
    let body = json!({"updateResourceConfig": {"value": how}}).to_string();
    let changed = rest.clone().with("prefer", "wait=30").send("PUT", &path, &body).unwrap();
    assert_eq!(changed.status, 200, "{changed:?}");
}

/// Makes an L3 network with addresses of both families from 10.N.0.10 and fd00::N:10 on; its uuid.
pub fn l3(rest: &Rest, name: &str, l2: &str, number: u8) -> String {
    let l3 = rest.made("/l3-networks", &json!({"name": name, "l2NetworkUuid": l2}));
    let v4 = json!({"name": "v4", "startIp": format!("10.{number}.0.10"),
        "endIp": format!("10.{number}.0.99"), "netmask": "255.255.255.0",
        "gateway": format!("10.{number}.0.1")});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &v4);
    let v6 = json!({"name": "v6", "startIp": format!("fd0{number}::10"),
        "endIp": format!("fd0{number}::99"), "gateway": format!("fd0{number}::1"),
        "prefixLen": 64, "addressMode": "Stateful-DHCP"});
    rest.made(&format!("/l3-networks/{l3}/ipv6-ranges"), &v6);
    l3
}

/// Makes a public network on the NIC of the hosts, which is their underlay, too; with a VM on each
/// host: `one` on h1 has 172.31.255.101, `two` on h2 172.31.255.102.
pub fn public_network(lab: &TestLab) {
    let rest = lab.rest();
    let (zone, cluster) = (rest.uuid("/zones", "lab"), rest.uuid("/clusters", "cluster"));
    let l2 = json!({"name": "public", "zoneUuid": zone, "physicalInterface": "eth0"});
    let l2 = rest.made("/l2-networks/no-vlan", &l2);
    rest.made(&format!("/l2-networks/{l2}/clusters/{cluster}"), &json!({}));
    let l3 = rest.made("/l3-networks", &json!({"name": "public", "l2NetworkUuid": l2}));
    let range = json!({
        "name": "v4", "startIp": "172.31.255.100", "endIp": "172.31.255.120",
        "netmask": "255.255.255.0", "gateway": "172.31.255.1",
    });
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &range);
    for (name, host, address) in [("one", "h1", "172.31.255.101"), ("two", "h2", "172.31.255.102")]
    {
        let made = rest.create_vm(name, (&l3, host), &[address.parse().unwrap()]);
        assert_eq!(made.status, 200, "{made:?}");
    }
}

/// Gives DHCP the last address of a network whose range ends at .99. It has one by lot, which may be one
/// that a test chooses.
pub fn dhcp_last(rest: &Rest, l3: &str, prefix: &str) {
    let change = json!({"dhcpServerIp": format!("{prefix}.99")});
    let body = json!({"changeL3NetworkDhcpIpAddress": change}).to_string();
    let path = format!("/l3-networks/{l3}/dhcp-ip");
    let changed = rest.clone().with("prefer", "wait=30").send("PUT", &path, &body).unwrap();
    assert_eq!(changed.status, 200, "{changed:?}");
}
