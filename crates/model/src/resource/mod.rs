//! The resources, one file each, and the one list of them.

pub mod account;
pub mod cluster;
pub mod host;
pub mod ip_range;
pub mod job;
pub mod l2_vxlan_network;
pub mod l2_vxlan_pool;
pub mod l3_network;
pub mod release;
pub mod vm_instance;
pub mod vm_nic;
pub mod vtep;
pub mod zone;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{MessageDef, Resource, ResourceDef};

macro_rules! records {
    ($($name:ident in $module:ident,)*) => {
        /// Which resource.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "each variant is the struct of the same name")]
        pub enum Kind { $($name,)* }

        /// A resource of any kind: what the store keeps.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        #[expect(missing_docs, reason = "each variant is the struct of the same name")]
        pub enum Record { $($name($module::$name),)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// Its declaration.
            #[must_use]
            pub const fn def(self) -> &'static ResourceDef {
                match self { $(Kind::$name => &<$module::$name as Resource>::DEF,)* }
            }
        }

        impl Record {
            /// Which resource it is.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self { $(Record::$name(_) => Kind::$name,)* }
            }

            /// Its uuid.
            #[must_use]
            pub fn uuid(&self) -> Uuid {
                match self { $(Record::$name(r) => r.id().uuid(),)* }
            }

            /// The resources it points at: field name and uuid.
            #[must_use]
            pub fn references(&self) -> Vec<(&'static str, Uuid)> {
                match self { $(Record::$name(r) => r.references(),)* }
            }

            /// Its fields as JSON, hidden ones too.
            ///
            /// # Errors
            /// Never for the resources of this crate: all their keys are strings.
            pub fn to_json(&self) -> serde_json::Result<serde_json::Value> {
                match self { $(Record::$name(r) => serde_json::to_value(r),)* }
            }
        }
    };
}

records! {
    Account in account,
    Zone in zone,
    Cluster in cluster,
    Host in host,
    HostCredential in host,
    L2VxlanNetworkPool in l2_vxlan_pool,
    VniRange in l2_vxlan_pool,
    L2NetworkClusterRef in l2_vxlan_pool,
    Vtep in vtep,
    L2VxlanNetwork in l2_vxlan_network,
    L3Network in l3_network,
    IpRange in ip_range,
    VmInstance in vm_instance,
    VmNic in vm_nic,
    Release in release,
    Job in job,
}

/// Every message, in the order in which documentation lists them.
pub const MESSAGES: &[&MessageDef] = &[
    &<account::LogInByAccount as crate::Message>::DEF,
    &<account::LogOut as crate::Message>::DEF,
    &<account::ValidateSession as crate::Message>::DEF,
    &<zone::CreateZone as crate::Message>::DEF,
    &<zone::DeleteZone as crate::Message>::DEF,
    &<cluster::CreateCluster as crate::Message>::DEF,
    &<cluster::DeleteCluster as crate::Message>::DEF,
    &<host::AddKVMHost as crate::Message>::DEF,
    &<host::DeleteHost as crate::Message>::DEF,
    &<host::CreateHostEnrolment as crate::Message>::DEF,
    &<l2_vxlan_pool::CreateL2VxlanNetworkPool as crate::Message>::DEF,
    &<l2_vxlan_pool::CreateVniRange as crate::Message>::DEF,
    &<l2_vxlan_pool::DeleteVniRange as crate::Message>::DEF,
    &<l2_vxlan_pool::AttachL2NetworkToCluster as crate::Message>::DEF,
    &<l2_vxlan_pool::DetachL2NetworkFromCluster as crate::Message>::DEF,
    &<vtep::CreateVxlanVtep as crate::Message>::DEF,
    &<l2_vxlan_network::CreateL2VxlanNetwork as crate::Message>::DEF,
    &<l2_vxlan_network::DeleteL2Network as crate::Message>::DEF,
    &<l3_network::CreateL3Network as crate::Message>::DEF,
    &<l3_network::DeleteL3Network as crate::Message>::DEF,
    &<ip_range::AddIpRange as crate::Message>::DEF,
    &<ip_range::AddIpv6Range as crate::Message>::DEF,
    &<ip_range::DeleteIpRange as crate::Message>::DEF,
    &<vm_instance::CreateVmInstance as crate::Message>::DEF,
    &<vm_instance::DestroyVmInstance as crate::Message>::DEF,
    &<vm_nic::CreateVmNic as crate::Message>::DEF,
    &<vm_nic::DeleteVmNic as crate::Message>::DEF,
];
