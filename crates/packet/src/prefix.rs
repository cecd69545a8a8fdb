//! Prefixes that stations route for, beside their own addresses: containers in a VM, a VPN, an
//! appliance.
//!
//! One map says for each network who routes for which prefix, for stations here and elsewhere: the
//! sender's host, the receiver's and a host behind a tunnel all decide by the same entry. Of several
//! prefixes that an address is in, the longest one counts, so that there is one owner at any time.
//! A prefix never makes a station another one: what is the address of a station is that station's
//! alone. Considered: a map by port beside one by network, as for addresses; the two would have to
//! agree.
//!
//! A prefix that is one address may be shared: several stations have it, one of which answers for it
//! at a time, as they agree among themselves (VRRP, RFC 9568). The map says that it is shared, and
//! `sharers` by whom. Who has it at the moment is the guests' affair, so what ARP and ND say of it
//! goes to all of the network.
//!
//! Addresses are looked up first. A packet from or to one costs what it would without prefixes; a
//! spoofed one costs a search more before it is dropped. The search reads a node for each branch of
//! the trie on its way, and none on a host in whose networks nobody has a prefix. Nobody answers ARP
//! or ND for an address in a prefix. A port asks as one where netloom alone hears it: machines of a
//! physical network would learn from the question, and nothing guards what they hold.

use crate::addr::{Addr, Mac};
use crate::kernel::Kernel;
use crate::layout::plain;
use crate::maps::{NeighKey, SharerKey};
use crate::parse::Packet;
use crate::port::PortHead;

plain! {
    /// Key of `behind`: a prefix, in the form that the kernel's trie wants. Made by
    /// [`PrefixKey::new`] and [`PrefixKey::of`].
    pub struct PrefixKey[28] {
        /// Bits that count, from `net` on.
        bits: u32,
        /// Number of the network.
        pub net: u32,
        /// 4 or 6: `::/0` has no IPv4 address in it, mapped as these are.
        family: u32,
        /// The lowest address.
        pub addr: Addr,
    }

    /// Value of `behind`: the station that routes for the prefix. Made by [`Behind::local`],
    /// [`Behind::remote`] and [`Behind::shared`].
    pub struct Behind[28] {
        /// MAC of the station; zero if several share it.
        pub mac: Mac,
        /// Zero.
        pad: [u8; 2],
        /// The VTEP of the host where it is; `::` on this host.
        pub vtep: Addr,
        /// MTU of its network in bytes, if it is on this host; 0 for no limit.
        pub mtu: u32,
    }
}

impl PrefixKey {
    /// Bits before those of the address: network and family.
    const FIXED_BITS: u32 = 64;
    /// Bits of a mapped address before those of the IPv4 address.
    const MAPPED_BITS: u32 = 96;

    /// The prefix of this many bits with this lowest address, in this network.
    #[must_use]
    pub const fn new(net: u32, addr: Addr, bits: u8) -> PrefixKey {
        let before = if addr.is_v4() { PrefixKey::MAPPED_BITS } else { 0 };
        let bits = PrefixKey::FIXED_BITS + before + bits as u32;
        PrefixKey { bits, ..PrefixKey::of(net, addr) }
    }

    /// What finds the longest prefix that an address is in.
    #[inline(always)]
    #[must_use]
    pub const fn of(net: u32, addr: Addr) -> PrefixKey {
        PrefixKey { bits: PrefixKey::FIXED_BITS + 128, net, family: family(&addr), addr }
    }

    /// Whether another key starts with all the bits of this one that count.
    #[must_use]
    pub fn covers(&self, other: &PrefixKey) -> bool {
        let number = |addr: &Addr| u128::from_be_bytes(addr.octets());
        let same = (number(&self.addr) ^ number(&other.addr)).leading_zeros();
        (self.net, self.family) == (other.net, other.family)
            && self.bits <= other.bits
            && self.bits <= PrefixKey::FIXED_BITS + same
    }

    /// Bits of the prefix; `None` if it is none of an address.
    #[must_use]
    pub fn prefix_bits(&self) -> Option<u8> {
        let (before, most) =
            if self.addr.is_v4() { (PrefixKey::MAPPED_BITS, 32) } else { (0, 128) };
        let bits = self.bits.checked_sub(PrefixKey::FIXED_BITS + before)?;
        let bits = u8::try_from(bits).ok().filter(|bits| *bits <= most)?;
        (self.family == family(&self.addr)).then_some(bits)
    }
}

/// [`PrefixKey::family`].
#[inline(always)]
const fn family(addr: &Addr) -> u32 {
    if addr.is_v4() { 4 } else { 6 }
}

impl Behind {
    /// The station with this MAC, on this host, in a network of this MTU.
    #[must_use]
    pub const fn local(mac: Mac, mtu: u32) -> Behind {
        Behind { mac, pad: [0; 2], vtep: Addr::UNSPECIFIED_V6, mtu }
    }

    /// The station with this MAC, on the host with this VTEP.
    #[must_use]
    pub const fn remote(mac: Mac, vtep: Addr) -> Behind {
        Behind { mac, pad: [0; 2], vtep, mtu: 0 }
    }
}

impl Behind {
    /// The stations that `sharers` names.
    #[must_use]
    pub const fn shared() -> Behind {
        Behind::local(Mac([0; 6]), 0)
    }

    /// Whether `sharers` says whose it is.
    #[inline(always)]
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.mac.same(Mac([0; 6]))
    }

    /// Whether the station with this MAC, on the host with this VTEP, routes for the address, which is
    /// behind this; then the MTU of its network, if it is here.
    #[inline(always)]
    fn of<K: Kernel>(&self, kernel: &K, at: &NeighKey, mac: Mac, vtep: &Addr) -> Option<u32> {
        let (owner, mtu) = if self.is_shared() {
            let key = SharerKey { net: at.net, mac, pad: [0; 2], addr: at.addr };
            let sharer = kernel.sharer(&key)?;
            (sharer.vtep, sharer.mtu)
        } else {
            if !self.mac.same(mac) {
                return None;
            }
            (self.vtep, self.mtu)
        };
        owner.same(vtep).then_some(mtu)
    }
}

/// One of the two ends of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Who routes for an address. One byte, because a BPF function returns no more than a register.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody.
    Nobody,
    /// The station that the frame names.
    Station,
    /// Another one, or it is the address of a station.
    Another,
}

/// Who routes for the address of one end, as seen from the station whose MAC the frame has for that
/// end: on the host with this VTEP, or on this one. A sender on this host is told its MTU.
///
/// A function of its own, for the sake of the stack.
#[inline(never)]
pub(crate) fn owner<K: Kernel>(
    kernel: &K,
    packet: &mut Packet,
    end: End,
    vtep: Option<&Addr>,
) -> Owner {
    let (net, addr, mac) = match end {
        End::Source => (packet.path.net_in, packet.source, packet.source_mac),
        End::Destination => (packet.path.net_out, packet.destination, packet.destination_mac),
    };
    if !addr.is_routed() {
        return Owner::Nobody;
    }
    let Some(behind) = kernel.behind(&PrefixKey::of(net, addr)) else { return Owner::Nobody };
    let key = NeighKey { net, addr };
    if kernel.neigh(&key).is_some() {
        return Owner::Another;
    }
    let Some(mtu) = behind.of(kernel, &key, mac, vtep.unwrap_or(&Addr::UNSPECIFIED_V6)) else {
        return Owner::Another;
    };
    if end == End::Source {
        packet.mtu = mtu;
    }
    Owner::Station
}

/// The station that routes for an address that no station has.
#[inline(always)]
pub(crate) fn router<K: Kernel>(kernel: &K, at: &NeighKey) -> Option<Mac> {
    if !at.addr.is_routed() {
        return None;
    }
    match kernel.behind(&PrefixKey::of(at.net, at.addr)) {
        Some(behind) if !behind.is_shared() => Some(behind.mac),
        _ => None,
    }
}

/// Whether a port routes for an address: what it may send packets from beside its own addresses.
#[inline(always)]
pub(crate) fn is_behind<K: Kernel>(kernel: &K, port: &PortHead, addr: Addr) -> bool {
    let key = NeighKey { net: port.net, addr };
    if !addr.is_routed() || kernel.neigh(&key).is_some() {
        return false;
    }
    match kernel.behind(&PrefixKey::of(port.net, addr)) {
        Some(behind) => behind.of(kernel, &key, port.mac, &Addr::UNSPECIFIED_V6).is_some(),
        None => false,
    }
}

/// Whether stations share the address: which of them answers for it, they say themselves.
#[inline(never)]
pub(crate) fn is_shared<K: Kernel>(kernel: &K, net: u32, addr: &Addr) -> bool {
    let behind = kernel.behind(&PrefixKey::of(net, *addr));
    behind.is_some_and(|behind| behind.is_shared())
        && kernel.neigh(&NeighKey { net, addr: *addr }).is_none()
}

/// Who shares an address, as a port sees it. One byte, as [`Owner`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharers {
    /// It is not shared.
    None,
    /// Others.
    Others,
    /// Others and the port.
    Port,
}

/// Whether the port shares the address, or others do. A function of its own, for the sake of the
/// stack.
#[inline(never)]
pub(crate) fn sharers<K: Kernel>(kernel: &K, port: &PortHead, addr: &Addr) -> Sharers {
    let at = NeighKey { net: port.net, addr: *addr };
    match kernel.behind(&PrefixKey::of(port.net, *addr)) {
        Some(behind) if behind.is_shared() && kernel.neigh(&at).is_none() => {
            match behind.of(kernel, &at, port.mac, &Addr::UNSPECIFIED_V6) {
                Some(_) => Sharers::Port,
                None => Sharers::Others,
            }
        }
        _ => Sharers::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;
    use proptest::prelude::*;

    fn key(text: &str, bits: u8) -> PrefixKey {
        let addr: IpAddr = text.parse().unwrap();
        PrefixKey::new(7, addr.into(), bits)
    }

    #[test]
    fn the_prefix_of_everything_is_of_one_family() {
        let (v4, v6) = (key("0.0.0.0", 0), key("::", 0));
        assert!(v4.covers(&key("192.0.2.1", 32)) && !v4.covers(&key("2001:db8::1", 128)));
        assert!(v6.covers(&key("2001:db8::1", 128)) && !v6.covers(&key("192.0.2.1", 32)));
        assert_eq!((v4.prefix_bits(), v6.prefix_bits()), (Some(0), Some(0)));
        assert!(!v4.covers(&PrefixKey { net: 8, ..key("192.0.2.1", 32) }));
    }

    proptest! {
        #[test]
        fn a_prefix_covers_what_its_first_bits_are_the_same_of(
            a in any::<IpAddr>(), b in any::<IpAddr>(), shared in 0..=128_u8, bits in 0..=128_u8,
        ) {
            // A mapped address is the IPv4 address.
            let (a, b) = (a.to_canonical(), b.to_canonical());
            // The second one starts like the first: two drawn by lot have hardly a bit in common.
            let b = match (a, b) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    let rest = u32::MAX.checked_shr(shared.into()).unwrap_or(0);
                    IpAddr::V4((u32::from(a) & !rest | u32::from(b) & rest).into())
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    let rest = u128::MAX.checked_shr(shared.into()).unwrap_or(0);
                    IpAddr::V6((u128::from(a) & !rest | u128::from(b) & rest).into())
                }
                _ => b,
            };
            let b = b.to_canonical();
            let text = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => format!("{:032b}", u32::from(ip)),
                IpAddr::V6(ip) => format!("{:0128b}", u128::from(ip)),
            };
            let bits = if a.is_ipv4() { bits.min(32) } else { bits };
            let prefix = PrefixKey::new(7, a.into(), bits);
            prop_assert_eq!(prefix.prefix_bits(), Some(bits));
            let starts = text(b).starts_with(&text(a)[..usize::from(bits)]);
            let is_inside = a.is_ipv4() == b.is_ipv4() && starts;
            prop_assert_eq!(prefix.covers(&PrefixKey::of(7, b.into())), is_inside);
        }
    }
}
