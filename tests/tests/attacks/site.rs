//! Where it happens: two hosts, two tenants with the same addresses, and a stranger on the underlay.

use std::{fs, net::Ipv6Addr, path::Path, time::Duration};

use hostnet::Namespace;
use netloom_tests::{
    TestLab,
    guest::{Guest, ip},
    machine::device,
};
use serde_json::{Value, json};

pub(crate) const HOSTS: [&str; 2] = ["h1", "h2"];
/// The attacker.
pub(crate) const EVIL: &str = "evil";
/// Its neighbours, on its own host and on the other one.
pub(crate) const NEIGHBOURS: [&str; 2] = ["near", "far"];
/// Another tenant's, with the same addresses.
pub(crate) const OTHERS: [&str; 2] = ["other-near", "other-far"];
/// Where somebody listens who never answers (`SINK` in `world.py`).
pub(crate) const SINK: u16 = 4000;
/// How long a count that is not right yet may become so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// On the underlay, no host's.
const STRANGER: &str = "172.31.255.66";
/// Memory for connections: enough for the few ports of a host here. A small table is full soon.
const CONNECTION_MIB: &str = "--connection-mib=2";
/// The attacker's device takes frames that the host's end of the cable does not.
const JUMBO: u32 = 9000;

/// It.
pub(crate) struct Site {
    pub(crate) lab: TestLab,
    /// Somebody who is on the underlay.
    stranger: Guest,
    /// Number of the attacker's port.
    pub(crate) port: u32,
}

impl Site {
    pub(crate) fn new() -> Self {
        let mut lab = TestLab::unmade();
        fs::create_dir_all(lab.root()).unwrap();
        let path = lab.root().join("topology.yaml");
        fs::write(&path, include_str!("lab.yaml")).unwrap();
        lab.options.topology = path;
        lab.options.agent_options = vec![CONNECTION_MIB.to_owned()];
        lab.apply();
        let ports = lab.inspect("h1")["ports"].clone();
        let port = ports.as_array().unwrap().iter().find(|port| port["instance"] == EVIL).unwrap();
        let port = u32::try_from(port["number"].as_u64().unwrap()).unwrap();
        let site = Self { stranger: stranger(&lab), lab, port };
        NEIGHBOURS.iter().for_each(|name| site.prepare(name));
        site.mute();
        site
    }

    /// The kernel of a neighbour does nothing of its own that would be counted later on: it asks nobody who
    /// the attacker is, and waits long for the rest of a packet.
    fn prepare(&self, name: &str) {
        let mac = mac(&self.lab.namespace(EVIL), "eth0");
        for address in ["10.0.0.66", "fd00::66"] {
            self.lab.ip(name, &format!("neigh replace {address} lladdr {mac} dev eth0"));
        }
        let vm = self.lab.namespace(name);
        for setting in ["ipv4/ipfrag_time", "ipv6/ip6frag_time"] {
            vm.sysctl(&format!("net/{setting}"), "600").unwrap();
        }
    }

    /// The kernel of the attacker says nothing by itself: what it sends is the attack alone.
    fn mute(&self) {
        let evil = self.lab.namespace(EVIL);
        evil.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1").unwrap();
        for words in ["address flush dev eth0", "link set eth0 arp off"] {
            ip(&evil, words);
        }
        ip(&evil, &format!("link set eth0 mtu {JUMBO}"));
    }

    /// What the attacker is told: who is there.
    pub(crate) fn told(&self) -> Value {
        let lab = &self.lab;
        let vm = |name: &str, last: u8| {
            let namespace = lab.namespace(name);
            json!({"mac": mac(&namespace, "eth0"), "v4": format!("10.0.0.{last}"),
                "v6": format!("fd00::{last}"), "mtu": mtu(&namespace), "namespace": path(&namespace)})
        };
        let host = |name: &str, last: u8| {
            let (namespace, end) = (lab.namespace(name), lab.host_end(EVIL));
            let own = mac(&namespace, "eth0");
            // The host's end of the attacker's cable.
            let port = if name == "h1" { mac(&namespace, &end) } else { own.clone() };
            json!({"mac": own, "v4": format!("172.31.255.{last}"), "v6": link_local(&own),
                "port_mac": port, "port_v6": link_local(&port)})
        };
        let vni = |name: &str| lab.named("/l2-networks/vxlan", name)["vni"].clone();
        let stranger = &self.stranger.namespace;
        let rest_port: u16 = lab.url().rsplit(':').next().unwrap().parse().unwrap();
        json!({"evil": vm(EVIL, 66), "near": vm("near", 11), "far": vm("far", 12),
            "other_near": vm("other-near", 11), "other_far": vm("other-far", 12),
            "h1": host("h1", 11), "h2": host("h2", 12),
            "stranger": {"mac": mac(stranger, "eth0"), "v4": STRANGER, "namespace": path(stranger)},
            "server": "172.31.255.1", "link_port": 7481, "rest_port": rest_port,
            "vxlan_port": 8472, "red": vni("red"), "blue": vni("blue")})
    }
}

/// Somebody with a cable to the bridge between the hosts.
fn stranger(lab: &TestLab) -> Guest {
    let (fabric, guest) = (lab.namespace("fabric"), Guest::new());
    let name = guest.namespace.name();
    let cable = "link add stranger mtu 1600 type veth peer name eth0 mtu 1600 netns";
    ip(&fabric, &format!("{cable} {name}"));
    ip(&fabric, "link set stranger up master br0");
    guest.ip(&format!("address add {STRANGER}/24 dev eth0"));
    guest.ip("link set eth0 up");
    guest
}

/// The file of a namespace, for `setns`.
fn path(namespace: &Namespace) -> String {
    Path::new("/run/netns").join(namespace.name()).display().to_string()
}

/// The MAC of a device, as text.
pub(crate) fn mac(namespace: &Namespace, name: &str) -> String {
    device(namespace, name).mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn mtu(namespace: &Namespace) -> u32 {
    device(namespace, "eth0").mtu_bytes
}

/// RFC 4291, appendix A.
fn link_local(mac: &str) -> Ipv6Addr {
    let octets: Vec<u16> =
        mac.split(':').map(|octet| u16::from_str_radix(octet, 16).unwrap()).collect();
    let [a, b, c, d, e, f] = octets[..] else { panic!("{mac}") };
    let pair = |high: u16, low: u16| high << 8 | low;
    Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}
