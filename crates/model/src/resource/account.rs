//! Account: who owns resources, and how to log in.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Id, Timestamp};

/// ZStack's fixed uuid of `admin` (header `identity/AccountConstant.java`).
pub const ADMIN: Uuid = Uuid::from_u128(0x36c2_7e8f_f05c_4780_bf6d_2fa6_5700_f22e);

/// Who owns resources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/accounts", unique_name)]
pub struct Account {
    /// Its id.
    pub uuid: Id<Account>,
    /// A name, unique among accounts.
    pub name: String,
    /// `SystemAdmin` or `Normal`.
    #[serde(rename = "type")]
    pub account_type: String,
    /// Argon2id hash (PHC string) of the SHA-512, in hex, of the password.
    #[field(hidden)]
    pub password_hash: String,
    /// When it was made.
    pub create_date: Timestamp,
    /// When it last changed.
    pub last_op_date: Timestamp,
}

/// Opens a session.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/login", action = "logInByAccount", answer = "now")]
pub struct LogInByAccount {
    /// The account's name.
    pub account_name: String,
    /// SHA-512 of the password, in lower-case hex.
    pub password: String,
}

/// Closes a session.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/accounts/sessions/{sessionUuid}", answer = "now")]
pub struct LogOut {
    /// The session.
    pub session_uuid: String,
}

/// Tells whether a session still works.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/accounts/sessions/{sessionUuid}/valid", answer = "now")]
pub struct ValidateSession {
    /// The session.
    pub session_uuid: String,
}
