//! Queries: which resources an account sees that meet some conditions, a page of them.
//!
//! Typed: a door reads its own language into a [`Query`], [`run`] answers it from a snapshot.
//! Records are looked at through their typed readers; only what is on the page is shown. What a
//! query may cost is bounded: [`LOOKS_MAX`], [`LIMIT_MAX`], and [`Readers`] for all of them.

mod condition;
mod filter;
mod page;
mod path;
mod pattern;
mod plan;
mod readers;
mod refs;
mod search;
pub mod value;
pub(crate) mod zql;

use model::{Code, Error, Id, Kind, Record, Result, resource::account::Account, shown::Face};
use serde_json::{Map, Value};
use store::Read;
use uuid::Uuid;

pub use condition::{Condition, Operator, VALUES_MAX};
pub use filter::Filter;
pub use path::{Path, RELATIONS_MAX};
pub use readers::{Readers, WAITING_MAX};
pub(crate) use refs::Rows;

use crate::{
    inventory::{self, Entry, Observed},
    sight,
};

/// Resources in one answer if the query names no limit (ZStack's default).
pub const LIMIT: usize = 1000;
/// Most resources in one answer.
pub const LIMIT_MAX: usize = 10_000;
/// Most records that one query looks at, on its way and for its page: about a second.
pub const LOOKS_MAX: u64 = 2_000_000;
/// Most groups that one query makes.
pub const GROUPS_MAX: usize = 100_000;
/// Most records that one page is made from, those in lists included: about 100 MB.
pub const SHOWN_MAX: u64 = 100_000;

/// A query of resources of one kind.
#[derive(Clone, Debug)]
pub struct Query {
    /// The kind.
    pub kind: Kind,
    /// The face of the kind under which it is asked for; it may admit one type only.
    pub face: &'static Face,
    /// Whose resources are seen.
    pub scope: Scope,
    /// What each of them must meet.
    pub conditions: Vec<Condition>,
    /// What each of them must meet besides.
    pub filter: Option<Filter>,
    /// How many are left out at the beginning.
    pub start: usize,
    /// Only those whose uuid comes after this one, whether it still exists or not. So pages neither
    /// miss a resource nor show one twice, whatever is deleted meanwhile. Only in the order of
    /// uuids, and without `start`.
    pub after: Option<Uuid>,
    /// How many are given then.
    pub limit: usize,
    /// What the answer tells.
    pub tells: Tells,
    /// The order; by uuid if there is none.
    pub sort: Option<Sort>,
    /// Only the first of those that have the same value here, in the order of the answer.
    pub group_by: Option<Entry>,
    /// What is shown of each; everything if it is not said.
    pub fields: Option<Vec<Entry>>,
}

impl Query {
    /// The first [`LIMIT`] resources, whatever they are.
    #[must_use]
    pub const fn new(kind: Kind, face: &'static Face, scope: Scope) -> Self {
        Self {
            kind,
            face,
            scope,
            conditions: Vec::new(),
            filter: None,
            start: 0,
            after: None,
            limit: LIMIT,
            tells: Tells::Page,
            sort: None,
            group_by: None,
            fields: None,
        }
    }
}

/// Whose resources a query finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's: for accounts of the type `SystemAdmin`.
    Everything,
    /// Those that an account owns, and those that are shared with it. Conditions lead over these
    /// alone: what is another's has no name and no address for the account.
    SeenBy(Id<Account>),
}

impl Scope {
    pub(crate) fn includes(self, read: &impl Read<Record>, record: &Record) -> bool {
        match self {
            Scope::Everything => true,
            Scope::SeenBy(account) => sight::sees(read, account, record),
        }
    }
}

/// What the answer to a query tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    /// The page.
    Page,
    /// The page, and how many there are in all.
    PageAndTotal,
    /// How many there are in all.
    Total,
}

/// The order of an answer. Where it does not decide, the uuid does, ascending.
#[derive(Clone, Copy, Debug)]
pub struct Sort {
    pub(crate) by: Entry,
    pub(crate) direction: Direction,
}

/// The direction of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nothing comes first, then the least.
    Ascending,
    /// The reverse.
    Descending,
}

impl Sort {
    /// Orders by a field of resources of `kind`.
    ///
    /// # Errors
    /// [`model::Code::InvalidArgument`], blaming `key`, for what is not there or has no order.
    pub fn by(kind: Kind, key: &str, name: &str, direction: Direction) -> Result<Self> {
        Ok(Self { by: inventory::single(kind, key, name)?, direction })
    }
}

/// What a query may cost, in records.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    looks: u64,
    shown: u64,
}

/// The refusal of more groups than are kept at a time.
fn too_many_groups(kind: Kind) -> Error {
    let text = format!("the query of {} makes over {GROUPS_MAX} groups", kind.def().name);
    Error::new(Code::OperationFailed, text)
        .hint("narrow it by conditions, or group by another field")
}

/// The answer to a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The page, if it was asked for.
    pub inventories: Option<Vec<Map<String, Value>>>,
    /// How many there are in all, if that was asked for.
    pub total: Option<u64>,
}

/// Answers a query. It takes up to a second of one core: never run it on an async worker.
///
/// # Errors
/// [`model::Code::InvalidArgument`] for a limit above [`LIMIT_MAX`], and for `after` with another
/// order or `start`.
/// [`model::Code::OperationFailed`] when it looks at more than [`LOOKS_MAX`] records, or shows
/// what is in more than [`SHOWN_MAX`].
pub fn run(query: &Query, view: &Observed<'_>) -> Result<Found> {
    page::run(query, view, Bounds { looks: LOOKS_MAX, shown: SHOWN_MAX })
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
