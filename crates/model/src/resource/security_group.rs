//! Security group: rules about who may reach whom, for the NICs that are in it.

use derive::Resource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{l3_network::L3Network, zone::EnableState};
use crate::{
    FieldDef, Id, Kind, Plain, Record,
    shown::{Child, Derived, LIST_MAX, Shown, View},
};

/// Rules about who may reach whom, for the NICs that are in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(
    path = "/security-groups",
    quota = "securityGroup.num",
    quota_default = 20,
    aliases,
    children,
    derived,
    shareable
)]
pub struct SecurityGroup {
    /// Its id.
    pub uuid: Id<SecurityGroup>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// One that is disabled is passed over, as if its NICs were not in it; they stay its members.
    pub state: EnableState,
    /// 4 or 6: the family of a rule that names none.
    pub ip_version: u8,
    /// Its number in the data plane; never reused.
    #[serde(rename = "internalId")]
    pub number: u32,
    /// Its rules are about single packets: no connection is remembered, and answers need a rule of
    /// their own.
    pub is_stateless: bool,
    /// Which instances are its members beside those that were chosen, by their tags and owner:
    /// `role=web AND account=shop`.
    pub member_query: Option<String>,
}

impl SecurityGroup {
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("vmNic", "vmNicRef.vmNic"), ("l3Network", "l3NetworkRef.l3Network")];

    const CHILDREN: &'static [Child] = &[
        Child {
            name: "rules",
            kind: Kind::SecurityGroupRule,
            by: "securityGroupUuid",
            order: Some("priority"),
            shown: Shown::Whole,
            only: &[],
        },
        Child::unseen("vmNicRef", Kind::VmNicSecurityGroupRef, "securityGroupUuid"),
        Child::unseen("l3NetworkRef", Kind::SecurityGroupL3NetworkRef, "securityGroupUuid"),
    ];

    const DERIVED: &'static [Derived] = &[Derived {
        field: FieldDef::of::<Vec<Uuid>>(
            "attachedL3NetworkUuids",
            "The L3 networks that it was attached to, or whose NICs are its members.",
        ),
        read: attached,
        found_by: &["l3NetworkRef.l3NetworkUuid"],
        only: &[],
    }];
}

fn attached(record: &Record, view: &dyn View) -> Plain<'static> {
    let kind = Kind::SecurityGroupL3NetworkRef;
    let refs = view.pointing(kind, "securityGroupUuid", record.uuid(), LIST_MAX);
    Plain::List(refs.iter().map(|found| found.field("l3NetworkUuid").into_owned()).collect())
}

/// That a security group is for NICs of an L3 network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupL3NetworkRef {
    /// Its id, derived from group and network.
    pub uuid: Id<SecurityGroupL3NetworkRef>,
    /// The group.
    #[field(on_delete = "cascade", part)]
    pub security_group_uuid: Id<SecurityGroup>,
    /// The L3 network.
    #[field(on_delete = "cascade")]
    pub l3_network_uuid: Id<L3Network>,
}

impl SecurityGroupL3NetworkRef {
    /// The id of the row that says it of a group and an L3 network.
    #[must_use]
    pub fn id_of(group: Id<SecurityGroup>, l3: Id<L3Network>) -> Id<Self> {
        Id::new(Uuid::new_v5(&group.uuid(), l3.uuid().as_bytes()))
    }
}
