//! Deletion, with what is deleted along: each reference says what happens to its resource when its
//! target is deleted ([`OnDelete`]). Afterwards no reference points at something that does not
//! exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    AnyId, Claim, Code, Error, Id, Record, Resource, Result, relation::OnDelete,
    resource::used_ip::UsedIp,
};
use store::{Key, Read};

use crate::{Txn, txn::parents};

/// Most resources that one deletion takes, so that a transaction stays small.
const DELETE_MAX: usize = 3000;

/// What a deletion does, before any of it is done.
#[derive(Default)]
struct Plan {
    gone: BTreeMap<AnyId, Arc<Record>>,
    /// Those that stay, with a field that points at something that goes.
    detached: Vec<Pointing>,
    /// Those that refuse that something is deleted at which they point, unless they are deleted
    /// too.
    refusing: Vec<Pointing>,
}

/// A resource whose `field` points at another one.
struct Pointing {
    from: AnyId,
    field: &'static str,
    to: AnyId,
}

impl Txn<'_> {
    /// Deletes a resource and what is deleted with it. Deleting what does not exist succeeds.
    ///
    /// # Errors
    /// [`Code::InUse`] when a reference refuses, [`Code::OperationFailed`] when too much would go at
    /// once.
    pub fn delete<R: Resource>(&mut self, id: Id<R>) -> Result<()> {
        self.delete_all(vec![id])
    }

    /// Deletes resources and what is deleted with them. What they held rests as one.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    pub fn delete_all<R: Resource>(&mut self, ids: Vec<Id<R>>) -> Result<()> {
        let ids = ids.into_iter().map(AnyId::of).collect();
        let Plan { gone, detached, refusing } = self.plan(ids)?;
        if let Some(user) = refusing.iter().find(|user| !gone.contains_key(&user.from)) {
            return Err(self.in_use(user));
        }
        for user in detached.iter().filter(|user| !gone.contains_key(&user.from)) {
            self.detach(user)?;
        }
        let (mut objects, mut resting) = (BTreeSet::new(), Vec::new());
        for (id, record) in &gone {
            self.note(record);
            self.fence_uuid(id.uuid);
            for parent in parents(record) {
                self.fence_uuid(parent);
            }
            let before = resting.len();
            resting.extend(record.claims().into_iter().filter(Claim::rests));
            if resting.len() > before {
                objects.insert(record.object());
            }
            self.tx.delete(id.kind, id.uuid);
        }
        self.let_rest(objects, resting)
    }

    fn plan(&self, mut waiting: Vec<AnyId>) -> Result<Plan> {
        let mut plan = Plan::default();
        while let Some(to) = waiting.pop() {
            if plan.gone.contains_key(&to) {
                continue;
            }
            let Some(record) = self.record(to.kind, to.uuid) else { continue };
            plan.gone.insert(to, record);
            if plan.gone.len() > DELETE_MAX {
                let text = format!("this would delete over {DELETE_MAX} resources at once");
                let hint = "delete what is in it first, in smaller steps";
                return Err(Error::new(Code::OperationFailed, text).hint(hint));
            }
            let pointing: Vec<_> = self.tx.pointing(to.uuid).collect();
            for (kind, field, uuid) in pointing {
                let from = AnyId { kind, uuid };
                let Some(record) = self.record(kind, uuid) else { continue };
                match record.on_delete(field) {
                    OnDelete::Refuse => plan.refusing.push(Pointing { from, field, to }),
                    OnDelete::Cascade => waiting.push(from),
                    OnDelete::CascadeToUser => {
                        waiting.extend(UsedIp::of(&record).map(|used| used.used_by));
                    }
                    OnDelete::Detach => plan.detached.push(Pointing { from, field, to }),
                    OnDelete::Keep => {}
                }
            }
        }
        Ok(plan)
    }

    fn detach(&mut self, user: &Pointing) -> Result<()> {
        // It may point at several things that go: each time it is read anew.
        let Some(before) = self.record(user.from.kind, user.from.uuid) else { return Ok(()) };
        let detached = before.detached(user.field, user.to.uuid).ok_or_else(|| {
            let text = format!("{} of {} cannot be empty", user.field, user.from.kind.def().name);
            Error::new(Code::Internal, text)
        })?;
        self.replace(&before, detached)
    }

    fn in_use(&self, user: &Pointing) -> Error {
        let (this, other) = (user.to.kind.def().name, user.from.kind.def());
        let count = self.tx.count(user.from.kind, user.field, &Key::Uuid(user.to.uuid));
        let (id, example) = (user.to.uuid.simple(), user.from.uuid.simple());
        let text = format!("{this} {id} is used by {count} {}, such as {example}", other.name);
        let query = other.faces.first().map_or(other.name, |face| face.name);
        let hint = format!("delete them first: Query{query} {}={id} lists them", user.field);
        Error::new(Code::InUse, text).hint(hint)
    }
}
