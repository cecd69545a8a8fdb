//! What declares objects and their parts, each once. A declaration gives the struct, its protobuf
//! encoding, the version that a value needs, and for objects the table, key and digest form.
//!
//! ```text
//! 5 since 2 => burst: Option<u32>,
//! ```
//! is field number 5, which agents know since version 2 of the objects. Versions are one sequence
//! for all tables. A field that comes later must be one that may be left out (a number, a text,
//! `Option`, `Vec`): an older end does not have it. Numbers ascend and are never used again.

/// The highest of some versions.
pub(crate) const fn newest(versions: &[u32]) -> u32 {
    let (mut at, mut newest) = (0, 1);
    while at < versions.len() {
        if versions[at] > newest {
            newest = versions[at];
        }
        at += 1;
    }
    newest
}

/// Whether field numbers ascend: they are written in this order.
pub(crate) const fn ascend(tags: &[u32]) -> bool {
    let mut at = 1;
    while at < tags.len() {
        if tags[at - 1] >= tags[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The version that a declaration says, 1 if it says none.
macro_rules! since {
    () => {
        1
    };
    ($since:literal) => {
        $since
    };
}

/// A message: a struct whose fields have numbers. `check` looks at a value that was read.
macro_rules! message {
    (
        $(#[$doc:meta])*
        $name:ident $(checked by $check:path)? {$(
            $(#[$field_doc:meta])*
            $tag:literal $(since $since:literal)? => $field:ident: $type:ty,
        )+}
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {$(
            $(#[$field_doc])*
            pub $field: $type,
        )+}

        const _: () = assert!($crate::declare::ascend(&[$($tag),+]));

        impl $name {
            pub(crate) const NEWEST: u32 = $crate::declare::newest(&[$(
                $crate::declare::since!($($since)?),
                <$type as $crate::field::Field>::VERSION,
            )+]);

            pub(crate) fn encode(&self) -> Vec<u8> {
                let mut out = Vec::new();
                $($crate::field::Field::put(&self.$field, $tag, &mut out);)+
                out
            }

            pub(crate) fn decode(
                mut bytes: &[u8],
            ) -> Result<Self, $crate::codec::ParseError> {
                use $crate::{codec::ParseError, field::{Field, next_key, skip}};
                $(let mut $field = None;)+
                while let Some((tag, wire)) = next_key(&mut bytes)? {
                    match tag {
                        $($tag => {
                            let name = concat!(stringify!($name), ".", stringify!($field));
                            <$type as Field>::merge(&mut $field, name, wire, &mut bytes)?;
                        })+
                        _ => skip(tag, wire, &mut bytes)?,
                    }
                }
                let value = Self {$(
                    $field: $field.or_else(<$type as Field>::absent).ok_or(ParseError::Missing(
                        concat!(stringify!($name), ".", stringify!($field)),
                    ))?,
                )+};
                $($check(&value)?;)?
                Ok(value)
            }

            pub(crate) fn version_needed(&self) -> u32 {
                $crate::declare::newest(&[$($crate::field::Field::needs(
                    &self.$field,
                    $crate::declare::since!($($since)?),
                ),)+])
            }
        }

        impl $crate::field::Single for $name {
            const VERSION: u32 = Self::NEWEST;

            fn write(&self, tag: u32, out: &mut Vec<u8>) {
                prost::encoding::bytes::encode(tag, &self.encode(), out);
            }

            fn read(
                _: &'static str,
                wire: prost::encoding::WireType,
                bytes: &mut &[u8],
            ) -> Result<Self, $crate::codec::ParseError> {
                Self::decode(&$crate::field::take_bytes(wire, bytes)?)
            }

            fn implied() -> Option<Self> {
                None
            }

            fn version_needed(&self) -> u32 {
                self.version_needed()
            }
        }
    };
}

/// One of several messages; protobuf's `oneof`, alone in a message.
macro_rules! one_of {
    (
        $(#[$doc:meta])*
        $name:ident {$(
            $(#[$variant_doc:meta])*
            $tag:literal $(since $since:literal)? => $variant:ident,
        )+}
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {$(
            $(#[$variant_doc])*
            $variant($variant),
        )+}

        impl $crate::field::Single for $name {
            const VERSION: u32 = $crate::declare::newest(&[$(
                $crate::declare::since!($($since)?), <$variant>::NEWEST,
            )+]);

            fn write(&self, tag: u32, out: &mut Vec<u8>) {
                let mut inner = Vec::new();
                match self {
                    $(Self::$variant(value) => {
                        $crate::field::Single::write(value, $tag, &mut inner);
                    })+
                }
                prost::encoding::bytes::encode(tag, &inner, out);
            }

            fn read(
                name: &'static str,
                wire: prost::encoding::WireType,
                bytes: &mut &[u8],
            ) -> Result<Self, $crate::codec::ParseError> {
                use $crate::field::{Single, next_key, skip, take_bytes};
                let (inner, mut found) = (take_bytes(wire, bytes)?, None);
                let mut rest = inner.as_slice();
                while let Some((tag, wire)) = next_key(&mut rest)? {
                    match tag {
                        $($tag => {
                            let value = <$variant as Single>::read(name, wire, &mut rest)?;
                            found = Some(Self::$variant(value));
                        })+
                        _ => skip(tag, wire, &mut rest)?,
                    }
                }
                found.ok_or($crate::codec::ParseError::Missing(name))
            }

            fn implied() -> Option<Self> {
                None
            }

            fn version_needed(&self) -> u32 {
                match self {
                    $(Self::$variant(value) => $crate::declare::newest(&[
                        $crate::declare::since!($($since)?), value.version_needed(),
                    ]),)+
                }
            }
        }
    };
}

/// One of several words, as a number that is not 0.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident {$(
            $(#[$variant_doc:meta])*
            $number:literal $(since $since:literal)? => $variant:ident,
        )+}
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {$(
            $(#[$variant_doc])*
            $variant,
        )+}

        impl $crate::field::Single for $name {
            const VERSION: u32 =
                $crate::declare::newest(&[$($crate::declare::since!($($since)?)),+]);

            fn write(&self, tag: u32, out: &mut Vec<u8>) {
                let number: u32 = match self {
                    $(Self::$variant => $number,)+
                };
                prost::encoding::uint32::encode(tag, &number, out);
            }

            fn read(
                name: &'static str,
                wire: prost::encoding::WireType,
                bytes: &mut &[u8],
            ) -> Result<Self, $crate::codec::ParseError> {
                match <u32 as $crate::field::Single>::read(name, wire, bytes)? {
                    $($number => Ok(Self::$variant),)+
                    _ => Err($crate::codec::ParseError::Missing(name)),
                }
            }

            fn implied() -> Option<Self> {
                None
            }

            fn version_needed(&self) -> u32 {
                match self {
                    $(Self::$variant => $crate::declare::since!($($since)?),)+
                }
            }
        }
    };
}

/// The objects, in the order in which a host applies additions. Each has a table number that is
/// never used again, a name for people, and its uuid as first field.
macro_rules! objects {
    ($(
        $(#[$doc:meta])*
        $number:literal $word:literal => $name:ident $(checked by $check:path)? {
            $(#[$uuid_doc:meta])*
            1 => uuid: Uuid,
            $($fields:tt)*
        }
    )+) => {
        $($crate::declare::message! {
            $(#[$doc])*
            $name $(checked by $check)? {
                $(#[$uuid_doc])*
                1 => uuid: Uuid,
                $($fields)*
            }
        })+

        /// The kind of an object, in the order in which a host applies additions; removals go in
        /// reverse.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table {$(
            $(#[$doc])*
            $name,
        )+}

        impl Table {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its number on the wire.
            #[must_use]
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$name => $number,)+
                }
            }

            /// Its name, for people.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }

            /// The newest version of its objects that this release knows.
            #[must_use]
            pub const fn version(self) -> u32 {
                match self {
                    $(Self::$name => $name::NEWEST,)+
                }
            }
        }

        /// One object.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Object {$(
            $(#[$doc])*
            $name($name),
        )+}

        impl Object {
            /// What identifies this object.
            #[must_use]
            pub const fn key(&self) -> ObjectKey {
                match self {
                    $(Self::$name(object) => {
                        ObjectKey { table: Table::$name, uuid: object.uuid }
                    })+
                }
            }

            /// The version of its table that an agent must know to hold it: fields of later
            /// versions that are not set need nothing.
            #[must_use]
            pub fn needs(&self) -> u32 {
                match self {
                    $(Self::$name(object) => object.version_needed(),)+
                }
            }

            /// Its one protobuf encoding, without its table.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $(Self::$name(object) => object.encode(),)+
                }
            }

            /// The object of a table with this encoding.
            ///
            /// # Errors
            /// [`ParseError`](crate::codec::ParseError).
            pub fn decode(table: Table, bytes: &[u8]) -> Result<Self, crate::codec::ParseError> {
                match table {
                    $(Table::$name => $name::decode(bytes).map(Self::$name),)+
                }
            }
        }
    };
}

pub(crate) use {message, objects, one_of, since, words};

#[cfg(test)]
mod tests {
    #![allow(unreachable_pub, reason = "what is declared is public, as in the modules of objects")]

    use crate::codec::ParseError;

    message! {
        /// As an older release has it.
        Old {
            /// Number.
            1 => number: u32,
            /// Text.
            2 => text: String,
        }
    }

    message! {
        /// As a newer release has it.
        New {
            /// Number.
            1 => number: u32,
            /// Text.
            2 => text: String,
            /// Later.
            3 since 2 => burst: Option<u32>,
            /// Later still.
            4 since 3 => marks: Vec<u32>,
            /// Of a later kind.
            5 since 2 => shape: Option<Shape>,
        }
    }

    words! {
        /// Words.
        Shape {
            /// One.
            1 => Round,
            /// Two.
            2 since 4 => Square,
        }
    }

    fn new(burst: Option<u32>, marks: &[u32], shape: Option<Shape>) -> New {
        New { number: 7, text: "seven".to_owned(), burst, marks: marks.to_vec(), shape }
    }

    #[test]
    fn a_field_that_is_not_set_is_as_if_it_did_not_exist() {
        let old = Old { number: 7, text: "seven".to_owned() };
        let unset = new(None, &[], None);
        assert_eq!(unset.encode(), old.encode());
        assert_eq!(New::decode(&old.encode()), Ok(unset), "a newer end reads an older one");
        let set = new(Some(0), &[0, 5], Some(Shape::Square));
        assert_eq!(Old::decode(&set.encode()), Ok(old), "an older end passes over the rest");
        assert_eq!(New::decode(&set.encode()), Ok(set), "that a value is there is kept");
    }

    #[test]
    fn what_a_value_needs_is_the_newest_of_what_is_set() {
        let cases = [
            (new(None, &[], None), 1),
            (new(Some(0), &[], None), 2),
            (new(Some(1), &[1], None), 3),
            (new(None, &[], Some(Shape::Round)), 2),
            (new(None, &[], Some(Shape::Square)), 4),
        ];
        for (value, expected) in cases {
            assert_eq!(value.version_needed(), expected, "{value:?}");
        }
        assert_eq!((Old::NEWEST, New::NEWEST), (1, 4));
    }

    #[test]
    fn a_word_that_is_not_known_is_refused() {
        let mut bytes = new(None, &[], None).encode();
        prost::encoding::uint32::encode(5, &3, &mut bytes);
        assert_eq!(New::decode(&bytes), Err(ParseError::Missing("New.shape")));
    }
}
