//! Looks: what a message that only reads may see. It runs on the readers' threads, on a snapshot,
//! so it never waits for a write and no write waits for it.

use std::sync::Arc;

use model::{
    Error, Id, Kind, Record, Relation, Resource, Result, Timestamp, shown::View, status::HostStatus,
};
use serde_json::{Map, Value};
use store::{Key, Read, Snapshot};
use uuid::Uuid;

use crate::{
    command::Caller,
    inventory::{self, Observed},
    query::Scope,
};

/// A snapshot of everything, as one caller may see it.
pub struct Look<'a> {
    observed: &'a Observed<'a>,
    caller: &'a Caller,
    now: Timestamp,
}

impl<'a> Look<'a> {
    /// What `caller` may see of `observed`.
    #[must_use]
    pub fn new(observed: &'a Observed<'a>, caller: &'a Caller, now: Timestamp) -> Self {
        // A stranger sees what is everybody's alone, of which no inventory has a list.
        observed.narrow(caller.scope().unwrap_or(Scope::SeenBy(Id::new(Uuid::nil()))));
        Self { observed, caller, now }
    }

    /// What it looks through.
    pub(crate) const fn observed(&self) -> &'a Observed<'a> {
        self.observed
    }

    /// Now.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Who looks.
    #[must_use]
    pub const fn caller(&self) -> &'a Caller {
        self.caller
    }

    /// Everything, whoever owns it: what comes out of it must be the caller's to know.
    #[must_use]
    pub const fn snapshot(&self) -> &'a Snapshot<Record> {
        self.observed.snapshot()
    }

    /// What `host` has reported.
    #[must_use]
    pub fn status(&self, host: Id<model::resource::host::Host>) -> &'a HostStatus {
        self.observed.board_of().status(host)
    }

    /// The record, if there is one and the caller may see it.
    #[must_use]
    pub fn visible(&self, kind: Kind, uuid: Uuid) -> Option<Arc<Record>> {
        let record = self.observed.get(kind, uuid)?;
        self.caller.sees(self.snapshot(), &record).then_some(record)
    }

    /// The resource, if there is one and the caller may see it.
    ///
    /// # Errors
    /// [`model::Code::NotFound`] otherwise: what is somebody else's is not there.
    pub fn get<R: Resource>(&self, id: Id<R>) -> Result<R> {
        let record = self.visible(R::KIND, id.uuid());
        let resource = record.as_deref().and_then(R::of).cloned();
        resource.ok_or_else(|| Error::not_found(R::DEF.name, id))
    }

    /// The ids of all resources that point at `parent` by this relation, ascending, whoever owns
    /// them.
    pub fn child_ids<C: Resource, P: Resource>(
        &self,
        relation: Relation<C, P>,
        parent: Id<P>,
    ) -> impl Iterator<Item = Id<C>> {
        self.snapshot().referrers(C::KIND, relation.field, parent.uuid()).map(Id::new)
    }

    /// How many resources point at `parent` by this relation; the same work however many.
    #[must_use]
    pub fn count<C: Resource, P: Resource>(&self, relation: Relation<C, P>, parent: Id<P>) -> u64 {
        self.snapshot().count(C::KIND, relation.field, &Key::Uuid(parent.uuid()))
    }

    /// A resource as the API shows it.
    #[must_use]
    pub fn show(&self, record: &Record) -> Map<String, Value> {
        inventory::show(record, self.observed)
    }
}
