//! VTEP: where a host's tunnels of a pool end.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{host::Host, l2_vxlan_pool::L2VxlanNetworkPool};
use crate::{Id, Timestamp};

/// UDP port of the tunnels. ZStack's and Linux's older default, not RFC 7348's 4789, so that a
/// cluster can be moved host by host.
pub const VXLAN_PORT: u16 = 8472;

/// The address at which a host's tunnels of a pool end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l2-networks/vteps")]
pub struct Vtep {
    /// Its id.
    pub uuid: Id<Vtep>,
    /// The host.
    pub host_uuid: Id<Host>,
    /// The address, IPv4 or IPv6.
    pub vtep_ip: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Always `KVM_HOST_VXLAN`.
    #[serde(rename = "type")]
    pub vtep_type: String,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it last changed.
    pub last_op_date: Timestamp,
    /// The pool.
    pub pool_uuid: Id<L2VxlanNetworkPool>,
}

/// Sets a host's VTEP by hand; needed when its management address is outside the pool's CIDR.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/vxlan/vteps", creates = "Vtep")]
pub struct CreateVxlanVtep {
    /// The host.
    pub host_uuid: Id<Host>,
    /// The pool.
    pub pool_uuid: Id<L2VxlanNetworkPool>,
    /// The address; the management address if absent.
    pub vtep_ip: Option<IpAddr>,
}
