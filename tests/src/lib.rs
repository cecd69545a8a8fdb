//! What end-to-end tests share: a lab of their own, the machine as it is, calls, traffic.
//!
//! A test runs the binary that users run, as root, with its own lab, ports and files; it touches
//! nothing else, and a later run removes what a killed one has left.

#![expect(clippy::unwrap_used, reason = "a harness fails its test where it stands")]

pub mod ends;
pub mod frames;
pub mod guest;
mod harness;
pub mod machine;
pub mod networks;
pub mod process;
pub mod rest;
pub mod traffic;
pub mod vm;

pub use harness::{LIMIT, TestLab, binary, example, gre, root_or_skip, three_hosts, uuid};
