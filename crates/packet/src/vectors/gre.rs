//! Frames that go into GRE and come out of it.

use super::frame::{Ip, arp, ethernet, gre, tcp, udp, with_class};
use super::world::{A, R, VNI};
use crate::{Addr, Mac};

/// A frame, and the packet that it is in on the wire.
#[derive(Clone, Debug)]
pub struct GreVector {
    /// What it shows.
    pub name: &'static str,
    /// The frame.
    pub frame: Vec<u8>,
    /// The VTEP that it goes to, and the own one.
    pub ends: [Addr; 2],
    /// Its key.
    pub key: u32,
    /// The packet, with an Ethernet header of the next hop, of which netloom makes the type alone.
    pub outer: Vec<u8>,
}

/// All of them.
#[must_use]
pub fn gres() -> Vec<GreVector> {
    let request = arp(1, (A.mac, A.v4), (Mac([0; 6]), R.v4));
    let capable = Ip::new(A.v4, R.v4, 6, tcp(1_000, 80, 0x10)).frame(R.mac, A.mac);
    let broadcast = Ip::new(A.v4, "255.255.255.255", 17, udp(1, 2));
    vec![
        vector("udp", &Ip::new(A.v4, R.v4, 17, udp(1, 2)).frame(R.mac, A.mac), 0),
        vector("tcp over ipv6", &Ip::new(A.v6, R.v6, 6, tcp(5, 22, 2)).frame(R.mac, A.mac), 0),
        vector("tcp that hears of congestion", &with_class(capable, 2), 2),
        vector("a broadcast", &broadcast.frame(Mac::BROADCAST, A.mac), 0),
        vector("arp", &ethernet(Mac::BROADCAST, A.mac, 0x0806, &request), 0),
    ]
}

fn vector(name: &'static str, frame: &[u8], class: u8) -> GreVector {
    let ends = [[192, 0, 2, 2], [192, 0, 2, 1]].map(Addr::v4);
    let outer = with_class(gre(VNI, ("192.0.2.1", "192.0.2.2"), 0x2000, frame), class);
    GreVector { name, frame: frame.to_vec(), ends, key: VNI, outer }
}
