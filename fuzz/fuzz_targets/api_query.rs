//! Fuzzes `api::fuzz::QUERY`.
#![no_main]

netloom_fuzz::fuzz!(api::fuzz::QUERY);
