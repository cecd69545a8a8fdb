//! What the store keeps: rows of some type, and changes of them.

use std::{fmt::Debug, sync::Arc};

use model::Record;
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// A row. Generic so that the contract suite runs on a toy and not on the product's resources.
pub trait Row:
    Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What tells tables apart. Must serialise as a JSON string: it is part of an engine's key.
    type Kind: Copy + Ord + Debug + Send + Sync + Serialize + DeserializeOwned + 'static;

    /// The table that it belongs to.
    fn kind(&self) -> Self::Kind;

    /// Its id, unique in its table.
    fn id(&self) -> Uuid;

    /// The rows it points at: field name and id. Kept as a two-way index, see
    /// [`Read::referrers`](crate::Read::referrers).
    fn references(&self) -> Vec<(&'static str, Uuid)>;
}

impl Row for Record {
    type Kind = model::Kind;

    fn kind(&self) -> model::Kind {
        Record::kind(self)
    }

    fn id(&self) -> Uuid {
        self.uuid()
    }

    fn references(&self) -> Vec<(&'static str, Uuid)> {
        Record::references(self)
    }
}

/// What a transaction did to one row. `before` and `after` differ, and one of them is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<R: Row> {
    /// Its table.
    pub kind: R::Kind,
    /// Its id.
    pub id: Uuid,
    /// The row before; `None`: it is new.
    pub before: Option<Arc<R>>,
    /// The row after; `None`: it is gone.
    pub after: Option<Arc<R>>,
}
