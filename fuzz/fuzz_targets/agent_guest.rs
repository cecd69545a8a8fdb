//! Fuzzes `agent::fuzz::GUEST`.
#![no_main]

netloom_fuzz::fuzz!(agent::fuzz::GUEST);
