//! What every message does: one handler each, over one transaction; and the gate, which every door
//! (REST is the only one yet) calls.
//!
//! Handlers of jobs are synchronous and pure: time, randomness, the caller and what hosts report
//! come in with the transaction. Nothing here knows HTTP or what an agent does.

mod addresses;
pub mod audit;
mod claim;
pub mod command;
pub mod config;
mod delete;
pub mod doctor;
pub mod evacuation;
pub mod events;
pub mod explain;
pub mod expunger;
mod field_tags;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod gate;
pub mod inventory;
mod invisible;
pub mod jobs;
pub mod lease;
mod log_in;
mod logins;
pub mod look;
mod memberships;
pub mod mover;
mod neighbours;
pub mod operation;
mod placement;
pub mod platform;
pub mod query;
mod quota;
pub mod realiser;
pub mod releaser;
mod reserved;
pub mod secret;
pub mod sessions;
mod sharing;
mod sight;
pub mod steady;
pub mod tag;
pub mod throttle;
mod turns;
pub mod txn;
pub mod validate;

pub mod access_key;
pub mod account;
mod address_group;
pub mod cluster;
mod dhcp_option;
pub mod dhcp_server;
mod eip;
mod guest_data;
pub mod host;
mod host_addresses;
pub mod host_route;
pub mod image;
pub mod instance_offering;
mod ip_looks;
pub mod ip_range;
pub mod l2_attachment;
mod l2_candidates;
pub mod l2_gre;
pub mod l2_network;
pub mod l2_physical;
mod l2_realiser;
pub mod l2_vxlan;
pub mod l3_network;
mod l3_options;
pub mod long_job;
mod measures;
pub mod network_service;
mod nic_binding;
mod nic_device;
mod nic_params;
pub mod nic_plug;
mod nic_prefixes;
pub mod nic_settings;
mod nic_told;
mod port_forwarding;
pub mod remote_vtep;
pub mod reserved_ip_range;
mod rivals;
pub mod rule_fields;
pub mod security_group;
pub mod security_group_member;
pub mod security_group_rule;
pub mod used_ip;
mod user;
mod vip;
mod vip_guests;
mod vip_ports;
pub mod vm_instance;
pub mod vm_life;
mod vm_migration;
pub mod vm_nic;
pub mod vtep;
pub mod webhook;
pub mod zone;

pub use command::{By, Caller, Command, NOTES_MAX, Operations, Reply, Request};
pub use gate::{Enrolment, Gate};
pub use jobs::{About, JobId, JobState, Jobs, NOTES, RefusedCall, Terms};
pub use look::Look;
pub use measures::{HostMeasures, JobMeasures, Measures};
pub use txn::Txn;
pub use validate::Unknown;

/// What gives the operations of each resource.
const MODULES: &[fn() -> Vec<operation::Operation>] = &[
    account::operations,
    quota::operations,
    user::operations,
    access_key::operations,
    sharing::operations,
    tag::operations,
    config::operations,
    zone::operations,
    cluster::operations,
    host::operations,
    l2_vxlan::operations,
    l2_gre::operations,
    l2_physical::operations,
    l2_attachment::operations,
    l2_candidates::operations,
    l2_realiser::operations,
    vtep::operations,
    remote_vtep::operations,
    l2_network::operations,
    l3_network::operations,
    l3_options::operations,
    host_route::operations,
    ip_range::operations,
    reserved_ip_range::operations,
    used_ip::operations,
    ip_looks::operations,
    network_service::operations,
    dhcp_server::operations,
    dhcp_option::operations,
    address_group::operations,
    security_group::operations,
    security_group_rule::operations,
    security_group_member::operations,
    vip::operations,
    eip::operations,
    port_forwarding::operations,
    instance_offering::operations,
    image::operations,
    vm_instance::operations,
    guest_data::operations,
    vm_life::operations,
    vm_migration::operations,
    vm_nic::operations,
    nic_plug::operations,
    nic_device::operations,
    nic_binding::operations,
    nic_prefixes::operations,
    nic_settings::operations,
    nic_told::operations,
    explain::operations,
    jobs::operations,
    long_job::operations,
    webhook::operations,
    query::zql::operations,
    doctor::operations,
];
