//! Whose each resource is. Nothing of this is stored: every resource has its owner in its own row,
//! and queries show it from there.

use derive::Resource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Body, account::Account, sharing::SharedResource};
use crate::{FieldDef, Id, Kind, Plain, Record, shown::Derived};

/// That an account owns a resource. It comes and goes with the resource; what is the platform's own
/// has none. A normal account sees those of its own resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/accounts/resources/refs", derived)]
pub struct AccountResourceRef {
    /// The same as `resourceUuid`; ZStack has a number instead, `id`.
    pub uuid: Id<AccountResourceRef>,
    /// The owner.
    #[field(on_delete = "cascade")]
    pub account_uuid: Id<Account>,
    /// The owner.
    #[field(on_delete = "cascade")]
    pub owner_account_uuid: Id<Account>,
    /// The resource.
    #[field(index)]
    pub resource_uuid: Uuid,
    /// The resource's kind, as ZStack names it.
    #[field(index)]
    pub resource_type: String,
    /// What the owner may do with it: always 2, all.
    pub permission: i64,
}

impl AccountResourceRef {
    /// ZStack's number for all that can be done with a resource
    /// (`AccountConstant.RESOURCE_PERMISSION_WRITE`).
    const ALL: i64 = 2;

    const DERIVED: &'static [Derived] = &[Derived {
        field: FieldDef::of::<bool>("isShared", "Other accounts, or all, see the resource."),
        read: |record, view| {
            let by = SharedResource::RESOURCE;
            let shares = view.pointing(Kind::SharedResource, by, record.uuid(), 1);
            Plain::Bool(!shares.is_empty())
        },
        found_by: &[],
        only: &[],
    }];

    /// What is told of a resource; nothing of one that is the platform's own.
    #[must_use]
    pub fn to(resource: &Record) -> Option<Record> {
        let owner = resource.meta.owner?;
        let body = Self {
            uuid: Id::new(resource.uuid()),
            account_uuid: owner,
            owner_account_uuid: owner,
            resource_uuid: resource.uuid(),
            resource_type: resource.kind().def().vo(),
            permission: Self::ALL,
        };
        Some(Record { meta: resource.meta, body: Body::AccountResourceRef(body) })
    }

    /// The kinds of resources that it is told of: those that people see.
    pub fn kinds() -> impl Iterator<Item = Kind> {
        let shown = Kind::ALL.iter().copied().filter(|kind| kind.def().is_shown());
        shown.filter(|kind| *kind != Kind::AccountResourceRef)
    }
}
