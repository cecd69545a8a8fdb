//! Parsing: from a frame to a [`Packet`], the few facts that the later stages decide upon.
//!
//! Every read is bounds-checked by [`Kernel::load`]; an incomplete or contradictory header is
//! [`DropReason::Malformed`]. L4 checksums are never looked at: a frame between local ports
//! usually has none yet (CHECKSUM_PARTIAL). Nothing here compares the length with an MTU: with
//! GSO a frame is far longer, see `too_big`. Sources: RFC 791, 8200, 9293, 768, 792, 4443.

use crate::addr::{Addr, Mac};
use crate::conntrack::CtZone;
use crate::fdb::Fdb;
use crate::flow::Candidate;
use crate::kernel::{Kernel, Meta, Verdict};
use crate::path::Path;
use crate::policy::Inquiry;
use crate::port::PortPolicy;
use crate::reason::DropReason;
use crate::service::Service;
use crate::slots::Room;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_BYTES: u32 = 14;
/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_BYTES: u32 = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6_BYTES: u32 = 40;
/// The fragment bits of an IPv4 header: offset, and whether more follow.
pub(crate) const FRAGMENT_BITS: u16 = 0x3fff;
/// Ethertype of IPv4.
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
/// Ethertype of ARP.
pub(crate) const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethertype of IPv6.
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Ethertypes of VLAN tags (802.1Q, 802.1ad).
const ETHERTYPES_VLAN: [u16; 2] = [0x8100, 0x88a8];

/// Protocol number of ICMP.
pub(crate) const ICMP: u8 = 1;
/// Protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// Protocol number of UDP.
pub(crate) const UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub(crate) const ICMPV6: u8 = 58;

/// Which part of an IP packet a frame holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole,
    /// The first fragment, with the L4 header.
    First,
    /// A later fragment, without.
    Later,
}

/// What a packet may do to a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It may open one.
    #[default]
    Opens,
    /// It only belongs to one that exists.
    Continues,
    /// It reports an error about one.
    Error,
    /// A message that a closed network has no use for.
    Unsupported,
}

/// The facts of a packet. Addresses and ports are as in the packet: source is the sender.
///
/// The caller of an entry point provides the room, for the sake of BPF: kept in a map it spares
/// the stack of 512 bytes, and its content is unknown to the verifier, which then does not walk
/// the later stages once for every protocol that the parser knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Who answers that it is too big. Left as it is by the parser.
    pub(crate) answerer: Addr,
    /// Offset of the L3 header's payload: the L4 header, if [`Packet::fragment`] has one.
    pub l4: u32,
    /// Offset of the packet's end: what follows is padding.
    pub end: u32,
    /// Destination MAC.
    pub destination_mac: Mac,
    /// Source MAC.
    pub source_mac: Mac,
    /// Source port, or ICMP identifier, or 0.
    pub source_port: u16,
    /// Destination port, or ICMP identifier, or 0.
    pub destination_port: u16,
    /// Ethertype.
    pub ethertype: u16,
    /// IP protocol of the L4 header.
    pub protocol: u8,
    /// TCP flags, or the ICMP type.
    pub flags: u8,
    /// The ICMP code.
    pub code: u8,
    /// What the fragments of one packet have in common. Of IPv6, a fragment has one only.
    pub identification: u32,
    /// MTU of the sender's network, 0 for no limit. Set by the guard.
    pub mtu: u32,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Which part of the packet this is.
    pub fragment: Fragment,
    /// What it may do to a connection.
    pub role: Role,
    /// What netloom itself is asked for.
    pub service: Service,
    /// Its way through networks.
    pub path: Path,
    /// The policies of the port that sends it and of the one that receives it, as far as they are here.
    /// Left as they are by the parser.
    pub(crate) policies: [PortPolicy; 2],
    /// What a policy is asked, and what it has found. Left as it is by the parser.
    pub(crate) inquiry: Inquiry,
    /// Where it goes. Set by `route`.
    pub(crate) station: Fdb,
    /// It may go from tunnel to tunnel: its sender has moved away from here, and does not know yet who
    /// knows of that. Set out of tunnels alone.
    pub(crate) is_handed_on: bool,
    /// What is to be done with it. In memory like the rest: as a value, a verdict that may be any
    /// would be kept with the parts of all of them, and the verifier refuses to see those saved
    /// that were never set.
    pub verdict: Verdict,
    /// The side of a port on which it is decided. Left as it is by the parser, as the room is.
    pub(crate) zone: CtZone,
    /// Room for the look for its connection.
    pub(crate) room: Room,
    /// What its flow will be.
    pub(crate) flow: Candidate,
}

/// Reads the Ethernet header. A tag in it lies behind the one that the kernel takes out.
#[inline(always)]
pub(crate) fn ethernet<K: Kernel>(kernel: &K, packet: &mut Packet) -> Result<(), DropReason> {
    // What the headers before may have left, and those to come may lack.
    packet.source_port = 0;
    packet.destination_port = 0;
    packet.flags = 0;
    packet.fragment = Fragment::Whole;
    packet.role = Role::Opens;
    packet.protocol = 0;
    packet.hop_limit = 0;
    packet.source = Addr::UNSPECIFIED_V6;
    packet.destination = Addr::UNSPECIFIED_V6;
    packet.mtu = 0;
    packet.identification = 0;
    packet.l4 = 0;
    packet.end = 0;
    packet.code = 0;
    let Some(header) = kernel.load::<14>(0) else { return Err(DropReason::Malformed) };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = header;
    packet.destination_mac = Mac([d0, d1, d2, d3, d4, d5]);
    packet.source_mac = Mac([s0, s1, s2, s3, s4, s5]);
    packet.ethertype = u16::from_be_bytes([t0, t1]);
    let tagged = packet.ethertype == ETHERTYPES_VLAN[0] || packet.ethertype == ETHERTYPES_VLAN[1];
    if tagged { Err(DropReason::VlanTagged) } else { Ok(()) }
}

/// Reads the IP header at `offset` and the transport header behind it.
#[inline(never)]
pub(crate) fn network<K: Kernel>(
    kernel: &K,
    meta: &Meta,
    packet: &mut Packet,
) -> Result<(), DropReason> {
    if packet.ethertype == ETHERTYPE_IPV4 {
        crate::ipv4::header(kernel, meta.length, packet)?;
    } else {
        crate::ipv6::header(kernel, meta.length, packet)?;
    }
    crate::transport::header(kernel, packet)?;
    crate::fill_in::check(meta, packet)
}
