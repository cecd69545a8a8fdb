//! Connection tracking, zoned by port: a connection is what one port sees of it.
//!
//! Two ports of one host that talk hold an entry each, so overlapping addresses and a neighbour's
//! table never matter. An entry caches the policy's verdict and the generation that gave it; a
//! new generation asks the policy again, from the view of whoever opened the connection.
//! Expiry is checked when an entry is touched; `slots` finds room for new ones. Nothing here
//! depends on the agent, and TCP sequence numbers are not checked.
//!
//! Several CPUs may work on one slot at once. Fields are words that are written whole, and every
//! mix of two writers' states is a state that either could have left: at worst a connection gets
//! the shorter timeout. The generation is written after the verdict, so a mix is re-evaluated.

use crate::kernel::{Direction, Kernel};
use crate::maps::{AddrKey, CtKey, CtSlot};
use crate::parse::{ICMP, ICMPV6, Packet, Role, TCP};
use crate::policy::{self, Question};
use crate::reason::DropReason;
use crate::transport::{ACK, FIN, RST, SYN};
use crate::{icmp_error, slots};

const SECOND: u64 = 1_000_000_000;

/// Opened, no answer yet. Linux: `nf_conntrack_tcp_timeout_syn_sent`.
pub const TCP_OPENING_NS: u64 = 120 * SECOND;
/// Idle. RFC 5382, REQ-5: not less than 2 hours 4 minutes.
pub const TCP_ESTABLISHED_NS: u64 = 7_440 * SECOND;
/// Being closed. RFC 5382, REQ-5: transitory, not less than 4 minutes.
pub const TCP_CLOSING_NS: u64 = 240 * SECOND;
/// Closed from both ends, or aborted. Linux: `nf_conntrack_tcp_timeout_close`. Short, because the
/// budget of a port over this time is how many connections a second it can make.
pub const TCP_CLOSED_NS: u64 = 10 * SECOND;
/// UDP without an answer. Linux: `nf_conntrack_udp_timeout`.
pub const UDP_OPENING_NS: u64 = 30 * SECOND;
/// UDP with answers. RFC 4787, REQ-5: not less than 2 minutes.
pub const UDP_ESTABLISHED_NS: u64 = 120 * SECOND;
/// ICMP echo. Linux: `nf_conntrack_icmp_timeout`.
pub const ICMP_NS: u64 = 30 * SECOND;
/// Any other protocol. Linux: `nf_conntrack_generic_timeout`.
pub const OTHER_NS: u64 = 600 * SECOND;

/// State of a connection. `Opening` -> `Established` at the first answer. TCP: `Closing` or
/// `Answering` at the first FIN, `Closed` at the other end's FIN or at an RST; from these three ->
/// `Opening` at a new SYN. Any -> free when it expires.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtState {
    /// The slot is not in use.
    Free = 0,
    /// Seen from one end only.
    Opening = 1,
    /// Seen from both ends.
    Established = 2,
    /// TCP only: the initiator is done.
    Closing = 3,
    /// TCP only: the other end is done.
    Answering = 4,
    /// TCP only: both ends are done, or one has aborted.
    Closed = 5,
    /// A CPU has taken the slot and is about to fill it: it is nobody's connection.
    Taken = 6,
}

impl CtState {
    /// Every state, by number.
    pub const ALL: [CtState; 7] = [
        CtState::Free,
        CtState::Opening,
        CtState::Established,
        CtState::Closing,
        CtState::Answering,
        CtState::Closed,
        CtState::Taken,
    ];

    /// The state with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<CtState> {
        CtState::ALL.get(usize::from(number)).copied()
    }

    /// The word for people and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CtState::Free => "free",
            CtState::Opening => "opening",
            CtState::Established => "established",
            CtState::Closing => "closing",
            CtState::Answering => "answering",
            CtState::Closed => "closed",
            CtState::Taken => "taken",
        }
    }
}

// Each at its number, and none missing: the last one is the last in the declaration, too.
const _: () = {
    let mut number = 0;
    while number < CtState::ALL.len() {
        assert!(CtState::ALL[number] as usize == number);
        number += 1;
    }
    assert!(CtState::ALL.len() == CtState::Taken as usize + 1);
};

/// The side of a port on which a packet is decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CtZone {
    /// Time of the packet.
    pub(crate) now_ns: u64,
    /// Number of the port.
    pub(crate) port: u32,
    /// Network of the port.
    pub(crate) net: u32,
    /// Network that the packet came from.
    pub(crate) source_net: u32,
    /// Generation of the port's policy.
    pub(crate) generation: u32,
    /// Most connections of the port.
    pub(crate) budget: u32,
    /// Which way the packet goes.
    pub(crate) direction: Direction,
}

/// Decides about a packet on one side of a port.
#[inline(always)]
pub(crate) fn decide<K: Kernel>(
    kernel: &mut K,
    packet: &Packet,
    zone: &CtZone,
) -> Result<(), DropReason> {
    match packet.role {
        Role::Opens | Role::Continues => track(kernel, packet, zone),
        Role::Error => icmp_error::related(kernel, packet, zone),
        Role::Unsupported => Err(DropReason::UnsupportedIcmp),
    }
}

/// Decides about a packet of a connection, and remembers it.
#[inline(never)]
fn track<K: Kernel>(kernel: &mut K, packet: &Packet, zone: &CtZone) -> Result<(), DropReason> {
    let key = key_of(packet, zone);
    if let Some(number) = kernel.ct_find(&key)
        && let Some(slot) = kernel.ct_slot(number)
        && is_live(slot, &key, zone.now_ns)
    {
        return established(slot, packet, zone);
    }
    if packet.role != Role::Opens {
        return Err(DropReason::NoConnection);
    }
    // Asked once a connection: a destination that the port does not have never gets an entry.
    // Else any peer could use up the port's budget with addresses of its own making.
    // What the port sends has been through the guard.
    if zone.direction == Direction::ToPort
        && !kernel.addr_allowed(&AddrKey { port: zone.port, addr: key.local })
    {
        return Err(DropReason::ForeignDestination);
    }
    if !policy::allows(question(zone.direction, zone.source_net, zone)) {
        return Err(DropReason::PolicyDenied);
    }
    slots::open(kernel, &key, zone)
}

/// The connection as the port sees it.
#[inline(always)]
fn key_of(packet: &Packet, zone: &CtZone) -> CtKey {
    let mut key = CtKey { port: zone.port, protocol: packet.protocol, ..CtKey::default() };
    match zone.direction {
        Direction::FromPort => {
            key.local = packet.source;
            key.local_port = packet.source_port;
            key.remote = packet.destination;
            key.remote_port = packet.destination_port;
        }
        Direction::ToPort => {
            key.local = packet.destination;
            key.local_port = packet.destination_port;
            key.remote = packet.source;
            key.remote_port = packet.source_port;
        }
    }
    key
}

/// Whether the slot holds this connection and it has not expired.
#[inline(always)]
pub(crate) fn is_live(slot: &CtSlot, key: &CtKey, now_ns: u64) -> bool {
    slot.state != CtState::Taken as u8 && slot.key.same(key) && !is_expired(slot, now_ns)
}

/// Whether the slot is free or its connection has been idle for too long. Of a slot that a CPU
/// has taken this says nothing.
///
/// The clocks of two CPUs may differ by a tick: a packet "from the future" is not idle.
#[inline(always)]
pub(crate) fn is_expired(slot: &CtSlot, now_ns: u64) -> bool {
    if slot.state == CtState::Free as u8 {
        return true;
    }
    let deadline = slot.last_seen_ns.wrapping_add(timeout_ns(slot.key.protocol, slot.state));
    now_ns > deadline
}

/// How long a connection may be idle.
#[inline(always)]
fn timeout_ns(protocol: u8, state: u8) -> u64 {
    let opening = state == CtState::Opening as u8;
    match protocol {
        TCP if opening => TCP_OPENING_NS,
        TCP if state == CtState::Closed as u8 => TCP_CLOSED_NS,
        TCP if state >= CtState::Closing as u8 => TCP_CLOSING_NS,
        TCP => TCP_ESTABLISHED_NS,
        crate::parse::UDP if opening => UDP_OPENING_NS,
        crate::parse::UDP => UDP_ESTABLISHED_NS,
        ICMP | ICMPV6 => ICMP_NS,
        _ => OTHER_NS,
    }
}

/// A packet of a connection that has an entry.
#[inline(always)]
fn established(slot: &mut CtSlot, packet: &Packet, zone: &CtZone) -> Result<(), DropReason> {
    let reopens = slot.state >= CtState::Closing as u8
        && packet.flags & (SYN | ACK | FIN | RST) == SYN
        && packet.protocol == TCP;
    if reopens {
        // The same ports again: a new connection, maybe opened by the other end. One that may not
        // be opened leaves no trace: the old one may still have its last packets to come.
        if !policy::allows(question(zone.direction, zone.source_net, zone)) {
            return Err(DropReason::PolicyDenied);
        }
        slot.initiator = zone.direction as u8;
        slot.source_net = zone.source_net;
        slot.state = CtState::Opening as u8;
        slot.allowed = 1;
        slot.generation = zone.generation;
    }
    let by_initiator = slot.initiator == zone.direction as u8;
    if slot.generation != zone.generation {
        let opened = if by_initiator { zone.direction } else { opposite(zone.direction) };
        let allowed = policy::allows(question(opened, slot.source_net, zone));
        slot.allowed = u8::from(allowed);
        slot.generation = zone.generation;
    }
    if slot.allowed == 0 {
        return Err(DropReason::PolicyDenied);
    }
    // The clock is coarse: most packets find their own time here, and leave the line clean.
    if slot.last_seen_ns != zone.now_ns {
        slot.last_seen_ns = zone.now_ns;
    }
    let next = next_state(slot.state, packet, by_initiator);
    if slot.state != next {
        slot.state = next;
    }
    Ok(())
}

/// The state after a packet.
#[inline(always)]
fn next_state(state: u8, packet: &Packet, by_initiator: bool) -> u8 {
    if packet.protocol == TCP && packet.flags & RST != 0 {
        return CtState::Closed as u8;
    }
    if packet.protocol == TCP && packet.flags & FIN != 0 {
        let (own, other) = match by_initiator {
            true => (CtState::Closing as u8, CtState::Answering as u8),
            false => (CtState::Answering as u8, CtState::Closing as u8),
        };
        return if state == other || state == CtState::Closed as u8 {
            CtState::Closed as u8
        } else {
            own
        };
    }
    if state == CtState::Opening as u8 && !by_initiator {
        return CtState::Established as u8;
    }
    state
}

#[inline(always)]
fn question(direction: Direction, source_net: u32, zone: &CtZone) -> Question {
    Question { direction, net: zone.net, source_net }
}

#[inline(always)]
fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::FromPort => Direction::ToPort,
        Direction::ToPort => Direction::FromPort,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_name_of_its_own() {
        let names = (0..=u8::MAX).map_while(CtState::from_number).map(CtState::name);
        let names: std::collections::BTreeSet<&str> = names.collect();
        assert_eq!(names.len(), CtState::ALL.len(), "{names:?}");
        assert!(names.contains("answering") && names.contains("closed"));
    }

    #[test]
    fn a_tcp_connection_is_closed_by_both_ends_or_by_one_that_aborts() {
        use CtState::{Answering, Closed, Closing, Established, Opening};
        let after = |state: CtState, flags: u8, by_initiator| {
            let packet = Packet { protocol: TCP, flags, ..Packet::default() };
            next_state(state as u8, &packet, by_initiator)
        };
        let cases = [
            (Opening, ACK, true, Opening),
            (Opening, SYN | ACK, false, Established),
            (Established, FIN | ACK, true, Closing),
            (Established, FIN | ACK, false, Answering),
            (Closing, FIN | ACK, true, Closing),
            (Closing, ACK, false, Closing),
            (Closing, FIN | ACK, false, Closed),
            (Answering, FIN | ACK, true, Closed),
            (Closed, FIN | ACK, true, Closed),
            (Established, RST, false, Closed),
            (Closing, RST | ACK, true, Closed),
        ];
        for (state, flags, by_initiator, expected) in cases {
            let seen = after(state, flags, by_initiator);
            assert_eq!(seen, expected as u8, "{state:?} {flags:#x} {by_initiator}");
        }
    }
}
