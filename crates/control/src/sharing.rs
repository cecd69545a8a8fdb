//! Sharing, and changes of owners.

use std::sync::Arc;

use model::{
    AnyId, Claim, Code, Error, Id, Kind, Record, Resource, Result,
    declare::Access,
    resource::{
        account::{Account, AccountType},
        sharing::{
            ChangeResourceOwner, GetResourceAccount, RevokeResourceSharing, ShareResource,
            SharedResource,
        },
    },
};
use serde_json::{Map, Value, json};
use store::Read;
use uuid::Uuid;

use crate::{
    Look, Reply, Txn,
    inventory::names,
    memberships,
    operation::{Operation, job, look},
    vip_guests,
};

/// Most resources that change their owner at once, so that a transaction stays small.
const GIVEN_MAX: usize = 3000;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(share), job(revoke), job(change_owner), look(owners)]
}

/// The kinds that users see, one of which a uuid names.
pub(crate) fn shown() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.def().is_shown())
}

impl Txn<'_> {
    /// The resource of whatever kind, if there is one and the caller sees it.
    ///
    /// # Errors
    /// [`Code::NotFound`] blaming `field`.
    pub(crate) fn any(&self, field: &str, uuid: Uuid) -> Result<Arc<Record>> {
        let found = shown().find_map(|kind| self.visible(kind, uuid));
        found.ok_or_else(|| Error::not_found("resource", uuid.simple()).on_field(field))
    }
}

fn share(txn: &mut Txn<'_>, message: ShareResource) -> Result<Reply> {
    let mut receivers: Vec<_> = message.account_uuids.into_iter().map(Some).collect();
    receivers.extend((message.to_public == Some(true)).then_some(None));
    if receivers.is_empty() {
        let error = Error::field("accountUuids", "is needed, or toPublic");
        return Err(error.hint("name accounts, or set toPublic=true for every account"));
    }
    for uuid in message.resource_uuids {
        let record = txn.any("resourceUuids", uuid)?;
        check_shareable(record.kind())?;
        let resource = AnyId { kind: record.kind(), uuid };
        for receiver in &receivers {
            if txn.tx.holder(&Claim::Share(uuid, *receiver)).is_some() {
                continue;
            }
            let id = Id::new(txn.random_uuid());
            txn.insert(SharedResource { uuid: id, resource, receiver_account_uuid: *receiver })?;
        }
    }
    Ok(Reply::nothing())
}

fn check_shareable(kind: Kind) -> Result<()> {
    if kind.def().shareable {
        return Ok(());
    }
    let error = Error::field("resourceUuids", format!("{} is not shared", kind.def().name));
    let known = Kind::ALL.iter().map(|kind| kind.def()).filter(|def| def.shareable);
    Err(error.hint(format!("what can be shared: {}", names(known.map(|def| def.name)))))
}

fn revoke(txn: &mut Txn<'_>, message: RevokeResourceSharing) -> Result<Reply> {
    let mut receivers: Vec<_> = message.account_uuids.into_iter().map(Some).collect();
    receivers.extend((message.to_public == Some(true)).then_some(None));
    for uuid in message.resource_uuids {
        txn.any("resourceUuids", uuid)?;
        let shares: Vec<Uuid> = match message.all == Some(true) {
            true => {
                let all = txn.tx.referrers(Kind::SharedResource, "resourceUuid", uuid);
                all.take(GIVEN_MAX + 1).collect()
            }
            false => {
                let held = |receiver: &_| txn.tx.holder(&Claim::Share(uuid, *receiver));
                receivers.iter().filter_map(held).map(|(_, id)| id).collect()
            }
        };
        if shares.len() > GIVEN_MAX {
            let text = format!("it is shared with over {GIVEN_MAX} accounts");
            let hint = "name some of them in accountUuids, in several steps";
            return Err(Error::new(Code::OperationFailed, text).hint(hint));
        }
        for id in shares {
            txn.delete(Id::<SharedResource>::new(id))?;
        }
    }
    Ok(Reply::nothing())
}

/// Gives a resource away with its parts, of whatever depth.
fn change_owner(txn: &mut Txn<'_>, message: ChangeResourceOwner) -> Result<Reply> {
    let first = txn.any("resourceUuid", message.resource_uuid)?;
    check_ownable(&first)?;
    memberships::check_given(txn, &first)?;
    vip_guests::check_given(txn, &first)?;
    let account = txn.get(message.account_uuid)?;
    let (mut waiting, mut given) = (vec![first], 0);
    while let Some(record) = waiting.pop() {
        given += 1;
        if given > GIVEN_MAX {
            let text = format!("over {GIVEN_MAX} resources are a part of it");
            return Err(Error::new(Code::OperationFailed, text).hint("delete some of them first"));
        }
        waiting.extend(txn.parts(&record));
        if record.meta.owner == Some(account.uuid) {
            continue;
        }
        if account.account_type != AccountType::Admin {
            txn.keep_quota_of(account.uuid, record.kind())?;
        }
        let mut after = (*record).clone();
        after.meta.owner = Some(account.uuid);
        txn.replace(&record, after)?;
    }
    Ok(Reply::nothing())
}

/// Only what accounts can make can be theirs, and a part only with its whole.
fn check_ownable(record: &Record) -> Result<()> {
    let def = record.kind().def();
    let refuse = |text: String, hint: String| Err(Error::field("resourceUuid", text).hint(hint));
    if let Some(whole) = record.whole() {
        let (name, uuid) = (whole.kind.def().name, whole.uuid.simple());
        let text = format!("a {} is a part of {name} {uuid}", def.name);
        return refuse(text, format!("change the owner of that {name}"));
    }
    let makes = |kind: Kind| {
        let mut messages = model::resource::messages();
        messages.any(|m| m.creates == Some(kind) && m.access == Access::Account)
    };
    if makes(record.kind()) {
        return Ok(());
    }
    let known = shown().filter(|kind| makes(*kind) && kind.def().part().is_none());
    let known = names(known.map(|kind| kind.def().name));
    refuse(format!("a {} is the platform's", def.name), format!("accounts own: {known}"))
}

impl Txn<'_> {
    /// What is a part of a resource.
    fn parts(&self, whole: &Record) -> Vec<Arc<Record>> {
        let id = AnyId { kind: whole.kind(), uuid: whole.uuid() };
        let mut found = Vec::new();
        for kind in Kind::ALL {
            let Some(part) = kind.def().part() else { continue };
            if part.field.refs.is_some_and(|refs| refs != id.kind) {
                continue;
            }
            let ids: Vec<Uuid> =
                self.tx.referrers(*kind, part.field.name, id.uuid).take(GIVEN_MAX + 1).collect();
            let records = ids.into_iter().filter_map(|uuid| self.record(*kind, uuid));
            found.extend(records.filter(|record| record.whole() == Some(id)));
        }
        found
    }
}

/// Of what the caller does not see, nothing is told.
#[expect(clippy::unnecessary_wraps, reason = "all that look may refuse")]
fn owners(look: &Look<'_>, message: GetResourceAccount) -> Result<Value> {
    let mut found = Map::new();
    for uuid in message.resource_uuids {
        let record = shown().find_map(|kind| look.visible(kind, uuid));
        let owner = record.and_then(|record| record.meta.owner);
        let account = owner.and_then(|owner| look.visible(Account::KIND, owner.uuid()));
        if let Some(account) = account {
            found.insert(uuid.simple().to_string(), look.show(&account).into());
        }
    }
    Ok(json!({"inventories": found}))
}
