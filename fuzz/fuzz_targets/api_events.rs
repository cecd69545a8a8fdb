//! Fuzzes `api::fuzz::EVENTS`.
#![no_main]

netloom_fuzz::fuzz!(api::fuzz::EVENTS);
