//! Relations: a field of one resource that points at another one, and what becomes of the one when
//! the other is deleted.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    FieldType, Id, Kind, Plain, Resource,
    field::{FieldValue, Readable},
};

/// The field of `C` that points at a `P`: `VmNic::L3_NETWORK`. `derive(Resource)` makes one for
/// each field that holds ids.
pub struct Relation<C, P> {
    /// The field's name in the API.
    pub field: &'static str,
    of: PhantomData<fn() -> (C, P)>,
}

impl<C: Resource, P: Resource> Relation<C, P> {
    /// The relation that this field is.
    #[must_use]
    pub const fn new(field: &'static str) -> Self {
        Self { field, of: PhantomData }
    }
}

impl<C, P> Clone for Relation<C, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C, P> Copy for Relation<C, P> {}

/// What happens to a resource when what one of its fields points at is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// The deletion is refused.
    Refuse,
    /// It is deleted too.
    Cascade,
    /// The resource that its field [`AnyId`] names is deleted, and it with that: when an address is
    /// deleted, so is its NIC.
    CascadeToUser,
    /// The field points at nothing from then on.
    Detach,
    /// Nothing: the field only records what was once the case. The store does not index it.
    Keep,
}

/// The id of a resource whose kind is not fixed by the field's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AnyId {
    /// Its kind.
    pub kind: Kind,
    /// Its uuid.
    pub uuid: Uuid,
}

impl AnyId {
    /// The id without its type.
    #[must_use]
    pub fn of<R: Resource>(id: Id<R>) -> Self {
        Self { kind: R::KIND, uuid: id.uuid() }
    }

    /// The id, if it is of this kind.
    #[must_use]
    pub fn id<R: Resource>(self) -> Option<Id<R>> {
        (self.kind == R::KIND).then_some(Id::new(self.uuid))
    }
}

impl FieldValue for AnyId {
    const TYPE: FieldType = FieldType::Uuid;
}

impl Readable for AnyId {
    fn plain(&self) -> Plain<'_> {
        Plain::Uuid(self.uuid)
    }

    fn target(&self) -> Option<AnyId> {
        Some(*self)
    }
}
