//! ARP from a port (RFC 826, RFC 5227): answered here, in the frame itself, for addresses that
//! the model owns.
//!
//! A probe (sender 0.0.0.0) is never answered: the prober would give its own address up. Nothing
//! that a port says about itself is learned, nor passed on but to strangers in an open network, or
//! if it is about an address that stations share.

use crate::addr::{Addr, Mac};
use crate::guard;
use crate::kernel::Kernel;
use crate::maps::NeighKey;
use crate::parse::{ETHERNET_BYTES, Packet};
use crate::port::PortHead;
use crate::prefix::{self, Sharers};
use crate::reason::DropReason;
use crate::service::{self, Answer};
use crate::sizes::SERVICE_MAC;

/// Hardware type Ethernet, protocol type IPv4.
const ETHERNET_IPV4: u32 = 0x0001_0800;
/// Offsets in the frame.
const SENDER_MAC: u32 = ETHERNET_BYTES + 8;
const SENDER: u32 = ETHERNET_BYTES + 14;
const TARGET_MAC: u32 = ETHERNET_BYTES + 18;
const TARGET: u32 = ETHERNET_BYTES + 24;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// What an ARP packet says. The addresses are words in memory order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arp {
    operation: u16,
    sender_mac: Mac,
    pub(crate) sender: u32,
    pub(crate) target: u32,
}

/// Reads it.
#[inline(always)]
pub(crate) fn read<K: Kernel>(kernel: &K) -> Result<Arp, DropReason> {
    let Some([target]) = kernel.load_words(TARGET) else { return Err(DropReason::Malformed) };
    let Some([kind, operation]) = kernel.load_words(ETHERNET_BYTES) else {
        return Err(DropReason::Malformed);
    };
    let Some(mac) = kernel.load(SENDER_MAC) else { return Err(DropReason::Malformed) };
    let Some([sender]) = kernel.load_words(SENDER) else { return Err(DropReason::Malformed) };
    let [hl, pl, op0, op1] = operation.to_ne_bytes();
    let operation = u16::from_be_bytes([op0, op1]);
    let is_ours = u32::from_be(kind) == ETHERNET_IPV4 && hl == 6 && pl == 4;
    if !is_ours || (operation != REQUEST && operation != REPLY) {
        return Err(DropReason::Malformed);
    }
    Ok(Arp { operation, sender_mac: Mac(mac), sender, target })
}

/// Answers a request by turning the frame into the reply, which then goes back to the port. In an
/// open network what cannot be answered goes on, and in each what is about a shared address.
#[inline(never)]
pub(crate) fn answer<K: Kernel>(
    kernel: &mut K,
    port: &PortHead,
    packet: &mut Packet,
) -> Result<Answer, DropReason> {
    let (is_open, arp) = (packet.path.net.is_open(), read(kernel)?);
    if !arp.sender_mac.same(port.mac) {
        return Err(DropReason::SpoofedArpMac);
    }
    // There, for the sake of the stack.
    packet.source = Addr::v4_word(arp.sender);
    packet.destination = Addr::v4_word(arp.target);
    let Packet { source: sender, destination: target, .. } = packet;
    if arp.sender == 0 {
        return probe(kernel, port, target, is_open);
    }
    let shares = prefix::sharers(kernel, port, sender) == Sharers::Port;
    let is_own = guard::allowed(kernel, port, sender);
    if !is_own && !shares && (is_open || !prefix::is_behind(kernel, port, *sender)) {
        return Err(DropReason::SpoofedArpAddress);
    }
    let says_where = arp.sender == arp.target || arp.operation == REPLY;
    if says_where && shares {
        return Ok(Answer::Shared);
    }
    if says_where {
        return match (is_open, arp.sender == arp.target) {
            (true, _) => Ok(Answer::None),
            (false, true) => Err(DropReason::GratuitousArp),
            (false, false) => Err(DropReason::UnsolicitedArpReply),
        };
    }
    let mac = match kernel.neigh(&NeighKey { net: port.net, addr: *target }) {
        Some(neigh) => neigh.mac,
        None => match (prefix::sharers(kernel, port, target), is_open) {
            (Sharers::Others | Sharers::Port, _) => return Ok(Answer::Shared),
            (Sharers::None, _) if service::has(kernel, port, target) => SERVICE_MAC,
            (Sharers::None, true) => return Ok(Answer::None),
            (Sharers::None, false) => return Err(DropReason::UnknownNeighbour),
        },
    };
    if write_reply(kernel, port.mac, mac, (arp.sender, arp.target)) {
        Ok(Answer::InPlace)
    } else {
        Err(DropReason::Malformed)
    }
}

/// A question without an address of the sender's. Whoever is about to use an address gives it up when
/// another one asks for it, too.
#[inline(always)]
fn probe<K: Kernel>(
    kernel: &K,
    port: &PortHead,
    target: &Addr,
    is_open: bool,
) -> Result<Answer, DropReason> {
    if prefix::sharers(kernel, port, target) == Sharers::Port {
        return Ok(Answer::Shared);
    }
    match (is_open, guard::allowed(kernel, port, target)) {
        (true, true) => Ok(Answer::None),
        (true, false) => Err(DropReason::SpoofedArpAddress),
        (false, _) => Err(DropReason::ArpProbe),
    }
}

/// Reads what a station of another host says or asks about an address into the packet: who, as
/// source, and what about, as destination.
#[inline(never)]
pub(crate) fn from_host<K: Kernel>(kernel: &K, packet: &mut Packet) -> Result<(), DropReason> {
    let arp = read(kernel)?;
    if !arp.sender_mac.same(packet.source_mac) {
        return Err(DropReason::SpoofedArpMac);
    }
    packet.destination = Addr::v4_word(arp.target);
    // Whoever probes an address speaks as it.
    packet.source = if arp.sender == 0 { packet.destination } else { Addr::v4_word(arp.sender) };
    Ok(())
}

/// Writes what differs between the request and its reply; addresses are words in memory order.
#[inline(always)]
fn write_reply<K: Kernel>(
    kernel: &mut K,
    asker: Mac,
    owner: Mac,
    (sender, target): (u32, u32),
) -> bool {
    let [h0, h1] = REPLY.to_be_bytes();
    kernel.store(0, &asker.0)
        && kernel.store(6, &owner.0)
        && kernel.store(ETHERNET_BYTES + 6, &[h0, h1])
        && kernel.store(SENDER_MAC, &owner.0)
        && kernel.store_words(SENDER, &[target])
        && kernel.store(TARGET_MAC, &asker.0)
        && kernel.store_words(TARGET, &[sender])
}
