//! Conditions with *or*, *not* and sub-queries.

use std::{borrow::Cow, collections::BTreeSet};

use model::{Code, Error, Record, Result};

use super::{
    Bounds, Condition, Operator, Path, Query, VALUES_MAX,
    page::{Wanted, matches},
    plan::{From, Plan},
    search::Search,
};
use crate::inventory::{Entry, Observed};

/// What a resource must meet.
#[derive(Clone, Debug)]
pub enum Filter {
    /// A condition.
    Is(Condition),
    /// All of these.
    All(Vec<Filter>),
    /// One of these at least.
    Any(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// A value is, or is not, one of those that a field has in what a query finds.
    Among {
        /// Where the value is.
        path: Path,
        /// [`Operator::In`] or [`Operator::NotIn`].
        operator: Operator,
        /// What finds the others.
        query: Box<Query>,
        /// The field of theirs.
        field: Entry,
    },
}

impl Filter {
    /// Whether a resource meets it. A sub-query that is not answered yet meets nothing.
    pub(crate) fn holds(&self, record: &Record, search: &Search<'_>) -> Result<bool> {
        match self {
            Filter::Is(condition) => {
                search.view.test();
                let end = (condition.path.end, &condition.test);
                Ok(search.meets(record, &condition.path.steps, end)? != condition.is_negated)
            }
            Filter::All(filters) => {
                for filter in filters {
                    if !filter.holds(record, search)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Filter::Any(filters) => {
                for filter in filters {
                    if filter.holds(record, search)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Filter::Not(filter) => Ok(!filter.holds(record, search)?),
            Filter::Among { .. } => Ok(false),
        }
    }
}

/// The query with its sub-queries answered, and with what every resource must meet among its
/// conditions, where indexes are looked for.
pub(super) fn resolved<'q>(
    query: &'q Query,
    view: &Observed<'_>,
    bounds: Bounds,
) -> Result<Cow<'q, Query>> {
    let Some(filter) = &query.filter else { return Ok(Cow::Borrowed(query)) };
    let mut resolved = Query { filter: None, ..query.clone() };
    let mut rest = Vec::new();
    take_apart(answered(filter, view, bounds)?, &mut resolved.conditions, &mut rest);
    resolved.filter = (!rest.is_empty()).then_some(Filter::All(rest));
    Ok(Cow::Owned(resolved))
}

/// Splits what must hold as a whole into conditions and the rest.
fn take_apart(filter: Filter, conditions: &mut Vec<Condition>, rest: &mut Vec<Filter>) {
    match filter {
        Filter::Is(condition) => conditions.push(condition),
        Filter::All(filters) => {
            filters.into_iter().for_each(|filter| take_apart(filter, conditions, rest));
        }
        other => rest.push(other),
    }
}

fn answered(filter: &Filter, view: &Observed<'_>, bounds: Bounds) -> Result<Filter> {
    let all = |filters: &[Filter]| -> Result<Vec<Filter>> {
        filters.iter().map(|filter| answered(filter, view, bounds)).collect()
    };
    Ok(match filter {
        Filter::Is(condition) => Filter::Is(condition.clone()),
        Filter::All(filters) => Filter::All(all(filters)?),
        Filter::Any(filters) => Filter::Any(all(filters)?),
        Filter::Not(filter) => Filter::Not(Box::new(answered(filter, view, bounds)?)),
        Filter::Among { path, operator, query, field } => {
            let values = values(query, *field, view, bounds)?;
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            Filter::Is(Condition::read(field.name(), path.clone(), *operator, &values)?)
        }
    })
}

/// The values that a field has in what a query finds.
fn values(
    query: &Query,
    field: Entry,
    view: &Observed<'_>,
    bounds: Bounds,
) -> Result<BTreeSet<String>> {
    let query = &resolved(query, view, bounds)?;
    let search = Search { kind: query.kind, scope: query.scope, view, looks_max: bounds.looks };
    let (plan, mut values) = (Plan::new(query, &search)?, BTreeSet::new());
    matches(&plan, &search, From::START, |record| {
        let value = field.read(&record, view);
        values
            .extend(value.items().iter().filter(|item| !item.is_null()).map(|item| item.to_text()));
        match values.len() > VALUES_MAX {
            true => Wanted::NoMore,
            false => Wanted::More,
        }
    })?;
    if values.len() > VALUES_MAX {
        let text = format!("a sub-query of {} gives over {VALUES_MAX} values", query.face.name);
        let hint = "narrow it, or ask the other way round over a relation: vmNics.ip = '10.0.0.1'";
        return Err(Error::new(Code::OperationFailed, text).hint(hint));
    }
    Ok(values)
}
