//! The objects that a host must hold, kept together with their digests. Both ends use it, so what
//! the server expects and what the agent reports is computed by the same code.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

use crate::{
    digest::{SetDigest, TableDigests, hash_object},
    fact::{FactDigest, network_of},
    object::{Network, Object, ObjectKey, Table},
};

/// Objects by key, with digests that follow every change. A clone is free, and shares the objects.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    objects: OrdMap<ObjectKey, Arc<Object>>,
    /// The ports and peers of each network, whether or not the network itself is held.
    members: OrdMap<Uuid, OrdSet<ObjectKey>>,
    digests: TableDigests,
    facts: FactDigest,
}

impl Holding {
    /// The objects, in the order in which a host applies additions.
    #[must_use]
    pub const fn objects(&self) -> &OrdMap<ObjectKey, Arc<Object>> {
        &self.objects
    }

    /// The digests of the objects.
    #[must_use]
    pub const fn digests(&self) -> TableDigests {
        self.digests
    }

    /// The digest of the facts that the data plane must hold for these objects.
    #[must_use]
    pub fn kernel_digest(&self) -> SetDigest {
        self.facts.digest()
    }

    /// An object by its key.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key).map(Arc::as_ref)
    }

    /// A network by its uuid.
    #[must_use]
    pub fn network(&self, uuid: Uuid) -> Option<&Network> {
        match self.get(&ObjectKey { table: Table::Network, uuid }) {
            Some(Object::Network(network)) => Some(network),
            _ => None,
        }
    }

    /// Puts an object in, in the place of the one with its key.
    pub fn upsert(&mut self, object: impl Into<Arc<Object>>) {
        let object = object.into();
        let key = object.key();
        if self.objects.get(&key) == Some(&object) {
            return;
        }
        self.remove(&key);
        self.digests.table_mut(key.table).add(hash_object(&object));
        self.count(&object, FactDigest::add);
        if let Some(network) = network_of(&object) {
            self.members.entry(network).or_default().insert(key);
        }
        self.objects.insert(key, object);
    }

    /// Takes an object out, if it is in.
    pub fn remove(&mut self, key: &ObjectKey) {
        let Some(object) = self.objects.remove(key) else { return };
        self.digests.table_mut(key.table).take(hash_object(&object));
        self.count(&object, FactDigest::take);
        if let Some(network) = network_of(&object)
            && let Some(members) = self.members.get_mut(&network)
        {
            members.remove(key);
            if members.is_empty() {
                self.members.remove(&network);
            }
        }
    }

    /// Adds or takes out the facts of `object`: its own or, for a network, those of its members.
    /// Call it while `object` is not among the objects.
    fn count(&mut self, object: &Object, change: fn(&mut FactDigest, &Object, &Network)) {
        if let Object::Network(network) = object {
            let keys = self.members.get(&network.uuid).into_iter().flatten();
            for member in keys.filter_map(|key| self.objects.get(key)) {
                change(&mut self.facts, member, network);
            }
        } else if let Some(uuid) = network_of(object) {
            let network = self.objects.get(&ObjectKey { table: Table::Network, uuid });
            if let Some(Object::Network(network)) = network.map(Arc::as_ref) {
                change(&mut self.facts, object, network);
            }
        }
    }
}

impl<O: Into<Arc<Object>>> FromIterator<O> for Holding {
    fn from_iter<I: IntoIterator<Item = O>>(objects: I) -> Self {
        let mut holding = Self::default();
        objects.into_iter().for_each(|object| holding.upsert(object));
        holding
    }
}

impl PartialEq for Holding {
    fn eq(&self, other: &Self) -> bool {
        self.objects == other.objects
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        fact::{digest, facts},
        testing::objects,
    };

    proptest! {
        #[test]
        fn digests_follow_changes_as_if_computed_afresh(
            first in objects(), second in objects(), order in any::<prop::sample::Index>(),
        ) {
            // Claims keep MACs and addresses unique in practice: give each object its own.
            let mut holding: Holding = first.iter().cloned().collect();
            let keys: Vec<_> = holding.objects().keys().copied().collect();
            for key in keys.iter().cycle().skip(order.index(keys.len().max(1))).take(keys.len()) {
                if !second.iter().any(|object| object.key() == *key) {
                    holding.remove(key);
                }
            }
            second.iter().cloned().for_each(|object| holding.upsert(object));

            let fresh: Holding = second.iter().rev().cloned().collect();
            prop_assert_eq!(&holding, &fresh);
            prop_assert_eq!(holding.digests(), fresh.digests());
            prop_assert_eq!(holding.kernel_digest(), fresh.kernel_digest());
            let expected = digest(&facts(fresh.objects()));
            prop_assert_eq!(holding.kernel_digest(), expected);

            holding.objects().keys().copied().collect::<Vec<_>>().iter().for_each(|key| {
                holding.remove(key);
            });
            prop_assert_eq!(holding.digests(), TableDigests::default());
            prop_assert_eq!(holding.kernel_digest(), SetDigest::default());
            prop_assert!(holding.members.is_empty());
        }
    }
}
