//! Webhooks: rows, and where the results of calls may be sent. [`run`] sends them.

mod calls;
mod reach;

use model::{
    Error, Result,
    resource::webhook::{CreateWebhook, DeleteWebhook, UpdateWebhook, Webhook},
};

use crate::{
    Reply, Txn, invisible,
    operation::{Operation, job},
};

pub(crate) use calls::due;
pub use calls::{
    AT_ONCE_MAX, AT_ONCE_OF_ACCOUNT_MAX, FAILED_MAX, NotSent, OPEN_MAX, Post, Sends, TRIES, run,
    sweep,
};
pub use reach::Reach;

/// Longest address of a webhook, in bytes.
pub const URL_MAX: usize = 1024;

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
    txn.insert(webhook).map(Reply::shows)
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
    Ok(Reply::shows(message.uuid))
}

fn delete(txn: &mut Txn<'_>, message: DeleteWebhook) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

/// Whether it looks like the address of something that speaks HTTP.
fn check_url(url: &str) -> Result<()> {
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
