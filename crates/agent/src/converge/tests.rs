//! One pass and the next: what becomes of a host, also when things fail.

use dataplane::Tables;
use packet::PortKey;
use wire::object::{Driver, Instance, Object};

use super::*;
use crate::{
    memory::Memory,
    sample::{self, uuid},
};

#[path = "tests/borrowed.rs"]
mod borrowed;
#[path = "tests/policies.rs"]
mod policies;
#[path = "tests/tunnels.rs"]
mod tunnels;

/// Passes until nobody waits for the driver.
async fn respond(converger: &mut Converger<Memory>, desired: &Holding) -> Outcome {
    let mut outcome = converger.pass(desired, Cause::Due).await;
    while converger.is_awaited() {
        converger.driver().await;
        outcome = converger.pass(desired, Cause::Driver).await;
    }
    outcome
}

/// Passes until the driver has nothing left to do, also of what can wait.
async fn settle(converger: &mut Converger<Memory>, desired: &Holding) -> Outcome {
    let mut outcome = respond(converger, desired).await;
    loop {
        converger.start_chore(Calm::Still);
        if !converger.is_busy() {
            return outcome;
        }
        converger.driver().await;
        outcome = converger.pass(desired, Cause::Driver).await;
    }
}

/// What an agent achieves that starts now.
async fn pass(memory: &Memory, desired: &Holding) -> Outcome {
    settle(&mut Converger::new(memory.clone()), desired).await
}

/// How often the maps were read, and edited without being read.
fn accesses(memory: &Memory) -> (usize, usize) {
    let state = memory.state();
    (state.audits, state.edits)
}

fn writes(memory: &Memory) -> usize {
    memory.state().writes
}

#[tokio::test]
async fn an_empty_host_gets_everything_and_agrees() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    let outcome = pass(&memory, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(outcome.kernel, desired.kernel_digest());
    assert_eq!(outcome.up.len(), 3);
    assert_eq!(memory.state().violations, Vec::<String>::new());
}

#[tokio::test]
async fn an_underlay_that_is_too_small_is_told_until_it_is_not() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    assert!(settle(&mut converger, &desired).await.is_clean());
    memory.state().underlay = Some(1400);
    converger.suspect(None);
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.processed && outcome.failed.is_empty(), "nothing waits: {outcome:?}");
    assert!(outcome.trouble.concat().contains("the underlay is too small"), "{outcome:?}");
    assert!(!converger.has_failed(), "trying again does not help");
    memory.state().underlay = None;
    converger.suspect(None);
    assert!(settle(&mut converger, &desired).await.is_clean());
}

#[tokio::test]
async fn a_restarted_agent_writes_nothing() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    let first = pass(&memory, &desired).await;
    let before = writes(&memory);
    assert_eq!(pass(&memory, &desired).await, first);
    assert_eq!(writes(&memory), before);
}

#[tokio::test]
async fn what_an_upgrade_has_cost_is_told_and_stops_nothing() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    memory.state().notice = Some("connections began anew".to_owned());
    let mut converger = Converger::new(memory.clone());
    let outcome = settle(&mut converger, &desired).await;
    assert_eq!(outcome.trouble, ["connections began anew"]);
    assert!(outcome.processed && outcome.failed.is_empty(), "{outcome:?}");
    memory.state().notice = None;
    assert!(settle(&mut converger, &desired).await.is_clean());
}

#[tokio::test]
async fn removal_leaves_nothing_behind() {
    let memory = Memory::default();
    pass(&memory, &sample::two_networks()).await;
    let outcome = pass(&memory, &Holding::default()).await;
    assert!(outcome.is_clean());
    let state = memory.state();
    assert!(state.instances.is_empty() && state.nics.is_empty() && state.attached.is_empty());
    assert_eq!(state.tables, Tables::default());
    assert_eq!(state.violations, Vec::<String>::new());
}

#[tokio::test]
async fn a_port_without_room_for_connections_is_told_and_takes_nobodys() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    memory.state().ports_max = Some(2);
    let first = pass(&memory, &desired).await;
    assert!(first.is_clean(), "{first:?}");
    let mut more = desired.clone();
    more.upsert(sample::instance(40));
    more.upsert(sample::port(1, 40, sample::NETWORK_A, 7));
    // The second time by an agent that finds all three devices.
    for _ in 0..2 {
        let outcome = pass(&memory, &more).await;
        let failed: Vec<_> = outcome.failed.iter().collect();
        assert_eq!(failed.iter().map(|(uuid, _)| **uuid).collect::<Vec<_>>(), [uuid(1)]);
        assert!(failed[0].1.contains("2 entries for ports are in use"), "{failed:?}");
        assert!(first.up.is_subset(&outcome.up), "{outcome:?}");
        assert!(!outcome.up.contains(&uuid(1)), "it is not put up");
    }
}

#[tokio::test]
async fn one_broken_instance_does_not_stop_the_others() {
    let memory = Memory::default();
    let mut desired = sample::two_networks();
    desired.upsert(sample::instance(40));
    desired.upsert(sample::port(41, 40, sample::NETWORK_A, 7));
    memory.state().broken.insert(uuid(sample::INSTANCE));
    let mut converger = Converger::new(memory.clone());
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.processed && !outcome.is_clean());
    let told: Vec<_> = outcome.failed.keys().copied().collect();
    assert_eq!(told, [sample::INSTANCE, sample::PORT_A, sample::PORT_B].map(uuid));
    assert_eq!(outcome.failed[&uuid(sample::PORT_A)], "waits for its instance");
    assert_eq!(outcome.up, [40, 41].map(uuid).into());

    memory.state().broken.clear();
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.is_clean());
    assert_eq!(outcome.kernel, desired.kernel_digest());
}

#[tokio::test]
async fn an_instance_that_cannot_be_removed_stays_guarded_and_is_told() {
    let memory = Memory::default();
    pass(&memory, &sample::two_networks()).await;
    memory.state().broken.insert(uuid(sample::INSTANCE));
    let outcome = pass(&memory, &Holding::default()).await;
    assert!(outcome.processed, "what else there is goes on");
    assert!(outcome.failed[&uuid(sample::INSTANCE)].starts_with("cannot be removed"));
    let told: Vec<_> = outcome.failed.keys().copied().collect();
    assert_eq!(told, [sample::INSTANCE].map(uuid), "the NICs are cut off");
    let state = memory.state();
    assert_eq!(state.attached.len(), 2);
    assert!(state.nics.values().all(|nic| !nic.up));
    assert_eq!(state.tables, Tables::default(), "the guard lets nothing pass");
}

#[tokio::test]
async fn a_host_that_cannot_be_seen_or_written_acknowledges_nothing() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    memory.state().maps_refused = true;
    let outcome = pass(&memory, &desired).await;
    assert!(!outcome.processed);
    memory.state().maps_refused = false;
    assert!(pass(&memory, &desired).await.is_clean());
}

#[tokio::test]
async fn a_network_without_its_interface_is_told_and_holds_nothing_else_up() {
    let memory = Memory::default();
    let mut desired = sample::two_networks();
    desired.upsert(sample::uplink(3));
    desired.upsert(sample::port(33, sample::INSTANCE, 3, 8));
    let mut converger = Converger::new(memory.clone());
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.processed);
    assert_eq!(outcome.failed.keys().copied().collect::<Vec<_>>(), [uuid(3), uuid(33)]);
    assert!(outcome.failed[&uuid(33)].contains("no such interface"), "{outcome:?}");
    assert_eq!(outcome.up.len(), 4, "the instance and its three ports");

    let uplink = Uplink { ifindex: 900, mac: [2; 6], is_up: true, mtu_bytes: 1500 };
    memory.state().uplinks.insert("eth1".to_owned(), uplink);
    assert!(converger.suspect(Some(900)), "any that comes may be the one");
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(outcome.kernel, desired.kernel_digest());
    let key = PortKey::tagged(900, 7);
    assert_eq!(memory.state().tables.wires[&key], packet::Wire { net: 3 });

    memory.state().uplinks.clear();
    assert!(converger.suspect(Some(900)));
    let outcome = settle(&mut converger, &desired).await;
    assert_eq!(outcome.failed.keys().copied().collect::<Vec<_>>(), [uuid(3), uuid(33)]);
    assert!(memory.state().tables.wires.is_empty());
}

#[tokio::test]
async fn without_a_tunnel_only_ports_of_tunnel_networks_fail() {
    let memory = Memory::default();
    let mut desired = Holding::default();
    desired.upsert(sample::uplink(3));
    desired.upsert(sample::instance(sample::INSTANCE));
    desired.upsert(sample::port(33, sample::INSTANCE, 3, 8));
    memory.state().no_tunnel = true;
    let uplink = Uplink { ifindex: 900, mac: [2; 6], is_up: true, mtu_bytes: 1500 };
    memory.state().uplinks.insert("eth1".to_owned(), uplink);
    let outcome = pass(&memory, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
}

#[tokio::test]
async fn a_device_that_its_guest_has_hidden_is_replaced_and_never_unguarded() {
    let memory = Memory::default();
    let desired = sample::two_networks();
    pass(&memory, &desired).await;
    let hidden = memory.state().nics.remove(&uuid(sample::PORT_A)).unwrap();
    let outcome = pass(&memory, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(outcome.kernel, desired.kernel_digest());
    let state = memory.state();
    assert!(!state.attached.contains(&hidden.ifindex));
    assert_ne!(state.nics[&uuid(sample::PORT_A)].ifindex, hidden.ifindex);
}

#[tokio::test]
async fn without_a_tunnel_no_nic_is_in_effect() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    memory.state().no_tunnel = true;
    let outcome = pass(&memory, &desired).await;
    assert_eq!(outcome.failed.len(), 2);
    assert!(outcome.failed.values().all(|reason| reason.contains("no tunnel device")));
    memory.state().no_tunnel = false;
    assert!(pass(&memory, &desired).await.is_clean());
}

#[tokio::test]
async fn death_at_every_step_converges_and_opens_nothing() {
    let (mut some, all) = (sample::two_networks(), sample::two_networks());
    some.upsert(sample::instance(40));
    some.upsert(sample::port(41, 40, sample::NETWORK_B, 7));
    some.remove(&sample::port(sample::PORT_B, 0, 0, 0).key());
    for limit in 0..40 {
        let memory = Memory::default();
        pass(&memory, &some).await;
        let before = writes(&memory);
        memory.state().dies_after = Some(before + limit);
        pass(&memory, &all).await;
        memory.state().dies_after = None;
        let outcome = pass(&memory, &all).await;
        assert!(outcome.is_clean(), "dead after {limit} writes: {outcome:?}");
        assert_eq!(outcome.kernel, all.kernel_digest());
        assert_eq!(memory.state().violations, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_driver_that_answers_nothing_holds_up_neither_peers_nor_other_instances() {
    let memory = Memory::default();
    let mut desired = sample::two_networks();
    memory.state().stuck.insert(uuid(sample::INSTANCE));
    let mut converger = Converger::new(memory.clone());
    let outcome = converger.pass(&desired, Cause::Due).await;
    assert!(outcome.processed);
    assert_eq!(memory.state().tables.fdb.len(), 2, "the peers are there at once");
    let told: Vec<_> = outcome.failed.keys().copied().collect();
    assert_eq!(told, [sample::INSTANCE, sample::PORT_A, sample::PORT_B].map(uuid));

    desired.upsert(sample::peer(13, sample::NETWORK_A, 93));
    desired.upsert(sample::instance(40));
    desired.upsert(sample::port(41, 40, sample::NETWORK_A, 7));
    converger.pass(&desired, Cause::Due).await;
    assert_eq!(memory.state().tables.fdb.len(), 3, "so is another one");
    let mut outcome = Outcome::default();
    while !outcome.up.contains(&uuid(41)) {
        converger.driver().await;
        outcome = converger.pass(&desired, Cause::Driver).await;
    }
    assert!(converger.is_busy(), "the first is still being made");
    memory.state().stuck.clear();
    assert!(settle(&mut converger, &desired).await.is_clean());
    assert_eq!(memory.state().violations, Vec::<String>::new());
}

#[tokio::test]
async fn a_change_is_written_without_reading_and_an_audit_reads() {
    let (memory, mut desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    let (audits, edits) = accesses(&memory);
    desired.upsert(sample::peer(13, sample::NETWORK_A, 93));
    let outcome = settle(&mut converger, &desired).await;
    assert_eq!(accesses(&memory), (audits, edits + 1));
    assert_eq!(outcome.kernel, desired.kernel_digest());
    settle(&mut converger, &desired).await;
    assert_eq!(memory.state().edits, edits + 1, "an idle pass does nothing");

    // Somebody meddles with the maps: what they hold is not known before an audit.
    memory.state().tables.neigh.clear();
    converger.doubt();
    let outcome = settle(&mut converger, &desired).await;
    assert_eq!(memory.state().audits, audits + 1);
    assert_eq!(outcome.kernel, desired.kernel_digest());
    assert_eq!(memory.state().tables.neigh.len(), 3 + 4);
}

#[tokio::test]
async fn after_a_refused_write_the_maps_are_read_again() {
    let (memory, mut desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    memory.state().maps_refused = true;
    desired.upsert(sample::peer(13, sample::NETWORK_A, 93));
    let outcome = settle(&mut converger, &desired).await;
    assert!(!outcome.processed);
    assert_ne!(outcome.kernel, desired.kernel_digest());
    memory.state().maps_refused = false;
    let audits = memory.state().audits;
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.is_clean());
    assert_eq!(memory.state().audits, audits + 1);
    assert_eq!(outcome.kernel, desired.kernel_digest());
}

#[tokio::test]
async fn a_port_whose_programs_are_gone_is_put_down_before_it_is_guarded() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    let port = memory.state().nics[&uuid(sample::PORT_A)].ifindex;
    memory.state().attached.remove(&port);
    converger.doubt();
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    let state = memory.state();
    assert_eq!((state.attached.len(), state.went_down), (2, 1));
    assert_eq!(state.violations, Vec::<String>::new());
}

#[tokio::test]
async fn a_tunnel_device_that_has_lost_its_program_gets_it_back() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    let before = writes(&memory);
    converger.probe().await;
    settle(&mut converger, &desired).await;
    assert_eq!(writes(&memory), before, "nothing is wrong");
    memory.state().tunnel_guarded = false;
    converger.probe().await;
    assert!(settle(&mut converger, &desired).await.is_clean());
    assert!(memory.state().tunnel_guarded);
}

#[tokio::test]
async fn ports_whose_vtep_the_host_lacks_are_told_until_it_has_it() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    assert!(settle(&mut converger, &desired).await.is_clean());
    memory.state().lost.insert([192, 0, 2, 1].into());
    converger.suspect(None);
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.processed);
    let failed: Vec<_> = outcome.failed.keys().copied().collect();
    assert_eq!(failed, [sample::PORT_A, sample::PORT_B].map(uuid));
    let reason = "no device of the host has its VTEP address 192.0.2.1";
    assert!(outcome.failed.values().chain(&outcome.trouble).all(|told| told.contains(reason)));
    assert_eq!(outcome.trouble.len(), 1, "once for the host");
    assert_eq!(outcome.up.len(), 3, "what runs on one host goes on");
    memory.state().lost.clear();
    converger.suspect(None);
    assert!(settle(&mut converger, &desired).await.is_clean());
}

#[tokio::test]
async fn an_instance_is_acknowledged_as_gone_when_it_is_cut_off_and_removed_later() {
    let memory = Memory::default();
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &sample::two_networks()).await;
    let outcome = respond(&mut converger, &Holding::default()).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    {
        let state = memory.state();
        assert_eq!(state.tables, Tables::default());
        assert!(state.nics.len() == 2 && state.nics.values().all(|nic| !nic.up));
    }
    converger.start_chore(Calm::Lively);
    assert!(!converger.is_busy(), "somebody may wait");
    assert!(settle(&mut converger, &Holding::default()).await.is_clean());
    assert_eq!(memory.state().nics.len(), 0);

    // By an agent that has died in between, too.
    settle(&mut converger, &sample::two_networks()).await;
    respond(&mut converger, &Holding::default()).await;
    let mut restarted = Converger::new(memory.clone());
    assert!(respond(&mut restarted, &Holding::default()).await.is_clean());
    settle(&mut restarted, &Holding::default()).await;
    assert_eq!(memory.state().nics.len(), 0);
}

#[tokio::test]
async fn an_instance_of_a_later_generation_is_made_anew() {
    let (memory, mut desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    let before = memory.state().nics[&uuid(sample::PORT_A)].ifindex;
    let name = format!("vm {}", sample::INSTANCE);
    let (uuid_of, driver) = (uuid(sample::INSTANCE), Driver::Netns);
    let (goes, comes) = (None, None);
    let again = Instance { uuid: uuid_of, name, driver, generation: 1, machine: None, goes, comes };
    desired.upsert(Object::Instance(again));
    let outcome = respond(&mut converger, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(outcome.up.len(), 3);
    let state = memory.state();
    assert_ne!(state.nics[&uuid(sample::PORT_A)].ifindex, before);
    assert_eq!(state.violations, Vec::<String>::new());
}

#[tokio::test]
async fn an_instance_that_comes_back_is_made_anew() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    let before = memory.state().nics[&uuid(sample::PORT_A)].ifindex;
    respond(&mut converger, &Holding::default()).await;
    let outcome = respond(&mut converger, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(outcome.up.len(), 3);
    let state = memory.state();
    assert_ne!(state.nics[&uuid(sample::PORT_A)].ifindex, before);
    assert_eq!(state.violations, Vec::<String>::new());
}

#[tokio::test]
async fn many_remains_are_removed_while_others_wait() {
    let memory = Memory::default();
    let mut desired = sample::two_networks();
    for at in 0..40 {
        desired.upsert(sample::instance(100 + at));
    }
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    respond(&mut converger, &sample::two_networks()).await;
    assert_eq!(memory.state().instances.len(), 41);
    converger.start_chore(Calm::Lively);
    assert!(converger.is_busy() && !converger.is_awaited());
    converger.driver().await;
    assert_eq!(memory.state().instances.len(), 40);

    // Those that cannot be removed keep nobody from what else can wait.
    memory.state().broken.extend((0..40).map(|at| uuid(100 + at)));
    memory.state().spares_wanted = 1;
    converger.doubt();
    respond(&mut converger, &sample::two_networks()).await;
    for _ in 0..200 {
        converger.start_chore(Calm::Still);
        if !converger.is_busy() {
            break;
        }
        converger.driver().await;
        converger.pass(&sample::two_networks(), Cause::Driver).await;
    }
    assert!(!converger.has_chores(), "it would begin over and over again");
    let state = memory.state();
    assert_eq!((state.instances.len(), state.spares.len()), (40, 1));
}

#[tokio::test]
async fn an_instance_takes_what_is_ready_and_it_is_made_good_later() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    memory.state().spares_wanted = 2;
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &Holding::default()).await;
    let ready = memory.state().spares.clone();
    assert_eq!((ready.len(), memory.state().attached.len()), (2, 2));

    let outcome = respond(&mut converger, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    let used: BTreeSet<u32> = memory.state().nics.values().map(|nic| nic.ifindex).collect();
    assert_eq!(used, ready);
    assert_eq!(memory.state().spares.len(), 0, "not while somebody waits");
    settle(&mut converger, &desired).await;
    assert_eq!(memory.state().spares.len(), 2);
    assert_eq!(memory.state().observations, 1, "nothing was read again");

    // More than are ready: the others are made as ever.
    let mut more = desired.clone();
    for at in 0..5 {
        more.upsert(sample::instance(100 + at));
        let last = 50 + u8::try_from(at).unwrap();
        more.upsert(sample::port(200 + at, 100 + at, sample::NETWORK_A, last));
    }
    let outcome = respond(&mut converger, &more).await;
    assert!(outcome.is_clean() && outcome.up.len() == 13, "{outcome:?}");
    assert_eq!(memory.state().violations, Vec::<String>::new());
    settle(&mut converger, &more).await;
    let state = memory.state();
    assert_eq!((state.spares.len(), state.attached.len()), (2, 9));
}

#[tokio::test]
async fn news_of_one_device_are_about_that_one() {
    let (memory, desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    let seen = memory.state().nics[&uuid(sample::PORT_A)];
    assert!(!converger.suspect(Some(77)), "a device of somebody else");
    assert!(converger.suspect(Some(seen.ifindex)));
    converger.look().await;
    settle(&mut converger, &desired).await;
    assert_eq!(memory.state().observations, 1, "it is as it was");

    let down = ObservedNic { up: false, ..seen };
    memory.state().nics.insert(uuid(sample::PORT_A), down);
    converger.suspect(Some(seen.ifindex));
    converger.look().await;
    assert!(settle(&mut converger, &desired).await.is_clean());
    assert_eq!(memory.state().observations, 2);
    assert!(memory.state().nics[&uuid(sample::PORT_A)].up);
    assert!(converger.suspect(None));
    settle(&mut converger, &desired).await;
    assert_eq!(memory.state().observations, 3, "any may have changed");
}
