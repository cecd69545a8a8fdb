//! Queries for members of security groups: `role=web AND account=shop`.
//!
//! A condition is about a user tag of an instance, or about its owner. `AND` binds closer than `OR`.
//! Each alternative names a tag or an account that an instance must have: so it is found by an index,
//! and no query finds everything by mistake. What it names first of these is its [`Anchor`].

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::{Id, id::parse_uuid, resource::account::Account};

/// Conditions of a query at most.
const CONDITIONS_MAX: usize = 16;

/// The keys of conditions that are not about a tag with a name and a value.
const ACCOUNT: &str = "account";
const WHOLE: &str = "tag";
/// Members by membership would be about themselves.
const OF_GROUPS: [&str; 3] = ["group", "securityGroup", "securityGroupUuid"];

/// A query: alternatives, each a list of conditions that all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberQuery {
    alternatives: Vec<Vec<Condition>>,
}

/// What an instance must have, or must not.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Tag { said: String, wanted: bool },
    Account(Owner),
}

/// An account, as a query names it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Id(Id<Account>),
    Name(String),
}

/// What an instance has that is found: an owner, and a tag if one is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Anchor {
    /// Whose it is.
    pub account: Id<Account>,
    /// What one of its tags says.
    pub tag: Option<String>,
}

impl Anchor {
    /// The key under which it is in indexes.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.account, self.tag.as_deref().unwrap_or_default())
    }
}

/// What a tag says, whichever way it is written: `role::web`, as ZStack's, is `role=web`.
#[must_use]
pub fn said(tag: &str) -> String {
    let (at, length) = match (tag.find('='), tag.find("::")) {
        (Some(sign), Some(colons)) if colons < sign => (colons, 2),
        (None, Some(colons)) => (colons, 2),
        (Some(sign), _) => (sign, 1),
        (None, None) => return tag.to_owned(),
    };
    format!("{}={}", &tag[..at], &tag[at + length..])
}

impl MemberQuery {
    /// The same with each account by its id.
    ///
    /// # Errors
    /// The name of an account that is not known.
    pub fn resolved(
        mut self,
        account: impl Fn(&str) -> Option<Id<Account>>,
    ) -> Result<Self, String> {
        for condition in self.alternatives.iter_mut().flatten() {
            if let Condition::Account(owner @ Owner::Name(_)) = condition {
                let Owner::Name(name) = &owner else { continue };
                *owner = Owner::Id(account(name).ok_or_else(|| name.clone())?);
            }
        }
        Ok(self)
    }

    /// The accounts that it names, once they are resolved.
    #[must_use]
    pub fn accounts(&self) -> BTreeSet<Id<Account>> {
        self.alternatives.iter().flatten().filter_map(Condition::account).collect()
    }

    /// What instances have that it finds: one of these at least. `owner`: the group's, whose instances
    /// those are of alternatives that name no account.
    #[must_use]
    pub fn anchors(&self, owner: Id<Account>) -> BTreeSet<Anchor> {
        let anchor = |conditions: &Vec<Condition>| Anchor {
            account: account_of(conditions, owner),
            tag: conditions.iter().find_map(|condition| match condition {
                Condition::Tag { said, wanted: true } => Some(said.clone()),
                Condition::Tag { .. } | Condition::Account(_) => None,
            }),
        };
        self.alternatives.iter().map(anchor).collect()
    }

    /// Whether it finds an instance: `account` owns it, and `tags` are what its tags say; `owner`: the
    /// group's.
    #[must_use]
    pub fn finds(&self, owner: Id<Account>, account: Id<Account>, tags: &BTreeSet<String>) -> bool {
        let holds = |condition: &Condition| match condition {
            Condition::Tag { said, wanted } => tags.contains(said) == *wanted,
            Condition::Account(_) => true,
        };
        let fits = |conditions: &Vec<Condition>| {
            account_of(conditions, owner) == account && conditions.iter().all(holds)
        };
        self.alternatives.iter().any(fits)
    }
}

/// The account that an alternative is about.
fn account_of(conditions: &[Condition], owner: Id<Account>) -> Id<Account> {
    conditions.iter().find_map(Condition::account).unwrap_or(owner)
}

impl Condition {
    const fn account(&self) -> Option<Id<Account>> {
        match self {
            Condition::Account(Owner::Id(id)) => Some(*id),
            Condition::Account(Owner::Name(_)) | Condition::Tag { .. } => None,
        }
    }
}

impl FromStr for MemberQuery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = words(text)?.into_iter();
        let (mut alternatives, mut conditions) = (Vec::new(), Vec::new());
        loop {
            conditions.push(condition(&mut words)?);
            match words.next() {
                None => break,
                Some(Word::Plain(word)) if word.eq_ignore_ascii_case("and") => {}
                Some(Word::Plain(word)) if word.eq_ignore_ascii_case("or") => {
                    alternatives.push(std::mem::take(&mut conditions));
                }
                Some(other) => return Err(format!("{other} stands where AND or OR is expected")),
            }
        }
        alternatives.push(conditions);
        check(&alternatives)?;
        Ok(Self { alternatives })
    }
}

impl fmt::Display for MemberQuery {
    /// As it is kept: it is read as the same query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, conditions) in self.alternatives.iter().enumerate() {
            f.write_str(if at > 0 { " OR " } else { "" })?;
            for (at, condition) in conditions.iter().enumerate() {
                f.write_str(if at > 0 { " AND " } else { "" })?;
                condition.fmt(f)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Account(Owner::Id(id)) => write!(f, "{ACCOUNT}={id}"),
            Condition::Account(Owner::Name(name)) => write!(f, "{ACCOUNT}={}", quoted(name)),
            Condition::Tag { said, wanted } => {
                let sign = if *wanted { "=" } else { "!=" };
                match said.split_once('=') {
                    Some((key, value)) if is_key(key) && !value.trim().is_empty() => {
                        write!(f, "{key}{sign}{}", quoted(value))
                    }
                    _ => write!(f, "{WHOLE}{sign}{}", quoted(said)),
                }
            }
        }
    }
}

/// The rules of a whole query.
fn check(alternatives: &[Vec<Condition>]) -> Result<(), String> {
    let count = alternatives.iter().map(Vec::len).sum::<usize>();
    if count > CONDITIONS_MAX {
        return Err(format!("has {count} conditions, and may have {CONDITIONS_MAX}"));
    }
    for conditions in alternatives {
        let accounts = conditions.iter().filter(|it| matches!(it, Condition::Account(_))).count();
        if accounts > 1 {
            return Err("asks for two accounts at once: an instance has one owner".to_owned());
        }
        let must = |it: &Condition| !matches!(it, Condition::Tag { wanted: false, .. });
        if !conditions.iter().any(must) {
            let what = conditions.first().map(ToString::to_string).unwrap_or_default();
            return Err(format!("would find everything without a tag by \"{what}\" alone"));
        }
    }
    Ok(())
}

/// A word, or a text in quotes, or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Plain(String),
    Quoted(String),
    Sign(bool),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Word::Plain(text) | Word::Quoted(text) => write!(f, "\"{text}\""),
            Word::Sign(true) => f.write_str("\"=\""),
            Word::Sign(false) => f.write_str("\"!=\""),
        }
    }
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '=' => (Word::Sign(true), &rest[1..]),
            '!' if rest.starts_with("!=") => (Word::Sign(false), &rest[2..]),
            '\'' | '"' => {
                let (text, after) = rest[1..]
                    .split_once(first)
                    .ok_or_else(|| format!("has a quote {first} that does not end"))?;
                (Word::Quoted(text.to_owned()), after)
            }
            '(' | ')' | '<' | '>' | '!' | ',' | ';' | '~' | '*' | '%' => {
                return Err(format!("has a \"{first}\": conditions are key=value and key!=value"));
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "=!'\"()<>,;~*%".contains(c));
                let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
                (Word::Plain(word.to_owned()), after)
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    match words.is_empty() {
        true => Err("is empty: it would find everything".to_owned()),
        false => Ok(words),
    }
}

/// The next condition.
fn condition(words: &mut impl Iterator<Item = Word>) -> Result<Condition, String> {
    let told =
        |word: Option<Word>| word.map_or_else(|| "the end".to_owned(), |word| word.to_string());
    let key = match words.next() {
        Some(Word::Plain(key)) => key,
        other => return Err(format!("{} stands where a key is expected", told(other))),
    };
    let wanted = match words.next() {
        Some(Word::Sign(wanted)) => wanted,
        other => return Err(format!("{} follows {key}, where = or != is expected", told(other))),
    };
    let value = match words.next() {
        Some(Word::Plain(value) | Word::Quoted(value)) if !value.trim().is_empty() => value,
        other => return Err(format!("{} follows {key}, where a value is expected", told(other))),
    };
    if OF_GROUPS.contains(&key.as_str()) {
        return Err(format!("asks for {key}: who is a member cannot depend on who is a member"));
    }
    match (key.as_str(), wanted) {
        (ACCOUNT, true) => Ok(Condition::Account(match parse_uuid(&value) {
            Some(uuid) => Owner::Id(Id::new(uuid)),
            None => Owner::Name(value),
        })),
        (ACCOUNT, false) => Err("asks for every account but one: name the one".to_owned()),
        (WHOLE, _) => Ok(Condition::Tag { said: said(&value), wanted }),
        (key, _) if is_key(key) => Ok(Condition::Tag { said: format!("{key}={value}"), wanted }),
        (key, _) => Err(format!("\"{key}\" is no key: write tag='{key}={value}'")),
    }
}

/// Whether it is a word that can stand in front of a sign, and is about tags.
fn is_key(key: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || "-_./".contains(c);
    !key.is_empty()
        && key.chars().all(fits)
        && ![ACCOUNT, WHOLE].contains(&key)
        && !OF_GROUPS.contains(&key)
}

/// A value as it is written.
fn quoted(value: &str) -> String {
    let is_plain = value.chars().all(|c| c.is_alphanumeric() || "-_./:".contains(c));
    match (is_plain, value.contains('\'')) {
        (true, _) => value.to_owned(),
        (false, false) => format!("'{value}'"),
        (false, true) => format!("\"{value}\""),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> Id<Account> {
        Id::new(Uuid::from_u128(number))
    }

    fn read(text: &str) -> Result<MemberQuery, String> {
        let names = |name: &str| (name == "shop").then_some(id(2));
        text.parse::<MemberQuery>()?.resolved(names)
    }

    #[test]
    fn a_query_is_kept_as_it_is_read() {
        for (text, kept) in [
            ("role=web", "role=web"),
            ("role = 'a b'  and env!=test", "role='a b' AND env!=test"),
            ("tag=prod or tag='a::b'", "tag=prod OR a=b"),
            ("tag=\"it's\"", "tag=\"it's\""),
            ("tag='a='", "tag='a='"),
            ("account=shop", "account=00000000000000000000000000000002"),
            ("tag='account=x'", "tag='account=x'"),
        ] {
            let query = read(text).unwrap();
            assert_eq!(query.to_string(), kept);
            assert_eq!(read(kept), Ok(query), "{kept}");
        }
    }

    #[test]
    fn what_is_malformed_or_would_find_everything_is_refused() {
        for bad in [
            "",
            " ",
            "role",
            "role=",
            "role!=web",
            "=web",
            "role=web AND",
            "role=web env=test",
            "role=web OR env!=x",
            "account!=shop AND role=web",
            "account=nobody",
            "account=shop AND account=shop",
            "group=x",
            "securityGroup=x AND role=web",
            "role~=web",
            "(role=web)",
            "role='web",
            "role=*",
            "role=''",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let many = vec!["a=b"; CONDITIONS_MAX + 1].join(" AND ");
        assert!(read(&many).is_err());
    }

    #[test]
    fn it_finds_by_tags_and_owner() {
        let tags = |tags: &[&str]| tags.iter().map(|tag| said(tag)).collect::<BTreeSet<_>>();
        let (owner, shop) = (id(1), id(2));
        for (query, account, has, finds) in [
            ("role=web", owner, &["role::web"][..], true),
            ("role=web", owner, &["role=db"], false),
            ("role=web", shop, &["role=web"], false),
            ("role=web AND account=shop", shop, &["role=web"], true),
            ("role=web AND account=shop", owner, &["role=web"], false),
            ("role=web AND env!=test", owner, &["role=web", "env=test"], false),
            ("role=web AND env!=test", owner, &["role=web"], true),
            ("a=b OR account=shop", shop, &[], true),
            ("a=b OR account=shop", owner, &["a=b"], true),
            ("tag=prod", owner, &["prod"], true),
        ] {
            let query = read(query).unwrap();
            let tags = tags(has);
            assert_eq!(query.finds(owner, account, &tags), finds, "{query} {tags:?}");
            // Whatever it finds has one of its anchors.
            let anchored = query.anchors(owner).into_iter().any(|anchor| {
                anchor.account == account && anchor.tag.is_none_or(|tag| tags.contains(&tag))
            });
            assert!(!finds || anchored, "{query}");
        }
    }
}
