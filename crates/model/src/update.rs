//! A field of a message that changes something: left out, taken away, or given a value.

use serde::{Deserialize, Deserializer};

use crate::{FieldType, Kind, field::FieldValue};

/// What an update says of a field that may be empty. Declare it with `#[serde(default)]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Update<T> {
    /// Not in the message: it stays as it is.
    #[default]
    Keep,
    /// `null`: it has no value from now on.
    Clear,
    /// It has this value from now on.
    Set(T),
}

impl<T> Update<T> {
    /// Changes `field` as the message says.
    pub fn apply(self, field: &mut Option<T>) {
        match self {
            Update::Keep => {}
            Update::Clear => *field = None,
            Update::Set(value) => *field = Some(value),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Update<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Option::deserialize(from).map(|value| value.map_or(Update::Clear, Update::Set))
    }
}

impl<T: FieldValue> FieldValue for Update<T> {
    const TYPE: FieldType = T::TYPE;
    const REQUIRED: bool = false;
    const NULLABLE: bool = true;
    const ONE_OF: &'static [&'static str] = T::ONE_OF;
    const REFS: Option<Kind> = T::REFS;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        text: Update<String>,
    }

    #[test]
    fn absent_null_and_a_value_are_three_things() {
        let cases =
            [("{}", Some("old")), (r#"{"text": null}"#, None), (r#"{"text": "new"}"#, Some("new"))];
        for (json, expected) in cases {
            let message: Message = serde_json::from_str(json).unwrap();
            let mut field = Some("old".to_owned());
            message.text.apply(&mut field);
            assert_eq!(field.as_deref(), expected, "{json}");
        }
    }
}
