//! Quota: how many resources of a sort an account may have.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::account::Account;
use crate::{Claim, Id, Kind, Message, MessageDef, declare::Quota as Counted, words};

words! {
    /// Whose quotas there are.
    IdentityType {
        /// Accounts'.
        Account = "AccountVO",
    }
}

/// How many resources of a sort an account may have. A sort without a row has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/accounts/quotas", claims, messages)]
pub struct Quota {
    /// Its id.
    pub uuid: Id<Quota>,
    /// What is counted, such as `l3.num`.
    #[field(index)]
    pub name: String,
    /// The account.
    #[field(on_delete = "cascade")]
    pub identity_uuid: Id<Account>,
    /// Always `AccountVO`.
    pub identity_type: IdentityType,
    /// How many it may have.
    pub value: i64,
}

impl Quota {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&UpdateQuota::DEF, &GetAccountQuotaUsage::DEF];

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        vec![Claim::Quota(self.identity_uuid, self.name.clone())]
    }

    /// Everything that is counted, each with its kind.
    pub fn counted() -> impl Iterator<Item = (Kind, Counted)> {
        Kind::ALL.iter().filter_map(|kind| Some((*kind, kind.def().quota?)))
    }
}

/// Changes how many resources of a sort an account may have. What it has beyond that stays.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/quotas/actions", action = "updateQuota", access = "admin")]
pub struct UpdateQuota {
    /// The account.
    pub identity_uuid: Id<Account>,
    /// What is counted, such as `l3.num`.
    pub name: String,
    /// How many it may have.
    #[field(range = "0..=9223372036854775807")]
    pub value: i64,
}

/// Tells how many resources of each sort an account has and may have.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/accounts/quota/{uuid}/usages", answer = "now")]
pub struct GetAccountQuotaUsage {
    /// The account.
    pub uuid: Id<Account>,
}
