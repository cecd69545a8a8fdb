//! Fuzzes `agent::fuzz::STATE`.
#![no_main]

netloom_fuzz::fuzz!(agent::fuzz::STATE);
