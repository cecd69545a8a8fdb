//! Membership: which security groups a NIC is in, in which order, and what happens to what none of them
//! decides.

use std::sync::Arc;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{
    l3_network::L3Network,
    network_service::{NetworkServiceL3NetworkRef, NetworkServiceType},
    security_group::SecurityGroup,
    vm_nic::VmNic,
};
use crate::{
    FieldDef, Id, Kind, Message, MessageDef, Plain, Record, Resource,
    declare::Column,
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
#[resource(
    name = "VmNicInSecurityGroup",
    path = "/security-groups/vm-instances/nics",
    also,
    derived,
    messages
)]
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

    const MESSAGES: &'static [&'static MessageDef] = &[
        &AddVmNicToSecurityGroup::DEF,
        &DeleteVmNicFromSecurityGroup::DEF,
        &SetVmNicSecurityGroup::DEF,
        &GetCandidateVmNicForSecurityGroup::DEF,
    ];

    /// The hidden field by which those are found that a group has by its query.
    pub const FOUND_BY: &'static str = "foundBy";

    const ALSO: &'static [Column] = &[Column::computed(
        FieldDef::of::<Option<Uuid>>(Self::FOUND_BY, "The group, if its query finds the instance."),
        |record| match Self::of(record) {
            Some(found) if found.is_found => Plain::Uuid(found.security_group_uuid.uuid()),
            _ => Plain::Null,
        },
    )
    .indexed()
    .unseen()];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<Option<Uuid>>("vmInstanceUuid", "The NIC's instance."),
            read: |record, view| {
                nic_of(record, view)
                    .map_or(Plain::Null, |nic| nic.field("vmInstanceUuid").into_owned())
            },
            found_by: &["vmNic.vmInstanceUuid"],
            only: &[],
        },
        Derived {
            read: |record, view| {
                let reason = nic_of(record, view).and_then(|nic| not_filtered(&nic, view));
                reason.map_or(Plain::Null, |reason| Plain::Text(reason.into()))
            },
            ..Derived::NOT_IN_EFFECT
        },
    ];
}

fn nic_of(record: &Record, view: &dyn View) -> Option<Arc<Record>> {
    view.get(Kind::VmNic, VmNicSecurityGroupRef::of(record)?.vm_nic_uuid.uuid())
}

/// Services of an L3 network that are looked through: there is one of each type.
const SERVICES_MAX: usize = 64;

/// Why groups have no effect at a NIC.
fn not_filtered(record: &Record, view: &dyn View) -> Option<String> {
    let nic = VmNic::of(record)?;
    let has = |l3: Id<L3Network>| {
        let kind = Kind::NetworkServiceL3NetworkRef;
        let services = view.pointing(kind, "l3NetworkUuid", l3.uuid(), SERVICES_MAX);
        let services = services.iter().filter_map(|row| NetworkServiceL3NetworkRef::of(row));
        services
            .into_iter()
            .any(|row| row.network_service_type == NetworkServiceType::SecurityGroup)
    };
    let l3s = [nic.l3_network_uuid].into_iter().chain(nic.more_l3_network_uuids.iter().copied());
    let l3 = nic.l3_network_uuid;
    (!l3s.into_iter().any(has)).then(|| format!("L3 network {l3} has no service SecurityGroup"))
}

/// What happens to what no rule decides, at a NIC that is in security groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/security-groups/nics/security-policy", messages)]
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

    const MESSAGES: &'static [&'static MessageDef] = &[&ChangeVmNicSecurityPolicy::DEF];
}

/// Puts NICs into a security group, behind those that they are in.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/security-groups/{securityGroupUuid}/vm-instances/nics")]
pub struct AddVmNicToSecurityGroup {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
    /// The NICs, whose L3 networks have the service SecurityGroup.
    #[field(required, max_len = 1000)]
    pub vm_nic_uuids: Vec<Id<VmNic>>,
}

/// Takes NICs out of a security group. One that is not in it is out already. Who is in it by its query
/// stays.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/security-groups/{securityGroupUuid}/vm-instances/nics")]
pub struct DeleteVmNicFromSecurityGroup {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
    /// The NICs.
    #[field(required, max_len = 1000)]
    pub vm_nic_uuids: Vec<Uuid>,
}

/// Says which security groups a NIC is in, and in which order they are asked. For an account that is its
/// own groups; those that administrators have put it into stay, and are asked first. Those whose query
/// finds its instance stay, too.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/security-groups/nics/{vmNicUuid}/actions", action = "setVmNicSecurityGroup")]
pub struct SetVmNicSecurityGroup {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// The groups, with priorities from 1 without gaps: `[{"securityGroupUuid": "..", "priority": 1}]`;
    /// an empty list: none.
    #[field(max_len = 32)]
    pub refs: Option<Vec<Value>>,
}

/// A group of a NIC, and its place: ZStack's `VmNicSecurityGroupRefAO`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupRank {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
    /// Its priority.
    pub priority: u32,
}

/// Says what happens to connections that no rule decides, at a NIC that is in a security group. What is
/// not named stays.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/security-groups/nics/{vmNicUuid}/security-policy/actions",
    action = "changeVmNicSecurityPolicy"
)]
pub struct ChangeVmNicSecurityPolicy {
    /// The NIC.
    pub vm_nic_uuid: Id<VmNic>,
    /// For connections that others open.
    pub ingress_policy: Option<NicPolicy>,
    /// For connections that it opens.
    pub egress_policy: Option<NicPolicy>,
}

/// The NICs that could be put into a security group: they are not in it, and their L3 network has the
/// service SecurityGroup.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/security-groups/{securityGroupUuid}/vm-instances/candidate-nics", answer = "now")]
pub struct GetCandidateVmNicForSecurityGroup {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
}
