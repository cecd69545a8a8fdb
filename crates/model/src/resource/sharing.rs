//! Sharing: which accounts see and use what another account owns, and who owns what.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::account::Account;
use crate::{
    AnyId, Claim, FieldDef, Id, Kind, Message, MessageDef, Plain, Record, Resource,
    declare::Column, shown::Derived,
};

/// That an account, or every account, sees and uses a resource of another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/accounts/resources", also, derived, claims, messages)]
pub struct SharedResource {
    /// Its id.
    pub uuid: Id<SharedResource>,
    /// The resource.
    #[serde(rename = "resourceUuid")]
    #[field(on_delete = "cascade", part)]
    pub resource: AnyId,
    /// Who sees it; nothing: every account.
    #[field(on_delete = "cascade")]
    pub receiver_account_uuid: Option<Id<Account>>,
}

impl SharedResource {
    const MESSAGES: &'static [&'static MessageDef] = &[
        &ShareResource::DEF,
        &RevokeResourceSharing::DEF,
        &ChangeResourceOwner::DEF,
        &GetResourceAccount::DEF,
    ];

    /// The field that names the resource.
    pub const RESOURCE: &'static str = "resourceUuid";
    /// The hidden field by which an account's shares of one kind are found: see [`grant`].
    pub const GRANT: &'static str = "grant";

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        vec![Claim::Share(self.resource.uuid, self.receiver_account_uuid)]
    }

    const ALSO: &'static [Column] = &[
        Column::computed(FieldDef::of::<bool>("toPublic", "Every account sees it."), |record| {
            let shared = SharedResource::of(record);
            shared.map_or(Plain::Null, |s| Plain::Bool(s.receiver_account_uuid.is_none()))
        }),
        Column::computed(
            FieldDef::of::<String>("resourceType", "The resource's kind, as ZStack names it."),
            |record| {
                let shared = SharedResource::of(record);
                shared.map_or(Plain::Null, |s| Plain::Text(s.resource.kind.def().vo().into()))
            },
        )
        .indexed(),
        Column::computed(FieldDef::of::<String>(Self::GRANT, "Kind and receiver."), |record| {
            let shared = SharedResource::of(record);
            shared.map_or(Plain::Null, |s| {
                Plain::Text(grant(s.resource.kind, s.receiver_account_uuid).into())
            })
        })
        .indexed()
        .unseen(),
    ];

    const DERIVED: &'static [Derived] = &[Derived {
        field: FieldDef::of::<Option<Id<Account>>>("ownerAccountUuid", "Whose the resource is."),
        read: |record: &Record, _| {
            record.meta.owner.map_or(Plain::Null, |owner| Plain::Uuid(owner.uuid()))
        },
        found_by: &[],
        only: &[],
    }];
}

/// What is shared with an account, or with every account, among the resources of one kind.
#[must_use]
pub fn grant(kind: Kind, receiver: Option<Id<Account>>) -> String {
    let receiver = receiver.map_or_else(|| "*".to_owned(), |account| account.to_string());
    format!("{}/{receiver}", kind.def().name)
}

/// Lets accounts see and use resources: named ones, or all. What is shared already stays so.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/resources/actions", action = "shareResource", access = "admin")]
pub struct ShareResource {
    /// The resources: networks, images, instance offerings.
    #[field(required, max_len = 100)]
    pub resource_uuids: Vec<Uuid>,
    /// The accounts that see them from now on.
    #[serde(default)]
    #[field(max_len = 100)]
    pub account_uuids: Vec<Id<Account>>,
    /// Every account sees them from now on, also accounts that are made later.
    pub to_public: Option<bool>,
}

/// Lets accounts no longer see and use resources. What they made with them stays.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/resources/actions", action = "revokeResourceSharing", access = "admin")]
pub struct RevokeResourceSharing {
    /// The resources.
    #[field(required, max_len = 100)]
    pub resource_uuids: Vec<Uuid>,
    /// The accounts.
    #[serde(default)]
    #[field(max_len = 1000)]
    pub account_uuids: Vec<Id<Account>>,
    /// They are no longer for every account.
    pub to_public: Option<bool>,
    /// They are shared with nobody any more.
    pub all: Option<bool>,
}

/// Gives a resource to another account, with all that is a part of it. Its quota must allow it.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/account/{accountUuid}/resources", access = "admin")]
pub struct ChangeResourceOwner {
    /// The account that gets it.
    pub account_uuid: Id<Account>,
    /// The resource.
    pub resource_uuid: Uuid,
}

/// Tells whose resources are.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/resources/accounts", answer = "now")]
pub struct GetResourceAccount {
    /// The resources.
    #[field(required, max_len = 1000)]
    pub resource_uuids: Vec<Uuid>,
}
