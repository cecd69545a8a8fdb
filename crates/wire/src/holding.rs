//! The objects that a host must hold, kept together with their digests. Both ends use it, so what
//! the server expects and what the agent reports is computed by the same code.

use imbl::OrdMap;
use uuid::Uuid;

use crate::{
    digest::{SetDigest, TableDigests},
    fact::{NetworkFacts, hash, network_facts, network_of},
    object::{Network, Object, ObjectKey, Subnet, Table},
    shared::{MemberFacts, Shared},
};

/// Objects by key, with digests that follow every change. A clone is free, and shares the objects.
#[derive(Clone, Debug, Default)]
pub struct Holding {
    objects: OrdMap<ObjectKey, Shared>,
    /// Networks that are held, or of which a member is.
    networks: OrdMap<Uuid, Members>,
    digests: TableDigests,
    /// Of the facts that the data plane must hold for the objects.
    facts: SetDigest,
}

/// A network and how many ports and peers of it are held.
#[derive(Clone, Debug, Default)]
struct Members {
    network: Option<Shared>,
    count: usize,
    facts: NetworkFacts,
}

impl Holding {
    /// The objects, in the order in which a host applies additions.
    #[must_use]
    pub const fn objects(&self) -> &OrdMap<ObjectKey, Shared> {
        &self.objects
    }

    /// The digests of the objects.
    #[must_use]
    pub const fn digests(&self) -> TableDigests {
        self.digests
    }

    /// The digest of the facts that the data plane must hold for these objects.
    #[must_use]
    pub const fn kernel_digest(&self) -> SetDigest {
        self.facts
    }

    /// An object by its key.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key).map(|object| &**object)
    }

    /// A network by its uuid.
    #[must_use]
    pub fn network(&self, uuid: Uuid) -> Option<&Network> {
        match self.get(&ObjectKey { table: Table::Network, uuid }) {
            Some(Object::Network(network)) => Some(network),
            _ => None,
        }
    }

    /// An L3 network by its uuid.
    #[must_use]
    pub fn subnet(&self, uuid: Uuid) -> Option<&Subnet> {
        match self.get(&ObjectKey { table: Table::Subnet, uuid }) {
            Some(Object::Subnet(subnet)) => Some(subnet),
            _ => None,
        }
    }

    /// Puts an object in, in the place of the one with its key.
    pub fn upsert(&mut self, object: impl Into<Shared>) {
        let object = object.into();
        let before = self.objects.insert(object.key(), object.clone());
        if before.as_ref() == Some(&object) {
            return;
        }
        let digest = self.digests.table_mut(object.key().table);
        if let Some(before) = &before {
            digest.take(before.hash());
        }
        digest.add(object.hash());
        if let Object::Network(network) = &*object {
            self.set_network(network.uuid, Some(object.clone()));
            return;
        }
        if let Some(before) = &before {
            self.member_leaves(before);
        }
        self.member_comes(&object);
    }

    /// Takes an object out, if it is in.
    pub fn remove(&mut self, key: &ObjectKey) {
        let Some(object) = self.objects.remove(key) else { return };
        self.digests.table_mut(key.table).take(object.hash());
        match &*object {
            Object::Network(network) => self.set_network(network.uuid, None),
            _ => self.member_leaves(&object),
        }
    }

    fn member_comes(&mut self, member: &Shared) {
        let Some(uuid) = network_of(member) else { return };
        let of = self.networks.entry(uuid).or_default();
        of.count += 1;
        if let Some(Object::Network(network)) = of.network.as_deref() {
            of.facts.add(&mut self.facts, member, network);
        }
    }

    fn member_leaves(&mut self, member: &Shared) {
        let Some(uuid) = network_of(member) else { return };
        let Some(of) = self.networks.get_mut(&uuid) else { return };
        of.count -= 1;
        if let Some(Object::Network(network)) = of.network.as_deref() {
            of.facts.take(&mut self.facts, member, network);
        }
        self.forget(uuid);
    }

    /// Puts a network in or takes it out, and gives its members other facts, if they are others.
    /// Networks come before their members and go after them, and what facts take of a network never
    /// changes: so this looks for members only when objects come in another order.
    fn set_network(&mut self, uuid: Uuid, after: Option<Shared>) {
        let of = self.networks.entry(uuid).or_default();
        let before = std::mem::replace(&mut of.network, after.clone());
        let [before, after] = [&before, &after].map(|network| match network.as_deref() {
            Some(Object::Network(network)) => Some(network),
            _ => None,
        });
        for (network, change) in
            [(before, SetDigest::take as fn(&mut SetDigest, _)), (after, SetDigest::add)]
        {
            for fact in network.map(network_facts).unwrap_or_default() {
                change(&mut self.facts, hash(&fact));
            }
        }
        let same = before.map(MemberFacts::basis) == after.map(MemberFacts::basis);
        if !same && of.count > 0 {
            let objects = &self.objects;
            let members = || objects.values().filter(|object| network_of(object) == Some(uuid));
            if let Some(before) = before {
                members().for_each(|member| of.facts.take(&mut self.facts, member, before));
            }
            if let Some(after) = after {
                members().for_each(|member| of.facts.add(&mut self.facts, member, after));
            }
        }
        self.forget(uuid);
    }

    /// Forgets a network that is neither held nor has members.
    fn forget(&mut self, uuid: Uuid) {
        let none = |of: &Members| of.count == 0 && of.network.is_none();
        if self.networks.get(&uuid).is_some_and(none) {
            self.networks.remove(&uuid);
        }
    }
}

impl<O: Into<Shared>> FromIterator<O> for Holding {
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
            prop_assert!(holding.networks.is_empty());
        }
    }
}
