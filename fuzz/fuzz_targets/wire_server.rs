//! Fuzzes `wire::fuzz::SERVER`.
#![no_main]

netloom_fuzz::fuzz!(wire::fuzz::SERVER);
