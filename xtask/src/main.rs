//! The binary: parses, wires up, runs.
fn main() {}
