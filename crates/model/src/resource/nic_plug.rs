//! The messages that plug NICs into instances and out of them, hot where the instance runs.

use std::net::IpAddr;

use derive::Message;
use serde::Deserialize;

use super::{
    host::Host, l3_network::L3Network, vm_instance::VmInstance, vm_nic::VmNic, zone::EnableEvent,
};
use crate::{Id, Mac, Message, MessageDef};

/// The messages of this file.
pub(super) const MESSAGES: [&MessageDef; 9] = [
    &AttachL3NetworkToVm::DEF,
    &DetachL3NetworkFromVm::DEF,
    &AttachVmNicToVm::DEF,
    &PlugVmNic::DEF,
    &UnplugVmNic::DEF,
    &ChangeVmNicNetwork::DEF,
    &AttachL3NetworkToVmNic::DEF,
    &GetVmAttachableL3Network::DEF,
    &GetCandidateL3NetworksForChangeVmNicNetwork::DEF,
];

/// Gives an instance that runs or is stopped one more NIC. A system tag `staticIp::<l3>::<ip>` does
/// what `staticIp` does, once for each address family.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/vm-instances/{vmInstanceUuid}/l3-networks/{l3NetworkUuid}")]
pub struct AttachL3NetworkToVm {
    /// The instance.
    pub vm_instance_uuid: Id<VmInstance>,
    /// The L3 network of the NIC's addresses.
    pub l3_network_uuid: Id<L3Network>,
    /// The wanted address; a free one if absent.
    pub static_ip: Option<IpAddr>,
    /// The wanted MAC; one of netloom's own if absent.
    pub custom_mac: Option<Mac>,
    /// Only `veth`, if named at all: what instances that are namespaces have.
    pub driver_type: Option<String>,
}

/// Takes a NIC out of an instance and deletes it. If it was that of the default route, the one with
/// the lowest `deviceId` takes that over.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/vm-instances/nics/{vmNicUuid}")]
pub struct DetachL3NetworkFromVm {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
}

/// Plugs a NIC that is plugged in nowhere into an instance that runs or is stopped.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/vm-instances/{vmInstanceUuid}/nices/{vmNicUuid}")]
pub struct AttachVmNicToVm {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// The instance.
    pub vm_instance_uuid: Id<VmInstance>,
}

/// Plugs a NIC that is plugged in nowhere into a device of a host that something else makes: the tap
/// of a VM that libvirt runs, a container's veth. The device may come later, go and come again.
/// Netloom guards it and passes its packets; its name, MTU and state stay its owner's.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/nics/{vmNicUuid}/actions", action = "plugVmNic", access = "admin")]
pub struct PlugVmNic {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// The host.
    pub host_uuid: Id<Host>,
    /// The name of the device in the host's network namespace, such as `vnet0`: 1 to 15 bytes.
    #[field(max_len = 15)]
    pub device: String,
}

/// Takes a NIC out of the device that it is plugged into. The device stays, without netloom's
/// programs; the NIC keeps its addresses. One that is plugged in nowhere is left as it is.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/nics/{vmNicUuid}/actions", action = "unplugVmNic", access = "admin")]
pub struct UnplugVmNic {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
}

/// Moves a NIC of an instance to another network, where it gets new addresses. It keeps its MAC,
/// and loses its connections.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/vm-instances/nics/{vmNicUuid}/l3-networks/{destL3NetworkUuid}")]
pub struct ChangeVmNicNetwork {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// The L3 network of its new addresses.
    pub dest_l3_network_uuid: Id<L3Network>,
    /// The wanted address; a free one if absent.
    pub static_ip: Option<IpAddr>,
}

/// Gives a NIC an address of one more L3 network on its L2 network, of the other address family.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/nics/{vmNicUuid}/l3-networks/{l3NetworkUuid}")]
pub struct AttachL3NetworkToVmNic {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The wanted address; a free one if absent.
    pub static_ip: Option<IpAddr>,
}

/// The L3 networks that `AttachL3NetworkToVm` would take for an instance, 1,000 at most.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/vm-instances/{vmInstanceUuid}/l3-networks-candidates", answer = "now")]
pub struct GetVmAttachableL3Network {
    /// The instance.
    pub vm_instance_uuid: Id<VmInstance>,
}

/// The L3 networks that `ChangeVmNicNetwork` would take for a NIC, 1,000 at most.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/vm-instances/nics/{vmNicUuid}/l3-networks-candidates", answer = "now")]
pub struct GetCandidateL3NetworksForChangeVmNicNetwork {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
}

/// What one NIC of a new instance is to be like: an entry of `vmNicParams`. What else ZStack has there
/// (limits of bandwidth, queues) is refused: no NIC would have it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NicParam {
    /// The network that it is on.
    pub l3_network_uuid: Option<Id<L3Network>>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// Its model.
    pub driver_type: Option<String>,
    /// Whether it passes traffic.
    pub state: Option<EnableEvent>,
}
