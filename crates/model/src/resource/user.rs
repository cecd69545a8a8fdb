//! User: another name and password by which people act for an account.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::account::Account;
use crate::{Claim, Id, Message, MessageDef, Update};

/// Somebody who acts for an account, with all that it may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/accounts/users", claims, messages)]
pub struct User {
    /// Its id.
    pub uuid: Id<User>,
    /// The account.
    #[field(on_delete = "cascade", part)]
    pub account_uuid: Id<Account>,
    /// A name, unique in the account.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// As that of an account.
    #[field(hidden)]
    pub password_hash: String,
}

impl User {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateUser::DEF, &UpdateUser::DEF, &DeleteUser::DEF];

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        vec![Claim::UserName(self.account_uuid, self.name.clone())]
    }
}

/// Makes a user of the caller's account.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/accounts/users", answer = "now")]
pub struct CreateUser {
    /// A name, unique in the account.
    pub name: String,
    /// SHA-512 of its password, in lower-case hex.
    #[field(secret)]
    pub password: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
}

/// Changes a user. With another password its sessions end.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/users/actions", action = "updateUser", answer = "now")]
pub struct UpdateUser {
    /// The user.
    pub uuid: Id<User>,
    /// SHA-512 of the new password, in lower-case hex.
    #[field(secret)]
    pub password: Option<String>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Deletes a user, and its sessions end. What it made is the account's, and stays.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/accounts/users/{uuid}")]
pub struct DeleteUser {
    /// The user.
    pub uuid: Id<User>,
}
