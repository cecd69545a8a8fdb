//! Which rule decides about a connection: asked of the objects, rule by rule, and of the maps, as the
//! programs ask them. The two must agree.

use std::{cell::RefCell, collections::BTreeSet, net::IpAddr};

use dataplane::{Error, Lookup, Tables};
use packet::{
    Addr, AddrKey, Cell, Chapter, ChapterKey, ClassKey, FdbKey, FdbTarget, IdentKey, Mac, Node,
    PortKey,
};
use policy::{Maps, Named, Probe, RuleSet, Said, Salt, first_match, identity, walk};
use wire::{
    holding::Holding,
    object::{Object, ObjectKey, Port, SecurityGroup, Table},
    policy::{Action, LINK_LOCAL_DOMAIN, Way},
};

use crate::trace::of_table;

/// A connection that is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Which way, as the port sees it.
    pub way: Way,
    /// The port's own address; if absent, its first one of the other end's family.
    pub own: Option<IpAddr>,
    /// The other end.
    pub remote: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The port of the destination; of ICMP, type * 256 + code.
    pub port: u16,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explained {
    /// This rule decides, or the policy of the port.
    Decided(Named),
    /// The port has no policy: whoever is in its network may open towards it.
    Unfiltered,
    /// The port is closed, whatever its rules say.
    Closed,
    /// What the host holds and what it should hold are not the same, and why: something is about to
    /// change, or is not in effect.
    Inconclusive(String),
}

/// Says what decides about a connection of a port, by what the host should hold and by what its maps
/// hold, of which only the entries are read that are asked for.
#[must_use]
pub fn explain(
    (desired, live, salt): (&Holding, &dyn Lookup, Salt),
    port: &Port,
    opening: &Opening,
) -> Explained {
    let unread = |error: Error| Explained::Inconclusive(error.to_string());
    let seat = match seat(desired, live, port) {
        Ok(seat) => seat,
        Err(error) => return unread(error),
    };
    let Some((_, entry)) = seat else {
        return Explained::Inconclusive("the maps do not have the port: it is shut".to_owned());
    };
    let said = match said(desired, salt, (port, &entry), opening) {
        Ok(said) => said,
        Err(explained) => return explained,
    };
    let domain = match domain(live, port, &entry, opening) {
        Ok(domain) => domain,
        Err(error) => return unread(error),
    };
    let known = groups_of(desired, salt, (domain, opening.remote));
    let probe = Probe {
        remote: opening.remote,
        groups: &known,
        protocol: opening.protocol,
        port: opening.port,
    };
    let (groups, way, default) = (&said.groups, opening.way, said.default);
    let named = first_match(&Said { groups, way, default }, &probe);
    match by_maps(live, &entry, domain, opening) {
        Err(error) => unread(error),
        Ok(Some(cell)) if agree(&named, cell) => Explained::Decided(named),
        Ok(Some(cell)) => Explained::Inconclusive(format!(
            "by its objects rule {} decides, by the maps rule {}",
            named.number, cell.rule
        )),
        Ok(None) => Explained::Inconclusive("the maps have not all of its rules".to_owned()),
    }
}

/// Where a port is in the maps, and its entry there: the station with its MAC, if that is on this host or
/// comes here.
///
/// # Errors
/// [`Error::Map`].
pub fn seat(
    desired: &Holding,
    live: &dyn Lookup,
    port: &Port,
) -> Result<Option<(PortKey, packet::Port)>, Error> {
    let Some(network) = desired.network(port.network) else { return Ok(None) };
    let key = FdbKey::new(network.number, Mac(port.mac));
    let now = live.fdb(&key)?.and_then(|station| station.target());
    let then = match now {
        Some(FdbTarget::Local(_)) => None,
        _ => live.moves(&key)?.and_then(|moving| moving.then.target()),
    };
    let places = [now, then].into_iter().filter_map(|target| match target {
        Some(FdbTarget::Local(place)) => Some(place),
        _ => None,
    });
    for place in places {
        let entry = live.ports(&place)?.filter(|entry| entry.number == port.number);
        if let Some(entry) = entry {
            return Ok(Some((place, entry)));
        }
    }
    Ok(None)
}

/// What the objects say to a port about one way.
struct Spoken<'a> {
    groups: Vec<&'a SecurityGroup>,
    default: Action,
}

/// What they say, if the maps have the same; else what that means.
fn said<'a>(
    desired: &'a Holding,
    salt: Salt,
    (port, entry): (&Port, &packet::Port),
    opening: &Opening,
) -> Result<Spoken<'a>, Explained> {
    let rule_set = match opening.way {
        Way::Ingress => entry.ingress,
        Way::Egress => entry.egress,
    };
    let inconclusive = |why: &str| Explained::Inconclusive(why.to_owned());
    let Some(policy) = &port.policy else {
        return Err(match rule_set {
            0 => Explained::Unfiltered,
            _ => inconclusive("the maps have a policy that is no more"),
        });
    };
    let is_closed = rule_set == closed(salt);
    let or_closed = |why| if is_closed { Explained::Closed } else { inconclusive(why) };
    let groups: Option<Vec<&SecurityGroup>> =
        policy.groups.iter().map(|uuid| group(desired, *uuid)).collect();
    let groups = groups.ok_or_else(|| or_closed("not all groups of the port are known"))?;
    let default = match opening.way {
        Way::Ingress => policy.ingress,
        Way::Egress => policy.egress,
    };
    let number = Said { groups: &groups, way: opening.way, default }.number(salt);
    // What its rules say may be that nothing passes.
    match number == rule_set {
        true => Ok(Spoken { groups, default }),
        false => Err(or_closed("the maps have other rules for the port")),
    }
}

/// The number of the rule set that drops everything.
#[must_use]
pub fn closed(salt: Salt) -> u64 {
    Said { groups: &[], way: Way::Ingress, default: Action::Drop }.number(salt)
}

fn agree(named: &Named, cell: Cell) -> bool {
    let has = |bit| cell.rank & bit != 0;
    named.number == cell.rule
        && (named.action == Action::Accept) == has(Cell::ACCEPT)
        && named.is_stateless == has(Cell::STATELESS)
}

/// The routing domain in which the other end is looked for: that of the port's own address, as the
/// programs find it.
fn domain(
    live: &dyn Lookup,
    port: &Port,
    entry: &packet::Port,
    opening: &Opening,
) -> Result<u32, Error> {
    let remote = opening.remote;
    if Addr::from(remote).is_link_local() {
        return Ok(LINK_LOCAL_DOMAIN | entry.net);
    }
    let own = port.addresses.iter().find(|own| own.ip.is_ipv4() == remote.is_ipv4());
    let own = opening.own.or_else(|| own.or(port.addresses.first()).map(|own| own.ip));
    let Some(own) = own else { return Ok(entry.domain) };
    let source = live.addrs(&AddrKey { port: entry.number, addr: own.into() })?;
    Ok(source.map_or(entry.domain, |source| source.domain))
}

/// What the maps decide, as the programs ask them; `None` if they are not whole.
pub(crate) fn by_maps(
    live: &dyn Lookup,
    entry: &packet::Port,
    domain: u32,
    opening: &Opening,
) -> Result<Option<Cell>, Error> {
    let (rule_set, flags) = match opening.way {
        Way::Ingress => (entry.ingress, entry.rules),
        Way::Egress => (entry.egress, entry.rules >> packet::Port::EGRESS_SHIFT),
    };
    let addr = Addr::from(opening.remote);
    let identity = match flags & packet::Port::HAS_MEMBERS {
        0 => None,
        _ => live.idents(&IdentKey { domain, addr })?,
    };
    let has_classes = flags & packet::Port::HAS_CLASSES != 0;
    let maps = Live { live, has_classes, failed: RefCell::new(None) };
    let cell = walk(&maps, rule_set, (addr, identity), (opening.protocol, opening.port));
    maps.failed.into_inner().map_or(Ok(cell), Err)
}

/// The groups of the other end by the objects.
pub(crate) fn groups_of(
    desired: &Holding,
    salt: Salt,
    (domain, remote): (u32, IpAddr),
) -> Vec<u32> {
    let has = |object: &Object| match object {
        Object::Member(member) => {
            let is_it = domain != 0
                && member.addresses.iter().any(|at| (at.domain, at.ip) == (domain, remote));
            let groups: BTreeSet<u32> = member.groups.iter().copied().collect();
            (is_it && !groups.is_empty()).then(|| groups.into_iter().collect::<Vec<_>>())
        }
        _ => None,
    };
    let members = of_table(desired, Table::Member).filter_map(has);
    // As in the maps, where objects disagree.
    members.min_by_key(|groups| identity(salt, groups)).unwrap_or_default()
}

fn group(desired: &Holding, uuid: uuid::Uuid) -> Option<&SecurityGroup> {
    match desired.get(&ObjectKey { table: Table::SecurityGroup, uuid }) {
        Some(Object::SecurityGroup(group)) => Some(group),
        _ => None,
    }
}

/// The maps of a host, as a program reads them for one rule set.
struct Live<'a> {
    live: &'a dyn Lookup,
    /// The rule set names addresses.
    has_classes: bool,
    /// What went wrong first: nothing is found then.
    failed: RefCell<Option<Error>>,
}

impl Live<'_> {
    fn answer<T>(&self, answer: Result<Option<T>, Error>) -> Option<T> {
        answer.unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            None
        })
    }
}

impl Maps for Live<'_> {
    fn class(&self, key: &ClassKey) -> Option<u32> {
        if self.has_classes { self.answer(self.live.classes(key)) } else { None }
    }

    fn chapter(&self, key: &ChapterKey) -> Option<Chapter> {
        self.answer(self.live.chapters(key))
    }

    fn node(&self, key: u64) -> Option<Node> {
        self.answer(self.live.ranges(&key))
    }
}

/// Whether all entries that a rule set needs are in the maps as they should be, but for what it says
/// about members.
#[must_use]
pub fn is_whole(set: &RuleSet, tables: &Tables) -> bool {
    let has_node = |key: u64| key == 0 || has_tree(set, tables, key);
    set.classes.iter().all(|(key, class)| tables.classes.get(key) == Some(class))
        && set.chapters.iter().all(|(key, chapter)| {
            tables.chapters.get(key) == Some(chapter)
                && [chapter.tcp, chapter.udp, chapter.icmp, chapter.other].into_iter().all(has_node)
        })
}

fn has_tree(set: &RuleSet, tables: &Tables, key: u64) -> bool {
    let node = set.node(key);
    node.is_some()
        && tables.ranges.get(&key) == node
        && node
            .is_some_and(|node| RuleSet::below(key, node).all(|below| has_tree(set, tables, below)))
}
