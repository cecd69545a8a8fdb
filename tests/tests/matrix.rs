//! Every kind of L2 network, between every two kinds of ends, with every kind of traffic. Needs root.
//!
//! Ends: VMs on veths and guests behind taps, on one host and on two, and a machine that netloom does
//! not manage: on the wire, in the VLAN, or behind a foreign VTEP.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    cell::OnceCell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    process::Command,
    time::Duration,
};

use hostnet::Namespace;
use netloom_tests::{
    TestLab,
    ends::End,
    guest::{Guest, Hypervisor, ip},
    networks::{gre_pool, l3},
    root_or_skip,
    traffic::{Ping, ping, transfer},
};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
/// The VTEPs of the lab's hosts.
const OWN: [&str; 2] = ["172.31.255.11", "172.31.255.12"];
const FOREIGN: &str = "172.31.255.201";
const VLAN: u16 = 100;
/// So many bytes over TCP for each pair and family.
const BULK: usize = 2 << 20;
/// A datagram in several fragments, whatever the MTU.
const BIG_DATAGRAM: usize = 6_000;
const BROADCAST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 8, 0, 255));
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 77));
const GROUP_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x4d));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NoVlan,
    Vlan,
    Vxlan,
    /// Between hosts alone: nobody else is in it.
    Gre,
}

/// A network of a kind in a lab, and all who are in it.
struct Site {
    lab: TestLab,
    kind: Kind,
    ends: Vec<End>,
    gre_pool: OnceCell<String>,
    // What the ends live on.
    _guests: Vec<Guest>,
    _hypervisors: Vec<Hypervisor>,
}

/// IPv4 and IPv6 address of the one with this number.
fn addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 8, 0, number), Ipv6Addr::new(0xfd08, 0, 0, 0, 0, 0, 0, number.into()))
}

impl Site {
    fn new(kind: Kind) -> Self {
        let lab = TestLab::up();
        let mut site = Self {
            lab,
            kind,
            ends: Vec::new(),
            gre_pool: OnceCell::new(),
            _guests: Vec::new(),
            _hypervisors: Vec::new(),
        };
        let l3 = site.network("wire", kind, 0);
        site.vm("beside", (&l3, "h1"), 18);
        site.vm("here", (&l3, "h1"), 17);
        site.vm("there", (&l3, "h2"), 19);
        site.tap("tap-here", (&l3, "h1"), 33);
        site.tap("tap-there", (&l3, "h2"), 34);
        site.machine();
        site.lab.settle(&HOSTS);
        site
    }

    /// Makes a network of a kind, the `at`-th of the lab, with addresses; its L3 network.
    fn network(&self, name: &str, kind: Kind, at: u16) -> String {
        let rest = self.lab.rest();
        let (zone, cluster) = (rest.uuid("/zones", "lab"), rest.uuid("/clusters", "cluster"));
        let physical = json!({"name": name, "zoneUuid": zone, "physicalInterface": "eth0"});
        let attached = |l2: String| {
            rest.post(&format!("/l2-networks/{l2}/clusters/{cluster}"), &json!({}));
            l2
        };
        let l2 = match kind {
            Kind::NoVlan => attached(rest.made("/l2-networks/no-vlan", &physical)),
            Kind::Vlan => {
                let mut body = physical;
                body["vlan"] = (VLAN + at).into();
                attached(rest.made("/l2-networks/vlan", &body))
            }
            Kind::Vxlan => {
                let pool = rest.uuid("/l2-networks/vxlan-pool", "pool");
                rest.made("/l2-networks/vxlan", &json!({"name": name, "poolUuid": pool}))
            }
            Kind::Gre => {
                let pool = self.gre_pool.get_or_init(|| gre_pool(&rest));
                rest.made("/l2-networks/gre", &json!({"name": name, "poolUuid": pool}))
            }
        };
        l3(&rest, name, &l2, 8)
    }

    fn vm(&mut self, name: &'static str, at: (&str, &str), number: u8) {
        let (v4, v6) = addresses(number);
        let made = self.lab.rest().create_vm(name, at, &[v4.into(), v6.into()]);
        assert_eq!(made.status, 200, "{made:?}");
        self.ends.push(End { name, namespace: self.lab.namespace(name), device: "eth0", v4, v6 });
    }

    /// A guest of somebody else's hypervisor.
    fn tap(&mut self, name: &'static str, (l3, host): (&str, &str), number: u8) {
        let (rest, guest, (v4, _)) = (self.lab.rest(), Guest::new(), addresses(number));
        let made = rest.post("/nics", &json!({"l3NetworkUuid": l3, "ip": v4}));
        assert_eq!(made.status, 200, "{made:?}");
        let nic = &made.body["inventory"];
        let v6 = own_v6(nic);
        let hypervisor = guest.run(&self.lab.namespace(host), name);
        let path = format!("/vm-instances/nics/{}/actions", nic["uuid"].as_str().unwrap());
        let host = rest.uuid("/hosts", host);
        let body = json!({"plugVmNic": {"hostUuid": host, "device": name}}).to_string();
        let done = rest.with("prefer", "wait=30").send("PUT", &path, &body).unwrap();
        assert_eq!(done.status, 200, "{done:?}");
        guest.configure(nic["mac"].as_str().unwrap(), &format!("{v4}/24"));
        guest.ip(&format!("address add {v6}/64 dev eth0 nodad"));
        let namespace = Namespace::open(guest.namespace.name()).unwrap();
        self.stays(End { name, namespace, device: "eth0", v4, v6 }, guest, Some(hypervisor));
    }

    /// A machine that netloom does not manage.
    fn machine(&mut self) {
        let (fabric, guest, (v4, v6)) =
            (self.lab.namespace("fabric"), Guest::new(), addresses(201));
        let (mac, mut device, mut relay) = ("02:00:00:00:77:07", "eth0", None);
        match self.kind {
            Kind::NoVlan => {
                guest.cable(&fabric, "machine");
                ip(&fabric, "link set machine up mtu 1500 master br0");
                guest.configure(mac, &format!("{v4}/24"));
                // As all on this wire have it.
                guest.ip("link set eth0 mtu 1500");
            }
            Kind::Vlan => {
                relay = Some(guest.run_in_vlan(&fabric, "machine", VLAN));
                ip(&fabric, "link set machine master br0");
                guest.configure(mac, &format!("{v4}/24"));
            }
            Kind::Vxlan => {
                device = "vx";
                self.behind_a_vtep(&fabric, &guest);
                guest.ip(&format!("address add {v4}/24 dev vx"));
                guest.ip("link set vx up");
            }
            Kind::Gre => return,
        }
        guest.ip(&format!("address add {v6}/64 dev {device} nodad"));
        let namespace = Namespace::open(guest.namespace.name()).unwrap();
        self.stays(End { name: "machine", namespace, device, v4, v6 }, guest, relay);
    }

    /// Makes a guest a foreign VTEP of the network, with Linux' own device `vx`.
    fn behind_a_vtep(&self, fabric: &Namespace, guest: &Guest) {
        let rest = self.lab.rest();
        let vni = rest.named("/l2-networks/vxlan", "wire")["vni"].as_u64().unwrap();
        let name = guest.namespace.name();
        let cable =
            format!("link add machine mtu 1600 type veth peer name eth0 mtu 1600 netns {name}");
        ip(fabric, &cable);
        ip(fabric, "link set machine up master br0");
        guest.ip(&format!("address add {FOREIGN}/24 dev eth0"));
        guest.ip("link set eth0 up");
        let vx = format!("link add vx type vxlan id {vni} local {FOREIGN} dstport 8472 dev eth0");
        guest.ip(&vx);
        guest.ip("link set vx mtu 1450");
        for own in OWN {
            let mut bridge = Command::new("bridge");
            bridge.args(["fdb", "append", "00:00:00:00:00:00", "dev", "vx", "dst", own]);
            assert!(guest.namespace.run_in(|| bridge.status()).unwrap().unwrap().success());
        }
        let pool = rest.uuid("/l2-networks/vxlan-pool", "pool");
        let cluster = rest.uuid("/clusters", "cluster");
        let path = format!("/l2-networks/{pool}/clusters/{cluster}/remote-vtep-ip");
        rest.post(&path, &json!({"remoteVtepIp": FOREIGN}));
    }

    fn stays(&mut self, end: End, guest: Guest, relay: Option<Hypervisor>) {
        self.ends.push(end);
        self._guests.push(guest);
        self._hypervisors.extend(relay);
    }

    /// All who are not this one.
    fn others(&self, end: &End) -> Vec<&End> {
        self.ends.iter().filter(|other| other.name != end.name).collect()
    }

    /// Every two ends reach each other with all kinds of traffic.
    fn pairs_reach_each_other(&self) {
        let mut cells = 0;
        for from in &self.ends {
            for to in self.others(from) {
                for ip in to.addresses() {
                    let cell = format!("{:?}: {} to {} at {ip}", self.kind, from.name, to.name);
                    for bytes in [56, from.largest_ping(to, ip)] {
                        assert_eq!(
                            ping(&from.namespace, ip, bytes),
                            Ping::Answered,
                            "{cell}: {bytes}"
                        );
                    }
                    for bytes in [100, BIG_DATAGRAM] {
                        let echoed = from.echo(to, ip, bytes);
                        assert_eq!(echoed, Ok(()), "{cell}: a datagram of {bytes} bytes");
                    }
                    transfer(&from.namespace, &to.namespace, ip, BULK);
                    cells += 1;
                }
            }
        }
        assert_eq!(cells, self.ends.len() * (self.ends.len() - 1) * 2);
    }

    /// What one says to all, or to a group, all others hear.
    fn all_hear_each(&self) {
        for from in &self.ends {
            for to_all in [BROADCAST, GROUP, GROUP_6] {
                let deaf = from.not_heard_by(&self.others(from), to_all);
                assert!(deaf.is_empty(), "{:?}: {} to {to_all}: {deaf:?}", self.kind, from.name);
            }
        }
    }

    /// Another network of the kind, with the same addresses: neither reaches the other.
    fn tenants_are_apart(&mut self) {
        // Two networks without a VLAN would be one wire.
        let kind = if self.kind == Kind::NoVlan { Kind::Vlan } else { self.kind };
        let l3 = self.network("other", kind, 1);
        self.vm("other-here", (&l3, "h1"), 17);
        // NICs on taps have IPv6 addresses by lot: it must be nobody's here.
        let is_free = |number: &u8| self.ends.iter().all(|end| end.v6 != addresses(*number).1);
        let number = (60..=90).rev().find(is_free).unwrap();
        self.vm("other-there", (&l3, "h2"), number);
        self.lab.settle(&HOSTS);
        let [other_there, other_here] = [self.ends.pop().unwrap(), self.ends.pop().unwrap()];
        let here = self.end("here");
        for ip in other_there.addresses() {
            assert_eq!(ping(&other_here.namespace, ip, 56), Ping::Answered, "{ip}");
            assert_eq!(ping(&here.namespace, ip, 56), Ping::Lost, "{ip}");
        }
        for ip in [self.end("beside"), self.end("there")].iter().flat_map(|end| end.addresses()) {
            assert_eq!(ping(&other_here.namespace, ip, 56), Ping::Lost, "{ip}");
        }
        let deaf = other_here.not_heard_by(&[&other_there], BROADCAST);
        assert!(deaf.is_empty(), "{deaf:?}");
        self.pairs_reach_each_other_once();
    }

    fn pairs_reach_each_other_once(&self) {
        let (here, there) = (self.end("here"), self.end("there"));
        for ip in there.addresses() {
            assert_eq!(ping(&here.namespace, ip, 56), Ping::Answered, "{ip}");
        }
    }

    /// A host's own addresses and ports are nothing to its VMs, unless it is on their wire.
    fn hosts_are_out_of_reach(&self) {
        let here = self.end("here");
        for host in OWN {
            ip(&here.namespace, &format!("route replace {host}/32 dev eth0"));
            let host: IpAddr = host.parse().unwrap();
            assert_eq!(ping(&here.namespace, host, 56), Ping::Lost, "{host}");
            for port in [22, 7480, 7481, 8472] {
                let connect =
                    || TcpStream::connect_timeout(&(host, port).into(), Duration::from_millis(200));
                assert!(here.namespace.run_in(connect).unwrap().is_err(), "{host}:{port}");
            }
        }
    }

    fn end(&self, name: &str) -> &End {
        self.ends.iter().find(|end| end.name == name).unwrap()
    }
}

/// The IPv6 address of a NIC.
fn own_v6(nic: &Value) -> Ipv6Addr {
    let mut addresses = nic["usedIps"].as_array().unwrap().iter();
    let own = addresses.find_map(|used| used["ip"].as_str()?.parse().ok());
    own.unwrap_or_else(|| panic!("{nic:#}"))
}

fn matrix(kind: Kind) {
    if !root_or_skip() {
        return;
    }
    let mut site = Site::new(kind);
    site.pairs_reach_each_other();
    site.all_hear_each();
    site.tenants_are_apart();
    if kind != Kind::NoVlan {
        site.hosts_are_out_of_reach();
    }
    for host in HOSTS {
        site.lab.digests(host);
    }
}

#[test]
fn no_vlan() {
    matrix(Kind::NoVlan);
}

#[test]
fn vlan() {
    matrix(Kind::Vlan);
}

#[test]
fn vxlan() {
    matrix(Kind::Vxlan);
}

#[test]
fn gre() {
    matrix(Kind::Gre);
}
