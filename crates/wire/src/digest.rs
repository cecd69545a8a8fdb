//! Digests by which both ends prove that they hold the same things.
//!
//! A [`SetDigest`] is the sum modulo 2^256 of the SHA-256 of its members: it does not depend on
//! their order, and a member is added or taken out in constant time. A sum can be forged by someone
//! who may choose very many members; that is no loss here, because a digest finds mistakes between
//! two ends that are authenticated by TLS, it does not authenticate.
//!
//! An object is hashed as its table's number and its encoding, of which there is one for each value
//! ([`Object::encode`](crate::object::Object::encode)): a field that is added later changes no digest where it is not set.

use std::{fmt, net::IpAddr};

use sha2::{Digest as _, Sha256};

use crate::object::Table;

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;

/// The digest of a set.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SetDigest(Sum);

/// A number modulo 2^256, the most significant word first.
type Sum = [u64; DIGEST_BYTES / 8];

impl SetDigest {
    /// Puts a member in. The caller knows that it was not in.
    pub fn add(&mut self, member: MemberHash) {
        self.add_all(Self(member.0));
    }

    /// Puts all members of a set in. The caller knows that none of them was in.
    pub(crate) fn add_all(&mut self, members: Self) {
        let mut carry = false;
        for (sum, word) in self.0.iter_mut().zip(members.0).rev() {
            let (once, first) = sum.overflowing_add(word);
            let (twice, second) = once.overflowing_add(u64::from(carry));
            (*sum, carry) = (twice, first || second);
        }
    }

    /// Takes a member out. The caller knows that it was in.
    pub fn take(&mut self, member: MemberHash) {
        self.take_all(Self(member.0));
    }

    /// Takes all members of a set out. The caller knows that all of them were in.
    pub(crate) fn take_all(&mut self, members: Self) {
        let mut borrow = false;
        for (sum, word) in self.0.iter_mut().zip(members.0).rev() {
            let (once, first) = sum.overflowing_sub(word);
            let (twice, second) = once.overflowing_sub(u64::from(borrow));
            (*sum, borrow) = (twice, first || second);
        }
    }

    /// Its bytes, as they go over the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; DIGEST_BYTES] {
        let mut bytes = [0; DIGEST_BYTES];
        for (out, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            out.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// The digest with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(words(bytes))
    }
}

impl fmt::Display for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, "{word:016x}"))
    }
}

impl fmt::Debug for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The hash of one member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberHash(Sum);

/// How many tables there are.
const TABLES: usize = Table::ALL.len();

/// The digests of a host's objects, one for each table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableDigests {
    tables: [SetDigest; TABLES],
    /// Of what is in tables that this release does not know: such a host holds something else.
    unknown: SetDigest,
}

impl TableDigests {
    /// The digest of a table.
    #[must_use]
    pub const fn table(&self, table: Table) -> SetDigest {
        self.tables[table as usize]
    }

    /// The digest of a table, to change it.
    pub const fn table_mut(&mut self, table: Table) -> &mut SetDigest {
        &mut self.tables[table as usize]
    }

    /// The digest of the objects of all tables together: each was hashed with its table's number.
    #[must_use]
    pub fn whole(&self) -> SetDigest {
        let mut whole = self.unknown;
        self.tables.iter().for_each(|table| whole.add_all(*table));
        whole
    }

    /// Each table that is not empty, by number.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, SetDigest)> {
        let all = Table::ALL.iter().map(|table| (table.number(), self.table(*table)));
        all.filter(|(_, digest)| *digest != SetDigest::default())
    }

    /// Notes the digest of the table with this number, known or not.
    pub fn note(&mut self, number: u32, digest: SetDigest) {
        match Table::from_number(number) {
            Some(table) => *self.table_mut(table) = digest,
            None => self.unknown.add(MemberHash(digest.0)),
        }
    }
}

/// Hashes an object, of which this is the encoding.
#[must_use]
pub(crate) fn hash_encoded(table: Table, encoded: &[u8]) -> MemberHash {
    let mut hash = Sha256::new();
    hash.update(table.number().to_be_bytes());
    hash.update(encoded);
    MemberHash(words(hash.finalize().into()))
}

/// A number modulo 2^256 from its bytes, the most significant first.
fn words(bytes: [u8; DIGEST_BYTES]) -> Sum {
    let mut sum = Sum::default();
    for (word, part) in sum.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_be_bytes(*part);
    }
    sum
}

/// The bytes of a fact, in the one form that is hashed: big endian, lengths first, one tag for each
/// kind.
#[derive(Default)]
pub(crate) struct Form(Vec<u8>);

impl Form {
    pub(crate) fn tag(&mut self, tag: u8) -> &mut Self {
        self.0.push(tag);
        self
    }

    pub(crate) fn number(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend((bytes.len() as u64).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    /// IPv4 addresses and their mapped form are one address, as in the data plane.
    pub(crate) fn ip(&mut self, ip: IpAddr) -> &mut Self {
        let mapped = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        self.0.extend(mapped.octets());
        self
    }

    pub(crate) fn finish(&self) -> MemberHash {
        MemberHash(words(Sha256::digest(&self.0).into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(bytes: &[u8]) -> MemberHash {
        Form::default().bytes(bytes).finish()
    }

    #[test]
    fn sums_carry_through_all_bytes() {
        let (one, all) = (MemberHash([0, 0, 0, 1]), SetDigest::from_bytes([0xff; 32]));
        let mut sum = all;
        sum.add(one);
        assert_eq!(sum, SetDigest::default());
        sum.take(one);
        assert_eq!(sum, all);
    }

    #[test]
    fn what_is_in_an_unknown_table_is_never_equal_to_nothing() {
        let mut digests = TableDigests::default();
        digests.note(Table::Port.number(), SetDigest::from_bytes([1; 32]));
        assert_eq!(digests.table(Table::Port), SetDigest::from_bytes([1; 32]));
        let known = digests;
        digests.note(99, SetDigest::from_bytes([1; 32]));
        assert_ne!(digests, known);
        assert_eq!(digests.numbered().collect::<Vec<_>>(), [(4, SetDigest::from_bytes([1; 32]))]);
    }

    proptest! {
        #[test]
        fn order_does_not_matter(
            members in proptest::collection::vec(any::<[u8; 4]>(), 0..20),
            turn in 0_usize..20,
        ) {
            let sum = |members: &[[u8; 4]]| {
                let mut digest = SetDigest::default();
                members.iter().for_each(|member| digest.add(hash(member)));
                digest
            };
            let mut turned = members.clone();
            turned.rotate_left(turn.min(members.len()));
            prop_assert_eq!(sum(&members), sum(&turned));
        }

        #[test]
        fn taking_undoes_adding(start: [u8; 32], member: [u8; 8]) {
            let mut digest = SetDigest::from_bytes(start);
            digest.add(hash(&member));
            prop_assert_ne!(digest, SetDigest::from_bytes(start));
            digest.take(hash(&member));
            prop_assert_eq!(digest, SetDigest::from_bytes(start));
        }
    }
}
