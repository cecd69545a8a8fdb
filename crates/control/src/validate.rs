//! Checks a call's fields against the message's declaration, before any transaction.
//!
//! A field that does not exist is refused, because a typing error must not silently build another
//! network than the one that was asked for. ZStack ignores it, and its clients send some that are not
//! here: for them it is passed over, not silently, but named in the answer.

use std::net::IpAddr;

use ipnet::IpNet;
use model::{Code, Error, FieldDef, FieldType, Mac, MessageDef, Result};
use serde_json::{Map, Value};

use crate::invisible;

/// What is done about fields that a message does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// The message is refused.
    #[default]
    Refuse,
    /// They are passed over, and named in the answer.
    Name,
}

/// Takes the fields out that the message does not have; gives a sentence for each.
pub fn take_unknown(def: &MessageDef, params: &mut Map<String, Value>) -> Vec<String> {
    let known = |name: &String| def.fields.iter().any(|field| field.name == name);
    let unknown: Vec<String> = params.keys().filter(|name| !known(name)).cloned().collect();
    for name in &unknown {
        params.remove(name);
    }
    let rule = format!("{} has no such field; it was ignored", def.name);
    unknown.iter().map(|name| Error::field(name, &rule).message).collect()
}

/// Checks every field of `params`: known, present if required, of its type, within its limits. Gives
/// them without those that are `null` and mean nothing by it.
///
/// # Errors
/// [`Code::InvalidArgument`] naming the field, the rule and what to do.
pub fn check(def: &MessageDef, mut params: Map<String, Value>) -> Result<Map<String, Value>> {
    for (name, value) in &params {
        let Some(field) = def.fields.iter().find(|field| field.name == name) else {
            let error = Error::field(name, format!("{} has no such field", def.name));
            return Err(error.hint(usage(def)));
        };
        if !value.is_null() {
            check_field(field, value).map_err(|error| error.hint(describe(field)))?;
        }
    }
    let missing = |field: &&FieldDef| {
        field.required && params.get(field.name).is_none_or(serde_json::Value::is_null)
    };
    if let Some(field) = def.fields.iter().find(missing) {
        return Err(Error::field(field.name, "is required").hint(describe(field)));
    }
    let nullable = |name: &str| def.fields.iter().any(|f| f.name == name && f.nullable);
    params.retain(|name, value| !value.is_null() || nullable(name));
    Ok(params)
}

/// The fields of a message, for a hint.
#[must_use]
pub fn usage(def: &MessageDef) -> String {
    let names = def.fields.iter().map(|field| match field.required {
        true => format!("{} (required)", field.name),
        false => field.name.to_owned(),
    });
    let beside: &[&str] = match def.creates {
        Some(_) => &["resourceUuid", "tagUuids"],
        None => &[],
    };
    let names: Vec<_> = names.chain(beside.iter().map(|name| (*name).to_owned())).collect();
    format!("{} takes: {}", def.name, names.join(", "))
}

/// A field's type and limits, for a hint.
#[must_use]
pub fn describe(field: &FieldDef) -> String {
    let mut text = format!("{} is {}", field.name, type_name(field.kind));
    if !field.one_of.is_empty() {
        text += &format!(", one of {}", field.one_of.join(", "));
    }
    if let Some((low, high)) = field.range {
        text += &format!(" from {low} to {high}");
    }
    format!("{text}: {}", field.doc)
}

fn type_name(kind: FieldType) -> String {
    match kind {
        FieldType::Text => "text".into(),
        FieldType::Bool => "true or false".into(),
        FieldType::Integer => "a whole number".into(),
        FieldType::Uuid => "a uuid (32 hex digits, with or without dashes)".into(),
        FieldType::Ip => "an IPv4 or IPv6 address".into(),
        FieldType::Cidr => "a network such as 192.168.100.0/24".into(),
        FieldType::Mac => "a MAC address such as fa:16:3e:00:00:01".into(),
        FieldType::Time => "a point in time".into(),
        FieldType::Object => "a structure".into(),
        FieldType::List(item) => format!("a list; each item is {}", type_name(*item)),
    }
}

fn check_field(field: &FieldDef, value: &Value) -> Result<()> {
    if let (FieldType::List(item), Value::Array(items)) = (field.kind, value) {
        if items.len() > field.max_len {
            return Err(Error::field(field.name, format!("has over {} items", field.max_len)));
        }
        if field.required && items.is_empty() {
            return Err(Error::field(field.name, "is required and may not be empty"));
        }
        return items.iter().try_for_each(|value| check_type(field, *item, value));
    }
    check_type(field, field.kind, value)
}

fn check_type(field: &FieldDef, kind: FieldType, value: &Value) -> Result<()> {
    let text = value.as_str().unwrap_or_default();
    let fits = match kind {
        FieldType::Text => return check_text(field, value),
        FieldType::Integer => return check_integer(field, value),
        FieldType::Bool => value.is_boolean(),
        FieldType::Uuid => model::id::parse_uuid(text).is_some(),
        FieldType::Ip => return check_ip(field, value),
        FieldType::Cidr => text.parse::<IpNet>().is_ok(),
        FieldType::Mac => text.parse::<Mac>().is_ok(),
        FieldType::Time | FieldType::Object => true,
        FieldType::List(_) => value.is_array(),
    };
    match fits {
        true => Ok(()),
        false => Err(wrong_type(field, kind, value)),
    }
}

fn check_text(field: &FieldDef, value: &Value) -> Result<()> {
    let Value::String(text) = value else { return Err(wrong_type(field, FieldType::Text, value)) };
    let is_blank = text.trim().is_empty();
    if field.required && is_blank {
        return Err(Error::field(field.name, "is required and may not be blank"));
    }
    if field.name == "name" && is_blank {
        return Err(Error::field(field.name, "may not be blank"));
    }
    if text.chars().count() > field.max_len {
        return Err(Error::field(field.name, format!("is over {} characters long", field.max_len)));
    }
    // A description is a text of several lines, in whatever script; ZQL looks at its texts itself.
    if let Some(hidden) = invisible::first(text)
        && !["description", "zql"].contains(&field.name)
    {
        let what =
            format!("has a character in it that cannot be seen: U+{:04X}", u32::from(hidden));
        return Err(Error::field(field.name, what));
    }
    if !field.one_of.is_empty() && !field.one_of.contains(&text.as_str()) {
        let words = field.one_of.join(", ");
        return Err(Error::field(field.name, format!("\"{text}\" is not one of {words}")));
    }
    Ok(())
}

/// IPv4 that is written as IPv6 (RFC 4291 §2.5.5.2) is refused: it would be another address than
/// the same one written as IPv4, and pass as free where that one is taken.
fn check_ip(field: &FieldDef, value: &Value) -> Result<()> {
    let ip = value.as_str().unwrap_or_default().parse();
    let ip: IpAddr = ip.map_err(|_| wrong_type(field, FieldType::Ip, value))?;
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(Ok(()), |v4| {
            Err(Error::field(
                field.name,
                format!("{v6} is an IPv4 address in IPv6 form: write {v4}"),
            ))
        }),
        IpAddr::V4(_) => Ok(()),
    }
}

fn check_integer(field: &FieldDef, value: &Value) -> Result<()> {
    let Some(number) = value.as_i64() else {
        return Err(wrong_type(field, FieldType::Integer, value));
    };
    match field.range {
        Some((low, high)) if number < low || number > high => {
            Err(Error::field(field.name, format!("{number} is outside {low} to {high}")))
        }
        _ => Ok(()),
    }
}

fn wrong_type(field: &FieldDef, kind: FieldType, value: &Value) -> Error {
    let shown: String = value.to_string().chars().take(80).collect();
    let error = Error::field(field.name, format!("{shown} is not {}", type_name(kind)));
    debug_assert_eq!(error.code, Code::InvalidArgument);
    error
}

#[cfg(test)]
mod tests {
    use model::{Message, resource::l2_vxlan::CreateL2VxlanNetwork};
    use serde_json::json;

    use super::*;

    fn check(params: Value) -> Option<(String, String)> {
        let Value::Object(params) = params else { panic!("an object") };
        let error = super::check(&CreateL2VxlanNetwork::DEF, params).err()?;
        Some((error.field.unwrap_or_default(), error.message))
    }

    #[test]
    fn each_rule_names_the_field_and_what_is_wrong() {
        let pool = "00000000000000000000000000000001";
        let cases = [
            (json!({"name": "n", "poolUuid": pool, "vni": 1}), None),
            (json!({"name": "n", "poolUuid": pool, "vni": null}), None),
            (json!({"name": "n"}), Some(("poolUuid", "is required"))),
            (json!({"name": " ", "poolUuid": pool}), Some(("name", "blank"))),
            (json!({"name": "\u{2003}\u{3000}", "poolUuid": pool}), Some(("name", "blank"))),
            (json!({"name": "\u{3164}", "poolUuid": pool}), Some(("name", "U+3164"))),
            (json!({"name": "a\u{200b}b", "poolUuid": pool}), Some(("name", "U+200B"))),
            (json!({"name": "a\u{202e}b", "poolUuid": pool}), Some(("name", "U+202E"))),
            (json!({"name": "a\tb", "poolUuid": pool}), Some(("name", "U+0009"))),
            (json!({"name": "n", "poolUuid": pool, "description": "a\n\u{200f}b"}), None),
            (json!({"name": 5, "poolUuid": pool}), Some(("name", "5 is not text"))),
            (json!({"name": "n", "poolUuid": "x"}), Some(("poolUuid", "is not a uuid"))),
            (json!({"name": "n", "poolUuid": pool, "vni": 0}), Some(("vni", "outside 1 to"))),
            (json!({"name": "n", "poolUuid": pool, "vni": "1"}), Some(("vni", "whole number"))),
            (json!({"name": "n", "poolUuid": pool, "vnii": 1}), Some(("vnii", "no such field"))),
            (json!({"name": "n".repeat(256), "poolUuid": pool}), Some(("name", "over 255"))),
        ];
        for (params, expected) in cases {
            let seen = check(params.clone());
            let fits = match (&seen, expected) {
                (None, None) => true,
                (Some((field, message)), Some((name, part))) => {
                    field == name && message.contains(part)
                }
                _ => false,
            };
            assert!(fits, "{params}: {seen:?}, expected {expected:?}");
        }
    }
}
