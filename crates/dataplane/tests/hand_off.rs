//! Frames that the programs hand to the agent, from a real VM. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{HANDED_PER_WINDOW, Net, Port};
use netloom_dataplane::{DataPlane, HandedFrame, Options, Tables};
use nix::sys::socket::{setsockopt, sockopt};
use std::ffi::OsString;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use support::traffic::LIMIT;
use support::vm::{Vm, add_local, mac};
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

fn dropped(plane: &DataPlane, reason: &str) -> u64 {
    plane.view().counters().unwrap().drops.get(reason).copied().unwrap_or_default()
}

/// Waits until so many requests have been handed off or dropped for these reasons.
#[expect(clippy::disallowed_methods, reason = "the programs tell nobody what they drop")]
fn settled(plane: &mut DataPlane, reasons: &[&str], requests: u64) -> Vec<HandedFrame> {
    let (start, mut frames) = (Instant::now(), Vec::new());
    loop {
        frames.extend(plane.handed_off());
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
    ask(&vm, 1);
    assert_eq!(settled(&mut plane, &["dhcp"], 1), [], "nobody answers DHCP");

    tables.nets.insert(1, Net::closed().with_dhcp());
    plane.reconcile(&tables).unwrap();
    ask(&vm, 100);
    let frames = settled(&mut plane, &["dhcp", "hand_off_rate"], 101);
    // The window may have ended meanwhile, once.
    let most = usize::try_from(2 * HANDED_PER_WINDOW).unwrap();
    assert!((most / 2..=most).contains(&frames.len()), "{} frames", frames.len());
    for (request, handed) in (0_u32..).zip(&frames[..most / 2]) {
        assert_eq!((handed.port, handed.ifindex, handed.vlan), (7, vm.ifindex(), 0));
        assert_eq!(handed.frame[..12], [[0xff; 6], mac(7).0].concat());
        assert_eq!(handed.frame[42..], request.to_be_bytes(), "all of the frame, in order");
    }
}
