//! The page of a query: counts, order, and what is shown.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use model::{Code, Error, Plain, Record, Result, shown::View};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    Bounds, Direction, Found, GROUPS_MAX, LIMIT_MAX, Query, Sort, Tells, filter,
    plan::{From, Plan},
    search::Search,
    too_many_groups,
};
use crate::inventory::{self, Entry, Observed};

/// Answers a query within bounds.
pub(super) fn run(query: &Query, view: &Observed<'_>, bounds: Bounds) -> Result<Found> {
    if query.limit > LIMIT_MAX {
        let error = Error::field("limit", format!("{} is more than {LIMIT_MAX}", query.limit));
        return Err(error.hint("ask page by page: limit=1000, then after=<the last uuid>"));
    }
    if query.after.is_some() && (query.start > 0 || query.sort.is_some()) {
        let error = Error::field("after", "goes with neither start nor sort");
        return Err(error.hint("pages after a uuid come in the order of uuids: leave both out"));
    }
    view.narrow(query.scope);
    let query = &filter::resolved(query, view, bounds)?;
    let search = Search { kind: query.kind, scope: query.scope, view, looks_max: bounds.looks };
    let plan = Plan::new(query, &search)?;
    if let Some(by) = query.group_by {
        let (page, total) = grouped(query, by, (&plan, &search))?;
        return answer(query, (page, Some(total)), &search, bounds);
    }
    let known = plan.total(&search);
    if query.tells == Tells::Total {
        let total = match known {
            Some(total) => total,
            None => matches(&plan, &search, From::START, |_| Wanted::More)?,
        };
        return Ok(Found { inventories: None, total: Some(total) });
    }
    let (page, counted) = match &query.sort {
        None if plan.is_exact() => {
            let from = query.after.map_or(From::Position(query.start), From::After);
            let page = plan.candidates(&search, from).take(query.limit);
            (page.collect(), known)
        }
        None => by_uuid(query, &plan, &search)?,
        Some(sort) => sorted(query, sort, &plan, &search)?,
    };
    answer(query, (page, counted), &search, bounds)
}

/// What a query tells of its page and of how many there are.
fn answer(
    query: &Query,
    (page, total): Page,
    search: &Search<'_>,
    bounds: Bounds,
) -> Result<Found> {
    let shows = query.tells != Tells::Total;
    Ok(Found {
        inventories: shows.then(|| show(query, &page, search, bounds.shown)).transpose()?,
        total: total.filter(|_| query.tells != Tells::Page),
    })
}

/// The first of each group in the order of the answer, and how many groups there are.
fn grouped(
    query: &Query,
    by: Entry,
    (plan, search): (&Plan<'_>, &Search<'_>),
) -> Result<(Vec<Arc<Record>>, u64)> {
    let order = |a: &First, b: &First| match &query.sort {
        Some(sort) => sort.order((&a.0, a.1), (&b.0, b.1)),
        None => a.1.cmp(&b.1),
    };
    let mut groups: BTreeMap<Option<String>, First> = BTreeMap::new();
    matches(plan, search, From::START, |record| {
        let group = by.read(&record, search.view);
        let group = (!group.is_null()).then(|| group.to_text());
        let key = query
            .sort
            .as_ref()
            .map_or(Plain::Null, |sort| sort.by.read(&record, search.view).into_owned());
        let this = (key, record.uuid());
        let first = groups.entry(group).or_insert_with(|| this.clone());
        if order(&this, first).is_lt() {
            *first = this;
        }
        match groups.len() > GROUPS_MAX {
            true => Wanted::NoMore,
            false => Wanted::More,
        }
    })?;
    if groups.len() > GROUPS_MAX {
        return Err(too_many_groups(query.kind));
    }
    let total = groups.len() as u64;
    let mut firsts: Vec<First> = groups.into_values().collect();
    firsts.sort_unstable_by(order);
    let after = |first: &&First| query.after.is_none_or(|after| first.1 > after);
    let page = firsts.iter().filter(after).skip(query.start).take(query.limit);
    Ok((page.filter_map(|(_, id)| search.view.get(search.kind, *id)).collect(), total))
}

/// What decides the place of a resource.
type First = (Plain<'static>, Uuid);

/// Whether to go on.
pub(super) enum Wanted {
    More,
    NoMore,
}

/// Gives each resource that is found from there on to `take`; gives how many there were.
pub(super) fn matches(
    plan: &Plan<'_>,
    search: &Search<'_>,
    from: From,
    mut take: impl FnMut(Arc<Record>) -> Wanted,
) -> Result<u64> {
    let mut found = 0;
    for record in plan.candidates(search, from) {
        search.within()?;
        if plan.meets(&record, search)? {
            if let Wanted::NoMore = take(record) {
                break;
            }
            found += 1;
        }
    }
    Ok(found)
}

/// A page, and how many there are in all if that had to be found out.
type Page = (Vec<Arc<Record>>, Option<u64>);

fn by_uuid(query: &Query, plan: &Plan<'_>, search: &Search<'_>) -> Result<Page> {
    // Those before it are looked at only to be counted.
    let counts = query.tells != Tells::Page;
    let from = query.after.filter(|_| !counts).map_or(From::START, From::After);
    let mut page = Vec::new();
    let mut left_out = query.start;
    let total = matches(plan, search, from, |record| {
        if query.after.is_some_and(|after| record.uuid() <= after) {
            return Wanted::More;
        }
        if left_out > 0 {
            left_out -= 1;
            return Wanted::More;
        }
        if page.len() < query.limit {
            page.push(record);
        }
        match !counts && page.len() >= query.limit {
            true => Wanted::NoMore,
            false => Wanted::More,
        }
    })?;
    Ok((page, Some(total)))
}

impl Sort {
    fn order(&self, a: (&Plain<'_>, Uuid), b: (&Plain<'_>, Uuid)) -> Ordering {
        let order = a.0.order(b.0).unwrap_or(Ordering::Equal);
        let order = match self.direction {
            Direction::Ascending => order,
            Direction::Descending => order.reverse(),
        };
        order.then(a.1.cmp(&b.1))
    }
}

/// Keeps the keys of what may come on the page, not the records, and twice as many at most.
fn sorted(query: &Query, sort: &Sort, plan: &Plan<'_>, search: &Search<'_>) -> Result<Page> {
    let end = query.start.saturating_add(query.limit);
    let mut keys: Vec<First> = Vec::new();
    let by = |a: &First, b: &First| sort.order((&a.0, a.1), (&b.0, b.1));
    let total = matches(plan, search, From::START, |record| {
        keys.push((sort.by.read(&record, search.view).into_owned(), record.uuid()));
        if keys.len() > end.saturating_mul(2).saturating_add(LIMIT_MAX) {
            keys.select_nth_unstable_by(end, by);
            keys.truncate(end);
        }
        Wanted::More
    })?;
    keys.sort_unstable_by(by);
    let page = keys.iter().skip(query.start).take(query.limit);
    let page = page.filter_map(|(_, id)| search.view.get(search.kind, *id)).collect();
    Ok((page, Some(total)))
}

/// The inventories, made from `most` records at most.
fn show(
    query: &Query,
    page: &[Arc<Record>],
    search: &Search<'_>,
    most: u64,
) -> Result<Vec<Map<String, Value>>> {
    let before = search.view.looks();
    let mut shown = Vec::with_capacity(page.len());
    for record in page {
        shown.push(match &query.fields {
            Some(fields) => inventory::project(record, search.view, fields.iter().copied()),
            None => inventory::show(record, search.view),
        });
        if search.view.looks() - before > most {
            let message = format!("the page shows what is in more than {most} records");
            let error = Error::new(Code::OperationFailed, message);
            return Err(error.hint("ask for fewer with limit, or leave lists out with fields"));
        }
        search.within()?;
    }
    Ok(shown)
}
