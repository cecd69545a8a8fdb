//! ZQL: what its statements mean, and their answers. All statements of one text share the bounds of a
//! single query: what they look at is counted together.

mod syntax;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use model::{
    Error, Kind, Plain, Result,
    resource::{faces, zql::ZQLQuery},
    shown::Face,
};
use serde_json::{Map, Number, Value, json};

use super::{
    Bounds, Condition, Filter, GROUPS_MAX, LIMIT, LOOKS_MAX, Operator, Path, Query, SHOWN_MAX,
    Scope, Sort, Tells, filter,
    page::{self, Wanted, matches},
    plan::{From, Plan},
    search::Search,
    too_many_groups,
};
use crate::{
    Look,
    inventory::{self, Entry, Observed},
    operation::{Operation, look},
};
use syntax::{Cond, Operand, Statement, Target, Verb, Word};

/// The one field that texts of this language are blamed by.
const KEY: &str = "zql";

pub(crate) fn operations() -> Vec<Operation> {
    vec![look(zql)]
}

fn zql(look: &Look<'_>, message: ZQLQuery) -> Result<Value> {
    // Strangers may not send it.
    let Some(scope) = look.caller().scope() else { return Ok(json!({"results": []})) };
    let bounds = Bounds { looks: LOOKS_MAX, shown: SHOWN_MAX };
    Ok(json!({"results": answers(&message.zql, scope, (look.observed(), bounds))?}))
}

/// The answers to the statements of a text, in their order.
fn answers(
    text: &str,
    scope: Scope,
    (view, bounds): (&Observed<'_>, Bounds),
) -> Result<Vec<Value>> {
    let asked = syntax::parse(text)?.into_iter().map(|statement| meaning(&statement, scope));
    let asked = asked.collect::<Result<Vec<_>>>()?;
    asked.into_iter().map(|asked| answer(asked, view, bounds)).collect()
}

/// What a statement means.
struct Asked {
    query: Query,
    sum: Option<Sum>,
    name: Option<String>,
}

/// What is summed up, in groups of the same value of `by`.
struct Sum {
    by: Entry,
    fields: Vec<Entry>,
}

fn answer(asked: Asked, view: &Observed<'_>, bounds: Bounds) -> Result<Value> {
    let mut answer = Map::new();
    match &asked.sum {
        Some(sum) => {
            answer.insert("inventories".into(), sums(&asked.query, sum, (view, bounds))?.into());
        }
        None => {
            let found = page::run(&asked.query, view, bounds)?;
            if let Some(page) = found.inventories {
                let page: Value = page.into_iter().map(Value::Object).collect();
                answer.insert("inventories".into(), page);
            }
            if let Some(total) = found.total {
                answer.insert("total".into(), total.into());
            }
        }
    }
    if let Some(name) = asked.name {
        answer.insert("name".into(), name.into());
    }
    Ok(answer.into())
}

/// A row for each group: its value, and the sums.
fn sums(query: &Query, sum: &Sum, (view, bounds): (&Observed<'_>, Bounds)) -> Result<Vec<Value>> {
    view.narrow(query.scope);
    let query = &filter::resolved(query, view, bounds)?;
    let search = Search { kind: query.kind, scope: query.scope, view, looks_max: bounds.looks };
    let plan = Plan::new(query, &search)?;
    let mut groups: BTreeMap<String, (Value, Vec<i128>)> = BTreeMap::new();
    matches(&plan, &search, From::START, |record| {
        let group = sum.by.read(&record, view);
        let empty = || (group.to_json(), vec![0; sum.fields.len()]);
        let (_, totals) = groups.entry(group.to_text()).or_insert_with(empty);
        for (total, field) in totals.iter_mut().zip(&sum.fields) {
            if let Plain::Integer(number) = field.read(&record, view) {
                *total += i128::from(number);
            }
        }
        match groups.len() > GROUPS_MAX {
            true => Wanted::NoMore,
            false => Wanted::More,
        }
    })?;
    if groups.len() > GROUPS_MAX {
        return Err(too_many_groups(query.kind));
    }
    let row = |(value, totals): (Value, Vec<i128>)| {
        let mut row = Map::new();
        row.insert(sum.by.name().to_owned(), value);
        for (field, total) in sum.fields.iter().zip(totals) {
            row.insert(
                field.name().to_owned(),
                Number::from_i128(total).map_or(Value::Null, Value::from),
            );
        }
        Value::Object(row)
    };
    Ok(groups.into_values().skip(query.start).take(query.limit).map(row).collect())
}

fn meaning(statement: &Statement<'_>, scope: Scope) -> Result<Asked> {
    let Target { entity, fields, is_distinct } = &statement.target;
    let (kind, face) = face(entity)?;
    let mut query = Query::new(kind, face, scope);
    let filters = statement.filter.iter().map(|cond| filter(kind, scope, cond));
    let filters = filters.collect::<Result<Vec<_>>>()?;
    query.filter = (!filters.is_empty()).then_some(Filter::All(filters));
    query.limit = statement.limit.map_or(Ok(LIMIT), number)?;
    query.start = statement.offset.map_or(Ok(0), number)?;
    for name in &statement.returns {
        if *name != "total" {
            let error = Error::field(KEY, format!("return with ({name}) is not known"));
            return Err(error.hint("return with (total) is"));
        }
    }
    query.tells = match (statement.verb, statement.returns.is_empty()) {
        (Verb::Count, _) => Tells::Total,
        (Verb::Query | Verb::Sum, true) => Tells::Page,
        (Verb::Query | Verb::Sum, false) => Tells::PageAndTotal,
    };
    query.sort = match &statement.order_by[..] {
        [] => None,
        [(field, direction)] => Some(Sort::by(kind, KEY, field, *direction)?),
        _ => return Err(only_one("order by")),
    };
    query.group_by = match (&statement.group_by[..], &fields[..]) {
        ([], [field]) if *is_distinct => Some(inventory::single(kind, KEY, field)?),
        ([], _) if *is_distinct => return Err(only_one("distinct(..)")),
        ([], _) => None,
        ([field], _) => Some(inventory::single(kind, KEY, field)?),
        _ => return Err(only_one("group by")),
    };
    let entries = fields.iter().map(|field| inventory::entry(kind, KEY, field));
    let entries = entries.collect::<Result<Vec<_>>>()?;
    let name = statement.name.map(str::to_owned);
    let sum = match (statement.verb, statement.by) {
        (Verb::Sum, Some(by)) if !entries.is_empty() => {
            Some(Sum { by: inventory::single(kind, KEY, by)?, fields: entries.clone() })
        }
        (Verb::Sum, _) => {
            let error = Error::field(KEY, "a sum needs fields, and one that tells the groups");
            return Err(error.hint("such as: sum vminstance.memorySize by zoneUuid"));
        }
        (Verb::Query | Verb::Count, _) => None,
    };
    query.fields = (!entries.is_empty()).then_some(entries);
    Ok(Asked { query, sum, name })
}

fn only_one(what: &str) -> Error {
    let error = Error::field(KEY, format!("{what} has one field"));
    error.hint("name one; ask in several statements, separated by ;")
}

fn number(text: &str) -> Result<usize> {
    text.parse().map_err(|_| {
        let error = Error::field(KEY, format!("{text} is too large"));
        error.hint("limit 1000 is what a statement without a limit has")
    })
}

/// The face under which a resource is asked for: its name in any case, such as `vminstance`.
fn face(entity: &str) -> Result<(Kind, &'static Face)> {
    let is_it = |(kind, face): &(Kind, &'static Face)| {
        // ZStack has the addresses under both names of theirs.
        face.name.eq_ignore_ascii_case(entity) || format!("{kind:?}").eq_ignore_ascii_case(entity)
    };
    faces().find(is_it).ok_or_else(|| {
        let error = Error::field(KEY, format!("there is no resource {entity}"));
        let known: Vec<String> = faces().map(|(_, face)| face.name.to_ascii_lowercase()).collect();
        error.hint(format!("there are {}", inventory::names(known.iter().map(String::as_str))))
    })
}

fn filter(kind: Kind, scope: Scope, cond: &Cond<'_>) -> Result<Filter> {
    let all = |conds: &[Cond<'_>]| -> Result<Vec<Filter>> {
        conds.iter().map(|cond| filter(kind, scope, cond)).collect()
    };
    let (path, operator, operand) = match cond {
        Cond::All(conds) => return Ok(Filter::All(all(conds)?)),
        Cond::Any(conds) => return Ok(Filter::Any(all(conds)?)),
        Cond::Is { path, operator, operand } => (path, *operator, operand),
    };
    let path = Path::read(kind, KEY, path)?;
    match (operand, operator) {
        (Operand::Values(values), Word::Plain(operator)) => {
            Ok(Filter::Is(Condition::read(KEY, path, operator, values)?))
        }
        (Operand::Values(values), Word::Has | Word::HasNot) => {
            let one = |value: &&str| Condition::read(KEY, path.clone(), Operator::Equal, &[value]);
            let every = values.iter().map(|value| one(value).map(Filter::Is));
            let every = Filter::All(every.collect::<Result<_>>()?);
            Ok(if operator == Word::Has { every } else { Filter::Not(Box::new(every)) })
        }
        (
            Operand::Query { target, filter },
            Word::Plain(operator @ (Operator::In | Operator::NotIn)),
        ) => among((path, operator), (target, filter.as_deref()), scope),
        (Operand::Query { .. }, _) => {
            let error = Error::field(KEY, "a sub-query goes with in and not in");
            Err(error.hint("such as: zoneUuid in (query zone.uuid where name = 'a')"))
        }
    }
}

fn among(
    (path, operator): (Path, Operator),
    (target, cond): (&Target<'_>, Option<&Cond<'_>>),
    scope: Scope,
) -> Result<Filter> {
    let (kind, face) = face(target.entity)?;
    let [field] = target.fields[..] else {
        let error = Error::field(KEY, "a sub-query gives the values of one field");
        return Err(error.hint("such as: query zone.uuid where name = 'a'"));
    };
    let field = inventory::comparable(kind, KEY, field)?;
    let mut query = Query::new(kind, face, scope);
    query.filter = cond.map(|cond| filter(kind, scope, cond)).transpose()?;
    Ok(Filter::Among { path, operator, query: Box::new(query), field })
}
