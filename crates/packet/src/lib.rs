//! Every decision about a packet; shared by kernel, tests, simulator and trace.
//!
//! The crate holds the layouts of the eBPF maps, the drop reasons, the header parsers and the
//! stages that a packet passes. It never touches a kernel, a clock or memory of its own: all of
//! that comes in through [`Kernel`] and [`Meta`], so the same code runs in the kernel (`ebpf/`)
//! and in an ordinary test.
//!
//! | entry | hook | may end as |
//! | --- | --- | --- |
//! | [`from_port`] | TCX ingress of a port's host side | drop, local delivery, tunnel, reflect |
//! | [`from_tunnel`] | TCX ingress of the VXLAN device | drop, local delivery |
//! | [`to_port`] | TCX egress of a port's host side | drop, pass |
#![cfg_attr(not(any(test, feature = "vectors")), no_std)]

mod addr;
mod kernel;
mod layout;
mod maps;
mod reason;
mod sizes;

pub use addr::{Addr, Mac};
pub use kernel::{Direction, Drop, Entry, Kernel, Meta, Verdict, VerdictRecord, Via};
pub use layout::Plain;
pub use maps::{
    AddrKey, Config, CtKey, CtSlot, DropEvent, Fdb, FdbKey, FdbTarget, Neigh, NeighKey, Port,
    PortKey, Traffic, Vtep, VtepKey,
};
pub use reason::{DropReason, ReasonInfo};
pub use sizes::*;
