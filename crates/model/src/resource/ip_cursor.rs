//! IP cursor: how far the addresses of an L3 network have been given out in their order.

use std::net::IpAddr;

use derive::Resource;
use serde::{Deserialize, Serialize};

use super::l3_network::L3Network;
use crate::Id;

/// How far the addresses of an L3 network have been given out in their order. Only networks whose
/// strategy needs it have one, for each address family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource()]
pub struct IpCursor {
    /// Its id, derived from network and family.
    pub uuid: Id<IpCursor>,
    /// The L3 network.
    #[field(on_delete = "cascade")]
    pub l3_network_uuid: Id<L3Network>,
    /// The address that was given last.
    pub last: IpAddr,
}
