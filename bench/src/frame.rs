//! Frames for the programs: the smallest of each kind, with all checksums right.

use dataplane::packet::Mac;

/// Without the 4 bytes of checksum that a wire adds.
const FRAME_BYTES: usize = 60;
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const UDP: u8 = 17;

/// One end of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Station {
    /// Its hardware address.
    pub(crate) mac: Mac,
    /// Its address.
    pub(crate) ip: [u8; 4],
    /// Its UDP port.
    pub(crate) port: u16,
}

/// A UDP datagram of 18 bytes.
pub(crate) fn udp(from: Station, to: Station) -> Vec<u8> {
    datagram(from, to, &[0; 18])
}

/// A UDP datagram, without a checksum of its own (RFC 768: zero says so).
pub(crate) fn datagram(from: Station, to: Station, payload: &[u8]) -> Vec<u8> {
    const IP_BYTES: usize = 20;
    const UDP_BYTES: usize = 8;
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&length(IP_BYTES + UDP_BYTES + payload.len()));
    header[12..16].copy_from_slice(&from.ip);
    header[16..20].copy_from_slice(&to.ip);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    let mut frame = ethernet(from.mac, to.mac, IPV4);
    frame.extend(header);
    frame.extend(from.port.to_be_bytes());
    frame.extend(to.port.to_be_bytes());
    frame.extend(length(UDP_BYTES + payload.len()));
    frame.extend([0, 0]);
    frame.extend(payload);
    frame.resize(frame.len().max(FRAME_BYTES), 0);
    frame
}

/// Who has this address?
pub(crate) fn arp_request(from: Station, wanted: [u8; 4]) -> Vec<u8> {
    let mut frame = ethernet(from.mac, Mac::BROADCAST, ARP);
    // RFC 826: Ethernet, IPv4, lengths 6 and 4, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(from.mac.0);
    frame.extend(from.ip);
    frame.extend([0; 6]);
    frame.extend(wanted);
    frame.resize(FRAME_BYTES, 0);
    frame
}

fn ethernet(from: Mac, to: Mac, ethertype: [u8; 2]) -> Vec<u8> {
    let mut frame = to.0.to_vec();
    frame.extend(from.0);
    frame.extend(ethertype);
    frame
}

/// RFC 1071.
fn checksum(header: &[u8]) -> [u8; 2] {
    let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = (!((folded & 0xffff) + (folded >> 16))).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_a_known_header() {
        // Wikipedia, "Internet checksum": 0xb861.
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        assert_eq!(checksum(&header), [0xb8, 0x61]);
    }

    #[test]
    fn frames_are_the_smallest_there_are() {
        let one = Station { mac: Mac([2; 6]), ip: [10, 0, 0, 1], port: 1 };
        assert_eq!(udp(one, one).len(), FRAME_BYTES);
        assert_eq!(arp_request(one, [10, 0, 0, 2]).len(), FRAME_BYTES);
    }
}
