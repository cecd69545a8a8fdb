//! VM NIC: a port of an L2 network. It exists on its own, with or without a VM, bound or not.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    host::Host, ip_range::IpRange, l2_vxlan_network::L2VxlanNetwork, l3_network::L3Network,
    vm_instance::VmInstance, zone::EnableState,
};
use crate::{FieldType, Id, Mac, Timestamp, declare::FieldValue};

/// MTU inside a VXLAN network over an underlay of 1,500 bytes: minus 50 for IPv4 VTEPs.
pub const VXLAN_MTU_BYTES: u32 = 1450;

/// A port of an L2 network, with its addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/vm-instances/nics")]
pub struct VmNic {
    /// Its id.
    pub uuid: Id<VmNic>,
    /// The instance it is plugged into.
    pub vm_instance_uuid: Option<Id<VmInstance>>,
    /// The L3 network of its first address.
    pub l3_network_uuid: Id<L3Network>,
    /// Its L2 network.
    #[field(hidden)]
    pub l2_network_uuid: Id<L2VxlanNetwork>,
    /// The host it is bound to.
    #[field(hidden)]
    pub host_uuid: Option<Id<Host>>,
    /// Its number in the data plane; never reused.
    #[field(hidden)]
    pub number: u32,
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses; the first one decides `ip`, `netmask` and `gateway` in the API.
    pub used_ips: Vec<UsedIp>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Position in the instance: 0 is `eth0`.
    pub device_id: u32,
    /// Whether it passes traffic.
    pub state: EnableState,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it last changed.
    pub last_op_date: Timestamp,
}

/// An address in use by a NIC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsedIp {
    /// The range that it came from.
    pub ip_range_uuid: Id<IpRange>,
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// 4 or 6.
    pub ip_version: u8,
    /// The address.
    pub ip: IpAddr,
    /// The subnet's mask, IPv4 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netmask: Option<IpAddr>,
    /// Length of the subnet's prefix, in bits.
    pub prefix_len: u8,
    /// The subnet's gateway.
    pub gateway: IpAddr,
}

impl FieldValue for UsedIp {
    const TYPE: FieldType = FieldType::Object;
}

/// Makes a NIC that is plugged in nowhere yet.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/nics", creates = "VmNic")]
pub struct CreateVmNic {
    /// The L3 network of its addresses.
    pub l3_network_uuid: Id<L3Network>,
    /// The wanted address; a free one if absent.
    pub ip: Option<IpAddr>,
}

/// Deletes a NIC that is plugged in nowhere.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/nics/{uuid}")]
pub struct DeleteVmNic {
    /// The NIC.
    pub uuid: Id<VmNic>,
}
