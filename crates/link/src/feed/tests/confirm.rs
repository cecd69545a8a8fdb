//! What a host confirms, object by object, and what it is told at all.

use std::collections::BTreeMap;

use model::status::Unsettled;
use wire::{message::Report, versions::Versions};

use super::*;

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn fails(agent: &Agent, objects: &[u128]) -> Report {
    let failed = objects.iter().map(|at| (uuid(*at), "busy".to_owned())).collect();
    Report { failed, ..agent.report() }
}

/// A commit that concerns host 1.
fn commit(feed: &mut Feed, revision: u64, delta: HostDelta) {
    store_has(feed, revision, BTreeMap::from([(host(1), delta)]));
}

#[test]
fn an_object_that_fails_holds_up_no_other() {
    let (mut feed, mut agent, ticket) = told();
    feed.report(&ticket, fails(&agent, &[10]));
    commit(&mut feed, 6, upsert([instance(11, "b")]));
    agent.take(pull(&mut feed, &ticket));
    assert_eq!(status(&mut feed, 1).unsettled(uuid(11), 6), Some(Unsettled::Pending));
    feed.report(&ticket, fails(&agent, &[10]));
    let seen = status(&mut feed, 1);
    assert!(seen.settled(&[uuid(11)], 6));
    assert_eq!(seen.unsettled(uuid(10), 6), Some(Unsettled::Failed("busy")));
    assert!(!board(&feed).is_synced(host(1), 6));
    assert_eq!(board(&feed).unsettled(uuid(10)).collect::<Vec<_>>(), [host(1)]);
    feed.report(&ticket, agent.report());
    assert!(board(&feed).is_synced(host(1), 6));
}

#[test]
fn what_cannot_be_removed_is_remembered_until_it_is_gone() {
    let (mut feed, mut agent, ticket) = told();
    feed.report(&ticket, agent.report());
    commit(&mut feed, 6, remove(10));
    agent.take(pull(&mut feed, &ticket));
    for open in [true, true, false] {
        let lingering: &[u128] = if open { &[10] } else { &[] };
        feed.report(&ticket, fails(&agent, lingering));
        assert_eq!(board(&feed).unsettled(uuid(10)).count(), usize::from(open));
        let next = feed.revision + 1;
        store_has(&mut feed, next, BTreeMap::new());
    }
    // It is not there any more, and was confirmed to be gone: the host has no say in it.
    feed.report(&ticket, fails(&agent, &[10]));
    assert_eq!(board(&feed).unsettled(uuid(10)).count(), 0);
}

#[test]
fn an_object_that_changes_before_it_is_confirmed_stays_open_for_both_changes() {
    let (mut feed, mut agent, ticket) = told();
    let slow = agent.report();
    commit(&mut feed, 6, upsert([instance(10, "again")]));
    agent.take(pull(&mut feed, &ticket));
    let open = |feed: &mut Feed, at| status(feed, 1).unsettled(uuid(10), at).is_some();
    assert!(open(&mut feed, 5) && open(&mut feed, 6));
    feed.report(&ticket, slow);
    assert!(!open(&mut feed, 5) && open(&mut feed, 6));
    feed.report(&ticket, agent.report());
    assert!(!open(&mut feed, 6));
}

#[test]
fn a_commit_is_news_of_the_hosts_that_it_concerns_only() {
    let mut feed = feed();
    let all = (1..100).map(|at| (host(at), upsert([instance(at, "a")])));
    store_has(&mut feed, 1, all.collect());
    let mut board = Board::default();
    assert!(feed.publish(&mut board, NOW) && !feed.publish(&mut board, NOW));
    store_has(&mut feed, 2, BTreeMap::from([(host(7), remove(7))]));
    assert_eq!(feed.news, [host(7)].into());
    feed.publish(&mut board, NOW);
    assert_eq!((board.revision, board.unsettled(uuid(7)).count()), (2, 1));
}

#[test]
fn what_a_host_may_hold_from_an_earlier_life_of_the_server_counts_until_it_has_confirmed() {
    let (mut feed, mut agent, ticket) = told();
    let many = (0..=LINGERING_MAX as u128).map(|at| 1000 + at).collect::<Vec<_>>();
    feed.report(&ticket, fails(&agent, &many));
    assert!(!status(&mut feed, 1).confirmed, "too much to believe");
    feed.report(&ticket, fails(&agent, &[99]));
    let seen = status(&mut feed, 1);
    assert!(seen.confirmed && !seen.is_settled(uuid(99)));
    feed.report(&ticket, agent.report());
    assert!(status(&mut feed, 1).is_settled(uuid(99)));
    commit(&mut feed, 6, remove(10));
    agent.take(pull(&mut feed, &ticket));
    feed.report(&ticket, fails(&agent, &[99]));
    assert!(status(&mut feed, 1).is_settled(uuid(99)), "it was never given that");
}

#[test]
fn a_host_that_confirms_nothing_for_too_long_has_to_confirm_everything() {
    let (mut feed, mut agent, ticket) = told();
    feed.report(&ticket, agent.report());
    let slow = agent.report();
    for at in 0..=PENDING_MAX as u64 {
        commit(&mut feed, 6 + at, upsert([instance(1000 + u128::from(at), "a")]));
    }
    let seen = status(&mut feed, 1);
    assert!(!seen.confirmed && seen.pending.is_empty());
    feed.report(&ticket, slow);
    assert!(!status(&mut feed, 1).confirmed, "of before");
    agent.take(pull(&mut feed, &ticket));
    feed.report(&ticket, agent.report());
    assert!(board(&feed).is_synced(host(1), feed.revision));
}

#[test]
fn a_snapshot_is_taken_without_copying_an_object() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    agent.holding.upsert(instance(99, "stray"));
    let object = Shared::from(instance(10, "a"));
    let delta = HostDelta { upserts: vec![object.clone()], removes: Vec::new() };
    commit(&mut feed, 5, delta);
    let ticket = agent.connect(&mut feed, 1);
    let outgoing = feed.pull(&ticket).unwrap();
    assert!(outgoing.is_whole());
    // What happens meanwhile is not in it.
    commit(&mut feed, 6, upsert([instance(11, "b")]));
    let sent: Vec<_> = outgoing.messages().collect();
    assert!(matches!(&sent[0], ServerMessage::Welcome(welcome) if welcome.lineage == LINEAGE));
    let ServerMessage::Snapshot(part) = &sent[1] else { panic!("{sent:?}") };
    assert!(part.objects.len() == 1 && std::ptr::eq(&*part.objects[0], &*object));
}

/// A host whose agent knows no instances.
fn older(agent: &Agent, feed: &mut Feed) -> Ticket {
    let mut tables = Versions::own();
    tables.note(Table::Instance.number(), 0);
    let hello = Hello { tables, ..agent.hello(1) };
    feed.connect(&hello, agent_at(), CancellationToken::new())
}

#[test]
fn an_older_agent_is_told_what_it_can_hold_and_the_rest_is_told_to_people() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    commit(&mut feed, 5, upsert([instance(10, "a"), network(20)]));
    let ticket = older(&agent, &mut feed);
    assert_eq!(agent.take(pull(&mut feed, &ticket)), 1, "the network");
    feed.report(&ticket, agent.report());
    commit(&mut feed, 6, upsert([instance(11, "b")]));
    assert_eq!(pull(&mut feed, &ticket), []);
    let seen = status(&mut feed, 1);
    assert!(seen.agrees && seen.settled(&[uuid(20)], 6));
    for at in [10, 11] {
        let Some(Unsettled::Failed(why)) = seen.unsettled(uuid(at), 6) else { panic!("{seen:?}") };
        assert!(why.starts_with("instance") && why.contains("upgrade the agent on host"), "{why}");
    }
    commit(&mut feed, 7, remove(11));
    assert!(status(&mut feed, 1).is_settled(uuid(11)), "it never had it");

    let ticket = agent.connect(&mut feed, 1);
    let seen = status(&mut feed, 1);
    assert_eq!(seen.unsettled(uuid(10), 7), Some(Unsettled::Pending), "not before it says so");
    assert_eq!(agent.take(pull(&mut feed, &ticket)), 2);
    feed.report(&ticket, agent.report());
    assert!(board(&feed).is_synced(host(1), 7));
}

#[test]
fn an_agent_that_was_newer_gives_back_what_it_cannot_hold_any_more() {
    let (mut feed, mut agent, ticket) = told();
    feed.report(&ticket, agent.report());
    let ticket = older(&agent, &mut feed);
    agent.take(pull(&mut feed, &ticket));
    assert!(agent.holding.objects().is_empty());
    assert!(!status(&mut feed, 1).is_settled(uuid(10)));
}

#[test]
fn a_host_that_was_told_more_than_the_store_has_is_told_nothing() {
    let of = |lineage, revision| (Some(lineage), revision);
    let (earlier, other) = (Uuid::from_u128(76), Uuid::from_u128(78));
    let ends: Arc<BTreeMap<_, _>> = Arc::new([(earlier, 4)].into());
    let cases = [
        (of(LINEAGE, 900), false, true),
        (of(earlier, 4), false, true),
        // The store has this revision by now, but another one: it was restored.
        (of(earlier, 5), false, false),
        (of(earlier, 5), true, true),
        (of(other, 1), false, false),
        (of(other, 1), true, true),
        ((None, 900), false, true),
    ];
    for ((lineage, revision), accept_older, expected) in cases {
        let origin = Origin { accept_older, earlier: Arc::clone(&ends), ..origin() };
        let (mut feed, agent) = (Feed::new(origin), Agent::default());
        commit(&mut feed, 5, upsert([instance(10, "a")]));
        // That the store goes on does not make it newer.
        store_has(&mut feed, 900, BTreeMap::new());
        let hello = Hello { lineage, revision, ..agent.hello(1) };
        let over = CancellationToken::new();
        let ticket = feed.connect(&hello, agent_at(), over);
        assert_eq!(!pull(&mut feed, &ticket).is_empty(), expected, "{lineage:?} {revision}");
        let refused = status(&mut feed, 1).refused;
        assert_eq!(refused.is_none(), expected);
        if let Some(why) = refused {
            assert!(why.contains("--accept-older-database") && why.contains("database"), "{why}");
        }
    }
}

#[test]
fn a_host_that_was_told_by_this_server_may_have_seen_all_of_it() {
    let (mut feed, mut agent, first) = told();
    commit(&mut feed, 6, remove(10));
    agent.take(pull(&mut feed, &first));
    let hello = Hello { lineage: Some(LINEAGE), ..agent.hello(1) };
    let ticket = feed.connect(&hello, agent_at(), CancellationToken::new());
    assert_eq!(pull(&mut feed, &ticket).len(), 1);
    assert_eq!(status(&mut feed, 1).refused, None);
}
