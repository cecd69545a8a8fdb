//! Fuzzes `api::fuzz::OLD`.
#![no_main]

netloom_fuzz::fuzz!(api::fuzz::OLD);
