//! The outer packet around a frame. VXLAN that passes by the tunnel device is made as the device would
//! make it, and opened where the device would do nothing but that. GRE has no device: all of it is
//! made and opened here. Sources: RFC 7348 (VXLAN), RFC 2784 and RFC 2890 (GRE and its key), RFC 7637, 3.2 (Ethernet
//! in GRE), RFC 791, RFC 6040 (congestion notification).

use crate::addr::Addr;
use crate::checksum::Checksum;
use crate::kernel::{Kernel, Meta};
use crate::parse::{ETHERNET_BYTES, ETHERTYPE_IPV4, FRAGMENT_BITS, IPV4_BYTES, UDP};
use crate::sizes::{GRE, GRE_OUTER_BYTES, OUTER_BYTES, TUNNEL_TTL};

/// Bytes of what comes before the inner IP header.
pub const HEADER_BYTES: u32 = OUTER_BYTES + 14;
/// The same of GRE.
pub const GRE_HEADER_BYTES: u32 = GRE_OUTER_BYTES + 14;
/// IP protocol number of GRE.
const GRE_PROTOCOL: u8 = 47;
/// A GRE header with a key and nothing else, version 0, around an Ethernet frame (RFC 2890, 2).
const GRE_START: [u8; 4] = [0x20, 0, 0x65, 0x58];
/// IPv4: don't fragment. Nobody puts GRE together again: what is too long for the way is lost where
/// that is seen.
const DONT_FRAGMENT: u8 = 0x40;
/// VXLAN: the VNI is valid. All other bits are zero (RFC 7348, 5).
const VNI_IS_VALID: u8 = 0x08;
/// Source ports of flows, without the last, as in Linux's `udp_flow_src_port` with the default
/// `net.ipv4.ip_local_port_range`. With the device's own port for a flow, its packets stay in order
/// whichever way each of them takes.
const SOURCE_PORTS: (u32, u32) = (32_768, 60_999);
/// Congestion notification in the byte of the traffic class: its bits, "experienced", "capable".
const ECN: u8 = 3;
const ECN_EXPERIENCED: u8 = 3;
const ECN_CAPABLE: u8 = 2;

/// What is said of an outer packet.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// VXLAN network identifier; of GRE its key, and [`GRE`].
    pub vni: u32,
    /// Where to: an IPv4 address in network order.
    pub vtep: u32,
    /// Whence, the same.
    pub local: u32,
    /// UDP destination port.
    pub port: u32,
    /// Bytes of the frame.
    pub length: u32,
    /// The kernel's hash of the frame's flow.
    pub hash: u32,
    /// Tells the fragments of one outer packet from those of another. 16 bits count.
    pub identity: u32,
}

impl Outer {
    /// IPv4, UDP and VXLAN headers and the frame's own Ethernet header: [`HEADER_BYTES`] and two
    /// more, in words of memory order. `frame` is the frame's start.
    #[inline(always)]
    #[must_use]
    pub fn headers(&self, frame: &[u32; 4]) -> [u32; 13] {
        let ip = self.ip(frame, (UDP, 0, OUTER_BYTES));
        let [s0, s1] = short(self.source_port());
        let [p0, p1] = short(self.port);
        let [u0, u1] = short(self.length + OUTER_BYTES - 20);
        [
            ip[0],
            ip[1],
            ip[2],
            ip[3],
            ip[4],
            u32::from_ne_bytes([s0, s1, p0, p1]),
            // RFC 7348, 5: a checksum of zero.
            u32::from_ne_bytes([u0, u1, 0, 0]),
            u32::from_ne_bytes([VNI_IS_VALID, 0, 0, 0]),
            (self.vni << 8).to_be(),
            frame[0],
            frame[1],
            frame[2],
            frame[3],
        ]
    }

    /// IPv4 and GRE headers and the frame's own Ethernet header: [`GRE_HEADER_BYTES`] and two more.
    #[inline(always)]
    #[must_use]
    pub fn gre_headers(&self, frame: &[u32; 4]) -> [u32; 11] {
        let ip = self.ip(frame, (GRE_PROTOCOL, DONT_FRAGMENT, GRE_OUTER_BYTES));
        [
            ip[0],
            ip[1],
            ip[2],
            ip[3],
            ip[4],
            u32::from_ne_bytes(GRE_START),
            (self.vni & !GRE).to_be(),
            frame[0],
            frame[1],
            frame[2],
            frame[3],
        ]
    }

    /// The IPv4 header of a packet of this protocol, with these flags, that has so many bytes around the frame.
    #[inline(always)]
    fn ip(&self, frame: &[u32; 4], (protocol, flags, around): (u8, u8, u32)) -> [u32; 5] {
        let total = self.length + around;
        // What is yet to be segmented may be longer than any packet: Linux writes 0 then.
        let [l0, l1] = short(if total > 0xffff { 0 } else { total });
        let [i0, i1] = short(self.identity);
        let mut ip = [
            u32::from_ne_bytes([0x45, congestion(frame[3]), l0, l1]),
            u32::from_ne_bytes([i0, i1, flags, 0]),
            u32::from_ne_bytes([TUNNEL_TTL, protocol, 0, 0]),
            self.local,
            self.vtep,
        ];
        let mut checksum = Checksum::new();
        checksum.add(&ip);
        let [c0, c1] = checksum.finish();
        ip[2] = u32::from_ne_bytes([TUNNEL_TTL, protocol, c0, c1]);
        ip
    }

    #[inline(always)]
    fn source_port(&self) -> u32 {
        let (first, end) = SOURCE_PORTS;
        let hash = u64::from(self.hash ^ self.hash << 16);
        first + ((hash * u64::from(end - first)) >> 32 & 0xffff) as u32
    }
}

/// Takes the outer packet for opened: `meta` tells of the tunnel and of the frame inside, as the
/// tunnel device would. `None` if this is not a plain VXLAN packet, complete and without segments,
/// about which the device would have nothing more to decide.
#[inline(always)]
pub(crate) fn open<K: Kernel>(kernel: &K, meta: &mut Meta) -> Option<()> {
    let config = kernel.config()?;
    let [_, _, _, start] = kernel.peek_words(0)?;
    let ip: [u32; 5] = kernel.peek_words(ETHERNET_BYTES)?;
    let [ports, rest, flags, vni] = kernel.peek_words(ETHERNET_BYTES + IPV4_BYTES)?;
    let [type0, type1, version_ihl, class] = start.to_ne_bytes();
    let [_, _, len0, len1] = ip[0].to_ne_bytes();
    let [_, _, frag0, frag1] = ip[1].to_ne_bytes();
    let [_, protocol, _, _] = ip[2].to_ne_bytes();
    let [_, _, port0, port1] = ports.to_ne_bytes();
    let [udp0, udp1, sum0, sum1] = rest.to_ne_bytes();
    let [vni0, vni1, vni2, reserved] = vni.to_ne_bytes();
    let is_ours = u16::from_be_bytes([type0, type1]) == ETHERTYPE_IPV4
        && version_ihl == 0x45
        && protocol == UDP
        && config.direct_port != 0
        && config.tunnel_ifindex != 0
        && u32::from(u16::from_be_bytes([port0, port1])) == config.direct_port
        && flags == u32::from_ne_bytes([VNI_IS_VALID, 0, 0, 0])
        && reserved == 0;
    let total = u32::from(u16::from_be_bytes([len0, len1]));
    let udp = u32::from(u16::from_be_bytes([udp0, udp1]));
    let is_whole = u16::from_be_bytes([frag0, frag1]) & FRAGMENT_BITS == 0
        && ETHERNET_BYTES + total == meta.length
        && IPV4_BYTES + udp == total
        && total >= HEADER_BYTES
        && meta.gso_size == 0
        && meta.vlan == 0;
    // What was experienced on the way goes inside, see RFC 6040.
    let is_simple = [sum0, sum1] == [0, 0] && class & ECN != ECN_EXPERIENCED;
    let mut checksum = Checksum::new();
    checksum.add(&ip);
    if !(is_ours && is_whole && is_simple) || checksum.finish() != [0, 0] {
        return None;
    }
    meta.vni = u32::from_be_bytes([0, vni0, vni1, vni2]);
    inside(meta, &ip, config.tunnel_ifindex, HEADER_BYTES);
    Some(())
}

/// The same of a GRE packet that has a key of 24 bits, an Ethernet frame in it, and nothing else: no
/// other flag, no fragment. It may be yet to be segmented. Whether congestion was experienced on the way.
#[inline(always)]
pub(crate) fn open_gre<K: Kernel>(kernel: &K, meta: &mut Meta) -> Option<bool> {
    let config = kernel.config()?;
    // What a card has not put where it costs nothing to read has to be read all the same: there
    // is no device that could.
    let [_, _, _, start] = kernel.load_words(0)?;
    let ip: [u32; 5] = kernel.load_words(ETHERNET_BYTES)?;
    let [gre, key] = kernel.load_words(ETHERNET_BYTES + IPV4_BYTES)?;
    let [type0, type1, version_ihl, class] = start.to_ne_bytes();
    let [_, _, len0, len1] = ip[0].to_ne_bytes();
    let [_, _, frag0, frag1] = ip[1].to_ne_bytes();
    let [_, protocol, _, _] = ip[2].to_ne_bytes();
    let is_ours = u16::from_be_bytes([type0, type1]) == ETHERTYPE_IPV4
        && version_ihl == 0x45
        && protocol == GRE_PROTOCOL
        && config.direct_port != 0
        && config.tunnel_ifindex != 0
        && gre == u32::from_ne_bytes(GRE_START)
        && u32::from_be(key) < GRE;
    let total = u32::from(u16::from_be_bytes([len0, len1]));
    let is_longer = meta.gso_size != 0 && total == 0 && meta.length > ETHERNET_BYTES + 0xffff;
    let is_whole = u16::from_be_bytes([frag0, frag1]) & FRAGMENT_BITS == 0
        && (ETHERNET_BYTES + total == meta.length || is_longer)
        && meta.length >= ETHERNET_BYTES + GRE_HEADER_BYTES
        && meta.vlan == 0;
    let mut checksum = Checksum::new();
    checksum.add(&ip);
    if !(is_ours && is_whole) || checksum.finish() != [0, 0] {
        return None;
    }
    meta.vni = u32::from_be(key) | GRE;
    inside(meta, &ip, config.tunnel_ifindex, GRE_OUTER_BYTES + ETHERNET_BYTES);
    Some(class & ECN == ECN_EXPERIENCED)
}

/// Has `meta` tell of the frame inside, which begins after so many bytes.
#[inline(always)]
fn inside(meta: &mut Meta, ip: &[u32; 5], tunnel: u32, around: u32) {
    meta.vtep = Addr::v4_word(ip[3]);
    meta.local = Addr::v4_word(ip[4]);
    meta.tunnelled = 1;
    meta.ifindex = tunnel;
    meta.length -= around;
    let end = u32::from(meta.checksum_end);
    if end != 0 {
        // In the outer headers is as bad as at the start of the frame.
        let inside = if end > around { end - around } else { 1 };
        meta.checksum_end = (inside & 0xffff) as u16;
    }
}

/// The outer traffic class: what the inner one says of congestion, by RFC 6040's compatibility
/// mode, as Linux's `INET_ECN_encapsulate`. `word` has ethertype and first two bytes of the packet.
#[inline(always)]
fn congestion(word: u32) -> u8 {
    let [type0, type1, first, second] = word.to_ne_bytes();
    let class = match u16::from_be_bytes([type0, type1]) {
        ETHERTYPE_IPV4 => second,
        // IPv6: version, class, flow label.
        _ => first << 4 | second >> 4,
    };
    if class & ECN == ECN_EXPERIENCED { ECN_CAPABLE } else { class & ECN }
}

/// The lower 16 bits in network order.
#[inline(always)]
const fn short(number: u32) -> [u8; 2] {
    let [_, _, high, low] = number.to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::frame::{Ip, gre, udp, vxlan, with_class};
    use crate::vectors::gres;
    use crate::{Addr, Mac, Meta, Packet, parse};

    fn words(frame: &[u8]) -> [u32; 4] {
        std::array::from_fn(|at| u32::from_ne_bytes(frame[4 * at..4 * at + 4].try_into().unwrap()))
    }

    #[test]
    fn the_outer_packet_is_one_to_the_vtep_with_the_frame_in_it() {
        let inner = Ip::new("10.0.0.1", "10.0.0.2", 17, udp(1, 2)).frame(Mac([2; 6]), Mac([4; 6]));
        let length = u32::try_from(inner.len()).unwrap();
        let [vtep, local] = [[192, 0, 2, 2], [192, 0, 2, 1]].map(u32::from_ne_bytes);
        let outer = Outer {
            vni: 0x12_3456,
            vtep,
            local,
            port: 8_472,
            length,
            hash: 0xdead_beef,
            identity: 7,
        };
        let headers: Vec<u8> =
            outer.headers(&words(&inner)).iter().flat_map(|word| word.to_ne_bytes()).collect();
        // As the VM's parser sees it, behind an Ethernet header of the next hop.
        let mut frame = inner[..14].to_vec();
        frame.extend(&headers[..usize::try_from(HEADER_BYTES).unwrap()]);
        frame.extend(&inner[14..]);
        let length = u32::try_from(frame.len()).unwrap();
        let memory = crate::vectors::Memory { frame, ..Default::default() };
        let meta = Meta { length, ..Meta::default() };
        let mut packet = Packet::default();
        parse::ethernet(&memory, &mut packet).unwrap();
        parse::network(&memory, &meta, &mut packet).unwrap();
        let ends = (Addr::v4_word(local), Addr::v4_word(vtep));
        assert_eq!((packet.source, packet.destination), ends);
        assert_eq!((packet.protocol, packet.destination_port), (17, 8_472));
        assert_eq!(packet.end, length, "the length is that of the frame and the headers");
        assert!((32_768..60_999).contains(&packet.source_port));
        assert_eq!(headers[28..36], [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
        assert_eq!(headers[36..50], inner[..14]);
        let mut sum = Checksum::new();
        let ip: [u32; 5] = outer.headers(&words(&inner))[..5].try_into().unwrap();
        sum.add(&ip);
        assert_eq!(sum.finish(), [0, 0], "the header with its checksum sums up to all ones");
        assert_eq!(u16::from_be_bytes([headers[24], headers[25]]), 8 + 8 + 14 + 20 + 12);
    }

    /// A frame with an outer packet around it, from 192.0.2.1 to 192.0.2.2.
    fn in_outer() -> Vec<u8> {
        let inner = Ip::new("10.0.0.1", "10.0.0.2", 17, udp(1, 2)).frame(Mac([2; 6]), Mac([4; 6]));
        vxlan(VNI, ("192.0.2.1", "192.0.2.2"), 8_472, &inner)
    }

    const VNI: u32 = 0x12_3456;

    /// What an outer packet is taken for.
    fn opened(frame: &[u8], with: impl Fn(&mut Meta)) -> Option<Meta> {
        let mut memory =
            crate::vectors::Memory { frame: frame.to_vec(), ..crate::vectors::Memory::default() };
        (memory.config.direct_port, memory.config.tunnel_ifindex) = (8_472, 9);
        let length = u32::try_from(frame.len()).unwrap();
        let mut meta = Meta { length, ifindex: 5, ..Meta::default() };
        with(&mut meta);
        open(&memory, &mut meta).map(|()| meta)
    }

    #[test]
    fn an_outer_packet_is_opened_as_the_tunnel_device_would() {
        let frame = in_outer();
        let length = u32::try_from(frame.len()).unwrap() - HEADER_BYTES;
        let [vtep, local] = [1, 2].map(|last| Addr::v4([192, 0, 2, last]));
        let meta =
            Meta { ifindex: 9, length, vni: VNI, vtep, local, tunnelled: 1, ..Meta::default() };
        assert_eq!(opened(&frame, |_| {}), Some(meta));
        for (end, inside) in [(50 + 42, 42), (64, 14), (50, 1), (24, 1)] {
            let opened = opened(&frame, |meta| meta.checksum_end = end).unwrap();
            assert_eq!(opened.checksum_end, inside, "{end}");
        }
        assert_eq!(opened(&frame, |meta| meta.gso_size = 1_400), None, "segments");
        assert_eq!(opened(&frame, |meta| meta.vlan = 7), None, "a tag");
        assert_eq!(opened(&[frame.as_slice(), &[0]].concat(), |_| {}), None, "a trailer");
        for length in 0..frame.len() {
            assert_eq!(opened(&frame[..length], |_| {}), None, "cut at {length}");
        }
    }

    #[test]
    fn a_changed_bit_makes_an_outer_packet_the_devices_affair() {
        let frame = in_outer();
        let plain = opened(&frame, |_| {}).unwrap();
        for bit in 0..(14 + 36) * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = opened(&changed, |_| {});
            match bit / 8 {
                // MACs of the wire, and the source port: the device ignores them, too.
                0..12 | 34 | 35 => assert_eq!(opened, Some(plain), "bit {bit}"),
                46..49 => {
                    let vni = u32::from_be_bytes([0, changed[46], changed[47], changed[48]]);
                    assert_eq!(opened, Some(Meta { vni, ..plain }), "bit {bit}");
                }
                _ => assert_eq!(opened, None, "bit {bit}"),
            }
        }
        // With a checksum that is right.
        let mut experienced = frame.clone();
        experienced[15] = 3;
        let sum = u16::from_be_bytes([frame[24], frame[25]]) - 3;
        experienced[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(opened(&experienced, |_| {}), None, "congestion goes inside");
        experienced[15] = 2;
        experienced[24..26].copy_from_slice(&(sum + 1).to_be_bytes());
        assert_eq!(opened(&experienced, |_| {}), Some(plain));
    }

    #[test]
    fn gre_is_made_as_on_the_wire_and_opened_again() {
        for vector in gres() {
            let length = u32::try_from(vector.frame.len()).unwrap();
            let [vtep, local] = vector.ends.map(|end| end.words()[3]);
            let vni = vector.key | GRE;
            let outer = Outer { vni, vtep, local, port: 0, length, hash: 0, identity: 0 };
            let headers = outer.gre_headers(&words(&vector.frame));
            let headers: Vec<u8> = headers.iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!(headers[..42], vector.outer[14..56], "{}", vector.name);
            // On the way back the ends are the other way round.
            let [local, vtep] = vector.ends;
            let meta =
                Meta { ifindex: 9, length, vni, vtep, local, tunnelled: 1, ..Meta::default() };
            assert_eq!(opened_gre(&vector.outer, |_| {}), Some((meta, false)), "{}", vector.name);
        }
    }

    #[test]
    fn segments_in_gre_are_opened_however_long_they_are() {
        let [udp, ..] = &gres()[..] else { panic!() };
        let segments = |meta: &mut Meta| meta.gso_size = 1_400;
        assert!(opened_gre(&udp.outer, segments).is_some());
        let mut long = udp.outer.clone();
        long.resize(14 + 70_000, 0);
        long[16..18].fill(0);
        let long = with_class(long, 0);
        assert!(opened_gre(&long, segments).is_some());
        assert_eq!(opened_gre(&long, |_| {}), None, "no segments, and a length of zero");
        let outer =
            Outer { vni: GRE, vtep: 0, local: 0, port: 0, length: 65_508, hash: 0, identity: 0 };
        assert_eq!(outer.gre_headers(&[0; 4])[0].to_ne_bytes()[2..], [0, 0]);
        let outer = Outer { length: 65_507, ..outer };
        assert_eq!(outer.gre_headers(&[0; 4])[0].to_ne_bytes()[2..], [0xff, 0xff]);
    }

    #[test]
    fn a_changed_bit_makes_gre_somebody_elses() {
        let [udp, ..] = &gres()[..] else { panic!() };
        let (plain, _) = opened_gre(&udp.outer, |_| {}).unwrap();
        for bit in 0..(14 + 28) * 8 {
            let mut changed = udp.outer.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = opened_gre(&changed, |_| {});
            match bit / 8 {
                // MACs of the wire.
                0..12 => assert_eq!(opened, Some((plain, false)), "bit {bit}"),
                39..42 => {
                    let key = u32::from_be_bytes([0, changed[39], changed[40], changed[41]]);
                    let vni = key | GRE;
                    assert_eq!(opened, Some((Meta { vni, ..plain }, false)), "bit {bit}");
                }
                _ => assert_eq!(opened, None, "bit {bit}"),
            }
        }
        for start in [0, 0x3000, 0xa000, 0x2001, 0x2080, 0x6000] {
            let other = gre(7, ("192.0.2.1", "192.0.2.2"), start, &udp.frame);
            assert_eq!(opened_gre(&other, |_| {}), None, "{start:#x}");
        }
        let trailed = [udp.outer.as_slice(), &[0]].concat();
        assert_eq!(opened_gre(&trailed, |_| {}), None, "a trailer");
        assert_eq!(opened_gre(&udp.outer, |meta| meta.vlan = 7), None, "a tag");
        for length in 0..udp.outer.len() {
            assert_eq!(opened_gre(&udp.outer[..length], |_| {}), None, "cut at {length}");
        }
        let experienced = with_class(udp.outer.clone(), 3);
        assert_eq!(opened_gre(&experienced, |_| {}), Some((plain, true)));
        assert_eq!(opened(&udp.outer, |_| {}), None, "GRE is no VXLAN");
        assert_eq!(opened_gre(&in_outer(), |_| {}), None, "and the other way round");
    }

    fn opened_gre(frame: &[u8], with: impl Fn(&mut Meta)) -> Option<(Meta, bool)> {
        let mut memory =
            crate::vectors::Memory { frame: frame.to_vec(), ..crate::vectors::Memory::default() };
        (memory.config.direct_port, memory.config.tunnel_ifindex) = (8_472, 9);
        let length = u32::try_from(frame.len()).unwrap();
        let mut meta = Meta { length, ifindex: 5, ..Meta::default() };
        with(&mut meta);
        open_gre(&memory, &mut meta).map(|experienced| (meta, experienced))
    }

    #[test]
    fn congestion_is_told_outside_but_never_as_experienced() {
        let v4 = |tos| u32::from_ne_bytes([8, 0, 0x45, tos]);
        let v6 = |class: u8| u32::from_ne_bytes([0x86, 0xdd, 0x60 | class >> 4, class << 4]);
        for (class, expected) in [(0, 0), (0xb8, 0), (1, 1), (2, 2), (0xba, 2), (3, 2), (0xff, 2)] {
            assert_eq!(congestion(v4(class)), expected, "{class}");
            assert_eq!(congestion(v6(class)), expected, "{class}");
        }
    }
}
