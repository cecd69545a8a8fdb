//! eBPF loader, map writers and their read-back.
//!
//! Everything lives in pins below one bpf file system per host: a data plane forwards without
//! this process, and a process that starts finds what the one before left. Nothing here knows
//! the control plane; calls block and are short.

mod areas;
mod bpffs;
mod btf;
mod counters;
mod desk;
mod error;
mod events;
mod functions;
mod handed;
#[cfg(feature = "test-run")]
mod harness;
mod keep;
mod links;
mod lookup;
mod members;
mod object;
mod pinned;
mod plane;
mod preflight;
mod programs;
mod reconcile;
mod tables;
mod trace;
mod upgrade;
mod view;

pub use bpffs::Hold;
pub use counters::{Connection, Counters};
pub use desk::{Answers, Desk, FlowEvents, HandedFrame, PortMap, Questions};
pub use error::{Error, PreflightError};
pub use events::{DropTurns, DropWatch, DroppedFrame, Turn, TurnFrame};
pub use handed::{HandedConnection, PortArea, TakenOver, Use};
#[cfg(feature = "test-run")]
pub use harness::{Outcome, TestHarness, open_earlier};
pub use lookup::Lookup;
pub use object::map_version;
pub use packet;
pub use plane::{DataPlane, Options, unload};
pub use preflight::preflight;
pub use tables::{Change, Changes, Edits, Tables, Unsure};
pub use trace::{FINDINGS_MAX, Finding, Traced, trace};
pub use view::View;
