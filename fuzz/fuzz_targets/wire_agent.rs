//! Fuzzes `wire::fuzz::AGENT`.
#![no_main]

netloom_fuzz::fuzz!(wire::fuzz::AGENT);
