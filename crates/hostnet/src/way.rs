//! How packets leave a host, and how long they may be.

use std::{collections::BTreeMap, net::IpAddr};

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric},
};

use crate::{Error, Netlink, address};

/// The index of the loopback device, in every namespace (`LOOPBACK_IFINDEX`).
pub(crate) const LOOPBACK: u32 = 1;

/// How packets leave towards an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Way {
    /// The device.
    pub device: String,
    /// Its index.
    pub index: u32,
    /// Whether frames on it begin with an Ethernet header.
    pub is_ethernet: bool,
    /// The longest packet, in bytes without the Ethernet header.
    pub mtu_bytes: u32,
    /// Where to, if it is not the device that sets the limit but the route, or what the kernel has
    /// heard of the path (RFC 1191, RFC 8201).
    pub route_to: Option<IpAddr>,
}

impl Netlink {
    /// The narrowest way by which packets leave from `own` towards others; without any others the
    /// device that has the address. `None` if no device has it, or none but the loopback, from
    /// which nothing leaves.
    ///
    /// # Errors
    /// What the kernel says. An address to which there is no route is left out.
    pub async fn narrowest_way(
        &self,
        own: IpAddr,
        others: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Option<Way>, Error> {
        let Some(device) = self.device_of(own).await? else { return Ok(None) };
        // By device, the narrowest route. Peers mostly share one.
        let mut routes: BTreeMap<u32, Option<(u32, IpAddr)>> = BTreeMap::new();
        for other in others {
            let Some((device, mtu_bytes)) = self.route(own, other).await? else { continue };
            let narrowest = routes.entry(device).or_default();
            let limits = [*narrowest, mtu_bytes.map(|mtu_bytes| (mtu_bytes, other))];
            *narrowest = limits.into_iter().flatten().min();
        }
        if routes.is_empty() && device != LOOPBACK {
            routes.insert(device, None);
        }
        let mut ways = Vec::new();
        for (device, limit) in routes {
            let Some(link) = self.link_by_index(device).await? else { continue };
            let (mtu_bytes, route_to) = match limit {
                Some((mtu_bytes, to)) if mtu_bytes < link.mtu_bytes => (mtu_bytes, Some(to)),
                _ => (link.mtu_bytes, None),
            };
            let is_ethernet = link.is_ethernet;
            ways.push(Way { device: link.name, index: device, is_ethernet, mtu_bytes, route_to });
        }
        Ok(ways.into_iter().min_by_key(|way| way.mtu_bytes))
    }

    /// The index of the link that has an address.
    async fn device_of(&self, ip: IpAddr) -> Result<Option<u32>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let messages = self.dump(format!("look up who has {ip}"), request).await?;
        Ok(messages.iter().find_map(|message| {
            let RouteNetlinkMessage::NewAddress(inner) = message else { return None };
            let index = inner.header.index;
            (address::parse_address(message, index)?.ip == ip).then_some(index)
        }))
    }

    /// The device by which packets leave towards an address, and the route's own MTU.
    async fn route(&self, from: IpAddr, to: IpAddr) -> Result<Option<(u32, Option<u32>)>, Error> {
        let mut request = RouteMessage::default();
        let bits = if to.is_ipv4() { 32 } else { 128 };
        request.header.address_family = address::family(to);
        (request.header.destination_prefix_length, request.header.source_prefix_length) =
            (bits, bits);
        request.attributes = vec![
            RouteAttribute::Destination(RouteAddress::from(to)),
            RouteAttribute::Source(RouteAddress::from(from)),
        ];
        let action = format!("look up the route to {to}");
        let reply = match self.get(action, RouteNetlinkMessage::GetRoute(request)).await {
            Err(error) if error.is_no_route() => return Ok(None),
            reply => reply?,
        };
        let Some(RouteNetlinkMessage::NewRoute(route)) = reply else { return Ok(None) };
        let (mut index, mut own_mtu) = (None, None);
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(oif) => index = Some(oif),
                RouteAttribute::Metrics(metrics) => {
                    own_mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu_bytes) => Some(*mtu_bytes),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Ok(index.map(|index| (index, own_mtu)))
    }
}
