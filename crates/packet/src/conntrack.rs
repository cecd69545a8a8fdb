//! Connection tracking, zoned by port: a connection is what one port sees of it.
//!
//! Two ports of one host that talk hold an entry each, so overlapping addresses and a neighbour's
//! table never matter. An entry caches the policy's verdict and the generation that gave it; a
//! new generation asks the policy again, from the view of whoever opened the connection; where the
//! policy names groups, so does a change of their members, if the other end is in others now.
//! What a stateless rule decides about has no entry.
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
use crate::kernel::{Concerned, Direction, Kernel};
use crate::maps::{AddrKey, Config, CtSlot, Port};
use crate::parse::{Fragment, Packet, Role, TCP};
use crate::policy;
use crate::port::PortPolicy;
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
    /// [`CtSlot::generation`] of what is decided now. Set with the room's spot.
    pub(crate) note: u32,
    /// [`CtSlot::rule`] and [`CtSlot::identity`] of it. Set by the policy.
    pub(crate) rule: u32,
    pub(crate) basis: u32,
    /// 1 if the packet has opened a connection.
    pub(crate) opened: u32,
    /// The port's policy.
    pub(crate) policy: PortPolicy,
    /// Which way the packet goes.
    pub(crate) direction: Direction,
}

impl CtZone {
    /// Whether the port's rule sets have any of this.
    #[inline(always)]
    pub(crate) const fn has(&self, what: u32) -> bool {
        self.policy.rules & what != 0
    }

    /// Its port, as something is counted under it.
    #[inline(always)]
    pub(crate) const fn concerned(&self) -> Concerned {
        Concerned { number: self.port, place: self.place }
    }

    /// Number of the rule set for the way that the packet goes.
    #[inline(always)]
    pub(crate) const fn ruleset(&self) -> u64 {
        match self.direction {
            Direction::FromPort => self.policy.egress,
            Direction::ToPort => self.policy.ingress,
        }
    }

    /// Whether some rule is for single packets, so that what belongs to no entry may pass.
    #[inline(always)]
    pub(crate) const fn has_singles(&self) -> bool {
        self.has(Port::HAS_STATELESS | Port::HAS_STATELESS << Port::EGRESS_SHIFT)
    }

    /// Whether some rule for the way that the packet goes is for single packets.
    #[inline(always)]
    pub(crate) const fn has_stateless(&self) -> bool {
        self.has(match self.direction {
            Direction::FromPort => Port::HAS_STATELESS << Port::EGRESS_SHIFT,
            Direction::ToPort => Port::HAS_STATELESS,
        })
    }

    /// [`CtSlot::generation`] of what is decided under this configuration.
    #[inline(always)]
    pub(crate) const fn note_of(&self, config: &Config) -> u32 {
        let names =
            (self.policy.rules | self.policy.rules >> Port::EGRESS_SHIFT) & Port::HAS_MEMBERS;
        self.generation.wrapping_add(config.members.wrapping_mul(names))
    }
}

/// Whether groups are named, as a factor.
const _: () = assert!(Port::HAS_MEMBERS == 1);

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
        Role::Unsupported => policy::stateless(kernel, packet, DropReason::UnsupportedIcmp)?,
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
    if !slots::find(kernel, &mut packet.room, tick(packet.zone.now_ns)) {
        packet.room.found = Found::NONE;
    } else if !opens_anew(packet)
        && let Some(decided) = known(kernel, packet)
    {
        return decided;
    }
    open(kernel, packet)
}

/// Whether a packet of a connection that has an entry may open another one with the same key: of both
/// ends, one opens. The other end's SYN is an opening of its own, of the same ports again or of both ends
/// at once (RFC 9293, 3.5), and needs to be allowed as such.
#[inline(always)]
fn opens_anew(packet: &Packet) -> bool {
    let word = packet.room.found.word;
    packet.protocol == TCP
        && packet.flags & (SYN | ACK | FIN | RST) == SYN
        && (is_over(word) || word.initiator() as u8 != packet.zone.direction as u8)
}

/// Whether a TCP connection is over, or will soon be.
#[inline(always)]
fn is_over(word: CtWord) -> bool {
    word.state() >= CtState::Closing as u8
}

/// Decides about a packet that belongs to no entry that counts, or opens anew what has one. One that may
/// not be opened leaves no trace: what is over may still have its last packets to come.
#[inline(always)]
fn open<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> Result<(), DropReason> {
    if packet.role as u8 != Role::Opens as u8 && !packet.zone.has_singles() {
        return Err(DropReason::NoConnection);
    }
    // Asked once a connection: a destination that the port does not have never gets an entry.
    // Else any peer could use up the port's room with addresses of its own making.
    // What the port sends has been through the guard.
    if packet.zone.direction == Direction::ToPort
        && packet.room.found.is_none()
        && !kernel.addr_allowed(&AddrKey { port: packet.zone.port, addr: packet.destination })
        && owner(kernel, packet, End::Destination, None) != Owner::Station
    {
        return Err(DropReason::ForeignDestination);
    }
    packet.inquiry.source_net = packet.zone.source_net;
    packet.inquiry.what = packet.zone.direction as u32;
    if is_picked_up(packet) {
        packet.inquiry.what |= policy::PICKED_UP;
    }
    policy::ask(kernel, packet);
    match packet.inquiry.verdict {
        policy::ALLOWED => {}
        policy::STATELESS => {
            policy::alone(packet);
            return Ok(());
        }
        denied => return Err(policy::reason(denied)),
    }
    if packet.role as u8 != Role::Opens as u8 {
        if !policy::answers_single(kernel, packet) {
            return Err(DropReason::NoConnection);
        }
        policy::alone(packet);
        return Ok(());
    }
    if packet.room.found.is_none() {
        let is_picked_up = is_picked_up(packet);
        let Packet { zone, room, .. } = packet;
        slots::open(kernel, room, zone, is_picked_up)?;
        zone.opened = 1;
        return Ok(());
    }
    if opens_anew(packet) && !is_over(packet.room.found.word) {
        // Both ends open at once.
        return match known(kernel, packet) {
            Some(decided) => decided,
            None => Err(DropReason::NoConnection),
        };
    }
    begin_anew(kernel, packet);
    Ok(())
}

/// Whether the packet is of a connection whose opening the table has lost, if it has no entry.
#[inline(always)]
fn is_picked_up(packet: &Packet) -> bool {
    packet.protocol == TCP && packet.flags & (SYN | ACK) == ACK
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
    packet.zone.note = packet.zone.note_of(&config);
    true
}

/// Puts the packet's connection, as the port sees it, into its room.
#[inline(always)]
pub(crate) fn aim(packet: &mut Packet) {
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

/// A packet of a connection that has an entry; `None` if that counts no longer, and the packet has to be
/// decided by itself.
#[inline(always)]
fn known<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> Option<Result<(), DropReason>> {
    let found = packet.room.found;
    let Some(slot) = kernel.ct_slot(found.number) else {
        return Some(Err(DropReason::NoConnection));
    };
    packet.zone.rule = slot.rule;
    packet.inquiry.verdict = u32::from(slot.allowed);
    if slot.generation != packet.zone.note {
        policy::renew(kernel, packet);
    }
    match packet.inquiry.verdict {
        policy::ALLOWED => {}
        // What was asked about the connection, is what would be asked about the packet.
        policy::STATELESS if found.word.initiator() as u8 == packet.zone.direction as u8 => {
            policy::alone(packet);
            return Some(Ok(()));
        }
        policy::STATELESS => return None,
        denied => return Some(Err(policy::reason(denied))),
    }
    let word = step(kernel, found, packet);
    packet.room.found.word = word;
    Some(Ok(()))
}

/// Begins a connection in the way of one that is over, or counts no longer. The room has its word then,
/// or zero.
#[inline(always)]
fn begin_anew<K: Kernel>(kernel: &mut K, packet: &mut Packet) {
    let picked_up = is_picked_up(packet);
    let Packet { zone, room, .. } = packet;
    let found = room.found;
    room.found.word = CtWord(0);
    let Some(slot) = kernel.ct_slot(found.number) else { return };
    slot.source_net = zone.source_net;
    slot.allowed = CtSlot::ALLOWED;
    slot.rule = zone.rule;
    slot.identity = zone.basis;
    slot.generation = zone.note;
    let state = CtState::Opening;
    let until = deadline(kernel, tick(zone.now_ns), room.key.protocol, state as u8);
    let mut new = found.word.with_state(state).opened(zone.direction).until(until);
    if picked_up {
        new = new.with_picked_up();
    }
    // If another CPU was faster, it saw a packet of the same connection.
    if kernel.ct_swap(found.number, found.word.0, new.0) {
        room.found.word = new;
        zone.opened = 1;
    }
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
