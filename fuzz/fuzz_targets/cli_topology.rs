//! Fuzzes `cli::fuzz::TOPOLOGY`.
#![no_main]

netloom_fuzz::fuzz!(cli::fuzz::TOPOLOGY);
