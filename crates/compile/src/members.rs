//! *Members*: who is in groups that rules of ports on a host name. The pairs of a NIC and a host are far too
//! many to be kept (each NIC of a large group, on each host that has a port in it), so this operator keeps
//! what is on either side of them, and makes what a change touches before and after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use model::{
    Id,
    resource::{host::Host, vm_nic::VmNic},
};
use wire::{
    object::{self, Object},
    policy::MemberAddress,
    shared::Shared,
};

use crate::{
    groups::GroupId,
    operators::{Delta, count},
};

/// A group and a routing domain in which somebody looks for its members.
pub(crate) type Circle = (GroupId, u32);

/// A NIC that is in groups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Person {
    pub(crate) nic: Id<VmNic>,
    /// Its addresses, each with the number of its domain, sorted.
    pub(crate) addresses: Vec<(IpAddr, u32)>,
    /// The numbers of its groups.
    pub(crate) groups: BTreeMap<GroupId, u32>,
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Members {
    people: BTreeMap<Id<VmNic>, Known>,
    circles: BTreeMap<Circle, BTreeSet<Id<VmNic>>>,
    /// The hosts that look into a circle.
    lookers: BTreeMap<Circle, BTreeSet<Id<Host>>>,
    pub(crate) work: u64,
}

#[derive(Debug)]
struct Known {
    person: Person,
    /// Its circles, each with the number of the group.
    circles: BTreeSet<(Circle, u32)>,
    /// What hosts hold for it, by the numbers of the groups: one object for all that know it by the same.
    made: BTreeMap<Vec<u32>, Shared>,
}

/// Objects of one NIC that are kept for hosts to come. Few hosts know it by other groups than most do.
const MADE_MAX: usize = 8;

/// A host that knows a NIC.
type Pair = (Id<Host>, Id<VmNic>);

impl Person {
    /// Where it is to be found, each with the number of the group.
    fn circles(&self) -> BTreeSet<(Circle, u32)> {
        let domains: BTreeSet<_> = self.addresses.iter().map(|(_, domain)| *domain).collect();
        let all = self.groups.iter().flat_map(|(group, number)| {
            domains.iter().map(move |domain| ((*group, *domain), *number))
        });
        all.collect()
    }

    /// What a host holds that looks into circles.
    pub(crate) fn object(&self, looks_into: impl Fn(&Circle) -> bool) -> Option<Object> {
        let groups = known_by(&self.circles(), looks_into);
        (!groups.is_empty()).then(|| self.known_as(groups))
    }

    fn known_as(&self, groups: Vec<u32>) -> Object {
        let addresses = self.addresses.iter().map(|&(ip, domain)| MemberAddress { ip, domain });
        let (uuid, addresses) = (self.nic.uuid(), addresses.collect());
        Object::Member(object::Member { uuid, addresses, groups })
    }
}

/// The numbers of the groups by which a NIC is known to who looks into these of its circles, sorted.
fn known_by(circles: &BTreeSet<(Circle, u32)>, looks_into: impl Fn(&Circle) -> bool) -> Vec<u32> {
    let known = circles.iter().filter(|(circle, _)| looks_into(circle));
    let mut numbers: Vec<u32> = known.map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

impl Members {
    pub(crate) fn new() -> Self {
        let (people, circles, lookers) = Default::default();
        Self { people, circles, lookers, work: 0 }
    }

    /// First NICs change, for those who look then; then who looks.
    pub(crate) fn step(
        &mut self,
        people: Delta<Person>,
        lookers: Delta<(Circle, Id<Host>)>,
    ) -> Delta<(Id<Host>, Shared)> {
        self.work += count(&people) + count(&lookers);
        let mut change = Vec::new();
        let touched = self.seen(&people);
        self.tell(&touched, -1, &mut change);
        self.meet(people);
        self.tell(&touched, 1, &mut change);

        let touched = self.looked_at(&lookers);
        self.tell(&touched, -1, &mut change);
        for ((circle, host), weight) in lookers {
            put(&mut self.lookers, circle, host, weight);
        }
        self.tell(&touched, 1, &mut change);
        self.work += count(&change);
        change
    }

    /// Who sees that NICs change: who looks into a circle that a NIC comes into or leaves; or into any of
    /// its circles, if its addresses change.
    fn seen(&self, people: &Delta<Person>) -> BTreeSet<Pair> {
        let mut change: BTreeMap<Id<VmNic>, [Option<&Person>; 2]> = BTreeMap::new();
        for (person, weight) in people {
            let at = usize::from(*weight > 0);
            change.entry(person.nic).or_default()[at] = Some(person);
        }
        let mut pairs = BTreeSet::new();
        for (nic, [old, new]) in change {
            let circles = |person: Option<&Person>| person.map(Person::circles).unwrap_or_default();
            let (left, joined) = (circles(old), circles(new));
            let touched: BTreeSet<_> =
                match old.map(|it| &it.addresses) == new.map(|it| &it.addresses) {
                    true => left.symmetric_difference(&joined).collect(),
                    false => left.union(&joined).collect(),
                };
            let lookers = touched.into_iter().filter_map(|(circle, _)| self.lookers.get(circle));
            pairs.extend(lookers.flatten().map(|host| (*host, nic)));
        }
        pairs
    }

    fn looked_at(&self, lookers: &Delta<(Circle, Id<Host>)>) -> BTreeSet<Pair> {
        let there = |(circle, host): &(Circle, Id<Host>)| {
            let people = self.circles.get(circle).into_iter().flatten();
            let host = *host;
            people.map(move |nic| (host, *nic)).collect::<Vec<_>>()
        };
        lookers.iter().flat_map(|(looker, _)| there(looker)).collect()
    }

    fn meet(&mut self, people: Delta<Person>) {
        let (gone, come): (Vec<_>, Vec<_>) = people.into_iter().partition(|(_, n)| *n < 0);
        for (person, weight) in gone.into_iter().chain(come) {
            let (nic, circles, made) = (person.nic, person.circles(), BTreeMap::new());
            for (circle, _) in &circles {
                put(&mut self.circles, *circle, nic, weight);
            }
            match weight > 0 {
                true => drop(self.people.insert(nic, Known { person, circles, made })),
                false => drop(self.people.remove(&nic)),
            }
        }
    }

    /// What hosts hold now.
    fn tell(
        &mut self,
        pairs: &BTreeSet<Pair>,
        weight: i64,
        change: &mut Delta<(Id<Host>, Shared)>,
    ) {
        for (host, nic) in pairs {
            let Some(Known { person, circles, made }) = self.people.get_mut(nic) else { continue };
            let looks = |circle: &Circle| {
                self.lookers.get(circle).is_some_and(|hosts| hosts.contains(host))
            };
            let groups = known_by(circles, looks);
            if groups.is_empty() {
                continue;
            }
            if made.len() == MADE_MAX && !made.contains_key(&groups) {
                made.clear();
            }
            let make = || Shared::from(person.known_as(groups.clone()));
            let object = made.entry(groups.clone()).or_insert_with(make).clone();
            change.push(((*host, object), weight));
        }
    }
}

/// Puts into a set, or takes out of it, what is in it once.
fn put<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: V, weight: i64) {
    if weight > 0 {
        sets.entry(key).or_default().insert(value);
        return;
    }
    let std::collections::btree_map::Entry::Occupied(mut set) = sets.entry(key) else { return };
    set.get_mut().remove(&value);
    if set.get().is_empty() {
        set.remove();
    }
}
