//! What the maps must hold, followed change by change: the work is that of what changed, not of
//! what is there. Pure.
//!
//! A ledger never knows how it came about: after any history it is equal to one that was made anew
//! from the same objects and interfaces. But where there is no room for all ports of the host, it
//! is the older ones that have some.

mod policies;

use std::collections::{BTreeMap, BTreeSet};

use dataplane::{Edits, Tables};
use imbl::ordmap::DiffItem;
use policy::Salt;
use uuid::Uuid;
use wire::{
    counters::MapFill,
    digest::SetDigest,
    fact,
    holding::Holding,
    object::{Network, Object, ObjectKey, Port, Table},
};

use crate::{
    kernel::{Plug, Room, Ties},
    render::{self, Says as _},
};
use policies::Maps;
pub(crate) use policies::{Policies, Stance};

/// The map that has the ports, and what to do when it is full. Each port has its own room for
/// connections, which no other port's existence takes away: so there are only so many.
const PORTS: &str = "ports";
/// What the loader fills.
const FLOOD: &str = "flood";
const PORTS_ADVICE: &str = ", as many as have room for connections: use another host, or give the \
    agent of this one more --connection-mib or fewer --connections-per-port";

const IDENTS: &str = "idents";
const IDENTS_ADVICE: &str = ": rules that name groups of this NIC do not match it; use another host, or \
    rules that name smaller groups";
const CHAPTERS: &str = "chapters";
const RANGES: &str = "ranges";

/// What the maps must hold when objects are tied to the host in a certain way.
#[derive(Debug, Default)]
pub struct Ledger {
    desired: Holding,
    ties: Ties,
    room: Room,
    tables: Tables,
    /// Every claim on the keys that have more than one.
    shared: Shared,
    /// Ports and peers whose network is not held.
    lacking: BTreeSet<ObjectKey>,
    policies: Policies,
    unfit: BTreeMap<Uuid, String>,
    facts: SetDigest,
}

/// How many objects want each value of a key.
type Claims<V> = BTreeMap<V, usize>;

/// What is done with each filled map.
macro_rules! each {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident $version:literal:
                $shape:ident $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept $kept:tt
    ) => {
        #[derive(Clone, Debug, Default)]
        struct Shared {$(
            $name: BTreeMap<$key, Claims<$value>>,
        )*}

        /// A map that has no room for more, and its limit.
        fn full(tables: &Tables, more: &Tables, room: &Room) -> Option<(&'static str, u32)> {
            $(
                let limit = most(stringify!($name), $entries, room);
                if !more.$name.is_empty()
                    && together(&tables.$name, &more.$name) > limit as usize
                {
                    return Some((stringify!($name), limit));
                }
            )*
            None
        }

        impl Ledger {
            /// Notes what is held now under the keys of `entries`.
            fn note(&self, entries: &Tables, noted: &mut Edits) {
                $(for key in entries.$name.keys() {
                    noted.$name.entry(*key).or_insert_with(|| self.tables.$name.get(key).copied());
                })*
            }

            fn claim(&mut self, entries: &Tables) {
                $(for (key, value) in &entries.$name {
                    claim(&mut self.tables.$name, &mut self.shared.$name, *key, *value);
                })*
            }

            fn withdraw(&mut self, entries: &Tables) {
                $(for (key, value) in &entries.$name {
                    withdraw(&mut self.tables.$name, &mut self.shared.$name, key, value);
                })*
            }

            /// Hands over each fact that is held under the keys that were noted. A station's fact
            /// names the port on its interface: both are entries of the same object.
            fn facts_of(&self, noted: &Edits, mut each: impl FnMut(fact::Fact)) {
                $(for key in noted.$name.keys() {
                    let held = self.tables.$name.get(key);
                    if let Some(fact) = held.and_then(|value| key.fact(value, &self.tables)) {
                        each(fact);
                    }
                })*
            }

            /// What has changed under the keys that were noted.
            fn edits_since(&self, noted: &Edits) -> Edits {
                let mut edits = Edits::default();
                $(for (key, before) in &noted.$name {
                    let now = self.tables.$name.get(key).copied();
                    if now != *before {
                        edits.$name.insert(*key, now);
                    }
                })*
                edits
            }

            /// How full each map has to be, but for what the loader derives from others.
            pub(crate) fn fill(&self) -> Vec<MapFill> {
                let all = [$(MapFill {
                    name: stringify!($name).to_owned(),
                    version: $version,
                    entries: self.tables.$name.len() as u64,
                    capacity: most(stringify!($name), $entries, &self.room).into(),
                }),*];
                all.into_iter().filter(|map| map.name != FLOOD).collect()
            }

            /// Whether a map would have to hold more than it can.
            fn is_overfull(&self) -> bool {
                let over = |name, held: usize, entries| {
                    held > most(name, entries, &self.room) as usize
                };
                false $(|| over(stringify!($name), self.tables.$name.len(), $entries))*
            }
        }
    };
}
packet::maps!(each);

impl Ledger {
    /// A ledger of nothing, for maps with this room.
    #[must_use]
    pub fn new(room: Room) -> Self {
        let policies = Policies::new(Salt(room.salt));
        Self { room, policies, ..Self::default() }
    }

    /// The same, where all ports tell of their connections, whatever they are to write of them.
    #[must_use]
    pub fn telling(mut self, is_telling: bool) -> Self {
        self.policies.telling(is_telling);
        self
    }

    /// A ledger that has followed to here from nothing.
    #[must_use]
    pub fn of(desired: &Holding, ties: &Ties) -> Self {
        let mut ledger = Self::default();
        ledger.follow(desired, ties);
        ledger
    }

    /// What the maps must hold.
    #[must_use]
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The digest of the facts that they hold then.
    #[must_use]
    pub const fn digest(&self) -> SetDigest {
        self.facts
    }

    /// Objects for which a map has no room, with the reason. Nothing of them is in the tables, but for ports
    /// whose policy has none: they are closed.
    #[must_use]
    pub const fn unfit(&self) -> &BTreeMap<Uuid, String> {
        &self.unfit
    }

    /// Ports that are closed whatever there is room for, and why.
    pub fn closed(&self) -> impl Iterator<Item = (Uuid, &str)> {
        self.policies.closed()
    }

    /// Peers whose network the host does not have, and that network.
    pub fn lacking(&self) -> impl Iterator<Item = (Uuid, Uuid)> {
        self.lacking.iter().filter_map(|key| match self.desired.get(key) {
            Some(Object::Peer(peer)) => Some((peer.uuid, peer.network)),
            _ => None,
        })
    }

    /// Follows: from now on these objects are desired, and tied to the host like this. A port that is not among them is left out, with all that leads to it: nothing
    /// may be sent where no program guards. Gives what has to be changed in the maps.
    pub fn follow(&mut self, desired: &Holding, ties: &Ties) -> Edits {
        let changed = self.changed(desired, ties);
        if changed.is_empty() {
            self.desired = desired.clone();
            return Edits::default();
        }
        if !self.unfit.is_empty() {
            // Who has room depends on all the others.
            return self.anew(desired, ties);
        }
        let before: Vec<_> = changed.iter().map(|key| self.entries(key)).collect();
        let held = std::mem::replace(&mut self.desired, desired.clone());
        self.ties = ties.clone();
        let mut noted = Edits::default();
        let mut maps = Maps { tables: &mut self.tables, noted: &mut noted };
        let is_there = |port: &Port| is_there(port, desired, ties);
        let is_whole = self.policies.follow(&changed, (&held, desired), is_there, &mut maps);
        let after: Vec<_> = changed.iter().map(|key| self.entries(key)).collect();
        before.iter().chain(&after).for_each(|entries| self.note(entries, &mut noted));
        let mut facts = self.facts;
        self.facts_of(&noted, |fact| facts.take(fact::hash(&fact)));
        before.iter().for_each(|entries| self.withdraw(entries));
        after.iter().for_each(|entries| self.claim(entries));
        if !is_whole || self.is_overfull() {
            self.tables.apply(&noted);
            return self.anew(desired, ties);
        }
        self.facts_of(&noted, |fact| facts.add(fact::hash(&fact)));
        self.facts = facts;
        for key in &changed {
            match self.lacks_network(key) {
                true => self.lacking.insert(*key),
                false => self.lacking.remove(key),
            };
        }
        self.room.present.clear();
        self.edits_since(&noted)
    }

    /// The objects that give other entries than before, perhaps.
    fn changed(&self, desired: &Holding, ties: &Ties) -> BTreeSet<ObjectKey> {
        let (mut changed, mut subnets) = (BTreeSet::new(), BTreeSet::new());
        for item in self.desired.objects().diff(desired.objects()) {
            let (key, before, after) = match item {
                DiffItem::Add(key, object) => (key, None, Some(&**object)),
                DiffItem::Remove(key, object) => (key, Some(&**object), None),
                DiffItem::Update { old: (_, old), new: (key, new) } => {
                    (key, Some(&**old), Some(&**new))
                }
            };
            changed.insert(*key);
            if key.table == Table::Subnet {
                subnets.insert(key.uuid);
            }
            if key.table == Table::SecurityGroup {
                changed.extend(self.policies.ports_in(key.uuid).map(port_key));
            }
            if key.table != Table::Network || network(before) == network(after) {
                continue;
            }
            match before {
                // Who was there before its network is known.
                None => changed.extend(self.lacking.iter().copied()),
                Some(_) => changed.extend(members(desired, key.uuid)),
            }
        }
        if !subnets.is_empty() {
            changed.extend(guests(desired, &subnets));
        }
        let other = |(uuid, plug): &(&Uuid, &Plug), than: &BTreeMap<Uuid, Plug>| {
            than.get(*uuid) != Some(*plug)
        };
        let comes = ties.ports.iter().filter(|at| other(at, &self.ties.ports));
        let goes = self.ties.ports.iter().filter(|at| other(at, &ties.ports));
        changed.extend(comes.chain(goes).map(|(uuid, _)| port_key(*uuid)));
        if ties.uplinks != self.ties.uplinks {
            changed.extend([&self.desired, desired].into_iter().flat_map(physical));
        }
        changed
    }

    fn entries(&self, key: &ObjectKey) -> Tables {
        let object = self.desired.get(key);
        let entries =
            object.map(|object| render::entries(object, &self.desired, &self.ties, &self.policies));
        entries.unwrap_or_default()
    }

    fn lacks_network(&self, key: &ObjectKey) -> bool {
        let network = self.desired.get(key).and_then(render::network_of);
        network.is_some_and(|network| self.desired.network(network).is_none())
    }

    /// Makes it from nothing. The host's own ports come first where there is no room for all, and
    /// of these the older ones; but members, which need what nothing else does, before them: who is not
    /// known as one may be whom a port's rules drop.
    fn anew(&mut self, desired: &Holding, ties: &Ties) -> Edits {
        let mut new = Self {
            desired: desired.clone(),
            ties: ties.clone(),
            room: Room { present: BTreeSet::new(), ..self.room },
            policies: self.policies.emptied(&self.desired, desired),
            ..Self::default()
        };
        let mut older = std::mem::take(&mut self.room.present);
        older.extend(self.tables.ports.values().map(|port| port.number));
        let is_newer = |key: &ObjectKey| match desired.get(key) {
            Some(Object::Port(port)) => !older.contains(&port.number),
            _ => true,
        };
        let mut ports: Vec<ObjectKey> = keys(desired, Table::Port).collect();
        ports.sort_by_key(is_newer);
        let unknown = new.add_members();
        let others = desired.objects().keys().copied();
        let others = others.filter(|key| !matches!(key.table, Table::Port | Table::Member));
        for key in ports.into_iter().chain(others) {
            if new.lacks_network(&key) {
                new.lacking.insert(key);
            }
            let why_closed = match desired.get(&key) {
                Some(Object::Port(port)) if is_there(port, desired, ties) => {
                    new.filter(port, &unknown)
                }
                _ => None,
            };
            if new.add(&key) {
                new.unfit.extend(why_closed.map(|reason| (key.uuid, reason)));
            } else if let Some(left) = new.policies.cease(key.uuid) {
                let (tables, noted) = (&mut new.tables, &mut Edits::default());
                new.policies.let_go(left, &mut Maps { tables, noted });
            }
        }
        new.policies.prune();
        new.facts = fact::digest(&render::facts(&new.tables));
        let edits = self.tables.edits_to(&new.tables);
        *self = new;
        edits
    }

    /// Adds the entries of an object, if there is room for them.
    fn add(&mut self, key: &ObjectKey) -> bool {
        let entries = self.entries(key);
        let Some((map, limit)) = full(&self.tables, &entries, &self.room) else {
            self.claim(&entries);
            return true;
        };
        let advice = match map {
            PORTS => PORTS_ADVICE,
            IDENTS => IDENTS_ADVICE,
            _ => "",
        };
        let reason = format!("the host's {limit} entries for {map} are in use{advice}");
        self.unfit.insert(key.uuid, reason);
        false
    }

    /// Adds the members; the groups of those for which there is no room.
    fn add_members(&mut self) -> BTreeSet<u32> {
        let (desired, mut unknown) = (self.desired.clone(), BTreeSet::new());
        for key in keys(&desired, Table::Member) {
            let Some(Object::Member(member)) = desired.get(&key) else { continue };
            if self.add(&key) {
                let (tables, noted) = (&mut self.tables, &mut Edits::default());
                self.policies.add_member(member, &mut Maps { tables, noted });
            } else {
                unknown.extend(&member.groups);
            }
        }
        unknown
    }

    /// Gives a port the rule sets of its policy, or those of a closed one; why it is closed, if it
    /// would not be where there is more room.
    fn filter(&mut self, port: &Port, unknown: &BTreeSet<u32>) -> Option<String> {
        let (uuid, noted) = (port.uuid, &mut Edits::default());
        let mut maps = Maps { tables: &mut self.tables, noted };
        if !self.policies.ask(port, &self.desired) {
            return None;
        }
        let has = self.policies.have(uuid, &mut maps);
        if let Err(unfit) = has {
            self.policies.give_up(uuid, unfit, &mut maps);
        }
        if self.policies.is_closed(uuid) {
            return None;
        }
        let reason = match policies::full(maps.tables, &self.room) {
            Some((map, limit)) => format!(
                "it is closed: with its policy, more than the host's {limit} entries for {map} would be \
                 in use; use another host, or fewer rules, addresses and groups"
            ),
            None if self.policies.refuses(uuid, unknown) => {
                "it is closed: the host has no room for all members of groups that its rules drop; use \
                 another host, or rules that name smaller groups"
                    .to_owned()
            }
            None => return None,
        };
        self.policies.have_not(uuid, &mut maps);
        self.policies.close(uuid, &mut maps);
        Some(reason)
    }
}

impl PartialEq for Ledger {
    fn eq(&self, other: &Self) -> bool {
        self.tables == other.tables
            && self.unfit == other.unfit
            && self.lacking == other.lacking
            && self.facts == other.facts
            && self.closed().eq(other.closed())
    }
}

/// Whether a port is in the maps.
fn is_there(port: &Port, desired: &Holding, ties: &Ties) -> bool {
    desired.network(port.network).is_some() && ties.ports.contains_key(&port.uuid)
}

const fn port_key(uuid: Uuid) -> ObjectKey {
    ObjectKey { table: Table::Port, uuid }
}

/// The keys of a table.
fn keys(desired: &Holding, table: Table) -> impl Iterator<Item = ObjectKey> {
    let [first, last] = [Uuid::nil(), Uuid::max()].map(|uuid| ObjectKey { table, uuid });
    desired.objects().range(first..=last).map(|(key, _)| *key)
}

/// The objects that belong to a network. Looks at all: it is rare that a network changes.
fn members(desired: &Holding, network: Uuid) -> impl Iterator<Item = ObjectKey> {
    let objects = desired.objects().iter();
    let of = move |object: &Object| render::network_of(object) == Some(network);
    objects.filter(move |(_, object)| of(object)).map(|(key, _)| *key)
}

/// The ports that have addresses of these L3 networks. Looks at all, once for all changes.
fn guests(desired: &Holding, subnets: &BTreeSet<Uuid>) -> impl Iterator<Item = ObjectKey> {
    keys(desired, Table::Port).filter(|key| match desired.get(key) {
        Some(Object::Port(port)) => {
            port.addresses.iter().filter_map(|a| a.subnet).any(|uuid| subnets.contains(&uuid))
        }
        _ => false,
    })
}

/// The physical networks.
fn physical(desired: &Holding) -> impl Iterator<Item = ObjectKey> {
    let networks = keys(desired, Table::Network);
    networks.filter(|key| network(desired.get(key)).is_some_and(|net| net.uplink().is_some()))
}

fn network(object: Option<&Object>) -> Option<&Network> {
    match object {
        Some(Object::Network(network)) => Some(network),
        _ => None,
    }
}

/// Most entries of a map.
fn most(map: &str, entries: u32, room: &Room) -> u32 {
    match map {
        PORTS => room.ports_max,
        CHAPTERS => entries - policies::CLOSED_CHAPTERS,
        RANGES => entries - policies::CLOSED_RANGES,
        _ => entries,
    }
}

fn together<K: Ord, V>(have: &BTreeMap<K, V>, more: &BTreeMap<K, V>) -> usize {
    have.len() + more.keys().filter(|key| !have.contains_key(key)).count()
}

/// Where objects disagree about a key, which the server's claims forbid, the smallest value stands:
/// it does not depend on the order in which they came.
fn claim<K: Ord + Copy, V: Ord + Copy>(
    held: &mut BTreeMap<K, V>,
    shared: &mut BTreeMap<K, Claims<V>>,
    key: K,
    value: V,
) {
    let Some(stands) = held.get_mut(&key) else {
        held.insert(key, value);
        return;
    };
    let claims = shared.entry(key).or_insert_with(|| Claims::from([(*stands, 1)]));
    *claims.entry(value).or_default() += 1;
    *stands = value.min(*stands);
}

fn withdraw<K: Ord + Copy, V: Ord + Copy>(
    held: &mut BTreeMap<K, V>,
    shared: &mut BTreeMap<K, Claims<V>>,
    key: &K,
    value: &V,
) {
    let Some(claims) = shared.get_mut(key) else {
        held.remove(key);
        return;
    };
    if let Some(count) = claims.get_mut(value) {
        *count -= 1;
        if *count == 0 {
            claims.remove(value);
        }
    }
    if let Some((smallest, count)) = claims.first_key_value() {
        held.insert(*key, *smallest);
        if (claims.len(), *count) == (1, 1) {
            shared.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
