//! What a declaration says: the static tables that `derive(Resource)` and `derive(Message)` make.
//!
//! Every surface (REST, CLI, query, store indexes) is an ordinary function that walks these tables.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use crate::{Id, Kind, Mac, Record, Timestamp};

/// A resource: a struct with `#[derive(Resource)]`, the same in store, API and CLI.
pub trait Resource: Clone + Serialize + DeserializeOwned + Sized + 'static {
    /// Which resource this is.
    const KIND: Kind;
    /// Its declaration.
    const DEF: ResourceDef;

    /// Its id.
    fn id(&self) -> Id<Self>;
    /// The resources it points at: field name and uuid. The store keeps these both ways.
    fn references(&self) -> Vec<(&'static str, Uuid)>;
    /// Wraps it for the store.
    fn into_record(self) -> Record;
    /// Unwraps it.
    fn from_record(record: &Record) -> Option<&Self>;
}

/// A message: a struct with `#[derive(Message)]`, one per operation that changes something.
pub trait Message: DeserializeOwned + 'static {
    /// Its declaration.
    const DEF: MessageDef;
}

/// The declaration of a resource.
#[derive(Debug)]
pub struct ResourceDef {
    /// Which resource.
    pub kind: Kind,
    /// ZStack's name of it, such as `L3Network`: `QueryL3Network`, `L3NetworkInventory`.
    pub name: &'static str,
    /// Where it is queried, such as `/l3-networks`; empty for what has no face of its own.
    pub path: &'static str,
    /// The field within whose value `name` is unique; `None`: names may repeat.
    pub name_scope: Option<&'static str>,
    /// What it is, in a sentence.
    pub doc: &'static str,
    /// Its fields, in the order of the inventory.
    pub fields: &'static [FieldDef],
}

/// The declaration of a message.
#[derive(Debug)]
pub struct MessageDef {
    /// ZStack's name without `API` and `Msg`, such as `CreateZone`.
    pub name: &'static str,
    /// How it is called over REST.
    pub method: Method,
    /// Where, with `{placeholders}` that are fields of the message.
    pub path: &'static str,
    /// Where its fields are.
    pub body: Body,
    /// What kind of resource it makes; then it takes `resourceUuid` too.
    pub creates: Option<Kind>,
    /// Whether the answer is a job (202, then polling) or comes at once.
    pub answer: Answer,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// Its fields.
    pub fields: &'static [FieldDef],
}

/// An HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// Reads.
    Get,
    /// Creates.
    Post,
    /// Acts.
    Put,
    /// Deletes.
    Delete,
}

/// Where a message's fields are in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// In the body, below this key: `params` or an action's name.
    Below(&'static str),
    /// In the path alone; the body holds tags at most.
    Path,
    /// In the query string.
    Query,
}

/// How a message is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `202` with the location of a job.
    Job,
    /// `200` with the result.
    Now,
}

/// The declaration of a field.
#[derive(Debug)]
pub struct FieldDef {
    /// Its name in the API, such as `zoneUuid`.
    pub name: &'static str,
    /// Its type.
    pub kind: FieldType,
    /// A message without it is refused.
    pub required: bool,
    /// Longest text, in characters.
    pub max_len: usize,
    /// Smallest and largest number.
    pub range: Option<(i64, i64)>,
    /// The values it may have, when there are only some.
    pub one_of: &'static [&'static str],
    /// What it points at.
    pub refs: Option<Kind>,
    /// Kept in the store, but not shown.
    pub hidden: bool,
    /// What it is, in a sentence.
    pub doc: &'static str,
}

impl FieldDef {
    /// Text, as in a path, a query string or a command line, as the JSON type that the field has.
    /// What does not fit stays text, for the checks to refuse.
    #[must_use]
    pub fn from_text(&self, text: &str) -> Value {
        match self.kind {
            FieldType::Bool => text.parse().map_or_else(|_| text.into(), Value::Bool),
            FieldType::Integer => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
            FieldType::List(_) => text.split(',').map(str::trim).collect(),
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
    /// The only values that it may have; empty: any.
    const ONE_OF: &'static [&'static str] = &[];
    /// What it points at.
    const REFS: Option<Kind> = None;
    /// The uuid that it points at.
    fn reference(&self) -> Option<Uuid> {
        None
    }
}

macro_rules! plain {
    ($($type:ty => $api:ident,)*) => {
        $(impl FieldValue for $type { const TYPE: FieldType = FieldType::$api; })*
    };
}

plain! {
    String => Text, bool => Bool, u8 => Integer, u16 => Integer, u32 => Integer, u64 => Integer,
    IpAddr => Ip, IpNet => Cidr, Mac => Mac, Timestamp => Time, Value => Object,
    Uuid => Uuid, Kind => Text,
}

impl<R: Resource> FieldValue for Id<R> {
    const TYPE: FieldType = FieldType::Uuid;
    const REFS: Option<Kind> = Some(R::KIND);
    fn reference(&self) -> Option<Uuid> {
        Some(self.uuid())
    }
}

impl<T: FieldValue> FieldValue for Option<T> {
    const TYPE: FieldType = T::TYPE;
    const REQUIRED: bool = false;
    const ONE_OF: &'static [&'static str] = T::ONE_OF;
    const REFS: Option<Kind> = T::REFS;
    fn reference(&self) -> Option<Uuid> {
        self.as_ref().and_then(T::reference)
    }
}

impl<T: FieldValue> FieldValue for Vec<T> {
    const TYPE: FieldType = FieldType::List(&T::TYPE);
    const REQUIRED: bool = false;
    const REFS: Option<Kind> = T::REFS;
}

/// Declares an enum whose variants are words of the API.
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// The word that the API uses.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl $crate::declare::FieldValue for $name {
            const TYPE: $crate::FieldType = $crate::FieldType::Text;
            const ONE_OF: &'static [&'static str] = &[$($word,)*];
        }
    };
}
