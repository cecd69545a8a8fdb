//! Fuzzes `control::fuzz::ZQL`.
#![no_main]

netloom_fuzz::fuzz!(control::fuzz::ZQL);
