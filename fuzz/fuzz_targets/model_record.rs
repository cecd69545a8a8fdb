//! Fuzzes `model::fuzz::RECORD`.
#![no_main]

netloom_fuzz::fuzz!(model::fuzz::RECORD);
