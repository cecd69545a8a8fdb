//! Security group: rules about who may reach whom, for the NICs that are in it.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    account::Account,
    l3_network::L3Network,
    zone::{EnableEvent, EnableState},
};
use crate::{
    FieldDef, Id, Kind, Message, MessageDef, Plain, Record, Resource, Update,
    declare::Column,
    member_query::MemberQuery,
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
    also,
    shareable,
    messages
)]
pub struct SecurityGroup {
    /// Its id.
    pub uuid: Id<SecurityGroup>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// One that is disabled is passed over, but its NICs stay its members, and have the policy of NICs in groups: of one
    /// whose groups are all disabled it alone decides.
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
    const MESSAGES: &'static [&'static MessageDef] = &[
        &CreateSecurityGroup::DEF,
        &UpdateSecurityGroup::DEF,
        &DeleteSecurityGroup::DEF,
        &ChangeSecurityGroupState::DEF,
        &AttachSecurityGroupToL3Network::DEF,
        &DetachSecurityGroupFromL3Network::DEF,
    ];

    /// The hidden field by which the groups are found whose query may find an instance: see
    /// [`crate::member_query::Anchor`].
    pub const ANCHORS: &'static str = "memberAnchors";

    /// The id of an account's default group.
    #[must_use]
    pub fn default_of(account: Id<Account>) -> Id<Self> {
        Id::new(Uuid::new_v5(&account.uuid(), b"default security group"))
    }

    const ALSO: &'static [Column] = &[Column::computed(
        FieldDef::of::<Vec<String>>(Self::ANCHORS, "What an instance has that its query finds."),
        anchors,
    )
    .indexed()
    .unseen()];

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

fn anchors(record: &Record) -> Plain<'_> {
    let query = SecurityGroup::of(record).and_then(|group| group.member_query.as_deref());
    let query = query.and_then(|text| text.parse::<MemberQuery>().ok());
    let (Some(query), Some(owner)) = (query, record.meta.owner) else { return Plain::Null };
    let anchors = query.anchors(owner).into_iter();
    Plain::List(anchors.map(|anchor| Plain::Text(anchor.key().into())).collect())
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

/// Makes a security group, with its four default rules: its members reach each other.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/security-groups", creates = "SecurityGroup")]
pub struct CreateSecurityGroup {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// 4 or 6: the family of a rule that names none; 4 if absent. A group has rules of both.
    #[field(range = "4..=6")]
    pub ip_version: Option<u8>,
    /// Its rules are about single packets: no connection is remembered, and answers need a rule of
    /// their own.
    pub is_stateless: Option<bool>,
    /// Which instances are its members by themselves, by user tags and owner:
    /// `role=web AND account=shop`. Without `account` they are those of the group's owner.
    #[field(max_len = 1024)]
    pub member_query: Option<String>,
}

/// Changes what a security group is called, and which instances are its members by themselves.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/security-groups/{uuid}/actions", action = "updateSecurityGroup")]
pub struct UpdateSecurityGroup {
    /// The group.
    pub uuid: Id<SecurityGroup>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// Another query for members, or none. Who is a member by it changes at once.
    #[serde(default)]
    #[field(max_len = 1024)]
    pub member_query: Update<String>,
}

/// Deletes a security group that nobody has put a NIC into, and that no rule of another one names.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/security-groups/{uuid}")]
pub struct DeleteSecurityGroup {
    /// The group.
    pub uuid: Id<SecurityGroup>,
}

/// Enables or disables a security group. At its NICs a disabled one is passed over.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/security-groups/{uuid}/actions", action = "changeSecurityGroupState")]
pub struct ChangeSecurityGroupState {
    /// The group.
    pub uuid: Id<SecurityGroup>,
    /// What is to happen.
    pub state_event: EnableEvent,
}

/// Says that a security group is for NICs of an L3 network. A NIC that is put into a group does it by
/// itself.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/security-groups/{securityGroupUuid}/l3-networks/{l3NetworkUuid}")]
pub struct AttachSecurityGroupToL3Network {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
    /// The L3 network, which has the service SecurityGroup.
    pub l3_network_uuid: Id<L3Network>,
}

/// Says that a security group is no longer for NICs of an L3 network. Those that were put into it leave
/// it.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/security-groups/{securityGroupUuid}/l3-networks/{l3NetworkUuid}")]
pub struct DetachSecurityGroupFromL3Network {
    /// The group.
    pub security_group_uuid: Id<SecurityGroup>,
    /// The L3 network.
    pub l3_network_uuid: Id<L3Network>,
}
