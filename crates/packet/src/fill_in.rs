//! A checksum that is filled in after the decision, and where.
//!
//! A VM may leave a checksum to whoever sends its frame on (`CHECKSUM_PARTIAL`; by a tap or a
//! packet socket `VIRTIO_NET_HDR_F_NEEDS_CSUM`), and says itself where to write it: two bytes,
//! anywhere in the frame, written by the last device that cannot leave it to the next one. So no
//! byte that decides may be where they go: an address or a port would be another one on arrival.
//!
//! Good places are the checksum field of the transport header, and the payload behind it: there a
//! VM's own tunnel (VXLAN, GRE, IPIP) has the checksum of what it carries. A fragment has none,
//! as Linux fills it in before it fragments (`ip_do_fragment`).

use crate::kernel::Meta;
use crate::parse::{Fragment, ICMP, ICMPV6, Packet, Role, TCP, UDP};
use crate::reason::DropReason;

/// Bytes of the field.
const FIELD: u32 = 2;
/// Where the field ends, and the fixed header, behind the network header.
const TCP_ENDS: (u32, u32) = (18, 20);
const UDP_ENDS: (u32, u32) = (8, 8);

/// Refuses a packet whose checksum would be filled in where something is that decides.
#[inline(always)]
pub(crate) fn check(meta: &Meta, packet: &Packet) -> Result<(), DropReason> {
    if meta.checksum_end == 0 || is_harmless(u32::from(meta.checksum_end), packet) {
        Ok(())
    } else {
        Err(DropReason::ChecksumMisplaced)
    }
}

/// Whether the two bytes before `end` are nothing that decides.
#[inline(never)]
fn is_harmless(end: u32, packet: &Packet) -> bool {
    // Where the field of the transport header ends, and the header, behind the network header.
    let (field_end, header_end) = match packet.protocol {
        TCP => TCP_ENDS,
        UDP => UDP_ENDS,
        // An error belongs to the connection of what it quotes.
        ICMP | ICMPV6 if packet.role == Role::Error => (4, u32::MAX / 2),
        ICMP | ICMPV6 => (4, 8),
        // Nothing of it is looked at.
        _ => (FIELD, 0),
    };
    packet.fragment == Fragment::Whole && is_at(end, packet.l4, (field_end, header_end))
}

/// The same of a whole TCP or UDP packet, whose transport header starts at `l4`.
#[inline(always)]
pub(crate) fn is_harmless_in(end: u32, protocol: u8, l4: u32) -> bool {
    end == 0 || is_at(end, l4, if protocol == TCP { TCP_ENDS } else { UDP_ENDS })
}

/// Whether the field ends there or lies behind the header.
#[inline(always)]
fn is_at(end: u32, l4: u32, (field_end, header_end): (u32, u32)) -> bool {
    end == l4 + field_end || end >= l4 + header_end + FIELD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::Memory;
    use crate::vectors::frame::{self, Ip};
    use crate::{Mac, parse};
    use proptest::prelude::*;

    /// A frame of each kind that is looked into; IPv6 with an extension header.
    fn frames() -> Vec<Vec<u8>> {
        let quoted = Ip::new("10.0.0.2", "10.0.0.1", 17, frame::udp(5, 6)).bytes();
        let payloads = [
            (6, 6, frame::tcp(1000, 80, 2)),
            (17, 17, frame::udp(1000, 53)),
            (1, 58, frame::icmp(8, 0, [0, 7, 0, 1], &[1; 8])),
            (1, 1, frame::icmp(3, 3, [0; 4], &quoted)),
            (132, 132, vec![9; 16]),
        ];
        let mut frames = Vec::new();
        for (v4, v6, mut payload) in payloads {
            payload.extend([0x55; 40]);
            let packet = Ip::new("10.0.0.1", "10.0.0.2", v4, payload.clone());
            frames.push(packet.frame(Mac([2; 6]), Mac([4; 6])));
            let packet = Ip { next: 60, ..Ip::new("fd00::1", "fd00::2", v6, payload) };
            let packet = Ip { extra: vec![v6, 0, 1, 4, 0, 0, 0, 0], ..packet };
            frames.push(packet.frame(Mac([2; 6]), Mac([4; 6])));
        }
        frames
    }

    fn parsed(frame: &[u8], checksum_end: u32) -> Result<Packet, DropReason> {
        let checksum_end = u16::try_from(checksum_end).unwrap();
        let memory = Memory { frame: frame.to_vec(), ..Memory::default() };
        let length = u32::try_from(frame.len()).unwrap();
        let meta = Meta { length, checksum_end, ..Meta::default() };
        let mut packet = Packet::default();
        parse::ethernet(&memory, &mut packet)?;
        parse::network(&memory, &meta, &mut packet)?;
        Ok(packet)
    }

    proptest! {
        /// What is let through is the same packet when the checksum has been filled in.
        #[test]
        fn whatever_is_filled_in_the_packet_stays_what_it_is(
            nth in 0_usize..10, end in 2_u32..130, sum in any::<[u8; 2]>(),
        ) {
            let frame = &frames()[nth];
            let at = usize::try_from(end).unwrap() - 2;
            prop_assume!(at + 2 <= frame.len());
            if let Ok(before) = parsed(frame, end) {
                let mut filled = frame.clone();
                filled[at..at + 2].copy_from_slice(&sum);
                prop_assert_eq!(parsed(&filled, 0), Ok(before));
            }
        }
    }

    #[test]
    fn the_field_of_the_header_and_the_payload_are_good_places() {
        for (frame, field_end) in frames().iter().zip([18, 18, 8, 8, 4, 4, 4, 4, 2, 2]) {
            let l4 = parsed(frame, 0).unwrap().l4;
            assert!(parsed(frame, l4 + field_end).is_ok());
            for end in 2..=l4 {
                assert_eq!(parsed(frame, end), Err(DropReason::ChecksumMisplaced), "{end}");
            }
        }
        let payload = parsed(&frames()[0], 14 + 20 + 20 + 2);
        assert!(payload.is_ok());
    }
}
