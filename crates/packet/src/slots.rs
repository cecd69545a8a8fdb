//! Room for connections: a fixed array of slots, in the kernel.
//!
//! `ct` maps a key to the number of a slot, `ct_slots` is the array. A new connection looks at
//! [`TRIES`] slots and takes the first that is free, expired, or of a port that is gone. A live
//! connection is never evicted, not even by another one of its own port. A port at its budget
//! looks at [`SWEEP`] slots for an expired or closed one of its own, so that its old entries never
//! lock it out for long. Connections that others open to it leave it an eighth of the budget.
//!
//! Both walks go anywhere, see [`Walk`]. A port that opens many connections at once thus has
//! them scattered, no port's connections can lie in the way of another's, and nobody who does not
//! know the clock of the host to the nanosecond knows where the next walk leads. Of a table that
//! is half live, one walk in 2^32 finds nothing; if it is nine tenths live, one in thirty.
//!
//! Why two CPUs do no harm: a slot changes hands by a compare and swap of [`CtSlot::word`], in
//! which `turn` counts the hands, so of two CPUs that saw the same slot one gets it. It is
//! [`CtState::Taken`] until it is filled; nobody follows a link to it or thinks it expired. The
//! same key may be inserted twice at once: one slot stays without a link and expires, and a
//! reader that follows a stale link compares the key. Unlinking checks that the key still leads
//! to the slot; the gap between check and delete may cost a new connection its link, which its
//! next packet makes again. Two CPUs that insert for one port at once may go over its budget by
//! one each. User space recounts (`DataPlane::recount_connections`), should a use count drift.

use crate::conntrack::{CtState, CtZone, is_expired};
use crate::kernel::{Direction, Kernel};
use crate::maps::CtKey;
use crate::reason::DropReason;

/// Slots that an insert looks at.
pub const TRIES: u32 = 32;
/// Slots that an insert looks at when its port is at its budget.
pub const SWEEP: u32 = 128;

/// Number of no port.
const NOBODY: u32 = 0;

/// Takes a slot for a connection that the policy has allowed.
#[inline(never)]
pub(crate) fn open<K: Kernel>(
    kernel: &mut K,
    key: &CtKey,
    zone: &CtZone,
) -> Result<(), DropReason> {
    let slots = match kernel.config() {
        Some(config) if config.conntrack_slots != 0 => config.conntrack_slots,
        _ => return Err(DropReason::ConntrackFull),
    };
    let budget = budget(zone);
    if !within(kernel, zone.port, budget) {
        sweep(kernel, Walk::of_sweep(slots, key, zone.now_ns), zone);
        if !within(kernel, zone.port, budget) {
            return Err(DropReason::ConntrackPortBudget);
        }
    }
    let walk = Walk::of_claim(slots, kernel.ct_hand(), zone.now_ns);
    let Some(number) = claim(kernel, walk, zone.now_ns) else {
        return Err(DropReason::ConntrackFull);
    };
    let Some(slot) = kernel.ct_slot(number) else { return Err(DropReason::ConntrackFull) };
    slot.key = *key;
    slot.last_seen_ns = zone.now_ns;
    slot.generation = zone.generation;
    slot.source_net = zone.source_net;
    let taken = slot.word();
    let [_, _, _, turn] = taken.to_ne_bytes();
    let opened = u32::from_ne_bytes([CtState::Opening as u8, zone.direction as u8, 1, turn]);
    // The swap is a barrier: whoever sees the connection sees all of it.
    if !kernel.ct_swap(number, taken, opened) {
        return Err(DropReason::ConntrackFull);
    }
    if !kernel.ct_link(key, number) {
        free(kernel, number, opened);
        return Err(DropReason::ConntrackFull);
    }
    kernel.ct_use(zone.port, 1);
    Ok(())
}

/// Most connections that the port may have for one more in this direction. The last eighth is for
/// those that it opens itself: others can open as many as they like and not shut it in.
#[inline(always)]
fn budget(zone: &CtZone) -> i64 {
    let budget = match zone.direction {
        Direction::FromPort => zone.budget,
        Direction::ToPort => zone.budget - zone.budget / 8,
    };
    i64::from(budget)
}

/// Whether the port may have one more. A port without a count is gone.
#[inline(always)]
fn within<K: Kernel>(kernel: &K, port: u32, budget: i64) -> bool {
    kernel.ct_used(port).is_some_and(|used| used < budget)
}

/// The first slot of the walk that may be taken, taken.
#[inline(always)]
fn claim<K: Kernel>(kernel: &mut K, mut walk: Walk, now_ns: u64) -> Option<u32> {
    let mut tries = 0;
    while tries < TRIES {
        let number = walk.number();
        let slot = kernel.ct_slot(number)?;
        let port = slot.key.port;
        let over = is_expired(slot, now_ns) || kernel.ct_used(port).is_none();
        if over && take(kernel, number, NOBODY, now_ns) {
            return Some(number);
        }
        walk.step();
        tries += 1;
    }
    None
}

/// Frees the first expired or closed slot of the port on the walk.
#[inline(always)]
fn sweep<K: Kernel>(kernel: &mut K, mut walk: Walk, zone: &CtZone) {
    let mut steps = 0;
    while steps < SWEEP {
        let number = walk.number();
        let Some(slot) = kernel.ct_slot(number) else { return };
        let own = slot.state != CtState::Free as u8 && slot.key.port == zone.port;
        if own && (slot.state == CtState::Closed as u8 || is_expired(slot, zone.now_ns)) {
            if take(kernel, number, zone.port, zone.now_ns)
                && let Some(slot) = kernel.ct_slot(number)
            {
                let taken = slot.word();
                free(kernel, number, taken);
            }
            return;
        }
        walk.step();
        steps += 1;
    }
}

/// Takes a slot if its connection is over, and gives back what that had: its link, if it still
/// has one, and its place in its port's budget. A closed one is over for its own port only.
#[inline(never)]
fn take<K: Kernel>(kernel: &mut K, number: u32, own: u32, now_ns: u64) -> bool {
    let Some(slot) = kernel.ct_slot(number) else { return false };
    let seen = slot.word();
    // Looked up again, so that the word is the older: whatever changes from here on spoils it.
    let Some(slot) = kernel.ct_slot(number) else { return false };
    let key = slot.key;
    let closed = slot.state == CtState::Closed as u8 && key.port == own;
    let expired = is_expired(slot, now_ns);
    let [state, ..] = seen.to_ne_bytes();
    if state == CtState::Taken as u8 {
        return false;
    }
    if !closed && !expired && kernel.ct_used(key.port).is_some() {
        return false;
    }
    take_seen(kernel, (number, seen), &key)
}

/// As [`take`], without asking: whether the slot still is as it was seen.
#[inline(always)]
fn take_seen<K: Kernel>(kernel: &mut K, (number, seen): (u32, u32), key: &CtKey) -> bool {
    if !kernel.ct_swap(number, seen, taken_from(seen)) {
        return false;
    }
    let [state, ..] = seen.to_ne_bytes();
    if state != CtState::Free as u8 {
        if kernel.ct_find(key) == Some(number) {
            kernel.ct_unlink(key);
        }
        kernel.ct_use(key.port, -1);
    }
    true
}

/// The word of a slot once it is taken.
#[inline(always)]
fn taken_from(seen: u32) -> u32 {
    let [_, _, _, turn] = seen.to_ne_bytes();
    u32::from_ne_bytes([CtState::Taken as u8, 0, 0, turn.wrapping_add(1)])
}

/// Frees a slot that is ours.
#[inline(always)]
fn free<K: Kernel>(kernel: &mut K, number: u32, own: u32) {
    let [_, _, _, turn] = own.to_ne_bytes();
    kernel.ct_swap(number, own, u32::from_ne_bytes([CtState::Free as u8, 0, 0, turn]));
}

/// A way through a table of at least one slot, each step as good as drawn by lot. Steps of one
/// length would do as badly as a hand: slots that are taken would lie in runs along them (Knuth,
/// The Art of Computer Programming, 6.4, on clustering).
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    slots: u32,
    seed: u32,
}

impl Walk {
    /// In search of any slot. The hand tells walks within one tick of the clock apart.
    #[inline(always)]
    pub(crate) fn of_claim(slots: u32, hand: u32, now_ns: u64) -> Walk {
        Walk::new(slots, scatter(hand) ^ low(now_ns))
    }

    /// In search of the port's own slots. It leaves the hand alone: packets that open nothing
    /// would otherwise move it. The ports tell attempts within one tick apart.
    #[inline(always)]
    pub(crate) fn of_sweep(slots: u32, key: &CtKey, now_ns: u64) -> Walk {
        let ports = u32::from(key.local_port) << 16 | u32::from(key.remote_port);
        Walk::new(slots, scatter(ports) ^ low(now_ns))
    }

    #[inline(always)]
    fn new(slots: u32, seed: u32) -> Walk {
        Walk { slots, seed: scatter(seed) }
    }

    /// The slot that it is at: the high bits, which are the good ones of such a generator.
    #[inline(always)]
    pub(crate) fn number(self) -> u32 {
        ((u64::from(self.seed) * u64::from(self.slots)) >> 32) as u32
    }

    /// On to the next slot. A linear congruential generator of full period; the multiplier is of
    /// Steele and Vigna, "Computationally easy, spectrally good multipliers" (2021).
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        self.seed = self.seed.wrapping_mul(0x915f_77f5).wrapping_add(1);
    }
}

/// The low half.
#[inline(always)]
fn low(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}

/// A number that looks like any other for each number (the finaliser of `MurmurHash3`).
#[inline(always)]
fn scatter(number: u32) -> u32 {
    let mut mixed = number;
    mixed = (mixed ^ mixed >> 16).wrapping_mul(0x85eb_ca6b);
    mixed = (mixed ^ mixed >> 13).wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::CtSlot;
    use crate::vectors::Memory;

    const NOW: u64 = 1_000_000_000_000;

    fn zone(port: u32, budget: u32) -> CtZone {
        let direction = Direction::FromPort;
        CtZone { now_ns: NOW, port, net: 1, source_net: 1, generation: 1, budget, direction }
    }

    fn key(port: u32, local_port: u16) -> CtKey {
        CtKey { port, local_port, protocol: 6, ..CtKey::default() }
    }

    /// Two ports with the numbers 1 and 2.
    fn table(slots: u32) -> Memory {
        let mut memory = Memory::new(slots);
        memory.ct_used.extend([(1, 0), (2, 0)]);
        memory
    }

    #[test]
    fn of_two_cpus_that_saw_the_same_slot_one_gets_it() {
        let mut memory = table(4);
        let seen = (2, memory.ct_slots[2].word());
        assert!(take_seen(&mut memory, seen, &CtKey::default()));
        assert!(!take_seen(&mut memory, seen, &CtKey::default()), "taken");
        let taken = memory.ct_slots[2].word();
        free(&mut memory, 2, taken);
        assert!(!take_seen(&mut memory, seen, &CtKey::default()), "free again, but not the same");
    }

    #[test]
    fn an_expired_connection_is_given_back_once() {
        let mut memory = table(1);
        open(&mut memory, &key(1, 7), &zone(1, 9)).unwrap();
        assert!(!take(&mut memory, 0, NOBODY, NOW), "live");
        assert!(take(&mut memory, 0, NOBODY, NOW + (1 << 50)));
        assert!(!take(&mut memory, 0, NOBODY, NOW + (1 << 50)), "taken");
        assert_eq!((memory.ct_used[&1], memory.ct.len()), (0, 0));
    }

    #[test]
    fn a_slot_that_another_cpu_fills_is_left_alone() {
        let mut memory = table(1);
        assert!(take(&mut memory, 0, NOBODY, NOW));
        let before = memory.ct_slots[0];
        let refused = open(&mut memory, &key(1, 7), &zone(1, 9));
        assert_eq!(refused, Err(DropReason::ConntrackFull));
        assert_eq!(memory.ct_slots[0], before);
    }

    #[test]
    fn the_connections_of_one_port_keep_none_of_another_out() {
        // Port 1 has half of the table, opened in one go or laid out side by side.
        for side_by_side in [true, false] {
            let mut memory = table(4_096);
            for number in 0..2_048_u16 {
                if side_by_side {
                    let slot = CtSlot {
                        last_seen_ns: NOW,
                        key: key(1, number),
                        state: 2,
                        ..CtSlot::default()
                    };
                    memory.put_connection(u32::from(number), slot);
                } else {
                    open(&mut memory, &key(1, number), &zone(1, 4_096)).unwrap();
                }
            }
            for number in 0..512 {
                open(&mut memory, &key(2, number), &zone(2, 4_096)).unwrap();
            }
        }
    }

    #[test]
    fn a_port_at_its_budget_moves_nobody() {
        let mut memory = table(256);
        let first = open(&mut memory, &key(1, 1), &zone(1, 1));
        let hand = memory.ct_hand;
        let second = open(&mut memory, &key(1, 2), &zone(1, 1));
        assert_eq!((first, second), (Ok(()), Err(DropReason::ConntrackPortBudget)));
        assert_eq!(memory.ct_hand, hand);
    }

    #[test]
    fn every_slot_of_a_table_of_any_size_is_in_reach() {
        for slots in [1, 2, 96, 256, 1_000] {
            let mut seen = vec![false; usize::try_from(slots).unwrap()];
            for hand in 0..slots * 4 {
                let mut walk = Walk::of_claim(slots, hand, NOW);
                for _ in 0..TRIES {
                    seen[usize::try_from(walk.number()).unwrap()] = true;
                    walk.step();
                }
            }
            assert!(seen.into_iter().all(|seen| seen), "{slots} slots");
        }
    }
}
