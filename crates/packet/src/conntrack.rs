//! Connection tracking, zoned by port: a connection is what one port sees of it.
//!
//! Two ports of one host that talk hold an entry each, so overlapping addresses and a neighbour's
//! table never matter. An entry caches the policy's verdict and the generation that gave it; a
//! new generation asks the policy again, from the view of whoever opened the connection.
//! An answer is what comes back to whoever opened: a SYN never is one, and an echo request has
//! another key than an echo reply. Established is what its opener went on with after an answer;
//! everything before that has a short time, and gives way. An ACK without an entry is taken for a
//! connection that the table has lost (as Linux does with `nf_conntrack_tcp_loose`). Nobody knows
//! who opened that, so it must be allowed whoever it was.
//! Expiry is checked when an entry is touched; `slots` finds room for new ones. Nothing here
//! depends on the agent, and TCP sequence numbers are not checked.
//!
//! Several CPUs may work on one entry at once. Its state is one word, changed by compare and swap:
//! a step that another CPU spoils is made anew, and after [`STEPS`] tries left to the next packet.
//! The other fields are written whole. The generation is written after the verdict, so a mix of
//! two writers is re-evaluated.

use crate::ct_word::{CtState, CtWord, tick};
use crate::kernel::{Direction, Kernel};
use crate::maps::{AddrKey, CtSlot};
use crate::parse::{Fragment, Packet, Role, TCP};
use crate::policy::{self, Question};
use crate::prefix::{End, Owner, owner};
use crate::reason::DropReason;
use crate::slots::{Found, Spot};
use crate::timeouts::deadline;
use crate::transport::{ACK, FIN, RST, SYN};
use crate::{fragments, icmp_error, slots};

/// How often a step is tried that other CPUs spoil.
const STEPS: u32 = 3;

/// The side of a port on which a packet is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CtZone {
    /// Time of the packet.
    pub(crate) now_ns: u64,
    /// Number of the port.
    pub(crate) port: u32,
    /// Its zone of the table.
    pub(crate) zone: u32,
    /// Its place, which says where its own area of the table is.
    pub(crate) place: u32,
    /// Network of the port.
    pub(crate) net: u32,
    /// Network that the packet came from.
    pub(crate) source_net: u32,
    /// Generation of the port's policy.
    pub(crate) generation: u32,
    /// Which way the packet goes.
    pub(crate) direction: Direction,
}

/// Decides about a packet on one side of a port. The room has the word as it is left, or zero if
/// others have changed it meanwhile.
#[inline(always)]
pub(crate) fn decide<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> Result<(), DropReason> {
    if packet.fragment == Fragment::Later {
        return fragments::follow(kernel, packet);
    }
    match packet.role {
        Role::Opens | Role::Continues => track(kernel, packet)?,
        Role::Error => icmp_error::related(kernel, packet)?,
        Role::Unsupported => return Err(DropReason::UnsupportedIcmp),
    }
    if packet.fragment == Fragment::First {
        fragments::remember(kernel, packet);
    }
    Ok(())
}

/// Decides about a packet of a connection, and remembers it.
#[inline(never)]
pub(crate) fn track<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> Result<(), DropReason> {
    aim(packet);
    if !set_spot(kernel, packet) {
        return Err(DropReason::ConntrackFull);
    }
    if slots::find(kernel, &mut packet.room, tick(packet.zone.now_ns)) {
        return known(kernel, packet);
    }
    if packet.role != Role::Opens {
        return Err(DropReason::NoConnection);
    }
    // Asked once a connection: a destination that the port does not have never gets an entry.
    // Else any peer could use up the port's room with addresses of its own making.
    // What the port sends has been through the guard.
    if packet.zone.direction == Direction::ToPort
        && !kernel.addr_allowed(&AddrKey { port: packet.zone.port, addr: packet.destination })
        && owner(kernel, packet, End::Destination, None) != Owner::Station
    {
        return Err(DropReason::ForeignDestination);
    }
    let Packet { zone, room, .. } = packet;
    let is_picked_up = packet.protocol == TCP && packet.flags & (SYN | ACK) == ACK;
    if !allows(zone.direction, is_picked_up, zone.source_net, zone) {
        return Err(DropReason::PolicyDenied);
    }
    slots::open(kernel, room, zone, is_picked_up)
}

/// Makes the room's spot that of its key; whether the port has any.
#[inline(never)]
pub(crate) fn set_spot<K: Kernel>(kernel: &K, packet: &mut Packet) -> bool {
    kernel.is_given();
    let Some(config) = kernel.config() else { return false };
    let peer = match packet.zone.direction {
        Direction::FromPort => packet.destination_mac,
        Direction::ToPort => packet.source_mac,
    };
    let Some(spot) = Spot::of(&config, &packet.room.key, packet.zone.place, peer) else {
        return false;
    };
    packet.room.spot = spot;
    true
}

/// Puts the packet's connection, as the port sees it, into its room.
#[inline(always)]
fn aim(packet: &mut Packet) {
    let key = &mut packet.room.key;
    key.zone = packet.zone.zone;
    key.protocol = packet.protocol;
    match packet.zone.direction {
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
}

/// A packet of a connection that has an entry.
#[inline(always)]
fn known<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> Result<(), DropReason> {
    let (found, zone) = (packet.room.found, &packet.zone);
    packet.room.found.word = CtWord(0);
    let Some(slot) = kernel.ct_slot(found.number) else { return Err(DropReason::NoConnection) };
    let opener = found.word.initiator();
    if packet.protocol == TCP && packet.flags & (SYN | ACK | FIN | RST) == SYN {
        let over = found.word.state() >= CtState::Closing as u8;
        // Of both ends, one opens. The other end's SYN is an opening of its own, of the same
        // ports again or of both ends at once (RFC 9293, 3.5), and needs to be allowed as such.
        if over || opener as u8 != zone.direction as u8 {
            // One that may not be opened leaves no trace: the old one may still have its last
            // packets to come.
            if !allows(zone.direction, false, zone.source_net, zone) {
                return Err(DropReason::PolicyDenied);
            }
            if over {
                slot.source_net = zone.source_net;
                slot.allowed = 1;
                slot.generation = zone.generation;
                packet.room.found.word = reopen(kernel, found, zone);
                return Ok(());
            }
        }
    }
    if slot.generation != zone.generation {
        let allowed = allows(opener, found.word.picked_up(), slot.source_net, zone);
        slot.allowed = u8::from(allowed);
        slot.generation = zone.generation;
    }
    if slot.allowed == 0 {
        return Err(DropReason::PolicyDenied);
    }
    packet.room.found.word = step(kernel, found, packet);
    Ok(())
}

/// Begins anew, by whoever sent the packet: its word then, or zero.
#[inline(always)]
fn reopen<K: Kernel>(kernel: &mut K, found: Found, zone: &CtZone) -> CtWord {
    let state = CtState::Opening;
    let until = deadline(kernel, tick(zone.now_ns), TCP, state as u8);
    let new = found.word.with_state(state).opened(zone.direction).until(until);
    // If another CPU was faster, it saw a packet of the same connection.
    if kernel.ct_swap(found.number, found.word.0, new.0) { new } else { CtWord(0) }
}

/// Moves on the connection in a way where an earlier packet has left this word: its word then, or
/// zero if it is not there any more, or others have been faster.
#[inline(never)]
pub(crate) fn follow<K: Kernel>(kernel: &mut K, packet: &Packet, number: u32, left: u64) -> u64 {
    kernel.is_given();
    let word = CtWord(kernel.ct_word(number));
    if !word.is_live(tick(packet.zone.now_ns)) || !word.same_hands(CtWord(left)) {
        return 0;
    }
    let next = after(kernel, word, packet);
    if next.0 == word.0 || kernel.ct_swap(number, word.0, next.0) { next.0 } else { 0 }
}

/// Moves the state and the deadline of a connection on: its word then, or zero if others have been
/// faster.
#[inline(always)]
fn step<K: Kernel>(kernel: &mut K, found: Found, packet: &Packet) -> CtWord {
    let mut seen = found.word;
    let mut tries = 0;
    while tries < STEPS {
        let next = after(kernel, seen, packet);
        // A tick is long: most packets find their own, and leave the line clean.
        if next.0 == seen.0 || kernel.ct_swap(found.number, seen.0, next.0) {
            return next;
        }
        seen = CtWord(kernel.ct_word(found.number));
        if !seen.same_hands(found.word) || !seen.is_live(tick(packet.zone.now_ns)) {
            break;
        }
        tries += 1;
    }
    CtWord(0)
}

/// The word after a packet.
#[inline(always)]
fn after<K: Kernel>(kernel: &K, seen: CtWord, packet: &Packet) -> CtWord {
    let by_initiator = seen.initiator() as u8 == packet.zone.direction as u8;
    let state = next_state(seen.state(), packet, by_initiator);
    let until = deadline(kernel, tick(packet.zone.now_ns), packet.protocol, state);
    let stays = state == seen.state();
    // Else a server's SYN+ACKs would keep alive what a peer never completes.
    let waits = packet.protocol == TCP && seen.is_half_open() && !by_initiator;
    match stays && waits {
        true => seen,
        false => seen.with_state_number(state).until(until),
    }
}

/// The state after a packet.
#[inline(always)]
fn next_state(state: u8, packet: &Packet, by_initiator: bool) -> u8 {
    let tcp = packet.protocol == TCP;
    if tcp && packet.flags & RST != 0 {
        return CtState::Closed as u8;
    }
    if tcp && packet.flags & FIN != 0 {
        let (own, other) = match by_initiator {
            true => (CtState::Closing as u8, CtState::Ending as u8),
            false => (CtState::Ending as u8, CtState::Closing as u8),
        };
        return if state == other || state == CtState::Closed as u8 {
            CtState::Closed as u8
        } else {
            own
        };
    }
    let answers = !by_initiator && (!tcp || packet.flags & ACK != 0);
    if state == CtState::Opening as u8 && answers {
        return CtState::Answered as u8;
    }
    let goes_on = by_initiator && (!tcp || packet.flags & (SYN | ACK) == ACK);
    if state == CtState::Answered as u8 && goes_on {
        return CtState::Established as u8;
    }
    state
}

/// Whether the policy allows a connection that this side opened; of one that was picked up,
/// whichever side it was.
#[inline(always)]
fn allows(opener: Direction, picked_up: bool, source_net: u32, zone: &CtZone) -> bool {
    let ask = |direction| policy::allows(Question { direction, net: zone.net, source_net });
    ask(opener) && (!picked_up || ask(opposite(opener)))
}

#[inline(always)]
fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::FromPort => Direction::ToPort,
        Direction::ToPort => Direction::FromPort,
    }
}

/// Whether a verdict is one that holds now. One of an older generation may be wrong; the next
/// packet of the connection re-evaluates it.
#[inline(always)]
pub(crate) fn is_allowed(slot: &CtSlot, zone: &CtZone) -> bool {
    slot.allowed != 0 && slot.generation == zone.generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::UDP;

    #[test]
    fn a_connection_goes_on_by_what_each_end_sends() {
        use CtState::{Answered, Closed, Closing, Ending, Established, Opening};
        let after = |state: CtState, (protocol, flags), by_initiator| {
            let packet = Packet { protocol, flags, ..Packet::default() };
            next_state(state as u8, &packet, by_initiator)
        };
        let tcp = |flags| (TCP, flags);
        let cases = [
            (Opening, tcp(ACK), true, Opening),
            (Opening, tcp(SYN | ACK), false, Answered),
            (Opening, tcp(SYN), false, Opening),
            (Answered, tcp(SYN | ACK), false, Answered),
            (Answered, tcp(ACK), false, Answered),
            (Answered, tcp(SYN), true, Answered),
            (Answered, tcp(SYN | ACK), true, Answered),
            (Answered, tcp(ACK), true, Established),
            (Established, tcp(FIN | ACK), true, Closing),
            (Established, tcp(FIN | ACK), false, Ending),
            (Closing, tcp(FIN | ACK), true, Closing),
            (Closing, tcp(ACK), false, Closing),
            (Closing, tcp(FIN | ACK), false, Closed),
            (Ending, tcp(FIN | ACK), true, Closed),
            (Closed, tcp(FIN | ACK), true, Closed),
            (Established, tcp(RST), false, Closed),
            (Closing, tcp(RST | ACK), true, Closed),
            (Opening, (UDP, 0), true, Opening),
            (Opening, (UDP, 0), false, Answered),
            (Answered, (UDP, 0), false, Answered),
            (Answered, (UDP, 0), true, Established),
        ];
        for (state, packet, by_initiator, expected) in cases {
            let seen = after(state, packet, by_initiator);
            assert_eq!(seen, expected as u8, "{state:?} {packet:?} {by_initiator}");
        }
    }
}
