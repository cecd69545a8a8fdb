//! What messages do, called as a door calls them, on the in-memory store.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod addresses;
mod audit;
mod config;
mod databases;
mod deletions;
mod doctor;
mod field_cases;
mod gate;
mod harness;
mod histories;
mod instances;
mod inventories;
mod jobs;
mod jobs_listed;
mod l2;
mod l3;
mod life;
mod log_ins;
mod long_jobs;
mod nics;
mod offerings;
mod places;
mod prefixes;
mod refusals;
mod releases;
mod servers;
mod services;
mod sharing;
mod spans;
mod specimen;
mod tags;
mod tenants;
mod webhooks;
mod zstack_l2_cases;
mod zstack_l3_cases;
