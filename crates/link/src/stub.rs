//! Stands in for `compile` until it is there.
use model::{Id, Record, resource::host::Host};
use std::collections::BTreeMap;
use store::{Change, Snapshot};
use wire::object::{Object, ObjectKey};
pub(crate) struct Compiler(BTreeMap<ObjectKey, Object>);
pub(crate) struct HostDelta {
    pub(crate) upserts: Vec<Object>,
    pub(crate) removes: Vec<ObjectKey>,
}
impl Compiler {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }
    pub(crate) fn load(&mut self, _s: &Snapshot<Record>) {}
    pub(crate) fn apply(
        &mut self,
        _s: &Snapshot<Record>,
        _c: &[Change<Record>],
    ) -> BTreeMap<Id<Host>, HostDelta> {
        BTreeMap::new()
    }
    pub(crate) fn host(&self, _h: &Id<Host>) -> &BTreeMap<ObjectKey, Object> {
        &self.0
    }
}
