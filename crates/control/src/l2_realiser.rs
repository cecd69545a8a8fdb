//! L2 realisers: what the messages about them do. When they are asked is in [`crate::realiser`], how
//! in [`crate::realiser::run`].

use model::{
    Code, Error, Kind, Result,
    resource::l2_realiser::{CreateL2Realiser, DeleteL2Realiser, L2Realiser, UpdateL2Realiser},
};
use store::Read;

use crate::{
    Reply, Txn,
    operation::{Operation, job},
    webhook,
};

/// Realisers at most: each is looked at for each NIC that comes to a host.
const MAX: u64 = 64;

/// Shortest secret, in characters: what is shorter is guessed from one signature.
const SECRET_MIN: usize = 16;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update), job(delete)]
}

fn create(txn: &mut Txn<'_>, message: CreateL2Realiser) -> Result<Reply> {
    check_url(&message.url)?;
    check_secret(&message.secret)?;
    if txn.tx.total(Kind::L2Realiser) >= MAX {
        let text = format!("there are {MAX} realisers, which is the limit");
        let hint = "delete one; a realiser may have networks of all types";
        return Err(Error::new(Code::OperationFailed, text).hint(hint));
    }
    let realiser = L2Realiser {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        url: message.url,
        l2_type: message.l2_type,
        physical_interface: message.physical_interface,
        l2_network_uuid: message.l2_network_uuid,
        secret: message.secret,
    };
    txn.insert(realiser).map(Reply::shows)
}

fn update(txn: &mut Txn<'_>, message: UpdateL2Realiser) -> Result<Reply> {
    let mut realiser = txn.get(message.uuid)?;
    if let Some(url) = message.url {
        check_url(&url)?;
        realiser.url = url;
    }
    if let Some(secret) = message.secret {
        check_secret(&secret)?;
        realiser.secret = secret;
    }
    realiser.name = message.name.unwrap_or(realiser.name);
    message.description.apply(&mut realiser.description);
    txn.update(realiser)?;
    Ok(Reply::shows(message.uuid))
}

fn delete(txn: &mut Txn<'_>, message: DeleteL2Realiser) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

fn check_url(url: &str) -> Result<()> {
    webhook::check_url(url)?;
    if url.starts_with("https://") {
        let error = Error::field("url", "is https, which is not served: calls are signed instead");
        return Err(error.hint("use http, on the management network"));
    }
    Ok(())
}

fn check_secret(secret: &str) -> Result<()> {
    if secret.chars().count() >= SECRET_MIN {
        return Ok(());
    }
    let error = Error::field("secret", format!("has under {SECRET_MIN} characters"));
    Err(error.hint("such as the output of openssl rand -hex 32"))
}
