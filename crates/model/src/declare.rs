//! What a declaration says: the static tables that `derive(Resource)` and `derive(Message)` make.
//!
//! Every surface (REST, CLI, query, store indexes) is an ordinary function that walks these tables.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    AnyId, FieldDef, Id, Kind, Plain, Record,
    claim::Claim,
    record::{COMMON, Upcast},
    relation::OnDelete,
    resource::{Body, tag::TagForm},
    shown::{Child, Derived, Face},
};

/// A resource: a struct with `#[derive(Resource)]`, the same in store, API and CLI.
pub trait Resource:
    Clone + Debug + PartialEq + Serialize + DeserializeOwned + Sized + 'static
{
    /// Which resource this is.
    const KIND: Kind;
    /// Its declaration.
    const DEF: ResourceDef;

    /// Its id.
    fn id(&self) -> Id<Self>;
    /// What it holds alone.
    fn claims(&self) -> Vec<Claim>;
    /// Wraps it.
    fn into_body(self) -> Body;
    /// Unwraps it.
    fn of(record: &Record) -> Option<&Self>;
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
    /// Its name, such as `L3Network`: `L3NetworkInventory`.
    pub name: &'static str,
    /// Where it is queried; none for what the API does not show.
    pub faces: &'static [Face],
    /// What counts it against an account's quota, and how many a normal account may have if nobody
    /// says otherwise; `None`: it is not counted.
    pub quota: Option<Quota>,
    /// It lives on the host that its field `hostUuid` names: that host acts when it changes.
    pub home: bool,
    /// Its owner's administrator may let other accounts see and use it.
    pub shareable: bool,
    /// What it is, in a sentence.
    pub doc: &'static str,
    /// Its fields, in the order of the inventory.
    pub own: &'static [Column],
    /// Fields of a structure inside of it that the inventory shows beside them.
    pub also: &'static [Column],
    /// The lists in its inventory.
    pub children: &'static [Child],
    /// The computed fields of its inventory.
    pub derived: &'static [Derived],
    /// Other names of relations in the paths of queries, as ZStack has them, each with the path
    /// that it stands for.
    pub aliases: &'static [(&'static str, &'static str)],
    /// The forms of the system tags that it knows.
    pub tags: &'static [TagForm],
    /// The steps from older stored forms.
    pub upcasts: &'static [Upcast],
    /// The messages that make, change and delete it.
    pub messages: &'static [&'static MessageDef],
}

/// What counts a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// ZStack's name of it, such as `eip.num`.
    pub name: &'static str,
    /// How many a normal account may have.
    pub default: i64,
}

impl ResourceDef {
    /// Version of the stored form: it starts at 1.
    #[must_use]
    pub const fn version(&self) -> usize {
        self.upcasts.len() + 1
    }

    /// All its columns, the common ones too.
    pub fn columns(&self) -> impl Iterator<Item = &'static Column> + use<> {
        self.own.iter().chain(self.also).chain(COMMON)
    }

    /// A column by its name in the API.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns().find(|column| column.field.name == name)
    }

    /// The field that names what it is a part of.
    pub fn part(&self) -> Option<&'static Column> {
        self.own.iter().find(|column| column.part.is_some())
    }

    /// What ZStack calls its kind in fields such as `resourceType`.
    #[must_use]
    pub fn vo(&self) -> String {
        format!("{}VO", self.name)
    }

    /// Whether the API shows it.
    #[must_use]
    pub const fn is_shown(&self) -> bool {
        !self.faces.is_empty()
    }

    /// The path of its first face; empty for what the API does not show.
    #[must_use]
    pub fn path(&self) -> &'static str {
        self.faces.first().map_or("", |face| face.path)
    }
}

/// A field of a resource.
#[derive(Debug)]
pub struct Column {
    /// Its name, type and meaning.
    pub field: FieldDef,
    /// Kept in the store, but not shown.
    pub hidden: bool,
    /// Queries find resources by it without looking at all of them. References are indexed anyway.
    pub index: bool,
    /// For references: what happens when what it points at is deleted.
    pub on_delete: Option<OnDelete>,
    /// The resource is a part of what this field names: that one's owner owns it, and whoever sees
    /// that one sees it.
    pub part: Option<fn(&Record) -> Option<AnyId>>,
    /// Its value.
    pub read: for<'a> fn(&'a Record) -> Plain<'a>,
    /// Makes it point no longer at a resource; `false` if it cannot be empty.
    pub detach: fn(&mut Record, Uuid) -> bool,
}

impl Column {
    /// A column that is shown, and no reference.
    #[must_use]
    pub const fn computed(field: FieldDef, read: for<'a> fn(&'a Record) -> Plain<'a>) -> Self {
        let (hidden, index, on_delete, part) = (false, false, None, None);
        Self { field, hidden, index, on_delete, part, read, detach: |_, _| false }
    }

    /// The same, not shown.
    #[must_use]
    pub const fn unseen(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// The same, found by its values.
    #[must_use]
    pub const fn indexed(mut self) -> Self {
        self.index = true;
        self
    }

    /// The same, as a reference.
    #[must_use]
    pub const fn on_delete(mut self, rule: OnDelete) -> Self {
        self.on_delete = Some(rule);
        self
    }

    /// Whether the store finds resources by it.
    #[must_use]
    pub const fn is_indexed(&self) -> bool {
        match self.on_delete {
            Some(OnDelete::Keep) => false,
            Some(_) => true,
            None => self.index,
        }
    }
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
    /// Other paths under which ZStack's clients call it.
    pub also: &'static [&'static str],
    /// Where its fields are.
    pub fields_in: FieldsIn,
    /// What kind of resource it makes; then it takes `resourceUuid` too.
    pub creates: Option<Kind>,
    /// Whether the answer is a job (202, then polling) or comes at once.
    pub answer: Answer,
    /// Who may call it.
    pub access: Access,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// Its fields.
    pub fields: &'static [FieldDef],
}

impl MessageDef {
    /// The field that names what the message changes: the first in its path. What its other fields
    /// name it only uses. A message that reads, or that makes something, changes nothing there is.
    #[must_use]
    pub fn target(&self) -> Option<&'static FieldDef> {
        let (_, rest) = self.path.split_once('{').filter(|_| self.method != Method::Get)?;
        let (name, _) = rest.split_once('}')?;
        self.fields.iter().find(|field| field.name == name)
    }
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
pub enum FieldsIn {
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

/// Who may call a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a session.
    Open,
    /// Every account, for what it owns.
    Account,
    /// Accounts of the type `SystemAdmin`.
    Admin,
}
