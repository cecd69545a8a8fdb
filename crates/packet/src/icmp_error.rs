//! ICMP errors: they belong to the connection of the packet that they quote.
//!
//! Path MTU discovery and refused connections depend on them. An error is let through if the
//! port has the quoted connection, live and allowed; it opens and refreshes nothing. Of the errors
//! about one connection, seven a second are let through: whoever needs more than one gets it again.
//! The quote must hold the ports (RFC 792: IP header + 8 bytes); IPv6 extension headers in the
//! quote are not walked, such an error counts as unrelated. Sources: RFC 792, RFC 4443.

use crate::addr::Addr;
use crate::ct_word::tick;
use crate::kernel::{Direction, Kernel};
use crate::maps::{CtKey, CtSlot};
use crate::parse::{ICMP, ICMPV6, Packet, TCP, UDP};
use crate::reason::DropReason;
use crate::{conntrack, policy, slots, transport};

/// Bytes of an ICMP error before the quoted packet.
const ERROR_BYTES: u32 = 8;
/// A step of `CtSlot::error_step`, in bits of nanoseconds. One error a step.
const STEP_BITS: u32 = 27;

/// Lets an error pass that is about a connection of the port.
#[inline(never)]
pub(crate) fn related<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> Result<(), DropReason> {
    aim(kernel, packet)?;
    if !is_of_connection(kernel, packet) {
        return policy::unrelated(kernel, packet);
    }
    let Some(slot) = kernel.ct_slot(packet.room.found.number) else {
        return Err(DropReason::UnrelatedIcmpError);
    };
    if take_step(slot, packet.zone.now_ns) { Ok(()) } else { Err(DropReason::IcmpErrorRate) }
}

/// Whether the port has the connection in the packet's room, live and allowed.
#[inline(always)]
fn is_of_connection<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> bool {
    if !conntrack::set_spot(kernel, packet)
        || !slots::find(kernel, &mut packet.room, tick(packet.zone.now_ns))
    {
        return false;
    }
    let Some(slot) = kernel.ct_slot(packet.room.found.number) else { return false };
    packet.inquiry.verdict = u32::from(slot.allowed);
    if slot.generation != packet.zone.note {
        policy::renew(kernel, packet);
    }
    packet.inquiry.verdict == policy::ALLOWED
}

/// Whether nobody has had an error about the connection in this step yet.
#[inline(always)]
pub(crate) fn take_step(slot: &mut CtSlot, now_ns: u64) -> bool {
    let step = ((now_ns >> STEP_BITS | 0x8000) & 0xffff) as u16;
    let is_free = slot.error_step != step;
    slot.error_step = step;
    is_free
}

/// Puts the connection that the error is about, as the port sees it, into the packet's room.
#[inline(never)]
pub(crate) fn aim<K: Kernel>(kernel: &K, packet: &mut Packet) -> Result<(), DropReason> {
    let mut key = CtKey { zone: packet.zone.zone, ..CtKey::default() };
    let quote = packet.l4 + ERROR_BYTES;
    let l4 = if packet.protocol == ICMP {
        quoted_v4(kernel, quote, &mut key)?
    } else {
        quoted_v6(kernel, quote, &mut key)?
    };
    quoted_ports(kernel, l4, &mut key)?;
    // An error goes to whoever sent what it quotes. One that goes elsewhere is of somebody's own
    // making, and would reach an address that the port may not even have.
    if !packet.destination.same(&key.local) {
        return Err(DropReason::UnrelatedIcmpError);
    }
    // `key` is as the sender of the quoted packet sees it. An error that goes to the port quotes
    // what the port sent; an error from the port quotes what it received.
    if packet.zone.direction == Direction::FromPort {
        swap(&mut key);
    }
    packet.room.key = key;
    Ok(())
}

/// Reads the quoted IPv4 header; the offset of what follows, 0 for a later fragment.
#[inline(always)]
fn quoted_v4<K: Kernel>(kernel: &K, at: u32, key: &mut CtKey) -> Result<u32, DropReason> {
    let Some([start, identity, life, source, destination]) = kernel.load_words(at) else {
        return Err(DropReason::Malformed);
    };
    let [version_ihl, _, _, _] = start.to_ne_bytes();
    let [_, _, frag0, frag1] = identity.to_ne_bytes();
    let [_, protocol, _, _] = life.to_ne_bytes();
    if version_ihl >> 4 != 4 || version_ihl & 0x0f < 5 {
        return Err(DropReason::Malformed);
    }
    key.local = Addr::v4_word(source);
    key.remote = Addr::v4_word(destination);
    key.protocol = protocol;
    if u16::from_be_bytes([frag0, frag1]) & 0x1fff != 0 {
        return Ok(0);
    }
    Ok(at + u32::from(version_ihl & 0x0f) * 4)
}

/// Reads the quoted IPv6 header; the offset of what follows.
#[inline(always)]
fn quoted_v6<K: Kernel>(kernel: &K, at: u32, key: &mut CtKey) -> Result<u32, DropReason> {
    let Some([start, rest, s0, s1, s2, s3, d0, d1, d2, d3]) = kernel.load_words(at) else {
        return Err(DropReason::Malformed);
    };
    let [version, _, _, _] = start.to_ne_bytes();
    let [_, _, next, _] = rest.to_ne_bytes();
    if version >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    key.local = Addr::from_words([s0, s1, s2, s3]);
    key.remote = Addr::from_words([d0, d1, d2, d3]);
    key.protocol = next;
    Ok(at + 40)
}

/// Reads the ports, or the identifier of an echo, behind the quoted IP header.
#[inline(always)]
fn quoted_ports<K: Kernel>(kernel: &K, at: u32, key: &mut CtKey) -> Result<(), DropReason> {
    if at == 0 {
        return Ok(());
    }
    match key.protocol {
        TCP | UDP => {
            let Some([s0, s1, d0, d1]) = kernel.load::<4>(at) else {
                return Err(DropReason::Malformed);
            };
            key.local_port = u16::from_be_bytes([s0, s1]);
            key.remote_port = u16::from_be_bytes([d0, d1]);
        }
        ICMP | ICMPV6 => {
            let Some([kind, _, _, _, id0, id1]) = kernel.load::<6>(at) else {
                return Err(DropReason::Malformed);
            };
            let identifier = u16::from_be_bytes([id0, id1]);
            (key.local_port, key.remote_port) = transport::echo_ports(kind, identifier);
        }
        _ => {}
    }
    Ok(())
}

/// The same connection, seen from the other end.
#[inline(always)]
fn swap(key: &mut CtKey) {
    let (addr, port) = (key.local, key.local_port);
    key.local = key.remote;
    key.local_port = key.remote_port;
    key.remote = addr;
    key.remote_port = port;
}
