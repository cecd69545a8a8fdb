//! The value of a field as every surface reads it: queries compare it, inventories show it, the
//! store indexes it. Made without going through JSON.

use std::{borrow::Cow, cmp::Ordering, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;
use uuid::Uuid;

use crate::{Mac, Timestamp};

/// A field's value, borrowed where that saves a copy.
#[derive(Clone, Debug, PartialEq)]
pub enum Plain<'a> {
    /// Nothing is there.
    Null,
    /// Text, and words of the API.
    Text(Cow<'a, str>),
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A uuid: shown as 32 hex digits.
    Uuid(Uuid),
    /// An address.
    Ip(IpAddr),
    /// A network.
    Cidr(IpNet),
    /// A MAC address.
    Mac(Mac),
    /// A point in time.
    Time(Timestamp),
    /// Several of them.
    List(Vec<Plain<'a>>),
    /// A structure, which is shown and never compared.
    Object(Value),
}

impl Plain<'_> {
    /// Text that lives as long as the program.
    #[must_use]
    pub const fn word(text: &'static str) -> Plain<'static> {
        Plain::Text(Cow::Borrowed(text))
    }

    /// Whether nothing is there.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Plain::Null)
    }

    /// As the API shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Plain::Null => Value::Null,
            Plain::Bool(value) => Value::Bool(*value),
            Plain::Integer(number) => (*number).into(),
            Plain::List(items) => items.iter().map(Plain::to_json).collect(),
            Plain::Object(value) => value.clone(),
            text => Value::String(text.to_text()),
        }
    }

    /// As text, which `~=` compares with a pattern.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Plain::Null => String::new(),
            Plain::Text(text) => text.to_string(),
            Plain::Bool(value) => value.to_string(),
            Plain::Integer(number) => number.to_string(),
            // Without the formatting machinery: inventories are mostly uuids.
            Plain::Uuid(uuid) => uuid.simple().encode_lower(&mut Uuid::encode_buffer()).to_owned(),
            Plain::Ip(ip) => ip.to_string(),
            Plain::Cidr(cidr) => cidr.to_string(),
            Plain::Mac(mac) => mac.to_string(),
            Plain::Time(time) => time.to_string(),
            Plain::List(_) | Plain::Object(_) => self.to_json().to_string(),
        }
    }

    /// Its items: of a list each one, of anything else itself.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        match self {
            Plain::List(items) => items,
            one => std::slice::from_ref(one),
        }
    }

    /// How two values of one type are ordered; nothing comes before something. `None` where they
    /// cannot be compared.
    #[must_use]
    pub fn order(&self, other: &Plain<'_>) -> Option<Ordering> {
        Some(match (self, other) {
            (Plain::Null, Plain::Null) => Ordering::Equal,
            (Plain::Null, _) => Ordering::Less,
            (_, Plain::Null) => Ordering::Greater,
            (Plain::Text(a), Plain::Text(b)) => a.cmp(b),
            (Plain::Bool(a), Plain::Bool(b)) => a.cmp(b),
            (Plain::Integer(a), Plain::Integer(b)) => a.cmp(b),
            (Plain::Uuid(a), Plain::Uuid(b)) => a.cmp(b),
            (Plain::Ip(a), Plain::Ip(b)) => a.cmp(b),
            (Plain::Cidr(a), Plain::Cidr(b)) => a.cmp(b),
            (Plain::Mac(a), Plain::Mac(b)) => a.cmp(b),
            (Plain::Time(a), Plain::Time(b)) => a.cmp(b),
            _ => return None,
        })
    }

    /// The same value, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> Plain<'static> {
        match self {
            Plain::Text(text) => Plain::Text(Cow::Owned(text.into_owned())),
            Plain::List(items) => Plain::List(items.into_iter().map(Plain::into_owned).collect()),
            Plain::Null => Plain::Null,
            Plain::Bool(value) => Plain::Bool(value),
            Plain::Integer(number) => Plain::Integer(number),
            Plain::Uuid(uuid) => Plain::Uuid(uuid),
            Plain::Ip(ip) => Plain::Ip(ip),
            Plain::Cidr(cidr) => Plain::Cidr(cidr),
            Plain::Mac(mac) => Plain::Mac(mac),
            Plain::Time(time) => Plain::Time(time),
            Plain::Object(value) => Plain::Object(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_ordered_as_what_they_are() {
        let ip = |text: &str| Plain::Ip(text.parse().unwrap());
        assert_eq!(ip("10.0.0.9").order(&ip("10.0.0.10")), Some(Ordering::Less));
        assert_eq!(Plain::Integer(9).order(&Plain::Integer(10)), Some(Ordering::Less));
        assert_eq!(Plain::Null.order(&Plain::Integer(10)), Some(Ordering::Less));
        assert_eq!(Plain::word("9").order(&Plain::Integer(10)), None);
    }

    #[test]
    fn inventories_show_uuids_without_dashes_and_times_as_gson_does() {
        let uuid = Plain::Uuid(Uuid::from_u128(1));
        assert_eq!(uuid.to_json(), "00000000000000000000000000000001");
        assert_eq!(Plain::Time(Timestamp(0)).to_json(), "Jan 1, 1970 12:00:00 AM");
        assert_eq!(Plain::List(vec![Plain::Integer(1)]).to_json(), serde_json::json!([1]));
    }
}
