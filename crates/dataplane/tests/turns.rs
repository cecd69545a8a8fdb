//! Who hears of dropped frames: an agent in turns, and whoever watches beside it. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{DropReason, Port};
use netloom_dataplane::{
    DataPlane, DropTurns, DropWatch, Error, Options, Tables, TurnFrame, preflight,
};
use std::net::{Ipv4Addr, UdpSocket};
use support::vm::{Vm, add_local, v4};
use support::{Host, may_run};

/// A VM that sends from an address that is not its own.
struct World {
    plane: DataPlane,
    spoofer: UdpSocket,
    _vm: Vm,
    host: Host,
}

impl World {
    fn new() -> World {
        let host = Host::enter();
        preflight().unwrap();
        let vm = Vm::new(1);
        let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
        plane.attach_port(vm.ifindex()).unwrap();
        let mut tables = Tables::default();
        add_local(&mut tables, 1, vm.ifindex(), Port::PEER);
        plane.reconcile(&tables).unwrap();
        vm.inside.ip("addr add 10.0.0.77/24 dev eth0");
        vm.inside.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev eth0");
        let own = Ipv4Addr::new(10, 0, 0, 77);
        let spoofer = vm.inside.run(move || UdpSocket::bind((own, 0)).unwrap());
        World { plane, spoofer, _vm: vm, host }
    }

    /// Sends so many frames that are dropped, and waits until they are counted.
    fn spoof(&self, frames: u64) {
        let counted = || {
            let drops = self.plane.view().counters().unwrap().drops;
            drops.get("spoofed_address").copied().unwrap_or_default()
        };
        let before = counted();
        for _ in 0..frames {
            self.spoofer.send_to(b"x", (v4(2), 9)).unwrap();
        }
        while counted() < before + frames {
            std::thread::yield_now();
        }
    }
}

fn spoofed(frames: &[TurnFrame]) -> usize {
    let is_it = |told: &&TurnFrame| {
        let frame = &told.frame;
        frame.reason == Some(DropReason::SpoofedAddress) && frame.port == 1 && told.is_from_port
    };
    frames.iter().filter(is_it).count()
}

#[test]
fn the_agent_yields_to_whoever_watches_and_goes_on_afterwards() {
    if !may_run("the_agent_yields_to_whoever_watches_and_goes_on_afterwards") {
        return;
    }
    let world = World::new();
    let mut turns = DropTurns::open(&world.host.bpffs()).unwrap();
    let first = turns.take().unwrap();
    world.spoof(3);
    let turn = turns.take().unwrap();
    assert_eq!(spoofed(&turn.frames), 3, "{turn:?}");
    assert!(turn.counted >= first.counted + 3);

    let mut watch = DropWatch::open(&world.host.bpffs()).unwrap();
    let another = DropWatch::open(&world.host.bpffs());
    assert!(matches!(another, Err(Error::Watched { .. })));
    world.spoof(2);
    assert!(turns.take().unwrap().frames.is_empty());
    let heard = watch.read().unwrap();
    let heard = heard.iter().filter(|frame| frame.reason == Some(DropReason::SpoofedAddress));
    assert_eq!(heard.count(), 2);
    // An agent that ends, or starts again, does not take the word away from it.
    drop(turns);
    world.spoof(1);
    assert!(!watch.read().unwrap().is_empty());
    let mut turns = DropTurns::open(&world.host.bpffs()).unwrap();
    assert!(turns.take().unwrap().frames.is_empty());
    drop(watch);

    turns.take().unwrap();
    world.spoof(1);
    assert_eq!(spoofed(&turns.take().unwrap().frames), 1);
}

#[test]
fn where_too_much_is_dropped_the_programs_tell_of_it_for_a_hundredth_of_the_time() {
    if !may_run("where_too_much_is_dropped_the_programs_tell_of_it_for_a_hundredth_of_the_time") {
        return;
    }
    let world = World::new();
    let mut turns = DropTurns::open(&world.host.bpffs()).unwrap();
    let calm = turns.take().unwrap();
    world.spoof(3_000);
    let flooded = turns.take().unwrap();
    assert!(spoofed(&flooded.frames) >= 1_000, "{}", flooded.frames.len());
    assert!(flooded.pause > calm.pause);
    // Meanwhile nothing is told, but all is counted.
    world.spoof(10);
    let glimpse = turns.take().unwrap();
    assert_eq!((glimpse.frames.len(), glimpse.counted), (0, flooded.counted + 10));
    assert!(glimpse.pause * 20 < calm.pause);
    world.spoof(5);
    let turn = turns.take().unwrap();
    assert_eq!((spoofed(&turn.frames), turn.pause), (5, calm.pause), "that was all of it");
}
