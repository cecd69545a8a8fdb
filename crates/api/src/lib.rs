//! The native door: REST as ZStack's SDKs speak it, the query language.
//!
//! It translates names, shapes and errors and keeps no state of its own. Routes come from the
//! tables of `model`; who calls and what a message does is in `control`.

mod answer;
mod condition;
mod door;
mod events;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod headers;
mod metrics;
mod old;
mod openapi;
mod params;
mod query;
mod realiser;
mod request;
mod schema;
mod serve;
mod strict;
mod watching;
mod webhook;

pub use door::{Error, router};
pub use realiser::RealiserCaller;
pub use serve::{Door, Identity, Limits, serve};
pub use webhook::Sender;
