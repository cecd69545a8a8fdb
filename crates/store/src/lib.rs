//! Snapshots, optimistic transactions and durable engines.
//!
//! The whole state lives in memory as structurally shared tables, so a [`Snapshot`] is free and a
//! reader never waits for a writer. Changes go through [`Store::transact`]: one writer thread runs
//! the closures one after the other, makes a batch of them durable with one engine commit, then
//! publishes and answers. The store knows rows, claims, counters and fences, never what a resource
//! means.
//!
//! **What makes transactions of several servers safe.** A transaction conflicts with another one
//! when one of them wrote what the other read or wrote, and only these are tracked: rows by
//! [`Read::get`], [`Tx::put`] and [`Tx::delete`]; claim keys by [`Read::claim_owner`],
//! [`Tx::claim`] and [`Tx::release_claim`]; [`Tx::counter`]; [`Tx::fence`]. *Not* tracked, because
//! a set has no single key: [`Read::list`], [`Read::referrers`], [`Read::claims_with_prefix`]. A
//! decision that rests on one of these (a quota, an overlap, "the last of", "in use") must fence
//! the parent, in the transaction that decides and in every one that adds or removes members.
//! Uniqueness is a claim. Within one server the discipline is not needed, since transactions run
//! one after the other; SQLite alone would hide its absence, the contract suite does not.

pub mod engine;

mod batch;
mod log;
mod read;
mod row;
mod state;
mod store;
mod tx;
mod watch;
mod writer;

pub use engine::{CommitError, Engine, Loaded, LogError, memory::Memory, sqlite::Sqlite};
pub use log::{LogRecord, RowChange};
pub use read::{Read, Snapshot};
pub use row::{Change, Row};
pub use store::{Committed, QUEUE_CAPACITY, Store};
pub use tx::{Taken, Tx};
pub use watch::{Commit, Event, WATCH_CAPACITY, Watch};
