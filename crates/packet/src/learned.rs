//! Where machines are that nobody has told us of: the map `learned`, which the programs fill from
//! the frames of foreign VTEPs, as a bridge learns.
//!
//! Each network has an area of its own, so nobody who makes up MACs there costs another network
//! anything. A MAC may be in a few slots next to each other, which one is drawn by lot. A newcomer
//! takes a slot whose MAC has not been heard of for [`LEARNED_TICKS`]; if all are in use, it is not
//! learned, and what is for it is flooded. Nobody clears up: an agent that is dead is not missed.
//!
//! CPUs race for a slot, word by word. What comes of it is a MAC behind another foreign VTEP of the
//! same network, until its next frame.

use crate::addr::Mac;
use crate::kernel::{Kernel, Meta};
use crate::maps::{FloodKey, Learned};
use crate::net::Net;
use crate::parse::Packet;
use crate::sizes::{LEARNED_PER_NET, LEARNED_TICKS, LEARNING_NETS};
use crate::slots::mix;
use crate::{Fdb, tick};

/// Slots that a MAC may be in.
const WAYS: u32 = 8;

/// Notes that whoever sent the frame is behind the VTEP that it came from.
#[inline(never)]
pub(crate) fn note<K: Kernel>(kernel: &mut K, meta: &Meta, packet: &Packet) {
    let (net, mac) = (packet.path.net_in, packet.source_mac);
    let (Some(first), now) = (first(kernel, &packet.path.net, mac), now(meta)) else { return };
    let mut free = None;
    let mut way = 0;
    while way < WAYS {
        let Some(slot) = kernel.learned(first + way) else { return };
        if slot.net == net && slot.mac.same(mac) {
            free = Some(first + way);
            break;
        }
        if free.is_none() && !is_heard(slot, net, now) {
            free = Some(first + way);
        }
        way += 1;
    }
    let Some(slot) = free.and_then(|free| kernel.learned(free)) else { return };
    // Most frames bring nothing new: other CPUs keep the line in their caches then.
    if slot.net != net || slot.tick != now || !slot.mac.same(mac) || !slot.vtep.same(&meta.vtep) {
        *slot = Learned { net, mac, pad: [0; 2], tick: now, vtep: meta.vtep };
    }
}

/// Makes the packet's station the foreign VTEP behind which the frame's destination was last heard
/// of, if it was.
#[inline(never)]
pub(crate) fn find<K: Kernel>(kernel: &mut K, meta: &Meta, packet: &mut Packet) -> bool {
    kernel.is_given();
    let (net, mac) = (packet.path.net_out, packet.destination_mac);
    let (Some(first), now) = (first(kernel, &packet.path.net, mac), now(meta)) else {
        return false;
    };
    // All VTEPs of a network have VNI and our own VTEP in common.
    let Some(any) = kernel.afar(&FloodKey { net, index: 0 }) else { return false };
    let mut way = 0;
    while way < WAYS {
        let Some(slot) = kernel.learned(first + way) else { return false };
        if slot.mac.same(mac) && is_heard(slot, net, now) {
            packet.station = Fdb::remote(any.vni, slot.vtep).sent_from(any.local);
            return true;
        }
        way += 1;
    }
    false
}

#[inline(always)]
fn now(meta: &Meta) -> u32 {
    (tick(meta.now_ns) & 0xffff_ffff) as u32
}

/// Whether the machine in this slot is of this network and was heard of lately.
#[inline(always)]
fn is_heard(slot: &Learned, net: u32, now: u32) -> bool {
    slot.net == net && now.wrapping_sub(slot.tick) <= LEARNED_TICKS
}

/// The first slot that the MAC may be in; `None` if the network does not learn.
#[inline(always)]
fn first<K: Kernel>(kernel: &K, of: &Net, mac: Mac) -> Option<u32> {
    const SETS: u64 = (LEARNED_PER_NET / WAYS) as u64;
    if of.area == 0 || of.area > LEARNING_NETS {
        return None;
    }
    let [a, b, c, d, e, f] = mac.0;
    let number = u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]) ^ kernel.config()?.seed;
    let set = (mix(mix(number)) >> 20) % SETS;
    Some((u32::from(of.area) - 1) * LEARNED_PER_NET + (set & 0xffff) as u32 * WAYS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizes::LEARNED_SLOTS;
    use crate::vectors::Memory;
    use crate::{Addr, Afar, Config, Net, Path};

    const NET: u32 = 7;

    fn memory() -> Memory {
        let mut memory =
            Memory { config: Config { seed: 0x5eed, ..Config::default() }, ..Memory::default() };
        let afar = Afar { vni: 100, local: vtep(1), vtep: vtep(2), is_foreign: 1 };
        for net in [NET, NET + 1] {
            memory.afar.insert(FloodKey { net, index: 0 }, afar);
        }
        memory
    }

    fn vtep(last: u8) -> Addr {
        Addr::v4([192, 0, 2, last])
    }

    fn mac(number: u32) -> Mac {
        let [a, b, c, d] = number.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    /// A frame from behind a VTEP, so many ticks after the start.
    fn at(tick: u64, last: u8) -> Meta {
        Meta { now_ns: (1_000 + tick) << 30, vtep: vtep(last), ..Meta::default() }
    }

    /// A packet from this MAC to it, in this network, which has this area.
    fn packet((net, area): (u32, u16), mac: Mac) -> Packet {
        let of = Net::open().with_foreign_vteps().learning_in(area);
        let path = Path { net_in: net, net: of, net_out: net, identity: 0 };
        Packet { path, source_mac: mac, destination_mac: mac, ..Packet::default() }
    }

    fn is_at(memory: &mut Memory, meta: &Meta, of: (u32, u16), mac: Mac) -> Option<Addr> {
        let mut packet = packet(of, mac);
        find(memory, meta, &mut packet).then(|| *packet.station.behind().1)
    }

    #[test]
    fn a_machine_is_where_it_was_last_heard_of_until_it_is_silent_for_long() {
        let mut memory = memory();
        assert_eq!(is_at(&mut memory, &at(0, 0), (NET, 1), mac(1)), None);
        note(&mut memory, &at(0, 8), &packet((NET, 1), mac(1)));
        assert_eq!(is_at(&mut memory, &at(280, 0), (NET, 1), mac(1)), Some(vtep(8)));
        note(&mut memory, &at(100, 9), &packet((NET, 1), mac(1)));
        assert_eq!(is_at(&mut memory, &at(380, 0), (NET, 1), mac(1)), Some(vtep(9)), "it moved");
        assert_eq!(is_at(&mut memory, &at(381, 0), (NET, 1), mac(1)), None);
        assert_eq!(is_at(&mut memory, &at(100, 0), (NET, 1), mac(2)), None);
        assert_eq!(is_at(&mut memory, &at(100, 0), (NET + 1, 1), mac(1)), None, "another network");
    }

    #[test]
    fn whoever_makes_up_macs_fills_the_own_networks_area_and_nothing_else() {
        let mut memory = memory();
        note(&mut memory, &at(0, 8), &packet((NET + 1, 2), mac(1)));
        note(&mut memory, &at(0, 8), &packet((NET, 1), mac(1)));
        for number in 2..100_000 {
            note(&mut memory, &at(1, 9), &packet((NET, 1), mac(number)));
        }
        let used = |of: u32| memory.learned.values().filter(|slot| slot.net == of).count();
        assert_eq!(used(NET), usize::try_from(LEARNED_PER_NET).unwrap());
        assert_eq!(used(NET + 1), 1);
        assert!(memory.learned.keys().all(|slot| *slot < LEARNED_SLOTS));
        assert_eq!(is_at(&mut memory, &at(1, 0), (NET, 1), mac(1)), Some(vtep(8)), "stays");
        // Once those are silent, others are learned.
        note(&mut memory, &at(400, 8), &packet((NET, 1), mac(200_000)));
        assert_eq!(is_at(&mut memory, &at(400, 0), (NET, 1), mac(200_000)), Some(vtep(8)));
    }

    #[test]
    fn a_network_without_an_area_learns_nothing() {
        let mut memory = memory();
        for area in [0, LEARNING_NETS + 1] {
            note(&mut memory, &at(0, 8), &packet((NET, area), mac(1)));
            assert_eq!(is_at(&mut memory, &at(0, 0), (NET, area), mac(1)), None);
        }
        assert!(memory.learned.is_empty());
    }
}
