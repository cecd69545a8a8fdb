//! Fuzzes `guest::fuzz::QUERY`.
#![no_main]

netloom_fuzz::fuzz!(guest::fuzz::QUERY);
