//! Port forwarding: ports of a VIP that are carried to ports of one NIC.

use std::net::IpAddr;

use derive::{Message, Resource};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    l3_network::L3Network,
    network_service::NetworkServiceType,
    vip::{self, PortProtocol, Vip},
    vm_nic::VmNic,
    zone::{EnableEvent, EnableState},
};
use crate::{
    Claim, FieldDef, Id, Message, MessageDef, Plain, Record, Resource, Update, shown::Derived,
};

/// Ports of a VIP that are carried to as many ports of one NIC, or of none yet. Which router carries
/// them is no part of it: that follows from the NIC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(
    path = "/port-forwarding",
    quota = "portForwarding.num",
    quota_default = 20,
    claims,
    derived,
    shareable,
    messages
)]
pub struct PortForwardingRule {
    /// Its id.
    pub uuid: Id<PortForwardingRule>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The VIP.
    #[field(on_delete = "cascade")]
    pub vip_uuid: Id<Vip>,
    /// The first port of the VIP.
    pub vip_port_start: u16,
    /// The last port of the VIP.
    pub vip_port_end: u16,
    /// The first port of the NIC.
    pub private_port_start: u16,
    /// The last port of the NIC.
    pub private_port_end: u16,
    /// TCP or UDP.
    pub protocol_type: PortProtocol,
    /// Who may use it; everybody if nothing.
    pub allowed_cidr: Option<IpNet>,
    /// The NIC.
    #[field(on_delete = "detach")]
    pub vm_nic_uuid: Option<Id<VmNic>>,
    /// The L3 network of the NIC's address that it leads to, or led to last.
    #[field(hidden, on_delete = "detach")]
    pub guest_l3_network_uuid: Option<Id<L3Network>>,
    /// One that is disabled is attached to no NIC any more; where it is, it stays.
    pub state: EnableState,
}

impl PortForwardingRule {
    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        let (vip, protocol) = (self.vip_uuid, self.protocol_type.number());
        let mut claims = vec![Claim::VipPort(vip, protocol, self.vip_port_start)];
        if self.vip_port_end != self.vip_port_start {
            claims.push(Claim::VipPort(vip, protocol, self.vip_port_end));
        }
        let Some(nic) = self.vm_nic_uuid else { return claims };
        let peer = |l3| Claim::Peer(vip, l3, self.uuid.uuid());
        claims.extend(self.guest_l3_network_uuid.map(peer));
        claims.push(Claim::Forwarded(self.forwarded(nic)));
        claims
    }

    /// Where it leads to, if that is this NIC.
    #[must_use]
    pub fn forwarded(&self, nic: Id<VmNic>) -> Forwarded {
        Forwarded {
            nic,
            protocol: self.protocol_type.number(),
            is_restricted: self.allowed_cidr.is_some(),
            more: self.private_port_end.saturating_sub(self.private_port_start),
            first: self.private_port_start,
            rule: self.uuid,
        }
    }

    const MESSAGES: &'static [&'static MessageDef] = &[
        &CreatePortForwardingRule::DEF,
        &UpdatePortForwardingRule::DEF,
        &DeletePortForwardingRule::DEF,
        &ChangePortForwardingRuleState::DEF,
        &AttachPortForwardingRule::DEF,
        &DetachPortForwardingRule::DEF,
        &GetPortForwardingAttachableVmNics::DEF,
    ];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<IpAddr>("vipIp", "The address of its VIP."),
            read: |rule, view| {
                let vip = PortForwardingRule::of(rule).map(|rule| rule.vip_uuid);
                vip.map_or(Plain::Null, |vip| vip::vip_ip(view, vip))
            },
            found_by: &["vip.usedIp.ip"],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<IpAddr>>("guestIp", "The address of its NIC."),
            read: |rule, view| {
                let nic = PortForwardingRule::of(rule).and_then(|rule| rule.vm_nic_uuid);
                let ip = nic.and_then(|nic| vip::guest_ip(view, nic.uuid(), 4));
                ip.map_or(Plain::Null, Plain::Ip)
            },
            found_by: &["vmNic.usedIps.ip"],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<String>>(
                "notInEffect",
                "Why nobody carries it to its NIC yet.",
            ),
            read: |record, view| {
                let why = of_guest(record)
                    .and_then(|l3| vip::why_not(view, l3, NetworkServiceType::PortForwarding));
                why.map_or(Plain::Null, |why| Plain::Text(why.into()))
            },
            found_by: &[],
            only: &[],
        },
    ];
}

/// The L3 network that it leads to, while it does.
fn of_guest(record: &Record) -> Option<Id<L3Network>> {
    let rule = PortForwardingRule::of(record)?;
    rule.vm_nic_uuid.and(rule.guest_l3_network_uuid)
}

/// Ports of a NIC that a rule leads to. In this order, those of one size are beside each other, and a
/// search for an overlap takes one look for each size that there is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forwarded {
    /// The NIC.
    pub nic: Id<VmNic>,
    /// The protocol's number in IP headers.
    pub protocol: u8,
    /// Not everybody may use it.
    pub is_restricted: bool,
    /// How many ports there are beside the first.
    pub more: u16,
    /// The first port.
    pub first: u16,
    /// The rule.
    pub rule: Id<PortForwardingRule>,
}

/// Carries ports of a VIP to a NIC, or to none yet. Ranges whose ends are swapped are turned around.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/port-forwarding", creates = "PortForwardingRule")]
pub struct CreatePortForwardingRule {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The VIP, of IPv4.
    pub vip_uuid: Id<Vip>,
    /// The first port of the VIP.
    #[field(range = "1..=65535")]
    pub vip_port_start: u16,
    /// The last port of the VIP; the first if absent.
    #[field(range = "1..=65535")]
    pub vip_port_end: Option<u16>,
    /// The first port of the NIC; if both are absent, those of the VIP, if one is, the other.
    #[field(range = "1..=65535")]
    pub private_port_start: Option<u16>,
    /// The last port of the NIC.
    #[field(range = "1..=65535")]
    pub private_port_end: Option<u16>,
    /// TCP or UDP.
    pub protocol_type: PortProtocol,
    /// The NIC.
    pub vm_nic_uuid: Option<Id<VmNic>>,
    /// Who may use it, an IPv4 network; everybody if absent.
    pub allowed_cidr: Option<IpNet>,
}

/// Changes what a rule is called.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/port-forwarding/{uuid}/actions", action = "updatePortForwardingRule")]
pub struct UpdatePortForwardingRule {
    /// The rule.
    pub uuid: Id<PortForwardingRule>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Deletes a rule. Its VIP stays.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/port-forwarding/{uuid}")]
pub struct DeletePortForwardingRule {
    /// The rule.
    pub uuid: Id<PortForwardingRule>,
}

/// Enables or disables a rule: a disabled one is attached to no NIC any more; where it is, it stays.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/port-forwarding/{uuid}/actions", action = "changePortForwardingRuleState")]
pub struct ChangePortForwardingRuleState {
    /// The rule.
    pub uuid: Id<PortForwardingRule>,
    /// What is to happen.
    pub state_event: EnableEvent,
}

/// Attaches a rule to a NIC.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/port-forwarding/{ruleUuid}/vm-instances/nics/{vmNicUuid}")]
pub struct AttachPortForwardingRule {
    /// The rule.
    pub rule_uuid: Id<PortForwardingRule>,
    /// The NIC, whose L3 network has the service PortForwarding.
    pub vm_nic_uuid: Id<VmNic>,
}

/// Detaches a rule from its NIC.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/port-forwarding/{uuid}/vm-instances/nics")]
pub struct DetachPortForwardingRule {
    /// The rule.
    pub uuid: Id<PortForwardingRule>,
}

/// Lists NICs to which a rule could be attached.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/port-forwarding/{ruleUuid}/vm-instances/candidate-nics", answer = "now")]
pub struct GetPortForwardingAttachableVmNics {
    /// The rule.
    pub rule_uuid: Id<PortForwardingRule>,
}
