//! The messages that change what a NIC is like: addresses, MAC, state, driver; and hostnames.

use std::net::IpAddr;

use derive::Message;
use serde::Deserialize;

use super::{l3_network::L3Network, vm_instance::VmInstance, vm_nic::VmNic, zone::EnableEvent};
use crate::{Id, Mac, Message, MessageDef};

/// The messages of this file about NICs.
pub(super) const MESSAGES: [&MessageDef; 5] = [
    &ChangeVmNicState::DEF,
    &UpdateVmNicDriver::DEF,
    &UpdateVmNicMac::DEF,
    &SetVmStaticIp::DEF,
    &DeleteVmStaticIp::DEF,
];

/// The messages of this file about instances.
pub(super) const HOSTNAME_MESSAGES: [&MessageDef; 3] =
    [&SetVmHostname::DEF, &DeleteVmHostname::DEF, &GetVmHostname::DEF];

/// Enables or disables a NIC. One that is disabled is not on its host: its device is gone.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/nics/{vmNicUuid}/actions", action = "changeVmNicState")]
pub struct ChangeVmNicState {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// What is to happen.
    pub state: EnableEvent,
}

/// Changes the model of a NIC. Instances that are namespaces have `veth` and nothing else.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/{vmInstanceUuid}/actions", action = "updateVmNicDriver")]
pub struct UpdateVmNicDriver {
    /// The instance.
    pub vm_instance_uuid: Id<VmInstance>,
    /// Its NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// The model.
    pub driver_type: String,
}

/// Gives a NIC another MAC. Where its instance runs, its device is made anew.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/nics/{vmNicUuid}/actions", action = "updateVmNicMac")]
pub struct UpdateVmNicMac {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// The MAC.
    pub mac: Mac,
}

/// Gives a NIC an address that stays its own, also when its instance is destroyed and recovered.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/{vmInstanceUuid}/actions", action = "setVmStaticIp")]
pub struct SetVmStaticIp {
    /// The instance.
    pub vm_instance_uuid: Id<VmInstance>,
    /// The L3 network, of one of its NICs.
    pub l3_network_uuid: Id<L3Network>,
    /// The address.
    pub ip: Option<IpAddr>,
    /// The address in IPv6.
    pub ip6: Option<IpAddr>,
    /// The mask of the IPv4 address, which its range has.
    pub netmask: Option<IpAddr>,
    /// The gateway of the IPv4 address, which its range has.
    pub gateway: Option<IpAddr>,
    /// The gateway of the IPv6 address, which its range has.
    pub ipv6_gateway: Option<IpAddr>,
    /// The length of the prefix of the IPv6 address in bits, which its range has.
    pub ipv6_prefix: Option<String>,
}

/// Makes the addresses of a NIC on an L3 network ordinary ones: it keeps them until its instance is
/// destroyed.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/vm-instances/{vmInstanceUuid}/static-ips")]
pub struct DeleteVmStaticIp {
    /// The instance.
    pub vm_instance_uuid: Id<VmInstance>,
    /// The L3 network, of one of its NICs.
    pub l3_network_uuid: Id<L3Network>,
    /// The one address; all of them if absent.
    pub static_ip: Option<IpAddr>,
}

/// Gives an instance a hostname, which no other one on its L3 networks may have.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/{uuid}/actions", action = "setVmHostname")]
pub struct SetVmHostname {
    /// The instance.
    pub uuid: Id<VmInstance>,
    /// Labels of letters, digits and hyphens, with dots between them.
    pub hostname: String,
}

/// Takes an instance's hostname away.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/vm-instances/{uuid}/hostnames")]
pub struct DeleteVmHostname {
    /// The instance.
    pub uuid: Id<VmInstance>,
}

/// An instance's hostname.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/vm-instances/{uuid}/hostnames", answer = "now")]
pub struct GetVmHostname {
    /// The instance.
    pub uuid: Id<VmInstance>,
}
