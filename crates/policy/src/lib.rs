//! Rules of security groups, resolved to entries of the maps: from ordered lists of rules, which a
//! walk would have to read one by one, to trees that a packet reads in constant time
//! (`crates/packet/src/rules.rs` says how). Pure.
//!
//! [`RuleSet`] compiles what the groups of a port say about one way. Its number is a hash of what
//! they say: whoever compiles the same rules again, after a restart too, finds the same entries.
//! [`first_match`] reads the rules one by one instead; [`walk`] reads the entries as the programs do.
//! The two must always agree.

mod explain;
mod forest;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod number;
mod prefixes;
mod rule_set;
#[cfg(any(test, feature = "fuzz"))]
mod sample;
mod trees;
mod walk;

pub use explain::{Named, Probe, first_match};
pub use number::{Salt, identity};
pub use rule_set::{RuleSet, Said, Unfit};
pub use walk::{Maps, walk};

#[cfg(test)]
mod tests;
