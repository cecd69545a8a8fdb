//! Stage 3, service: what is meant for netloom itself is answered here, or ends here. It is never
//! forwarded but in an open network, where others may answer what netloom does not.
//!
//! What the agent does for a port is in the map `serving`, by port and address: its L3 networks have
//! services, of which an L2 network may have several. Nothing about an address is built in: the agent
//! lists 169.254.169.254 as it lists the address of a DNS server. A request is known by its destination
//! address, whatever MAC it is sent to: who has no route for the address sends it to its gateway.

use crate::addr::Addr;
use crate::hand_off::{Question, Serving};
use crate::kernel::{Kernel, Meta};
use crate::maps::AddrKey;
use crate::parse::{ETHERTYPE_ARP, Fragment, ICMPV6, Packet, TCP, UDP};
use crate::port::PortHead;
use crate::reason::DropReason;
use crate::{arp, hand_off, nd};

/// UDP ports of a DHCP client and server (RFC 2131, 4.1).
const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;
/// The same of DHCPv6 (RFC 8415, 7.2).
const DHCP6_CLIENT: u16 = 546;
const DHCP6_SERVER: u16 = 547;
/// Ports of metadata and of names.
const HTTP: u16 = 80;
const DOMAIN: u16 = 53;

/// A service that netloom provides to ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// None: the packet is for somebody else.
    #[default]
    None,
    /// ARP.
    Arp,
    /// IPv6 link-scope signalling.
    Neighbour,
    /// DHCP, from a client that has no address yet and is not answered here.
    Dhcp,
    /// The agent tells it its addresses: [`Question::Lease`].
    Lease,
    /// The agent answers it: [`Question::Request`].
    Request,
}

impl Service {
    /// The service that a packet asks for, if nothing is known of its port.
    #[inline(always)]
    pub(crate) fn of(packet: &Packet) -> Service {
        if packet.ethertype == ETHERTYPE_ARP {
            return Service::Arp;
        }
        if nd::is_signalling(packet) {
            return Service::Neighbour;
        }
        if is_dhcp(packet) && packet.source.is_unspecified() {
            return Service::Dhcp;
        }
        Service::None
    }
}

#[inline(always)]
fn is_dhcp(packet: &Packet) -> bool {
    packet.protocol == UDP
        && packet.source_port == DHCP_CLIENT
        && packet.destination_port == DHCP_SERVER
}

/// Notes it if a port's packet asks for what the agent does for it.
#[inline(never)]
pub(crate) fn of_agent<K: Kernel>(kernel: &K, port: &PortHead, packet: &mut Packet) {
    let (wanted, question) = match (packet.protocol, packet.destination_port) {
        (UDP, DHCP_SERVER) if is_dhcp(packet) => (Serving::DHCP, Service::Lease),
        // Of a relay (RFC 2131, 4.1), which knows its server.
        (UDP, DHCP_SERVER) if packet.source_port == DHCP_SERVER => (Serving::RELAY, Service::Lease),
        (UDP, DHCP6_SERVER) if packet.source_port == DHCP6_CLIENT => {
            (Serving::IPV6, Service::Lease)
        }
        (ICMPV6, _) if packet.flags == nd::ROUTER_SOLICITATION && nd::is_signalling(packet) => {
            (Serving::IPV6, Service::Lease)
        }
        (TCP, HTTP) => (Serving::METADATA, Service::Request),
        (TCP | UDP, DOMAIN) => (Serving::DNS, Service::Request),
        _ => return,
    };
    let addr = match (question, wanted) {
        (Service::Request, _) | (_, Serving::RELAY) => packet.destination,
        _ => Addr::UNSPECIFIED_V6,
    };
    let serving = kernel.serving(&AddrKey { port: port.number, addr });
    if serving.is_some_and(|serving| serving.what & wanted != 0) {
        packet.service = question;
    }
}

/// Whether the address is netloom's own for the port, so that ARP and neighbour discovery tell of it.
#[inline(always)]
pub(crate) fn has<K: Kernel>(kernel: &K, port: &PortHead, addr: &Addr) -> bool {
    let serving = kernel.serving(&AddrKey { port: port.number, addr: *addr });
    serving.is_some_and(|serving| serving.what & Serving::ADDRESS != 0)
}

/// Answers a port in its own frame, or has the agent do it. The addresses that such a packet speaks
/// of lie where the guard does not look, so they are guarded here.
#[inline(always)]
pub(crate) fn answer<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &PortHead,
    packet: &mut Packet,
) -> Result<Answer, DropReason> {
    let question = match packet.service {
        Service::None => return Ok(Answer::None),
        Service::Arp => return arp::answer(kernel, port, packet),
        Service::Neighbour => return nd::answer(kernel, port, packet),
        Service::Dhcp if packet.path.net.is_open() => return Ok(Answer::None),
        Service::Dhcp => return Err(DropReason::Dhcp),
        Service::Lease => Question::Lease,
        Service::Request => Question::Request,
    };
    if packet.fragment != Fragment::Whole {
        return Err(DropReason::ServiceFragment);
    }
    hand_off::take(kernel, meta.now_ns, port, question)?;
    Ok(Answer::ByAgent(question))
}

/// What has become of a packet at this stage.
pub(crate) enum Answer {
    /// It goes on.
    None,
    /// The same, and it is about an address that stations share: all of the network may have to know.
    Shared,
    /// It has been turned into its own answer.
    InPlace,
    /// It is for the agent.
    ByAgent(Question),
}
