//! Account: who owns resources, and how to log in.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Claim, Id, Message, MessageDef, Update, words};

/// ZStack's fixed uuid of `admin` (header `identity/AccountConstant.java`).
pub const ADMIN: Uuid = Uuid::from_u128(0x36c2_7e8f_f05c_4780_bf6d_2fa6_5700_f22e);

/// Who owns resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/accounts", claims, messages)]
pub struct Account {
    /// Its id.
    pub uuid: Id<Account>,
    /// A name, unique among accounts.
    pub name: String,
    /// What it may do.
    #[serde(rename = "type")]
    pub account_type: AccountType,
    /// Argon2id hash (PHC string) of the SHA-512, in hex, of the password.
    #[field(hidden)]
    pub password_hash: String,
    /// Free text.
    #[serde(default)]
    pub description: Option<String>,
}

impl Account {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&LogInByAccount::DEF, &LogOut::DEF, &ValidateSession::DEF, &UpdateAccount::DEF];

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        vec![Claim::AccountName(self.name.clone())]
    }
}

words! {
    /// What an account may do.
    AccountType {
        /// Everything.
        Admin = "SystemAdmin",
        /// What accounts may do, with what it owns.
        Normal = "Normal",
    }
}

/// Changes an account. With another password its other sessions end.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/{uuid}", action = "updateAccount", answer = "now")]
pub struct UpdateAccount {
    /// The account.
    pub uuid: Id<Account>,
    /// SHA-512 of the new password, in lower-case hex.
    pub password: Option<String>,
    /// SHA-512 of the present password; needed for one's own, unless one is an administrator.
    pub old_password: Option<String>,
    /// A new name. That of `admin` stays.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Opens a session.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/login", action = "logInByAccount", answer = "now", access = "open")]
pub struct LogInByAccount {
    /// The account's name.
    pub account_name: String,
    /// SHA-512 of the password, in lower-case hex.
    pub password: String,
}

/// Closes a session.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/accounts/sessions/{sessionUuid}", answer = "now", access = "open")]
pub struct LogOut {
    /// The session.
    pub session_uuid: String,
}

/// Tells whether a session still works.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/accounts/sessions/{sessionUuid}/valid", answer = "now", access = "open")]
pub struct ValidateSession {
    /// The session.
    pub session_uuid: String,
}
