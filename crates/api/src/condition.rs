//! One condition of a query: `<field><op><value>`.
//!
//! It is split at the leftmost operator, and there at the longest one. ZStack tries its operators
//! in a fixed order instead, which differs only for values that contain operators. A value is read
//! as what its field is, once: one that cannot be it is refused, not compared as text.

use std::cmp::Ordering;

use control::inventory;
use model::{Error, FieldType, Kind, Result, Timestamp};
use serde_json::{Map, Value};

/// A condition that its field can meet.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) field: String,
    pub(crate) operator: Operator,
    /// The value as it was written.
    pub(crate) text: String,
    /// What it means: of `?=` each item, else one; none where text is compared with a pattern.
    wanted: Vec<Wanted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    NotLike,
    In,
    NotIn,
    IsNull,
    NotNull,
}

/// Longest first, so that `!=` is not taken for `=`.
const OPERATORS: [(&str, Operator); 12] = [
    (" is null", Operator::IsNull),
    (" not null", Operator::NotNull),
    ("!?=", Operator::NotIn),
    ("!~=", Operator::NotLike),
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("~=", Operator::Like),
    ("?=", Operator::In),
    ("=", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
];

/// A value to compare with, as its field's type has it.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Number(i64),
    Time(Timestamp),
    Text(String),
}

impl Condition {
    /// Reads a condition on resources of `kind`.
    ///
    /// # Errors
    /// [`model::Code::InvalidArgument`] for no operator, no such field, or a value that the field
    /// cannot have.
    pub(crate) fn parse(kind: Kind, text: &str) -> Result<Self> {
        let found = (0..text.len()).filter(|at| text.is_char_boundary(*at)).find_map(|at| {
            let fits = |(op, _): &&(&str, Operator)| text[at..].starts_with(op);
            OPERATORS.iter().find(fits).map(|(op, operator)| (at, op, *operator))
        });
        let Some((at, op, operator)) = found else {
            let error = Error::field("q", format!("\"{text}\" has no operator"));
            return Err(error.hint(
                "write q=<field><op><value> with = != > < >= <= ~= !~= ?= !?=, \
                 or q=<field> is null",
            ));
        };
        let (field, text) = (text[..at].trim(), &text[at + op.len()..]);
        let wanted = wanted(type_of(kind, "q", field)?, operator, text)
            .map_err(|rule| Error::field("q", format!("{field}: {rule}")))?;
        Ok(Self { field: field.to_owned(), operator, text: text.to_owned(), wanted })
    }

    /// Whether a resource, as it is shown, meets it. A list meets what one of its items meets; what
    /// is not there meets `is null` alone.
    pub(crate) fn holds(&self, shown: &Map<String, Value>) -> bool {
        let value = shown.get(&self.field).filter(|value| !value.is_null());
        let Some(value) = value else { return self.operator == Operator::IsNull };
        let items = match value {
            Value::Array(items) => &items[..],
            one => std::slice::from_ref(one),
        };
        let any = |test: &dyn Fn(Ordering) -> bool| {
            let meets = |item, wanted| order(item, wanted).is_some_and(test);
            items.iter().any(|item| self.wanted.iter().any(|wanted| meets(item, wanted)))
        };
        let like = || items.iter().any(|item| like(&self.text, &plain(item)));
        match self.operator {
            Operator::Equal | Operator::In => any(&Ordering::is_eq),
            Operator::NotEqual | Operator::NotIn => !any(&Ordering::is_eq),
            Operator::Less => any(&Ordering::is_lt),
            Operator::LessOrEqual => any(&Ordering::is_le),
            Operator::Greater => any(&Ordering::is_gt),
            Operator::GreaterOrEqual => any(&Ordering::is_ge),
            Operator::Like => like(),
            Operator::NotLike => !like(),
            Operator::IsNull => false,
            Operator::NotNull => true,
        }
    }
}

/// The type of a field that conditions may name.
///
/// # Errors
/// [`model::Code::InvalidArgument`] with the fields that there are, blaming `key`.
pub(crate) fn type_of(kind: Kind, key: &str, name: &str) -> Result<FieldType> {
    let def = kind.def();
    let declared = def.fields.iter().filter(|field| !field.hidden).map(|f| (f.name, f.kind));
    let mut all: Vec<_> = declared.chain(inventory::derived_fields(kind).iter().copied()).collect();
    if let Some((_, found)) = all.iter().find(|(known, _)| *known == name) {
        return Ok(*found);
    }
    if inventory::derived_structures(kind).contains(&name) {
        let error = Error::field(key, format!("{name} is a structure, which cannot be compared"));
        return Err(error.hint(format!("fields={name} shows it; or query what is in it")));
    }
    all.sort_unstable_by_key(|(known, _)| *known);
    let names = all.into_iter().map(|(known, _)| known);
    let names: Vec<&str> = names.chain(inventory::derived_structures(kind).to_vec()).collect();
    let error = Error::field(key, format!("{} has no field {name}", def.name));
    Err(error.hint(format!("its fields: {}", names.join(", "))))
}

/// What a value means for a field of this type; the rule that it breaks, if it does.
fn wanted(kind: FieldType, operator: Operator, text: &str) -> Result<Vec<Wanted>, String> {
    use Operator::{Greater, GreaterOrEqual, In, IsNull, Less, LessOrEqual, Like, NotIn, NotNull};
    match (kind, operator) {
        (_, Like | Operator::NotLike | IsNull | NotNull) => Ok(Vec::new()),
        (FieldType::List(_), Less | LessOrEqual | Greater | GreaterOrEqual) => {
            Err("a list is neither before nor after a value".into())
        }
        (FieldType::List(item), _) => wanted(*item, operator, text),
        (FieldType::Time, In | NotIn) => times(text),
        (_, In | NotIn) => text.split(',').map(|item| one(kind, item.trim())).collect(),
        _ => one(kind, text).map(|one| vec![one]),
    }
}

fn one(kind: FieldType, text: &str) -> Result<Wanted, String> {
    match kind {
        FieldType::Integer => {
            let number = text.trim().parse().map(Wanted::Number);
            number.map_err(|cause: std::num::ParseIntError| match cause.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                    format!("\"{text}\" is out of the range of whole numbers here (64 bits)")
                }
                _ => format!("\"{text}\" is not a whole number"),
            })
        }
        FieldType::Bool => match text.trim().to_ascii_lowercase().as_str() {
            known @ ("true" | "false") => Ok(Wanted::Text(known.to_owned())),
            _ => Err(format!("\"{text}\" is not true or false")),
        },
        FieldType::Time => time(text),
        _ => Ok(Wanted::Text(text.to_owned())),
    }
}

fn time(text: &str) -> Result<Wanted, String> {
    text.trim().parse().map(Wanted::Time).map_err(|rule| format!("\"{text}\" is {rule}"))
}

/// Points in time, separated by commas. The form in which they are shown has a comma of its own.
fn times(text: &str) -> Result<Vec<Wanted>, String> {
    let (mut found, mut pieces) = (Vec::new(), text.split(',').peekable());
    while let Some(piece) = pieces.next() {
        let joined = pieces.peek().map(|next| time(&format!("{piece},{next}")));
        if let Some(Ok(both)) = joined {
            pieces.next();
            found.push(both);
        } else {
            found.push(time(piece)?);
        }
    }
    Ok(found)
}

/// How a shown value is to a wanted one; `None` where they cannot be compared.
fn order(value: &Value, wanted: &Wanted) -> Option<Ordering> {
    match wanted {
        Wanted::Number(wanted) => value.as_i64().map(|number| number.cmp(wanted)),
        Wanted::Time(wanted) => shown_time(value).map(|time| time.cmp(wanted)),
        Wanted::Text(wanted) => Some(plain(value).cmp(wanted)),
    }
}

/// The point in time that an inventory shows.
pub(crate) fn shown_time(shown: &Value) -> Option<Timestamp> {
    shown.as_str()?.parse().ok()
}

/// A value as the text that a condition compares with.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// SQL's LIKE: `%` is any text, `_` any character. Linear in the text for each `%`.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when a character does not fit: after the last `%`, one character further.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('%') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == '_' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((after, from)) = retry else { return false };
                retry = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_split_at_the_leftmost_longest_operator() {
        let cases = [
            ("name=a", ("name", Operator::Equal, "a")),
            ("name!=a", ("name", Operator::NotEqual, "a")),
            ("name!~=a%", ("name", Operator::NotLike, "a%")),
            ("name?=a,b", ("name", Operator::In, "a,b")),
            ("name=a>=b", ("name", Operator::Equal, "a>=b")),
            ("vni>=7", ("vni", Operator::GreaterOrEqual, "7")),
            ("description is null", ("description", Operator::IsNull, "")),
            ("name=", ("name", Operator::Equal, "")),
        ];
        for (text, (field, operator, value)) in cases {
            let seen = Condition::parse(Kind::L2VxlanNetwork, text).unwrap();
            assert_eq!(
                (seen.field.as_str(), seen.operator, seen.text.as_str()),
                (field, operator, value)
            );
        }
    }

    #[test]
    fn what_a_field_cannot_be_is_refused() {
        let odd = [
            "name",
            "colour=red",
            "number=1",
            "vni=seven",
            "vni=",
            "vni?=1,x",
            "vni>99999999999999999999",
            "createDate=yesterday",
            "createDate>yesterday",
            "createDate?=2017-11-14 22:20:57,x",
            "attachedClusterUuids>a",
        ];
        for text in odd {
            let error = Condition::parse(Kind::L2VxlanNetwork, text).expect_err(text);
            assert_eq!(error.field.as_deref(), Some("q"), "{error}");
        }
        assert!(Condition::parse(Kind::L3Network, "system=maybe").is_err());
    }

    /// Which of these conditions an L2 network meets.
    fn check(shown: Value, cases: &[(&str, bool)]) {
        let Value::Object(shown) = shown else { panic!("an object") };
        for (text, expected) in cases {
            let condition = Condition::parse(Kind::L2VxlanNetwork, text).unwrap();
            assert_eq!(condition.holds(&shown), *expected, "{text}");
        }
    }

    #[test]
    fn numbers_compare_as_numbers() {
        let cases = [
            ("vni= 100 ", true),
            ("vni=0100", true),
            ("vni!=100", false),
            ("vni?=99, 100", true),
            ("vni!?=99,100", false),
            ("vni>99", true),
            ("vni>1000", false),
            ("vni~=1%", true),
            ("virtualNetworkId is null", true),
            ("virtualNetworkId!=1", false),
        ];
        check(json!({"vni": 100}), &cases);
    }

    #[test]
    fn a_list_is_asked_for_its_items() {
        let cases = [
            ("attachedClusterUuids=b", true),
            ("attachedClusterUuids=c", false),
            ("attachedClusterUuids!=b", false),
            ("attachedClusterUuids!=c", true),
            ("attachedClusterUuids?=c,b", true),
            ("attachedClusterUuids!?=c,b", false),
            ("attachedClusterUuids!?=c,d", true),
            ("attachedClusterUuids~=%b%", true),
            ("attachedClusterUuids not null", true),
        ];
        check(json!({"attachedClusterUuids": ["a", "b"]}), &cases);
        let none = [("attachedClusterUuids=b", false), ("attachedClusterUuids!=b", true)];
        check(json!({"attachedClusterUuids": []}), &none);
    }

    #[test]
    fn times_compare_as_times_in_each_form() {
        let cases = [
            ("createDate=2026-04-01 13:00:00", true),
            ("createDate=Apr 1, 2026 1:00:00 PM", true),
            ("createDate!=2026-04-01 13:00:00", false),
            ("createDate!=Apr 1, 2026 1:00:01 PM", true),
            ("createDate?=2026-01-01 00:00:00,Apr 1, 2026 1:00:00 PM", true),
            ("createDate?=Apr 1, 2026 1:00:00 PM, 2026-01-01 00:00:00", true),
            ("createDate!?=Apr 1, 2026 1:00:00 PM", false),
            ("createDate>2026-03-09 00:00:00", true),
            ("createDate<2026-03-09 00:00:00", false),
            ("createDate~=Apr%", true),
        ];
        check(json!({"createDate": "Apr 1, 2026 1:00:00 PM"}), &cases);
    }

    #[test]
    fn like_is_sqls() {
        let cases = [
            ("web%", "web-1", true),
            ("%1", "web-1", true),
            ("w_b%", "web", true),
            ("%b%b%", "abab", true),
            ("%b%b%", "aba", false),
            ("web", "web-1", false),
            ("", "", true),
            ("%", "", true),
            ("_", "", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(like(pattern, text), expected, "{pattern} {text}");
        }
    }
}
