//! VTEP: where a host's tunnels of a pool end.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{host::Host, l2_network::L2Network};
use crate::{Claim, Id, Message, MessageDef, words};

/// UDP port of VXLAN unless the setting `vxlan/port` says otherwise. ZStack's and Linux's older default, not RFC
/// 7348's 4789, so that a cluster can be moved host by host.
pub const VXLAN_PORT: u16 = 8472;

/// The address at which a host's tunnels of a pool end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l2-networks/vteps", aliases, claims, messages)]
pub struct Vtep {
    /// Its id.
    pub uuid: Id<Vtep>,
    /// The host.
    #[field(on_delete = "cascade")]
    pub host_uuid: Id<Host>,
    /// The address, IPv4 or IPv6.
    #[field(index)]
    pub vtep_ip: IpAddr,
    /// UDP port of VXLAN; 0 in a pool of GRE networks, which have none.
    pub port: u16,
    /// Always `KVM_HOST_VXLAN`.
    #[serde(rename = "type")]
    pub vtep_type: VtepType,
    /// The pool.
    #[field(on_delete = "cascade")]
    pub pool_uuid: Id<L2Network>,
}

impl Vtep {
    const MESSAGES: &'static [&'static MessageDef] = &[&CreateVxlanVtep::DEF];

    const ALIASES: &'static [(&'static str, &'static str)] = &[("vxlanPool", "pool")];

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        vec![Claim::VtepIp(self.pool_uuid, self.vtep_ip)]
    }
}

words! {
    /// What a VTEP is.
    VtepType {
        /// A KVM host's.
        KvmHost = "KVM_HOST_VXLAN",
    }
}

/// Sets a host's VTEP by hand; needed when its management address is outside the pool's CIDR.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/vxlan/vteps", creates = "Vtep", access = "admin")]
pub struct CreateVxlanVtep {
    /// The host.
    pub host_uuid: Id<Host>,
    /// The pool.
    pub pool_uuid: Id<L2Network>,
    /// The address; the management address if absent.
    pub vtep_ip: Option<IpAddr>,
}
