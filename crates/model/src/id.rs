//! Typed ids: the uuid of a zone cannot be passed where a host's is wanted.

use std::{cmp::Ordering, fmt, hash, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// The id of a resource of type `R`, written as ZStack does: 32 lower-case hex digits, no dashes.
pub struct Id<R> {
    uuid: Uuid,
    of: PhantomData<fn() -> R>,
}

impl<R> Id<R> {
    /// Names the resource with this uuid.
    #[must_use]
    pub const fn new(uuid: Uuid) -> Self {
        Self { uuid, of: PhantomData }
    }

    /// The bare uuid.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.uuid
    }
}

/// Reads a uuid as people and programs write it: 32 hex digits, or with the four dashes of RFC 9562
/// §4, in either case. It is always shown in ZStack's form.
#[must_use]
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    // The other lengths that the parser knows are in braces, or a URN.
    matches!(text.len(), 32 | 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

impl<R> FromStr for Id<R> {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_uuid(text).map(Self::new).ok_or("is not a uuid, which is 32 hex digits")
    }
}

impl<R> fmt::Display for Id<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.uuid.simple(), f)
    }
}

impl<R> fmt::Debug for Id<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<R> Serialize for Id<R> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de, R> Deserialize<'de> for Id<R> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

// Written out because a derive would ask for the same of `R`.
impl<R> Clone for Id<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Id<R> {}
impl<R> PartialEq for Id<R> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}
impl<R> Eq for Id<R> {}
impl<R> PartialOrd for Id<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for Id<R> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.uuid.cmp(&other.uuid)
    }
}
impl<R> hash::Hash for Id<R> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_common_form_is_read_and_zstacks_is_shown() {
        let shown = "0123456789abcdef0123456789abcdef";
        let forms = [
            shown,
            "0123456789ABCDEF0123456789ABCDEF",
            "01234567-89ab-cdef-0123-456789abcdef",
            "01234567-89AB-CDEF-0123-456789abcdef",
        ];
        for form in forms {
            assert_eq!(form.parse::<Id<()>>().map(|id| id.to_string()), Ok(shown.to_owned()));
        }
        let odd = [
            "",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdeg",
            "0123456789abcdef0123456789abcdef0123",
            "0123456-789ab-cdef-0123-456789abcdef",
            "{0123456789abcdef0123456789abcdef}",
            " 0123456789abcdef0123456789abcde",
        ];
        for form in odd {
            assert!(parse_uuid(form).is_none(), "{form}");
        }
    }
}
