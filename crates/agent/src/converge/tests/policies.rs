//! Policies of ports: what is in effect, and what a restart changes.

use packet::Timeouts;
use wire::policy::Action;

use super::*;

const WEB: u32 = 101;

/// The sample, with port 5 in a group that lets members of it and everybody to port 80 in.
fn with_policy() -> Holding {
    let port = sample::port(sample::PORT_A, sample::INSTANCE, sample::NETWORK_A, 5);
    let mut members = sample::rule(2, Action::Accept, None);
    members.group = Some(WEB);
    let mut desired = sample::two_networks();
    let rules = vec![sample::rule(1, Action::Accept, Some(80)), members];
    desired.upsert(sample::group(WEB, rules));
    desired.upsert(sample::filtered(port, &[WEB]));
    desired.upsert(sample::member(501, 9, &[WEB]));
    desired
}

#[tokio::test]
async fn a_restarted_agent_finds_its_rule_sets_and_writes_nothing() {
    let (memory, desired) = (Memory::default(), with_policy());
    let first = pass(&memory, &desired).await;
    assert!(first.is_clean(), "{first:?}");
    assert_eq!(first.kernel, desired.kernel_digest());
    let held = memory.state().tables.clone();
    assert!(held.chapters.len() > 2 && held.idents.len() == 1 && !held.ranges.is_empty());
    let before = writes(&memory);
    assert_eq!(pass(&memory, &desired).await, first);
    assert_eq!(writes(&memory), before);
    assert_eq!(memory.state().tables, held);
}

#[tokio::test]
async fn a_port_that_is_closed_for_a_group_is_not_in_effect_and_all_else_is() {
    let (memory, mut desired) = (Memory::default(), with_policy());
    let group = sample::group(WEB, Vec::new());
    desired.remove(&group.key());
    let mut converger = Converger::new(memory.clone());
    let outcome = settle(&mut converger, &desired).await;
    assert_eq!(outcome.failed.keys().collect::<Vec<_>>(), [&uuid(sample::PORT_A)]);
    assert!(outcome.failed[&uuid(sample::PORT_A)].contains("is not known here yet"));
    assert!(outcome.up.contains(&uuid(sample::PORT_A)), "it is up, and nothing passes");
    assert!(!converger.has_failed(), "only the server can help");
    desired.upsert(group);
    assert!(settle(&mut converger, &desired).await.is_clean());
    assert_eq!(memory.state().violations, Vec::<String>::new());
}

#[tokio::test]
async fn what_a_policy_had_goes_with_the_last_port_that_has_it() {
    let (memory, desired) = (Memory::default(), with_policy());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    settle(&mut converger, &sample::two_networks()).await;
    let state = memory.state();
    let tables = &state.tables;
    assert!(tables.chapters.is_empty() && tables.ranges.is_empty() && tables.idents.is_empty());
    assert!(tables.ports.values().all(|port| (port.ingress, port.generation) == (0, 0)));
}

#[tokio::test]
async fn times_are_set_once_and_a_bad_one_is_told() {
    let (memory, mut desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    assert!(settle(&mut converger, &desired).await.is_clean());
    assert_eq!(memory.state().timeouts, Timeouts::default());
    let times = |icmp| wire::object::Timeouts {
        uuid: uuid(900),
        tcp_opening: 20,
        tcp_established: 600,
        tcp_closing: 60,
        tcp_closed: 5,
        opening: 15,
        udp_established: 90,
        icmp,
        other: 300,
    };
    desired.upsert(Object::Timeouts(times(7)));
    assert!(settle(&mut converger, &desired).await.is_clean());
    let set = memory.state().timeouts;
    let seconds = (set.tcp_opening, set.tcp_established, set.tcp_closing, set.tcp_closed);
    assert_eq!(seconds, (20, 600, 60, 5));
    assert_eq!((set.opening, set.udp_established, set.icmp, set.other), (15, 90, 7, 300));
    let before = writes(&memory);
    assert!(settle(&mut converger, &desired).await.is_clean());
    assert_eq!(writes(&memory), before);
    desired.upsert(Object::Timeouts(times(0)));
    for _ in 0..2 {
        let outcome = settle(&mut converger, &desired).await;
        assert!(outcome.failed[&uuid(900)].contains("icmp is 0 s"), "{outcome:?}");
    }
    assert_eq!(memory.state().timeouts.icmp, 7);
    desired.remove(&Object::Timeouts(times(0)).key());
    assert!(settle(&mut converger, &desired).await.is_clean());
    assert_eq!(memory.state().timeouts, Timeouts::default());
}
