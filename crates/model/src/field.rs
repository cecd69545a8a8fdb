//! Fields: what a declaration says of each, and what a Rust type says of a field that has it.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;
use serde_json::Value;
use uuid::Uuid;

use crate::{AnyId, Id, Kind, Mac, Plain, Resource, Timestamp};

/// The declaration of a field of a message or a resource.
#[derive(Debug)]
pub struct FieldDef {
    /// Its name in the API, such as `zoneUuid`.
    pub name: &'static str,
    /// Its type.
    pub kind: FieldType,
    /// A message without it is refused.
    pub required: bool,
    /// `null` means something else than leaving it out: it takes the value away.
    pub nullable: bool,
    /// Longest text, in characters; most items of a list.
    pub max_len: usize,
    /// Smallest and largest number.
    pub range: Option<(i64, i64)>,
    /// The values it may have, when there are only some.
    pub one_of: &'static [&'static str],
    /// What it points at.
    pub refs: Option<Kind>,
    /// It is nobody's to read: it is in no log and no audit.
    pub secret: bool,
    /// What it is, in a sentence.
    pub doc: &'static str,
}

/// Longest text where the declaration names no limit: ZStack's limit for names, in characters.
pub const MAX_LEN: usize = 255;

impl FieldDef {
    /// A field with what its type says of it, and no limits of its own.
    #[must_use]
    pub const fn of<T: FieldValue>(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            kind: T::TYPE,
            required: T::REQUIRED,
            nullable: T::NULLABLE,
            max_len: MAX_LEN,
            range: None,
            one_of: T::ONE_OF,
            refs: T::REFS,
            secret: false,
            doc,
        }
    }

    /// Text, as in a path, a query string or a command line, as the JSON type that the field has.
    /// What does not fit stays text, for the checks to refuse.
    #[must_use]
    pub fn from_text(&self, text: &str) -> Value {
        match self.kind {
            FieldType::Bool => text.parse().map_or_else(|_| text.into(), Value::Bool),
            FieldType::Integer => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
            FieldType::List(FieldType::Object) => {
                serde_json::from_str(text).unwrap_or_else(|_| text.into())
            }
            FieldType::List(_) => text.split(',').map(str::trim).collect(),
            FieldType::Object => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
            _ => text.into(),
        }
    }
}

/// The type of a field, as the API sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// A JSON string.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer,
    /// 32 lower-case hex digits.
    Uuid,
    /// An IPv4 or IPv6 address.
    Ip,
    /// An IPv4 or IPv6 network with its prefix length.
    Cidr,
    /// A MAC address.
    Mac,
    /// A point in time.
    Time,
    /// A list of these.
    List(&'static FieldType),
    /// A structure of its own.
    Object,
}

/// What a Rust type says about a field that has it.
pub trait FieldValue {
    /// The API's type.
    const TYPE: FieldType;
    /// Must be there.
    const REQUIRED: bool = true;
    /// See [`FieldDef::nullable`].
    const NULLABLE: bool = false;
    /// The only values that it may have; empty: any.
    const ONE_OF: &'static [&'static str] = &[];
    /// What it points at.
    const REFS: Option<Kind> = None;
}

/// The value of a resource's field.
pub trait Readable: FieldValue {
    /// What it is.
    fn plain(&self) -> Plain<'_>;

    /// What it points at, if it points at one resource.
    fn target(&self) -> Option<AnyId> {
        None
    }

    /// Stops pointing at `gone`; gives whether it could. A field that must point somewhere cannot.
    fn detach(&mut self, gone: Uuid) -> bool {
        let _ = gone;
        false
    }
}

macro_rules! plain {
    ($($type:ty => $api:ident by |$value:ident| $read:expr,)*) => {
        $(
            impl FieldValue for $type { const TYPE: FieldType = FieldType::$api; }
            impl Readable for $type {
                fn plain(&self) -> Plain<'_> {
                    let $value = self;
                    $read
                }
            }
        )*
    };
}

plain! {
    String => Text by |text| Plain::Text(Cow::Borrowed(text)),
    bool => Bool by |value| Plain::Bool(*value),
    u8 => Integer by |number| Plain::Integer((*number).into()),
    u16 => Integer by |number| Plain::Integer((*number).into()),
    u32 => Integer by |number| Plain::Integer((*number).into()),
    i64 => Integer by |number| Plain::Integer(*number),
    u64 => Integer by |number| Plain::Integer(i64::try_from(*number).unwrap_or(i64::MAX)),
    IpAddr => Ip by |ip| Plain::Ip(*ip),
    IpNet => Cidr by |cidr| Plain::Cidr(*cidr),
    Mac => Mac by |mac| Plain::Mac(*mac),
    Timestamp => Time by |time| Plain::Time(*time),
    Value => Object by |value| Plain::Object(value.clone()),
    Uuid => Uuid by |uuid| Plain::Uuid(*uuid),
    Kind => Text by |kind| Plain::word(kind.def().name),
}

impl<R: Resource> FieldValue for Id<R> {
    const TYPE: FieldType = FieldType::Uuid;
    const REFS: Option<Kind> = Some(R::KIND);
}

impl<R: Resource> Readable for Id<R> {
    fn plain(&self) -> Plain<'_> {
        Plain::Uuid(self.uuid())
    }

    fn target(&self) -> Option<AnyId> {
        Some(AnyId::of(*self))
    }
}

impl<T: FieldValue> FieldValue for Option<T> {
    const TYPE: FieldType = T::TYPE;
    const REQUIRED: bool = false;
    const ONE_OF: &'static [&'static str] = T::ONE_OF;
    const REFS: Option<Kind> = T::REFS;
}

impl<T: Readable> Readable for Option<T> {
    fn plain(&self) -> Plain<'_> {
        self.as_ref().map_or(Plain::Null, T::plain)
    }

    fn target(&self) -> Option<AnyId> {
        self.as_ref().and_then(T::target)
    }

    fn detach(&mut self, gone: Uuid) -> bool {
        if self.plain() == Plain::Uuid(gone) {
            *self = None;
        }
        true
    }
}

impl<T: FieldValue> FieldValue for Vec<T> {
    const TYPE: FieldType = FieldType::List(&T::TYPE);
    const REQUIRED: bool = false;
    const REFS: Option<Kind> = T::REFS;
}

impl<T: Readable> Readable for Vec<T> {
    fn plain(&self) -> Plain<'_> {
        Plain::List(self.iter().map(T::plain).collect())
    }

    fn detach(&mut self, gone: Uuid) -> bool {
        self.retain(|item| item.plain() != Plain::Uuid(gone));
        true
    }
}

/// Declares an enum whose variants are words of the API.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$($name::$variant,)*];

            /// The word that the API uses.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl $crate::field::FieldValue for $name {
            const TYPE: $crate::FieldType = $crate::FieldType::Text;
            const ONE_OF: &'static [&'static str] = &[$($word,)*];
        }

        impl $crate::field::Readable for $name {
            fn plain(&self) -> $crate::Plain<'_> {
                $crate::Plain::word(self.as_str())
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::zone::Zone;

    #[test]
    fn only_what_may_be_empty_can_be_detached() {
        let (one, two): (Id<Zone>, Id<Zone>) = (Id::new(Uuid::from_u128(1)), Id::new(Uuid::max()));
        let mut several = vec![one, two, one];
        assert!(several.detach(one.uuid()));
        assert_eq!(several, [two]);
        let mut perhaps = Some(one);
        assert!(perhaps.detach(two.uuid()));
        assert_eq!(perhaps, Some(one), "it points elsewhere");
        assert!(perhaps.detach(one.uuid()));
        assert_eq!(perhaps, None);
        assert!(!one.clone().detach(one.uuid()));
    }
}
