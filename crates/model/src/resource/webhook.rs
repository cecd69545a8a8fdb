//! Webhooks: where clients want to be told of something, and the calls that are due.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::account_resource_ref::AccountResourceRef;
use crate::{
    FieldDef, Id, Kind, Message, MessageDef, Plain, Resource, Update, shown::Derived, words,
};

/// Where an account is told what changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/web-hooks", quota = "webhook.num", quota_default = 20, derived, messages)]
pub struct Webhook {
    /// Its id.
    pub uuid: Id<Webhook>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Where.
    pub url: String,
    /// Of what: the type of a resource, such as `VmInstanceVO`, or `*` for all.
    #[serde(rename = "type")]
    #[field(index)]
    pub hook_type: String,
    /// What goes along.
    pub opaque: Option<String>,
}

impl Webhook {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateWebhook::DEF, &UpdateWebhook::DEF, &DeleteWebhook::DEF];

    const DERIVED: &'static [Derived] = &[Derived {
        field: FieldDef::of::<Option<String>>(
            "notInEffect",
            "Why nothing is sent there, or what was not sent, if so.",
        ),
        read: |record, view| {
            let Some(webhook) = Self::of(record) else { return Plain::Null };
            if webhook.wanted().is_none() {
                let text = "its type is none of what is sent: that is the type of a resource, such \
                            as VmInstanceVO, or * for all";
                return Plain::word(text);
            }
            let found = view.pointing(Kind::WebhookCursor, "webhookUuid", record.uuid(), 1);
            let cursor = found.first().and_then(|record| WebhookCursor::of(record));
            let Some(cursor) = cursor else { return Plain::Null };
            let failed = cursor.error.as_ref().map(|why| format!("it is tried again: {why}"));
            match (failed, cursor.missed.clone()) {
                (None, None) => Plain::Null,
                (Some(one), None) | (None, Some(one)) => Plain::Text(one.into()),
                (Some(failed), Some(missed)) => Plain::Text(format!("{failed}; {missed}").into()),
            }
        },
        found_by: &[],
        only: &[],
    }];

    /// The type of what wants to be told of everything.
    pub const EVERYTHING: &'static str = "*";

    /// Of what it is told; `None`: its type says nothing that is known.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        if self.hook_type == Self::EVERYTHING {
            return Some(Wanted::Everything);
        }
        let is_it =
            |kind: &Kind| [kind.def().vo().as_str(), kind.def().name].contains(&&*self.hook_type);
        AccountResourceRef::kinds().find(is_it).map(Wanted::Kind)
    }
}

/// Of what a webhook is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Of every resource that its account sees.
    Everything,
    /// Of those of one kind.
    Kind(Kind),
}

impl Wanted {
    /// Whether it is told of resources of this kind.
    #[must_use]
    pub fn includes(self, kind: Kind) -> bool {
        match self {
            Wanted::Everything => kind.def().is_shown(),
            Wanted::Kind(wanted) => wanted == kind,
        }
    }
}

/// How far a webhook was told what has changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource()]
pub struct WebhookCursor {
    /// Its id, derived from the webhook's.
    pub uuid: Id<WebhookCursor>,
    /// The webhook.
    #[field(on_delete = "cascade")]
    pub webhook_uuid: Id<Webhook>,
    /// What this revision and those before it changed was taken, or is not to be sent.
    pub revision: u64,
    /// Why the last try failed, if it has.
    pub error: Option<String>,
    /// What was not sent, and why, if anything was not.
    pub missed: Option<String>,
}

impl WebhookCursor {
    /// The id of the cursor of a webhook.
    #[must_use]
    pub fn id_of(webhook: Id<Webhook>) -> Id<Self> {
        Id::new(Uuid::new_v5(&webhook.uuid(), b"cursor"))
    }

    /// Of a webhook that is told what comes after this revision.
    #[must_use]
    pub fn at(webhook: Id<Webhook>, revision: u64) -> Self {
        let uuid = Self::id_of(webhook);
        Self { uuid, webhook_uuid: webhook, revision, error: None, missed: None }
    }
}

/// Makes a webhook. From now on it is sent what changes, of what the account sees and of its type.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/web-hooks", creates = "Webhook")]
pub struct CreateWebhook {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Where: an `http` or `https` URL.
    #[field(max_len = 1024)]
    pub url: String,
    /// Of what: the type of a resource, such as `VmInstanceVO`, or `*` for all.
    #[serde(rename = "type")]
    pub hook_type: String,
    /// What goes along.
    #[field(max_len = 2048)]
    pub opaque: Option<String>,
}

/// Changes a webhook.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/web-hooks/{uuid}/actions", action = "updateWebhook")]
pub struct UpdateWebhook {
    /// The webhook.
    pub uuid: Id<Webhook>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// Another place.
    #[field(max_len = 1024)]
    pub url: Option<String>,
    /// Of something else.
    #[serde(rename = "type")]
    pub hook_type: Option<String>,
    /// What goes along from now on, or nothing.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub opaque: Update<String>,
}

/// Deletes a webhook.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/web-hooks/{uuid}")]
pub struct DeleteWebhook {
    /// The webhook.
    pub uuid: Id<Webhook>,
}

words! {
    /// What has become of a call of a webhook. One that was taken is gone.
    WebhookCallState {
        /// Its job is not decided, or it has to be tried again.
        Waiting = "Waiting",
        /// Nobody took it, and it is not tried again.
        Failed = "Failed",
    }
}

/// That somebody who sent `X-Web-Hook` is to be told the result of their call: written with the job,
/// gone once it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/web-hooks/calls")]
pub struct WebhookCall {
    /// Its id.
    pub uuid: Id<WebhookCall>,
    /// The job of which it tells.
    pub job_uuid: Uuid,
    /// Where.
    pub url: String,
    /// What has become of it.
    #[field(index)]
    pub state: WebhookCallState,
    /// How often it was tried.
    pub tries: u32,
    /// Why the last try failed.
    pub error: Option<String>,
    /// The answer to a call that was refused, as JSON: such a call has no job in the store.
    #[field(hidden)]
    pub refusal: Option<String>,
}
