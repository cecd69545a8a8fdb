//! Link and network addresses as the data plane holds them: bytes in network order.
//!
//! An IPv4 address is an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2), so that every map and
//! every stage knows one kind of address. Nothing here parses or prints for people beyond what
//! `core::net` does.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of every station (IEEE 802.3).
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether the group bit is set: multicast or broadcast.
    #[inline(always)]
    #[must_use]
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether both are the same address, without a call to `memcmp`, which BPF lacks.
    #[inline(always)]
    #[must_use]
    pub fn same(self, other: Mac) -> bool {
        let (a, b) = (self.0, other.0);
        let mut diff = 0;
        let mut i = 0;
        while i < 6 {
            diff |= a[i] ^ b[i];
            i += 1;
        }
        diff == 0
    }
}

/// An IPv4 (mapped) or IPv6 address.
///
/// Held as four words whose memory is the address in network order: the BPF compiler moves words
/// where it would move sixteen single bytes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr([u32; 4]);

impl Addr {
    /// `::`, the IPv6 unspecified address.
    pub const UNSPECIFIED_V6: Addr = Addr([0; 4]);

    /// The mapped form of an IPv4 address given as its four octets.
    #[inline(always)]
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Addr {
        Addr::v4_word(u32::from_ne_bytes(octets))
    }

    /// The mapped form of an IPv4 address given as a word in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(word: u32) -> Addr {
        Addr([0, 0, 0xffff_u32.to_be(), word])
    }

    /// An IPv6 address given as its sixteen octets.
    #[inline(always)]
    #[must_use]
    pub const fn v6(octets: [u8; 16]) -> Addr {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = octets;
        Addr([
            u32::from_ne_bytes([a0, a1, a2, a3]),
            u32::from_ne_bytes([b0, b1, b2, b3]),
            u32::from_ne_bytes([c0, c1, c2, c3]),
            u32::from_ne_bytes([d0, d1, d2, d3]),
        ])
    }

    /// The address as sixteen octets.
    #[inline(always)]
    #[must_use]
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let [a0, a1, a2, a3] = a.to_ne_bytes();
        let [b0, b1, b2, b3] = b.to_ne_bytes();
        let [c0, c1, c2, c3] = c.to_ne_bytes();
        let [d0, d1, d2, d3] = d.to_ne_bytes();
        [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]
    }

    /// The address that these words are, in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 4]) -> Addr {
        Addr(words)
    }

    /// The address as four words in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// The octets of an IPv4 address, `None` for IPv6.
    #[inline(always)]
    #[must_use]
    pub const fn as_v4(&self) -> Option<[u8; 4]> {
        if self.is_v4() { Some(self.0[3].to_ne_bytes()) } else { None }
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] | self.0[1] | (self.0[2] ^ 0xffff_u32.to_be()) == 0
    }

    /// Whether both are the same address.
    #[inline(always)]
    #[must_use]
    pub const fn same(&self, other: &Addr) -> bool {
        let (a, b) = (self.0, other.0);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }

    /// Whether this is `0.0.0.0` or `::`.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        self.same(&Addr::UNSPECIFIED_V6) || self.same(&Addr::v4([0; 4]))
    }

    /// Whether packets from other networks may come from it: it is the address of one end, and one
    /// that is known beyond a link (RFC 6890, 2.2).
    #[inline(always)]
    #[must_use]
    pub const fn is_routed(&self) -> bool {
        let [first, second, _, _] = self.0[if self.is_v4() { 3 } else { 0 }].to_ne_bytes();
        if self.is_v4() {
            return !matches!((first, second), (0 | 127 | 224.., _) | (169, 254));
        }
        let is_local = first == 0xfe && second & 0xc0 == 0x80;
        let is_of_none = self.0[0] | self.0[1] | self.0[2] | (self.0[3] & !1_u32.to_be()) == 0;
        first != 0xff && !is_local && !is_of_none
    }

    /// Whether it is an IPv6 link-local address (RFC 4291, 2.5.6).
    #[inline(always)]
    #[must_use]
    pub const fn is_link_local(&self) -> bool {
        self.0[0] & 0xffc0_0000_u32.to_be() == 0xfe80_0000_u32.to_be()
    }

    /// The MAC of which RFC 4291, appendix A would derive the address, if it is derived of one.
    #[inline(always)]
    #[must_use]
    pub const fn eui64_mac(&self) -> Mac {
        let [a, b, c, _] = self.0[2].to_ne_bytes();
        let [_, d, e, f] = self.0[3].to_ne_bytes();
        Mac([a ^ 2, b, c, d, e, f])
    }

    /// The IPv6 link-local address that RFC 4291, appendix A (modified EUI-64) derives from a MAC.
    #[inline(always)]
    #[must_use]
    pub const fn link_local(mac: Mac) -> Addr {
        let [a, b, c, d, e, f] = mac.0;
        Addr::v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Addr {
        match address {
            IpAddr::V4(v4) => Addr::v4(v4.octets()),
            IpAddr::V6(v6) => Addr::v6(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> IpAddr {
        match address.as_v4() {
            Some(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
            None => IpAddr::V6(Ipv6Addr::from(address.octets())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_turn_back_into_ipv4() {
        for text in ["10.1.2.3", "0.0.0.0", "2001:db8::1", "::", "fe80::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(address)), address);
        }
    }

    #[test]
    fn an_address_of_a_link_or_of_many_is_not_routed() {
        let is_routed = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap()).is_routed();
        for text in ["1.0.0.0", "10.0.0.1", "169.253.0.1", "223.255.255.255", "::2", "fd00::1"] {
            assert!(is_routed(text), "{text}");
        }
        for text in ["fec0::1", "2001:db8::", "0:0:1::"] {
            assert!(is_routed(text), "{text}");
        }
        for text in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.5"] {
            assert!(!is_routed(text), "{text}");
        }
        for text in ["255.255.255.255", "::", "::1", "fe80::1", "febf::1", "ff02::1"] {
            assert!(!is_routed(text), "{text}");
        }
    }

    #[test]
    fn link_local_is_the_modified_eui_64() {
        let derived = Addr::link_local(Mac([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]));
        assert_eq!(IpAddr::from(derived).to_string(), "fe80::11:22ff:fe33:4455");
        assert_eq!(derived.eui64_mac(), Mac([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]));
    }
}
