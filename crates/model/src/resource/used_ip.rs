//! Used IP: an address that somebody has: a NIC, a VIP, a DHCP server, later a router; or that hosts
//! have not let go yet.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{ip_range::IpRange, l2_network::L2Network, l3_network::L3Network, vm_nic::VmNic};
use crate::{
    AnyId, Claim, FieldDef, Id, Kind, Message, MessageDef, Plain, Resource, shown::Derived, words,
};

words! {
    /// What is the case with an address.
    AddressState {
        /// Somebody has it.
        InUse = "InUse",
        /// Who had it is gone, and some host may still act on it.
        ReleasePending = "ReleasePending",
    }
}

/// An address of an L3 network that somebody has, or that hosts have not let go yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(name = "IpAddress", path = "/l3-networks/ip-address", claims, derived, messages)]
pub struct UsedIp {
    /// Its id.
    pub uuid: Id<UsedIp>,
    /// The range that it came from.
    #[field(on_delete = "cascade_to_user")]
    pub ip_range_uuid: Id<IpRange>,
    /// The L3 network.
    #[field(on_delete = "cascade_to_user")]
    pub l3_network_uuid: Id<L3Network>,
    /// The L2 network, on which no other resource may have the address.
    #[field(hidden, on_delete = "cascade_to_user")]
    pub l2_network_uuid: Id<L2Network>,
    /// 4 or 6.
    pub ip_version: u8,
    /// The address.
    #[field(index)]
    pub ip: IpAddr,
    /// The subnet's mask, IPv4 only.
    pub netmask: Option<IpAddr>,
    /// Length of the subnet's prefix, in bits.
    pub prefix_len: u8,
    /// The subnet's gateway.
    pub gateway: IpAddr,
    /// Who has it; or the release that keeps it until hosts have let go.
    #[field(hidden, on_delete = "cascade", part)]
    pub used_by: AnyId,
}

impl UsedIp {
    const STATE: Derived = Derived {
        field: FieldDef::of::<AddressState>("state", "What is the case with it."),
        read: |record, _| {
            UsedIp::of(record).map_or(Plain::Null, |used| Plain::word(used.state().as_str()))
        },
        found_by: &[],
        only: &[],
    };

    const MESSAGES: &'static [&'static MessageDef] = &[&DeleteIpAddress::DEF];

    /// The field that says who has it.
    pub const USED_BY: &str = "usedBy";

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        match self.state() {
            AddressState::InUse => vec![Claim::Ip(self.l2_network_uuid, self.ip)],
            AddressState::ReleasePending => Vec::new(),
        }
    }

    /// What is the case with it.
    #[must_use]
    pub fn state(&self) -> AddressState {
        match self.used_by.kind {
            Kind::Release => AddressState::ReleasePending,
            _ => AddressState::InUse,
        }
    }

    const DERIVED: &'static [Derived] = &[
        Self::STATE,
        Derived {
            field: FieldDef::of::<Option<Id<VmNic>>>("vmNicUuid", "The NIC that has it."),
            read: |record, _| {
                let nic = UsedIp::of(record).and_then(|used| used.used_by.id::<VmNic>());
                nic.map_or(Plain::Null, |nic| Plain::Uuid(nic.uuid()))
            },
            found_by: &["usedBy"],
            only: &[],
        },
    ];
}

/// Frees addresses that nobody uses. Those of NICs go with their NICs.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/l3-networks/{l3NetworkUuid}/ip-address")]
pub struct DeleteIpAddress {
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
    /// The addresses.
    #[field(required)]
    pub used_ip_uuids: Vec<Id<UsedIp>>,
}
