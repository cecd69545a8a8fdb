//! Deletion, with what is deleted along: each reference says what happens to its resource when its
//! target is deleted ([`OnDelete`]). Afterwards no reference points at something that does not
//! exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{
    AnyId, Claim, Code, Error, Id, Meta, Record, Resource, Result,
    relation::OnDelete,
    resource::{
        release::Release,
        used_ip::{AddressState, UsedIp},
    },
};
use store::{Key, Read};

use crate::{Txn, claim, txn::parents};

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
            self.regroup(record);
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
        let release = self.let_rest(objects, resting)?;
        release.map_or(Ok(()), |release| self.show_resting(&gone, release))
    }

    /// Addresses that hosts have to let go stay where they were, so that people see them; not where
    /// their network or range goes too.
    fn show_resting(
        &mut self,
        gone: &BTreeMap<AnyId, Arc<Record>>,
        release: Id<Release>,
    ) -> Result<()> {
        let stays = |id: AnyId| !gone.contains_key(&id);
        for record in gone.values() {
            let Some(used) = UsedIp::of(record) else { continue };
            let around = [
                AnyId::of(used.ip_range_uuid),
                AnyId::of(used.l3_network_uuid),
                AnyId::of(used.l2_network_uuid),
            ];
            let owner = record.meta.owner.map(AnyId::of);
            let is_shown = around.into_iter().chain(owner).all(stays);
            if used.state() == AddressState::InUse && is_shown {
                let rests = UsedIp { used_by: AnyId::of(release), ..used.clone() };
                let meta = Meta { changed: self.now(), ..record.meta };
                self.tx.put(Record::new(rests, meta)).map_err(claim::taken)?;
            }
        }
        Ok(())
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
                    OnDelete::CascadeToUser => waiting.extend(goes_with(&record)),
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
        if !self.caller().is_admin() && self.visible(user.from.kind, user.from.uuid).is_none() {
            let text = format!("{this} {id} is used by {} of another account", other.name);
            return Error::new(Code::InUse, text).hint("ask an administrator");
        }
        let text = match self.caller().is_admin() {
            true => format!("{this} {id} is used by {count} {}, such as {example}", other.name),
            false => format!("{this} {id} is used by {}, such as {example}", other.name),
        };
        let query = other.faces.first().map_or(other.name, |face| face.name);
        let hint = format!("delete them first: Query{query} {}={id} lists them", user.field);
        Error::new(Code::InUse, text).hint(hint)
    }
}

/// What goes when an address goes: who has it. One that only rests goes alone; the release goes on
/// to keep it from others.
fn goes_with(record: &Record) -> Option<AnyId> {
    let used = UsedIp::of(record)?;
    Some(match used.state() {
        AddressState::InUse => used.used_by,
        AddressState::ReleasePending => AnyId::of(used.uuid),
    })
}
