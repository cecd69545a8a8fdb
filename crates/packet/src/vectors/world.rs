//! The small world that the vectors play in, and how a vector is made.
//!
//! Network 1 (VNI 100) has the local ports A and B and the remote station R; network 2 has the
//! local port C. All networks are IPv4 and IPv6, and closed.

use super::frame::{Ip, address};
use super::{CONNTRACK, Memory, Tracked, Vector};
use crate::{
    Addr, AddrKey, CtSlot, CtState, CtWord, Direction, DropReason, Entry, Fdb, FdbKey, Mac, Meta,
    Neigh, NeighKey, Net, Port, PortKey, Source, Timeout, Timeouts, Traffic, Verdict, Vtep,
    VtepKey, tick,
};
use std::collections::BTreeMap;

/// Now, nanoseconds.
pub(super) const NOW: u64 = 100_000_000_000_000;

/// Port A: number 11 on interface 1, network 1, delivered to the peer. `BPF_PROG_TEST_RUN` gives
/// frames interface 1, the programs take it from the metadata.
pub(super) const A: Station =
    Station { mac: Mac([2, 0, 0, 0, 0, 0xa]), v4: "10.0.0.1", v6: "fd00::1" };
/// Port B: number 12 on interface 2, network 1, delivered through the interface.
pub(super) const B: Station =
    Station { mac: Mac([2, 0, 0, 0, 0, 0xb]), v4: "10.0.0.2", v6: "fd00::2" };
/// Port C: number 13 on interface 3, network 2, same addresses as B.
pub(super) const C: Station =
    Station { mac: Mac([2, 0, 0, 0, 0, 0xc]), v4: "10.0.0.2", v6: "fd00::2" };
/// Station R of network 1, on another host.
pub(super) const R: Station =
    Station { mac: Mac([2, 0, 0, 0, 0, 0xf]), v4: "10.0.0.9", v6: "fd00::9" };
/// Number of port A.
pub(super) const A_NUMBER: u32 = 11;
/// Number of port B.
pub(super) const B_NUMBER: u32 = 12;
/// Interface of port A.
pub(super) const A_IFINDEX: u32 = 1;
/// Interface of port B.
pub(super) const B_IFINDEX: u32 = 2;
/// Generation of all policies.
pub(super) const GENERATION: u32 = 5;
/// Routing domain of all networks.
pub(super) const DOMAIN: u32 = 70;
/// VNI of network 1.
pub(super) const VNI: u32 = 100;
/// The VTEP behind which R is.
pub(super) const VTEP: &str = "192.0.2.2";

/// MTU of all networks.
pub(super) const MTU: u32 = 1450;
/// The gateway of all networks.
pub(super) const GATEWAY: &str = "10.0.0.254";
pub(super) const GATEWAY_V6: &str = "fd00::fe";

/// The VTEP of this host.
pub(super) const LOCAL_VTEP: &str = "192.0.2.1";

/// A station.
#[derive(Clone, Copy)]
pub(super) struct Station {
    pub(super) mac: Mac,
    pub(super) v4: &'static str,
    pub(super) v6: &'static str,
}

/// The address that a text is.
pub(super) fn addr(text: &str) -> Addr {
    Addr::from(address(text))
}

/// The gateway for an address of the same family.
fn gateway_of(text: &str) -> Addr {
    addr(if addr(text).is_v4() { GATEWAY } else { GATEWAY_V6 })
}

/// The maps of the world.
pub(super) fn world() -> Memory {
    let mut memory = Memory::new(CONNTRACK, 0x6e65_746c_6f6f_6d21);
    memory.config.tunnel_ifindex = 9;
    memory.config.last_zone = 1_000;
    memory.nets.extend([(1, Net::closed()), (2, Net::closed())]);
    let ports =
        [(A, A_NUMBER, A_IFINDEX, 1, Port::PEER), (B, B_NUMBER, B_IFINDEX, 1, 0), (C, 13, 3, 2, 0)];
    for (place, (station, number, ifindex, net, flags)) in (1..).zip(ports) {
        let key = PortKey::untagged(ifindex);
        let mac = station.mac;
        let port = Port { number, net, generation: GENERATION, mac, flags, ..Port::default() };
        let port = port.placed(place, zone_of(number));
        memory.ports.insert(key, port);
        memory.fdb.insert(FdbKey::new(net, station.mac), Fdb::local(key));
        memory.traffic.insert(number, Traffic::default());
        for text in [station.v4, station.v6] {
            let key = AddrKey { port: number, addr: addr(text) };
            memory
                .addrs
                .insert(key, Source { gateway: gateway_of(text), mtu: MTU, domain: DOMAIN });
            memory.neigh.insert(NeighKey { net, addr: addr(text) }, Neigh::local(station.mac));
        }
    }
    let remote = Fdb::remote(VNI, addr(VTEP)).sent_from(addr(LOCAL_VTEP));
    memory.fdb.insert(FdbKey::new(1, R.mac), remote);
    for text in [R.v4, R.v6] {
        let neigh = Neigh::behind(addr(VTEP), R.mac);
        memory.neigh.insert(NeighKey { net: 1, addr: addr(text) }, neigh);
    }
    let vtep = Vtep::of_host(1, addr(LOCAL_VTEP));
    memory.vteps.insert(VtepKey { vni: VNI, addr: addr(VTEP) }, vtep);
    memory
}

/// The zone of a port: not its number, which may come back.
pub(super) fn zone_of(number: u32) -> u32 {
    number + 100
}

/// A connection as port A sees it, established by A, its last packet a tick ago.
pub(super) fn connection(local: (&str, u16), remote: (&str, u16), protocol: u8) -> Tracked {
    let slot = CtSlot {
        local: addr(local.0),
        remote: addr(remote.0),
        zone: zone_of(A_NUMBER),
        local_port: local.1,
        remote_port: remote.1,
        protocol,
        allowed: 1,
        generation: GENERATION,
        // Nobody's under that.
        identity: GENERATION,
        source_net: 1,
        ..CtSlot::default()
    };
    let word = CtWord::default().opened(Direction::FromPort);
    seen_at(Tracked { word, slot }, tick(NOW) - 1, CtState::Established)
}

/// The same in this state, its last packet a tick ago.
pub(super) fn earlier(tracked: Tracked, state: CtState) -> Tracked {
    seen_at(tracked, tick(NOW) - 1, state)
}

/// The same with a packet just now, in this state.
pub(super) fn now(tracked: Tracked, state: CtState) -> Tracked {
    seen_at(tracked, tick(NOW), state)
}

fn seen_at(tracked: Tracked, tick: u64, state: CtState) -> Tracked {
    let timeout = Timeout::of(tracked.slot.protocol, state as u8);
    let until = tick + u64::from(Timeouts::default().ticks()[timeout as usize]);
    Tracked { word: tracked.word.with_state(state).until(until), ..tracked }
}

/// The same, but the other end opened it.
pub(super) fn by_other(tracked: Tracked) -> Tracked {
    Tracked { word: tracked.word.opened(Direction::ToPort), ..tracked }
}

/// The connection of port A as port B sees it, from the other end.
pub(super) fn mirrored(tracked: Tracked) -> Tracked {
    let CtSlot { local, remote, local_port, remote_port, .. } = tracked.slot;
    let slot = CtSlot {
        zone: zone_of(B_NUMBER),
        local: remote,
        remote: local,
        local_port: remote_port,
        remote_port: local_port,
        ..tracked.slot
    };
    by_other(Tracked { slot, ..tracked })
}

/// A frame from port A in the world.
pub(super) fn from_a(name: &'static str, frame: Vec<u8>) -> Vector {
    let mut before = world();
    before.frame = frame;
    Vector {
        name,
        entry: Entry::FromPort,
        meta: Meta { now_ns: NOW, ifindex: A_IFINDEX, length: length(&before), ..Meta::default() },
        before,
        verdict: Verdict::Pass,
        rule: 0,
        frame_after: None,
        answered: None,
        traffic: BTreeMap::new(),
        connections: None,
    }
}

/// A frame from R, out of the tunnel.
pub(super) fn from_r(name: &'static str, frame: Vec<u8>) -> Vector {
    let mut vector = from_a(name, frame);
    vector.entry = Entry::FromTunnel;
    vector.meta.ifindex = 9;
    vector.meta.tunnelled = 1;
    vector.meta.vni = VNI;
    vector.meta.vtep = addr(VTEP);
    vector.meta.local = addr(LOCAL_VTEP);
    vector
}

/// A packet from A to a station, in a frame.
pub(super) fn a_to(station: Station, packet: &Ip) -> Vec<u8> {
    packet.frame(station.mac, A.mac)
}

/// What a vector expects, in the order of how often it is needed.
impl Vector {
    /// Dropped; counted under the port, 0 for none.
    pub(super) fn dropped(mut self, port: u32, reason: DropReason) -> Vector {
        self.verdict = Verdict::Drop(reason);
        if self.before.traffic.contains_key(&port) {
            self.traffic.entry(port).or_default().dropped_packets = 1;
        }
        self
    }

    /// The port's frame is accepted.
    pub(super) fn sent(mut self, port: u32) -> Vector {
        let bytes = u64::from(self.meta.length);
        let traffic = self.traffic.entry(port).or_default();
        traffic.from_port_packets = 1;
        traffic.from_port_bytes = bytes;
        self
    }

    /// The frame reaches the port.
    pub(super) fn received(mut self, port: u32) -> Vector {
        let bytes = u64::from(self.meta.length);
        let traffic = self.traffic.entry(port).or_default();
        traffic.to_port_packets = 1;
        traffic.to_port_bytes = bytes;
        self
    }

    /// With this verdict.
    pub(super) fn verdict(mut self, verdict: Verdict) -> Vector {
        self.verdict = verdict;
        self
    }

    /// Answered by port A's own frame, rewritten.
    pub(super) fn reflected(mut self, frame: Vec<u8>) -> Vector {
        self.frame_after = Some(frame);
        self.sent(A_NUMBER).verdict(Verdict::Reflect)
    }

    /// Dropped for this reason, and answered by port A's own frame, rewritten.
    pub(super) fn answered(mut self, reason: DropReason, frame: Vec<u8>) -> Vector {
        self.frame_after = Some(frame);
        self.answered = Some(reason);
        self.traffic.entry(A_NUMBER).or_default().dropped_packets = 1;
        self.verdict(Verdict::Reflect)
    }

    /// These connections, and no others, are in the table afterwards.
    pub(super) fn leaves(mut self, connections: &[Tracked]) -> Vector {
        self.connections = Some(connections.to_vec());
        self
    }

    /// With other maps.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Memory)) -> Vector {
        change(&mut self.before);
        self
    }

    /// With other metadata.
    pub(super) fn meta(mut self, change: impl FnOnce(&mut Meta)) -> Vector {
        change(&mut self.meta);
        self
    }

    /// From A to B, delivered through B's interface.
    pub(super) fn a_reaches_b(self) -> Vector {
        let via = crate::Via::Interface;
        self.sent(A_NUMBER)
            .received(B_NUMBER)
            .verdict(Verdict::DeliverLocal { ifindex: B_IFINDEX, via })
    }

    /// From R to A, delivered to A's peer.
    pub(super) fn reaches_a(self) -> Vector {
        let via = crate::Via::Peer;
        self.received(A_NUMBER).verdict(Verdict::DeliverLocal { ifindex: A_IFINDEX, via })
    }

    /// From A to R, through the tunnel.
    pub(super) fn a_reaches_r(self) -> Vector {
        let (vtep, local) = (addr(VTEP), addr(LOCAL_VTEP));
        self.sent(A_NUMBER).verdict(Verdict::Tunnel { vni: VNI, vtep, local })
    }
}

fn length(memory: &Memory) -> u32 {
    u32::try_from(memory.frame.len()).expect("a short frame")
}
