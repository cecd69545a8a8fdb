//! Stage 5, policy: connection tracking on one side of a port, and the policy of the port: what its rule
//! sets say (`rules`).
//!
//! A port may be opened connections to from its own network alone. What its rule set for that way says,
//! decides next; without one it is allowed. An answer needs nobody's leave, which connection tracking
//! knows before it asks here. What is no part of a connection is asked about packet by packet: what goes
//! to several ([`untracked`]), and what a stateless rule decides about.
//!
//! The other end is asked for in the routing domain of the port's own address. Whatever should be in a
//! map and is not, denies.
//!
//! What is asked and what is answered lies in the packet's room: [`Inquiry`]. That spares the stack; and
//! the verifier knows nothing of memory there, so it does not walk what follows once for each answer.

use crate::conntrack::{self, CtZone};
use crate::kernel::{Concerned, Direction, Drop, Entry, Kernel, Meta};
use crate::maps::{AddrKey, CtSlot, Port, PortKey};
use crate::parse::{ETHERTYPE_ARP, ETHERTYPE_IPV4, Fragment, ICMP, ICMPV6, Packet, TCP, UDP};
use crate::port::{PortHead, RECEIVER, SENDER, receiver};
use crate::reason::DropReason;
use crate::rules::{
    Cell, ChapterKey, ClassKey, DEPTH_MAX, IdentKey, depth, selector_of_class, selector_of_identity,
};
use crate::service::Service;
use crate::{flow_log, fragments, slots};

/// Of what is asked: the way that the connection is opened, by the number of a [`Direction`].
const WAY: u32 = 3;
/// Nobody knows which end opened the connection: it must be allowed whichever it was.
pub(crate) const PICKED_UP: u32 = 4;
/// The packet in the room need not be the one that opened the connection.
pub(crate) const REVIEW: u32 = 8;
/// Who the other end is, is known already.
const KNOWN: u32 = 16;

/// Of the number of a routing domain: that of the link-local addresses of a network, whose number is
/// the rest. The server numbers them so (`LINK_LOCAL_DOMAIN` of `wire`).
pub const LINK_LOCAL_DOMAIN: u32 = 1 << 31;

/// IGMP (RFC 3376), by which hosts say what they listen to.
const IGMP: u8 = 2;

/// What an echo request has as type and code.
const ECHO: u16 = 8 << 8;
const ECHO_V6: u16 = 128 << 8;

/// What is asked, and what has been found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inquiry {
    /// [`WAY`] and so on.
    pub(crate) what: u32,
    /// Network that the connection was opened from.
    pub(crate) source_net: u32,
    /// What [`CtSlot::allowed`] would be.
    pub(crate) verdict: u32,
    /// Port, type and code, or protocol.
    at: u32,
    /// Identity of the other end.
    identity: u64,
    /// The chapter that is read.
    chapter: ChapterKey,
    /// What became of that.
    reading: u32,
    /// The earliest rule that matches.
    best: Cell,
}

impl Default for Inquiry {
    fn default() -> Inquiry {
        Inquiry {
            what: 0,
            source_net: 0,
            verdict: 0,
            at: 0,
            identity: 0,
            chapter: ChapterKey { ruleset: 0, selector: 0 },
            reading: 0,
            best: Cell { rank: 0, rule: 0 },
        }
    }
}

/// Whether the packet may pass this side of the port.
#[inline(always)]
pub(crate) fn side<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    at: (&PortHead, Direction),
    packet: &mut Packet,
) -> Result<(), DropReason> {
    enter(meta, at, packet);
    let decided = conntrack::decide(kernel, packet);
    told(kernel, packet, decided)
}

/// Has the port tell of what was decided, if it does.
#[inline(always)]
fn told<K: Kernel>(
    kernel: &mut K,
    packet: &mut Packet,
    decided: Result<(), DropReason>,
) -> Result<(), DropReason> {
    if flow_log::is_told(&packet.zone, &decided) {
        flow_log::tell(kernel, packet, decided.err().map_or(0, DropReason::number));
    }
    decided
}

/// Whether a packet may pass that is no part of a connection.
#[inline(never)]
pub(crate) fn untracked<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    at: (&PortHead, Direction),
    packet: &mut Packet,
) -> Result<(), DropReason> {
    enter(meta, at, packet);
    if !is_asked(packet) || packet.zone.ruleset() == 0 {
        return Ok(());
    }
    if packet.fragment == Fragment::Later {
        return fragments::follow(kernel, packet);
    }
    let decided = single(kernel, packet, DropReason::PolicyDenied, true);
    told(kernel, packet, decided)?;
    if packet.fragment == Fragment::First {
        fragments::remember(kernel, packet);
    }
    Ok(())
}

/// Whether a policy is asked about what is no part of a connection: not about what hosts on a link need
/// to find each other.
#[inline(always)]
fn is_asked(packet: &Packet) -> bool {
    packet.ethertype != ETHERTYPE_ARP
        && packet.service != Service::Neighbour
        && !(packet.protocol == IGMP && packet.ethertype == ETHERTYPE_IPV4)
}

/// Whether a port on this host gets its copy of a packet that goes to several. One that it may not get is
/// counted.
#[inline(never)]
pub fn receives<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    entry: Entry,
    packet: &mut Packet,
    key: &PortKey,
) -> bool {
    if !is_asked(packet) {
        return true;
    }
    let Some(port) = receiver(kernel, key, packet) else { return false };
    let Err(reason) = untracked(kernel, meta, (&port, Direction::ToPort), packet) else {
        return true;
    };
    let rule = packet.zone.rule;
    kernel.count_drop(meta, &Drop { reason, entry, port: Concerned::of(&port), rule });
    false
}

/// Notes on which side of which port the packet is.
#[inline(always)]
fn enter(meta: &Meta, (port, direction): (&PortHead, Direction), packet: &mut Packet) {
    let of = if direction as u8 == Direction::FromPort as u8 { SENDER } else { RECEIVER };
    packet.zone = CtZone {
        now_ns: meta.now_ns,
        port: port.number,
        zone: port.zone,
        place: port.place(),
        net: port.net,
        source_net: packet.path.net_in,
        generation: port.generation,
        note: 0,
        rule: 0,
        basis: 0,
        opened: 0,
        policy: packet.policies[of],
        direction,
    };
}

/// Asks about the packet by itself. A rule for connections counts if `is_any` says so; else nothing but a
/// stateless one does, and what other rules would allow, is dropped for this reason.
#[inline(always)]
fn single<K: Kernel>(
    kernel: &mut K,
    packet: &mut Packet,
    otherwise: DropReason,
    is_any: bool,
) -> Result<(), DropReason> {
    conntrack::aim(packet);
    packet.inquiry.source_net = packet.zone.source_net;
    packet.inquiry.what = packet.zone.direction as u32;
    ask(kernel, packet);
    match packet.inquiry.verdict {
        STATELESS => {}
        ALLOWED if is_any => {}
        ALLOWED => return Err(otherwise),
        denied => return Err(reason(denied)),
    }
    alone(packet);
    Ok(())
}

/// Whether a stateless rule lets a packet pass that would be dropped for this reason.
#[inline(never)]
pub(crate) fn stateless<K: Kernel>(
    kernel: &mut K,
    packet: &mut Packet,
    otherwise: DropReason,
) -> Result<(), DropReason> {
    if !packet.zone.has_stateless() {
        return Err(otherwise);
    }
    single(kernel, packet, otherwise, false)
}

/// Whether the packet, which continues no connection, may answer what a stateless rule lets by the other
/// way: that leaves no entry. Whatever allows the answer itself, has been asked.
#[inline(never)]
pub(crate) fn answers_single<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> bool {
    packet.inquiry.what = packet.inquiry.what & WAY ^ WAY | REVIEW;
    ask(kernel, packet);
    packet.inquiry.verdict == STATELESS
}

/// Whether an error may pass that is about no connection; what it is about is in the room. Of what passes
/// by stateless rules it is judged as any other packet.
#[inline(never)]
pub(crate) fn unrelated<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> Result<(), DropReason> {
    let otherwise = DropReason::UnrelatedIcmpError;
    if !packet.zone.has_singles() {
        return Err(otherwise);
    }
    packet.inquiry.source_net = packet.zone.source_net;
    packet.inquiry.what = packet.zone.direction as u32;
    let is_about_single = answers_single(kernel, packet) || answers_single(kernel, packet);
    single(kernel, packet, otherwise, is_about_single)
}

/// [`CtSlot::ALLOWED`] and so on, as verdicts.
pub(crate) const ALLOWED: u32 = CtSlot::ALLOWED as u32;
pub(crate) const STATELESS: u32 = CtSlot::STATELESS as u32;

/// The packet is no part of any connection, and its verdict says nothing of the next one.
#[inline(always)]
pub(crate) fn alone(packet: &mut Packet) {
    packet.flow.give_up();
    packet.room.found = slots::Found::NONE;
}

/// Why a packet is dropped that is denied so.
#[inline(always)]
pub(crate) fn reason(denied: u32) -> DropReason {
    if denied == CtSlot::DENIED_INGRESS as u32 {
        DropReason::PolicyIngress
    } else if denied == CtSlot::DENIED_EGRESS as u32 {
        DropReason::PolicyEgress
    } else {
        DropReason::PolicyDenied
    }
}

/// Asks whether the connection in the packet's room may be opened, in the way that the inquiry says.
/// The rule that decided, and what the verdict holds for, are in the packet's zone then. Gives a number
/// for the verifier, as all that follow.
#[inline(never)]
pub(crate) fn ask<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> bool {
    kernel.is_given();
    if packet.inquiry.what & KNOWN == 0 {
        recognise(kernel, packet);
    }
    if packet.inquiry.what & PICKED_UP != 0 {
        // The other way first: the rule of this one is what is remembered.
        packet.inquiry.what ^= WAY;
        judge(kernel, packet);
        packet.inquiry.what ^= WAY;
        if !is_allowed(packet.inquiry.verdict) {
            return true;
        }
    }
    judge(kernel, packet)
}

#[inline(always)]
fn is_allowed(verdict: u32) -> bool {
    verdict & (ALLOWED | STATELESS) != 0
}

/// Asks anew about a connection that has an entry, which was decided under something else.
#[inline(never)]
pub(crate) fn renew<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> bool {
    kernel.is_given();
    let number = packet.room.found.number;
    let word = packet.room.found.word;
    let picked_up = if word.picked_up() { PICKED_UP } else { 0 };
    packet.inquiry.what = REVIEW | KNOWN | picked_up | word.initiator() as u32;
    packet.inquiry.verdict = CtSlot::DENIED as u32;
    let Some(slot) = kernel.ct_slot(number) else { return false };
    packet.inquiry.source_net = slot.source_net;
    packet.inquiry.verdict = u32::from(slot.allowed);
    let before = slot.identity;
    recognise(kernel, packet);
    // If it is the same, others have come or gone.
    let names_groups = Port::HAS_MEMBERS | Port::HAS_MEMBERS << Port::EGRESS_SHIFT;
    if !packet.zone.has(names_groups) || before != packet.zone.basis {
        ask(kernel, packet);
    } else {
        packet.zone.rule = UNCHANGED;
    }
    let Some(slot) = kernel.ct_slot(number) else { return false };
    if packet.zone.rule == UNCHANGED {
        packet.zone.rule = slot.rule;
    } else {
        slot.rule = packet.zone.rule;
    }
    slot.allowed = (packet.inquiry.verdict & 0xff) as u8;
    slot.identity = packet.zone.basis;
    slot.generation = packet.zone.note;
    true
}

/// No rule has this number: as long as it stands in the zone, no rule has decided anew.
const UNCHANGED: u32 = u32::MAX;

/// Finds out who the other end is, if a rule set that is asked names groups.
#[inline(always)]
fn recognise<K: Kernel>(kernel: &K, packet: &mut Packet) {
    packet.inquiry.identity = 0;
    let what = packet.inquiry.what;
    // Bit 0 is the way from the port, bit 1 the one to it; both, if nobody knows.
    let ways = what & WAY | ((what & PICKED_UP) / PICKED_UP * WAY);
    let wanted = (ways & 1) << Port::EGRESS_SHIFT | ways >> 1;
    if packet.zone.has(wanted * Port::HAS_MEMBERS) {
        identify(kernel, packet);
    }
    let identity = (packet.inquiry.identity & 0xffff_ffff) as u32;
    packet.zone.basis = identity ^ packet.zone.generation;
}

const _: () = assert!(Direction::FromPort as u32 == 1 && Direction::ToPort as u32 == 2);

/// Leaves the other end's identity in the packet's room, if it has any.
#[inline(never)]
pub(crate) fn identify<K: Kernel>(kernel: &K, packet: &mut Packet) -> bool {
    kernel.is_given();
    let key = &packet.room.key;
    let domain = if key.remote.is_link_local() {
        LINK_LOCAL_DOMAIN | packet.zone.net
    } else {
        match kernel.source(&AddrKey { port: packet.zone.port, addr: key.local }) {
            Some(source) => source.domain,
            None => packet.zone.policy.domain,
        }
    };
    let Some(identity) = kernel.ident(&IdentKey { domain, addr: key.remote }) else {
        return false;
    };
    packet.inquiry.identity = identity;
    true
}

/// Finds what the policy for one way says.
#[inline(never)]
pub(crate) fn judge<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> bool {
    kernel.is_given();
    let Packet { zone, inquiry, room, .. } = &mut *packet;
    zone.rule = 0;
    let is_ingress = inquiry.what & WAY == Direction::ToPort as u32;
    if is_ingress && inquiry.source_net != zone.net {
        inquiry.verdict = CtSlot::DENIED as u32;
        return true;
    }
    if is_ingress {
        inquiry.chapter.ruleset = zone.policy.ingress;
        inquiry.verdict = CtSlot::DENIED_INGRESS as u32;
    } else {
        inquiry.chapter.ruleset = zone.policy.egress;
        inquiry.verdict = CtSlot::DENIED_EGRESS as u32;
    }
    if inquiry.chapter.ruleset == 0 {
        inquiry.verdict = ALLOWED;
        return true;
    }
    let shift = if is_ingress { 0 } else { Port::EGRESS_SHIFT };
    let flags = zone.policy.rules >> shift;
    inquiry.best = Cell { rank: Cell::NONE, rule: 0 };
    let is_v6 = !room.key.remote.is_v4();
    if flags & Port::HAS_MEMBERS != 0 && inquiry.identity != 0 {
        inquiry.chapter.selector = selector_of_identity(inquiry.identity, is_v6);
        set_at(packet);
        read(kernel, packet);
        // There is none if no rule names any of its groups.
        if packet.inquiry.reading == BROKEN {
            return true;
        }
    }
    let Packet { inquiry, room, .. } = &mut *packet;
    let class = match flags & Port::HAS_CLASSES {
        0 => 0,
        _ => kernel.class(&ClassKey::of(inquiry.chapter.ruleset, room.key.remote)).unwrap_or(0),
    };
    inquiry.chapter.selector = selector_of_class(class, !room.key.remote.is_v4());
    set_at(packet);
    read(kernel, packet);
    let Packet { zone, inquiry, .. } = packet;
    if inquiry.reading != READ {
        return true;
    }
    let Cell { rank, rule } = inquiry.best;
    zone.rule = rule;
    if rank != Cell::NONE && rank & Cell::ACCEPT != 0 {
        inquiry.verdict = if rank & Cell::STATELESS == 0 { ALLOWED } else { STATELESS };
    }
    true
}

/// Sets where the tree of the protocol is asked.
#[inline(always)]
fn set_at(packet: &mut Packet) {
    let (what, key) = (packet.inquiry.what, &packet.room.key);
    let of_family = if key.remote.is_v4() { ICMP } else { ICMPV6 };
    packet.inquiry.at =
        u32::from(match key.protocol {
            TCP | UDP if what & WAY == Direction::FromPort as u32 => key.remote_port,
            TCP | UDP => key.local_port,
            // Of all that is ICMP, nothing but an echo has an entry, or an answer. Its code is 0 (RFC 792,
            // RFC 4443, 4.1): of any other one, whoever receives it makes an echo as well, and all with one
            // identifier are one connection. So what is asked does not depend on which packet is asked about.
            ICMP | ICMPV6 if key.protocol == of_family && what & REVIEW != 0 => {
                if of_family == ICMP { ECHO } else { ECHO_V6 }
            }
            ICMP | ICMPV6 if key.protocol == of_family => {
                u16::from_be_bytes([packet.flags, packet.code])
            }
            other => u16::from(other),
        });
}

/// What becomes of a chapter that is read.
const ABSENT: u32 = 0;
const READ: u32 = 1;
const BROKEN: u32 = 2;

/// Finds in a chapter the rule that matches, and keeps it if it is earlier than what was found before.
#[inline(never)]
pub(crate) fn read<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> bool {
    kernel.is_given();
    let Packet { room, inquiry, .. } = packet;
    inquiry.reading = ABSENT;
    let Some(chapter) = kernel.chapter(&inquiry.chapter) else { return false };
    inquiry.reading = READ;
    let is_v4 = room.key.remote.is_v4();
    let mut tree = match room.key.protocol {
        TCP => chapter.tcp,
        UDP => chapter.udp,
        ICMP if is_v4 => chapter.icmp,
        ICMPV6 if !is_v4 => chapter.icmp,
        _ => chapter.other,
    };
    if tree == 0 {
        return true;
    }
    inquiry.reading = BROKEN;
    let mut level = 0;
    while level < DEPTH_MAX {
        let Some(node) = kernel.node(tree) else { return false };
        let cell = node.cells[node.range_of(inquiry.at)];
        if depth(tree) == 0 {
            inquiry.reading = READ;
            if cell.rank < inquiry.best.rank {
                inquiry.best = cell;
            }
            return true;
        }
        tree = cell.node();
        level += 1;
    }
    false
}

#[cfg(test)]
mod tests;
