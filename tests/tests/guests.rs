//! Guests that nobody configures: a machine that boots gets its addresses, its name and its user data
//! by itself. Needs root, and QEMU.

use std::net::IpAddr;

use hostnet::Namespace;
use netloom_tests::{
    TestLab, networks,
    rest::Rest,
    root_or_skip,
    traffic::{Ping, ping},
    vm::{Machine, exchange, image_of, install_guest},
};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];
/// The instance on the other host.
const PEER: &str = "10.3.0.12";
const USER_DATA: &str = "#!/bin/sh\necho made by its owner\n";
/// The same, as tags have it.
const USER_DATA_BASE64: &str = "IyEvYmluL3NoCmVjaG8gbWFkZSBieSBpdHMgb3duZXIK";
/// So many bytes go to the guest and come back.
const BULK: usize = 4 << 20;
/// What udhcpc runs with what it was told: addresses, the routes of option 121, the name.
const SCRIPT: &str = r#"printf '%s\n' '#!/bin/sh' '[ "$1" = bound ] || exit 0' \
'ip address add $ip/$mask dev $interface' \
'set -- $staticroutes; while [ -n "$1" ]; do [ "$2" = 0.0.0.0 ] && ip route add $1 dev $interface \
|| ip route add $1 via $2; shift 2; done' \
'[ -z "$hostname" ] || hostname $hostname' \
'echo "search $domain" >/etc/resolv.conf; for one in $dns; do echo "nameserver $one" >>/etc/resolv.conf; done' \
>/tmp/lease; chmod +x /tmp/lease"#;

/// A network in VXLAN whose guests netloom takes care of: by DHCP, by router advertisements, with
/// metadata and names; its L3 network.
fn network(rest: &Rest) -> String {
    let pool = rest.uuid("/l2-networks/vxlan-pool", "pool");
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "cloud", "poolUuid": pool}));
    let l3 = json!({"name": "cloud", "l2NetworkUuid": l2, "dnsDomain": "cloud.example"});
    let l3 = rest.made("/l3-networks", &l3);
    let range = json!({"name": "v4", "startIp": "10.3.0.10", "endIp": "10.3.0.99",
        "netmask": "255.255.255.0", "gateway": "10.3.0.1"});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &range);
    let range = json!({"name": "v6", "networkCidr": "fd03::/64", "addressMode": "SLAAC"});
    rest.made(&format!("/l3-networks/{l3}/ipv6-ranges/by-cidr"), &range);
    let services = json!({"networkServices": {"Flat": ["DHCP", "Userdata", "DNS"]}});
    let attached = rest.post(&format!("/l3-networks/{l3}/network-services"), &services);
    assert_eq!(attached.status, 200, "{attached:?}");
    networks::dhcp_last(rest, &l3, "10.3.0");
    l3
}

#[test]
fn a_machine_that_nobody_configures_gets_addresses_name_and_user_data() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let l3 = network(&rest);
    let made = rest.create_vm("peer", (&l3, "h2"), &[PEER.parse().unwrap()]);
    assert_eq!(made.status, 200, "{made:?}");
    let image = image_of(&lab, install_guest(&lab, "h1"));
    let tags = [format!("userdata::{USER_DATA_BASE64}"), "hostname::box".to_owned()];
    let vm = Machine::create_tagged(&lab, "machine", (&l3, "h1"), (&image, &tags));
    vm.settle();
    lab.settle(&HOSTS);

    let mut console = vm.console();
    console.run("mkdir -p /etc");
    console.run(SCRIPT);
    console.run("ip link set eth0 up");
    console.run("udhcpc -i eth0 -n -q -t 10 -O staticroutes -O search -s /tmp/lease");
    let nic = vm.shown()["vmNics"][0].clone();
    let used = nic["usedIps"].as_array().unwrap().iter();
    let ips: Vec<IpAddr> = used.map(|used| used["ip"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(ips.len(), 2, "{nic:#}");
    for ip in &ips {
        // That of IPv6 comes with an advertisement, and is looked at for duplicates.
        console.wait_for(&format!("ip address show dev eth0 | grep -w {ip} | grep -qv tentative"));
    }
    console.run("[ \"$(hostname)\" = box ]");
    console.run("wget -q -O /tmp/data http://169.254.169.254/latest/user-data");
    console
        .run(&format!("[ \"$(cat /tmp/data)\" = \"$(printf '{}')\" ]", USER_DATA.escape_default()));
    // By the name that who has none gets, and by the domain that it was told to search.
    console.run("nslookup 10-3-0-12.cloud.example | grep -w 10.3.0.12");
    console.run("nslookup box | grep -w box.cloud.example");

    let peer: Namespace = lab.namespace("peer");
    for ip in &ips {
        assert_eq!(ping(&peer, *ip, 1400), Ping::Answered, "{ip}");
    }
    exchange(
        &mut console,
        (ips.iter().copied().find(IpAddr::is_ipv4).unwrap(), PEER.parse().unwrap()),
        &peer,
        BULK,
    );
}
