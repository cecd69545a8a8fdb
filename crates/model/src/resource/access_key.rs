//! Access key: how a program signs its calls, instead of a session.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::account::Account;
use crate::{FieldDef, Id, Message, MessageDef, Plain, Record, declare::Column};

/// A key with which an account's programs sign their calls: `Authorization: ZStack <id>:<signature>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/accesskeys", also, messages)]
pub struct AccessKey {
    /// Its id.
    pub uuid: Id<AccessKey>,
    /// Whose calls it signs.
    #[field(on_delete = "cascade", part)]
    pub account_uuid: Id<Account>,
    /// Free text.
    pub description: Option<String>,
    /// What signs. The server has to know it itself to check a signature.
    #[field(hidden)]
    pub secret: String,
}

impl AccessKey {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateAccessKey::DEF, &DeleteAccessKey::DEF];

    const ALSO: &'static [Column] = &[Column::computed(
        FieldDef::of::<String>("AccessKeyID", "What a signed call names."),
        |record: &Record| Plain::Text(record.uuid().simple().to_string().into()),
    )];
}

/// Makes a key and shows its secret, once.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/accesskeys", answer = "now")]
pub struct CreateAccessKey {
    /// Whose calls it signs; the caller's if absent. Only administrators name another account.
    pub account_uuid: Option<Id<Account>>,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
}

/// Deletes a key: nothing that it signs is taken any more.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/accesskeys/{uuid}")]
pub struct DeleteAccessKey {
    /// The key.
    pub uuid: Id<AccessKey>,
}
