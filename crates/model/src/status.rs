//! What hosts report. Status is level-triggered, kept in memory, and never needed to decide config.
//!
//! `link` writes the board, `control` and `api` read it: data flows one way. A clone of the board
//! is free and shares everything, so readers take one and look at it as long as they like.
//!
//! For each host the board knows the state of single objects. An object that has changed is
//! *pending* until the host confirms the change. It is *failed* as long as the host says that it
//! could not be made, changed or removed. It is *settled* on a host when it is neither.

mod no_answer;
mod word;

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use imbl::{OrdMap, OrdSet, ordmap::DiffItem};
use uuid::Uuid;

use crate::{Id, Timestamp, resource::host::Host};

pub use no_answer::NoAnswer;
pub use word::{AgentRelease, Agreement, BlockedPath, HostCounters, HostPaths, Reason, Room};

/// What is known of every host right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// The revision of the store up to which changes have been compiled for hosts. What a later one
    /// changes is not pending yet.
    pub revision: u64,
    /// The revision that the server started with. It is not known what hosts were told before that,
    /// until they confirm what they hold.
    pub first: u64,
    hosts: OrdMap<Id<Host>, HostStatus>,
    /// The hosts on which each object is not settled.
    unsettled: OrdMap<Uuid, OrdSet<Id<Host>>>,
    /// The hosts whose pending objects were forgotten.
    forgetful: OrdSet<Id<Host>>,
    unheard: HostStatus,
}

/// What is known of one host. A clone is free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostStatus {
    /// Its agent's stream is open.
    pub connected: bool,
    /// Since when that is so; `None` as long as it has not connected since the server started.
    pub since: Option<Timestamp>,
    /// What runs on it, as it has said when it connected last.
    pub agent: Option<Arc<AgentRelease>>,
    /// How what it was told and what it has last reported compare.
    pub agreement: Option<Arc<Agreement>>,
    /// What its data plane has counted, as it has said last; `None` as long as it has not.
    pub counters: Option<Arc<HostCounters>>,
    /// Since the server started, it has confirmed what it holds. Before that, it may hold anything
    /// that it was told earlier.
    pub confirmed: bool,
    /// What was pending up to this revision was forgotten; the host has to confirm all that it
    /// holds.
    pub forgot: u64,
    /// How often it has connected or reported.
    pub heard: u64,
    /// It holds exactly what it was told last, and its data plane too (digests agree).
    pub agrees: bool,
    /// Objects that have changed for it, and that it has not confirmed since.
    pub pending: OrdMap<Uuid, Pending>,
    /// Objects that are not as they must be, with the reason; under its own uuid what concerns
    /// the host as a whole.
    pub failed: OrdMap<Uuid, Arc<str>>,
    /// Instances that run, and NICs that are up.
    pub up: OrdSet<Uuid>,
    /// Moves of NICs to this host, by number, whose NIC has sent its first frame here.
    pub arrived: OrdSet<u32>,
    /// Moves of instances from this host, by number, that have failed, and why.
    pub given_up: OrdMap<u32, Arc<str>>,
    /// Why it is told nothing, if so.
    pub refused: Option<Arc<str>>,
    /// Its clock, when that is far from the server's.
    pub clock: Option<Clocks>,
    /// Connections of its ports, as it has counted them last.
    pub connections: OrdMap<Uuid, u32>,
    /// How many each port is sure to get: so many that it opens, and as many that others open. 0 as
    /// long as it has not said.
    pub connections_sure: u32,
    /// Its devices that networks and tunnels may use, as it has told them last; `None` as long as it
    /// has not.
    pub devices: Option<Arc<[HostDevice]>>,
    /// The drivers that cannot run instances on it, each with what it lacks.
    pub lacking: Arc<BTreeMap<String, String>>,
    /// How the ways to its peers are, as it has told them on this stream.
    pub paths: Option<Arc<HostPaths>>,
    /// What guests of its NICs have asked for their addresses, by NIC and whether it was IPv6: the newest
    /// last, [`LeaseSeen::KEPT`] at most.
    pub leases: OrdMap<(Uuid, bool), Arc<[LeaseSeen]>>,
    /// That two agents use its identity, and from where, if so.
    pub doubled: Option<Arc<str>>,
}

/// What a guest asked for its addresses, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSeen {
    /// When, by the host's clock.
    pub at: Timestamp,
    /// What became of it: `offered`, `leased`, `refused`, `declined`, `released`, `informed`, `advertised`.
    pub kind: &'static str,
    /// The address that this was about.
    pub address: Option<IpAddr>,
    /// The name that the guest gave itself.
    pub hostname: Option<String>,
    /// How the client identified itself.
    pub client_id: Vec<u8>,
}

impl LeaseSeen {
    /// The kind of what a guest has found in use by somebody else (RFC 2131, 4.4.4; RFC 8415, 18.2.8).
    pub const DECLINED: &'static str = "declined";
    /// So many are remembered of a NIC, of each version of IP: more than a client that is refused, or
    /// finds its address in use, needs to come to rest.
    pub const KEPT: usize = 16;
}

/// A device of a host that networks and tunnels may use: none of netloom's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostDevice {
    /// Its name.
    pub name: String,
    /// The longest packet that it takes, in bytes, without the Ethernet header.
    pub mtu_bytes: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether its frames begin with an Ethernet header.
    pub is_ethernet: bool,
    /// Whether it belongs to a bridge or a bond.
    pub is_owned: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl HostDevice {
    /// What keeps it from leading into a physical network, and what to do about it.
    #[must_use]
    pub fn why_no_uplink(&self) -> Option<String> {
        let name = &self.name;
        if !self.is_ethernet {
            return Some(format!("its interface {name} is no Ethernet interface"));
        }
        if self.is_owned {
            return Some(format!(
                "its interface {name} belongs to a bridge or a bond: take it out (ip link set \
                 {name} nomaster), or name another interface in the L2 network"
            ));
        }
        (!self.is_up).then(|| format!("its interface {name} is down: put it up"))
    }
}

impl fmt::Display for HostDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_up { "up" } else { "down" };
        write!(f, "{} {state} mtu {}", self.name, self.mtu_bytes)?;
        if self.is_owned {
            f.write_str(" (in a bridge or bond)")?;
        }
        self.addresses.iter().try_for_each(|ip| write!(f, " {ip}"))
    }
}

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The host's.
    pub host: Timestamp,
    /// The server's.
    pub server: Timestamp,
}

impl Clocks {
    /// How far they may be apart before anybody is told, in milliseconds.
    const APART_MAX: u64 = 5 * 60 * 1000;

    /// These, if they are too far apart.
    #[must_use]
    pub fn apart(self) -> Option<Self> {
        (self.difference().unsigned_abs() > Self::APART_MAX).then_some(self)
    }

    /// Whether they are as far apart as others, but for what a message takes on its way and a
    /// clock that runs a little faster.
    #[must_use]
    pub fn is_about(self, other: Self) -> bool {
        self.difference().abs_diff(other.difference()) < Self::APART_MAX / 10
    }

    const fn difference(self) -> i64 {
        self.host.0.saturating_sub(self.server.0)
    }
}

/// When an object has changed for a host that has not confirmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Nothing before this revision is waited for.
    pub since: u64,
    /// The newest revision that changed it.
    pub last: u64,
}

/// Why an object is not settled on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsettled<'a> {
    /// The host has not confirmed it.
    Pending,
    /// It is not as it must be, for this reason.
    Failed(&'a str),
}

/// Why the change that a revision made to some objects is not confirmed by a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle<'a> {
    /// It is not known yet what the revision changes for hosts.
    Uncompiled,
    /// The list of what the host has not confirmed was forgotten, or is of an earlier run of the
    /// server.
    Forgotten,
    /// This object is not settled on the host.
    Object(Uuid, Unsettled<'a>),
}

impl Board {
    /// What is known of `host`.
    #[must_use]
    pub fn status(&self, host: Id<Host>) -> &HostStatus {
        self.hosts.get(&host).unwrap_or(&self.unheard)
    }

    /// All hosts that were heard of since the server started.
    pub fn hosts(&self) -> impl Iterator<Item = &HostStatus> {
        self.hosts.values()
    }

    /// The hosts to which NICs have moved of their own accord, with the numbers of these moves.
    pub fn arrivals(&self) -> impl Iterator<Item = (Id<Host>, &OrdSet<u32>)> {
        let hosts = self.hosts.iter().map(|(host, status)| (*host, &status.arrived));
        hosts.filter(|(_, arrived)| !arrived.is_empty())
    }

    /// The hosts that go on to run what was to move away, with the numbers of these moves and why.
    pub fn given_up(&self) -> impl Iterator<Item = (Id<Host>, &OrdMap<u32, Arc<str>>)> {
        let hosts = self.hosts.iter().map(|(host, status)| (*host, &status.given_up));
        hosts.filter(|(_, given_up)| !given_up.is_empty())
    }

    /// Whether `host` has last said that it holds all that concerns it up to `revision`, and
    /// exactly that.
    #[must_use]
    pub fn is_synced(&self, host: Id<Host>, revision: u64) -> bool {
        let status = self.status(host);
        let settled = status.pending.is_empty() && status.failed.is_empty();
        self.revision >= revision && status.confirmed && status.agrees && settled
    }

    /// The revision up to which `host` has confirmed all that concerns it, 0 if none.
    #[must_use]
    pub fn confirmed_revision(&self, host: Id<Host>) -> u64 {
        let status = self.status(host);
        if !status.confirmed {
            return 0;
        }
        let first = status.pending.values().map(|pending| pending.since).min();
        first.map_or(self.revision, |first| first.saturating_sub(1))
    }

    /// The hosts on which an object is not settled, as far as is known. Hosts that have not
    /// confirmed what they hold since the server started may be missing.
    pub fn unsettled(&self, object: Uuid) -> impl Iterator<Item = Id<Host>> {
        self.unsettled.get(&object).into_iter().flatten().copied()
    }

    /// The hosts that may have been told of what `revision` changed, and whose pending objects were
    /// forgotten. They are few: hosts that have confirmed nothing for very many changes.
    pub fn forgetful(&self, revision: u64) -> impl Iterator<Item = Id<Host>> {
        let may = move |host: &Id<Host>| revision <= self.status(*host).forgot;
        self.forgetful.iter().copied().filter(may)
    }

    /// Why `host` has not confirmed what `revision` did to these objects. `None` if it has, or was
    /// told nothing of them, connected or not.
    #[must_use]
    pub fn obstacle(
        &self,
        host: Id<Host>,
        objects: &[Uuid],
        revision: u64,
    ) -> Option<Obstacle<'_>> {
        if self.revision < revision {
            return Some(Obstacle::Uncompiled);
        }
        let status = self.status(host);
        if !status.confirmed && revision <= self.first.max(status.forgot) {
            return Some(Obstacle::Forgotten);
        }
        let first = |object: &Uuid| Some((*object, status.unsettled(*object, revision)?));
        objects.iter().find_map(first).map(|(object, why)| Obstacle::Object(object, why))
    }

    /// Replaces what is known of a host. The work grows with what has changed of it.
    pub fn put(&mut self, host: Id<Host>, status: HostStatus) {
        let before = self.status(host);
        let mut touched = keys(before.pending.diff(&status.pending));
        touched.extend(keys(before.failed.diff(&status.failed)));
        for object in touched {
            self.index(host, object, !status.is_settled(object));
        }
        match status.forgot > 0 && !status.confirmed {
            true => self.forgetful.insert(host),
            false => self.forgetful.remove(&host),
        };
        self.hosts.insert(host, status);
    }

    /// Forgets a host.
    pub fn remove(&mut self, host: Id<Host>) {
        self.put(host, HostStatus::default());
        self.hosts.remove(&host);
    }

    fn index(&mut self, host: Id<Host>, object: Uuid, unsettled: bool) {
        if unsettled {
            self.unsettled.entry(object).or_default().insert(host);
        } else if let Some(hosts) = self.unsettled.get_mut(&object) {
            hosts.remove(&host);
            if hosts.is_empty() {
                self.unsettled.remove(&object);
            }
        }
    }
}

/// The keys that were added, changed or taken out.
fn keys<'a, V: PartialEq + 'a>(
    difference: impl Iterator<Item = DiffItem<'a, 'a, Uuid, V>>,
) -> Vec<Uuid> {
    let key = |item| match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => *key,
        DiffItem::Update { new: (key, _), .. } => *key,
    };
    difference.map(key).collect()
}

impl HostStatus {
    /// Why an object is not on the host as it should be, if the host says so, or cannot say anything
    /// because of what ails it as a whole.
    #[must_use]
    pub fn not_in_effect(&self, host: Id<Host>, object: Uuid) -> Option<String> {
        let own = self.failed.get(&object).map(|reason| reason.to_string());
        let whole = || self.trouble(host).filter(|_| self.pending.contains_key(&object));
        let declined = || {
            let seen = [false, true].map(|is_v6| self.leases.get(&(object, is_v6))?.last());
            let declined =
                seen.into_iter().flatten().find(|seen| seen.kind == LeaseSeen::DECLINED)?;
            let ip = declined.address.map(|ip| ip.to_string()).unwrap_or_default();
            Some(format!(
                "its guest has declined {ip} at {}, as somebody else answers there: find who that is, or give \
                 it another address (SetVmStaticIp)",
                declined.at
            ))
        };
        own.or_else(|| whole().map(|reason| format!("host {host}: {reason}"))).or_else(declined)
    }

    /// What ails the host as a whole.
    #[must_use]
    pub fn trouble(&self, host: Id<Host>) -> Option<&str> {
        self.doubled.as_ref().or_else(|| self.failed.get(&host.uuid())).map(|reason| &**reason)
    }

    /// Whether the host has nothing left to say about an object.
    #[must_use]
    pub fn is_settled(&self, object: Uuid) -> bool {
        !self.pending.contains_key(&object) && !self.failed.contains_key(&object)
    }

    /// Why an object is not what `revision` made of it, if so.
    #[must_use]
    pub fn unsettled(&self, object: Uuid, revision: u64) -> Option<Unsettled<'_>> {
        if let Some(reason) = self.failed.get(&object) {
            return Some(Unsettled::Failed(reason));
        }
        let pending = self.pending.get(&object)?;
        (pending.since <= revision).then_some(Unsettled::Pending)
    }

    /// Whether these objects are what `revision`, or a later one, made of them.
    #[must_use]
    pub fn settled(&self, objects: &[Uuid], revision: u64) -> bool {
        objects.iter().all(|object| self.unsettled(*object, revision).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u128) -> Id<Host> {
        Id::new(Uuid::from_u128(number))
    }

    const OBJECT: Uuid = Uuid::from_u128(7);

    fn pending(since: u64, last: u64) -> HostStatus {
        let pending = [(OBJECT, Pending { since, last })].into_iter().collect();
        HostStatus { confirmed: true, pending, ..HostStatus::default() }
    }

    #[test]
    fn nothing_is_known_of_a_host_that_was_never_heard_of() {
        let mut board = Board::default();
        assert_eq!(*board.status(host(1)), HostStatus::default());
        board.put(host(1), pending(3, 3));
        assert_eq!(*board.status(host(1)), pending(3, 3));
        board.remove(host(1));
        assert_eq!(board, Board::default(), "and nothing is left of one that is gone");
    }

    #[test]
    fn an_object_is_unsettled_where_it_is_pending_or_failed() {
        let mut board = Board::default();
        let failed = [(OBJECT, Arc::from("busy"))].into_iter().collect();
        let failing = HostStatus { failed, ..HostStatus::default() };
        board.put(host(1), pending(3, 3));
        board.put(host(2), failing.clone());
        board.put(host(3), HostStatus::default());
        let unsettled = |board: &Board| board.unsettled(OBJECT).collect::<Vec<_>>();
        assert_eq!(unsettled(&board), [host(1), host(2)]);
        board.put(host(1), failing);
        assert_eq!(unsettled(&board), [host(1), host(2)], "confirmed, and not done");
        board.put(host(2), HostStatus::default());
        board.remove(host(1));
        assert_eq!(unsettled(&board), []);
    }

    #[test]
    fn a_later_change_is_not_waited_for() {
        let status = pending(5, 9);
        let cases = [(4, None), (5, Some(Unsettled::Pending)), (9, Some(Unsettled::Pending))];
        for (revision, expected) in cases {
            assert_eq!(status.unsettled(OBJECT, revision), expected, "{revision}");
        }
        assert!(status.settled(&[Uuid::nil()], 9));
    }

    #[test]
    fn what_holds_up_is_told_in_the_order_in_which_it_is_known() {
        let mut board = Board { revision: 4, first: 2, ..Board::default() };
        let of = |board: &Board, revision| match board.obstacle(host(1), &[OBJECT], revision) {
            None => "nothing",
            Some(Obstacle::Uncompiled) => "uncompiled",
            Some(Obstacle::Forgotten) => "forgotten",
            Some(Obstacle::Object(object, _)) if object == OBJECT => "object",
            Some(Obstacle::Object(..)) => "other",
        };
        assert_eq!(of(&board, 4), "nothing", "a host that was told nothing");
        assert_eq!(of(&board, 2), "forgotten", "what the server did not see itself");
        assert_eq!(of(&board, 5), "uncompiled");
        board.put(host(1), pending(4, 4));
        assert_eq!((of(&board, 3), of(&board, 4)), ("nothing", "object"));
        let forgetful = HostStatus { forgot: 3, confirmed: false, ..pending(4, 4) };
        board.put(host(1), forgetful);
        assert_eq!((of(&board, 3), of(&board, 4)), ("forgotten", "object"));
        let forgetful = |revision| board.forgetful(revision).collect::<Vec<_>>();
        assert_eq!((forgetful(3), forgetful(4)), (vec![host(1)], vec![]));
    }

    #[test]
    fn a_host_has_confirmed_what_comes_before_the_first_that_it_has_not() {
        let mut board = Board { revision: 9, ..Board::default() };
        assert_eq!(board.confirmed_revision(host(1)), 0);
        board.put(host(1), HostStatus { confirmed: true, ..HostStatus::default() });
        assert_eq!(board.confirmed_revision(host(1)), 9);
        board.put(host(1), pending(5, 9));
        assert_eq!(board.confirmed_revision(host(1)), 4);
    }

    #[test]
    fn a_host_is_synced_if_it_agrees_and_nothing_is_open() {
        let good = HostStatus { confirmed: true, agrees: true, ..HostStatus::default() };
        let cases = [
            (good.clone(), 9, true),
            (good.clone(), 10, false),
            (HostStatus { agrees: false, ..good.clone() }, 9, false),
            (HostStatus { confirmed: false, ..good.clone() }, 9, false),
            (HostStatus { agrees: true, ..pending(5, 9) }, 9, false),
        ];
        for (status, revision, expected) in cases {
            let mut board = Board { revision: 9, ..Board::default() };
            board.put(host(1), status);
            assert_eq!(board.is_synced(host(1), revision), expected);
        }
    }
}
