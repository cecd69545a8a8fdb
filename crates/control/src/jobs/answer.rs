//! What a job that is a success answers.

use model::{
    Id, Kind, Record, Resource,
    resource::{
        account::{Account, AccountType},
        job::Job,
    },
    status::Board,
};
use serde_json::{Value, json};
use store::{Read, Snapshot};
use uuid::Uuid;

use crate::{
    inventory::{self, Observed},
    query::Scope,
};

/// `{"inventory": ..}`, or `{}` for what shows nothing; with `inventories` for what made several. A
/// resource that was deleted since shows its uuid.
pub(super) fn answer(
    job: &Job,
    owner: Option<Id<Account>>,
    snapshot: &Snapshot<Record>,
    board: &Board,
) -> Value {
    let (Some(kind), Some(uuid)) = (job.subject_kind, job.subject_uuid) else { return json!({}) };
    let observed = Observed::new(snapshot, board);
    observed.narrow(scope_of(owner, snapshot));
    let show = |uuid: Uuid| match snapshot.get(kind, uuid) {
        Some(record) => json!(inventory::show(&record, &observed)),
        None => json!({"uuid": uuid.simple().to_string()}),
    };
    match job.subject_also {
        Some(also) => json!({"inventory": show(uuid), "inventories": [show(uuid), show(also)]}),
        None => json!({"inventory": show(uuid)}),
    }
}

/// What the account that a job is of may see: whoever polls it sees no more.
fn scope_of(owner: Option<Id<Account>>, snapshot: &Snapshot<Record>) -> Scope {
    let nobody = Id::new(Uuid::nil());
    let account = owner.and_then(|owner| snapshot.get(Kind::Account, owner.uuid()));
    match account.as_deref().and_then(Account::of) {
        Some(account) if account.account_type == AccountType::Admin => Scope::Everything,
        _ => Scope::SeenBy(owner.unwrap_or(nobody)),
    }
}
