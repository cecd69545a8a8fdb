//! Values to compare with, read as what their field is.

use std::{net::IpAddr, num::IntErrorKind};

use model::{FieldType, Mac, Plain, Timestamp};
use uuid::Uuid;

/// Reads a value of a field of this type. Addresses, MACs and uuids are read in every usual
/// spelling. A list's values are those of its items.
///
/// # Errors
/// The rule that the text breaks.
pub fn read(kind: FieldType, text: &str) -> Result<Plain<'static>, String> {
    let trimmed = text.trim();
    match kind {
        FieldType::Text => Ok(Plain::Text(text.to_owned().into())),
        FieldType::Bool => match trimmed.to_ascii_lowercase().as_str() {
            "true" => Ok(Plain::Bool(true)),
            "false" => Ok(Plain::Bool(false)),
            _ => Err(format!("\"{text}\" is not true or false")),
        },
        FieldType::Integer => number(trimmed),
        FieldType::Uuid => Uuid::try_parse(trimmed)
            .map(Plain::Uuid)
            .map_err(|_| format!("\"{text}\" is not a uuid")),
        FieldType::Ip => (trimmed.parse::<IpAddr>())
            .map(|ip| Plain::Ip(ip.to_canonical()))
            .map_err(|_| format!("\"{text}\" is not an address")),
        FieldType::Cidr => {
            (trimmed.parse().map(Plain::Cidr)).map_err(|_| format!("\"{text}\" is not a network"))
        }
        FieldType::Mac => {
            (trimmed.parse::<Mac>().map(Plain::Mac)).map_err(|rule| format!("\"{text}\" is {rule}"))
        }
        FieldType::Time => (trimmed.parse::<Timestamp>().map(Plain::Time))
            .map_err(|_| format!("\"{text}\" is not a point in time")),
        FieldType::List(item) => read(*item, text),
        FieldType::Object => Err("a structure cannot be compared".to_owned()),
    }
}

/// How a value of a field of this type is written.
#[must_use]
pub fn form(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Text => "any text",
        FieldType::Bool => "true or false",
        FieldType::Integer => "a whole number, such as 100",
        FieldType::Uuid => "32 hex digits, with or without dashes",
        FieldType::Ip => "an address, such as 10.0.0.1 or fd00::1",
        FieldType::Cidr => "a network with its prefix length, such as 10.0.0.0/24",
        FieldType::Mac => "a MAC, such as fa:4c:00:00:00:01",
        FieldType::Time => "a time in UTC, such as 2017-11-14 22:20:57",
        FieldType::List(item) => form(*item),
        FieldType::Object => "name a field with a value",
    }
}

fn number(text: &str) -> Result<Plain<'static>, String> {
    text.parse().map(Plain::Integer).map_err(|cause: std::num::ParseIntError| match cause.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
            format!("\"{text}\" is out of the range of whole numbers here (64 bits)")
        }
        _ => format!("\"{text}\" is not a whole number"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field case F32, for whoever asks.
    #[test]
    fn one_value_has_many_spellings() {
        let cases: &[(FieldType, &[&str])] = &[
            (FieldType::Ip, &["fe80::1", "FE80:0::1", " fe80:0:0:0:0:0:0:1 "]),
            (FieldType::Ip, &["10.0.0.1", "::ffff:10.0.0.1"]),
            (FieldType::Mac, &["fa:4c:00:00:00:01", "FA:4C:00:00:00:01", "fa-4c-00-00-00-01"]),
            (
                FieldType::Uuid,
                &[
                    "0123456789abcdef0123456789abcdef",
                    "0123456789ABCDEF0123456789ABCDEF",
                    "01234567-89ab-cdef-0123-456789abcdef",
                ],
            ),
            (FieldType::Time, &["2026-04-01 13:00:00", "Apr 1, 2026 1:00:00 PM"]),
            (FieldType::Integer, &["100", "0100", " 100 "]),
            (FieldType::Bool, &["true", "TRUE"]),
        ];
        for (kind, spellings) in cases {
            let first = read(*kind, spellings[0]).unwrap();
            for text in *spellings {
                assert_eq!(read(*kind, text).unwrap(), first, "{text}");
            }
        }
    }

    #[test]
    fn what_a_field_cannot_be_is_refused() {
        for (kind, text) in [
            (FieldType::Integer, "seven"),
            (FieldType::Integer, ""),
            (FieldType::Integer, "99999999999999999999"),
            (FieldType::Time, "yesterday"),
            (FieldType::Bool, "maybe"),
            (FieldType::Ip, "10.0.0"),
            (FieldType::Mac, "fa:4c"),
            (FieldType::Uuid, "nonsense"),
            (FieldType::Cidr, "10.0.0.0"),
            (FieldType::List(&FieldType::Uuid), "a"),
        ] {
            read(kind, text).expect_err(text);
        }
    }
}
