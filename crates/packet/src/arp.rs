//! ARP from a port (RFC 826, RFC 5227): answered here, in the frame itself, for addresses that
//! the model owns.
//!
//! A probe (sender 0.0.0.0) is never answered: the prober would give its own address up. Nothing
//! that a port says about itself is learned, nor passed on but to strangers in an open network.

use crate::addr::{Addr, Mac};
use crate::guard;
use crate::kernel::Kernel;
use crate::maps::{NeighKey, Port};
use crate::parse::ETHERNET_BYTES;
use crate::prefix;
use crate::reason::DropReason;
use crate::service::Answer;

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
/// open network what cannot be answered goes on.
#[inline(never)]
pub(crate) fn answer<K: Kernel>(
    kernel: &mut K,
    port: &Port,
    is_open: bool,
) -> Result<Answer, DropReason> {
    let arp = read(kernel)?;
    let Arp { sender, target, .. } = arp;
    if !arp.sender_mac.same(port.mac) {
        return Err(DropReason::SpoofedArpMac);
    }
    match unanswered(kernel, port, &arp, is_open) {
        None => {}
        Some(DropReason::ArpProbe) if is_open => {
            // Whoever is about to use an address gives it up when another one asks for it, too.
            let is_own = guard::allowed(kernel, port, &Addr::v4_word(target));
            return if is_own { Ok(Answer::None) } else { Err(DropReason::SpoofedArpAddress) };
        }
        Some(DropReason::SpoofedArpAddress) => return Err(DropReason::SpoofedArpAddress),
        Some(_) if is_open => return Ok(Answer::None),
        Some(reason) => return Err(reason),
    }
    let key = NeighKey { net: port.net, addr: Addr::v4_word(target) };
    let Some(neigh) = kernel.neigh(&key) else {
        return if is_open { Ok(Answer::None) } else { Err(DropReason::UnknownNeighbour) };
    };
    if write_reply(kernel, port.mac, neigh.mac, (sender, target)) {
        Ok(Answer::InPlace)
    } else {
        Err(DropReason::Malformed)
    }
}

/// Everything that is not answered, each with its reason.
#[inline(always)]
fn unanswered<K: Kernel>(kernel: &K, port: &Port, arp: &Arp, is_open: bool) -> Option<DropReason> {
    if arp.sender == 0 {
        return Some(DropReason::ArpProbe);
    }
    let sender = Addr::v4_word(arp.sender);
    let is_own = guard::allowed(kernel, port, &sender);
    if !is_own && (is_open || !prefix::is_behind(kernel, port, sender)) {
        return Some(DropReason::SpoofedArpAddress);
    }
    if arp.sender == arp.target {
        return Some(DropReason::GratuitousArp);
    }
    if arp.operation == REPLY {
        return Some(DropReason::UnsolicitedArpReply);
    }
    None
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
