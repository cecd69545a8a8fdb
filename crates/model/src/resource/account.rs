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
    const MESSAGES: &'static [&'static MessageDef] = &[
        &LogInByAccount::DEF,
        &LogIn::DEF,
        &LogInByUser::DEF,
        &LogOut::DEF,
        &ValidateSession::DEF,
        &RenewSession::DEF,
        &CreateAccount::DEF,
        &UpdateAccount::DEF,
        &DeleteAccount::DEF,
        &CheckApiPermission::DEF,
    ];

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

/// Makes an account, with a quota for each sort of resource.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/accounts", answer = "now", access = "admin")]
pub struct CreateAccount {
    /// A name, unique among accounts: people log in with it.
    pub name: String,
    /// SHA-512 of its password, in lower-case hex.
    #[field(secret)]
    pub password: String,
    /// What it may do: `Normal` if not said.
    #[serde(rename = "type")]
    pub account_type: Option<AccountType>,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// The uuid that it gets; a new one if absent.
    pub resource_uuid: Option<Uuid>,
}

/// Deletes an account with everything that it owns, and its sessions. `admin` stays.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/accounts/{uuid}", access = "admin")]
pub struct DeleteAccount {
    /// The account.
    pub uuid: Id<Account>,
}

/// Tells which messages the caller may send at all. What a message may be about is not said.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/permissions/actions", action = "checkApiPermission", answer = "now")]
pub struct CheckApiPermission {
    /// Names of messages, with or without `API` and `Msg`.
    #[field(required, max_len = 1000)]
    pub api_names: Vec<String>,
}

/// Prolongs the caller's own session.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/sessions/{sessionUuid}/renew", action = "renewSession", answer = "now")]
pub struct RenewSession {
    /// The session by which the call is made.
    #[field(secret)]
    pub session_uuid: String,
    /// How long it lasts from now on, in seconds; as long as a new one if not said.
    #[field(range = "60..=31536000")]
    pub duration: Option<u32>,
}

/// Changes an account. With another password its other sessions end.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/{uuid}", action = "updateAccount", answer = "now")]
pub struct UpdateAccount {
    /// The account.
    pub uuid: Id<Account>,
    /// SHA-512 of the new password, in lower-case hex.
    #[field(secret)]
    pub password: Option<String>,
    /// SHA-512 of the present password; needed for one's own, unless one is an administrator.
    #[field(secret)]
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
    #[field(secret)]
    pub password: String,
}

/// Opens a session, whatever type of login the caller has.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/login", action = "logIn", answer = "now", access = "open")]
pub struct LogIn {
    /// The account's name.
    pub username: String,
    /// SHA-512 of the password, in lower-case hex.
    #[field(secret)]
    pub password: String,
    /// The only type there is: `account`.
    pub login_type: LoginType,
}

words! {
    /// What somebody logs in as.
    LoginType {
        /// An account, by its name.
        Account = "account",
    }
}

/// Opens a session of a user, who acts for its account.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/accounts/users/login", action = "logInByUser", answer = "now", access = "open")]
pub struct LogInByUser {
    /// The account; or `accountName`.
    pub account_uuid: Option<Id<Account>>,
    /// Its name.
    pub account_name: Option<String>,
    /// The user's name.
    pub user_name: String,
    /// SHA-512 of the password, in lower-case hex.
    #[field(secret)]
    pub password: String,
}

/// Closes a session.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/accounts/sessions/{sessionUuid}", answer = "now", access = "open")]
pub struct LogOut {
    /// The session.
    #[field(secret)]
    pub session_uuid: String,
}

/// Tells whether a session still works.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/accounts/sessions/{sessionUuid}/valid", answer = "now", access = "open")]
pub struct ValidateSession {
    /// The session.
    #[field(secret)]
    pub session_uuid: String,
}
