//! The converge loop on a host.
