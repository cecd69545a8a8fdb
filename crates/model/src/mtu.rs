//! MTUs, all in bytes without an Ethernet header: how much of an underlay's is left inside a network,
//! and how much an underlay must have. Written here only; control, agent and lab all ask here.

use std::{fmt, net::IpAddr};

/// MTU of a physical network, and of the underlay that tunnels are meant for (ZStack's default).
pub const UNDERLAY: u32 = 1500;

/// The headers between an outer IP header and the inner packet: UDP (RFC 768), VXLAN (RFC 7348), and
/// the inner frame's Ethernet header.
const UDP_VXLAN_ETHERNET: u32 = 8 + 8 + 14;
/// The same of GRE with a key (RFC 2890).
const GRE_ETHERNET: u32 = 8 + 14;
/// An IEEE 802.1Q tag of the inner frame.
const TAG: u32 = 4;

/// The version of the internet protocol of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// RFC 791.
    Ipv4,
    /// RFC 8200.
    Ipv6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    const fn header(self) -> u32 {
        match self {
            Self::Ipv4 => 20,
            Self::Ipv6 => 40,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// What is put around a packet of a network on its way over the underlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Around {
    bytes: u32,
}

impl Around {
    /// Nothing: the network is the underlay. A tag on the underlay's own frames is no part of an MTU.
    pub const NOTHING: Self = Self { bytes: 0 };

    /// VXLAN between VTEPs of this family: 50 or 70 bytes.
    #[must_use]
    pub const fn vxlan(vteps: Family) -> Self {
        Self { bytes: vteps.header() + UDP_VXLAN_ETHERNET }
    }

    /// GRE between VTEPs of this family: 42 bytes of IPv4.
    #[must_use]
    pub const fn gre(vteps: Family) -> Self {
        Self { bytes: vteps.header() + GRE_ETHERNET }
    }

    /// The same, around frames that have an IEEE 802.1Q tag.
    #[must_use]
    pub const fn with_tag(self) -> Self {
        Self { bytes: self.bytes + TAG }
    }

    /// How many bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.bytes
    }

    /// The MTU inside, over an underlay of this MTU.
    #[must_use]
    pub const fn inside(self, underlay: u32) -> u32 {
        underlay.saturating_sub(self.bytes)
    }

    /// The MTU that an underlay must have, for this one inside.
    #[must_use]
    pub const fn needed(self, inside: u32) -> u32 {
        inside.saturating_add(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_is_what_the_headers_leave() {
        let (v4, v6) = (Around::vxlan(Family::Ipv4), Around::vxlan(Family::Ipv6));
        let cases = [
            (Around::NOTHING, 1500, 1500),
            (v4, 1500, 1450),
            (v6, 1500, 1430),
            (v4.with_tag(), 1500, 1446),
            (v6.with_tag(), 1500, 1426),
            (v4, 9000, 8950),
            (v6, 60, 0),
            (Around::gre(Family::Ipv4), 1500, 1458),
        ];
        for (around, underlay, inside) in cases {
            assert_eq!(around.inside(underlay), inside, "{around:?} {underlay}");
        }
        for around in [Around::NOTHING, v4, v6, v6.with_tag()] {
            assert_eq!(around.needed(around.inside(UNDERLAY)), UNDERLAY);
        }
    }
}
