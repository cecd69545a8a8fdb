//! Addresses of links, and default routes.
//!
//! What is added here carries netloom's protocol number, so that a later run tells what it made
//! itself from what a guest, a daemon or the kernel made, and deletes only the former.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
};

use crate::{Error, Netlink};

/// Marks our addresses (IFA_PROTO) and routes (rtm_protocol). Free in rtnetlink.h of Linux 6.12
/// and in iproute2's rt_protos.
const PROTOCOL: u8 = 110;

/// Who made an address or a route.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// This crate, in this or in an earlier process.
    Netloom,
    /// Anybody else.
    Foreign,
}

/// An address of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// The length of the prefix that is reached without a router.
    pub prefix_len: u8,
    /// Who made it.
    pub origin: Origin,
}

/// A route to everywhere, in the main table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DefaultRoute {
    /// The link through which the gateway is reached.
    pub index: u32,
    /// The gateway.
    pub gateway: IpAddr,
    /// The lowest metric wins; one route per metric and address family.
    pub metric: u32,
    /// Who made it.
    pub origin: Origin,
}

impl Netlink {
    /// All addresses of a link; none when there is no such link.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn addresses(&self, index: u32) -> Result<Vec<Address>, Error> {
        let action = format!("list the addresses of device {index}");
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump(action, request).await?;
        Ok(messages.iter().filter_map(|message| parse_address(message, index)).collect())
    }

    /// The addresses of all links of the namespace, without those that turned out to be somebody
    /// else's too (RFC 4862, 5.4): nothing can be sent from them.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn local_addresses(&self) -> Result<BTreeSet<IpAddr>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump("list the addresses", request).await?;
        let local = messages.iter().filter_map(|message| {
            let RouteNetlinkMessage::NewAddress(inner) = message else { return None };
            let is_double = inner.header.flags.contains(AddressHeaderFlags::Dadfailed);
            let address = parse_address(message, inner.header.index)?;
            (!is_double).then_some(address.ip)
        });
        Ok(local.collect())
    }

    /// The addresses of all links of the namespace, by the index of the link.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn addresses_by_link(&self) -> Result<BTreeMap<u32, BTreeSet<IpAddr>>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump("list the addresses", request).await?;
        let mut by_link: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for message in &messages {
            let RouteNetlinkMessage::NewAddress(inner) = message else { continue };
            let index = inner.header.index;
            if let Some(address) = parse_address(message, index) {
                by_link.entry(index).or_default().insert(address.ip);
            }
        }
        Ok(by_link)
    }

    /// Adds an address to a link. Usable at once: an IPv6 address skips duplicate detection, since
    /// the control plane hands out each address once. The same address there is success.
    ///
    /// # Errors
    /// What the kernel says. The kernel takes an IPv6 address with another prefix length as the
    /// same: remove that first.
    pub async fn address_add(&self, index: u32, ip: IpAddr, prefix_len: u8) -> Result<(), Error> {
        let mut message = address_message(index, ip, prefix_len);
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
        match ip {
            IpAddr::V4(ip) => {
                let broadcast = broadcast(ip, prefix_len).map(AddressAttribute::Broadcast);
                message.attributes.extend(broadcast);
            }
            IpAddr::V6(_) => message.header.flags |= AddressHeaderFlags::Nodad,
        }
        let action = format!("add address {ip}/{prefix_len} to device {index}");
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        match self.change(action, RouteNetlinkMessage::NewAddress(message), flags).await {
            Err(error) if error.is_exists() => Ok(()),
            done => done,
        }
    }

    /// Removes an address from a link. No such address is success.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn address_remove(
        &self,
        index: u32,
        ip: IpAddr,
        prefix_len: u8,
    ) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, ip, prefix_len));
        let action = format!("remove address {ip}/{prefix_len} from device {index}");
        match self.change(action, message, 0).await {
            Err(error) if error.is_not_found() => Ok(()),
            done => done,
        }
    }

    /// The default routes of the main table that have one gateway.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn default_routes(&self) -> Result<Vec<DefaultRoute>, Error> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let messages = self.dump("list the routes", request).await?;
        Ok(messages.iter().filter_map(parse_default).collect())
    }

    /// Sends what has no other route to `gateway`, through the link `index`, which must be up. A
    /// default route of the same family and metric is replaced, without a moment in between.
    ///
    /// The gateway may lie outside of every prefix of the link, as with a /32 address.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn route_add_default(
        &self,
        index: u32,
        gateway: IpAddr,
        metric: u32,
    ) -> Result<(), Error> {
        let mut message = default_message(index, gateway, metric);
        message.header.protocol = RouteProtocol::Other(PROTOCOL);
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.header.flags = RouteFlags::Onlink;
        let action = format!("add the default route by {gateway} through device {index}");
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.change(action, RouteNetlinkMessage::NewRoute(message), flags).await
    }

    /// Removes a default route. No such route is success.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn route_remove_default(
        &self,
        index: u32,
        gateway: IpAddr,
        metric: u32,
    ) -> Result<(), Error> {
        let mut message = default_message(index, gateway, metric);
        message.header.scope = RouteScope::NoWhere;
        let action = format!("remove the default route by {gateway} through device {index}");
        match self.change(action, RouteNetlinkMessage::DelRoute(message), 0).await {
            Err(error) if error.is_not_found() => Ok(()),
            done => done,
        }
    }
}

pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn address_message(index: u32, ip: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

/// RFC 3021: a /31 has no broadcast address, and neither has a /32.
fn broadcast(ip: Ipv4Addr, prefix_len: u8) -> Option<Ipv4Addr> {
    (prefix_len < 31).then(|| ip | Ipv4Addr::from(u32::MAX >> prefix_len))
}

pub(crate) fn parse_address(message: &RouteNetlinkMessage, index: u32) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    if message.header.index != index {
        return None;
    }
    let attributes = &message.attributes;
    // On a link with two ends, "local" is ours and "address" may be the other's. IPv6 has no
    // "local" unless the address was made with a peer.
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    let mark = AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL));
    let origin = if attributes.contains(&mark) { Origin::Netloom } else { Origin::Foreign };
    Some(Address { ip: local.or(address)?, prefix_len: message.header.prefix_len, origin })
}

fn default_message(index: u32, gateway: IpAddr, metric: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.attributes = vec![
        RouteAttribute::Oif(index),
        RouteAttribute::Gateway(RouteAddress::from(gateway)),
        RouteAttribute::Priority(metric),
    ];
    message
}

fn parse_default(message: &RouteNetlinkMessage) -> Option<DefaultRoute> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.destination_prefix_length != 0
        || header.table != RouteHeader::RT_TABLE_MAIN
        || header.kind != RouteType::Unicast
    {
        return None;
    }
    let (mut index, mut gateway, mut metric) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => gateway = Some(IpAddr::V4(*ip)),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => gateway = Some(IpAddr::V6(*ip)),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let ours = header.protocol == RouteProtocol::Other(PROTOCOL);
    let origin = if ours { Origin::Netloom } else { Origin::Foreign };
    Some(DefaultRoute { index: index?, gateway: gateway?, metric, origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broadcast_address_follows_the_prefix() {
        let ip = Ipv4Addr::new(10, 1, 2, 3);
        assert_eq!(broadcast(ip, 24), Some(Ipv4Addr::new(10, 1, 2, 255)));
        assert_eq!(broadcast(ip, 0), Some(Ipv4Addr::BROADCAST));
        assert_eq!(broadcast(ip, 31), None);
        assert_eq!(broadcast(ip, 32), None);
    }
}
