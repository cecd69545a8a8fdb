//! The packet filter of this machine: what is in its sets, and how they are changed. Each change is one
//! transaction of the kernel's, so a packet meets all of it or nothing.

use std::collections::BTreeMap;

use ipnet::IpNet;
use nftables::{
    expr::{Expression, NamedExpression, Prefix, Range},
    helper::{self, NftablesError},
    schema::{
        Element, Map, NfCmd, NfListObject, NfObject, Nftables, Set, SetFlag, SetType, SetTypeValue,
    },
    types::NfFamily,
};
use serde::Deserialize;
use thiserror::Error;

use crate::{
    rules::{self, TABLE},
    sets::{Change, Elements, FORMS, Form, Part, Sets, Type, name},
};

/// Why the packet filter is not as it should be.
#[derive(Debug, Error)]
pub enum Error {
    /// nft cannot be run, or refuses.
    #[error("{error}{said}", said = said(.error))]
    Nft {
        /// What went wrong.
        #[from]
        error: NftablesError,
    },
    /// nft says something else than it is known to.
    #[error("nft lists its counters in another form: {0}")]
    Form(serde_json::Error),
}

/// What nft has said, on a line of its own.
fn said(error: &NftablesError) -> String {
    match error {
        NftablesError::NftFailed { stderr, .. } => format!(": {}", stderr.trim()),
        _ => String::new(),
    }
}

/// Replaces all there is, in this network namespace. Connections stay.
///
/// # Errors
/// [`Error::Nft`]; nothing has changed then.
pub fn replace(sets: &Sets) -> Result<(), Error> {
    run(whole(sets))
}

/// Changes what is in sets and maps.
///
/// # Errors
/// [`Error::Nft`]; nothing has changed then. Something in this namespace has changed them, if
/// they are not as the change expects.
pub fn change(change: &Change) -> Result<(), Error> {
    if change.is_empty() { Ok(()) } else { run(changed(change)) }
}

/// What the packet filter has dropped since it was replaced last, by the counter's name; see
/// [`rules::COUNTERS`].
///
/// # Errors
/// [`Error::Nft`], [`Error::Form`].
pub fn counted() -> Result<BTreeMap<String, u64>, Error> {
    let said = helper::get_current_ruleset_raw(
        helper::DEFAULT_NFT,
        ["list", "counters", "table", "inet", TABLE],
    )?;
    // The crate's own counters have 32 bits.
    let all: Counters = serde_json::from_str(&said).map_err(Error::Form)?;
    let one = |object: Listed| object.counter.map(|counter| (counter.name, counter.packets));
    Ok(all.nftables.into_iter().filter_map(one).collect())
}

#[derive(Deserialize)]
struct Counters {
    nftables: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    counter: Option<ListedCounter>,
}

#[derive(Deserialize)]
struct ListedCounter {
    name: String,
    packets: u64,
}

fn run(objects: Vec<NfObject<'_>>) -> Result<(), Error> {
    Ok(helper::apply_ruleset(&Nftables { objects: objects.into() })?)
}

/// Everything, in the place of everything.
#[must_use]
pub fn whole(sets: &Sets) -> Vec<NfObject<'static>> {
    let command = NfObject::CmdObject;
    // Only a table that is there can be deleted.
    let mut objects = vec![
        command(NfCmd::Add(rules::table())),
        command(NfCmd::Delete(rules::table())),
        command(NfCmd::Add(rules::table())),
    ];
    let named: BTreeMap<String, (&Form, bool)> = all().collect();
    objects
        .extend(named.values().map(|(form, is_ipv4)| command(NfCmd::Add(empty(form, *is_ipv4)))));
    objects.extend(rules::chains());
    objects.extend(sets.0.iter().filter_map(|(name, elements)| {
        put(name, elements).map(|element| command(NfCmd::Add(element)))
    }));
    objects
}

fn changed(change: &Change) -> Vec<NfObject<'static>> {
    let gone = change.gone.iter().map(|(name, keys)| {
        let keys = keys.iter().map(|key| self::key(key)).collect::<Vec<_>>();
        NfCmd::Delete(element(name, keys))
    });
    let new = change.new.iter().filter_map(|(name, elements)| put(name, elements).map(NfCmd::Add));
    gone.chain(new).map(NfObject::CmdObject).collect()
}

/// All sets and maps, by their names in the kernel.
fn all() -> impl Iterator<Item = (String, (&'static Form, bool))> {
    let families = |form: &'static Form| {
        let families: &[bool] = if form.is_of_family { &[true, false] } else { &[true] };
        families.iter().map(move |is_ipv4| (name(form, *is_ipv4), (form, *is_ipv4)))
    };
    FORMS.iter().flat_map(families)
}

fn empty(form: &'static Form, is_ipv4: bool) -> NfListObject<'static> {
    let (family, table, name) = (NfFamily::INet, TABLE.into(), name(form, is_ipv4).into());
    let of = |of: &Type| match (of, is_ipv4) {
        (Type::Device, _) => SetType::Ifname,
        (Type::Address, true) => SetType::Ipv4Addr,
        (Type::Address, false) => SetType::Ipv6Addr,
        (Type::Protocol, _) => SetType::InetProto,
        (Type::Port, _) => SetType::InetService,
    };
    let set_type = match form.key {
        [only] => SetTypeValue::Single(of(only)),
        several => SetTypeValue::Concatenated(several.iter().map(of).collect()),
    };
    let flags = form.is_interval.then(|| [SetFlag::Interval].into());
    match form.value {
        None => NfListObject::Set(Box::new(Set {
            family,
            table,
            name,
            set_type,
            flags,
            ..Set::default()
        })),
        Some(value) => {
            let map = SetTypeValue::Single(of(&value));
            let map = Map { family, table, name, set_type, map, flags, ..Map::default() };
            NfListObject::Map(Box::new(map))
        }
    }
}

fn element(name: &str, elements: Vec<Expression<'static>>) -> NfListObject<'static> {
    let (family, table, name) = (NfFamily::INet, TABLE.into(), name.to_owned().into());
    NfListObject::Element(Element { family, table, name, elem: elements.into() })
}

/// Elements to be put in, if there are any.
fn put(name: &str, elements: &Elements) -> Option<NfListObject<'static>> {
    let one = |(parts, value): (&Vec<Part>, &Option<Part>)| match value {
        None => key(parts),
        Some(value) => Expression::List(vec![key(parts), part(value)]),
    };
    (!elements.is_empty()).then(|| element(name, elements.iter().map(one).collect()))
}

fn key(parts: &[Part]) -> Expression<'static> {
    match parts {
        [only] => part(only),
        several => Expression::Named(NamedExpression::Concat(several.iter().map(part).collect())),
    }
}

fn part(part: &Part) -> Expression<'static> {
    let number = |port: u16| Expression::Number(port.into());
    match part {
        Part::Word(word) => Expression::String(word.clone().into()),
        Part::Address(ip) => Expression::String(ip.to_string().into()),
        Part::Port(port) => number(*port),
        Part::Ports(first, last) if first == last => number(*first),
        Part::Ports(first, last) => {
            Expression::Range(Box::new(Range { range: [number(*first), number(*last)] }))
        }
        Part::Prefix(prefix) if prefix.prefix_len() == prefix.max_prefix_len() => {
            Expression::String(prefix.addr().to_string().into())
        }
        Part::Prefix(prefix) => self::prefix(prefix),
    }
}

fn prefix(prefix: &IpNet) -> Expression<'static> {
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(Expression::String(prefix.addr().to_string().into())),
        len: prefix.prefix_len().into(),
    }))
}
