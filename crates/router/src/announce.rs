//! Tells the machines of a network where an address is from now on, so that those that knew it elsewhere
//! do not wait until they forget.
//!
//! Source: RFC 5227, 3 (ARP announcement); RFC 4861, 7.2.6 (unsolicited neighbour advertisement).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Ethernet2Header, Icmpv6Type, PacketBuilder,
    icmpv6::NeighborAdvertisementHeader,
};
use hostnet::Namespace;
use model::Mac;
use tokio::time::sleep;

/// Pauses before announcements: RFC 5227 has the second one after 2 s.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2)];

/// All nodes of a link (RFC 4291, 2.7.1), and the MAC of that group (RFC 2464, 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// See [`ALL_NODES`].
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const BROADCAST: [u8; 6] = [0xff; 6];

/// As neighbour discovery demands of all its packets (RFC 4861, 7.1).
const HOPS: u8 = 255;

/// The option that says the MAC, and its length in units of 8 bytes (RFC 4861, 4.6.1).
const TARGET_MAC: [u8; 2] = [2, 1];

/// Addresses that have come to a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// Its device.
    pub device: String,
    /// Its MAC.
    pub mac: Mac,
    /// They.
    pub addresses: Vec<IpAddr>,
}

/// Announces new addresses, at once and again: a device that was just set up, or a switch that has just
/// seen it, may lose the first.
pub async fn announce(namespace: Arc<Namespace>, all: Vec<New>) {
    for pause in PAUSES {
        sleep(pause).await;
        for new in &all {
            let sent = namespace.frame_sender(&new.device).map(|sender| {
                // Who has not heard it asks once it has forgotten.
                new.addresses
                    .iter()
                    .filter(|ip| sender.send(&frame(new.mac, **ip)).is_err())
                    .count()
            });
            if sent.as_ref().map_or(true, |failed| *failed > 0) {
                tracing::debug!(device = new.device, ?sent, "addresses are not announced");
            }
        }
    }
}

/// What says that an address is at a MAC, to everybody.
#[must_use]
pub fn frame(mac: Mac, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp(mac, ip),
        IpAddr::V6(ip) => advertisement(mac, ip),
    }
}

/// A request for the own address, which nobody has to answer.
fn arp(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let ethernet =
        Ethernet2Header { source: mac.0, destination: BROADCAST, ether_type: EtherType::ARP };
    let packet = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac.0,
        sender_ipv4: ip.octets(),
        target_mac: [0; 6],
        target_ipv4: ip.octets(),
    };
    [&ethernet.to_bytes()[..], &packet.to_bytes()].concat()
}

fn advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    let of_router =
        NeighborAdvertisementHeader { router: true, solicited: false, r#override: true };
    let builder = PacketBuilder::ethernet2(mac.0, ALL_NODES_MAC)
        .ipv6(ip.octets(), ALL_NODES.octets(), HOPS)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(of_router));
    let payload = [&ip.octets()[..], &TARGET_MAC, &mac.0].concat();
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    // A vector takes all, and no length is too long here.
    if builder.write(&mut frame, &payload).is_err() {
        frame.clear();
    }
    frame
}
