//! What every message does: one handler each, over one transaction; and the gate, which every door
//! (REST is the only one yet) calls.
//!
//! Handlers of jobs are synchronous and pure: time, randomness, the caller and what hosts report
//! come in with the transaction. Nothing here knows HTTP or what an agent does.

pub mod audit;
mod claim;
pub mod command;
pub mod config;
mod delete;
pub mod gate;
pub mod inventory;
mod invisible;
pub mod jobs;
mod logins;
pub mod look;
pub mod operation;
mod placement;
pub mod query;
mod quota;
pub mod releaser;
mod reserved;
pub mod secret;
pub mod sessions;
mod sharing;
mod sight;
pub mod tag;
pub mod throttle;
pub mod txn;
pub mod validate;

pub mod access_key;
pub mod account;
pub mod cluster;
pub mod host;
pub mod ip_range;
pub mod l2_attachment;
pub mod l2_network;
pub mod l2_vxlan;
pub mod l3_network;
pub mod vm_instance;
pub mod vm_nic;
pub mod vtep;
pub mod zone;

pub use command::{Caller, Command, NOTES_MAX, Operations, Reply, Request};
pub use gate::{Enrolment, Gate};
pub use jobs::{About, JobId, JobState, Jobs, NOTES};
pub use look::Look;
pub use txn::Txn;
pub use validate::Unknown;

/// What gives the operations of each resource.
const MODULES: &[fn() -> Vec<operation::Operation>] = &[
    account::operations,
    quota::operations,
    access_key::operations,
    sharing::operations,
    tag::operations,
    config::operations,
    zone::operations,
    cluster::operations,
    host::operations,
    l2_vxlan::operations,
    l2_attachment::operations,
    vtep::operations,
    l2_network::operations,
    l3_network::operations,
    ip_range::operations,
    vm_instance::operations,
    vm_nic::operations,
    query::zql::operations,
];
