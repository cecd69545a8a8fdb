//! EIP: a VIP that is carried to one NIC, all of it.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    l3_network::L3Network,
    network_service::{NetworkServiceType, ProviderType},
    used_ip::UsedIp,
    vip::{self, Vip},
    vm_instance::VmInstance,
    vm_nic::VmNic,
    zone::{EnableEvent, EnableState},
};
use crate::{
    Claim, FieldDef, Id, Message, MessageDef, Plain, Record, Resource, Update, shown::Derived,
};

/// A VIP that is carried to one NIC, or to none yet. Which router or host carries it is no part of
/// it: that follows from the NIC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(
    path = "/eips",
    quota = "eip.num",
    quota_default = 20,
    claims,
    derived,
    shareable,
    messages
)]
pub struct Eip {
    /// Its id.
    pub uuid: Id<Eip>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// The VIP.
    #[field(on_delete = "cascade")]
    pub vip_uuid: Id<Vip>,
    /// The NIC.
    #[field(on_delete = "detach")]
    pub vm_nic_uuid: Option<Id<VmNic>>,
    /// The L3 network of the NIC's address that it leads to, or led to last.
    #[field(hidden, on_delete = "detach")]
    pub guest_l3_network_uuid: Option<Id<L3Network>>,
    /// 4 or 6: the family of the VIP, and of the NIC's address.
    #[field(hidden)]
    pub ip_version: u8,
    /// One that is disabled is attached to no NIC any more; where it is, it stays.
    pub state: EnableState,
}

impl Eip {
    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        let Some(nic) = self.vm_nic_uuid else { return Vec::new() };
        let peer = |l3| Claim::Peer(self.vip_uuid, l3, self.uuid.uuid());
        let peer = self.guest_l3_network_uuid.map(peer);
        peer.into_iter().chain([Claim::Eip(nic, self.ip_version)]).collect()
    }

    const MESSAGES: &'static [&'static MessageDef] = &[
        &CreateEip::DEF,
        &UpdateEip::DEF,
        &DeleteEip::DEF,
        &ChangeEipState::DEF,
        &AttachEip::DEF,
        &DetachEip::DEF,
        &GetEipAttachableVmNics::DEF,
        &GetVmNicAttachableEips::DEF,
    ];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<IpAddr>("vipIp", "The address of its VIP."),
            read: |eip, view| {
                Eip::of(eip).map_or(Plain::Null, |eip| vip::vip_ip(view, eip.vip_uuid))
            },
            found_by: &["vip.usedIp.ip"],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<IpAddr>>("guestIp", "The address of its NIC."),
            read: |eip, view| {
                let ip = Eip::of(eip)
                    .and_then(|eip| vip::guest_ip(view, eip.vm_nic_uuid?.uuid(), eip.ip_version));
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
                let why =
                    of_guest(record).and_then(|l3| vip::why_not(view, l3, NetworkServiceType::Eip));
                why.map_or(Plain::Null, |why| Plain::Text(why.into()))
            },
            found_by: &[],
            only: &[],
        },
    ];
}

/// The L3 network that it leads to, while it does.
fn of_guest(record: &Record) -> Option<Id<L3Network>> {
    let eip = Eip::of(record)?;
    eip.vm_nic_uuid.and(eip.guest_l3_network_uuid)
}

/// Makes an EIP of a VIP, and attaches it to a NIC if one is named.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/eips", creates = "Eip")]
pub struct CreateEip {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The VIP, which nothing else uses.
    pub vip_uuid: Id<Vip>,
    /// The NIC.
    pub vm_nic_uuid: Option<Id<VmNic>>,
    /// The address of the NIC, of the VIP's family; the one that it has if absent.
    pub used_ip_uuid: Option<Id<UsedIp>>,
}

/// Changes what an EIP is called.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/eips/{uuid}/actions", action = "updateEip")]
pub struct UpdateEip {
    /// The EIP.
    pub uuid: Id<Eip>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Deletes an EIP. Its VIP stays.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/eips/{uuid}")]
pub struct DeleteEip {
    /// The EIP.
    pub uuid: Id<Eip>,
}

/// Enables or disables an EIP: a disabled one is attached to no NIC any more; where it is, it stays.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/eips/{uuid}/actions", action = "changeEipState")]
pub struct ChangeEipState {
    /// The EIP.
    pub uuid: Id<Eip>,
    /// What is to happen.
    pub state_event: EnableEvent,
}

/// Attaches an EIP to a NIC.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/eips/{eipUuid}/vm-instances/nics/{vmNicUuid}")]
pub struct AttachEip {
    /// The EIP.
    pub eip_uuid: Id<Eip>,
    /// The NIC, whose L3 network has the service Eip.
    pub vm_nic_uuid: Id<VmNic>,
    /// The address of the NIC, of the VIP's family; the one that it has if absent.
    pub used_ip_uuid: Option<Id<UsedIp>>,
}

/// Detaches an EIP from its NIC.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/eips/{uuid}/vm-instances/nics")]
pub struct DetachEip {
    /// The EIP.
    pub uuid: Id<Eip>,
}

/// Lists NICs to which an EIP, or one of a VIP, could be attached.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    get = "/eips/{eipUuid}/vm-instances/candidate-nics",
    also = "/eips/vm-instances/candidate-nics",
    answer = "now"
)]
pub struct GetEipAttachableVmNics {
    /// The EIP.
    pub eip_uuid: Option<Id<Eip>>,
    /// A VIP, if there is no EIP yet.
    pub vip_uuid: Option<Id<Vip>>,
    /// Only NICs of this instance.
    pub vm_uuid: Option<Id<VmInstance>>,
    /// Only NICs of instances with this name.
    pub vm_name: Option<String>,
    /// Only NICs to whose L3 network this provider provides Eip.
    pub network_service_provider: Option<ProviderType>,
    /// Only NICs of instances; `false`: all.
    pub attached_to_vm: Option<bool>,
}

/// Lists the EIPs that could be attached to a NIC.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/vm-instances/nics/{vmNicUuid}/candidate-eips", answer = "now")]
pub struct GetVmNicAttachableEips {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// 4 or 6; both if absent.
    #[field(range = "4..=6")]
    pub ip_version: Option<u8>,
}
