//! Real traffic between network namespaces, through real links. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{Addr, Fdb, Port, Vtep, VtepKey};
use netloom_dataplane::{DataPlane, Options, Tables};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;
use support::traffic::{LIMIT, ping, transfer};
use support::vm::{VNI, Vm, add_local, add_station, far_inbox, tunnel, v4};
use support::{Host, Namespace, ifindex, ip, may_run};

#[test]
fn local_ports_talk_and_the_host_cannot_join_in() {
    if !may_run("local_ports_talk_and_the_host_cannot_join_in") {
        return;
    }
    let host = Host::enter();
    let (a, b) = (Vm::new(1), Vm::new(2));
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    plane.attach_port(a.ifindex()).unwrap();
    plane.attach_port(b.ifindex()).unwrap();
    assert!(!ping(&a.inside, v4(2), Duration::from_millis(300)), "closed without tables");

    let mut tables = Tables::default();
    // A straight into its namespace, B through its interface, as a tap would be.
    add_local(&mut tables, 1, a.ifindex(), Port::PEER);
    add_local(&mut tables, 2, b.ifindex(), 0);
    plane.reconcile(&tables).unwrap();
    assert!(ping(&a.inside, v4(2), LIMIT));
    assert!(ping(&b.inside, v4(1), LIMIT));
    transfer(&a.inside, &b.inside, v4(2).into());
    transfer(&b.inside, &a.inside, v4(1).into());

    ip("addr add 10.0.0.9/24 dev port1");
    let socket = UdpSocket::bind("10.0.0.9:0").unwrap();
    // The host's ARP request for A is what must not get through.
    let _ = socket.send_to(b"hello", (v4(1), 9));
    let counters = plane.view().counters().unwrap();
    assert!(counters.drops.get("host_to_port").is_some_and(|count| *count > 0));
    assert!(counters.traffic[&1].from_port_packets > 0);
    assert!(counters.traffic[&1].to_port_bytes > 1 << 20);
    assert!(plane.view().connections().unwrap().iter().any(|entry| entry.key.protocol == 6));
    let counts = plane.view().connection_counts().unwrap();
    for port in [1, 2] {
        let listed = plane.view().connections().unwrap().into_iter();
        let listed = listed.filter(|entry| entry.port == port).count();
        assert!(listed > 0);
        assert_eq!(usize::try_from(counts[&port]).unwrap(), listed, "port {port}");
    }

    drop(plane);
    assert!(ping(&a.inside, v4(2), LIMIT), "forwarding goes on without the process");
}

#[test]
fn hosts_talk_through_the_tunnel_and_only_to_known_vteps() {
    if !may_run("hosts_talk_through_the_tunnel_and_only_to_known_vteps") {
        return;
    }
    // Two hosts in one thread each would need two data planes in two namespaces: the second
    // host's plane lives in a namespace thread of its own.
    let host = Host::enter();
    let far = Namespace::new();
    ip(&format!("link add under0 mtu 1600 type veth peer name under0 mtu 1600 netns {}", far.tid));
    // The kernel would send from the first address; the far host knows the second one only.
    tunnel(&["192.0.2.101", "192.0.2.1"]);
    far.run(|| tunnel(&["192.0.2.2"]));

    let a = Vm::new(1);
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    plane.attach_port(a.ifindex()).unwrap();
    let mut tables = Tables::default();
    add_local(&mut tables, 1, a.ifindex(), Port::PEER);
    let (near_vtep, far_vtep) = (Addr::v4([192, 0, 2, 1]), Addr::v4([192, 0, 2, 2]));
    add_station(&mut tables, 2, Fdb::remote(VNI, far_vtep).sent_from(near_vtep));
    let from_far = VtepKey { vni: VNI, addr: far_vtep };
    tables.vteps.insert(from_far, Vtep::of_host(1, near_vtep));
    plane.reconcile(&tables).unwrap();

    let far_bpffs = host.bpffs().with_file_name("far");
    let (b, far_plane) = far.run(move || {
        let b = Vm::new(2);
        let mut plane = DataPlane::open(&Options::new(far_bpffs)).unwrap();
        plane.set_tunnel_device(ifindex("vx0")).unwrap();
        plane.attach_port(b.ifindex()).unwrap();
        let mut tables = Tables::default();
        add_local(&mut tables, 2, b.ifindex(), Port::PEER);
        add_station(&mut tables, 1, Fdb::remote(VNI, Addr::v4([192, 0, 2, 1])));
        let key = VtepKey { vni: VNI, addr: Addr::v4([192, 0, 2, 1]) };
        tables.vteps.insert(key, Vtep::of_host(1, Addr::v4([192, 0, 2, 2])));
        plane.reconcile(&tables).unwrap();
        (b, plane)
    });
    assert!(ping(&a.inside, v4(2), LIMIT));
    transfer(&a.inside, &b.inside, v4(2).into());
    transfer(&b.inside, &a.inside, v4(1).into());

    for (vtep, reason) in
        [(Some(Vtep::of_host(1, far_vtep)), "not_for_this_vtep"), (None, "unknown_vtep")]
    {
        tables.vteps = vtep.map(|vtep| (from_far, vtep)).into_iter().collect();
        plane.reconcile(&tables).unwrap();
        assert!(!ping(&a.inside, v4(2), Duration::from_millis(300)), "{reason}");
        assert!(plane.view().counters().unwrap().drops.contains_key(reason));
    }
    drop(far_plane);
    netloom_dataplane::unload(&host.bpffs().with_file_name("far")).unwrap();
}

/// Field case F10: a plain VXLAN device refuses frames with any other bit set (RFC 7348, 5).
#[test]
fn a_vxlan_header_has_a_vni_and_no_other_bits() {
    if !may_run("a_vxlan_header_has_a_vni_and_no_other_bits") {
        return;
    }
    let host = Host::enter();
    let (_far, inbox) = far_inbox();

    let a = Vm::new(1);
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    plane.attach_port(a.ifindex()).unwrap();
    let mut tables = Tables::default();
    add_local(&mut tables, 1, a.ifindex(), Port::PEER);
    let (near, far) = (Addr::v4([192, 0, 2, 1]), Addr::v4([192, 0, 2, 2]));
    add_station(&mut tables, 2, Fdb::remote(VNI, far).sent_from(near));
    plane.reconcile(&tables).unwrap();
    // Memory that is not set may happen to be zero: several packets.
    for _ in 0..500 {
        ping(&a.inside, v4(2), Duration::from_millis(1));
        let mut datagram = [0xff; 128];
        inbox.recv(&mut datagram).unwrap();
        let [_, high, middle, low] = VNI.to_be_bytes();
        assert_eq!(datagram[..8], [8, 0, 0, 0, high, middle, low, 0]);
    }
}

#[test]
fn a_spoofed_address_never_arrives() {
    if !may_run("a_spoofed_address_never_arrives") {
        return;
    }
    let host = Host::enter();
    let (a, b) = (Vm::new(1), Vm::new(2));
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    let mut tables = Tables::default();
    add_local(&mut tables, 1, a.ifindex(), Port::PEER);
    add_local(&mut tables, 2, b.ifindex(), Port::PEER);
    plane.reconcile(&tables).unwrap();
    plane.attach_port(a.ifindex()).unwrap();
    plane.attach_port(b.ifindex()).unwrap();
    assert_eq!(plane.events().unwrap(), [], "from here on it is listened to");
    let inbox = b.inside.run(|| UdpSocket::bind((v4(2), 7_001)).unwrap());
    inbox.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    a.inside.ip("addr add 10.0.0.77/24 dev eth0");
    let send = |from: &'static str| {
        a.inside.run(move || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.send_to(from.as_bytes(), (v4(2), 7_001)).unwrap();
        });
    };
    send("10.0.0.1");
    let mut bytes = [0; 64];
    let (_, from) = inbox.recv_from(&mut bytes).unwrap();
    assert_eq!(from.ip(), v4(1));
    send("10.0.0.77");
    let refused = inbox.recv_from(&mut bytes).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    let events = plane.events().unwrap();
    assert!(events.iter().any(|event| {
        event.reason.is_some_and(|reason| reason.name() == "spoofed_address") && event.port == 1
    }));
}

#[test]
fn after_the_loss_of_a_maps_pin_the_programs_work_on_the_new_map() {
    if !may_run("after_the_loss_of_a_maps_pin_the_programs_work_on_the_new_map") {
        return;
    }
    let host = Host::enter();
    let (a, b) = (Vm::new(1), Vm::new(2));
    let mut tables = Tables::default();
    add_local(&mut tables, 1, a.ifindex(), Port::PEER);
    add_local(&mut tables, 2, b.ifindex(), Port::PEER);
    let start = |tables: &Tables| {
        let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
        plane.attach_port(a.ifindex()).unwrap();
        plane.attach_port(b.ifindex()).unwrap();
        plane.reconcile(tables).unwrap();
    };
    let pin = |map: &str| {
        let pins = std::fs::read_dir(host.bpffs().join("maps")).unwrap();
        let mut pins = pins.map(|pin| pin.unwrap().path());
        let is_it = |pin: &std::path::PathBuf| {
            let name = pin.file_name().unwrap().to_str().unwrap();
            name.rsplit_once('_').unwrap().0 == map
        };
        pins.find(is_it).unwrap()
    };
    for map in ["fdb", "ports", "config"] {
        // What the old map holds must not be what the new one is to hold.
        start(&Tables::default());
        std::fs::remove_file(pin(map)).unwrap();
        start(&tables);
        assert!(ping(&a.inside, v4(2), LIMIT), "after the loss of {map}");
        assert!(ping(&b.inside, v4(1), LIMIT), "after the loss of {map}");
    }
}

#[test]
fn a_program_that_somebody_puts_before_ours_is_noticed_and_overtaken() {
    if !may_run("a_program_that_somebody_puts_before_ours_is_noticed_and_overtaken") {
        return;
    }
    let host = Host::enter();
    let (a, b) = (Vm::new(1), Vm::new(2));
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    let mut tables = Tables::default();
    add_local(&mut tables, 1, a.ifindex(), Port::PEER);
    add_local(&mut tables, 2, b.ifindex(), Port::PEER);
    plane.reconcile(&tables).unwrap();
    plane.attach_port(a.ifindex()).unwrap();
    plane.attach_port(b.ifindex()).unwrap();
    assert_eq!(plane.attached_ports().unwrap().len(), 2);

    // As it happens, another data plane: its maps are empty, it drops everything.
    let other = host.bpffs().with_file_name("other");
    let mut foreign = DataPlane::open(&Options::new(&other)).unwrap();
    foreign.attach_port(a.ifindex()).unwrap();
    assert!(!ping(&a.inside, v4(2), Duration::from_millis(300)));
    assert_eq!(plane.attached_ports().unwrap(), [b.ifindex()].into());
    plane.attach_port(a.ifindex()).unwrap();
    assert_eq!(plane.attached_ports().unwrap().len(), 2);
    assert!(ping(&a.inside, v4(2), LIMIT));
    drop(foreign);
    netloom_dataplane::unload(&other).unwrap();
}
