//! The protocol between the server and its agents: what a host must hold, and what it reports.
//!
//! [`object`] has the typed objects that `compile` produces and the agent applies ([`shared`] among
//! hosts), [`message`] what carries them, [`counters`] what hosts count, [`holding`], [`digest`] and [`fact`] the digests by which both ends prove that
//! they agree, [`told`] what guests are told, [`policy`] who may talk to whom, [`question`] what is asked of one host and answered, [`versions`] what an end of another release can be told. The protobuf encoding
//! (`proto/link.proto`) is parsed at the door by [`codec`]; [`gen`](mod@r#gen) is what the door
//! itself is made of, and nothing behind it is used elsewhere.
//! [`durable`] is how both ends put a file on disk.

pub mod codec;
pub mod counters;
mod declare;
pub mod digest;
pub mod durable;
pub mod fact;
mod field;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
#[path = "gen/mod.rs"]
pub mod r#gen;
pub mod holding;
pub mod leases;
pub mod message;
pub mod object;
pub mod parts;
pub mod paths;
pub mod policy;
pub mod question;
#[cfg(any(test, feature = "fuzz"))]
mod samples;
pub mod shared;
#[cfg(test)]
mod testing;
pub mod told;
pub mod versions;

use std::time::Duration;

/// Version of the protocol: of what carries the objects, which have versions of their own.
pub const PROTOCOL: u32 = 3;

/// The protocol since which agents answer questions.
pub const PROTOCOL_QUESTIONS: u32 = 3;

/// The oldest protocol that this release understands. Each end refuses the other below this.
pub const PROTOCOL_MIN: u32 = 2;

/// The name in the server's certificate, which agents check whatever address they dial.
pub const SERVER_NAME: &str = "netloom-server";

/// Encoded bytes of objects after which a part of a snapshot or a delta is closed.
pub const PART_BYTES: usize = 512 * 1024;

/// Longest message that either end accepts, in bytes; gRPC's own default.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often an agent that has nothing to report sends a message all the same.
pub const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long an agent may be silent before the server takes it for dead: three heartbeats.
pub const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Failures of a report that come with their reason; the others are only named.
pub const REASONS_MAX: usize = 1024;

/// Most failures in one report. An agent that has more acknowledges nothing.
pub const FAILURES_MAX: usize = 65_536;

/// Most instances and ports in one report; the others do not show as running.
pub const UP_MAX: usize = 100_000;

/// Most moves in one report, of as many ports as a host can have.
pub const ARRIVED_MAX: usize = 4_096;

/// Most devices that a host tells of, and most addresses of each; the others do not count.
pub const DEVICES_MAX: usize = 256;
/// See [`DEVICES_MAX`].
pub const DEVICE_ADDRESSES_MAX: usize = 64;

/// Most drivers that a host tells of.
pub const DRIVERS_MAX: usize = 16;

/// Questions of guests in one heartbeat at most; more are told with the next one.
pub const LEASES_MAX: usize = 1_024;

/// Most blocked ways to peers that a host tells of.
pub const BLOCKED_PATHS_MAX: usize = 128;

/// Most reasons of drops that a host tells of.
pub const DROPS_MAX: usize = 256;

/// Most maps that a host tells of.
pub const MAPS_MAX: usize = 64;

/// Longest text in a message, such as the reason of a failure, in bytes; the rest is cut off.
pub const TEXT_BYTES_MAX: usize = 512;
