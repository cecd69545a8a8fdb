//! Resources, their ids, states, error codes and declarations. No I/O, no async, no other crate.
//!
//! A resource is declared once, in `resource/<name>.rs`: the struct, its messages and their rules.
//! REST, CLI, query, store key and indexes are walks over the tables that the derives make.

extern crate self as model;

pub mod declare;
pub mod error;
pub mod id;
pub mod mac;
pub mod resource;
pub mod status;
pub mod time;

pub use declare::{FieldDef, FieldType, Message, MessageDef, Resource, ResourceDef};
pub use error::{Code, Error, Result};
pub use id::Id;
pub use mac::Mac;
pub use resource::{Kind, Record};
pub use time::Timestamp;
