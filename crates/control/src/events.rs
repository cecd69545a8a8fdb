//! Events: what a caller may know of what each revision changed.
//!
//! A change is told by what it is for the caller: a resource that was given to them has come, one
//! that was given away has gone. Whoever does not see a resource is told nothing of it. What came or
//! changed is shown as it is when it is told, which may be later than the revision.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Instant};

use model::{
    Id, Kind, Record, Resource, Result,
    resource::{account::Account, sharing::SharedResource},
};
use serde_json::{Value, json};
use store::{Change, Follower, Gone, Past, Read};
use uuid::Uuid;

use crate::{
    Caller, Gate,
    inventory::{self, Observed},
    look::Look,
    sight,
};

/// Most changes that are shown at a time: some hundred kilobytes.
pub const SHOWN_MAX: usize = 100;

/// By what a follower has proved who they are, which must go on to be valid.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A session.
    Session(Uuid),
    /// An access key, by its id.
    Key(Uuid),
}

/// A part of what a revision changed.
#[derive(Clone, Debug)]
pub struct Part {
    /// The revision.
    pub past: Past<Record>,
    /// Which of its changes.
    pub range: Range<usize>,
}

/// What the caller may know of a [`Part`].
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The revision.
    pub revision: u64,
    /// Whether nothing more of the revision follows.
    pub is_last: bool,
    /// The changes; none, if all are of what the caller does not see.
    pub changes: Vec<Value>,
}

impl Part {
    /// Cuts a revision into parts of [`SHOWN_MAX`] changes; one that changed no row is one part.
    pub fn of(past: &Past<Record>) -> impl Iterator<Item = Self> {
        let all = past.changes.len();
        (0..all.max(1)).step_by(SHOWN_MAX).map(move |start| {
            let range = start..all.min(start + SHOWN_MAX);
            Self { past: past.clone(), range }
        })
    }

    /// Whether nothing more of the revision follows.
    pub(crate) fn is_last(&self) -> bool {
        self.range.end == self.past.changes.len()
    }
}

impl Gate {
    /// Whether a caller who follows may go on: the session is open, or the key is there, and so is
    /// the account. Following does not count as using the session.
    #[must_use]
    pub fn still_knows(&self, caller: &Caller, proof: &Proof) -> bool {
        let snapshot = self.store().snapshot();
        let exists = |kind, uuid| snapshot.get(kind, uuid).is_some();
        let is_valid = match proof {
            Proof::Session(uuid) => self.sessions.is_open(*uuid, Instant::now()),
            Proof::Key(uuid) => exists(Kind::AccessKey, *uuid),
        };
        is_valid && caller.account().is_some_and(|id| exists(Kind::Account, id.uuid()))
    }

    /// Follows what happens after a revision; from now on, if there is none.
    ///
    /// # Errors
    /// [`Gone`]: what followed it is not known.
    pub fn follow_from(&self, after: Option<u64>) -> std::result::Result<Follower<Record>, Gone> {
        let after = after.unwrap_or_else(|| self.store().snapshot().revision());
        self.store().follow_from(after)
    }

    /// What a caller may know of these parts, on a thread of its own when it is its turn: queries
    /// and followers wait in one queue.
    ///
    /// # Errors
    /// [`model::Code::Overloaded`] when too many wait already: ask again later.
    pub async fn tell(self: &Arc<Self>, caller: Caller, parts: Vec<Part>) -> Result<Vec<Told>> {
        let gate = Arc::clone(self);
        let work = move || {
            let (snapshot, board) = (gate.store().snapshot(), gate.jobs.board());
            let observed = Observed::new(&snapshot, &board);
            let look = Look::new(&observed, &caller, gate.now());
            Ok(parts.iter().map(|part| told(&look, part)).collect())
        };
        self.readers.run(work).await
    }
}

fn told(look: &Look<'_>, part: &Part) -> Told {
    let all = &part.past.changes;
    let unshared = unshared(all, look.caller().account());
    let shown = |change: &Change<Record>| {
        let what = what(look, change, &unshared)?;
        let mut shown = json!({
            "change": what.as_str(),
            "resourceType": change.kind.def().vo(),
            "uuid": change.id.simple().to_string(),
        });
        let now = look.visible(change.kind, change.id).filter(|_| what != What::Deleted);
        if let Some(record) = now {
            shown["inventory"] = inventory::show(&record, look.observed()).into();
        }
        Some(shown)
    };
    let revision = part.past.revision;
    let changes = all[part.range.clone()].iter().filter_map(shown).collect();
    Told { revision, is_last: part.is_last(), changes }
}

/// What a change is for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Created,
    Updated,
    Deleted,
}

impl What {
    const fn as_str(self) -> &'static str {
        match self {
            What::Created => "created",
            What::Updated => "updated",
            What::Deleted => "deleted",
        }
    }
}

/// `None`: nothing.
fn what(look: &Look<'_>, change: &Change<Record>, unshared: &BTreeSet<Uuid>) -> Option<What> {
    if !change.kind.def().is_shown() {
        return None;
    }
    let sees = |record: &Option<Arc<Record>>| {
        record.as_deref().is_some_and(|record| look.caller().sees(look.snapshot(), record))
    };
    // What went together with its sharing was seen until then.
    let saw = |record: &Option<Arc<Record>>| {
        let of = |record: &Record| {
            let whole = record.whole().map(|whole| whole.uuid);
            [Some(record.uuid()), whole].into_iter().flatten().any(|id| unshared.contains(&id))
        };
        sees(record) || record.as_deref().is_some_and(of)
    };
    match (saw(&change.before), sees(&change.after)) {
        (false, true) => Some(What::Created),
        (true, true) => Some(What::Updated),
        (true, false) => Some(What::Deleted),
        (false, false) => None,
    }
}

/// What was shared with an account until this revision.
fn unshared(changes: &[Change<Record>], account: Option<Id<Account>>) -> BTreeSet<Uuid> {
    let gone = changes.iter().filter(|it| it.kind == Kind::SharedResource && it.after.is_none());
    let rows = gone.filter_map(|it| SharedResource::of(it.before.as_deref()?));
    let to = |row: &&SharedResource| sight::is_with(row, account);
    rows.filter(to).map(|row| row.resource.uuid).collect()
}
