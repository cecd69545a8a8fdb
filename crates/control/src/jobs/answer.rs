//! What a job that is done answers.

use model::{
    Id, Kind, Record, Resource,
    resource::{
        account::{Account, AccountType},
        job::Job,
    },
    status::Board,
};
use serde_json::{Map, Value, json};
use store::{Read, Snapshot};
use uuid::Uuid;

use crate::{
    inventory::{self, Observed},
    query::Scope,
};

/// The key under which an answer names what was passed over.
pub const NOTES: &str = "messages";

/// `{"inventory": ..}`, or `{}` for what shows nothing; with `inventories` for what made several. A
/// resource that was deleted since shows its uuid. What was passed over is told beside it.
pub(super) fn answer(
    job: &Job,
    owner: Option<Id<Account>>,
    snapshot: &Snapshot<Record>,
    board: &Board,
) -> Value {
    let mut answer = Map::new();
    if let (Some(kind), Some(uuid)) = (job.subject_kind, job.subject_uuid) {
        let observed = Observed::new(snapshot, board);
        observed.narrow(scope_of(owner, snapshot));
        let show = |uuid: Uuid| match snapshot.get(kind, uuid) {
            Some(record) => Value::Object(inventory::show(&record, &observed)),
            None => json!({"uuid": uuid.simple().to_string()}),
        };
        answer.insert("inventory".to_owned(), show(uuid));
        if let Some(also) = job.subject_also {
            answer.insert("inventories".to_owned(), Value::Array(vec![show(uuid), show(also)]));
        }
    }
    if !job.messages.is_empty() {
        answer.insert(NOTES.to_owned(), job.messages.clone().into());
    }
    answer.into()
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
