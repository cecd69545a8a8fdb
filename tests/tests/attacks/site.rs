//! Where it happens: two hosts, two tenants with the same addresses, and a stranger on the underlay.

use std::{fs, net::Ipv6Addr, path::Path, time::Duration};

use dataplane::View;
use hostnet::Namespace;
use netloom_tests::{
    TestLab,
    guest::{Guest, ip},
    machine::device,
    networks,
};
use serde_json::{Value, json};

pub(crate) const HOSTS: [&str; 2] = ["h1", "h2"];
/// The attacker.
pub(crate) const EVIL: &str = "evil";
/// Its neighbours, on its own host and on the other one.
pub(crate) const NEIGHBOURS: [&str; 2] = ["near", "far"];
/// Another tenant's, with the same addresses; and those of the attacker in a physical network.
pub(crate) const OTHERS: [&str; 4] = ["other-near", "other-far", WIRED[1], WIRED[2]];
/// Where somebody listens who never answers (`SINK` in `world.py`).
pub(crate) const SINK: u16 = 4000;
/// How long a count that is not right yet may become so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// An attacker in a physical network, and its neighbours.
const WIRED: [&str; 3] = ["wired", "wired-near", "wired-far"];
/// The physical network's, on the hosts' only wire.
const VLAN: u16 = 300;
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
    /// The tables of its hosts.
    pub(crate) views: [View; HOSTS.len()],
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
        wire(&lab);
        let views = HOSTS.map(|host| View::open(&lab.data(host).join("bpf")).unwrap());
        let site = Self { views, stranger: stranger(&lab), lab, port };
        NEIGHBOURS.iter().for_each(|name| site.prepare(name, EVIL, ["10.0.0.66", "fd00::66"]));
        WIRED[1..].iter().for_each(|name| site.prepare(name, WIRED[0], ["10.8.0.66", "fd08::66"]));
        [EVIL, WIRED[0]].iter().for_each(|name| site.mute(name));
        site
    }

    /// The kernel of a neighbour does nothing of its own that would be counted later on: it asks nobody who
    /// the attacker is, and waits long for the rest of a packet.
    fn prepare(&self, name: &str, attacker: &str, addresses: [&str; 2]) {
        let mac = mac(&self.lab.namespace(attacker), "eth0");
        for address in addresses {
            self.lab.ip(name, &format!("neigh replace {address} lladdr {mac} dev eth0"));
        }
        let vm = self.lab.namespace(name);
        for setting in ["ipv4/ipfrag_time", "ipv6/ip6frag_time"] {
            vm.sysctl(&format!("net/{setting}"), "600").unwrap();
        }
    }

    /// The kernel of an attacker says nothing by itself: what it sends is the attack alone.
    fn mute(&self, name: &str) {
        let evil = self.lab.namespace(name);
        evil.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1").unwrap();
        for words in ["address flush dev eth0", "link set eth0 arp off"] {
            ip(&evil, words);
        }
        ip(&evil, &format!("link set eth0 mtu {JUMBO}"));
    }

    /// What the attacker is told: who is there.
    pub(crate) fn told(&self) -> Value {
        let lab = &self.lab;
        let vm_of = |net: u8, name: &str, last: u8| {
            let namespace = lab.namespace(name);
            json!({"mac": mac(&namespace, "eth0"), "v4": format!("10.{net}.0.{last}"),
                "v6": format!("fd0{net}::{last}"), "mtu": mtu(&namespace),
                "namespace": path(&namespace)})
        };
        let vm = |name: &str, last: u8| vm_of(0, name, last);
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
            "wired": vm_of(8, WIRED[0], 66), "wired_near": vm_of(8, WIRED[1], 11),
            "wired_far": vm_of(8, WIRED[2], 12), "vlan": VLAN,
            "h1": host("h1", 11), "h2": host("h2", 12),
            "stranger": {"mac": mac(stranger, "eth0"), "v4": STRANGER, "namespace": path(stranger)},
            "server": "172.31.255.1", "link_port": 7481, "rest_port": rest_port,
            "vxlan_port": 8472, "red": vni("red"), "blue": vni("blue")})
    }
}

/// Makes the physical network.
fn wire(lab: &TestLab) {
    let rest = lab.rest();
    let (zone, cluster) = (rest.uuid("/zones", "lab"), rest.uuid("/clusters", "cluster"));
    let l2 = json!({"name": "wire", "zoneUuid": zone, "physicalInterface": "eth0", "vlan": VLAN});
    let l2 = rest.made("/l2-networks/vlan", &l2);
    rest.post(&format!("/l2-networks/{l2}/clusters/{cluster}"), &json!({}));
    let l3 = networks::l3(&rest, "wire", &l2, 8);
    for (name, host, last) in [(WIRED[0], "h1", 66), (WIRED[1], "h1", 11), (WIRED[2], "h2", 12)] {
        let addresses = [format!("10.8.0.{last}"), format!("fd08::{last}")];
        let made = rest.create_vm(name, (&l3, host), &addresses.map(|ip| ip.parse().unwrap()));
        assert_eq!(made.status, 200, "{made:?}");
    }
    lab.settle(&HOSTS);
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
