//! What devices have lost, as the kernel counts it.

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};

use crate::{Error, Netlink};

/// Packets that a device has lost since it was made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Losses {
    /// The name of the device.
    pub device: String,
    /// Received and dropped: no room, or nobody who wanted it.
    pub rx_dropped: u64,
    /// Received and broken.
    pub rx_errors: u64,
    /// Dropped before they were sent.
    pub tx_dropped: u64,
    /// Not sent for another reason.
    pub tx_errors: u64,
    /// Those among them that had no carrier; of a tunnel device, no route to the other end or no
    /// such address at this one.
    pub tx_carrier_errors: u64,
}

impl Losses {
    /// Whether nothing was lost.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self { device: self.device.clone(), ..Self::default() }
    }
}

impl Netlink {
    /// What each device of the namespace has lost.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn losses(&self) -> Result<Vec<Losses>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let messages = self.dump("list the devices", request).await?;
        Ok(messages.iter().filter_map(parse).collect())
    }
}

fn parse(message: &RouteNetlinkMessage) -> Option<Losses> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut losses = Losses::default();
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => losses.device.clone_from(name),
            LinkAttribute::Stats64(counted) => {
                losses.rx_dropped = counted.rx_dropped;
                losses.rx_errors = counted.rx_errors;
                losses.tx_dropped = counted.tx_dropped;
                losses.tx_errors = counted.tx_errors;
                losses.tx_carrier_errors = counted.tx_carrier_errors;
            }
            _ => {}
        }
    }
    Some(losses)
}
