//! A VM that sends whatever it likes reaches nobody but its own tenant. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use netloom_tests::{
    TestLab,
    frames::{Wire, arp, ethernet, has_got, listener, udp, vxlan},
    root_or_skip,
};
use serde_json::Value;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const PORT: u16 = 5001;
const VXLAN_PORT: u16 = 8472;
/// How long a frame that must not arrive is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

const RED_1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const RED_2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
const H1: Ipv4Addr = Ipv4Addr::new(172, 31, 255, 11);
const H2: Ipv4Addr = Ipv4Addr::new(172, 31, 255, 12);

/// Why the frames of the first test are dropped, and how many of them.
const FORGED: [(&str, u64); 4] = [
    ("spoofed_mac", 1),
    ("spoofed_address", 1),
    // MACs of another tenant, on this host and on the other one; and nobody's.
    ("unknown_destination", 3),
    ("spoofed_arp_address", 4),
];

#[test]
fn forged_frames_arrive_nowhere_and_are_counted() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let [evil, friend, blue_1, blue_2] =
        ["red-1", "red-2", "blue-1", "blue-2"].map(|vm| Wire::open(&lab.namespace(vm)));
    let marked = |marker: &[u8]| udp(RED_1, RED_2, PORT, marker);
    let stolen = Ipv4Addr::new(10, 0, 0, 77);
    let to_nobody = |marker: &[u8]| udp(RED_1, stolen, PORT, marker);
    // What is not forged arrives: the wires work.
    evil.send(&ethernet(friend.mac, evil.mac, IPV4, &marked(b"honest")));
    assert!(friend.hears(b"honest", Duration::from_secs(5)));
    // To all is to all of the own network.
    evil.send(&ethernet([0xff; 6], evil.mac, IPV4, &marked(b"to-all!!")));
    assert!(friend.hears(b"to-all!!", Duration::from_secs(5)));
    assert!(!blue_1.hears(b"to-all!!", PATIENCE) && !blue_2.hears(b"to-all!!", PATIENCE));
    // Both tenants have the address. It is the sender's own tenant that gets the packet, whatever
    // the MAC.
    evil.send(&ethernet(blue_2.mac, evil.mac, IPV4, &marked(b"whose?")));
    assert!(friend.hears(b"whose?", Duration::from_secs(5)));
    assert!(!blue_2.hears(b"whose?", PATIENCE));

    let before = drops(&lab, "h1");
    let other_mac = [0xfa, 0x4c, 9, 9, 9, 9];
    let forged: [(&[u8], Vec<u8>); 5] = [
        (b"from-mac", ethernet(friend.mac, other_mac, IPV4, &marked(b"from-mac"))),
        (b"from-ip!", ethernet(friend.mac, evil.mac, IPV4, &udp(stolen, RED_2, PORT, b"from-ip!"))),
        (b"to-blue1", ethernet(blue_1.mac, evil.mac, IPV4, &to_nobody(b"to-blue1"))),
        (b"to-blue2", ethernet(blue_2.mac, evil.mac, IPV4, &to_nobody(b"to-blue2"))),
        (b"unknown!", ethernet(other_mac, evil.mac, IPV4, &to_nobody(b"unknown!"))),
    ];
    forged.iter().for_each(|(_, frame)| evil.send(frame));
    // ARP: "I am red-2", to all and to a tenant's neighbour. The sender's address is the marker.
    let lie = [&evil.mac[..], &RED_2.octets()].concat();
    for operation in [1, 2] {
        evil.send(&ethernet([0xff; 6], evil.mac, ARP, &arp(operation, evil.mac, RED_2, RED_2)));
        evil.send(&ethernet(friend.mac, evil.mac, ARP, &arp(operation, evil.mac, RED_2, RED_2)));
    }
    let markers = forged.iter().map(|(marker, _)| *marker).chain([&lie[..]]);
    for marker in markers {
        for (name, wire) in [("red-2", &friend), ("blue-1", &blue_1), ("blue-2", &blue_2)] {
            let text = String::from_utf8_lossy(marker).into_owned();
            assert!(!wire.hears(marker, PATIENCE / 5), "{name} heard {text}");
        }
    }
    // An honest kernel gives none of these reasons, so the counts are exact.
    let after = drops(&lab, "h1");
    let counted = FORGED.map(|(reason, _)| {
        let of = |drops: &BTreeMap<String, u64>| drops.get(reason).copied().unwrap_or_default();
        (reason, of(&after) - of(&before))
    });
    assert_eq!(counted, FORGED, "{before:?} {after:?}");
    lab.check();
}

/// How many frames a host dropped, by reason.
fn drops(lab: &TestLab, host: &str) -> BTreeMap<String, u64> {
    let inspection = lab.inspect(host);
    let lines = inspection["drops"].as_array().unwrap().iter();
    let count = |line: &Value| {
        (line["reason"].as_str().unwrap().to_owned(), line["packets"].as_u64().unwrap())
    };
    lines.map(count).collect()
}

/// A packet towards the hosts, the server or the tunnel ports goes nowhere: not even their own
/// kernels see it.
#[test]
fn a_vm_reaches_neither_hosts_nor_tunnels() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let [evil, blue_2] = ["red-1", "blue-2"].map(|vm| Wire::open(&lab.namespace(vm)));
    let inner = ethernet(blue_2.mac, evil.mac, IPV4, &udp(RED_1, RED_2, PORT, b"tunnelled"));
    let sockets =
        [("h1", H1), ("h2", H2)].map(|(host, ip)| listener(&lab.namespace(host), ip, PORT));
    for vni in 100..110 {
        for (from, to) in [(RED_1, H1), (RED_1, H2), (H2, H1), (H1, H2)] {
            for mac in [[0xff; 6], blue_2.mac, [0x02, b'n', b'l', 0, 1, 0]] {
                let forged = udp(from, to, VXLAN_PORT, &vxlan(vni, &inner));
                evil.send(&ethernet(mac, evil.mac, IPV4, &forged));
                evil.send(&ethernet(mac, evil.mac, IPV4, &udp(from, to, PORT, b"hello")));
            }
        }
    }
    assert!(!blue_2.hears(b"tunnelled", PATIENCE));
    assert!(!sockets.iter().any(has_got));
    lab.check();
}

/// Who is on the underlay may lose us packets, but injects nothing: the sending VTEP is unknown. And
/// a host that is known speaks for stations only: of foreign sources nothing arrives.
#[test]
fn a_stranger_on_the_underlay_injects_nothing() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let [peer, target] = ["blue-1", "blue-2"].map(|vm| Wire::open(&lab.namespace(vm)));
    let send = |namespace: &str, ip: Ipv4Addr, mac: [u8; 6], marker: &[u8]| {
        // Tenant blue has the same addresses.
        let inner = ethernet(target.mac, mac, IPV4, &udp(RED_1, RED_2, PORT, marker));
        let namespace = hostnet::Namespace::open(namespace).unwrap();
        let socket = namespace.run_in(|| UdpSocket::bind((ip, 0))).unwrap().unwrap();
        for vni in 100..110 {
            socket.send_to(&vxlan(vni, &inner), (H2, VXLAN_PORT)).unwrap();
        }
    };
    // The server's address on the underlay is no host's.
    let [fabric, h1] = ["fabric", "h1"].map(|node| format!("nl-{}-{node}", lab.name()));
    send(&fabric, Ipv4Addr::new(172, 31, 255, 1), peer.mac, b"stranger");
    assert!(!target.hears(b"stranger", PATIENCE));
    send(&h1, H1, [2; 6], b"a-ghost");
    assert!(!target.hears(b"a-ghost", PATIENCE));
    // The same from the host of the station is no forgery: so the frame itself was right.
    send(&h1, H1, peer.mac, b"a-friend");
    assert!(target.hears(b"a-friend", Duration::from_secs(5)));
}
