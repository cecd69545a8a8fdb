//! Fuzzes `api::fuzz::HEADERS`.
#![no_main]

netloom_fuzz::fuzz!(api::fuzz::HEADERS);
