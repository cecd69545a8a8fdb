//! The frame in which a guest sends the first packet of a connection, to the MAC that it would find.

use std::net::IpAddr;

use dataplane::Error;
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};
use packet::{Addr, AddrKey, NeighKey, SERVICE_MAC, Serving};
use wire::{
    object::{Network, Object, ObjectKey, Port, PortAddress, Prefix, Table},
    question::{FromPort, Step},
};

use super::Sight;

/// The port of the source, if none is named: of those that clients draw (RFC 6335, 6).
const SOURCE_PORT: u16 = 50_000;

/// A MAC that no NIC has (RFC 7042, 2.1: for documentation, locally administered).
const NOBODY: [u8; 6] = [0x02, 0x00, 0x5e, 0x00, 0x53, 0xff];

/// An echo request, by family (RFC 792; RFC 4443, 4.1).
const ECHO: u16 = 8 << 8;
const ECHO_V6: u16 = 128 << 8;

/// Makes it. The steps say whose MAC it is for.
pub(super) fn of_guest(
    (sight, network, entry): (Sight<'_>, &Network, &packet::Port),
    port: &Port,
    asked: &FromPort,
    steps: &mut Vec<Step>,
) -> Result<Vec<u8>, String> {
    let remote = asked.remote.to_canonical();
    let own = port.addresses.iter().find(|own| own.ip.is_ipv4() == remote.is_ipv4());
    let source = asked.source.map(|source| source.to_canonical());
    let source = source.or(own.map(|own| own.ip));
    let family = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
    let source = source.ok_or(format!("the NIC has no address of {family} to send from"))?;
    if source.is_ipv4() != remote.is_ipv4() {
        return Err(format!("source {source} and destination {remote} are of two families"));
    }
    let to = next_hop(sight, network, entry, port, (source, remote));
    let (mac, text) = to.map_err(|error| error.to_string())?;
    steps.push(Step { stage: "guest".to_owned(), text, object: None });
    let port_or_type = match (asked.protocol, asked.port_or_type) {
        (1, 0) => ECHO,
        (58, 0) => ECHO_V6,
        (_, port_or_type) => port_or_type,
    };
    let source_port = if asked.source_port == 0 { SOURCE_PORT } else { asked.source_port };
    let ports = (source_port, port_or_type);
    make((port.mac, mac), (source, remote), asked.protocol, ports)
        .ok_or("no frame can be made of it".to_owned())
}

type Hop = ([u8; 6], String);

/// The MAC that the guest sends to, and why.
fn next_hop(
    sight: Sight<'_>,
    network: &Network,
    entry: &packet::Port,
    port: &Port,
    (source, remote): (IpAddr, IpAddr),
) -> Result<Hop, Error> {
    if let Some(mac) = group_mac(port, remote) {
        return Ok((mac, format!("the guest sends to the group {remote}")));
    }
    let is_link = Addr::from(remote).is_link_local();
    let is_near = is_link || port.addresses.iter().any(|own| is_in(own, remote));
    let gateway = if is_near { None } else { gateway(sight, port, (source, remote)) };
    let (hop, what) = match (is_near, gateway) {
        (true, _) => (remote, format!("{remote} is on the guest's own link")),
        (false, Some(gateway)) => (
            gateway,
            format!("{remote} is not on the guest's link: it asks for its gateway {gateway}"),
        ),
        (false, None) => {
            let text =
                format!("the guest has no route to {remote}: it gets as far as nobody's MAC");
            return Ok((NOBODY, text));
        }
    };
    let at = NeighKey { net: network.number, addr: hop.into() };
    if let Some(neigh) = sight.live.neigh(&at)? {
        let mac = model::Mac(neigh.mac.0);
        return Ok((neigh.mac.0, format!("{what}; {hop} has MAC {mac}")));
    }
    let own = sight.live.serving(&AddrKey { port: entry.number, addr: hop.into() })?;
    if own.is_some_and(|serving| serving.what & Serving::ADDRESS != 0) {
        return Ok((SERVICE_MAC.0, format!("{what}; {hop} is netloom's own")));
    }
    let whose = match network.is_open() {
        true => "no NIC has it, maybe a machine that netloom does not know",
        false => "nobody in the network has it: a guest gets no answer to its question for the MAC",
    };
    Ok((NOBODY, format!("{what}; {whose}")))
}

/// The MAC of a group of stations (RFC 1112, 6.4; RFC 2464, 7).
fn group_mac(port: &Port, remote: IpAddr) -> Option<[u8; 6]> {
    match remote {
        IpAddr::V4(ip) => {
            let [_, b, c, d] = ip.octets();
            let own = port.addresses.iter().filter(|own| is_in(own, remote));
            let is_last = |own: &PortAddress| {
                let rest = u32::MAX.checked_shr(own.prefix_bits.into()).unwrap_or(0);
                rest > 1 && u32::from(ip) & rest == rest
            };
            if ip.is_broadcast() || own.into_iter().any(is_last) {
                return Some([0xff; 6]);
            }
            ip.is_multicast().then_some([1, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            ip.is_multicast().then_some([0x33, 0x33, a, b, c, d])
        }
    }
}

fn is_in(own: &PortAddress, remote: IpAddr) -> bool {
    covers(Prefix { ip: own.ip, bits: own.prefix_bits }, remote)
}

fn covers(Prefix { ip, bits }: Prefix, remote: IpAddr) -> bool {
    match (ip, remote) {
        (IpAddr::V4(ip), IpAddr::V4(remote)) => {
            let rest = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
            (u32::from(ip) ^ u32::from(remote)) & !rest == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(remote)) => {
            let rest = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
            (u128::from(ip) ^ u128::from(remote)) & !rest == 0
        }
        _ => false,
    }
}

/// Who the guest takes for its router: by the longest route that it was told of, then by default.
fn gateway(sight: Sight<'_>, port: &Port, (source, remote): (IpAddr, IpAddr)) -> Option<IpAddr> {
    let subnets = port.addresses.iter().filter_map(|own| {
        let key = ObjectKey { table: Table::Subnet, uuid: own.subnet? };
        match sight.desired.holding.get(&key) {
            Some(Object::Subnet(subnet)) => Some(subnet),
            _ => None,
        }
    });
    let routes = subnets.flat_map(|subnet| &subnet.routes);
    let routes = routes.filter(|route| covers(route.prefix.clone(), remote));
    let told = routes.max_by_key(|route| route.prefix.bits).map(|route| route.via);
    let gateways = || {
        let of_family = |own: &&PortAddress| own.ip.is_ipv4() == remote.is_ipv4();
        port.addresses.iter().filter(of_family)
    };
    let of_source = gateways().find(|own| own.ip == source).and_then(|own| own.gateway);
    told.or(of_source).or_else(|| gateways().find_map(|own| own.gateway))
}

fn make(
    (from, to): ([u8; 6], [u8; 6]),
    (source, remote): (IpAddr, IpAddr),
    protocol: u8,
    (source_port, port_or_type): (u16, u16),
) -> Option<Vec<u8>> {
    const PAYLOAD: [u8; 8] = [0; 8];
    let number = IpNumber(protocol);
    let headers = match (source, remote) {
        (IpAddr::V4(source), IpAddr::V4(remote)) => {
            let header = Ipv4Header::new(0, 64, number, source.octets(), remote.octets()).ok()?;
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(source), IpAddr::V6(remote)) => {
            let header = Ipv6Header {
                hop_limit: 64,
                source: source.octets(),
                destination: remote.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        _ => return None,
    };
    let [kind, code] = port_or_type.to_be_bytes();
    let builder = PacketBuilder::ethernet2(from, to).ip(headers);
    let mut frame = Vec::new();
    let written = match number {
        IpNumber::TCP => {
            let segment = builder.tcp(source_port, port_or_type, 1, u16::MAX).syn();
            segment.write(&mut frame, &[])
        }
        IpNumber::UDP => builder.udp(source_port, port_or_type).write(&mut frame, &PAYLOAD),
        IpNumber::ICMP if source.is_ipv4() => {
            builder.icmpv4_raw(kind, code, [0, 1, 0, 1]).write(&mut frame, &PAYLOAD)
        }
        IpNumber::IPV6_ICMP if source.is_ipv6() => {
            builder.icmpv6_raw(kind, code, [0, 1, 0, 1]).write(&mut frame, &PAYLOAD)
        }
        other => builder.write(&mut frame, other, &PAYLOAD),
    };
    written.ok().map(|()| frame)
}
