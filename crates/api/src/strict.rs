//! JSON in which no key is there twice.
//!
//! RFC 8259 §4 leaves open what a repeated key means, and parsers differ: a proxy that checks the
//! first one and a server that takes the last one would read two different calls.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Longest part of a key in an error, in characters.
const KEY_SHOWN_MAX: usize = 64;

/// Reads an object.
///
/// # Errors
/// Anything else, and a key that is there twice, at any depth.
pub(crate) fn object(json: &[u8]) -> serde_json::Result<Map<String, Value>> {
    match serde_json::from_slice(json)? {
        Strict(Value::Object(object)) => Ok(object),
        Strict(_) => Err(Error::custom("it is something else")),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Strict)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let shown: String = key.chars().take(KEY_SHOWN_MAX).collect();
                return Err(Error::custom(format!("the key {shown:?} is there twice")));
            }
            let Strict(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_serde_json_reads() {
        let texts = [
            "{}",
            r#"{"a": [1, -2, 3.5, true, null, "\u00fc", {"b": {}}], "c": {"a": 18446744073709551615}}"#,
            r#"{"a": {"b": 1}, "b": {"b": 2}, "c": [{"b": 1}, {"b": 1}]}"#,
        ];
        for text in texts {
            let expected: Map<String, Value> = serde_json::from_str(text).unwrap();
            assert_eq!(object(text.as_bytes()).unwrap(), expected);
        }
        for text in ["", "[]", "{", "{} {}", "1", r#"{"a": }"#, &"[".repeat(100_000)] {
            assert!(object(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_named_at_any_depth_and_in_any_spelling() {
        let twice = [
            r#"{"name": 1, "name": 1}"#,
            r#"{"params": {"name": "a", "b": 1, "name": "b"}}"#,
            r#"{"a": [{"b": [[{"name": {}, "name": []}]]}]}"#,
            r#"{"name": 1, "\u006eame": 2}"#,
        ];
        for text in twice {
            let error = object(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("\"name\" is there twice"), "{text}: {error}");
        }
        let long = "k".repeat(1 << 16);
        let error = object(format!(r#"{{"{long}": 1, "{long}": 2}}"#).as_bytes()).unwrap_err();
        assert!(error.to_string().len() < 200);
    }
}
