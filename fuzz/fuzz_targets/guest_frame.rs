//! Fuzzes `guest::fuzz::FRAME`.
#![no_main]

netloom_fuzz::fuzz!(guest::fuzz::FRAME);
