//! Addresses of guests, as the agent's own kernel sees them: unique, whichever tenant has which.
//!
//! An address of a port becomes an IPv6 address that carries the port's number and the address
//! itself, so who asks is known from it alone:
//!
//! ```text
//! fd4e | number of the port | way | 64 bits
//!  16          32              16
//! ```
//!
//! Way 4 is IPv4, way 6 the link-local prefix. Any other IPv6 address has its own 64 bits and, as
//! its way, the place of its /64 among those that were seen at its port: the only state there is.
//! A port has few places. One that uses more loses its own oldest connections, and nobody else's.
//! What the guest has asked at becomes an address under another prefix in the same way, since a
//! resolver has an address in each network.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Begins addresses of guests: unique local ones (RFC 4193). They are in a namespace of their own, where they
/// meet no others.
const GUEST: u16 = 0xfd4e;
/// Begins addresses at which guests ask.
const ASKED: u16 = 0xfd4f;
/// Both prefixes are so long.
pub(crate) const PREFIX_BITS: u8 = 16;

const WAY_IPV4: u16 = 4;
const WAY_LINK_LOCAL: u16 = 6;
/// The way of the first /64 of a port.
const WAY_FIRST: u16 = 0x100;
/// How many /64 of a port are remembered.
const PLACES: usize = 16;
/// fe80::/64.
const LINK_LOCAL: u64 = 0xfe80 << 48;

/// Which end of a connection an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest.
    Guest,
    /// What it asks.
    Asked,
}

impl End {
    const fn prefix(self) -> u16 {
        match self {
            Self::Guest => GUEST,
            Self::Asked => ASKED,
        }
    }

    /// The network of all such addresses.
    pub(crate) fn network(self) -> Ipv6Addr {
        Ipv6Addr::new(self.prefix(), 0, 0, 0, 0, 0, 0, 0)
    }
}

/// An address of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Of {
    pub(crate) end: End,
    /// The port's number.
    pub(crate) port: u32,
    pub(crate) ip: IpAddr,
}

/// The /64 that were seen, by the number of their port.
#[derive(Debug, Default)]
pub(crate) struct Ways(HashMap<u32, Places>);

#[derive(Debug, Default)]
struct Places {
    seen: Vec<u64>,
    /// The place that the next newcomer gets once all are taken.
    oldest: usize,
}

impl Ways {
    /// The unique address.
    pub(crate) fn inner(&mut self, of: Of) -> Ipv6Addr {
        let (way, rest) = match of.ip {
            IpAddr::V4(v4) => (WAY_IPV4, u64::from(v4.to_bits())),
            IpAddr::V6(v6) => {
                let [high, low] = halves(v6);
                match high == LINK_LOCAL {
                    true => (WAY_LINK_LOCAL, low),
                    false => (self.0.entry(of.port).or_default().place(high), low),
                }
            }
        };
        let prefix = u128::from(of.end.prefix()) << 112;
        (prefix | u128::from(of.port) << 80 | u128::from(way) << 64 | u128::from(rest)).into()
    }

    /// Whose address it is; `None` if nobody's, or of a /64 that is forgotten.
    pub(crate) fn outer(&self, inner: Ipv6Addr) -> Option<Of> {
        let end = match inner.segments()[0] {
            GUEST => End::Guest,
            ASKED => End::Asked,
            _ => return None,
        };
        let [_, low] = halves(inner);
        let (port, way) = (port_of(inner), inner.segments()[3]);
        let ip = match way {
            WAY_IPV4 => Ipv4Addr::from_bits(u32::try_from(low).ok()?).into(),
            WAY_LINK_LOCAL => join(LINK_LOCAL, low),
            _ => {
                let place = usize::from(way.checked_sub(WAY_FIRST)?);
                join(*self.0.get(&port)?.seen.get(place)?, low)
            }
        };
        Some(Of { end, port, ip })
    }

    /// Forgets the ports that are gone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.0.retain(|port, _| is_there(*port));
    }
}

impl Places {
    fn place(&mut self, prefix: u64) -> u16 {
        let place = match self.seen.iter().position(|seen| *seen == prefix) {
            Some(place) => place,
            None if self.seen.len() < PLACES => {
                self.seen.push(prefix);
                self.seen.len() - 1
            }
            None => {
                let place = self.oldest;
                self.seen[place] = prefix;
                self.oldest = (place + 1) % PLACES;
                place
            }
        };
        WAY_FIRST + u16::try_from(place).unwrap_or_default()
    }
}

/// The number of the port that a unique address is of.
pub(crate) fn port_of(inner: Ipv6Addr) -> u32 {
    let [_, high, low, ..] = inner.segments();
    u32::from(high) << 16 | u32::from(low)
}

/// What shares limits with a unique address: all of its port. The form is one that `seats` tells apart.
pub(crate) fn source(inner: IpAddr) -> IpAddr {
    match inner {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80)).into(),
        IpAddr::V4(_) => inner,
    }
}

fn halves(ip: Ipv6Addr) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h] = ip.segments().map(u64::from);
    [a << 48 | b << 32 | c << 16 | d, e << 48 | f << 32 | g << 16 | h]
}

fn join(high: u64, low: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ips() -> impl Strategy<Value = IpAddr> {
        let link_local = any::<u64>().prop_map(|low| join(LINK_LOCAL, low));
        prop_oneof![
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
            any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
            link_local,
        ]
    }

    proptest! {
        #[test]
        fn an_address_comes_back_and_is_no_others(
            first in (any::<u32>(), ips(), any::<bool>()),
            second in (any::<u32>(), ips(), any::<bool>()),
        ) {
            let mut ways = Ways::default();
            let of = [first, second].map(|(port, ip, is_guest)| {
                let end = if is_guest { End::Guest } else { End::Asked };
                Of { end, port, ip }
            });
            let inner = of.map(|of| ways.inner(of));
            for (of, inner) in of.into_iter().zip(inner) {
                prop_assert_eq!(ways.outer(inner), Some(of));
                prop_assert_eq!(port_of(inner), of.port);
                prop_assert_eq!(source(inner.into()) == source(ways.inner(of).into()), true);
            }
            prop_assert_eq!(inner[0] == inner[1], of[0] == of[1]);
            prop_assert_eq!(
                seats::source(source(inner[0].into())) == seats::source(source(inner[1].into())),
                of[0].port == of[1].port && of[0].end == of[1].end
            );
        }

        #[test]
        fn any_address_is_somebodys_or_nobodys(bits in any::<u128>()) {
            let _ = Ways::default().outer(Ipv6Addr::from_bits(bits));
        }
    }

    #[test]
    fn a_port_with_many_prefixes_loses_only_its_own() {
        let mut ways = Ways::default();
        let of = |port, prefix: u64| Of { end: End::Guest, port, ip: join(prefix, 1) };
        let other = ways.inner(of(7, 5));
        let first = ways.inner(of(1, 0));
        for prefix in 1..100 {
            let inner = ways.inner(of(1, prefix));
            assert_eq!(ways.outer(inner), Some(of(1, prefix)));
        }
        assert_eq!(ways.outer(other), Some(of(7, 5)));
        assert_ne!(ways.outer(first), Some(of(1, 0)));
        assert!(ways.0[&1].seen.len() <= PLACES);
        ways.retain(|port| port == 7);
        assert_eq!(ways.outer(first), None);
        assert_eq!(ways.outer(other), Some(of(7, 5)));
    }
}
