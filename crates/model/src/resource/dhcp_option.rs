//! DHCP option: something that DHCP tells instances and netloom does not compute.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{l3_network::L3Network, vm_nic::VmNic};
use crate::{AnyId, FieldDef, Id, Message, MessageDef, Plain, Resource, declare::Column, dhcp};

/// Something that DHCP tells the instances of an L3 network, or one NIC's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(also, messages)]
pub struct DhcpOption {
    /// Its id, derived from the resource, family and code.
    pub uuid: Id<DhcpOption>,
    /// The L3 network or the NIC.
    #[serde(rename = "resourceUuid")]
    #[field(on_delete = "cascade", part)]
    pub resource: AnyId,
    /// Its code.
    pub code: u16,
    /// 4 or 6: of which family's DHCP it is.
    pub ip_version: u8,
    /// What it says.
    pub value: String,
}

impl DhcpOption {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&SetL3NetworkDhcpOptions::DEF, &SetVmNicDhcpOptions::DEF];

    const ALSO: &'static [Column] = &[Column::computed(
        FieldDef::of::<Option<String>>("name", "Its name, if its code has one."),
        |record| {
            let option = DhcpOption::of(record);
            let name = option.and_then(|option| dhcp::name(option.code, option.ip_version));
            name.map_or(Plain::Null, Plain::word)
        },
    )];
}

/// Says what else DHCP tells the instances of an L3 network, beside what netloom computes. Those that the
/// network had before are gone.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/l3-networks/{l3NetworkUuid}/actions", action = "setL3NetworkDhcpOptions")]
pub struct SetL3NetworkDhcpOptions {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// All options, 32 at most: `[{"name": "tftp-server", "value": "10.0.0.5", "ipVersion": 4}]`. A name is
    /// dnsmasq's, or the option's code; lists have commas in them, and `hex:0a0b` are bytes. With none all
    /// are taken away.
    #[serde(default)]
    #[field(max_len = 32)]
    pub options: Vec<Value>,
}

/// Says what else DHCP tells one NIC's instance, in the place of what its L3 network says of the same
/// option. Those that the NIC had before are gone.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/nics/{vmNicUuid}/actions", action = "setVmNicDhcpOptions")]
pub struct SetVmNicDhcpOptions {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// All options, 32 at most, as of SetL3NetworkDhcpOptions.
    #[serde(default)]
    #[field(max_len = 32)]
    pub options: Vec<Value>,
}
