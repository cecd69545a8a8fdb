//! The feed as tables: what a host is sent, and what is known of it then.

mod confirm;
mod shown;

use std::sync::Arc;

use imbl::OrdSet;
use model::status::HostStatus;
use uuid::Uuid;
use wire::{
    PROTOCOL, PROTOCOL_MIN,
    digest::{SetDigest, TableDigests},
    holding::Holding,
    message::ServerMessage,
    object::{Attachment, Driver, Instance, Network, Object, Table, Uplink},
    parts::Assembly,
    shared::Shared,
    versions::Versions,
};

use super::*;

fn host(number: u128) -> Id<Host> {
    Id::new(Uuid::from_u128(number))
}

fn instance(number: u128, name: &str) -> Object {
    let (uuid, name) = (Uuid::from_u128(number), name.to_owned());
    let (driver, goes, comes) = (Driver::Netns, None, None);
    Object::Instance(Instance { uuid, name, driver, generation: 0, machine: None, goes, comes })
}

fn network(number: u128) -> Object {
    let attachment = Attachment::Uplink(Uplink { interface: "eth1".to_owned(), vlan: None });
    Object::Network(Network { uuid: Uuid::from_u128(number), number: 1, attachment })
}

fn upsert(objects: impl IntoIterator<Item = Object>) -> HostDelta {
    HostDelta { upserts: objects.into_iter().map(Shared::from).collect(), removes: Vec::new() }
}

/// The store is at `revision`, by which this has changed: for the feed, at first, everything.
fn store_has(feed: &mut Feed, revision: u64, deltas: BTreeMap<Id<Host>, HostDelta>) {
    if feed.revision == 0 {
        let holding = |delta: HostDelta| delta.upserts.into_iter().collect();
        let whole = deltas.into_iter().map(|(host, delta)| (host, holding(delta)));
        feed.load(revision, whole.collect());
    } else {
        feed.apply(revision, deltas);
    }
}

fn remove(number: u128) -> HostDelta {
    HostDelta { upserts: Vec::new(), removes: vec![instance(number, "").key()] }
}

/// The certificate and the address of an agent.
fn agent_at() -> (String, IpAddr) {
    ("certificate".to_owned(), IpAddr::from([192, 0, 2, 1]))
}

/// A host that applies what it is sent.
#[derive(Default)]
struct Agent {
    revision: u64,
    holding: Holding,
}

impl Agent {
    fn hello(&self, number: u128) -> Hello {
        Hello {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            agent_version: String::new(),
            tables: Versions::own(),
            host: Uuid::from_u128(number),
            revision: self.revision,
            lineage: None,
            run: None,
            digests: self.holding.digests(),
        }
    }

    fn connect(&self, feed: &mut Feed, number: u128) -> Ticket {
        feed.connect(&self.hello(number), agent_at(), CancellationToken::new())
    }

    /// Takes all messages; says how many objects and keys were in them.
    fn take(&mut self, messages: Vec<ServerMessage>) -> usize {
        let (mut assembly, mut count) = (Assembly::default(), 0);
        for message in messages {
            count += match &message {
                ServerMessage::Welcome(_) | ServerMessage::Asked(_) => continue,
                ServerMessage::Snapshot(part) => part.objects.len(),
                ServerMessage::Delta(part) => part.upserts.len() + part.removes.len(),
            };
            if let Some(next) = assembly.take(&self.holding, message).unwrap() {
                (self.revision, self.holding) = next;
            }
        }
        count
    }

    fn report(&self) -> Report {
        let (revision, digests) = (self.revision, self.holding.digests());
        let kernel = self.holding.kernel_digest();
        Report { revision, processed: true, digests, kernel, ..Report::default() }
    }
}

/// Host 1 holds the one instance that revision 5 gave it, and has not reported yet.
fn told() -> (Feed, Agent, Ticket) {
    let (mut feed, mut agent) = (feed(), Agent::default());
    store_has(&mut feed, 4, BTreeMap::new());
    store_has(&mut feed, 5, BTreeMap::from([(host(1), upsert([instance(10, "a")]))]));
    let ticket = agent.connect(&mut feed, 1);
    agent.take(pull(&mut feed, &ticket));
    (feed, agent, ticket)
}

/// When the feed tells what is new.
const NOW: Timestamp = Timestamp(1_000);

/// The lineage of the server.
const LINEAGE: Uuid = Uuid::from_u128(77);

fn origin() -> Origin {
    Origin { lineage: LINEAGE, earlier: Arc::default(), accept_older: false }
}

fn feed() -> Feed {
    Feed::new(origin())
}

/// What a session sends now, the welcome aside.
fn pull(feed: &mut Feed, ticket: &Ticket) -> Vec<ServerMessage> {
    let messages = feed.pull(ticket).into_iter().flat_map(Outgoing::messages);
    messages.filter(|message| !matches!(message, ServerMessage::Welcome(_))).collect()
}

fn board(feed: &Feed) -> Board {
    let mut board = Board::default();
    board.revision = feed.revision;
    feed.hosts.iter().for_each(|(host, feed)| board.put(*host, feed.status.clone()));
    board
}

fn status(feed: &mut Feed, number: u128) -> HostStatus {
    board(feed).status(host(number)).clone()
}

/// The revision up to which a host has confirmed all.
fn confirmed(feed: &Feed, number: u128) -> u64 {
    board(feed).confirmed_revision(host(number))
}

fn is_snapshot(messages: &[ServerMessage]) -> bool {
    matches!(messages, [ServerMessage::Snapshot(_), ..])
}

#[test]
fn a_new_host_gets_a_snapshot_and_then_deltas() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    store_has(
        &mut feed,
        5,
        BTreeMap::from([(host(1), upsert([instance(10, "a"), instance(11, "b")]))]),
    );
    agent.holding.upsert(instance(99, "stray"));
    let ticket = agent.connect(&mut feed, 1);
    let messages = pull(&mut feed, &ticket);
    assert!(is_snapshot(&messages));
    assert_eq!((agent.take(messages), agent.revision), (2, 5));
    assert_eq!(pull(&mut feed, &ticket), []);

    store_has(&mut feed, 6, BTreeMap::from([(host(1), remove(10))]));
    store_has(&mut feed, 7, BTreeMap::from([(host(1), upsert([instance(10, "again")]))]));
    let messages = pull(&mut feed, &ticket);
    assert!(!is_snapshot(&messages), "what waits is one delta");
    assert_eq!((agent.take(messages), agent.revision), (1, 7));
    assert_eq!(agent.holding.objects().len(), 2);
}

#[test]
fn a_host_with_the_same_digests_gets_no_objects() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    store_has(&mut feed, 5, BTreeMap::from([(host(1), upsert([instance(10, "a")]))]));
    agent.holding.upsert(instance(10, "a"));
    let ticket = agent.connect(&mut feed, 1);
    let messages = pull(&mut feed, &ticket);
    assert_eq!((agent.take(messages), agent.revision), (0, 5));
}

#[test]
fn a_host_that_was_away_gets_only_what_changed() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    store_has(
        &mut feed,
        5,
        BTreeMap::from([(host(1), upsert((10..30).map(|at| instance(at, "a"))))]),
    );
    let ticket = agent.connect(&mut feed, 1);
    agent.take(pull(&mut feed, &ticket));
    feed.disconnect(&ticket);
    store_has(&mut feed, 6, BTreeMap::from([(host(1), remove(10))]));
    let ticket = agent.connect(&mut feed, 1);
    assert_eq!(agent.take(pull(&mut feed, &ticket)), 1);
}

#[test]
fn a_host_that_lags_behind_the_history_gets_a_snapshot() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    let ticket = agent.connect(&mut feed, 1);
    agent.take(pull(&mut feed, &ticket));
    for at in 0..=HISTORY_CHANGES_MAX as u64 {
        let change = upsert([instance(1000 + u128::from(at), "a")]);
        store_has(&mut feed, at + 1, BTreeMap::from([(host(1), change)]));
    }
    let messages = pull(&mut feed, &ticket);
    assert!(is_snapshot(&messages));
    assert_eq!(agent.take(messages), HISTORY_CHANGES_MAX + 1);
}

#[test]
fn a_change_larger_than_the_history_becomes_a_snapshot() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    let ticket = agent.connect(&mut feed, 1);
    agent.take(pull(&mut feed, &ticket));
    let many = (0..=HISTORY_OBJECTS_MAX as u128).map(|at| instance(at, "a"));
    store_has(&mut feed, 1, BTreeMap::from([(host(1), upsert(many))]));
    assert!(is_snapshot(&pull(&mut feed, &ticket)));
    assert_eq!(feed.hosts[&host(1)].history.objects, 0);
}

#[test]
fn what_was_missed_reaches_hosts_as_a_difference() {
    let (mut feed, mut agent, ticket) = told();
    let too_new = instance(12, "for newer agents");
    feed.hosts.get_mut(&host(1)).unwrap().withhold(host(1), too_new.clone().into());
    store_has(&mut feed, 6, BTreeMap::from([(host(2), upsert([instance(20, "b")]))]));
    agent.take(pull(&mut feed, &ticket));
    let all = |name: &str| [instance(10, name), too_new.clone()].into_iter().collect();

    feed.load(9, BTreeMap::from([(host(1), all("renamed"))]));
    assert_eq!(agent.take(pull(&mut feed, &ticket)), 1, "the other one is still withheld");
    assert_eq!(feed.hosts[&host(2)].history.end, 2, "host 2 loses what it had");
    feed.load(10, BTreeMap::from([(host(1), all("renamed"))]));
    assert_eq!(pull(&mut feed, &ticket), [], "nothing has changed");
    feed.load(11, BTreeMap::new());
    assert_eq!(agent.take(pull(&mut feed, &ticket)), 1);
    assert!(agent.holding.objects().is_empty() && feed.hosts[&host(1)].withheld.is_empty());
}

#[test]
fn a_second_session_replaces_the_first() {
    let (mut feed, agent) = (feed(), Agent::default());
    store_has(&mut feed, 5, BTreeMap::new());
    let first = agent.connect(&mut feed, 1);
    let second = agent.connect(&mut feed, 1);
    assert!(first.over.is_cancelled() && !second.over.is_cancelled());
    assert_eq!(pull(&mut feed, &first), []);
    feed.disconnect(&first);
    assert!(status(&mut feed, 1).connected, "the late end of the first changes nothing");
    assert_eq!(pull(&mut feed, &second).len(), 1);
}

#[test]
fn the_confirmed_revision_passes_those_that_do_not_concern_the_host() {
    let (mut feed, mut agent, ticket) = told();
    assert_eq!(confirmed(&feed, 1), 0, "sent is not acknowledged");
    store_has(&mut feed, 6, BTreeMap::new());
    feed.report(&ticket, agent.report());
    assert_eq!(confirmed(&feed, 1), 6);
    store_has(&mut feed, 9, BTreeMap::from([(host(2), upsert([instance(20, "b")]))]));
    assert_eq!(confirmed(&feed, 1), 9);
    assert_eq!(pull(&mut feed, &ticket), [], "and costs no message");

    store_has(&mut feed, 10, BTreeMap::from([(host(1), remove(10))]));
    store_has(&mut feed, 11, BTreeMap::new());
    assert_eq!(confirmed(&feed, 1), 9, "not before the host acknowledges 10");
    agent.take(pull(&mut feed, &ticket));
    feed.report(&ticket, agent.report());
    assert_eq!(confirmed(&feed, 1), 11);
    feed.disconnect(&ticket);
    store_has(&mut feed, 12, BTreeMap::new());
    assert_eq!((status(&mut feed, 1).connected, confirmed(&feed, 1)), (false, 12));
}

#[test]
fn agreement_needs_the_objects_and_the_kernel() {
    let (mut feed, agent, ticket) = told();
    feed.report(&ticket, agent.report());
    assert!(status(&mut feed, 1).agrees);

    let kernel = SetDigest::from_bytes([1; 32]);
    feed.report(&ticket, Report { kernel, ..agent.report() });
    assert_eq!((status(&mut feed, 1).agrees, confirmed(&feed, 1)), (false, 5));

    let mut digests = TableDigests::default();
    digests.note(Table::Port.number(), kernel);
    feed.report(&ticket, Report { digests, ..agent.report() });
    assert!(!status(&mut feed, 1).agrees);
    assert!(is_snapshot(&pull(&mut feed, &ticket)), "other objects are replaced");
}

#[test]
fn agreement_is_said_anew_on_each_stream() {
    let (mut feed, mut agent, first) = told();
    feed.report(&first, agent.report());
    feed.disconnect(&first);
    assert!(status(&mut feed, 1).agrees, "the last word of a host that is away");

    let second = agent.connect(&mut feed, 1);
    assert!(!status(&mut feed, 1).agrees);
    agent.take(pull(&mut feed, &second));
    feed.report(&second, agent.report());
    assert!(status(&mut feed, 1).agrees);
}

#[test]
fn a_host_that_claims_other_objects_once_more_loses_its_stream() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    store_has(&mut feed, 4, BTreeMap::new());
    store_has(&mut feed, 5, BTreeMap::from([(host(1), upsert([instance(10, "a")]))]));
    let ticket = agent.connect(&mut feed, 1);
    let mut digests = TableDigests::default();
    digests.note(Table::Port.number(), SetDigest::from_bytes([1; 32]));
    for is_over in [false, true] {
        let messages = pull(&mut feed, &ticket);
        assert_eq!(is_snapshot(&messages), is_over, "the second time all is sent");
        agent.take(messages);
        feed.report(&ticket, Report { digests, ..agent.report() });
        assert_eq!(ticket.over.is_cancelled(), is_over);
    }
    assert_eq!(pull(&mut feed, &ticket), []);
}

#[test]
fn nothing_is_sent_before_the_store_was_read() {
    let (mut feed, agent) = (feed(), Agent::default());
    let ticket = agent.connect(&mut feed, 1);
    assert_eq!(pull(&mut feed, &ticket), [], "an empty snapshot would take everything down");
    store_has(&mut feed, 5, BTreeMap::new());
    assert_eq!(pull(&mut feed, &ticket).len(), 1);
}

#[test]
fn what_the_server_starts_with_is_not_pending_but_has_to_be_confirmed() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    // Before the store was read, and with the digests of what is there then: of nothing.
    let ticket = agent.connect(&mut feed, 1);
    store_has(&mut feed, 5, BTreeMap::from([(host(1), upsert([instance(10, "a")]))]));
    let mut board = Board::default();
    feed.publish(&mut board, NOW);
    assert_eq!((board.first, board.status(host(1)).pending.len()), (5, 0));
    assert!(board.obstacle(host(1), &[], 5).is_some() && !board.is_synced(host(1), 5));
    assert_eq!(agent.take(pull(&mut feed, &ticket)), 1);
    feed.report(&ticket, agent.report());
    feed.publish(&mut board, NOW);
    assert!(board.obstacle(host(1), &[], 5).is_none() && board.is_synced(host(1), 5));
}

#[test]
fn a_host_that_does_not_report_is_sent_no_more_until_it_does() {
    let (mut feed, mut agent) = (feed(), Agent::default());
    store_has(&mut feed, 1, BTreeMap::from([(host(1), upsert([instance(10, "a")]))]));
    let ticket = agent.connect(&mut feed, 1);
    agent.take(pull(&mut feed, &ticket));
    let slow = agent.report();
    let mut sent = 1;
    for revision in 2..1000_u32 {
        let delta = upsert([instance(10, &revision.to_string())]);
        store_has(&mut feed, revision.into(), BTreeMap::from([(host(1), delta)]));
        sent += usize::from(agent.take(pull(&mut feed, &ticket)) > 0);
    }
    assert_eq!(sent, SENT_MAX);
    feed.report(&ticket, slow);
    feed.report(&ticket, agent.report());
    assert_eq!(confirmed(&feed, 1), SENT_MAX as u64);
    agent.take(pull(&mut feed, &ticket));
    feed.report(&ticket, agent.report());
    assert_eq!(confirmed(&feed, 1), 999);
}

#[test]
fn a_report_about_a_state_that_was_never_sent_counts_for_nothing() {
    let (mut feed, mut agent, ticket) = told();
    agent.revision = 900;
    feed.report(&ticket, agent.report());
    assert_eq!(confirmed(&feed, 1), 0);
}

#[test]
fn a_report_of_a_host_in_trouble_confirms_nothing_but_tells_why() {
    let (mut feed, agent, ticket) = told();
    let failed = BTreeMap::from([(Uuid::from_u128(9), "busy".to_owned())]);
    feed.report(&ticket, Report { processed: false, failed: failed.clone(), ..agent.report() });
    let seen = status(&mut feed, 1);
    assert_eq!((confirmed(&feed, 1), seen.agrees), (0, false));
    assert_eq!(seen.failed.keys().copied().collect::<Vec<_>>(), [Uuid::from_u128(9)]);
}

#[test]
fn a_host_speaks_for_its_own_objects_only() {
    let (mut feed, agent, ticket) = told();
    let up = [10, 66].map(Uuid::from_u128).into();
    feed.report(&ticket, Report { up, ..agent.report() });
    assert_eq!(status(&mut feed, 1).up, OrdSet::unit(Uuid::from_u128(10)));
}

#[test]
fn another_certificate_or_a_deletion_ends_the_session() {
    let (mut feed, agent) = (feed(), Agent::default());
    let ticket = agent.connect(&mut feed, 1);
    feed.recertify(host(1), Some("certificate"));
    assert!(!ticket.over.is_cancelled());
    feed.recertify(host(1), Some("other"));
    assert!(ticket.over.is_cancelled());
    let ticket = agent.connect(&mut feed, 2);
    feed.forget(host(2));
    assert!(ticket.over.is_cancelled());
    assert_eq!(status(&mut feed, 2), HostStatus::default());
}

#[test]
fn two_agents_with_one_identity_are_told_until_one_has_lasted() {
    let (mut feed, agent) = (Feed::new(origin()), Agent::default());
    let connect = |feed: &mut Feed, run: u128| {
        let hello = Hello { run: Some(Uuid::from_u128(run)), ..agent.hello(1) };
        feed.connect(&hello, agent_at(), CancellationToken::new())
    };
    let doubled = |feed: &Feed| feed.hosts[&host(1)].status.doubled.is_some();
    connect(&mut feed, 1);
    let replaced = connect(&mut feed, 2);
    assert!(!doubled(&feed), "a restart");
    let last = connect(&mut feed, 1);
    assert!(doubled(&feed));
    feed.lasts(&replaced);
    assert!(doubled(&feed), "that stream is over");
    feed.lasts(&last);
    assert!(!doubled(&feed));
}
