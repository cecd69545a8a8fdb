//! Fuzzes `wire::fuzz::ENROL`.
#![no_main]

netloom_fuzz::fuzz!(wire::fuzz::ENROL);
