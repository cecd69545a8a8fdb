//! An object that many hosts hold, with what every one of them needs of it: its encoding, its hash,
//! the hashes of its facts. Each is computed once, when it is first asked for.
//!
//! A new NIC is a peer on every other host of its network. Without this, the server would encode
//! and hash it anew for each of them.

use std::{
    net::IpAddr,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use crate::{
    digest::{MemberHash, SetDigest, hash_encoded},
    fact::{Fact, hash, member_facts},
    object::{Network, Object},
};

/// An object. A clone is free and shares everything.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    object: Object,
    encoded: OnceLock<Box<[u8]>>,
    hash: OnceLock<MemberHash>,
    facts: OnceLock<MemberFacts>,
}

/// What an object adds to the facts of a host that also holds its network.
pub(crate) struct MemberFacts {
    /// All that the facts take from the network.
    of: Basis,
    /// The sum of the facts that no other object gives.
    pub(crate) own: SetDigest,
    /// The VTEP of the host it lives on, and that of a move, with the facts about them: other members
    /// may give them too.
    pub(crate) vteps: Box<[(IpAddr, MemberHash)]>,
}

/// A network's number, its VXLAN network identifier, which a physical one has not, and whether it
/// is open.
type Basis = (u32, Option<u32>, bool);

impl Shared {
    /// Its one protobuf encoding ([`Object::encode`]).
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        self.0.encoded.get_or_init(|| self.0.object.encode().into())
    }

    /// Its hash, as a member of its table.
    #[must_use]
    pub fn hash(&self) -> MemberHash {
        *self.0.hash.get_or_init(|| hash_encoded(self.key().table, self.encoded()))
    }

    /// Hands over what it adds to a host's facts as a member of `network`.
    pub(crate) fn with_facts<T>(
        &self,
        network: &Network,
        then: impl FnOnce(&MemberFacts) -> T,
    ) -> T {
        let known = self.0.facts.get_or_init(|| MemberFacts::new(&self.0.object, network));
        match known.of == MemberFacts::basis(network) {
            true => then(known),
            // The network was another one in what counts when they were computed.
            false => then(&MemberFacts::new(&self.0.object, network)),
        }
    }
}

impl MemberFacts {
    fn new(object: &Object, network: &Network) -> Self {
        let (mut own, mut vteps) = (SetDigest::default(), Vec::new());
        for fact in member_facts(object, network) {
            let hash = hash(&fact);
            match fact {
                Fact::Vtep { ip, .. } => vteps.push((ip, hash)),
                _ => own.add(hash),
            }
        }
        Self { of: Self::basis(network), own, vteps: vteps.into() }
    }

    pub(crate) fn basis(network: &Network) -> Basis {
        (network.number, network.tunnel().map(crate::object::Tunnel::id), network.is_open())
    }
}

impl From<Object> for Shared {
    fn from(object: Object) -> Self {
        let (encoded, hash, facts) = Default::default();
        Self(Arc::new(Inner { object, encoded, hash, facts }))
    }
}

impl Deref for Shared {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.0.object
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.object == other.0.object
    }
}

impl Eq for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.object.fmt(f)
    }
}
