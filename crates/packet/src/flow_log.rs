//! The flow log: new and denied connections of a port, told to whoever reads the ring buffer.
//!
//! A port has it by two bits of [`Port::rules`], which lie in the packet's room anyway: of any other
//! port each packet that passes the stages is asked for them, and what the flow cache knows is not even
//! that. Considered: the agent reads the port's own area of the connection table now and then. That
//! costs a port with the log 256 KiB of copies for each look (512 buckets, a system call each), misses
//! what begins and ends between two looks, and says nothing of what was denied.
//!
//! A record is made here and not of the frame: it has the connection as its port sees it. So many a port
//! may tell in a window of time ([`Told`]); the rest is counted, and told with the next record. What one
//! port does takes nothing from others but room in the buffer, of which it can have a twelfth.

use crate::addr::Addr;
use crate::budget::Budget;
use crate::conntrack::CtZone;
use crate::kernel::Kernel;
use crate::layout::plain;
use crate::parse::Packet;
use crate::port::Port;
use crate::reason::DropReason;
use crate::sizes::TOLD_PER_WINDOW;

plain! {
    /// A record of the ring buffer `told`: a connection that was opened or denied, as its port sees it.
    pub struct FlowEvent[64] {
        /// Time, nanoseconds of the coarse monotonic clock.
        pub time_ns: u64,
        /// [`Port::number`].
        pub port: u32,
        /// Number of the [`DropReason`], 0 if it was opened.
        pub reason: u32,
        /// Number of the rule that decided, [`crate::Cell::rule`]; 0 if none did.
        pub rule: u32,
        /// Records of the port that were not made since the one before.
        pub missed: u32,
        /// The port's own address.
        pub local: Addr,
        /// The other end's address.
        pub remote: Addr,
        /// L4 port of the own end, or the ICMP identifier if it is the own end that asks.
        pub local_port: u16,
        /// The same of the other end.
        pub remote_port: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// A [`crate::Direction`] number: from the port, or to it.
        pub direction: u8,
        /// Zero.
        pub pad: [u8; 2],
    }

    /// Value of `telling`: what a port has told lately. CPUs may race for it, which costs a record more
    /// or less.
    pub struct Told[16] {
        /// How many in the window.
        pub budget: Budget,
        /// How many it did not tell since the last one.
        pub missed: u32,
        /// Zero.
        pub pad: u32,
    }
}

/// Whether the port tells of what became of the packet on this side of it.
#[inline(always)]
pub(crate) fn is_told(zone: &CtZone, decided: &Result<(), DropReason>) -> bool {
    match decided {
        Ok(()) => zone.opened != 0 && zone.has(Port::TELLS_OPENED),
        Err(reason) => zone.has(Port::TELLS_DENIED) && reason.is_of_opening(),
    }
}

/// Tells of the connection in the packet's room; whether there was room for it.
#[inline(never)]
pub(crate) fn tell<K: Kernel>(kernel: &mut K, packet: &Packet, reason: u32) -> bool {
    kernel.is_given();
    let (zone, key) = (&packet.zone, &packet.room.key);
    let Some(told) = kernel.telling(zone.place) else { return false };
    if !told.budget.spend(zone.now_ns, TOLD_PER_WINDOW) {
        told.missed = told.missed.saturating_add(1);
        return false;
    }
    let missed = told.missed;
    let event = FlowEvent {
        time_ns: zone.now_ns,
        port: zone.port,
        reason,
        rule: zone.rule,
        missed,
        local: key.local,
        remote: key.remote,
        local_port: key.local_port,
        remote_port: key.remote_port,
        protocol: key.protocol,
        direction: zone.direction as u8,
        pad: [0; 2],
    };
    let is_told = kernel.tell(&event);
    if let Some(told) = kernel.telling(zone.place) {
        told.missed = if is_told { 0 } else { missed.saturating_add(1) };
    }
    is_told
}
