//! What a closed network carries, and what not: the addresses of others, addresses that nobody was
//! given, and floods. Needs root.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    frames::{Wire, arp, ethernet, has_got, listener, udp},
    machine::drops,
    root_or_skip,
    traffic::one_packet_passes,
};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const PORT: u16 = 5001;
/// How long something that must not arrive is waited for.
const PATIENCE: Duration = Duration::from_millis(300);
const RED_1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const RED_2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
/// An address of the network that was given to nobody.
const SHARED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

/// F18: a tenant may use the underlay's own addresses; its VMs have those of the hosts.
#[test]
fn a_tenant_with_the_underlays_addresses_reaches_its_own_and_never_a_host() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let pool = rest.uuid("/l2-networks/vxlan-pool", "pool");
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "mirror", "poolUuid": pool}));
    let l3 = rest.made("/l3-networks", &json!({"name": "mirror", "l2NetworkUuid": l2}));
    let range = json!({"name": "mirror", "startIp": "172.31.255.11", "endIp": "172.31.255.50",
        "netmask": "255.255.255.0", "gateway": "172.31.255.1"});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &range);
    let ips = [Ipv4Addr::new(172, 31, 255, 11), Ipv4Addr::new(172, 31, 255, 12)];
    for (name, host, ip) in [("mirror-1", "h1", ips[0]), ("mirror-2", "h2", ips[1])] {
        let made = rest.create_vm(name, (&l3, host), &[ip.into()]);
        assert_eq!(made.status, 200, "{made:?}");
    }
    lab.settle(&HOSTS);
    let vms = ["mirror-1", "mirror-2"].map(|vm| lab.namespace(vm));
    let hosts = [0, 1].map(|at| listener(&lab.namespace(HOSTS[at]), ips[at], PORT));
    for (from, to) in [(0, 1), (1, 0)] {
        let heard = listener(&vms[to], ips[to], PORT);
        let socket = vms[from].run_in(|| UdpSocket::bind((ips[from], 0))).unwrap().unwrap();
        socket.send_to(b"neighbour", (ips[to], PORT)).unwrap();
        assert!(wait::holds(LIMIT, || has_got(&heard)), "{from} to {to}");
    }
    // Where the server takes agents' connections.
    let server = SocketAddr::from(([172, 31, 255, 1], 7481));
    let connected = vms[0].run_in(|| TcpStream::connect_timeout(&server, PATIENCE)).unwrap();
    assert!(connected.is_err(), "a VM has reached the server");
    assert!(!hosts.iter().any(has_got), "a host has heard a VM");
    lab.settle(&HOSTS);
    lab.check();
}

/// F19: an address that two VMs want to share is neither's until it is allowed on both NICs (then:
/// `shared_addresses`). F20: broadcast and multicast reach the other VMs of the network and no others,
/// as often as a port may in a second.
#[test]
fn an_address_that_vms_share_is_refused_and_floods_are_bounded() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (red_1, red_2) = (lab.namespace("red-1"), lab.namespace("red-2"));
    let wires = [&red_1, &red_2].map(Wire::open);
    lab.ip("red-1", &format!("address add {SHARED}/32 dev eth0"));

    // As keepalived does: it announces the address, sends from it, and from its virtual MAC.
    let [mac, virtual_mac] = [wires[0].mac, [0, 0, 0x5e, 0, 1, 7]];
    let announce = ethernet([0xff; 6], mac, ARP, &arp(1, mac, SHARED, SHARED));
    let speak = |from, marker: &[u8]| udp(from, RED_2, PORT, marker);
    let counted = counts(&lab, "h1", || {
        wires[0].send(&announce);
        wires[0].send(&ethernet(wires[1].mac, mac, IPV4, &speak(SHARED, b"shared-1")));
        wires[0].send(&ethernet(wires[1].mac, virtual_mac, IPV4, &speak(RED_1, b"shared-2")));
    });
    let reasons = ["spoofed_arp_address", "spoofed_address", "spoofed_mac"];
    assert_eq!(reasons.map(|reason| counted[reason]), [1, 1, 1], "{counted:?}");
    let counted = counts(&lab, "h2", || assert!(!one_packet_passes(&red_2, &red_1, SHARED.into())));
    assert!(counted["unknown_neighbour"] > 0, "{counted:?}");

    assert!(!wires[1].hears(b"shared-", PATIENCE), "red-2 heard what it must not");

    let broadcast = Ipv4Addr::new(10, 0, 0, 255);
    let [mdns, vrrp] = [Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::new(224, 0, 0, 18)];
    let group = |last| [1, 0, 0x5e, 0, 0, last];
    let to_all =
        |marker: &[u8]| ethernet([0xff; 6], mac, IPV4, &udp(RED_1, broadcast, 137, marker));
    let floods = [
        (
            &b"flood-mdns"[..],
            ethernet(group(251), mac, IPV4, &udp(RED_1, mdns, 5353, b"flood-mdns")),
        ),
        (b"flood-vrrp", ethernet(group(18), mac, IPV4, &advertisement(vrrp))),
        (b"flood-137", to_all(b"flood-137")),
    ];
    let blue = Wire::open(&lab.namespace("blue-1"));
    for (marker, frame) in &floods {
        wires[0].send(frame);
        assert!(wires[1].hears(marker, LIMIT), "red-2 has not heard {marker:?}");
    }
    assert!(!blue.hears(b"flood-", PATIENCE), "blue-1 has heard another network");
    let counted = counts(&lab, "h1", || (0..2_000).for_each(|_| wires[0].send(&to_all(b"many"))));
    assert!(counted["flood_rate"] >= 1_000, "{counted:?}");
    lab.check();
}

/// A VRRP packet (RFC 9568, IP protocol 112), with a marker.
fn advertisement(group: Ipv4Addr) -> Vec<u8> {
    let mut packet = udp(RED_1, group, 0, b"flood-vrrp");
    packet[9] = 112;
    packet
}

/// How many frames a host dropped, by reason, while something was done.
fn counts(lab: &TestLab, host: &str, work: impl FnOnce()) -> BTreeMap<&'static str, u64> {
    let data = lab.data(host);
    let before = drops(&data);
    work();
    let grown = |(reason, packets): (&'static str, u64)| {
        (reason, packets - before.get(reason).copied().unwrap_or_default())
    };
    drops(&data).into_iter().map(grown).collect()
}
