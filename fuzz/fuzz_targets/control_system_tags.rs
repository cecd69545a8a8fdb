//! Fuzzes `control::fuzz::SYSTEM_TAGS`.
#![no_main]

netloom_fuzz::fuzz!(control::fuzz::SYSTEM_TAGS);
