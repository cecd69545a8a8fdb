//! Fuzzes `api::fuzz::BODY`.
#![no_main]

netloom_fuzz::fuzz!(api::fuzz::BODY);
