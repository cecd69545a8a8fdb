//! Frames that the programs hand to the agent, from a real VM. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::vectors::frame::Ip;
use netloom_dataplane::packet::{Addr, AddrKey, HANDED_PER_WINDOW, Port, SERVICE_MAC, Serving};
use netloom_dataplane::{DataPlane, Error, HandedFrame, Options, Questions, Tables};
use nix::sys::socket::{setsockopt, sockopt};
use std::ffi::OsString;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use support::traffic::LIMIT;
use support::vm::{Vm, add_local, mac, v4};
use support::{Host, may_run};

/// Sends so many requests as a client without an address does.
fn ask(vm: &Vm, requests: u32) {
    vm.inside.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:68").unwrap();
        socket.set_broadcast(true).unwrap();
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from("eth0")).unwrap();
        for request in 0..requests {
            socket.send_to(&request.to_be_bytes(), "255.255.255.255:67").unwrap();
        }
    });
}

/// A port with this done for it at `::`.
fn serve(tables: &mut Tables, port: u32, what: u32) {
    tables.serving.insert(AddrKey { port, addr: Addr::UNSPECIFIED_V6 }, Serving { what });
}

fn dropped(plane: &DataPlane, reason: &str) -> u64 {
    plane.view().counters().unwrap().drops.get(reason).copied().unwrap_or_default()
}

/// Waits until so many requests have been handed off or dropped for these reasons.
#[expect(clippy::disallowed_methods, reason = "the programs tell nobody what they drop")]
fn settled(
    plane: &DataPlane,
    questions: &mut Questions,
    reasons: &[&str],
    requests: u64,
) -> Vec<HandedFrame> {
    let (start, mut frames) = (Instant::now(), Vec::new());
    loop {
        frames.extend(questions.by_ref());
        let drops: u64 = reasons.iter().map(|reason| dropped(plane, reason)).sum();
        if drops + u64::try_from(frames.len()).unwrap() == requests {
            return frames;
        }
        assert!(start.elapsed() < LIMIT, "{} frames, {drops} drops", frames.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_agent_gets_a_ports_requests_with_its_number_and_no_more_than_a_few() {
    if !may_run("the_agent_gets_a_ports_requests_with_its_number_and_no_more_than_a_few") {
        return;
    }
    let host = Host::enter();
    let vm = Vm::new(7);
    vm.inside.ip("addr flush dev eth0");
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    plane.attach_port(vm.ifindex()).unwrap();
    let mut tables = Tables::default();
    add_local(&mut tables, 7, vm.ifindex(), Port::PEER);
    plane.reconcile(&tables).unwrap();
    let mut desk = plane.desk().unwrap();
    ask(&vm, 1);
    let asked = settled(&plane, &mut desk.leases, &["dhcp"], 1);
    assert_eq!(asked, [], "nobody answers DHCP");

    serve(&mut tables, 7, Serving::DHCP);
    plane.reconcile(&tables).unwrap();
    ask(&vm, 100);
    let frames = settled(&plane, &mut desk.leases, &["dhcp", "hand_off_rate"], 101);
    // The window may have ended meanwhile, once.
    let most = usize::try_from(2 * HANDED_PER_WINDOW).unwrap();
    assert!((most / 2..=most).contains(&frames.len()), "{} frames", frames.len());
    for (request, handed) in (0_u32..).zip(&frames[..most / 2]) {
        assert_eq!((handed.port, handed.ifindex, handed.vlan), (7, vm.ifindex(), 0));
        assert_eq!(handed.frame[..12], [[0xff; 6], mac(7).0].concat());
        assert_eq!(handed.frame[42..], request.to_be_bytes(), "all of the frame, in order");
    }
}

/// A datagram from 10.0.0.53 to a VM, in a frame. UDP of IPv4 needs no checksum.
fn answer(number: u32, text: &[u8]) -> Vec<u8> {
    let packet = Ip::new("10.0.0.53", &v4(number).to_string(), 17, {
        let length = u16::try_from(8 + text.len()).unwrap();
        let mut datagram = [53, 4_000, length, 0].map(u16::to_be_bytes).concat();
        datagram.extend(text);
        datagram
    });
    packet.frame(mac(number), SERVICE_MAC)
}

/// A VM's port at which answers arrive.
fn inbox(vm: &Vm) -> UdpSocket {
    let socket = vm.inside.run(|| UdpSocket::bind("0.0.0.0:4000").unwrap());
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn hears(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

#[test]
fn the_agent_alone_reaches_a_port_and_only_as_long_as_it_is_the_last_one() {
    if !may_run("the_agent_alone_reaches_a_port_and_only_as_long_as_it_is_the_last_one") {
        return;
    }
    let host = Host::enter();
    // One whose other end is elsewhere, and one that frames leave through the interface.
    let (vm, other) = (Vm::new(7), Vm::new(8));
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    let mut tables = Tables::default();
    for (vm, flags) in [(&vm, Port::PEER), (&other, 0)] {
        plane.attach_port(vm.ifindex()).unwrap();
        add_local(&mut tables, vm.number, vm.ifindex(), flags);
    }
    let mut first = plane.desk().unwrap();
    first.answers.send(vm.ifindex(), &answer(7, b"nobody's port")).unwrap();
    assert_eq!(dropped(&plane, "host_to_port"), 1, "the maps do not know the port yet");
    plane.reconcile(&tables).unwrap();
    for vm in [&vm, &other] {
        let inbox = inbox(vm);
        first.answers.send(vm.ifindex(), &answer(vm.number, b"here you are")).unwrap();
        assert_eq!(hears(&inbox), b"here you are");
    }
    let mut at = first.ports.interfaces().unwrap();
    at.sort_unstable();
    assert_eq!(at, [(7, vm.ifindex()), (8, other.ifindex())]);
    let traffic = plane.view().counters().unwrap().traffic;
    assert_eq!(traffic[&7].to_port_packets, 1, "{traffic:?}");

    let mut second = plane.desk().unwrap();
    let inbox = inbox(&vm);
    first.answers.send(vm.ifindex(), &answer(7, b"too late")).unwrap();
    second.answers.send(vm.ifindex(), &answer(7, b"from the next one")).unwrap();
    assert_eq!(hears(&inbox), b"from the next one");
    assert_eq!(dropped(&plane, "host_to_port"), 2);
    let gone = second.answers.send(9_999, &answer(7, b"nowhere"));
    assert!(matches!(gone, Err(Error::NoInterface { ifindex: 9_999 })), "{gone:?}");
}

#[test]
fn who_asks_without_end_takes_nobodys_lease() {
    if !may_run("who_asks_without_end_takes_nobodys_lease") {
        return;
    }
    let host = Host::enter();
    let vm = Vm::new(7);
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    plane.attach_port(vm.ifindex()).unwrap();
    let mut tables = Tables::default();
    add_local(&mut tables, 7, vm.ifindex(), Port::PEER);
    serve(&mut tables, 7, Serving::DHCP);
    let resolver = AddrKey { port: 7, addr: Addr::v4([10, 0, 0, 53]) };
    tables.serving.insert(resolver, Serving { what: Serving::DNS | Serving::ADDRESS });
    plane.reconcile(&tables).unwrap();
    let mut desk = plane.desk().unwrap();
    vm.inside.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:4000").unwrap();
        // To resolve the address is a question to netloom, too.
        for query in 0..1_000_u32 {
            socket.send_to(&query.to_be_bytes(), "10.0.0.53:53").unwrap();
        }
    });
    ask(&vm, 1);
    let leases = settled(&plane, &mut desk.leases, &["dhcp"], 1);
    assert_eq!(leases.len(), 1);
    let asked = settled(&plane, &mut desk.requests, &["hand_off_rate", "hand_off_refused"], 1_000);
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|frame| frame.port == 7 && frame.frame[..6] == SERVICE_MAC.0));
}
