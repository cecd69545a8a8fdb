//! Quotas: limits of accounts, changed and told. Where they are kept: [`Txn::insert`].

use model::{
    Claim, Error, Id, Kind, Record, Resource, Result,
    declare::Quota as Counted,
    record::OWNER,
    resource::{
        account::Account,
        quota::{GetAccountQuotaUsage, IdentityType, Quota, UpdateQuota},
    },
    setting::Setting,
};
use serde_json::{Value, json};
use store::{Key, Read};

use crate::{
    Look, Reply, Txn, config,
    inventory::names,
    operation::{Operation, job, look},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(update), look(usage)]
}

fn row(read: &impl Read<Record>, account: Id<Account>, name: &str) -> Option<Quota> {
    let (kind, uuid) = read.holder(&Claim::Quota(account, name.to_owned()))?;
    read.get(kind, uuid).as_deref().and_then(Quota::of).cloned()
}

/// How many an account may have of what is counted.
pub(crate) fn limit(read: &impl Read<Record>, account: Id<Account>, counted: Counted) -> u64 {
    let quota = row(read, account, counted.name).map(|quota| quota.value);
    u64::try_from(quota.unwrap_or_else(|| default(read, counted))).unwrap_or(0)
}

/// How many a new account may have.
pub(crate) fn default(read: &impl Read<Record>, counted: Counted) -> i64 {
    let setting = Setting::find("quota", counted.name);
    setting.map_or(counted.default, |setting| config::number(read, &setting))
}

/// A quota as an account has it at first.
pub(crate) fn first(id: Id<Quota>, account: Id<Account>, name: &str, value: i64) -> Quota {
    let identity_type = IdentityType::Account;
    Quota { uuid: id, name: name.to_owned(), identity_uuid: account, identity_type, value }
}

fn update(txn: &mut Txn<'_>, message: UpdateQuota) -> Result<Reply> {
    let account = message.identity_uuid;
    let mut known = Quota::counted().map(|(_, counted)| counted.name);
    if !known.any(|name| name == message.name) {
        let error = Error::field("name", format!("\"{}\" is no quota", message.name));
        let known = names(Quota::counted().map(|(_, counted)| counted.name));
        return Err(error.hint(format!("the quotas that there are: {known}")));
    }
    if let Some(quota) = row(&*txn.tx, account, &message.name) {
        let id = quota.uuid;
        txn.update(Quota { value: message.value, ..quota })?;
        return Ok(Reply::shows(id));
    }
    let id = Id::new(txn.random_uuid());
    txn.insert_for(account, first(id, account, &message.name, message.value))?;
    Ok(Reply::shows(id))
}

fn usage(look: &Look<'_>, message: GetAccountQuotaUsage) -> Result<Value> {
    let (account, snapshot) = (message.uuid, look.snapshot());
    look.get(account)?;
    let one = |(kind, counted): (Kind, Counted)| {
        let used = snapshot.count(kind, OWNER, &Key::Uuid(account.uuid()));
        json!({"name": counted.name, "total": limit(snapshot, account, counted), "used": used})
    };
    Ok(json!({"usages": Quota::counted().map(one).collect::<Vec<_>>()}))
}
