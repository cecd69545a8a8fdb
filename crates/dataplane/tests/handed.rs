//! Connections that one host hands over to another. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{Addr, CtState, Direction, Port};
use netloom_dataplane::{DataPlane, HandedConnection, Options, Tables, Use, View};
use std::path::Path;
use support::vm::{Vm, add_local};
use support::{Host, may_run};

fn connection(local_port: u16, state: CtState, by_other: bool) -> HandedConnection {
    HandedConnection {
        local: Addr::v4([10, 0, 0, 1]),
        remote: Addr::v4([10, 0, 0, 2]),
        local_port,
        remote_port: 443,
        protocol: 6,
        state: state as u8,
        by_other,
        picked_up: false,
        seconds_left: 100,
        source_net: 1,
    }
}

/// A data plane with two ports.
fn plane(bpffs: &Path, vms: [&Vm; 2]) -> DataPlane {
    let mut plane = DataPlane::open(&Options::new(bpffs.to_owned())).unwrap();
    let mut tables = Tables::default();
    for vm in vms {
        add_local(&mut tables, vm.number, vm.ifindex(), Port::PEER);
    }
    plane.reconcile(&tables).unwrap();
    plane
}

fn of_port(view: &View, number: u32) -> Vec<HandedConnection> {
    let area = view.port_area(number).unwrap().unwrap();
    let mut found = view.hand_over(area).unwrap();
    found.sort_unstable();
    found
}

#[test]
fn connections_go_to_another_table_with_opener_and_state() {
    if !may_run("connections_go_to_another_table_with_opener_and_state") {
        return;
    }
    let host = Host::enter();
    let vms = [Vm::new(1), Vm::new(2)];
    let (near, far) = (host.bpffs(), host.bpffs().with_file_name("far"));
    let planes = [&near, &far].map(|bpffs| plane(bpffs, [&vms[0], &vms[1]]));
    let [mut here, mut there] = [&near, &far].map(|bpffs| View::open(bpffs).unwrap());
    let mut all = vec![
        connection(1, CtState::Established, true),
        connection(2, CtState::Established, false),
        connection(3, CtState::Opening, false),
        connection(4, CtState::Answered, true),
        connection(5, CtState::Closing, false),
        HandedConnection { picked_up: true, ..connection(6, CtState::Established, false) },
        HandedConnection { protocol: 1, remote_port: 0, ..connection(7, CtState::Opening, false) },
        HandedConnection { protocol: 17, ..connection(8, CtState::Answered, false) },
    ];
    all.sort_unstable();
    let taken = here.take_over((1, Use::Live), &all).unwrap();
    assert_eq!((taken.taken, taken.lost), (8, 0));
    let found = of_port(&here, 1);
    let same = |a: &HandedConnection, b: &HandedConnection| {
        let left = a.seconds_left.abs_diff(b.seconds_left) <= 2;
        left && HandedConnection { seconds_left: 0, ..*a }
            == HandedConnection { seconds_left: 0, ..*b }
    };
    assert!(found.len() == 8 && found.iter().zip(&all).all(|(a, b)| same(a, b)), "{found:?}");
    assert_eq!(of_port(&here, 2), [], "another port's are another's");

    // In another table, for a port with another number.
    there.take_over((2, Use::Waits), &found).unwrap();
    let shown = there.connections().unwrap();
    assert!(shown.len() == 8 && shown.iter().all(|one| one.port == 2), "{shown:?}");
    let of = |local_port: u16| shown.iter().find(|one| one.key.local_port == local_port).unwrap();
    assert_eq!((of(1).state, of(1).initiator), ("established", Some(Direction::ToPort)));
    assert_eq!((of(2).state, of(2).initiator), ("established", Some(Direction::FromPort)));
    assert_eq!((of(6).state, of(6).initiator), ("established", None));

    // What comes later replaces, as long as the port waits.
    let closed = connection(1, CtState::Closed, true);
    there.take_over((2, Use::Live), &[closed]).unwrap();
    let state =
        |view: &View| of_port(view, 2).into_iter().find(|one| one.local_port == 1).unwrap().state;
    assert_eq!(state(&there), CtState::Established as u8, "the programs know better");
    there.take_over((2, Use::Waits), &[closed]).unwrap();
    assert_eq!(state(&there), CtState::Closed as u8);
    drop(planes);
    netloom_dataplane::unload(&far).unwrap();
}

#[test]
fn a_host_that_lies_fills_the_room_of_the_port_and_no_other() {
    if !may_run("a_host_that_lies_fills_the_room_of_the_port_and_no_other") {
        return;
    }
    let host = Host::enter();
    let vms = [Vm::new(1), Vm::new(2)];
    let _plane = plane(&host.bpffs(), [&vms[0], &vms[1]]);
    let mut view = View::open(&host.bpffs()).unwrap();
    let own = [connection(1, CtState::Established, false)];
    view.take_over((2, Use::Live), &own).unwrap();
    let before = of_port(&view, 2);
    let room = view.room().unwrap();
    let many: Vec<_> = (0..40_000)
        .map(|number| HandedConnection {
            seconds_left: u32::MAX,
            source_net: 99,
            ..connection(number, CtState::Established, number % 2 == 0)
        })
        .collect();
    let taken = view.take_over((1, Use::Waits), &many).unwrap();
    assert_eq!(taken.taken + taken.lost, 40_000);
    assert!(taken.taken <= 7 * room.port_buckets && taken.lost > 0, "{taken:?} of {room:?}");
    let shown = view.connections().unwrap();
    let of_first = shown.iter().filter(|one| one.port == 1);
    assert_eq!(of_first.clone().count(), usize::try_from(taken.taken).unwrap());
    assert!(of_first.into_iter().all(|one| one.seconds_left <= 7_442), "none lives for ever");
    // Only time has passed.
    let still = |one: &HandedConnection| HandedConnection { seconds_left: 0, ..*one };
    let [before, after] =
        [before, of_port(&view, 2)].map(|all| all.iter().map(still).collect::<Vec<_>>());
    assert_eq!(after, before);
    for odd in [0, 7, 8, 255] {
        let odd = HandedConnection { state: odd, ..connection(1, CtState::Opening, false) };
        assert_eq!(view.take_over((2, Use::Waits), &[odd]).unwrap().lost, 1);
    }
    assert_eq!(view.take_over((77, Use::Waits), &own).unwrap().lost, 1, "no such port");
}
