//! The contract of engines and of the store on them, on a toy row: one suite for all engines, and
//! one with several servers on the in-memory twin.

mod engine;
mod naive;
mod serial;
mod servers;
mod suite;
mod sums;
mod toy;
