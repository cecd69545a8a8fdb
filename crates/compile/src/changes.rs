//! From a change set to the changes of relations.

use std::sync::Arc;

use model::{Record, Resource};
use store::Change;

use crate::operators::{Delta, settle};

/// What the rows of any table say, and no longer say.
pub(crate) fn records<T: Ord>(
    changes: &[Change<Record>],
    of: impl Fn(&Record) -> Option<T>,
) -> Delta<T> {
    let of = |row: &Option<Arc<Record>>| of(row.as_deref()?);
    let said = changes.iter().flat_map(|change| [(of(&change.before), -1), (of(&change.after), 1)]);
    settle(said.filter_map(|(entry, weight)| Some((entry?, weight))))
}

/// The change of one table, as far as `of` wants it: a change of a field that it leaves out is
/// none.
pub(crate) fn rows<R: Resource, T: Ord>(
    changes: &[Change<Record>],
    of: impl Fn(&R) -> Option<T>,
) -> Delta<T> {
    settle(rows_unsettled(changes, of))
}

pub(crate) fn rows_unsettled<R: Resource, T>(
    changes: &[Change<Record>],
    of: impl Fn(&R) -> Option<T>,
) -> Delta<T> {
    let of = |row: &Option<Arc<Record>>| R::of(row.as_deref()?).and_then(&of);
    let mine = changes.iter().filter(|change| change.kind == R::KIND);
    mine.flat_map(|change| [(of(&change.before), -1), (of(&change.after), 1)])
        .filter_map(|(entry, weight)| Some((entry?, weight)))
        .collect()
}
