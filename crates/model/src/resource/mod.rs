//! The resources, one file each, and the one list of them.

pub mod access_key;
pub mod account;
pub mod account_resource_ref;
pub mod address_group;
pub mod audit;
pub mod cluster;
pub mod config;
pub mod dhcp_option;
pub mod dhcp_server;
pub mod doctor;
pub mod eip;
pub mod evacuation;
pub mod guest_data;
pub mod host;
pub mod host_route;
mod host_word;
pub mod image;
pub mod installation;
pub mod instance_offering;
pub mod ip_cursor;
pub mod ip_looks;
pub mod ip_range;
pub mod job;
pub mod l2_attachment;
pub mod l2_gre;
pub mod l2_network;
pub mod l2_physical;
pub mod l2_realiser;
pub mod l2_vxlan;
pub mod l3_network;
pub mod l3_options;
pub mod lease;
pub mod long_job;
pub mod network_service;
pub mod nic_binding;
pub mod nic_looks;
pub mod nic_plug;
pub mod nic_settings;
pub mod port_forwarding;
pub mod quota;
pub mod release;
pub mod remote_vtep;
pub mod reserved_ip_range;
pub mod security_group;
pub mod security_group_member;
pub mod security_group_rule;
pub mod sharing;
pub mod tag;
pub mod used_ip;
pub mod user;
pub mod vip;
pub mod vm_instance;
pub mod vm_life;
pub mod vm_nic;
pub mod vm_state;
pub mod vtep;
pub mod webhook;
pub mod zone;
pub mod zql;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{Claim, MessageDef, Resource, ResourceDef, shown::Face};

macro_rules! records {
    ($($name:ident in $module:ident,)*) => {
        /// Which resource.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "each variant is the struct of the same name")]
        pub enum Kind { $($name,)* }

        /// The own fields of a resource of any kind.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each variant is the struct of the same name")]
        pub enum Body { $($name($module::$name),)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// Its declaration.
            #[must_use]
            pub const fn def(self) -> &'static ResourceDef {
                match self { $(Kind::$name => &<$module::$name as Resource>::DEF,)* }
            }
        }

        impl Body {
            pub(crate) const fn kind(&self) -> Kind {
                match self { $(Body::$name(_) => Kind::$name,)* }
            }

            pub(crate) fn uuid(&self) -> Uuid {
                match self { $(Body::$name(r) => r.id().uuid(),)* }
            }

            pub(crate) fn claims(&self) -> Vec<Claim> {
                match self { $(Body::$name(r) => r.claims(),)* }
            }

            pub(crate) fn encode(&self) -> serde_json::Result<Box<RawValue>> {
                match self { $(Body::$name(r) => serde_json::value::to_raw_value(r),)* }
            }

            pub(crate) fn decode(kind: Kind, json: &RawValue) -> serde_json::Result<Self> {
                match kind { $(Kind::$name => serde_json::from_str(json.get()).map(Body::$name),)* }
            }
        }
    };
}

records! {
    Account in account,
    Quota in quota,
    User in user,
    AccessKey in access_key,
    SharedResource in sharing,
    AccountResourceRef in account_resource_ref,
    SystemTag in tag,
    GlobalConfig in config,
    ResourceConfig in config,
    UserTag in tag,
    Zone in zone,
    Cluster in cluster,
    Host in host,
    HostCredential in host,
    Evacuation in evacuation,
    L2Network in l2_network,
    VniRange in l2_vxlan,
    L2NetworkClusterRef in l2_attachment,
    Vtep in vtep,
    RemoteVtep in remote_vtep,
    L2Realiser in l2_realiser,
    L2Realisation in l2_realiser,
    L3Network in l3_network,
    L3NetworkHostRoute in host_route,
    IpRange in ip_range,
    ReservedIpRange in reserved_ip_range,
    IpCursor in ip_cursor,
    NetworkServiceProvider in network_service,
    NetworkServiceL3NetworkRef in network_service,
    DhcpServer in dhcp_server,
    DhcpOption in dhcp_option,
    InstanceOffering in instance_offering,
    Image in image,
    VmInstance in vm_instance,
    GuestData in guest_data,
    VmNic in vm_nic,
    UsedIp in used_ip,
    Vip in vip,
    Eip in eip,
    PortForwardingRule in port_forwarding,
    AddressGroup in address_group,
    SecurityGroup in security_group,
    SecurityGroupRule in security_group_rule,
    SecurityGroupL3NetworkRef in security_group,
    VmNicSecurityGroupRef in security_group_member,
    VmNicSecurityPolicy in security_group_member,
    LongJob in long_job,
    Webhook in webhook,
    WebhookCursor in webhook,
    WebhookCall in webhook,
    Lease in lease,
    Release in release,
    Audit in audit,
    Installation in installation,
    Job in job,
}

/// Every face of every resource: what can be queried.
pub fn faces() -> impl Iterator<Item = (Kind, &'static Face)> {
    Kind::ALL.iter().flat_map(|kind| kind.def().faces.iter().map(|face| (*kind, face)))
}

/// Every message, in the order in which documentation lists them.
pub fn messages() -> impl Iterator<Item = &'static MessageDef> {
    Kind::ALL.iter().flat_map(|kind| kind.def().messages.iter().copied())
}
