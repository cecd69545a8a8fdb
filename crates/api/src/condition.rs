//! One condition of a query string: `<path><op><value>`.
//!
//! It is split at the leftmost operator, and there at the longest one. ZStack tries its operators
//! in a fixed order instead, which differs only for values that contain operators.

use control::query::{Condition, Operator, Path, value};
use model::{Error, FieldType, Kind};

use crate::request::Wrong;

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

/// Reads a condition on resources of `kind`.
///
/// # Errors
/// No operator; [`model::Code::InvalidArgument`] for a path that leads nowhere, or a value that the
/// field cannot have.
pub(crate) fn parse(kind: Kind, text: &str) -> Result<Condition, Wrong> {
    let Some((path, operator, value)) = split(text) else { return Err(no_operator(text)) };
    let path = Path::read(kind, "q", path)?;
    let values = match operator {
        Operator::IsNull | Operator::NotNull => Vec::new(),
        Operator::In | Operator::NotIn => items(path.value_type(), value),
        _ => vec![value.to_owned()],
    };
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    Ok(Condition::read("q", path, operator, &values)?)
}

fn split(text: &str) -> Option<(&str, Operator, &str)> {
    let (at, length, operator) = text.char_indices().find_map(|(at, _)| {
        let fits = |(op, _): &&(&str, Operator)| text[at..].starts_with(op);
        OPERATORS.iter().find(fits).map(|(op, operator)| (at, op.len(), *operator))
    })?;
    Some((text[..at].trim(), operator, &text[at + length..]))
}

fn no_operator(text: &str) -> Wrong {
    let error = Error::field("q", format!("\"{text}\" has no operator"));
    Wrong::Request(format!(
        "{}; write q=<field><op><value> with = != > < >= <= ~= !~= ?= !?=, or q=<field> is null or \
         not null; a field of a related resource is <relation>.<field>",
        error.message
    ))
}

/// The items of a list, separated by commas. A time as it is shown has a comma of its own.
pub(crate) fn items(kind: FieldType, text: &str) -> Vec<String> {
    let pieces = text.split(',').map(str::trim);
    if kind != FieldType::Time {
        return pieces.map(str::to_owned).collect();
    }
    let (mut found, mut pieces) = (Vec::new(), pieces.peekable());
    while let Some(piece) = pieces.next() {
        let joined = pieces.peek().map(|next| format!("{piece}, {next}"));
        match joined.filter(|joined| value::read(kind, joined).is_ok()) {
            Some(joined) => {
                pieces.next();
                found.push(joined);
            }
            None => found.push(piece.to_owned()),
        }
    }
    found
}

#[cfg(test)]
mod tests {
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
            ("vmNics.ip != 10.0.0.1", ("vmNics.ip", Operator::NotEqual, " 10.0.0.1")),
        ];
        for (text, expected) in cases {
            assert_eq!(split(text).unwrap(), expected);
        }
    }

    #[test]
    fn what_a_field_cannot_be_is_refused() {
        let odd = [
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
            "attachedClusterUuids=a",
            "attachedCidrs=a",
            "zone.colour=red",
            "zone.host.vmInstance.vmNics.ip=10.0.0.1",
        ];
        for text in odd {
            let Wrong::Message(error) = parse(Kind::L2Network, text).expect_err(text) else {
                panic!("{text}")
            };
            assert_eq!(error.field.as_deref(), Some("q"), "{error}");
        }
        assert!(parse(Kind::L3Network, "system=maybe").is_err());
    }

    #[test]
    fn values_are_read_as_what_they_are() {
        for text in [
            "vni= 100 ",
            "vni?=99, 100",
            "vni~=1%",
            "virtualNetworkId is null",
            "attachedClusterUuids?=0123456789abcdef0123456789abcdef",
            "createDate?=2026-01-01 00:00:00,Apr 1, 2026 1:00:00 PM",
            "zone.name=a",
        ] {
            parse(Kind::L2Network, text).unwrap();
        }
    }

    #[test]
    fn a_list_of_times_has_commas_within() {
        let text = "Apr 1, 2026 1:00:00 PM, 2026-01-01 00:00:00,Apr 2, 2026 1:00:00 PM";
        assert_eq!(
            items(FieldType::Time, text),
            ["Apr 1, 2026 1:00:00 PM", "2026-01-01 00:00:00", "Apr 2, 2026 1:00:00 PM"]
        );
        assert_eq!(items(FieldType::Text, "a, b"), ["a", "b"]);
    }
}
