//! A physical network in a lab.

use serde_json::json;

use crate::TestLab;

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
