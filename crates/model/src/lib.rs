//! Resources, their ids, states, error codes and declarations. No I/O, no async, no other crate.
//!
//! A resource is declared once, in `resource/<name>.rs`: the struct, its messages and their rules.
//! REST, CLI, query, store key and indexes are walks over the tables that the derives make.

extern crate self as model;

pub mod claim;
pub mod declare;
pub mod dhcp;
pub mod error;
pub mod field;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod id;
pub mod mac;
pub mod member_query;
pub mod mtu;
mod plain;
pub mod record;
pub mod relation;
pub mod resource;
pub mod setting;
pub mod shown;
pub mod spans;
pub mod status;
pub mod time;
mod update;

pub use claim::Claim;
pub use declare::{Message, MessageDef, Resource, ResourceDef};
pub use error::{Code, Error, Result};
pub use field::{FieldDef, FieldType};
pub use id::Id;
pub use mac::Mac;
pub use plain::Plain;
pub use record::{Meta, Record};
pub use relation::{AnyId, Relation};
pub use resource::Kind;
pub use time::Timestamp;
pub use update::Update;

/// The target of spans (crate `tracing`) that only a collector of traces wants. It is off unless
/// there is one.
pub const TRACES: &str = "netloom_traces";
