//! What the board says of a host for people.

use wire::counters::{Counters, DropCount, MapFill};

use super::*;

#[test]
fn a_host_is_connected_or_away_since_it_was_first_seen_so() {
    let (mut feed, agent, mut board) = (feed(), Agent::default(), Board::default());
    let at = |feed: &mut Feed, board: &mut Board, ms| {
        feed.publish(board, Timestamp(ms));
        let status = board.status(host(1));
        (status.connected, status.since)
    };
    store_has(&mut feed, 1, BTreeMap::from([(host(1), upsert([instance(10, "a")]))]));
    assert_eq!(at(&mut feed, &mut board, 1), (false, None), "it never was here");
    let ticket = agent.connect(&mut feed, 1);
    assert_eq!(at(&mut feed, &mut board, 2), (true, Some(Timestamp(2))));
    store_has(&mut feed, 2, BTreeMap::from([(host(1), upsert([instance(11, "b")]))]));
    assert_eq!(at(&mut feed, &mut board, 3), (true, Some(Timestamp(2))), "another change");
    feed.disconnect(&ticket);
    assert_eq!(at(&mut feed, &mut board, 4), (false, Some(Timestamp(4))));
}

#[test]
fn what_differs_is_named_by_table_and_by_digest() {
    let (mut feed, agent, ticket) = told();
    let agreement = |feed: &mut Feed| status(feed, 1).agreement.unwrap();
    feed.report(&ticket, agent.report());
    let seen = agreement(&mut feed);
    assert!(seen.holds() && seen.told.len() == 12, "{seen:?}");
    let kernel = SetDigest::from_bytes([7; 32]);
    feed.report(&ticket, Report { kernel, ..agent.report() });
    let seen = agreement(&mut feed);
    assert_eq!((seen.holds(), &*seen.read_back), (false, "070707070707"));
    assert!(seen.differing.is_empty() && seen.wanted != seen.read_back);
    let mut digests = agent.report().digests;
    *digests.table_mut(Table::Peer) = kernel;
    feed.report(&ticket, Report { digests, ..agent.report() });
    let seen = agreement(&mut feed);
    assert_eq!((seen.holds(), &*seen.differing), (false, &["peer"][..]));
    assert_ne!(seen.told, seen.held);
}

#[test]
fn what_a_host_counts_is_kept_and_only_news_once() {
    let (mut feed, _, ticket) = told();
    let drop = DropCount { reason: "hairpin".into(), meaning: "Back.".into(), packets: 3 };
    let map = MapFill { name: "ports".into(), version: 3, entries: 2, capacity: 8 };
    let counters = Counters { drops: vec![drop], maps: vec![map], ..Counters::default() };
    let beat = |feed: &mut Feed, counters| {
        let beat = Heartbeat { counters, ..Heartbeat::default() };
        feed.beat(&ticket, beat, NOW)
    };
    assert_eq!(beat(&mut feed, Some(counters.clone())), News::ForPeople);
    assert_eq!([beat(&mut feed, Some(counters)), beat(&mut feed, None)], [News::None; 2]);
    let devices = Heartbeat { devices: Some(Vec::new()), ..Heartbeat::default() };
    assert_eq!(feed.beat(&ticket, devices, NOW), News::ForAll, "placement looks at these");
    let counters = status(&mut feed, 1).counters.unwrap();
    assert_eq!((&*counters.drops[0].meaning, counters.maps[0].percent()), ("Back.", 25));
}

#[test]
fn the_release_of_an_agent_is_known_from_its_connection_on() {
    let (mut feed, agent) = (feed(), Agent::default());
    agent.connect(&mut feed, 1);
    let known = status(&mut feed, 1).agent.unwrap();
    assert_eq!((&*known.release, known.protocol), (&*agent.hello(1).agent_version, PROTOCOL));
    assert!(known.tables.iter().any(|(table, version)| *table == "port" && *version > 0));
}
