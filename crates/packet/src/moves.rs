//! NICs on their way from one host to another: keys and values of the map `moves`, and what their
//! frames decide.
//!
//! The agents of all hosts of a network are told beforehand which NIC moves and where to. From then on
//! each host decides by itself, and by one word, where the NIC is: at its old place until it sees a
//! frame of the NIC that comes from the new one, and at the new one from then on. So no host ever
//! delivers to both places, or takes frames from both. Neither server nor agents are needed for it.
//!
//! - The port at the new place waits for its first frame. That goes to the old host, whatever it is:
//!   so the old host knows, even if nobody there is spoken to. It hands on what is meant for others.
//! - The old host sends frames for the NIC on to the new one, whoever has not noticed yet: the only
//!   case in which a frame goes from tunnel to tunnel, and once only, as the new host never does.
//!
//! What concerns such a NIC is not kept in the flow cache, as its word may change at any time.

use crate::addr::Addr;
use crate::fdb::{Fdb, FdbKey};
use crate::kernel::Kernel;
use crate::layout::plain;
use crate::maps::{NeighKey, Port};
use crate::parse::{ETHERNET_BYTES, ETHERTYPE_ARP, ETHERTYPE_IPV6, ICMPV6, IPV6_BYTES, Packet};
use crate::port::PortHead;
use crate::reason::DropReason;
use crate::sizes::MAX_MOVES;

/// Ethertype of RARP (RFC 903), by which QEMU announces a machine that has moved.
const ETHERTYPE_RARP: u16 = 0x8035;
/// A neighbour solicitation (RFC 4861).
const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Of a word of `arrived`, above the number of the move: the old host has been told.
const TOLD: u64 = 1 << 32;

plain! {
    /// Value of `moves`, by station: a move of it that is prepared.
    pub struct Move[56] {
        /// The move's number. Never 0, never reused.
        pub number: u32,
        /// Zero.
        pad: u32,
        /// Where the station is once it has moved. Until then it is where `fdb` says.
        pub then: Fdb,
    }
}

impl Port {
    /// Whether its NIC moves here, and that is not over.
    #[must_use]
    pub const fn waits(&self) -> bool {
        self.flags & Port::WAITS != 0
    }
}

impl PortHead {
    /// Whether its NIC moves here or away.
    #[inline(always)]
    pub(crate) const fn is_moving(&self) -> bool {
        self.flags & Port::MOVES != 0
    }
}

impl Move {
    /// The move with this number to this place.
    #[must_use]
    pub const fn new(number: u32, then: Fdb) -> Move {
        Move { number, pad: 0, then }
    }

    /// Where its word is in `arrived`. Two moves may share a place that are thousands of moves apart
    /// and both under way; then the one that has come to its end last is taken for the only one,
    /// until the next frame of the other.
    #[inline(always)]
    #[must_use]
    pub const fn place(&self) -> u32 {
        self.number & (MAX_MOVES - 1)
    }
}

/// The move's word, if it is its own: 0 as long as the station has not moved.
#[inline(always)]
fn word<K: Kernel>(kernel: &mut K, moving: &Move) -> u64 {
    match kernel.arrived(moving.place()) {
        Some(word) if *word & 0xffff_ffff == u64::from(moving.number) => *word,
        _ => 0,
    }
}

#[inline(always)]
fn note<K: Kernel>(kernel: &mut K, moving: &Move, word: u64) {
    if let Some(place) = kernel.arrived(moving.place()) {
        *place = u64::from(moving.number) | word;
    }
}

/// What becomes of a frame from a port that moves. One byte, see `entry::Admission`.
pub(crate) enum Passage {
    /// It goes on, like any other.
    GoesOn,
    /// It tells the old host, which is in the packet's room.
    Tells,
    /// It ends here.
    Refused(DropReason),
}

/// Whether a port that moves is the station's, and whether the old host is yet to be told.
#[inline(never)]
pub(crate) fn from_port<K: Kernel>(
    kernel: &mut K,
    port: &PortHead,
    packet: &mut Packet,
) -> Passage {
    packet.flow.give_up();
    let key = FdbKey::new(port.net, port.mac);
    let Some(before) = kernel.fdb(&key) else {
        return Passage::Refused(DropReason::MissingLocalPort);
    };
    packet.station = before.still();
    let Some(moving) = kernel.moving(&key) else {
        return Passage::Refused(DropReason::MissingLocalPort);
    };
    let seen = word(kernel, &moving);
    if moving.then.as_local().is_none() {
        let is_gone = seen != 0;
        return if is_gone { Passage::Refused(DropReason::Moved) } else { Passage::GoesOn };
    }
    let Some(header) = kernel.load::<14>(0) else {
        return Passage::Refused(DropReason::Malformed);
    };
    let [_, _, _, _, _, _, s0, s1, s2, s3, s4, s5, t0, t1] = header;
    if !port.mac.same(crate::Mac([s0, s1, s2, s3, s4, s5])) {
        return Passage::Refused(DropReason::SpoofedMac);
    }
    let ethertype = u16::from_be_bytes([t0, t1]);
    let is_told = seen & TOLD != 0 && ethertype != ETHERTYPE_RARP;
    if is_told || is_question(kernel, ethertype) {
        note(kernel, &moving, seen & TOLD);
        return Passage::GoesOn;
    }
    note(kernel, &moving, TOLD);
    Passage::Tells
}

/// Whether the frame asks for somebody's MAC, and is to be answered here. A gratuitous ARP, which asks
/// for the sender's own, is none.
#[inline(always)]
fn is_question<K: Kernel>(kernel: &K, ethertype: u16) -> bool {
    match ethertype {
        ETHERTYPE_ARP => {
            let sender = kernel.load::<4>(ETHERNET_BYTES + 14);
            sender.is_some() && sender != kernel.load::<4>(ETHERNET_BYTES + 24)
        }
        ETHERTYPE_IPV6 => {
            kernel.load::<1>(ETHERNET_BYTES + 6) == Some([ICMPV6])
                && kernel.load::<1>(ETHERNET_BYTES + IPV6_BYTES) == Some([NEIGHBOUR_SOLICITATION])
        }
        _ => false,
    }
}

/// Puts the station that moves, which is in the packet's room, to where it is now; whether there is
/// such a move.
#[inline(never)]
pub(crate) fn settle<K: Kernel>(kernel: &mut K, packet: &mut Packet) -> bool {
    packet.flow.give_up();
    let key = FdbKey::new(packet.path.net_out, packet.destination_mac);
    let Some(moving) = kernel.moving(&key) else { return false };
    if word(kernel, &moving) != 0 {
        packet.station = moving.then;
    } else {
        packet.station = packet.station.still();
    }
    true
}

/// Whether a frame out of a tunnel may come from this VTEP, though its station is not simply behind
/// it: the station moves, or the frame is for one that does and is handed on by its old host.
///
/// The source's address and MAC belong together.
#[inline(never)]
pub(crate) fn from_tunnel<K: Kernel>(
    kernel: &mut K,
    vtep: &Addr,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    packet.flow.give_up();
    let key = FdbKey::new(packet.path.net_in, packet.source_mac);
    if let Some(moving) = kernel.moving(&key) {
        if is_behind(&moving.then, vtep) {
            note(kernel, &moving, 0);
            packet.is_handed_on = moving.then.is_forwarded();
            return Ok(());
        }
        let old = kernel.neigh(&NeighKey { net: packet.path.net_in, addr: packet.source });
        let is_there = old.is_some_and(|old| old.vtep.same(vtep)) && word(kernel, &moving) == 0;
        return if is_there { Ok(()) } else { Err(DropReason::ForeignSource) };
    }
    let key = FdbKey::new(packet.path.net_in, packet.destination_mac);
    let Some(before) = kernel.fdb(&key) else { return Err(DropReason::ForeignSource) };
    if !before.is_moving() || !is_behind(&before, vtep) {
        return Err(DropReason::ForeignSource);
    }
    let Some(moving) = kernel.moving(&key) else { return Err(DropReason::ForeignSource) };
    if moving.then.as_local().is_some() { Ok(()) } else { Err(DropReason::ForeignSource) }
}

/// Whether a frame that nobody else wants tells that a station has moved to this VTEP.
#[inline(never)]
pub(crate) fn told<K: Kernel>(kernel: &mut K, vtep: &Addr, net: u32) -> bool {
    let Some([s0, s1, s2, s3, s4, s5]) = kernel.load::<6>(6) else { return false };
    let Some(moving) = kernel.moving(&FdbKey::new(net, crate::Mac([s0, s1, s2, s3, s4, s5])))
    else {
        return false;
    };
    if !is_behind(&moving.then, vtep) {
        return false;
    }
    note(kernel, &moving, 0);
    true
}

/// Whether a station is behind this VTEP.
#[inline(always)]
fn is_behind(station: &Fdb, vtep: &Addr) -> bool {
    station.as_local().is_none() && station.behind().1.same(vtep)
}
