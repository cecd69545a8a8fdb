//! Fuzzes `lab::fuzz::TOPOLOGY`.
#![no_main]

netloom_fuzz::fuzz!(lab::fuzz::TOPOLOGY);
