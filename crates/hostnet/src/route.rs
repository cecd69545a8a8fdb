//! Routes to networks, by a device or to the host itself.

use std::net::IpAddr;

use nix::libc;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        RouteNetlinkMessage,
        route::{
            RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
            RouteScope, RouteType,
        },
    },
};

use crate::{Error, Netlink, address, way::LOOPBACK};

/// Where packets to a network go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Out by the device with this index. A TCP peer there is never told of more room than this, in bytes.
    Device(u32, u32),
    /// To sockets here: all its addresses are this namespace's own.
    Here,
}

impl Netlink {
    /// Sends what is for the network there. A route to the same network is replaced.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn route_add(&self, ip: IpAddr, prefix_len: u8, to: To) -> Result<(), Error> {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = address::family(ip);
        header.destination_prefix_length = prefix_len;
        header.protocol = RouteProtocol::Static;
        let index = match to {
            To::Device(index, window_bytes) => {
                header.table = RouteHeader::RT_TABLE_MAIN;
                header.scope = RouteScope::Universe;
                header.kind = RouteType::Unicast;
                let metrics = vec![RouteMetric::Window(window_bytes)];
                message.attributes.push(RouteAttribute::Metrics(metrics));
                index
            }
            To::Here => {
                header.table = libc::RT_TABLE_LOCAL;
                header.scope = RouteScope::Host;
                header.kind = RouteType::Local;
                LOOPBACK
            }
        };
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(ip)));
        message.attributes.push(RouteAttribute::Oif(index));
        let action = format!("add the route to {ip}/{prefix_len}");
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.change(action, RouteNetlinkMessage::NewRoute(message), flags).await
    }
}
