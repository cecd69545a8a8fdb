//! Fuzzes `model::fuzz::TEXT`.
#![no_main]

netloom_fuzz::fuzz!(model::fuzz::TEXT);
