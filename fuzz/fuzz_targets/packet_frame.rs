//! Fuzzes `packet::fuzz::FRAME`.
#![no_main]

netloom_fuzz::fuzz!(packet::fuzz::FRAME);
