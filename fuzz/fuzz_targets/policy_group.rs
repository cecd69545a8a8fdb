//! Fuzzes `policy::fuzz::GROUP`.
#![no_main]

netloom_fuzz::fuzz!(policy::fuzz::GROUP);
