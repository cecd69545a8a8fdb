//! What messages do, called as a door calls them, on the in-memory store.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod databases;
mod deletions;
mod field_cases;
mod gate;
mod harness;
mod histories;
mod instances;
mod inventories;
mod jobs;
mod life;
mod nics;
mod offerings;
mod refusals;
mod releases;
mod servers;
mod specimen;
