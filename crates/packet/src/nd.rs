//! IPv6 neighbour discovery from a port (RFC 4861): answered here, in the frame itself.
//!
//! A duplicate address detection probe (source `::`, RFC 4862) is never answered. Router
//! discovery and multicast listener reports end here, each with its own reason, unless the network
//! is an open one: nothing in a closed network listens for them yet.

use crate::addr::{Addr, Mac};
use crate::checksum::Checksum;
use crate::fdb::FdbKey;
use crate::guard;
use crate::kernel::Kernel;
use crate::maps::NeighKey;
use crate::parse::{ETHERNET_BYTES, ETHERTYPE_IPV6, Fragment, ICMPV6, Packet};
use crate::port::PortHead;
use crate::prefix::{self, Sharers};
use crate::reason::DropReason;
use crate::service::{self, Answer};
use crate::sizes::SERVICE_MAC;

pub(crate) const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Bytes of a neighbour advertisement, with and without the link-layer address option.
const WITH_OPTION: u16 = 32;
const WITHOUT_OPTION: u16 = 24;
/// Offset of the ICMPv6 message; extension headers are refused.
const MESSAGE: u32 = ETHERNET_BYTES + 40;
/// Solicited and override (RFC 4861, 4.4).
const FLAGS: u8 = 0x60;

/// Whether the packet is link-scope signalling, which is never forwarded.
#[inline(always)]
pub(crate) fn is_signalling(packet: &Packet) -> bool {
    packet.protocol == ICMPV6
        && packet.ethertype == ETHERTYPE_IPV6
        && packet.fragment != Fragment::Later
        && matches!(packet.flags, ROUTER_SOLICITATION..=REDIRECT | 130..=132 | 143)
}

/// Answers a neighbour solicitation by turning the frame into the advertisement. In an open network
/// what cannot be answered goes on, but for what only a router says; in each network what is about a
/// shared address.
#[inline(never)]
pub(crate) fn answer<K: Kernel>(
    kernel: &mut K,
    port: &PortHead,
    packet: &mut Packet,
) -> Result<Answer, DropReason> {
    let is_open = packet.path.net.is_open();
    match packet.flags {
        NEIGHBOUR_SOLICITATION => {}
        NEIGHBOUR_ADVERTISEMENT => return speaks_for_itself(kernel, port, packet, is_open),
        ROUTER_ADVERTISEMENT | REDIRECT => return Err(DropReason::RogueRouter),
        _ if is_open => return asks_for_itself(kernel, port, packet),
        ROUTER_SOLICITATION => return Err(DropReason::RouterSolicitation),
        _ => return Err(DropReason::MulticastListener),
    }
    if !is_plain(packet) {
        return Err(DropReason::Malformed);
    }
    let Some(target) = kernel.load_words(MESSAGE + 8) else { return Err(DropReason::Malformed) };
    // There, for the sake of the stack.
    packet.destination = Addr::from_words(target);
    let target = &packet.destination;
    if packet.source.is_unspecified() {
        return match (prefix::sharers(kernel, port, target), is_open) {
            (Sharers::Port, _) => Ok(Answer::Shared),
            (_, true) if is_own(kernel, port, target) => Ok(Answer::None),
            _ => Err(DropReason::NdProbe),
        };
    }
    // Where nobody but netloom hears it, it may call itself on the link what it likes (RFC 7217).
    let is_unheard = !is_open || service::has(kernel, port, target);
    let may_be_any = packet.source.is_link_local() && is_unheard;
    if !may_be_any
        && !is_own(kernel, port, &packet.source)
        && prefix::sharers(kernel, port, &packet.source) != Sharers::Port
        && (is_open || !prefix::is_behind(kernel, port, packet.source))
    {
        return Err(DropReason::SpoofedAddress);
    }
    let mac = match kernel.neigh(&NeighKey { net: port.net, addr: *target }) {
        Some(neigh) => neigh.mac,
        None => match (prefix::sharers(kernel, port, target), is_open) {
            (Sharers::Others | Sharers::Port, _) => return Ok(Answer::Shared),
            (Sharers::None, _) if service::has(kernel, port, target) => SERVICE_MAC,
            // A router's, for one: what routers advertise comes from there.
            (Sharers::None, false) if is_derived(kernel, port, target) => target.eui64_mac(),
            (Sharers::None, true) => return Ok(Answer::None),
            (Sharers::None, false) => return Err(DropReason::UnknownNeighbour),
        },
    };
    let length = reply_length(packet)?;
    if write_reply(kernel, packet, (&mac, length)) {
        Ok(Answer::InPlace)
    } else {
        Err(DropReason::Malformed)
    }
}

/// Reads what a station of another host says or asks about an address into the packet: what about, as
/// destination; and who says it, as source, if the packet is not from there already.
#[inline(never)]
pub(crate) fn from_host<K: Kernel>(kernel: &K, packet: &mut Packet) -> Result<(), DropReason> {
    if !matches!(packet.flags, NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT) {
        return Err(DropReason::NeighbourFromTunnel);
    }
    if !is_plain(packet) {
        return Err(DropReason::Malformed);
    }
    let Some(target) = kernel.load_words(MESSAGE + 8) else { return Err(DropReason::Malformed) };
    packet.destination = Addr::from_words(target);
    // Whoever advertises it, or probes it, speaks as it.
    if packet.flags == NEIGHBOUR_ADVERTISEMENT || packet.source.is_unspecified() {
        packet.source = packet.destination;
    }
    Ok(())
}

/// Whether it is as it has to be: RFC 6980 forbids fragmented ND; extension headers have no use
/// here either.
#[inline(always)]
fn is_plain(packet: &Packet) -> bool {
    packet.l4 == MESSAGE && packet.fragment == Fragment::Whole && packet.hop_limit == 255
}

/// Whether it is the link-local address of the MAC of a station.
#[inline(always)]
fn is_derived<K: Kernel>(kernel: &K, port: &PortHead, target: &Addr) -> bool {
    let mac = target.eui64_mac();
    target.same(&Addr::link_local(mac)) && kernel.fdb(&FdbKey::new(port.net, mac)).is_some()
}

/// Whether it is an address of the port, be it by its MAC.
#[inline(always)]
fn is_own<K: Kernel>(kernel: &K, port: &PortHead, addr: &Addr) -> bool {
    guard::allowed(kernel, port, addr) || addr.same(&Addr::link_local(port.mac))
}

/// A port asks for routers and reports what it listens to by its own address, or as long as it has
/// none.
#[inline(always)]
fn asks_for_itself<K: Kernel>(
    kernel: &K,
    port: &PortHead,
    packet: &Packet,
) -> Result<Answer, DropReason> {
    match packet.source.is_unspecified() || is_own(kernel, port, &packet.source) {
        true => Ok(Answer::None),
        false => Err(DropReason::SpoofedAddress),
    }
}

/// A port advertises none but its own addresses, those that it shares among them.
#[inline(always)]
fn speaks_for_itself<K: Kernel>(
    kernel: &K,
    port: &PortHead,
    packet: &Packet,
    is_open: bool,
) -> Result<Answer, DropReason> {
    let Some(target) = kernel.load_words(MESSAGE + 8) else { return Err(DropReason::Malformed) };
    let target = Addr::from_words(target);
    let shares = prefix::sharers(kernel, port, &target) == Sharers::Port;
    if !is_open && !shares {
        return Err(DropReason::UnsolicitedNeighbourAdvertisement);
    }
    if !is_plain(packet) {
        return Err(DropReason::Malformed);
    }
    let speaks_as_it = shares && packet.source.same(&target);
    if !speaks_as_it && !is_own(kernel, port, &packet.source) {
        return Err(DropReason::SpoofedAddress);
    }
    match (shares, is_own(kernel, port, &target)) {
        (true, _) => Ok(Answer::Shared),
        (false, true) => Ok(Answer::None),
        (false, false) => Err(DropReason::SpoofedAddress),
    }
}

/// Whose MAC a neighbour solicitation asks for.
#[inline(always)]
pub(crate) fn solicited<K: Kernel>(kernel: &K, packet: &Packet) -> Option<Addr> {
    if packet.flags != NEIGHBOUR_SOLICITATION || !is_plain(packet) {
        return None;
    }
    kernel.load_words(MESSAGE + 8).map(Addr::from_words)
}

/// Bytes of the reply: a frame cannot grow here, so the option is left out where RFC 4861, 7.2.4
/// allows it, in answer to a unicast solicitation.
#[inline(always)]
fn reply_length(packet: &Packet) -> Result<u16, DropReason> {
    if packet.end >= MESSAGE + u32::from(WITH_OPTION) {
        return Ok(WITH_OPTION);
    }
    if packet.end < MESSAGE + u32::from(WITHOUT_OPTION) || packet.destination_mac.is_group() {
        return Err(DropReason::Malformed);
    }
    Ok(WITHOUT_OPTION)
}

/// A function of its own, for the sake of the stack.
#[inline(never)]
fn write_reply<K: Kernel>(kernel: &mut K, packet: &Packet, (mac, length): (&Mac, u16)) -> bool {
    let target = &packet.destination;
    let [m0, m1, m2, m3, m4, m5] = mac.0;
    let [l0, l1] = length.to_be_bytes();
    let option = [u32::from_ne_bytes([2, 1, m0, m1]), u32::from_ne_bytes([m2, m3, m4, m5])];
    let mut sum = Checksum::new();
    sum.add(&target.words()); // source of the reply: the address that was asked for
    sum.add(&packet.source.words());
    sum.add(&[u32::from_ne_bytes([l0, l1, 0, ICMPV6])]);
    sum.add(&[u32::from_ne_bytes([NEIGHBOUR_ADVERTISEMENT, 0, FLAGS, 0])]);
    sum.add(&target.words());
    if length == WITH_OPTION {
        sum.add(&option);
    }
    let [c0, c1] = sum.finish();
    kernel.store(0, &packet.source_mac.0)
        && kernel.store(6, &mac.0)
        && kernel.store(ETHERNET_BYTES, &[0x60, 0, 0, 0, l0, l1, ICMPV6, 255])
        && kernel.store_words(ETHERNET_BYTES + 8, &target.words())
        && kernel.store_words(ETHERNET_BYTES + 24, &packet.source.words())
        && kernel.store(MESSAGE, &[NEIGHBOUR_ADVERTISEMENT, 0, c0, c1, FLAGS, 0, 0, 0])
        && kernel.store_words(MESSAGE + 8, &target.words())
        && (length == WITHOUT_OPTION || kernel.store_words(MESSAGE + 24, &option))
}
