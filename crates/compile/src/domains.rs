//! Routing domains: what is joined by routers, so that within it an address is one station's.
//!
//! On an L2 network an address is given out once, so its L3 networks are always in one domain. Two L2
//! networks are joined by an instance with a NIC on each that routes for the other: among the prefixes that
//! either NIC may send from is one with a range of an L3 network of the other. Public L3 networks join
//! nothing, as addresses are translated on the way there. Whether the instance runs does not matter: each
//! restart would change the domain of thousands of addresses.
//!
//! Where addresses overlap there is no join: of two joins that would make a domain with an address that is
//! given out twice, the one with the older NICs counts. So nobody undoes a join by a later one.
//!
//! The number of a domain is the lowest of its L2 networks'. It is one network's alone, and it changes when
//! that network comes or goes: then for those that stay together, and for the others not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use model::{
    Id, Record, Resource,
    resource::{
        ip_range::{IpRange, IpRangeType},
        l2_network::L2Network,
        l3_network::{L3Category, L3Network},
        vm_instance::VmInstance,
        vm_nic::VmNic,
    },
};
use store::Change;

use crate::{
    changes::rows,
    operators::{Delta, Gather, Index, Join, count, each, map},
};

type NetworkId = Id<L2Network>;

/// The first and the last of some addresses.
type Span = (IpAddr, IpAddr);

/// An instance's NIC on an L3 network, which routes for something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Leg {
    nic: u32,
    instance: Id<VmInstance>,
    prefixes: Vec<IpNet>,
}

/// A leg, with what is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Foot {
    leg: Arc<Leg>,
    l2: NetworkId,
    spans: Vec<Span>,
}

/// The L2 network that an L3 network is on, and the addresses that it gives out.
type There = (NetworkId, Vec<Span>);

/// An L3 network that can be joined with others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    uuid: Id<L3Network>,
    l2: NetworkId,
}

/// When a join counts before another one: the number of its later NIC, then that of the other.
pub(crate) type Rank = (u32, u32);

/// Two networks that are joined.
pub(crate) type Edge = (NetworkId, NetworkId, Rank);

/// The numbers of domains.
#[derive(Debug)]
pub(crate) struct Domains {
    places: Gather<Id<L3Network>, Place, Span>,
    feet: Join<Id<L3Network>, Arc<Leg>, Arc<There>>,
    pairs: Join<Id<VmInstance>, Arc<Foot>, Arc<Foot>>,
    components: Components,
}

impl Domains {
    pub(crate) fn new() -> Self {
        Self {
            places: Gather::new(),
            feet: Join::new(),
            pairs: Join::new(),
            components: Components::new(),
        }
    }

    /// How the numbers of domains change, of networks where it is another one's.
    pub(crate) fn step(&mut self, changes: &[Change<Record>]) -> Delta<(NetworkId, u32)> {
        let numbers = rows(changes, |l2: &L2Network| Some((l2.uuid, l2.number)));
        let places = rows(changes, place);
        let spans = rows(changes, |range: &IpRange| Some((range.l3_network_uuid, span(range)?)));
        let of_l2 = rows(changes, |range: &IpRange| Some((range.l2_network_uuid, span(range)?)));
        let places = self.places.step(places, spans);
        let places =
            map(&places, |(place, spans)| Some((place.uuid, Arc::new((place.l2, spans.clone())))));
        let legs = each(&rows(changes, legs), Clone::clone);
        let feet = self.feet.step(legs, places);
        let feet = map(&feet, |(_, leg, there)| {
            let (l2, spans) = (there.0, there.1.clone());
            Some((leg.instance, Arc::new(Foot { leg: Arc::clone(leg), l2, spans })))
        });
        let pairs = self.pairs.step(feet.clone(), feet);
        let edges = map(&pairs, |(_, one, other)| edge(one, other));
        self.components.step(edges, of_l2, numbers)
    }

    pub(crate) fn work(&self) -> u64 {
        self.places.work + self.feet.work + self.pairs.work + self.components.work
    }
}

fn place(row: &L3Network) -> Option<(Id<L3Network>, Place)> {
    let place = Place { uuid: row.uuid, l2: row.l2_network_uuid };
    (row.category != L3Category::Public).then_some((row.uuid, place))
}

fn span(row: &IpRange) -> Option<Span> {
    (row.ip_range_type == IpRangeType::Normal).then_some((row.start_ip, row.end_ip))
}

/// A NIC on each of its L3 networks, if it routes for something.
fn legs(row: &VmNic) -> Option<Vec<(Id<L3Network>, Arc<Leg>)>> {
    let (nic, prefixes) = (row.number, row.allowed_prefixes.clone());
    let instance = row.vm_instance_uuid.filter(|_| routes(row))?;
    let leg = Arc::new(Leg { nic, instance, prefixes });
    let l3s: BTreeSet<_> =
        row.more_l3_network_uuids.iter().chain([&row.l3_network_uuid]).copied().collect();
    Some(l3s.into_iter().map(|l3| (l3, Arc::clone(&leg))).collect())
}

/// Whether a NIC may join networks.
pub(crate) fn routes(row: &VmNic) -> bool {
    !row.allowed_prefixes.is_empty() && row.vm_instance_uuid.is_some()
}

/// The join of two networks by an instance's two NICs, as the first of both orders gives it.
pub(crate) fn edge(one: &Foot, other: &Foot) -> Option<Edge> {
    let routes_for = |foot: &Foot, spans: &[Span]| {
        let holds = |net: &IpNet, (first, last): &Span| net.contains(first) && net.contains(last);
        spans.iter().any(|span| foot.leg.prefixes.iter().any(|net| holds(net, span)))
    };
    let joins = one.l2 < other.l2 && routes_for(one, &other.spans) && routes_for(other, &one.spans);
    let (a, b) = (one.leg.nic, other.leg.nic);
    joins.then_some((one.l2, other.l2, (a.max(b), a.min(b))))
}

/// *Reachability component*: of networks and joins, the components without addresses that are given out
/// twice. A change costs the components that it touches.
#[derive(Debug)]
struct Components {
    /// Both ways.
    joins: Index<NetworkId, (Rank, NetworkId)>,
    spans: Index<NetworkId, Span>,
    numbers: Index<NetworkId, u32>,
    /// The number of the domain, where it is another network's.
    domains: BTreeMap<NetworkId, u32>,
    work: u64,
}

impl Components {
    fn new() -> Self {
        Self {
            joins: Index::new(),
            spans: Index::new(),
            numbers: Index::new(),
            domains: BTreeMap::new(),
            work: 0,
        }
    }

    fn step(
        &mut self,
        edges: Delta<Edge>,
        spans: Delta<(NetworkId, Span)>,
        numbers: Delta<(NetworkId, u32)>,
    ) -> Delta<(NetworkId, u32)> {
        self.work += count(&edges) + count(&spans) + count(&numbers);
        let mut touched: BTreeSet<NetworkId> = spans
            .iter()
            .map(|((l2, _), _)| *l2)
            .chain(numbers.iter().map(|((l2, _), _)| *l2))
            .collect();
        self.spans.add(spans);
        self.numbers.add(numbers);
        let ends = each(&edges, |(a, b, rank)| [(*a, (*rank, *b)), (*b, (*rank, *a))]);
        touched.retain(|l2| self.joins.of(l2).next().is_some());
        touched.extend(ends.iter().map(|((l2, _), _)| *l2));
        self.joins.add(ends);
        // A part that a join has left has an end of it, so all that was together is found from there.
        let (mut seen, mut change) = (BTreeSet::new(), Vec::new());
        for l2 in touched {
            if !seen.contains(&l2) {
                let (networks, joins) = self.around(l2);
                self.work += u64::try_from(networks.len() + joins.len()).unwrap_or(u64::MAX);
                self.number(&networks, joins, &mut change);
                seen.extend(networks);
            }
        }
        self.work += count(&change);
        change
    }

    /// All networks that joins lead to from this one, and these joins.
    fn around(
        &self,
        l2: NetworkId,
    ) -> (BTreeSet<NetworkId>, BTreeSet<(Rank, NetworkId, NetworkId)>) {
        let (mut networks, mut joins) = (BTreeSet::from([l2]), BTreeSet::new());
        let mut open = vec![l2];
        while let Some(here) = open.pop() {
            for ((rank, there), _) in self.joins.of(&here) {
                joins.insert((*rank, here.min(*there), here.max(*there)));
                if networks.insert(*there) {
                    open.push(*there);
                }
            }
        }
        (networks, joins)
    }

    /// Finds the domains among networks, and notes those that have another number now.
    fn number(
        &mut self,
        networks: &BTreeSet<NetworkId>,
        joins: BTreeSet<(Rank, NetworkId, NetworkId)>,
        change: &mut Delta<(NetworkId, u32)>,
    ) {
        let mut parts = Parts::new();
        for l2 in networks {
            // Of a network that is not there nothing is known, and nothing joins it.
            if let Some(number) = self.numbers.least(l2) {
                parts.put(*l2, number, self.spans.of(l2).map(|(span, _)| *span));
            }
        }
        joins.into_iter().for_each(|(_, a, b)| parts.join(a, b));
        for l2 in networks {
            let own = self.numbers.least(l2);
            let new = parts.number(*l2).filter(|number| Some(*number) != own);
            let old = match new {
                Some(number) => self.domains.insert(*l2, number),
                None => self.domains.remove(l2),
            };
            if old != new {
                change.extend(old.map(|number| ((*l2, number), -1)));
                change.extend(new.map(|number| ((*l2, number), 1)));
            }
        }
    }
}

/// Networks that are together so far (a forest of disjoint sets), each with what addresses are given out.
struct Parts {
    above: BTreeMap<NetworkId, NetworkId>,
    parts: BTreeMap<NetworkId, Part>,
}

struct Part {
    number: u32,
    /// The last address by the first one. They do not overlap.
    spans: BTreeMap<IpAddr, IpAddr>,
}

impl Parts {
    fn new() -> Self {
        Self { above: BTreeMap::new(), parts: BTreeMap::new() }
    }

    fn put(&mut self, l2: NetworkId, number: u32, spans: impl Iterator<Item = Span>) {
        let mut part = Part { number, spans: BTreeMap::new() };
        spans.for_each(|span| part.add(span));
        self.parts.insert(l2, part);
    }

    /// The smaller part goes into the larger one, so all joins together move a network's spans a logarithmic
    /// number of times.
    fn join(&mut self, a: NetworkId, b: NetworkId) {
        let (a, b) = (self.find(a), self.find(b));
        let (Some(one), Some(other)) = (self.parts.get(&a), self.parts.get(&b)) else { return };
        let (large, small) = match one.spans.len() >= other.spans.len() {
            true => (a, b),
            false => (b, a),
        };
        let (into, from) = match large == a {
            true => (one, other),
            false => (other, one),
        };
        if a == b || from.spans.iter().any(|(first, last)| into.has((*first, *last))) {
            return;
        }
        self.above.insert(small, large);
        let Some(from) = self.parts.remove(&small) else { return };
        if let Some(into) = self.parts.get_mut(&large) {
            into.number = into.number.min(from.number);
            into.spans.extend(from.spans);
        }
    }

    fn find(&self, l2: NetworkId) -> NetworkId {
        let mut at = l2;
        while let Some(above) = self.above.get(&at) {
            at = *above;
        }
        at
    }

    fn number(&self, l2: NetworkId) -> Option<u32> {
        self.parts.get(&self.find(l2)).map(|part| part.number)
    }
}

impl Part {
    /// Whether one of these addresses is given out.
    fn has(&self, (first, last): Span) -> bool {
        let before = self.spans.range(..=last).next_back();
        before.is_some_and(|(_, end)| *end >= first)
    }

    /// On one network ranges do not overlap; if they did, they would be one.
    fn add(&mut self, (mut first, mut last): Span) {
        while let Some((start, end)) = self.spans.range(..=last).next_back()
            && *end >= first
        {
            let start = *start;
            (first, last) = (first.min(start), last.max(*end));
            self.spans.remove(&start);
        }
        self.spans.insert(first, last);
    }
}

/// Plainly, over everything: the number of each network's domain.
pub(crate) fn all(read: &impl store::Read<Record>) -> BTreeMap<NetworkId, u32> {
    let list = |kind| read.list(kind).collect::<Vec<_>>();
    let ranges = list(model::Kind::IpRange);
    let ranges: Vec<_> = ranges.iter().filter_map(|row| IpRange::of(row)).collect();
    let networks = list(model::Kind::L2Network);
    let networks = networks.iter().filter_map(|row| L2Network::of(row));
    // Networks that are together, with their numbers.
    let mut together: Vec<BTreeMap<NetworkId, u32>> =
        networks.map(|l2| BTreeMap::from([(l2.uuid, l2.number)])).collect();
    let mut feet = Vec::new();
    for row in list(model::Kind::VmNic) {
        let Some(nic) = VmNic::of(&row) else { continue };
        for (l3, leg) in legs(nic).into_iter().flatten() {
            let l3 = read.get(model::Kind::L3Network, l3.uuid());
            let Some((l3, place)) = l3.as_deref().and_then(L3Network::of).and_then(place) else {
                continue;
            };
            let here = ranges.iter().filter(|range| range.l3_network_uuid == l3);
            let spans = here.filter_map(|range| span(range)).collect();
            feet.push(Foot { leg, l2: place.l2, spans });
        }
    }
    let mut edges = BTreeSet::new();
    for one in &feet {
        for other in feet.iter().filter(|other| other.leg.instance == one.leg.instance) {
            edges.extend(edge(one, other).map(|(a, b, rank)| (rank, a, b)));
        }
    }
    let given_out = |part: &BTreeMap<NetworkId, u32>| -> Vec<Span> {
        let here = ranges.iter().filter(|range| part.contains_key(&range.l2_network_uuid));
        here.filter_map(|range| span(range)).collect()
    };
    for (_, a, b) in edges {
        let at = |l2| together.iter().position(|part| part.contains_key(&l2));
        let (Some(a), Some(b)) = (at(a), at(b)) else { continue };
        let (one, other) = (given_out(&together[a]), given_out(&together[b]));
        let overlap = |x: &Span| other.iter().any(|y| x.0 <= y.1 && y.0 <= x.1);
        if a != b && !one.iter().any(overlap) {
            let gone = together.remove(a.max(b));
            together[a.min(b)].extend(gone);
        }
    }
    let numbered = |part: BTreeMap<NetworkId, u32>| {
        let number = part.values().min().copied().unwrap_or_default();
        part.into_keys().map(move |l2| (l2, number)).collect::<Vec<_>>()
    };
    together.into_iter().flat_map(numbered).collect()
}
