//! The desired content of the maps that the agent fills, edits of it, and what was changed. All
//! of it follows from the `maps!` table of `packet`.
//!
//! Pure data: ordering happens in `reconcile`, kernel access in `pinned`.

use packet::{Port, PortKey};
use std::collections::BTreeMap;

/// What each filled map is given.
macro_rules! tables {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident $version:literal:
                $shape:ident $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept $kept:tt
    ) => {
        /// Everything that a host's data plane should know, keyed as in the maps.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Tables {$(
            $(#[$doc])*
            pub $name: BTreeMap<$key, $value>,
        )*}

        /// Entries to write, and keys to remove (`None`).
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Edits {$(
            $(#[$doc])*
            pub $name: BTreeMap<$key, Option<$value>>,
        )*}

        /// What a reconcile changed.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Changes {$(
            $(#[$doc])*
            pub $name: Change,
        )*}

        impl Tables {
            /// What makes these tables equal to the desired ones.
            #[must_use]
            pub fn edits_to(&self, desired: &Tables) -> Edits {
                Edits { $($name: edits(&self.$name, &desired.$name),)* }
            }

            /// Makes the edits here.
            pub fn apply(&mut self, edits: &Edits) {
                $(apply(&mut self.$name, &edits.$name);)*
            }
        }

        impl Edits {
            /// How many entries are written or removed.
            #[must_use]
            pub fn len(&self) -> usize {
                0 $(+ self.$name.len())*
            }
        }

        impl Changes {
            /// In all maps together.
            #[must_use]
            pub fn sum(&self) -> Change {
                let mut sum = Change::default();
                $(
                    sum.written += self.$name.written;
                    sum.removed += self.$name.removed;
                )*
                sum
            }
        }
    };
}
packet::maps!(tables);

/// Ports whose policy becomes another one while others become members: until all else is done nobody
/// passes, for neither policy was made with the other's members in mind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsure {
    /// As they are before all else: barred. Those to come are not there.
    pub before: BTreeMap<PortKey, Option<Port>>,
    /// As they are after all else.
    pub after: BTreeMap<PortKey, Option<Port>>,
}

impl Edits {
    /// Takes those out, where the maps hold these ports.
    pub fn take_unsure(&mut self, held: &BTreeMap<PortKey, Port>) -> Unsure {
        let mut unsure = Unsure::default();
        if self.idents.is_empty() {
            return unsure;
        }
        let policy = |port: &Port| (port.ingress, port.egress, port.domain);
        let names = Port::HAS_MEMBERS | Port::HAS_MEMBERS << Port::EGRESS_SHIFT;
        for (key, wanted) in &self.ports {
            let Some(wanted) = wanted else { continue };
            let before = held.get(key).filter(|port| port.number == wanted.number);
            let rules = wanted.rules | before.map_or(0, |port| port.rules);
            if rules & names == 0 || before.map(policy) == Some(policy(wanted)) {
                continue;
            }
            unsure.before.extend(before.map(|port| (*key, Some(barred(port)))));
            unsure.after.insert(*key, Some(*wanted));
        }
        self.ports.retain(|key, _| !unsure.after.contains_key(key));
        unsure
    }
}

/// The same port with rule sets that are not there: what should be in a map and is not, denies.
const fn barred(port: &Port) -> Port {
    let (ingress, egress) = (u64::MAX, u64::MAX);
    Port { ingress, egress, rules: 0, generation: !port.generation, ..*port }
}

/// How many entries a reconcile wrote and removed in one map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Entries added or overwritten.
    pub written: usize,
    /// Entries removed.
    pub removed: usize,
}

impl Edits {
    /// Whether there is nothing to write or remove.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Changes {
    /// Whether the maps were already as desired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }
}

fn edits<K: Ord + Copy, V: PartialEq + Copy>(
    actual: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let goes = actual.keys().filter(|key| !desired.contains_key(key)).map(|key| (*key, None));
    let comes = desired.iter().filter(|(key, value)| actual.get(key) != Some(value));
    goes.chain(comes.map(|(key, value)| (*key, Some(*value)))).collect()
}

fn apply<K: Ord + Copy, V: Copy>(held: &mut BTreeMap<K, V>, edits: &BTreeMap<K, Option<V>>) {
    for (key, value) in edits {
        match value {
            Some(value) => held.insert(*key, *value),
            None => held.remove(key),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::{Fdb, FdbKey, Mac, PortKey, Vtep, VtepKey};

    fn key(last: u8) -> FdbKey {
        FdbKey::new(1, Mac([2, 0, 0, 0, 0, last]))
    }

    #[test]
    fn no_policy_meets_members_of_another_time() {
        let at = PortKey::untagged;
        let old = Port { number: 5, ingress: 3, rules: Port::HAS_MEMBERS, ..Port::default() };
        let held: BTreeMap<_, _> = [(at(1), old), (at(2), Port { number: 6, ..old })].into();
        let new = Port { ingress: 4, generation: 1, ..old };
        let moved = Port { flags: Port::MOVES, number: 6, ..old };
        let fresh = Port { number: 7, ..new };
        let ports = [(at(1), Some(new)), (at(2), Some(moved)), (at(3), Some(fresh))];
        let mut edits = Edits { ports: ports.into(), ..Edits::default() };
        assert_eq!(edits.take_unsure(&held), Unsure::default(), "the members stay");
        edits.idents.insert(packet::IdentKey::default(), None);
        let Unsure { before, after } = edits.take_unsure(&held);
        assert_eq!(after, [(at(1), Some(new)), (at(3), Some(fresh))].into());
        assert_eq!(before.keys().collect::<Vec<_>>(), [&at(1)]);
        let bar = before[&at(1)].unwrap();
        assert_eq!((bar.number, bar.ingress, bar.rules), (5, u64::MAX, 0));
        assert_ne!(bar.generation, old.generation);
        assert_eq!(edits.ports, [(at(2), Some(moved))].into(), "the same policy");
    }

    #[test]
    fn edits_lead_from_one_content_to_the_other() {
        let at = |ifindex| Fdb::local(PortKey::untagged(ifindex));
        let (mut before, mut after) = (Tables::default(), Tables::default());
        before.fdb.extend([(key(1), at(1)), (key(2), at(2)), (key(3), at(3))]);
        after.fdb.extend([(key(1), at(1)), (key(2), at(9)), (key(4), at(4))]);
        after.vteps.insert(
            VtepKey { vni: 7, addr: packet::Addr::v4([192, 0, 2, 1]) },
            Vtep { net: 1, ..Vtep::default() },
        );
        let edits = before.edits_to(&after);
        assert_eq!(edits.len(), 4);
        assert_eq!(edits.fdb[&key(3)], None);
        before.apply(&edits);
        assert_eq!(before, after);
        assert!(before.edits_to(&after).is_empty());
    }
}
