//! Which rule decides about a connection: asked of the objects, rule by rule, and of the maps, as the
//! programs ask them. The two must agree.

use std::{collections::BTreeSet, net::IpAddr};

use dataplane::Tables;
use packet::{Addr, Cell, Chapter, ChapterKey, ClassKey, IdentKey, Node};
use policy::{Maps, Named, Probe, RuleSet, Said, Salt, first_match, identity, walk};
use wire::{
    holding::Holding,
    object::{Object, ObjectKey, Port, SecurityGroup, Table},
    policy::{Action, LINK_LOCAL_DOMAIN, Way},
};

/// A connection that is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Which way, as the port sees it.
    pub way: Way,
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
/// hold.
#[must_use]
pub fn explain(
    (desired, tables, salt): (&Holding, &Tables, Salt),
    port: &Port,
    opening: &Opening,
) -> Explained {
    let Some(entry) = tables.ports.values().find(|entry| entry.number == port.number) else {
        return Explained::Inconclusive("the maps do not have the port: it is shut".to_owned());
    };
    let rule_set = match opening.way {
        Way::Ingress => entry.ingress,
        Way::Egress => entry.egress,
    };
    let Some(policy) = &port.policy else {
        return match rule_set {
            0 => Explained::Unfiltered,
            _ => Explained::Inconclusive("the maps have a policy that is no more".to_owned()),
        };
    };
    let is_closed = rule_set == closed(salt);
    let groups: Option<Vec<&SecurityGroup>> =
        policy.groups.iter().map(|uuid| group(desired, *uuid)).collect();
    let Some(groups) = groups else {
        return match is_closed {
            true => Explained::Closed,
            false => Explained::Inconclusive("not all groups of the port are known".to_owned()),
        };
    };
    let default = match opening.way {
        Way::Ingress => policy.ingress,
        Way::Egress => policy.egress,
    };
    let said = Said { groups: &groups, way: opening.way, default };
    // What its rules say may be that nothing passes.
    if said.number(salt) != rule_set {
        return match is_closed {
            true => Explained::Closed,
            false => Explained::Inconclusive("the maps have other rules for the port".to_owned()),
        };
    }
    let domain = domain(port, entry.net, opening.remote);
    let known = groups_of(desired, salt, (domain, opening.remote));
    let probe = Probe {
        remote: opening.remote,
        groups: &known,
        protocol: opening.protocol,
        port: opening.port,
    };
    let named = first_match(&said, &probe);
    let cell = by_maps(tables, entry, domain, opening);
    match cell {
        Some(cell) if agree(&named, cell) => Explained::Decided(named),
        Some(cell) => Explained::Inconclusive(format!(
            "by its objects rule {} decides, by the maps rule {}",
            named.number, cell.rule
        )),
        None => Explained::Inconclusive("the maps have not all of its rules".to_owned()),
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

/// The routing domain in which the other end is looked for, if the port's own end is its first
/// address of the family.
fn domain(port: &Port, net: u32, remote: IpAddr) -> u32 {
    if Addr::from(remote).is_link_local() {
        return LINK_LOCAL_DOMAIN | net;
    }
    let own = port.addresses.iter().find(|own| own.ip.is_ipv4() == remote.is_ipv4());
    own.or(port.addresses.first()).map_or(0, |own| own.domain)
}

/// What the maps decide, as the programs ask them; `None` if they are not whole.
pub(crate) fn by_maps(
    tables: &Tables,
    entry: &packet::Port,
    domain: u32,
    opening: &Opening,
) -> Option<Cell> {
    let (rule_set, flags) = match opening.way {
        Way::Ingress => (entry.ingress, entry.rules),
        Way::Egress => (entry.egress, entry.rules >> packet::Port::EGRESS_SHIFT),
    };
    let addr = Addr::from(opening.remote);
    let identity = tables.idents.get(&IdentKey { domain, addr }).copied();
    let identity = identity.filter(|_| flags & packet::Port::HAS_MEMBERS != 0);
    let has_classes = flags & packet::Port::HAS_CLASSES != 0;
    let live = Live { tables, has_classes };
    walk(&live, rule_set, (addr, identity), (opening.protocol, opening.port))
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
    let members = desired.objects().values().filter_map(|object| has(object));
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
    tables: &'a Tables,
    /// The rule set names addresses.
    has_classes: bool,
}

impl Maps for Live<'_> {
    fn class(&self, key: &ClassKey) -> Option<u32> {
        if !self.has_classes {
            return None;
        }
        let rule_set = u64::from(key.ruleset[0]) | u64::from(key.ruleset[1]) << 32;
        let most = if key.addr.is_v4() { 32 } else { 128 };
        let prefixes = (0..=most).rev().filter_map(|bits| {
            let lowest = lowest(key.addr, bits, most);
            // A short prefix of IPv6 is not one of IPv4.
            (lowest.is_v4() == key.addr.is_v4()).then(|| ClassKey::new(rule_set, lowest, bits))
        });
        prefixes.into_iter().find_map(|prefix| self.tables.classes.get(&prefix)).copied()
    }

    fn chapter(&self, key: &ChapterKey) -> Option<Chapter> {
        self.tables.chapters.get(key).copied()
    }

    fn node(&self, key: u64) -> Option<Node> {
        self.tables.ranges.get(&key).copied()
    }
}

/// The lowest address with the same first bits, of so many that an address of its family has.
fn lowest(addr: Addr, bits: u8, most: u8) -> Addr {
    let mask = u128::MAX.checked_shl(u32::from(most - bits)).unwrap_or(0);
    let number = u128::from_be_bytes(addr.octets()) & mask;
    let mapped = if most == 32 { 0xffff_u128 << 32 } else { 0 };
    Addr::v6((number | mapped).to_be_bytes())
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
