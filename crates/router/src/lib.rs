//! The agent of a virtual router: makes addresses, routes and NAT of its machine what its host says.
//!
//! It keeps nothing: a complete [`Desired`] comes in, and whatever was there before, [`Machine`] is made
//! like it. [`sets`] decides what the packet filter's sets hold, [`rules`] has the rules that ask them,
//! [`nft`] brings both into the kernel, [`network`] addresses and routes,
//! of which [`announce`] tells the neighbours. [`serve`] is the door by which
//! it comes in, [`client`] the host's end of that, [`bootstrap`] what both ends are given beforehand.

pub mod announce;
mod apply;
pub mod bootstrap;
pub mod client;
pub mod network;
pub mod nft;
pub mod problems;
pub mod rules;
pub mod serve;
pub mod sets;
pub mod state;

pub use apply::{Machine, Status};
pub use problems::{Problems, Service};
pub use state::{Desired, Eip, Forwarding, Nic, Protocol, Role, SourceNat};
