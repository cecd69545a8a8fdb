//! The numbers under which things are in the maps: hashes of their content.

use packet::{Node, Plain as _};
use sha2::{Digest as _, Sha256};

/// What a host mixes into all its hashes. Nobody else knows it, so no tenant can look for rules that
/// get the number of another tenant's: 62 bits would not be enough for that otherwise. It stays as
/// long as the maps do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salt(pub u64);

/// What a number is of. Different things never have the same number by having the same bytes.
#[derive(Clone, Copy)]
pub(crate) enum Of {
    RuleSet,
    Node,
    Identity,
}

impl Salt {
    /// A hash that begins with it.
    pub(crate) fn hash(self, of: Of) -> Hash {
        let mut hash = Hash(Sha256::new());
        hash.add(&self.0.to_be_bytes());
        hash.add(&[match of {
            Of::RuleSet => 1,
            Of::Node => 2,
            Of::Identity => 3,
        }]);
        hash
    }

    /// The key of a node above so many levels of others; see [`packet::depth`].
    pub(crate) fn node(self, node: &Node, depth: u64) -> u64 {
        let mut hash = self.hash(Of::Node);
        hash.add(&node.to_bytes());
        let key = hash.number() & (u64::MAX >> 2) | depth << 62;
        // No tree has the key 0.
        key.max(1)
    }
}

/// A hash of things, one after the other.
pub(crate) struct Hash(Sha256);

impl Hash {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Its first 8 bytes.
    pub(crate) fn number(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(self.0.finalize());
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// The identity of whoever is in these groups, sorted: its two lowest bits are zero, as
/// [`packet::selector_of_identity`] wants. It is not 0.
#[must_use]
pub fn identity(salt: Salt, groups: &[u32]) -> u64 {
    let mut hash = salt.hash(Of::Identity);
    groups.iter().for_each(|group| hash.add(&group.to_be_bytes()));
    (hash.number() & !3).max(4)
}
