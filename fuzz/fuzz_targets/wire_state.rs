//! Fuzzes `wire::fuzz::STATE`.
#![no_main]

netloom_fuzz::fuzz!(wire::fuzz::STATE);
