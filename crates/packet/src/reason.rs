//! Why a packet was dropped: the one list of names, numbers and meanings.
//!
//! A number is never given to another reason: metrics and stored events refer to it. A reason
//! that goes away leaves its number in [`DropReason::RETIRED`].

/// A drop reason with the words that metrics and documentation use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonInfo {
    /// The reason.
    pub reason: DropReason,
    /// Its name in metrics, `snake_case`.
    pub name: &'static str,
    /// One sentence for the operator.
    pub doc: &'static str,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal $name:literal,)*) => {
        /// Why a packet was dropped. Numbers start at 1; 0 means "not dropped".
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant = $number,)* }

        impl DropReason {
            /// Every reason, by number.
            pub const ALL: &'static [ReasonInfo] = &[$(ReasonInfo {
                reason: DropReason::$variant,
                name: $name,
                doc: concat!($($doc),+),
            },)*];

            /// The reason with this number.
            #[must_use]
            pub fn from_number(number: u32) -> Option<DropReason> {
                match number { $($number => Some(DropReason::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// No port is configured for the interface on which the frame came.
    UnknownPort = 1 "unknown_port",
    /// A header is cut short or contradicts itself.
    Malformed = 2 "malformed",
    /// The frame carries a VLAN tag, which this port does not take.
    VlanTagged = 3 "vlan_tagged",
    /// Neither ARP, IPv4 nor IPv6.
    UnknownEthertype = 4 "unknown_ethertype",
    /// The source MAC is not the port's.
    SpoofedMac = 5 "spoofed_mac",
    /// The source address neither belongs to the port nor is in a prefix that it routes for.
    SpoofedAddress = 6 "spoofed_address",
    /// The sender MAC inside an ARP packet is not the port's.
    SpoofedArpMac = 7 "spoofed_arp_mac",
    /// The sender address inside an ARP packet does not belong to the port.
    SpoofedArpAddress = 8 "spoofed_arp_address",
    /// An ARP probe (RFC 5227), never answered so that the prober may keep its address.
    ArpProbe = 9 "arp_probe",
    /// A port announced its own address; harmless, peers know it already.
    GratuitousArp = 10 "gratuitous_arp",
    /// An ARP reply from a port; only netloom answers in a closed network.
    UnsolicitedArpReply = 11 "unsolicited_arp_reply",
    /// ARP or ND asked for an address that the network does not have.
    UnknownNeighbour = 12 "unknown_neighbour",
    /// An IPv6 duplicate address detection probe (RFC 4862), never answered.
    NdProbe = 13 "nd_probe",
    /// A neighbour advertisement from a port; only netloom answers in a closed network.
    UnsolicitedNeighbourAdvertisement = 14 "unsolicited_neighbour_advertisement",
    /// A router solicitation; this network has no router that netloom answers for.
    RouterSolicitation = 15 "router_solicitation",
    /// A router advertisement or redirect from a port.
    RogueRouter = 16 "rogue_router",
    /// A multicast listener report or query; a closed network does not flood.
    MulticastListener = 17 "multicast_listener",
    /// A DHCP request; nothing serves DHCP on this network.
    Dhcp = 18 "dhcp",
    /// IPv6 traffic other than ND from the port's own link-local address, which is not routed.
    LinkLocal = 21 "link_local",
    /// Neither the destination MAC nor, from a port, the destination address is in the network.
    UnknownDestination = 22 "unknown_destination",
    /// The destination is the port that the frame came from.
    Hairpin = 23 "hairpin",
    /// The network knows the destination as a local port, which has no configuration.
    MissingLocalPort = 24 "missing_local_port",
    /// The destination is behind a tunnel and the host has no tunnel device.
    NoTunnelDevice = 25 "no_tunnel_device",
    /// The kernel refused the tunnel key.
    TunnelKeyRefused = 26 "tunnel_key_refused",
    /// A frame on the tunnel device without tunnel metadata.
    NotTunnelled = 27 "not_tunnelled",
    /// The sending VTEP is not known for the VNI.
    UnknownVtep = 28 "unknown_vtep",
    /// A tunnelled frame for a MAC that is not local; a frame never goes back into a tunnel.
    TunnelToTunnel = 29 "tunnel_to_tunnel",
    /// ARP or ND out of a tunnel; each host answers its own ports.
    NeighbourFromTunnel = 30 "neighbour_from_tunnel",
    /// A connection from another network: only its own may open one towards the port.
    PolicyDenied = 32 "policy_denied",
    /// The packet cannot open a connection and belongs to none.
    NoConnection = 33 "no_connection",
    /// An ICMP error about a connection that the port does not have.
    UnrelatedIcmpError = 34 "unrelated_icmp_error",
    /// An ICMP message that is neither echo nor an error.
    UnsupportedIcmp = 35 "unsupported_icmp",
    /// A TCP fragment that would overwrite the header of the first (RFC 1858).
    FragmentOverlap = 36 "fragment_overlap",
    /// More IPv6 extension headers than are looked at.
    TooManyHeaders = 37 "too_many_headers",
    /// The port has used up its own connections, and the room that all ports share is in use.
    ConntrackFull = 38 "conntrack_full",
    /// The port has used up its own connections, and its part of the room that all ports share.
    ConntrackPortBudget = 39 "conntrack_port_budget",
    /// A frame of the host's own stack towards a port.
    HostToPort = 40 "host_to_port",
    /// The source out of a tunnel is no station of the network and in no prefix of one, has another
    /// station's MAC, or is not behind the VTEP that sent it.
    ForeignSource = 41 "foreign_source",
    /// A connection to an address that the port with the destination MAC neither has nor routes for.
    ForeignDestination = 42 "foreign_destination",
    /// The peer has as many connections to the port as one peer may.
    ConntrackPeerBudget = 43 "conntrack_peer_budget",
    /// More ICMP errors about one connection than anybody needs.
    IcmpErrorRate = 44 "icmp_error_rate",
    /// The outer destination of a tunnelled frame is not this host's VTEP for the VNI.
    NotForThisVtep = 45 "not_for_this_vtep",
    /// The VM asks for a checksum to be filled in over an address or a port.
    ChecksumMisplaced = 46 "checksum_misplaced",
    /// Larger than the network's MTU, and not to be fragmented. The sender is told, at most seven
    /// times a second for each connection.
    PacketTooBig = 47 "packet_too_big",
    /// A later fragment whose first one has not been let through before it, within 30 s.
    FragmentAlone = 48 "fragment_alone",
    /// The rules of the port's groups do not allow what is sent to it.
    PolicyIngress = 49 "policy_ingress",
    /// The network of the frame is not configured on this host, or of an unknown kind.
    UnknownNetwork = 50 "unknown_network",
    /// The kernel refused to change the VLAN tag.
    VlanRefused = 51 "vlan_refused",
    /// More requests to the agent than a port may send in a second.
    HandOffRate = 52 "hand_off_rate",
    /// A request to the agent for which there is no room, or that is too long.
    HandOffRefused = 53 "hand_off_refused",
    /// More broadcasts and multicasts than a port may send in a second, or a physical network may
    /// have delivered to the ports here.
    FloodRate = 54 "flood_rate",
    /// A DHCP server's answer from a port.
    RogueDhcp = 55 "rogue_dhcp",
    /// The NIC of the port has moved to another host.
    Moved = 56 "moved",
    /// A frame from the host that a NIC has moved to; it has told that, and is good for nothing else.
    MoveTold = 57 "move_told",
    /// A frame for GRE on a host whose frames must pass the tunnel device, which GRE cannot.
    GreForbidden = 58 "gre_forbidden",
    /// A frame for GRE, and the host has no route to the VTEP that is IPv4 over Ethernet.
    GreUnreachable = 59 "gre_unreachable",
    /// A frame for GRE that is longer than the route to the VTEP takes.
    GreTooBig = 60 "gre_too_big",
    /// The kernel refused to put a frame into GRE, or to take it out.
    GreRefused = 61 "gre_refused",
    /// A request to netloom itself that comes in fragments.
    ServiceFragment = 62 "service_fragment",
    /// The rules of the port's groups do not allow what it sends.
    PolicyEgress = 63 "policy_egress",
}

impl DropReason {
    /// Numbers that were in use once and stay reserved.
    pub const RETIRED: &'static [u32] = &[19, 20, 31];

    /// The number in counters and events.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether a policy decided, so that there is a rule that did.
    #[inline(always)]
    #[must_use]
    pub const fn is_of_policy(self) -> bool {
        matches!(self, DropReason::PolicyIngress | DropReason::PolicyEgress)
    }

    /// Whether what was dropped would have opened a connection, or been let by as if it had.
    #[inline(always)]
    #[must_use]
    pub const fn is_of_opening(self) -> bool {
        self.is_of_policy()
            || self.is_for_lack_of_room()
            || matches!(self, DropReason::PolicyDenied | DropReason::ForeignDestination)
    }

    /// Whether a port has no room for one more connection.
    #[inline(always)]
    #[must_use]
    pub const fn is_for_lack_of_room(self) -> bool {
        matches!(
            self,
            DropReason::ConntrackFull
                | DropReason::ConntrackPortBudget
                | DropReason::ConntrackPeerBudget
        )
    }

    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|info| info.reason == self).map_or("unknown", |info| info.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_REASONS;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique_and_fit_the_counter_array() {
        let numbers: BTreeSet<u32> =
            DropReason::ALL.iter().map(|info| info.reason.number()).collect();
        let names: BTreeSet<&str> = DropReason::ALL.iter().map(|info| info.name).collect();
        assert_eq!(numbers.len(), DropReason::ALL.len());
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(numbers.iter().all(|number| (1..MAX_REASONS).contains(number)));
        assert!(DropReason::RETIRED.iter().all(|number| !numbers.contains(number)));
    }

    #[test]
    fn each_reason_has_a_sentence_for_operators() {
        for info in DropReason::ALL {
            let doc = info.doc.trim();
            let is_sentence = doc.starts_with(|c: char| c.is_ascii_uppercase())
                && doc.ends_with('.')
                && doc.split(' ').count() >= 4
                && doc.len() <= 200;
            assert!(is_sentence, "{}: {doc}", info.name);
        }
    }

    #[test]
    fn a_number_turns_back_into_its_reason() {
        for info in DropReason::ALL {
            assert_eq!(DropReason::from_number(info.reason.number()), Some(info.reason));
            assert_eq!(info.reason.name(), info.name);
        }
        assert_eq!(DropReason::from_number(0), None);
    }
}
