//! Sight: what an account sees. Its own, and what is shared with it or with every account; what is a
//! part of that, too. Found by claims and indexes, so that it costs the same however much is shared.

use model::{
    AnyId, Claim, Id, Kind, Record, Resource,
    record::OWNER,
    resource::{
        account::Account,
        sharing::{SharedResource, grant},
    },
};
use store::{Key, Read, Snapshot};
use uuid::Uuid;

/// Up to so many shared resources, what is a part of them is counted; of more it is only known that
/// it may be everything.
const COUNTED_MAX: u64 = 256;

/// Whether an account owns a record. An account owns itself.
pub(crate) fn owns(account: Id<Account>, record: &Record) -> bool {
    let itself = record.kind() == Kind::Account && record.uuid() == account.uuid();
    itself || record.meta.owner == Some(account)
}

/// Whether an account sees a record.
pub(crate) fn sees(read: &impl Read<Record>, account: Id<Account>, record: &Record) -> bool {
    if owns(account, record) {
        return true;
    }
    if let Some(shared) = SharedResource::of(record) {
        return is_with(shared, Some(account));
    }
    let own = AnyId { kind: record.kind(), uuid: record.uuid() };
    let shared = |id: AnyId| id.kind.def().shareable && is_shared(read, account, id.uuid);
    shared(own) || record.whole().is_some_and(shared)
}

/// Whether what is shared is shared with an account.
pub(crate) fn is_with(shared: &SharedResource, account: Option<Id<Account>>) -> bool {
    shared.receiver_account_uuid.is_none_or(|receiver| Some(receiver) == account)
}

fn is_shared(read: &impl Read<Record>, account: Id<Account>, resource: Uuid) -> bool {
    let held = |receiver| read.holder(&Claim::Share(resource, receiver)).is_some();
    held(None) || held(Some(account))
}

/// How many resources of a kind an account sees, some counted twice; where much is shared, it may be
/// too many. Looks at few records, or none.
pub(crate) fn count(snapshot: &Snapshot<Record>, account: Id<Account>, kind: Kind) -> u64 {
    let owned = snapshot.count(kind, OWNER, &Key::Uuid(account.uuid()));
    let shares_of = |kind| -> u64 {
        let keys = grants(account, kind);
        keys.iter()
            .map(|key| snapshot.count(Kind::SharedResource, SharedResource::GRANT, key))
            .sum()
    };
    if kind == Kind::SharedResource {
        return owned + shareable().map(shares_of).sum::<u64>();
    }
    let wholes = wholes(kind);
    if wholes.iter().map(|(whole, _)| shares_of(*whole)).sum::<u64>() > COUNTED_MAX {
        return snapshot.total(kind);
    }
    let parts = |(whole, field): (Kind, &str)| -> u64 {
        let around = shared(snapshot, account, whole).into_iter();
        around.map(|id| snapshot.count(kind, field, &Key::Uuid(id))).sum()
    };
    owned
        + u64::from(kind == Kind::Account)
        + shares_of(kind)
        + wholes.into_iter().map(parts).sum::<u64>()
}

/// The ids of the resources of a kind that an account sees, ascending.
pub(crate) fn ids(snapshot: &Snapshot<Record>, account: Id<Account>, kind: Kind) -> Vec<Uuid> {
    let mut found: Vec<Uuid> = snapshot.find(kind, OWNER, &Key::Uuid(account.uuid())).collect();
    if kind == Kind::Account {
        found.push(account.uuid());
    }
    if kind == Kind::SharedResource {
        found.extend(shareable().flat_map(|kind| shares(snapshot, account, kind)));
    }
    found.extend(shared(snapshot, account, kind));
    for (whole, field) in wholes(kind) {
        for id in shared(snapshot, account, whole) {
            found.extend(snapshot.referrers(kind, field, id));
        }
    }
    found.sort_unstable();
    found.dedup();
    found.retain(|id| snapshot.get(kind, *id).is_some());
    found
}

fn shareable() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.def().shareable)
}

/// Under what the rows are found that share resources of a kind with an account.
fn grants(account: Id<Account>, kind: Kind) -> [Key; 2] {
    [Some(account), None].map(|receiver| Key::Text(grant(kind, receiver).into()))
}

/// The rows that share resources of a kind with an account.
fn shares(snapshot: &Snapshot<Record>, account: Id<Account>, kind: Kind) -> Vec<Uuid> {
    let keys = grants(account, kind);
    let under = |key| snapshot.find(Kind::SharedResource, SharedResource::GRANT, key);
    keys.iter().flat_map(under).collect()
}

/// The resources of a kind that are shared with an account.
fn shared(snapshot: &Snapshot<Record>, account: Id<Account>, kind: Kind) -> Vec<Uuid> {
    let rows = shares(snapshot, account, kind).into_iter();
    let rows = rows.filter_map(|id| snapshot.get(Kind::SharedResource, id));
    rows.filter_map(|row| Some(SharedResource::of(&row)?.resource.uuid)).collect()
}

/// The kinds of what resources of a kind may be a part of and see shared, each with the field that
/// names it.
fn wholes(kind: Kind) -> Vec<(Kind, &'static str)> {
    let Some(part) = kind.def().part().filter(|_| kind != Kind::SharedResource) else {
        return Vec::new();
    };
    let fits = |whole: &Kind| part.field.refs.is_none_or(|refs| refs == *whole);
    shareable().filter(fits).map(|whole| (whole, part.field.name)).collect()
}
