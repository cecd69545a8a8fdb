//! The native door: REST as ZStack's SDKs speak it, sessions, the query language.
//!
//! It translates names, shapes and errors and keeps no state of its own. Routes come from the
//! tables of `model`; what a message does is in `control`.

mod answer;
mod condition;
pub mod door;
mod login;
mod query;
mod request;

pub use door::{Door, Enrolment, Error, router, serve};
