//! The entries that an object has in the maps; and back, what facts the entries of maps are, also
//! in words. Pure. One more map is one more arm in each of the three.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use compute::FarEnd;
use dataplane::Tables;
use packet::{
    Addr, AddrKey, Afar, Behind, Chapter, ChapterKey, ClassKey, Fdb, FdbKey, FdbTarget, FloodKey,
    Flooded, IdentKey, Mac, Move, Neigh, NeighKey, Net, Node, PortKey, PrefixKey, Serving, Sharer,
    SharerKey, Source, Vtep, VtepKey, Wire,
};
use uuid::Uuid;
use wire::{
    fact::{Fact, Station},
    holding::Holding,
    object::{FlowLog, Member, Moving, Network, Object, Peer, Port, Prefix, Subnet, Tunnel},
    policy::MemberAddress,
    told::Service,
};

use crate::{
    kernel::{Plug, Ties},
    ledger::{Policies, Stance},
    uplink::Uplink,
};

/// Where metadata is (EC2 and what followed it).
pub(crate) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// netloom's own link-local address, in every network: that of metadata (OpenStack), and the source of
/// what it advertises.
pub(crate) const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);

/// The entries of one object; of a port or a peer none while its network is not there, or its port has no interface.
#[must_use]
pub(crate) fn entries(
    object: &Object,
    desired: &Holding,
    ties: &Ties,
    policies: &Policies,
) -> Tables {
    let network = network_of(object).and_then(|network| desired.network(network));
    match (object, network) {
        (Object::Network(network), _) => network_tables(network, &ties.uplinks),
        (Object::Peer(peer), Some(network)) => match network.tunnel() {
            Some(tunnel) => peer_tables(peer, network, tunnel),
            None => Tables::default(),
        },
        (Object::Port(port), Some(network)) => match ties.ports.get(&port.uuid) {
            Some(plug) => {
                let mut tables = port_tables(port, network, plug, policies.stance(port.uuid));
                tables.serving = serving(port, network, desired);
                tables
            }
            // Until its device is there it is where it is for everybody else.
            None => coming_tables(port, network),
        },
        (Object::Member(member), _) => member_tables(member, policies),
        _ => Tables::default(),
    }
}

/// A member has the same identity at each of its addresses.
fn member_tables(member: &Member, policies: &Policies) -> Tables {
    let mut tables = Tables::default();
    let Some(identity) = policies.identity(&member.groups) else { return tables };
    for MemberAddress { ip, domain } in &member.addresses {
        let addr = Addr::from(*ip);
        // No packet has an address of IPv6 that is one of IPv4: here it would be that. And in no
        // domain there are others with the same address.
        if addr.is_v4() == ip.is_ipv4() && *domain != 0 {
            tables.idents.insert(IdentKey { domain: *domain, addr }, identity);
        }
    }
    tables
}

/// The network that an object belongs to.
pub(crate) fn network_of(object: &Object) -> Option<Uuid> {
    match object {
        Object::Peer(peer) => Some(peer.network),
        Object::Port(port) => Some(port.network),
        _ => None,
    }
}

/// A network behind tunnels is one of known stations: the server knows all that are in it, but for
/// strangers behind foreign VTEPs. A physical one without its interface goes on for the ports that are here.
fn network_tables(network: &Network, uplinks: &BTreeMap<String, Uplink>) -> Tables {
    let (net, mut tables) = (network.number, Tables::default());
    let Some(wire::object::Uplink { interface, vlan }) = network.uplink() else {
        let Some(tunnel) = network.tunnel() else { return tables };
        for vtep in &tunnel.foreign {
            let key = VtepKey { vni: tunnel.id(), addr: (*vtep).into() };
            tables.vteps.insert(key, Vtep::foreign(net, tunnel.local_vtep.into()));
        }
        let is_open = network.is_open();
        tables
            .nets
            .insert(net, if is_open { Net::open().with_foreign_vteps() } else { Net::closed() });
        return tables;
    };
    let Some(uplink) = uplinks.get(interface) else {
        tables.nets.insert(net, Net::open());
        return tables;
    };
    let key = PortKey::tagged(uplink.ifindex, vlan.unwrap_or(0));
    tables.nets.insert(net, Net::open().behind(key, Mac(uplink.mac)));
    tables.wires.insert(key, Wire { net });
    tables
}

fn peer_tables(peer: &Peer, network: &Network, tunnel: &Tunnel) -> Tables {
    let (net, vni, vtep) = (network.number, tunnel.id(), Addr::from(peer.vtep));
    let (mac, local) = (Mac(peer.mac), Addr::from(tunnel.local_vtep));
    let mut tables = Tables::default();
    tables.vteps.insert(VtepKey { vni, addr: vtep }, Vtep::of_host(net, local));
    tables.fdb.insert(FdbKey::new(net, mac), Fdb::remote(vni, vtep).sent_from(local));
    for ip in &peer.addresses {
        tables.neigh.insert(NeighKey { net, addr: (*ip).into() }, Neigh::behind(vtep, mac));
    }
    let behind = Behind::remote(mac, vtep);
    peer.prefixes.iter().for_each(|prefix| route(&mut tables, net, prefix, behind));
    if let Some(Moving { number, vtep }) = peer.goes {
        let then = Fdb::remote(vni, vtep.into()).sent_from(local);
        tables.vteps.insert(VtepKey { vni, addr: vtep.into() }, Vtep::of_host(net, local));
        move_tables(&mut tables, Move::new(number, then));
    }
    tables
}

/// What is in the tables is a station that moves.
fn move_tables(tables: &mut Tables, moving: Move) {
    for (station, fdb) in &mut tables.fdb {
        *fdb = fdb.moving();
        tables.moves.insert(*station, moving);
    }
    tables.neigh.values_mut().for_each(|neigh| *neigh = neigh.moving());
    tables.ports.values_mut().for_each(|port| port.flags |= packet::Port::MOVES);
}

/// A port that is to come here from another host, as a station of that host.
fn coming_tables(port: &Port, network: &Network) -> Tables {
    let (Some(Moving { vtep, .. }), Some(tunnel)) = (&port.comes, network.tunnel()) else {
        return Tables::default();
    };
    let peer = Peer {
        uuid: port.uuid,
        network: port.network,
        mac: port.mac,
        addresses: port.addresses.iter().map(|address| address.ip).collect(),
        vtep: *vtep,
        prefixes: Vec::new(),
        goes: None,
        known_as: None,
    };
    peer_tables(&peer, network, tunnel)
}

/// What a port tells of its connections, as its programs know it.
fn tells(log: Option<FlowLog>) -> u32 {
    match log {
        None => 0,
        Some(FlowLog::Denied) => packet::Port::TELLS_DENIED,
        Some(FlowLog::All) => packet::Port::TELLS_DENIED | packet::Port::TELLS_OPENED,
    }
}

fn port_tables(port: &Port, network: &Network, plug: &Plug, stance: Stance) -> Tables {
    let key = PortKey::untagged(plug.ifindex);
    let (number, net, mac) = (port.number, network.number, Mac(port.mac));
    let mut tables = Tables::default();
    let value = packet::Port {
        number,
        net,
        generation: stance.generation(),
        // The data plane gives it one.
        zone: 0,
        mac,
        flags: match plug.far_end {
            FarEnd::Elsewhere => packet::Port::PEER,
            FarEnd::Here => 0,
        },
        ingress: stance.ingress,
        egress: stance.egress,
        rules: stance.rules | tells(port.flow_log),
        domain: port.addresses.first().map_or(0, |address| address.domain),
    };
    tables.ports.insert(key, value);
    tables.fdb.insert(FdbKey::new(net, mac), Fdb::local(key));
    for ip in port.ips(network) {
        let addr = ip.into();
        let address = port.addresses.iter().find(|address| address.ip == ip);
        let gateway = address.and_then(|address| address.gateway);
        let gateway = gateway.map_or(Addr::UNSPECIFIED_V6, Addr::from);
        let domain = address.map_or(value.domain, |address| address.domain);
        let source = Source { gateway, mtu: port.mtu_bytes, domain };
        tables.addrs.insert(AddrKey { port: number, addr }, source);
        tables.neigh.insert(NeighKey { net, addr }, Neigh::local(mac));
    }
    let behind = Behind::local(mac, port.mtu_bytes);
    port.prefixes.iter().for_each(|prefix| route(&mut tables, net, prefix, behind));
    if let (Some(Moving { number, vtep }), Some(tunnel)) = (&port.goes, network.tunnel()) {
        let (vni, local) = (tunnel.id(), Addr::from(tunnel.local_vtep));
        let then = Fdb::forwarded(vni, (*vtep).into()).sent_from(local);
        tables.vteps.insert(VtepKey { vni, addr: (*vtep).into() }, Vtep::of_host(net, local));
        move_tables(&mut tables, Move::new(*number, then));
    } else if let (Some(Moving { number, .. }), Some(_)) = (&port.comes, network.tunnel()) {
        let there = coming_tables(port, network);
        tables.fdb = there.fdb;
        tables.neigh = there.neigh;
        tables.vteps = there.vteps;
        move_tables(&mut tables, Move::new(*number, Fdb::local(key)));
        tables.ports.values_mut().for_each(|port| port.flags |= packet::Port::WAITS);
    }
    tables
}

/// What netloom does for a port, at which addresses: those of DHCP servers and of DNS on its L3
/// networks, and of metadata. Guests in a closed network may send what is for metadata or DNS to a
/// gateway that is nobody's, so its address is answered for.
fn serving(port: &Port, network: &Network, desired: &Holding) -> BTreeMap<AddrKey, Serving> {
    let mut serving = BTreeMap::new();
    let Some(told) = &port.told else { return serving };
    let mut add = |addr: Addr, what: u32| {
        let key = AddrKey { port: port.number, addr };
        serving.entry(key).or_insert(Serving { what: 0 }).what |= what;
    };
    for service in &told.services {
        let (nowhere, link_local) = (Addr::UNSPECIFIED_V6, Addr::from(IpAddr::V6(LINK_LOCAL)));
        match service {
            Service::Dhcp => add(nowhere, Serving::DHCP),
            Service::Ipv6 => {
                add(nowhere, Serving::IPV6);
                add(link_local, Serving::ADDRESS);
            }
            Service::Metadata => {
                let what = Serving::METADATA | Serving::ADDRESS;
                [IpAddr::V4(METADATA).into(), link_local]
                    .into_iter()
                    .for_each(|addr| add(addr, what));
            }
            Service::Dns => {
                let resolvers = subnets(port, desired).filter_map(|of| of.resolver.as_ref());
                resolvers.flat_map(|resolver| &resolver.addresses).for_each(|ip| {
                    add((*ip).into(), Serving::DNS | Serving::ADDRESS);
                });
            }
        }
    }
    if told.services.iter().any(|service| matches!(service, Service::Dhcp | Service::Ipv6)) {
        let servers = subnets(port, desired).filter_map(|of| of.dhcp.as_ref());
        for dhcp in servers {
            let [v4, v6] = [dhcp.server, dhcp.server6].map(|ip| ip.map(Addr::from));
            v4.into_iter().for_each(|addr| add(addr, Serving::RELAY | Serving::ADDRESS));
            v6.into_iter().for_each(|addr| add(addr, Serving::ADDRESS));
        }
    }
    let asks = |service: &Service| matches!(service, Service::Metadata | Service::Dns);
    if !network.is_open() && told.services.iter().any(asks) {
        let gateways = port.addresses.iter().filter_map(|address| address.gateway);
        gateways.for_each(|gateway| add(gateway.into(), Serving::ADDRESS));
    }
    serving
}

/// The L3 networks of a port's addresses.
fn subnets<'a>(port: &'a Port, desired: &'a Holding) -> impl Iterator<Item = &'a Subnet> {
    let uuids: BTreeSet<Uuid> = port.addresses.iter().filter_map(|a| a.subnet).collect();
    uuids.into_iter().filter_map(|uuid| desired.subnet(uuid))
}

/// The station in `behind` routes for a prefix in a network: others, too, if it is one address.
fn route(tables: &mut Tables, net: u32, prefix: &Prefix, behind: Behind) {
    let addr = prefix.ip.into();
    let key = PrefixKey::new(net, addr, prefix.bits);
    if prefix.bits < full_bits(&prefix.ip) {
        tables.behind.insert(key, behind);
        return;
    }
    let Behind { mac, vtep, mtu, .. } = behind;
    tables.behind.insert(key, Behind::shared());
    tables.sharers.insert(SharerKey { net, mac, pad: [0; 2], addr }, Sharer { vtep, mtu });
}

/// Bits of a prefix that is one address.
fn full_bits(ip: &IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// What an entry of a map says, without interfaces. What makes no sense to this version becomes a
/// fact that no object gives, so that it shows as a disagreement.
pub(crate) trait Says<V> {
    /// The fact; `None` if it goes without saying.
    fn fact(&self, value: &V, tables: &Tables) -> Option<Fact>;
}

impl Says<Net> for u32 {
    fn fact(&self, net: &Net, _: &Tables) -> Option<Fact> {
        if *net == Net::closed() {
            return None;
        }
        if *net == Net::open().with_foreign_vteps() {
            return Some(Fact::Strangers { net: *self });
        }
        // Whatever else is different would make it another one.
        let is_physical =
            net.uplink.ifindex != 0 && *net == Net::open().behind(net.uplink, net.uplink_mac);
        Some(match is_physical {
            true => Fact::Physical { net: *self, vlan: net.uplink.vlan },
            false => Fact::OddNetwork { net: *self },
        })
    }
}

impl Says<packet::Port> for PortKey {
    fn fact(&self, port: &packet::Port, _: &Tables) -> Option<Fact> {
        Some(Fact::Port { number: port.number, net: port.net, mac: port.mac.0 })
    }
}

impl Says<Source> for AddrKey {
    fn fact(&self, _: &Source, _: &Tables) -> Option<Fact> {
        Some(Fact::Address { port: self.port, ip: self.addr.into() })
    }
}

/// It follows from what the guest is told, which nobody reports.
impl Says<Serving> for AddrKey {
    fn fact(&self, _: &Serving, _: &Tables) -> Option<Fact> {
        None
    }
}

/// What rules say, and to whom, nobody reports yet.
impl Says<Node> for u64 {
    fn fact(&self, _: &Node, _: &Tables) -> Option<Fact> {
        None
    }
}

impl Says<Chapter> for ChapterKey {
    fn fact(&self, _: &Chapter, _: &Tables) -> Option<Fact> {
        None
    }
}

impl Says<u32> for ClassKey {
    fn fact(&self, _: &u32, _: &Tables) -> Option<Fact> {
        None
    }
}

impl Says<u64> for IdentKey {
    fn fact(&self, _: &u64, _: &Tables) -> Option<Fact> {
        None
    }
}

impl Says<Fdb> for FdbKey {
    fn fact(&self, fdb: &Fdb, tables: &Tables) -> Option<Fact> {
        Some(Fact::Fdb { net: self.net, mac: self.mac.0, at: station(fdb, tables) })
    }
}

impl Says<Move> for FdbKey {
    fn fact(&self, moving: &Move, tables: &Tables) -> Option<Fact> {
        let (net, mac, number) = (self.net, self.mac.0, moving.number);
        Some(Fact::Move { net, mac, number, at: station(&moving.then, tables) })
    }
}

fn station(fdb: &Fdb, tables: &Tables) -> Station {
    match fdb.target() {
        Some(FdbTarget::Local(key)) => {
            Station::Local { port: tables.ports.get(&key).map_or(0, |port| port.number) }
        }
        Some(FdbTarget::Remote { vni, vtep, .. }) => Station::Remote { vni, vtep: vtep.into() },
        // No object says where somebody in a physical network is.
        Some(FdbTarget::Uplink(_) | FdbTarget::Host(_)) | None => Station::Local { port: 0 },
    }
}

impl Says<Neigh> for NeighKey {
    fn fact(&self, neigh: &Neigh, _: &Tables) -> Option<Fact> {
        Some(Fact::Neighbour { net: self.net, ip: self.addr.into(), mac: neigh.mac.0 })
    }
}

impl Says<Behind> for PrefixKey {
    fn fact(&self, behind: &Behind, _: &Tables) -> Option<Fact> {
        if behind.is_shared() {
            // The sharers say by whom.
            return None;
        }
        let (net, ip, mac) = (self.net, self.addr.into(), behind.mac.0);
        // No object has a prefix of so many bits.
        let bits = self.prefix_bits().unwrap_or(u8::MAX);
        Some(Fact::Behind { net, ip, bits, mac })
    }
}

impl Says<Sharer> for SharerKey {
    fn fact(&self, _: &Sharer, _: &Tables) -> Option<Fact> {
        let (net, ip, mac) = (self.net, self.addr.into(), self.mac.0);
        Some(Fact::Behind { net, ip, bits: full_bits(&ip), mac })
    }
}

impl Says<Vtep> for VtepKey {
    fn fact(&self, vtep: &Vtep, _: &Tables) -> Option<Fact> {
        let (vni, ip, net) = (self.vni, self.addr.into(), vtep.net);
        match vtep.is_foreign {
            0 => Some(Fact::Vtep { vni, ip, net }),
            _ => Some(Fact::ForeignVtep { vni, ip, net }),
        }
    }
}

impl Says<Wire> for PortKey {
    fn fact(&self, wire: &Wire, tables: &Tables) -> Option<Fact> {
        let is_mutual = tables.nets.get(&wire.net).is_some_and(|net| net.uplink == *self);
        (!is_mutual).then_some(Fact::OddNetwork { net: wire.net })
    }
}

/// The data plane derives it from the VTEPs.
impl Says<Afar> for FloodKey {
    fn fact(&self, _: &Afar, _: &Tables) -> Option<Fact> {
        None
    }
}

/// The data plane derives it from the ports.
impl Says<Flooded> for FloodKey {
    fn fact(&self, _: &Flooded, _: &Tables) -> Option<Fact> {
        None
    }
}

/// What is done with each filled map.
macro_rules! each {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident $version:literal:
                $shape:ident $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept $kept:tt
    ) => {
        /// The facts that maps hold.
        pub fn facts(tables: &Tables) -> BTreeSet<Fact> {
            let unlisted = tables.ports.values().filter(|port| !tables.nets.contains_key(&port.net));
            let mut facts: BTreeSet<Fact> =
                unlisted.map(|port| Fact::OddNetwork { net: port.net }).collect();
            $(facts.extend(tables.$name.iter().filter_map(|(key, value)| key.fact(value, tables)));)*
            facts
        }
    };
}
packet::maps!(each);

/// A fact in a sentence.
pub fn words(fact: &Fact) -> String {
    match fact {
        Fact::Physical { net, vlan: 0 } => format!("network {net} is a physical one, untagged"),
        Fact::Physical { net, vlan } => format!("network {net} is a physical one, in VLAN {vlan}"),
        Fact::Strangers { net } => format!("network {net} has strangers behind foreign VTEPs"),
        Fact::ForeignVtep { vni, ip, net } => {
            format!("foreign VTEP {ip} may send {} into network {net}", id(*vni))
        }
        Fact::OddNetwork { net } => format!("network {net} is not as it should be"),
        Fact::Port { number, net, mac } => {
            format!("port {number} in network {net} sends from {}", model::Mac(*mac))
        }
        Fact::Address { port, ip } => format!("port {port} sends from {ip}"),
        Fact::Fdb { net, mac, at: Station::Local { port } } => {
            format!("network {net}: {} is port {port}", model::Mac(*mac))
        }
        Fact::Fdb { net, mac, at: Station::Remote { vni, vtep } } => {
            format!("network {net}: {} is behind VTEP {vtep}, {}", model::Mac(*mac), id(*vni))
        }
        Fact::Move { net, mac, number, at: Station::Local { port } } => {
            format!("network {net}: {} becomes port {port} by move {number}", model::Mac(*mac))
        }
        Fact::Move { net, mac, number, at: Station::Remote { vni, vtep } } => format!(
            "network {net}: {} goes behind VTEP {vtep}, {}, by move {number}",
            model::Mac(*mac),
            id(*vni)
        ),
        Fact::Neighbour { net, ip, mac } => {
            format!("network {net}: {ip} is at {}", model::Mac(*mac))
        }
        Fact::Behind { net, ip, bits, mac } => {
            format!("network {net}: {} routes for {ip}/{bits}", model::Mac(*mac))
        }
        Fact::Vtep { vni, ip, net } => {
            format!("VTEP {ip} may send {} into network {net}", id(*vni))
        }
    }
}

/// What a network is told by on the wire.
fn id(vni: u32) -> String {
    match vni & packet::GRE {
        0 => format!("VNI {vni}"),
        _ => format!("GRE key {}", vni & !packet::GRE),
    }
}
