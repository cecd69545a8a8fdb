//! Devices that something else made.

use compute::FarEnd;

use super::*;
use crate::kernel::Candidate;

const EXTERNAL: u128 = 61;
const FURTHER: u128 = 62;

/// The sample, with a port plugged into `vnet0`.
fn desired() -> Holding {
    let mut desired = sample::two_networks();
    desired.upsert(sample::external(EXTERNAL, "vnet0", 61));
    desired
}

/// Somebody makes `vnet0`.
fn make(memory: &Memory, ifindex: u32) {
    let device = Candidate {
        plug: Plug { ifindex, far_end: FarEnd::Here },
        mtu_bytes: 1500,
        is_ethernet: true,
        is_ours: false,
        controller: None,
        addresses: Vec::new(),
    };
    memory.state().devices.insert("vnet0".to_owned(), device);
}

/// The kernel deletes it.
fn delete(memory: &Memory) {
    let mut state = memory.state();
    let device = state.devices.remove("vnet0").unwrap();
    state.attached.remove(&device.plug.ifindex);
    state.borrowed.remove(&device.plug.ifindex);
}

fn is_in_maps(memory: &Memory, ifindex: u32) -> bool {
    memory.state().tables.ports.contains_key(&PortKey::untagged(ifindex))
}

#[tokio::test]
async fn a_device_that_comes_goes_and_comes_again_is_plugged_in_each_time() {
    let (memory, desired) = (Memory::default(), desired());
    let mut converger = Converger::new(memory.clone());
    let outcome = settle(&mut converger, &desired).await;
    let told: Vec<_> = outcome.failed.keys().copied().collect();
    assert_eq!(told, [uuid(EXTERNAL)], "and nothing else waits");
    assert!(outcome.failed[&uuid(EXTERNAL)].contains("has no device vnet0"), "{outcome:?}");
    for ifindex in [1001, 1002] {
        make(&memory, ifindex);
        assert!(converger.suspect(Some(ifindex)), "of an interface that nobody knows");
        let outcome = settle(&mut converger, &desired).await;
        assert!(outcome.is_clean(), "{outcome:?}");
        assert!(outcome.up.contains(&uuid(EXTERNAL)) && is_in_maps(&memory, ifindex));
        assert_eq!(outcome.kernel, desired.kernel_digest());
        // An agent that begins anew finds all as it must be.
        let before = writes(&memory);
        assert!(pass(&memory, &desired).await.is_clean());
        assert_eq!(writes(&memory), before);

        delete(&memory);
        assert!(converger.suspect(Some(ifindex)));
        let outcome = settle(&mut converger, &desired).await;
        assert!(outcome.failed[&uuid(EXTERNAL)].contains("has no device vnet0"), "{outcome:?}");
        assert!(!is_in_maps(&memory, ifindex) && !outcome.up.contains(&uuid(EXTERNAL)));
    }
    assert_eq!(memory.state().violations, Vec::<String>::new());
}

#[tokio::test]
async fn an_unplugged_device_is_its_owners_again_and_the_maps_forget_it_first() {
    let memory = Memory::default();
    make(&memory, 1001);
    for restarted in [false, true] {
        let mut converger = Converger::new(memory.clone());
        assert!(settle(&mut converger, &desired()).await.is_clean());
        if restarted {
            converger = Converger::new(memory.clone());
        }
        let first = converger.pass(&sample::two_networks(), Cause::Due).await;
        if !restarted {
            let reason = &first.failed[&uuid(EXTERNAL)];
            assert_eq!(reason, "its device still has programs", "not acknowledged yet");
        }
        assert!(!is_in_maps(&memory, 1001));
        let outcome = settle(&mut converger, &sample::two_networks()).await;
        assert!(outcome.is_clean(), "{outcome:?}");
        let state = memory.state();
        assert!(!state.attached.contains(&1001) && state.borrowed.is_empty());
        assert!(state.devices.contains_key("vnet0"));
        assert_eq!(state.violations, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_device_that_cannot_be_used_gets_no_programs_and_keeps_those_that_it_has() {
    let (memory, desired) = (Memory::default(), desired());
    make(&memory, 1001);
    let into_bridge = |controller: Option<&str>| {
        let mut state = memory.state();
        let device = state.devices.get_mut("vnet0").unwrap();
        device.controller = controller.map(str::to_owned);
    };
    into_bridge(Some("br0"));
    let mut converger = Converger::new(memory.clone());
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.failed[&uuid(EXTERNAL)].contains("belongs to br0"), "{outcome:?}");
    assert!(!memory.state().attached.contains(&1001));

    into_bridge(None);
    converger.suspect(Some(1001));
    assert!(settle(&mut converger, &desired).await.is_clean());
    into_bridge(Some("br0"));
    converger.suspect(Some(1001));
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.failed[&uuid(EXTERNAL)].contains("belongs to br0"), "{outcome:?}");
    assert!(memory.state().attached.contains(&1001), "nothing passes unseen");
    assert!(!is_in_maps(&memory, 1001));
    // Also by an agent that begins anew.
    let outcome = pass(&memory, &desired).await;
    assert!(outcome.failed[&uuid(EXTERNAL)].contains("belongs to br0"), "{outcome:?}");
    assert!(memory.state().attached.contains(&1001));
    assert!(pass(&memory, &sample::two_networks()).await.is_clean());
    assert!(!memory.state().attached.contains(&1001));
    assert_eq!(memory.state().violations, Vec::<String>::new());
}

#[tokio::test]
async fn the_device_by_which_tunnels_leave_is_not_plugged_in() {
    let (memory, desired) = (Memory::default(), desired());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    // That of the underlay, see `Memory`.
    make(&memory, 2);
    converger.suspect(None);
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.failed[&uuid(EXTERNAL)].contains("leads to other hosts"), "{outcome:?}");
    assert!(!outcome.up.contains(&uuid(EXTERNAL)) && memory.state().borrowed.is_empty());
}

#[tokio::test]
async fn one_device_takes_one_port_and_the_other_is_told() {
    let (memory, mut desired) = (Memory::default(), desired());
    make(&memory, 1001);
    desired.upsert(sample::external(FURTHER, "vnet0", 62));
    let outcome = pass(&memory, &desired).await;
    let told: Vec<_> = outcome.failed.keys().copied().collect();
    assert_eq!(told, [uuid(FURTHER)], "{outcome:?}");
    assert!(outcome.up.contains(&uuid(EXTERNAL)));
    // Another NIC takes its place: nothing is taken off and put on again.
    let before = writes(&memory);
    desired.remove(&wire::object::ObjectKey {
        table: wire::object::Table::Port,
        uuid: uuid(EXTERNAL),
    });
    let outcome = pass(&memory, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(writes(&memory), before + 1, "the maps");
}

#[tokio::test]
async fn programs_that_somebody_takes_off_come_back() {
    let (memory, desired) = (Memory::default(), desired());
    make(&memory, 1001);
    let mut converger = Converger::new(memory.clone());
    assert!(settle(&mut converger, &desired).await.is_clean());
    {
        let mut state = memory.state();
        state.attached.remove(&1001);
    }
    converger.probe().await;
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert!(memory.state().attached.contains(&1001) && is_in_maps(&memory, 1001));
    assert_eq!(memory.state().violations, Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_given_back_while_nobody_can_look_for_devices() {
    let (memory, desired) = (Memory::default(), desired());
    make(&memory, 1001);
    assert!(pass(&memory, &desired).await.is_clean());
    memory.state().devices_refused = true;
    let mut converger = Converger::new(memory.clone());
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.trouble.concat().contains("cannot see its devices"), "{outcome:?}");
    assert!(converger.has_failed() && memory.state().attached.contains(&1001));
    memory.state().devices_refused = false;
    assert!(settle(&mut converger, &desired).await.is_clean());
}

#[tokio::test]
async fn a_nic_that_has_come_is_told_until_its_move_is_over() {
    let memory = Memory::default();
    let mut desired = sample::two_networks();
    let port = sample::external(EXTERNAL, "vnet0", 61);
    desired.upsert(sample::moving(port, None, sample::a_move(7, 2)));
    make(&memory, 1001);
    let mut converger = Converger::new(memory.clone());
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.is_clean() && outcome.up.contains(&uuid(EXTERNAL)), "{outcome:?}");
    assert_eq!(outcome.kernel, desired.kernel_digest());
    assert!(outcome.arrived.is_empty());
    assert_eq!(converger.awaited_moves(), [7].into());
    memory.state().arrived.extend([6, 7]);
    for _ in 0..2 {
        let outcome = settle(&mut converger, &desired).await;
        assert_eq!(outcome.arrived, [7].into(), "and nothing of other moves");
        assert!(converger.awaited_moves().is_empty());
    }
    assert_eq!(settle(&mut Converger::new(memory.clone()), &desired).await.arrived, [7].into());
    desired.upsert(sample::external(EXTERNAL, "vnet0", 61));
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.is_clean() && outcome.arrived.is_empty(), "{outcome:?}");
}
