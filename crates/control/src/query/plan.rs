//! How a query is answered: where its candidates come from, and what is left to check of each.
//!
//! For every condition that an index can answer, the index tells how many resources meet it. The
//! owner and the type of the face are such conditions, too. The condition with the fewest gives the
//! candidates; the others are checked on each candidate. An index gives exactly those that meet its
//! condition, so a query with a single indexed condition is counted without looking at a record.

use std::sync::Arc;

use model::{Kind, Plain, Record, Result, record::OWNER, shown::View};
use store::{Key, Read};
use uuid::Uuid;

use super::{
    Query, Scope,
    condition::{Condition, Test},
    filter::Filter,
    path::Step,
    refs,
    search::{Index, Keys, Search, found_by},
};
use crate::{inventory::Entry, sight};

/// Up to so many candidates are checked one by one: that is cheaper than looking for a smaller set.
const FEW: u64 = 64;

/// Where candidates come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The whole table.
    Table,
    /// An index, under one value.
    Value(&'static str, Key),
    /// Found already; ascending.
    Ids(Vec<Uuid>),
}

/// How a query is answered.
pub(crate) struct Plan<'q> {
    pub(crate) source: Source,
    checks: Vec<Check<'q>>,
}

/// What is checked of a candidate.
enum Check<'q> {
    Is((&'static str, &'static str)),
    Owner(Scope),
    /// The condition itself.
    Condition(&'q Condition),
    /// The whole of what is met in one of several ways.
    Filter(&'q Filter),
    /// What a field points at is one of these, which meet the rest of the condition; ascending.
    Near(Entry, Vec<Uuid>),
    /// It is one of these; ascending.
    Member(Vec<Uuid>),
    /// Nothing: another check has it.
    Passed,
}

/// A check, and those that pass it if they are found otherwise.
struct Part<'q> {
    check: Check<'q>,
    offer: Option<Index>,
}

impl<'q> Plan<'q> {
    /// Decides how to answer.
    pub(crate) fn new(query: &'q Query, search: &Search<'_>) -> Result<Self> {
        let mut parts = implied(query, search);
        let (own, related): (Vec<_>, Vec<_>) =
            query.conditions.iter().partition(|condition| is_simple(condition));
        parts.extend(own.into_iter().map(|condition| Part {
            offer: search.index(query.kind, (condition.path.end, &condition.test)),
            check: Check::Condition(condition),
        }));
        let mut fewest = fewest(&parts).unwrap_or_else(|| search.view.rows().total(query.kind));
        for condition in related {
            let part = related_part(search, condition, fewest)?;
            fewest = part.offer.as_ref().map_or(fewest, |offer| offer.count.min(fewest));
            parts.push(part);
        }
        if let Some(filter) = &query.filter {
            // What is offered may be more than what meets it: the check stays, whatever is chosen.
            let offer = superset(search, filter, fewest)?;
            parts.push(Part { check: Check::Filter(filter), offer: None });
            if offer.is_some() {
                parts.push(Part { check: Check::Passed, offer });
            }
        }
        let offers = parts.iter().enumerate();
        let offers = offers.filter_map(|(at, part)| Some((part.offer.as_ref()?.count, at)));
        let Some((_, best)) = offers.min() else {
            let checks = parts.into_iter().map(|part| part.check).collect();
            return Ok(Self { source: Source::Table, checks });
        };
        let offer = parts.swap_remove(best).offer;
        let source = match offer.map(|offer| offer.keys) {
            None => Source::Table,
            Some(Keys::Of(field, mut keys)) if keys.len() == 1 => {
                keys.pop().map_or(Source::Ids(Vec::new()), |key| Source::Value(field, key))
            }
            Some(keys) => Source::Ids(search.ids(query.kind, &keys)?),
        };
        Ok(Self { source, checks: parts.into_iter().map(|part| part.check).collect() })
    }

    /// How many there are, if that is known without looking at them.
    pub(crate) fn total(&self, search: &Search<'_>) -> Option<u64> {
        let rows = search.view.rows();
        self.checks.is_empty().then(|| match &self.source {
            Source::Table => rows.total(search.kind),
            Source::Value(field, key) => rows.count(search.kind, field, key),
            Source::Ids(ids) => ids.len() as u64,
        })
    }

    /// Whether every candidate is found.
    pub(crate) fn is_exact(&self) -> bool {
        self.checks.is_empty()
    }

    /// Whether a candidate is found.
    pub(crate) fn meets(&self, record: &Record, search: &Search<'_>) -> Result<bool> {
        for check in &self.checks {
            let meets = match check {
                Check::Passed => true,
                Check::Filter(filter) => filter.holds(record, search)?,
                Check::Is((field, only)) => record.field(field) == Plain::word(only),
                Check::Owner(scope) => scope.includes(search.view.snapshot(), record),
                Check::Condition(condition) => {
                    let end = (condition.path.end, &condition.test);
                    search.meets(record, &condition.path.steps, end)? != condition.is_negated
                }
                Check::Near(entry, ids) => {
                    let value = entry.read(record, search.view);
                    let near = |item: &Plain<'_>| match item {
                        Plain::Uuid(id) => ids.binary_search(id).is_ok(),
                        _ => false,
                    };
                    value.items().iter().any(near)
                }
                Check::Member(ids) => ids.binary_search(&record.uuid()).is_ok(),
            };
            if !meets {
                return Ok(false);
            }
        }
        search.within().map(|()| true)
    }

    /// The candidates in the order of their ids, each looked at when its turn comes.
    pub(crate) fn candidates<'a>(
        &'a self,
        search: &'a Search<'_>,
        from: From,
    ) -> Box<dyn Iterator<Item = Arc<Record>> + 'a> {
        let (kind, view) = (search.kind, search.view);
        match &self.source {
            Source::Table if refs::is_made(kind) => {
                let after = match from {
                    From::Position(_) => None,
                    From::After(id) => Some(id),
                };
                let ids = from.of(view.rows().ids_after(after));
                Box::new(ids.filter_map(move |id| view.get(kind, id)))
            }
            Source::Table => {
                // Rows that are left out are not touched.
                let after = match from {
                    From::Position(0) => Ok(None),
                    From::Position(at) => view.snapshot().ids(kind).nth(at - 1).map(Some).ok_or(()),
                    From::After(id) => Ok(Some(id)),
                };
                let rows = after.map(|after| view.snapshot().list_after(kind, after));
                Box::new(rows.into_iter().flatten().inspect(|_| view.look(1)))
            }
            Source::Value(field, key) => {
                let ids = from.of(view.rows().find(kind, field, key));
                Box::new(ids.filter_map(move |id| view.get(kind, id)))
            }
            Source::Ids(ids) => {
                let ids = from.of(ids.iter().copied());
                Box::new(ids.filter_map(move |id| view.get(kind, id)))
            }
        }
    }
}

/// Where candidates begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    /// At this position.
    Position(usize),
    /// Behind this id.
    After(Uuid),
}

impl From {
    /// At the first.
    pub(crate) const START: Self = Self::Position(0);

    /// Those of some ids, ascending, that are not left out.
    fn of(self, ids: impl Iterator<Item = Uuid>) -> impl Iterator<Item = Uuid> {
        let (skip, after) = match self {
            Self::Position(skip) => (skip, None),
            Self::After(after) => (0, Some(after)),
        };
        ids.skip(skip).skip_while(move |id| after.is_some_and(|after| *id <= after))
    }
}

/// The conditions that follow from the caller and the face.
fn implied<'q>(query: &Query, search: &Search<'_>) -> Vec<Part<'q>> {
    let offer = |kind: Kind, field: &'static str, key: Key| {
        let count = search.view.rows().count(kind, field, &key);
        Some(Index { count, keys: Keys::Of(field, vec![key]) })
    };
    let mut parts = Vec::new();
    if let Some(only) = query.face.only {
        let (field, value) = only;
        let column = query.kind.def().column(field).filter(|column| column.is_indexed());
        let offer = column.and_then(|c| offer(query.kind, c.field.name, Key::Text(value.into())));
        parts.push(Part { check: Check::Is(only), offer });
    }
    if let Scope::SeenBy(account) = query.scope {
        let snapshot = search.view.snapshot();
        let owned = offer(query.kind, OWNER, Key::Uuid(account.uuid()));
        let offer = match owned {
            Some(owned) if refs::is_made(query.kind) => Some(owned),
            owned => {
                let count = sight::count(snapshot, account, query.kind);
                let all = Index { count, keys: Keys::SeenBy(account) };
                Some(owned.filter(|owned| owned.count == count).unwrap_or(all))
            }
        };
        parts.push(Part { check: Check::Owner(query.scope), offer });
    } else if refs::is_made(query.kind) && !query.conditions.iter().any(names_owner) {
        // Indexes of what it is made from have what is nobody's, too.
        parts.push(Part { check: Check::Passed, offer: None });
    }
    parts
}

/// Whether only what has an owner meets a condition.
fn names_owner(condition: &Condition) -> bool {
    let is_owner = is_simple(condition) && condition.path.end.name() == OWNER;
    is_owner && condition.test.values().is_some() && !condition.is_negated
}

/// Candidates for what meets a filter, when there are `fewest` already; `None` when no index has all
/// of them.
fn superset(search: &Search<'_>, filter: &Filter, fewest: u64) -> Result<Option<Index>> {
    Ok(match filter {
        Filter::Is(condition) if condition.is_negated => None,
        Filter::Is(condition) => {
            let end = (condition.path.end, &condition.test);
            match is_simple(condition) {
                true => search.index(search.kind, end),
                false if fewest <= FEW || end.1.values().is_none() => None,
                false => search.locate(search.kind, &condition.path.steps, end, fewest)?.map(found),
            }
        }
        Filter::All(filters) => {
            let mut best: Option<Index> = None;
            // What costs nothing to ask comes first: it may leave nothing to look for.
            let is_cheap = |filter: &&Filter| matches!(filter, Filter::Is(c) if is_simple(c));
            let (cheap, others): (Vec<_>, Vec<_>) = filters.iter().partition(is_cheap);
            for filter in cheap.into_iter().chain(others) {
                let few = best.as_ref().map_or(fewest, |best| best.count.min(fewest));
                let offer = superset(search, filter, few)?;
                best = match (best, offer) {
                    (Some(best), Some(offer)) if offer.count >= best.count => Some(best),
                    (best, offer) => offer.or(best),
                };
            }
            best
        }
        Filter::Any(filters) => {
            let mut offers = Vec::new();
            for filter in filters {
                let Some(offer) = superset(search, filter, fewest)? else { return Ok(None) };
                offers.push(offer);
            }
            let count = offers.iter().map(|offer| offer.count).sum();
            let keys = Keys::Any(offers.into_iter().map(|offer| offer.keys).collect());
            Some(Index { count, keys })
        }
        Filter::Not(_) | Filter::Among { .. } => None,
    })
}

/// Whether a condition is about a field in the record, so that it costs nothing to ask the index.
fn is_simple(condition: &Condition) -> bool {
    condition.path.steps.is_empty() && matches!(condition.path.end, Entry::Column(_))
}

/// A condition over relations or on a computed field, when there are `fewest` candidates already.
fn related_part<'q>(
    search: &Search<'_>,
    condition: &'q Condition,
    fewest: u64,
) -> Result<Part<'q>> {
    let itself = Part { check: Check::Condition(condition), offer: None };
    if fewest <= FEW || condition.is_negated {
        return Ok(itself);
    }
    let (steps, end) = (&condition.path.steps[..], (condition.path.end, &condition.test));
    Ok(match steps.split_first() {
        // Without an index one would look at the whole table, as the query itself does.
        None if found_by(search.kind, end.0).is_none() || end.1.values().is_none() => itself,
        None => {
            Part { offer: search.locate(search.kind, steps, end, fewest)?.map(found), ..itself }
        }
        Some((Step::Down(_), _)) => match search.locate(search.kind, steps, end, fewest)? {
            Some(ids) => Part { check: Check::Member(ids.clone()), offer: Some(found(ids)) },
            None => itself,
        },
        Some((Step::Up(entry, kind), rest)) => {
            let near = search.locate(*kind, rest, end, fewest)?;
            let Some(near) = near.map(|near| search.seen_of(*kind, near)) else {
                return Ok(itself);
            };
            let offer = pointing(search, *entry, &near, fewest)?;
            Part { check: Check::Near(*entry, near), offer }
        }
    })
}

/// The resources whose field points at one of `near`, when there are `fewest` candidates already.
fn pointing(
    search: &Search<'_>,
    entry: Entry,
    near: &[Uuid],
    fewest: u64,
) -> Result<Option<Index>> {
    // To ask the index for each of very many takes longer than to look at every candidate.
    if near.len() as u64 > fewest / 4 {
        return Ok(None);
    }
    let points_there = Test::is_one_of(near);
    if let Some(index) = search.index(search.kind, (entry, &points_there)) {
        return Ok(Some(index));
    }
    if found_by(search.kind, entry).is_none() {
        return Ok(None);
    }
    Ok(search.locate(search.kind, &[], (entry, &points_there), fewest)?.map(found))
}

/// What was found already, as an offer.
fn found(ids: Vec<Uuid>) -> Index {
    Index { count: ids.len() as u64, keys: Keys::Ids(ids) }
}

fn fewest(parts: &[Part<'_>]) -> Option<u64> {
    parts.iter().filter_map(|part| part.offer.as_ref()).map(|offer| offer.count).min()
}
