//! The messages that explain a NIC's traffic: what would become of a packet, what was dropped, and which
//! rules count.

use std::net::IpAddr;

use derive::Message;
use serde::Deserialize;

use super::vm_nic::VmNic;
use crate::{Id, Message, MessageDef};

/// The messages of this file.
pub(super) const MESSAGES: [&MessageDef; 3] =
    [&GetVmNicTrace::DEF, &GetVmNicDrops::DEF, &GetVmNicSecurityRules::DEF];

/// Says what would become of a packet that a NIC sends, the first of a connection: each step on each host
/// of its way, who decided by which rule, and how it ends. Hosts are asked what their data planes hold now;
/// nothing is sent.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/vm-instances/nics/{vmNicUuid}/trace", answer = "now")]
pub struct GetVmNicTrace {
    /// The NIC that sends.
    pub vm_nic_uuid: Id<VmNic>,
    /// Where to: an address, or the uuid of a NIC or an instance, then an address that it has.
    pub to: String,
    /// `TCP`, `UDP`, `ICMP` or the number of another protocol above IP.
    pub protocol: String,
    /// The port of the destination, of TCP and UDP, which need it.
    #[field(range = "1..=65535")]
    pub port: Option<u16>,
    /// The port of the source, of TCP and UDP; any if absent.
    #[field(range = "1..=65535")]
    pub source_port: Option<u16>,
    /// The type of ICMP; an echo request if absent.
    #[field(range = "0..=255")]
    pub icmp_type: Option<u8>,
    /// Its code; 0 if absent.
    #[field(range = "0..=255")]
    pub icmp_code: Option<u8>,
    /// The source; the NIC's first address of the destination's family if absent.
    pub source: Option<IpAddr>,
}

/// Says which frames of a NIC were dropped lately, why, and by which rule: what its host has seen since its
/// agent listens.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/vm-instances/nics/{vmNicUuid}/drops", answer = "now")]
pub struct GetVmNicDrops {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// How many of the newest at most: 64 if absent.
    #[field(range = "1..=256")]
    pub limit: Option<u32>,
}

/// Lists the security rules of a NIC in the order in which they are asked, with the group that brings
/// each, and what becomes of what none of them decides.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/vm-instances/nics/{vmNicUuid}/security-rules", answer = "now")]
pub struct GetVmNicSecurityRules {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
}
