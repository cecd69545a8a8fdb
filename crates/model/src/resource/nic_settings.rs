//! The messages that change what a NIC is like: addresses, MAC, state, driver; and hostnames.

use std::net::IpAddr;

use derive::Message;
use ipnet::IpNet;
use serde::Deserialize;

use super::{l3_network::L3Network, vm_instance::VmInstance, vm_nic::VmNic, zone::EnableEvent};
use crate::{Id, Mac, Message, MessageDef};

/// The messages of this file about NICs.
pub(super) const MESSAGES: [&MessageDef; 7] = [
    &ChangeVmNicState::DEF,
    &UpdateVmNicDriver::DEF,
    &UpdateVmNicMac::DEF,
    &SetVmStaticIp::DEF,
    &DeleteVmStaticIp::DEF,
    &SetVmNicAllowedPrefixes::DEF,
    &GetVmNicTold::DEF,
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

/// Says for which prefixes a NIC's instance routes: containers in it, a VPN, an appliance. The NIC may
/// then send from any address in them, beside its own ones, and gets what others send there. Nobody
/// answers ARP for them: other instances have a route by an address of the NIC. For whoever owns the
/// NIC and its L3 network; that it routes for everything (`0.0.0.0/0`, `::/0`) is an administrator's.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/nics/{vmNicUuid}/actions", action = "setVmNicAllowedPrefixes")]
pub struct SetVmNicAllowedPrefixes {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// All its prefixes, 32 at most; none if absent. On an L2 network none has addresses of an IP
    /// range or of another prefix, but `0.0.0.0/0` and `::/0`, which are for whatever else there is.
    /// One that is a single address may be had by several NICs.
    #[serde(default)]
    pub prefixes: Vec<IpNet>,
}

/// What the instance behind a NIC is told by DHCP, router advertisements, metadata and names: services,
/// addresses and how they come, routes, name servers, options.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/vm-instances/nics/{vmNicUuid}/told", answer = "now")]
pub struct GetVmNicTold {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
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
