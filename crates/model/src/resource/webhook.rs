//! Webhooks: where clients want to be told of something, and the calls that are due.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{FieldDef, Id, Message, MessageDef, Plain, Update, shown::Derived, words};

/// Where an account wants to be told of events.
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
    /// Of what, in ZStack's words.
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
        field: FieldDef::of::<Option<String>>("notInEffect", "Why nothing is sent there, if so."),
        read: |_, _| {
            Plain::word(
                "events are not sent yet; a call with the header X-Web-Hook is told its result",
            )
        },
        found_by: &[],
        only: None,
    }];
}

/// Makes a webhook. No event is sent to it yet, which its `notInEffect` says.
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
    /// Of what, in ZStack's words.
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
