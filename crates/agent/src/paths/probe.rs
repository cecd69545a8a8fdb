//! The packets with which hosts find out whether tunnels between them work: VXLAN packets as tunnels
//! send them, of a length that is chosen, in no network.
//!
//! ```text
//! IP | UDP to the port of tunnels | VXLAN: flags 0x09, VNI 0 | Ethernet | what follows, zeros
//!    0: "nlprobe1"  8: kind (1 asks, 2 answers)  9: zeros  12: length of the packet  16: number
//! ```
//! The flag 0x01 is what VXLAN-GPE calls OAM: a tunnel device drops such packets without a word, and
//! our programs leave them to the host's stack. Sources: RFC 7348, RFC 791, RFC 8200, RFC 768, and
//! draft-ietf-nvo3-vxlan-gpe (the flag).

use std::net::IpAddr;

/// The first word behind the UDP header.
pub(crate) const WORD: u32 = 0x0900_0000;
/// Local experimental ethertype (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const MAGIC: &[u8; 8] = b"nlprobe1";
/// UDP, VXLAN and Ethernet headers, and what a probe says.
const INSIDE_BYTES: usize = 8 + 8 + 14 + 24;
/// The shortest probe, in bytes of the IP packet.
pub(crate) const SHORT_BYTES: u32 = 100;
/// The longest.
pub(crate) const LONGEST_BYTES: u32 = 9_216;
/// As tunnels have it.
const TTL: u8 = 64;
const UDP: u8 = 17;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whoever gets it is to answer.
    Ask,
    /// The answer, as long as what has asked.
    Answer,
}

/// A probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) kind: Kind,
    /// Length of the IP packet, in bytes.
    pub(crate) bytes: u32,
    /// Drawn at random by whoever asks: nobody else can answer.
    pub(crate) number: u64,
}

impl Probe {
    /// The IP packet, not to be cut in pieces on its way.
    pub(crate) fn packet(&self, (from, to): (IpAddr, IpAddr), port: u16) -> Option<Vec<u8>> {
        let bytes = usize::try_from(self.bytes.clamp(SHORT_BYTES, LONGEST_BYTES)).ok()?;
        let mut packet = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let length = u16::try_from(bytes).ok()?.to_be_bytes();
                // Don't fragment. The kernel fills in identity and checksum.
                let mut ip = vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, TTL, UDP, 0, 0];
                ip.extend(from.octets());
                ip.extend(to.octets());
                ip
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let length = u16::try_from(bytes.checked_sub(40)?).ok()?.to_be_bytes();
                let mut ip = vec![0x60, 0, 0, 0, length[0], length[1], UDP, TTL];
                ip.extend(from.octets());
                ip.extend(to.octets());
                ip
            }
            _ => return None,
        };
        let start = packet.len();
        packet.extend(self.inside(bytes.checked_sub(start)?, port)?);
        if from.is_ipv6() {
            let sum = checksum(&packet[8..40], &packet[start..]).to_be_bytes();
            packet[start + 6..start + 8].copy_from_slice(&sum);
        }
        Some(packet)
    }

    /// UDP header and what follows, so many bytes.
    fn inside(&self, bytes: usize, port: u16) -> Option<Vec<u8>> {
        let mut inside = Vec::with_capacity(bytes);
        // As a flow's, which the number chooses.
        let source = 32_768 + u16::try_from(self.number % 28_000).ok()?;
        inside.extend(source.to_be_bytes());
        inside.extend(port.to_be_bytes());
        inside.extend(u16::try_from(bytes).ok()?.to_be_bytes());
        inside.extend([0, 0]);
        inside.extend(WORD.to_be_bytes());
        inside.extend([0; 4]);
        inside.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        inside.extend(ETHERTYPE);
        inside.extend(MAGIC);
        inside.extend([if self.kind == Kind::Ask { 1 } else { 2 }, 0, 0, 0]);
        inside.extend(self.bytes.to_be_bytes());
        inside.extend(self.number.to_be_bytes());
        inside.resize(bytes.max(INSIDE_BYTES), 0);
        Some(inside)
    }

    /// Reads what follows an IP header of this length; `None` if that is no probe, or not whole.
    pub(crate) fn read(inside: &[u8], ip_bytes: usize) -> Option<Self> {
        let told = inside.get(..INSIDE_BYTES)?;
        let [.., length0, length1, _, _] = *told.first_chunk::<8>()?;
        let is_whole = usize::from(u16::from_be_bytes([length0, length1])) == inside.len();
        let is_probe = told[8..12] == WORD.to_be_bytes()
            && told[28..30] == ETHERTYPE
            && told[30..38] == *MAGIC;
        let kind = match told[38] {
            1 => Kind::Ask,
            2 => Kind::Answer,
            _ => return None,
        };
        let bytes = u32::from_be_bytes(told[42..46].try_into().ok()?);
        let number = u64::from_be_bytes(told[46..54].try_into().ok()?);
        let is_long = usize::try_from(bytes).ok()? == ip_bytes + inside.len();
        (is_whole && is_probe && is_long).then_some(Self { kind, bytes, number })
    }
}

/// Of UDP over IPv6, where it is never absent (RFC 8200, 8.1): both addresses, the length and the
/// protocol, and all that follows.
fn checksum(addresses: &[u8], inside: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let length = u32::try_from(inside.len()).unwrap_or(0);
    let words = addresses.chunks(2).chain(inside.chunks(2)).map(word);
    let mut sum = words.sum::<u32>() + length + u32::from(UDP);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !u16::try_from(sum).unwrap_or(0) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_read_as_it_was_written_in_both_families_and_lengths() {
        for (ends, ip_bytes) in
            [(("192.0.2.1", "192.0.2.2"), 20), (("2001:db8::1", "2001:db8::2"), 40)]
        {
            let ends = (ends.0.parse().unwrap(), ends.1.parse().unwrap());
            for kind in [Kind::Ask, Kind::Answer] {
                for bytes in [SHORT_BYTES, 1_499, 9_000] {
                    let probe = Probe { kind, bytes, number: 0xfeed_beef };
                    let packet = probe.packet(ends, 8_472).unwrap();
                    assert_eq!(packet.len(), usize::try_from(bytes).unwrap());
                    let inside = &packet[ip_bytes..];
                    assert_eq!(Probe::read(inside, ip_bytes), Some(probe));
                    assert_eq!(Probe::read(&inside[..inside.len() - 1], ip_bytes), None, "cut");
                    assert_eq!(Probe::read(inside, ip_bytes + 1), None, "says it is longer");
                    let mut other = inside.to_vec();
                    other[8] = 8;
                    assert_eq!(Probe::read(&other, ip_bytes), None, "a frame of a network");
                }
            }
        }
        let ends = ("192.0.2.1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let probe = Probe { kind: Kind::Ask, bytes: 100, number: 1 };
        assert_eq!(probe.packet(ends, 8_472), None);
    }

    #[test]
    fn the_checksum_over_ipv6_sums_up_to_all_ones() {
        let ends = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let probe = Probe { kind: Kind::Ask, bytes: 1_501, number: 77 };
        let packet = probe.packet(ends, 8_472).unwrap();
        let words = packet[8..].chunks(2);
        let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        let mut sum: u32 = words.map(word).sum::<u32>() + 1_461 + 17;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff);
    }
}
