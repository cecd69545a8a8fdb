//! Snapshots, optimistic transactions and durable engines.
//!
//! The whole state lives in memory as structurally shared tables, so a [`Snapshot`] is free and a
//! reader never waits for a writer. Changes go through [`Store::transact`]: one writer thread runs
//! the closures one after the other, makes a batch of them durable with one engine commit, then
//! publishes and answers. The store knows rows, claims, counters and fences, never what a resource
//! means.
//!
//! **Rows, and what follows from them.** Each [`Row`] says what it is found by and what it claims.
//! The store keeps both as indexes of the state: they change with the row, are not stored, and are
//! made anew when the state is loaded. A claim has one holder at most: [`Tx::put`] refuses a row
//! that claims what another row holds.
//!
//! **What makes transactions of several servers safe.** A transaction conflicts with another one
//! when one of them wrote what the other read or wrote, and only these are tracked: rows by
//! [`Read::get`], [`Tx::put`] and [`Tx::delete`]; claims by [`Read::holder`], by
//! [`Read::first_free`] the one that it gives, and by [`Tx::put`] those of the row; a changed row
//! counts as a write of what it claimed before and after; [`Tx::counter`]; [`Tx::fence`]. *Not*
//! tracked, because a set has no single key: [`Read::list`], [`Read::list_after`], [`Read::find`],
//! [`Read::referrers`], [`Read::pointing`], [`Read::count`], [`Read::total`]. A decision that rests
//! on one of these (a quota, an overlap, "the last of", "in use") must fence the parent, in the
//! transaction that decides and in every one that adds or removes members. Uniqueness is a claim.
//! Within one server the discipline is not needed, since transactions run one after the other;
//! SQLite alone would hide its absence, the contract suite does not.

pub mod engine;

mod batch;
mod claims;
mod history;
mod index;
mod log;
mod measures;
mod read;
mod row;
mod state;
mod store;
mod tx;
mod watch;
mod writer;

pub use claims::ClaimKey;
pub use engine::{
    CommitError, Engine, Loaded, LogError, StoredRow, memory::Memory, sqlite::Sqlite,
};
pub use history::{Follower, Gone, HISTORY_CHANGES, HISTORY_REVISIONS, Past};
pub use index::Key;
pub use log::{LogRecord, RowChange};
pub use measures::{Backlog, Measures};
pub use read::{Held, Read, Snapshot};
pub use row::{Change, Row};
pub use store::{Committed, QUEUE_CAPACITY, Store};
pub use tx::{Taken, Tx};
pub use watch::{Commit, Event, WATCH_CAPACITY, Watch};
