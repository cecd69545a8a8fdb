//! Membership: which security groups a NIC is in, in which order, and what happens to what none of them
//! decides.

use derive::Resource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{security_group::SecurityGroup, vm_nic::VmNic};
use crate::{
    FieldDef, Id, Kind, Plain, Record, Resource,
    shown::{Derived, View},
    words,
};

words! {
    /// What happens to a new connection that no rule decides.
    NicPolicy {
        /// It passes.
        Allow = "ALLOW",
        /// It does not.
        Deny = "DENY",
        /// It passes while no enabled group of the NIC has an enabled rule of this direction, beside its
        /// default rules: ZStack's groups up to 4.x, nova-network's and CloudStack's, for what leaves.
        AllowUntilRule = "ALLOW_UNTIL_RULE",
    }
}

impl NicPolicy {
    /// Whether it passes; `has_rules`: some enabled group of the NIC has an enabled rule of this
    /// direction with a priority above 0.
    #[must_use]
    pub const fn allows(self, has_rules: bool) -> bool {
        match self {
            Self::Allow => true,
            Self::Deny => false,
            Self::AllowUntilRule => !has_rules,
        }
    }
}

/// That a NIC is in a security group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(name = "VmNicInSecurityGroup", path = "/security-groups/vm-instances/nics", derived)]
pub struct VmNicSecurityGroupRef {
    /// Its id, derived from NIC and group.
    pub uuid: Id<VmNicSecurityGroupRef>,
    /// The NIC.
    #[field(on_delete = "cascade", part)]
    pub vm_nic_uuid: Id<VmNic>,
    /// The group.
    #[field(on_delete = "refuse")]
    pub security_group_uuid: Id<SecurityGroup>,
    /// Its place among the groups of the NIC: 1 is asked first, and no place is empty.
    pub priority: u32,
    /// Somebody has put the NIC into the group.
    pub is_chosen: bool,
    /// The group's query finds the NIC's instance.
    pub is_found: bool,
}

impl VmNicSecurityGroupRef {
    /// The id of the row that says it of a NIC and a group.
    #[must_use]
    pub fn id_of(nic: Id<VmNic>, group: Id<SecurityGroup>) -> Id<Self> {
        Id::new(Uuid::new_v5(&nic.uuid(), group.uuid().as_bytes()))
    }

    const DERIVED: &'static [Derived] = &[Derived {
        field: FieldDef::of::<Option<Uuid>>("vmInstanceUuid", "The NIC's instance."),
        read: |record: &Record, view: &dyn View| {
            let nic = Self::of(record).map(|found| found.vm_nic_uuid.uuid());
            let nic = nic.and_then(|nic| view.get(Kind::VmNic, nic));
            nic.map_or(Plain::Null, |nic| nic.field("vmInstanceUuid").into_owned())
        },
        found_by: &["vmNic.vmInstanceUuid"],
        only: &[],
    }];
}

/// What happens to what no rule decides, at a NIC that is in security groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/security-groups/nics/security-policy")]
pub struct VmNicSecurityPolicy {
    /// Its id, derived from the NIC.
    pub uuid: Id<VmNicSecurityPolicy>,
    /// The NIC, which is in a group.
    #[field(on_delete = "cascade", part)]
    pub vm_nic_uuid: Id<VmNic>,
    /// What happens to connections that others open.
    pub ingress_policy: NicPolicy,
    /// What happens to connections that it opens.
    pub egress_policy: NicPolicy,
}

impl VmNicSecurityPolicy {
    /// The id of the row of a NIC.
    #[must_use]
    pub fn id_of(nic: Id<VmNic>) -> Id<Self> {
        Id::new(Uuid::new_v5(&nic.uuid(), b"security policy"))
    }
}
