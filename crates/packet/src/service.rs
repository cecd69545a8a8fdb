//! Stage 3, service: what is meant for netloom itself is answered here, or ends here. It is never
//! forwarded but in an open network, where others may answer what netloom does not.

use crate::kernel::{Kernel, Meta};
use crate::maps::Port;
use crate::net::Net;
use crate::parse::{ETHERTYPE_ARP, Fragment, Packet, UDP};
use crate::reason::DropReason;
use crate::{arp, hand_off, nd};

/// UDP ports of a DHCP client and server (RFC 2131, 4.1).
const DHCP_CLIENT: u16 = 68;
const DHCP_SERVER: u16 = 67;

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
    /// DHCP, from a client that has no address yet; from any in a network that answers it.
    Dhcp,
}

impl Service {
    /// The service that a packet asks for.
    #[inline(always)]
    pub(crate) fn of(packet: &Packet) -> Service {
        if packet.ethertype == ETHERTYPE_ARP {
            return Service::Arp;
        }
        if nd::is_signalling(packet) {
            return Service::Neighbour;
        }
        let dhcp = packet.protocol == UDP
            && packet.source_port == DHCP_CLIENT
            && packet.destination_port == DHCP_SERVER;
        let is_answered = packet.path.net.flags & Net::DHCP != 0;
        if dhcp && (packet.source.is_unspecified() || is_answered) {
            return Service::Dhcp;
        }
        Service::None
    }
}

/// Answers a port in its own frame, or has the agent do it. The addresses that such a packet speaks
/// of lie where the guard does not look, so they are guarded here.
#[inline(always)]
pub(crate) fn answer<K: Kernel>(
    kernel: &mut K,
    meta: &Meta,
    port: &Port,
    packet: &mut Packet,
) -> Result<Answer, DropReason> {
    match packet.service {
        Service::None => Ok(Answer::None),
        Service::Arp => arp::answer(kernel, port, packet),
        Service::Neighbour => nd::answer(kernel, port, packet),
        Service::Dhcp => {
            let is_answered = packet.path.net.flags & Net::DHCP != 0;
            if !is_answered && packet.path.net.is_open() {
                return Ok(Answer::None);
            }
            if !is_answered || packet.fragment != Fragment::Whole {
                return Err(DropReason::Dhcp);
            }
            hand_off::take(kernel, meta.now_ns, port)?;
            Ok(Answer::ByAgent)
        }
    }
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
    ByAgent,
}
