//! ARP from a port (RFC 826, RFC 5227): answered here, in the frame itself, for addresses that
//! the model owns.
//!
//! A probe (sender 0.0.0.0) is never answered: the prober would give its own address up. Nothing
//! that a port says about itself is learned or passed on.

use crate::addr::{Addr, Mac};
use crate::guard;
use crate::kernel::Kernel;
use crate::maps::{NeighKey, Port};
use crate::parse::ETHERNET_BYTES;
use crate::reason::DropReason;

/// Hardware type Ethernet, protocol type IPv4.
const ETHERNET_IPV4: u32 = 0x0001_0800;
/// Offsets in the frame.
const SENDER_MAC: u32 = ETHERNET_BYTES + 8;
const SENDER: u32 = ETHERNET_BYTES + 14;
const TARGET_MAC: u32 = ETHERNET_BYTES + 18;
const TARGET: u32 = ETHERNET_BYTES + 24;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Answers a request by turning the frame into the reply, which then goes back to the port.
#[inline(never)]
pub(crate) fn answer<K: Kernel>(kernel: &mut K, port: &Port) -> Result<(), DropReason> {
    let Some([target]) = kernel.load_words(TARGET) else { return Err(DropReason::Malformed) };
    let Some([kind, operation]) = kernel.load_words(ETHERNET_BYTES) else {
        return Err(DropReason::Malformed);
    };
    let Some(mac) = kernel.load(SENDER_MAC) else { return Err(DropReason::Malformed) };
    let Some([sender]) = kernel.load_words(SENDER) else { return Err(DropReason::Malformed) };
    let [hl, pl, op0, op1] = operation.to_ne_bytes();
    if u32::from_be(kind) != ETHERNET_IPV4 || hl != 6 || pl != 4 {
        return Err(DropReason::Malformed);
    }
    if !Mac(mac).same(port.mac) {
        return Err(DropReason::SpoofedArpMac);
    }
    check(kernel, port, u16::from_be_bytes([op0, op1]), (sender, target))?;

    let key = NeighKey { net: port.net, addr: Addr::v4_word(target) };
    let Some(neigh) = kernel.neigh(&key) else { return Err(DropReason::UnknownNeighbour) };
    if write_reply(kernel, port.mac, neigh.mac, (sender, target)) {
        Ok(())
    } else {
        Err(DropReason::Malformed)
    }
}

/// Everything that is not answered, each with its reason.
#[inline(always)]
fn check<K: Kernel>(
    kernel: &K,
    port: &Port,
    operation: u16,
    (sender, target): (u32, u32),
) -> Result<(), DropReason> {
    if operation != REQUEST && operation != REPLY {
        return Err(DropReason::Malformed);
    }
    if sender == 0 {
        return Err(DropReason::ArpProbe);
    }
    if !guard::allowed(kernel, port, &Addr::v4_word(sender)) {
        return Err(DropReason::SpoofedArpAddress);
    }
    if sender == target {
        return Err(DropReason::GratuitousArp);
    }
    if operation == REPLY {
        return Err(DropReason::UnsolicitedArpReply);
    }
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
