//! Room for connections: a fixed array of slots and a clock hand, in the kernel.
//!
//! `ct` maps a key to the number of a slot, `ct_slots` is the array. A new connection moves the
//! hand on and takes the first slot within [`TRIES`] that is free, expired, or of a port that is
//! gone. A live connection is never evicted, not even by another one of its own port. A port at
//! its budget looks at [`SWEEP`] slots for an expired or closed one of its own, so that its old
//! entries never lock it out for long. These slots are spread over the whole table: a port that opened
//! many connections at once has them side by side, and they may be far from the hand.
//!
//! Why two CPUs do no harm: the hand is moved by an atomic add, so they look at different slots
//! (until the hand wraps, which takes as many inserts as there are slots, during one insert). The
//! same key may be inserted twice at once: one slot stays without a link and expires, and a
//! reader that follows a stale link compares the key. Unlinking checks that the key still leads
//! to the slot; the gap between check and delete may cost a new connection its link, which its
//! next packet makes again. Two CPUs that see the same slot expired may both give it back, which
//! leaves a use count one too low; user space recounts (`DataPlane::recount_connections`). Two
//! CPUs that insert for one port at once may go over its budget by one each.

use crate::conntrack::{State, Zone, is_expired};
use crate::kernel::Kernel;
use crate::maps::{CtKey, CtSlot};
use crate::reason::DropReason;

/// Slots that an insert looks at.
pub const TRIES: u32 = 32;
/// Slots that an insert looks at when its port is at its budget.
pub const SWEEP: u32 = 128;

/// Takes a slot for a connection that the policy has allowed.
#[inline(never)]
pub(crate) fn open<K: Kernel>(kernel: &mut K, key: &CtKey, zone: &Zone) -> Result<(), DropReason> {
    let Some(slots) = kernel.config().map(|config| config.conntrack_slots) else {
        return Err(DropReason::ConntrackFull);
    };
    let budget = i64::from(zone.budget);
    if !within(kernel, zone.port, budget) {
        sweep(kernel, slots, zone);
        if !within(kernel, zone.port, budget) {
            return Err(DropReason::ConntrackPortBudget);
        }
    }
    let Some(number) = claim(kernel, slots, zone.now_ns) else {
        return Err(DropReason::ConntrackFull);
    };
    let Some(slot) = kernel.ct_slot(number) else { return Err(DropReason::ConntrackFull) };
    slot.key = *key;
    slot.last_seen_ns = zone.now_ns;
    slot.initiator = zone.direction as u8;
    slot.allowed = 1;
    slot.generation = zone.generation;
    slot.source_net = zone.source_net;
    slot.state = State::Opening as u8;
    if !kernel.ct_link(key, number) {
        if let Some(slot) = kernel.ct_slot(number) {
            slot.state = State::Free as u8;
        }
        return Err(DropReason::ConntrackFull);
    }
    kernel.ct_use(zone.port, 1);
    Ok(())
}

/// Whether the port may have one more. A port without a count is gone.
#[inline(always)]
fn within<K: Kernel>(kernel: &K, port: u32, budget: i64) -> bool {
    kernel.ct_used(port).is_some_and(|used| used < budget)
}

/// The first slot under the hand that may be taken, emptied.
#[inline(always)]
fn claim<K: Kernel>(kernel: &mut K, slots: u32, now_ns: u64) -> Option<u32> {
    if slots == 0 {
        return None;
    }
    let mut tries = 0;
    while tries < TRIES {
        let number = kernel.ct_hand(1) % slots;
        let slot = kernel.ct_slot(number)?;
        if slot.state == State::Free as u8 {
            return Some(number);
        }
        let port = slot.key.port;
        if is_expired(slot, now_ns) || kernel.ct_used(port).is_none() {
            empty(kernel, number);
            return Some(number);
        }
        tries += 1;
    }
    None
}

/// Empties the first expired slot of the port under the hand.
#[inline(always)]
fn sweep<K: Kernel>(kernel: &mut K, slots: u32, zone: &Zone) {
    if slots == 0 {
        return;
    }
    let stride = stride(slots);
    let mut number = kernel.ct_hand(SWEEP);
    let mut step = 0;
    while step < SWEEP {
        number = number.wrapping_add(stride) % slots;
        let Some(slot) = kernel.ct_slot(number) else { return };
        let own = slot.state != State::Free as u8 && slot.key.port == zone.port;
        let over = slot.state == State::Closed as u8 || is_expired(slot, zone.now_ns);
        if own && over {
            empty(kernel, number);
            return;
        }
        step += 1;
    }
}

/// Slots between two that a sweep looks at: the table by the golden ratio, so that any number of
/// steps leaves no wide gap (Knuth, The Art of Computer Programming, 6.4, theorem S). Odd: it
/// shares no factor with a table of a power of two.
#[inline(always)]
fn stride(slots: u32) -> u32 {
    const GOLDEN: u64 = 0x9e37_79b1;
    let part = ((u64::from(slots) * GOLDEN) >> 32) as u32;
    part | 1
}

/// Gives a slot back: its link, if it still has one, and its place in the port's budget.
#[inline(never)]
fn empty<K: Kernel>(kernel: &mut K, number: u32) {
    let Some(slot) = kernel.ct_slot(number) else { return };
    let CtSlot { key, .. } = *slot;
    slot.state = State::Free as u8;
    if kernel.ct_find(&key) == Some(number) {
        kernel.ct_unlink(&key);
    }
    kernel.ct_use(key.port, -1);
}
