//! Webhooks: rows, which are sent what changes, and where the results of calls may be sent. [`run`]
//! sends all of it.

mod calls;
mod hooks;
mod reach;

use std::{sync::Arc, time::Duration};

use model::{
    Error, Result,
    resource::webhook::{CreateWebhook, DeleteWebhook, UpdateWebhook, Webhook, WebhookCursor},
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Gate, Reply, Txn, invisible,
    lease::{self, Span},
    operation::{Operation, job},
};

pub(crate) use calls::due;
pub use calls::{
    AT_ONCE_MAX, AT_ONCE_OF_ACCOUNT_MAX, About, FAILED_MAX, NotSent, OPEN_MAX, Post, Sends, TRIES,
    sweep,
};
pub use reach::Reach;

/// How long what is being sent is waited for, when nothing more is sent.
const LAST_MAX: Duration = Duration::from_secs(2);
/// Longest address of a webhook, in bytes.
pub const URL_MAX: usize = 1024;

/// Sends by `post` what is due, until told to stop; of several servers on a store one does.
pub async fn run(gate: Arc<Gate>, stop: CancellationToken, post: Arc<Sends>) {
    let work = async |ours: CancellationToken| {
        let calls = calls::run(Arc::clone(&gate), ours.clone(), Arc::clone(&post));
        let hooks = hooks::run(Arc::clone(&gate), ours, Arc::clone(&post));
        tokio::join!(calls, hooks);
    };
    lease::held(&gate, "webhooks", Span::SERVERS, stop, work).await;
}

/// Waits for what is being sent, so that whoever goes on knows whether it was taken. Whoever listens
/// slowly does not hold up the end: they may be told again.
async fn end<T: 'static>(posts: &mut JoinSet<T>) {
    let ended = async { while posts.join_next().await.is_some() {} };
    if timeout(LAST_MAX, ended).await.is_err() {
        tracing::info!("what a webhook has not taken yet is sent again later");
    }
    posts.shutdown().await;
}

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update), job(delete)]
}

fn create(txn: &mut Txn<'_>, message: CreateWebhook) -> Result<Reply> {
    check_url(&message.url)?;
    let webhook = Webhook {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        url: message.url,
        hook_type: message.hook_type,
        opaque: message.opaque,
    };
    let made = txn.insert(webhook)?;
    // What comes after this very transaction is sent.
    let cursor = WebhookCursor::at(made, txn.tx.revision() + 1);
    txn.insert(cursor)?;
    Ok(Reply::shows(made))
}

fn update(txn: &mut Txn<'_>, message: UpdateWebhook) -> Result<Reply> {
    let mut webhook = txn.get(message.uuid)?;
    if let Some(url) = &message.url {
        check_url(url)?;
    }
    webhook.name = message.name.unwrap_or(webhook.name);
    message.description.apply(&mut webhook.description);
    webhook.url = message.url.unwrap_or(webhook.url);
    webhook.hook_type = message.hook_type.unwrap_or(webhook.hook_type);
    message.opaque.apply(&mut webhook.opaque);
    txn.update(webhook)?;
    // Whoever changes it has read what it has missed.
    if let Some(cursor) = txn.find(WebhookCursor::id_of(message.uuid)) {
        txn.update(WebhookCursor { missed: None, error: None, ..cursor })?;
    }
    Ok(Reply::shows(message.uuid))
}

fn delete(txn: &mut Txn<'_>, message: DeleteWebhook) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

/// Whether it looks like the address of something that speaks HTTP.
pub(crate) fn check_url(url: &str) -> Result<()> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let is_plain = url.len() <= URL_MAX && !url.contains(char::is_whitespace);
    match rest.filter(|rest| !rest.is_empty() && !rest.starts_with('/')) {
        Some(_) if is_plain && invisible::first(url).is_none() => Ok(()),
        _ => {
            let error = Error::field("url", "is no http or https URL");
            Err(error.hint("such as http://192.0.2.7:8080/results"))
        }
    }
}
