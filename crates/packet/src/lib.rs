//! Every decision about a packet; shared by kernel, tests, simulator and trace.
//!
//! The crate holds the layouts of the eBPF maps, the drop reasons, the header parsers and the
//! stages that a packet passes. It never touches a kernel, a clock or memory of its own: all of
//! that comes in through [`Kernel`] and [`Meta`], so the same code runs in the kernel (`ebpf/`)
//! and in an ordinary test.
//!
//! | entry | hook | may end as |
//! | --- | --- | --- |
//! | [`from_port`] | TCX ingress of a port's host side | drop, local delivery, tunnel, uplink, host, flood, strangers, hand-off, reflect |
//! | [`from_underlay`] | TCX ingress of the underlay's devices | nothing, drop, local delivery, flood, copy |
//! | [`from_gre`] | TCX ingress of the same, where networks are in GRE | nothing, or it becomes a frame for [`from_tunnel`] |
//! | [`from_tunnel`] | TCX ingress of the VXLAN device | drop, local delivery, flood, copy |
//! | [`from_wire`] | TCX ingress and egress of an uplink | nothing, drop, local delivery, flood, copy |
//! | [`to_port`] | TCX egress of a port's host side | drop, pass |
#![cfg_attr(not(any(test, feature = "vectors")), no_std)]

mod addr;
mod arp;
mod budget;
mod checked;
mod checksum;
mod classify;
mod conntrack;
mod ct_word;
mod egress;
mod entry;
mod fdb;
mod fill_in;
mod flood;
mod flow;
mod flow_log;
mod fragments;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod guard;
mod hand_off;
mod icmp_error;
mod ipv4;
mod ipv6;
mod kernel;
mod kfuncs;
mod layout;
mod learned;
mod maps;
mod moves;
mod nd;
mod net;
mod outer;
mod parse;
mod path;
mod policy;
mod port;
mod prefix;
mod reason;
mod rewrite;
mod route;
mod rules;
mod service;
mod sizes;
mod slots;
mod strangers;
mod timeouts;
mod too_big;
mod transport;
mod uplink;
#[cfg(any(test, feature = "vectors"))]
pub mod vectors;

pub use addr::{Addr, Mac};
pub use budget::Budget;
pub use checked::{Checked, PARAMETERS, Parameter, checked_functions};
pub use ct_word::{CtState, CtWord, tick, ticks};
pub use entry::{Opened, from_gre, from_opened, from_port, from_tunnel, from_underlay, to_port};
pub use fdb::{Fdb, FdbKey, FdbTarget};
pub use flow_log::{FlowEvent, Told};
pub use fragments::FRAGMENT_SECONDS;
pub use hand_off::{HandedOff, Question, Serving};
pub use kernel::{
    Concerned, Direction, Drop, Entry, Kernel, Meta, NextHop, SkbLayout, Verdict, VerdictRecord,
    Via,
};
pub use kfuncs::{CAST_TO_KERNEL_SKB, KFUNCS, NUMBERS_END, NUMBERS_NEXT, NUMBERS_START};
pub use layout::Plain;
pub use maps::*;
pub use moves::Move;
pub use net::{Net, NetKind};
pub use outer::{GRE_HEADER_BYTES, HEADER_BYTES, Outer};
pub use parse::{Fragment, Packet, Role};
pub use path::Path;
pub use policy::{LINK_LOCAL_DOMAIN, receives};
pub use prefix::{Behind, PrefixKey};
pub use reason::{DropReason, ReasonInfo};
pub use rewrite::{Covered, Rewrite, Side, rewrite_frame};
pub use rules::*;
pub use service::Service;
pub use sizes::*;
pub use slots::{Homes, PEER_WAYS, PORT_WAYS, WAYS_EACH, homes};
pub use timeouts::{TIMEOUTS_COUNT, Timeout, Timeouts};
pub use uplink::from_wire;
