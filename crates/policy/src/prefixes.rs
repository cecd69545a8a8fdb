//! Spans of addresses as prefixes, and which of them are in which.

use std::net::IpAddr;

use packet::Addr;
use wire::policy::AddressSpan;

/// All addresses of a family that start with the same bits. They are ordered so that each comes
/// right after those that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    /// The lowest address, as a number.
    pub(crate) lowest: u128,
    /// How many bits are the same.
    pub(crate) bits: u8,
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn of(is_v6: bool) -> Self {
        if is_v6 { Self::V6 } else { Self::V4 }
    }

    pub(crate) const fn is_v6(self) -> bool {
        matches!(self, Self::V6)
    }

    /// Bits of an address.
    const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// An address of the family as a number.
    fn number(self, ip: IpAddr) -> Option<u128> {
        match (self, ip) {
            (Self::V4, IpAddr::V4(ip)) => Some(u32::from(ip).into()),
            (Self::V6, IpAddr::V6(ip)) => Some(ip.into()),
            _ => None,
        }
    }

    /// The lowest address of a prefix.
    pub(crate) fn addr(self, prefix: Prefix) -> Addr {
        match self {
            Self::V4 => {
                let [.., a, b, c, d] = prefix.lowest.to_be_bytes();
                Addr::v4([a, b, c, d])
            }
            Self::V6 => Addr::v6(prefix.lowest.to_be_bytes()),
        }
    }

    /// Whether the prefix `of` has all addresses of `prefix`.
    pub(crate) fn has(self, of: Prefix, prefix: Prefix) -> bool {
        let beyond = u32::from(self.bits() - of.bits);
        of.bits <= prefix.bits
            && (of.lowest ^ prefix.lowest).checked_shr(beyond).unwrap_or_default() == 0
    }

    /// The fewest prefixes that have the addresses of a span and no others. None have the addresses of
    /// IPv6 that are IPv4's (RFC 4291, 2.5.5.2): in the maps they would be IPv4's, and no packet has
    /// them.
    pub(crate) fn prefixes(self, span: &AddressSpan) -> Prefixes {
        let ends = self.number(span.first).zip(self.number(span.last));
        Prefixes { family: self, left: ends.filter(|(first, last)| first <= last) }
    }
}

/// See [`Family::prefixes`].
pub(crate) struct Prefixes {
    family: Family,
    /// The first and the last address that are not yet in any.
    left: Option<(u128, u128)>,
}

impl Iterator for Prefixes {
    type Item = Prefix;

    fn next(&mut self) -> Option<Prefix> {
        loop {
            let (first, last) = self.left?;
            let width = u32::from(self.family.bits());
            // As many zeros as it ends with, and no more than are left.
            let fits = match (last - first).checked_add(1) {
                Some(count) => count.ilog2(),
                None => 128,
            };
            let size = first.trailing_zeros().min(width).min(fits);
            let beyond = 1_u128.checked_shl(size).and_then(|count| first.checked_add(count));
            self.left = beyond.filter(|next| *next <= last).map(|next| (next, last));
            let bits = u8::try_from(width - size).unwrap_or_default();
            let prefix = Prefix { lowest: first, bits };
            let is_mapped = self.family.is_v6() && self.family.addr(prefix).is_v4();
            if !is_mapped {
                return Some(prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(first: &str, last: &str, expected: &[&str]) {
        let span = AddressSpan { first: first.parse().unwrap(), last: last.parse().unwrap() };
        let family = Family::of(span.first.is_ipv6());
        let text = |prefix: Prefix| match family {
            Family::V4 => format!("{}/{}", IpAddr::from(family.addr(prefix)), prefix.bits),
            Family::V6 => {
                format!("{}/{}", std::net::Ipv6Addr::from(prefix.lowest), prefix.bits)
            }
        };
        assert_eq!(family.prefixes(&span).map(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_span_is_the_fewest_prefixes() {
        check("10.0.0.0", "10.0.0.255", &["10.0.0.0/24"]);
        check("0.0.0.0", "255.255.255.255", &["0.0.0.0/0"]);
        check("255.255.255.255", "255.255.255.255", &["255.255.255.255/32"]);
        check(
            "10.0.0.1",
            "10.0.0.6",
            &["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"],
        );
        check("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &["::/0"]);
        check("fd00::1", "fd00::3", &["fd00::1/128", "fd00::2/127"]);
        let all = Family::V4.prefixes(&AddressSpan {
            first: [0, 0, 0, 1].into(),
            last: [255, 255, 255, 254].into(),
        });
        assert_eq!(all.count(), 62, "the most that a span of IPv4 can be");
    }

    #[test]
    fn ipv4_in_ipv6_is_no_prefix_of_its_own() {
        check("::ffff:10.0.0.0", "::ffff:10.0.0.255", &[]);
        check("::fffe:ffff:ffff", "::ffff:0:0", &["::fffe:ffff:ffff/128"]);
        check("::ffff:ffff:ffff", "::1:0:0:0", &["::1:0:0:0/128"]);
        check("::", "::ffff:ffff:ffff:ffff", &["::/64"]);
    }

    #[test]
    fn what_is_no_span_has_no_prefixes() {
        check("10.0.0.2", "10.0.0.1", &[]);
        check("10.0.0.2", "::1", &[]);
    }

    #[test]
    fn a_prefix_has_those_that_are_in_it() {
        let of = |lowest, bits| Prefix { lowest, bits };
        assert!(Family::V4.has(of(0, 0), of(0x0a00_0000, 8)));
        assert!(Family::V4.has(of(0x0a00_0000, 8), of(0x0aff_0000, 16)));
        assert!(!Family::V4.has(of(0x0aff_0000, 16), of(0x0a00_0000, 8)));
        assert!(!Family::V4.has(of(0x0a00_0000, 8), of(0x0b00_0000, 8)));
        assert!(Family::V6.has(of(0, 0), of(u128::MAX, 128)));
        assert!(!Family::V6.has(of(1, 128), of(0, 128)));
    }
}
