//! Later fragments follow their first one.
//!
//! Only the first fragment has ports, so it alone can be decided. When it has been let through on
//! one side of a port, this is noted there: zone, addresses, protocol and identification (RFC 791,
//! 3.2; RFC 8200, 4.5). A later one passes on that side if it is noted. It opens no connection.
//!
//! A later fragment that overtakes its first one is dropped, as in Cilium, and with it its packet:
//! to keep it would take memory that a VM decides about. Linux reassembles before it decides
//! (`nf_defrag_ipv4`), at that price. Between two hosts a flow has one way, so fragments stay in
//! order; Linux sends the first one first.
//!
//! Each side of each port has places of its own, so nobody's fragments push out those of another
//! port, and what comes in none of what goes out. There a note goes to one of two places that a
//! seeded hash gives, to the one that is older. What matters is how many packets are in flight in
//! the same millisecond, not how many there are.
//!
//! Why two CPUs do no harm: a note is two words. If two are written to one place at once, the place
//! may have the key of one and the time of the other, which are of the same moment.

use crate::kernel::{Direction, Kernel};
use crate::maps::{Config, Noted};
use crate::parse::Packet;
use crate::reason::DropReason;
use crate::sizes::{FRAGMENTS_EACH, FRAGMENTS_PER_PORT};
use crate::slots::mix;

/// How long later fragments may follow. Linux gives up a packet after as long
/// (`net.ipv4.ipfrag_time`); RFC 8200, 4.5 would have 60 s for IPv6.
pub const FRAGMENT_SECONDS: u64 = 30;

/// Bits of a number among the places of a side.
const MASK: u64 = FRAGMENTS_EACH as u64 - 1;
const _: () = assert!(FRAGMENTS_EACH.is_power_of_two() && FRAGMENTS_EACH <= 1 << 16);

/// Where a packet is noted.
struct Places {
    /// Its key; never 0.
    key: u64,
    /// Two of its side's places.
    numbers: [u32; 2],
}

/// Notes that the first fragment has been let through on this side of a port.
#[inline(never)]
pub(crate) fn remember<K: Kernel>(kernel: &mut K, packet: &Packet) {
    let Some(config) = kernel.config() else { return };
    let Some(Places { key, numbers: [one, other] }) = places(&config, packet) else { return };
    let until = |noted: Option<&mut Noted>| {
        noted.map_or(0, |noted| if noted.key == key { 0 } else { noted.until_ns })
    };
    let (first, second) = (until(kernel.noted(one)), until(kernel.noted(other)));
    let number = if second < first { other } else { one };
    if let Some(noted) = kernel.noted(number) {
        noted.key = key;
        noted.until_ns = packet.zone.now_ns + FRAGMENT_SECONDS * 1_000_000_000;
    }
}

/// Lets a later fragment pass whose first one has.
#[inline(never)]
pub(crate) fn follow<K: Kernel>(kernel: &mut K, packet: &Packet) -> Result<(), DropReason> {
    let alone = Err(DropReason::FragmentAlone);
    let Some(config) = kernel.config() else { return alone };
    let Some(Places { key, numbers: [one, other] }) = places(&config, packet) else {
        return alone;
    };
    if is_noted(kernel, one, key, packet) || is_noted(kernel, other, key, packet) {
        return Ok(());
    }
    alone
}

#[inline(always)]
fn is_noted<K: Kernel>(kernel: &mut K, number: u32, key: u64, packet: &Packet) -> bool {
    kernel
        .noted(number)
        .is_some_and(|noted| noted.key == key && packet.zone.now_ns <= noted.until_ns)
}

/// Where the packet is noted on this side of the port; nowhere if the port has no place.
///
/// The key is a hash of 64 bits. Whoever finds a second packet with the same one has a fragment let
/// through that no receiver can use without its first.
#[inline(always)]
fn places(config: &Config, packet: &Packet) -> Option<Places> {
    let zone = &packet.zone;
    // The first place is 1.
    let start = zone.place.checked_sub(1)? * FRAGMENTS_PER_PORT;
    let start = match zone.direction {
        Direction::FromPort => start,
        Direction::ToPort => start + FRAGMENTS_EACH,
    };
    let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (packet.source.words(), packet.destination.words());
    let mut hash = mix(config.seed ^ pair(zone.zone, packet.identification));
    // Another policy, or another network that it comes from, would have to decide anew.
    hash = mix(hash ^ pair(zone.note_of(config), zone.source_net));
    hash = mix(hash ^ pair(s0, s1));
    hash = mix(hash ^ pair(s2, s3));
    hash = mix(hash ^ pair(d0, d1));
    hash = mix(hash ^ pair(d2, d3));
    hash = mix(hash ^ u64::from(packet.protocol));
    let numbers = [32, 48].map(|shift| start + (hash >> shift & MASK) as u32);
    Some(Places { key: hash | 1, numbers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use crate::conntrack::CtZone;
    use crate::vectors::{CONNTRACK, Memory};
    use proptest::prelude::*;

    const NOW: u64 = 1_000_000_000_000;

    /// A fragment with this number on one side of the port at `place`.
    fn packet(place: u32, direction: Direction, identification: u32) -> Packet {
        let zone = CtZone { now_ns: NOW, place, zone: place + 9, direction, ..CtZone::default() };
        let source = Addr::v4([10, 0, 0, 1]);
        Packet { zone, identification, source, ..Packet::default() }
    }

    proptest! {
        #[test]
        fn nobody_elses_fragments_push_a_note_out(
            others in prop::collection::vec((1_u32..=4, any::<bool>(), any::<u32>()), 2_000),
            id in any::<u32>(),
        ) {
            let mut memory = Memory::new(CONNTRACK, 7);
            let own = packet(2, Direction::ToPort, id);
            remember(&mut memory, &own);
            for (place, out, id) in others {
                let direction = if out { Direction::FromPort } else { Direction::ToPort };
                if (place, direction) != (2, Direction::ToPort) {
                    remember(&mut memory, &packet(place, direction, id));
                }
            }
            prop_assert_eq!(follow(&mut memory, &own), Ok(()));
        }
    }

    #[test]
    fn of_packets_in_flight_in_an_eighth_of_the_places_hardly_any_is_lost() {
        const FLIGHT: u32 = FRAGMENTS_EACH / 8;
        const FLIGHTS: u32 = 1_000;
        let mut memory = Memory::new(CONNTRACK, 7);
        let mut lost = 0;
        for start in (0..FLIGHTS).map(|flight| flight * FLIGHT) {
            let flight = (start..start + FLIGHT).map(|nth| {
                let mut packet = packet(1, Direction::FromPort, nth);
                packet.zone.now_ns += u64::from(nth);
                packet
            });
            let flight: Vec<Packet> = flight.collect();
            flight.iter().for_each(|packet| remember(&mut memory, packet));
            lost += flight.iter().filter(|packet| follow(&mut memory, packet).is_err()).count();
        }
        assert!(lost < 160, "{lost} of 16,000");
    }

    #[test]
    fn a_port_without_a_place_has_no_fragments() {
        let mut memory = Memory::new(CONNTRACK, 7);
        let packet = packet(0, Direction::FromPort, 1);
        remember(&mut memory, &packet);
        assert_eq!(follow(&mut memory, &packet), Err(DropReason::FragmentAlone));
    }
}
