//! Fuzzes `packet::fuzz::UNDERLAY`.
#![no_main]

netloom_fuzz::fuzz!(packet::fuzz::UNDERLAY);
