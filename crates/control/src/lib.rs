//! What every message does: one handler each, over one transaction.
//!
//! Handlers are synchronous and pure: time, randomness and what hosts report come in with the
//! [`Call`]. All doors build the same calls; nothing here knows HTTP or what an agent does.

pub mod allocate;
pub mod call;
pub mod inventory;
pub mod jobs;
pub mod operation;
mod release;
pub mod releaser;
pub mod secret;
pub mod sessions;
mod special;
pub mod txn;
pub mod validate;

pub mod account;
pub mod cluster;
pub mod host;
pub mod ip_range;
pub mod l2_vxlan_network;
pub mod l2_vxlan_pool;
pub mod l3_network;
pub mod vm_instance;
pub mod vm_nic;
pub mod vtep;
pub mod zone;

pub use call::{Call, Reply};
pub use jobs::{JobState, Jobs};
pub use txn::Txn;
