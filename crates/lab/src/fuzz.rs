//! The files that the lab reads, for property tests and fuzzing: whatever is there, nothing panics.

use std::path::Path;

use damage::Target;

use crate::topology::Topology;

/// All of them.
pub const TARGETS: &[Target] = &[TOPOLOGY];

/// The YAML of a lab.
pub const TOPOLOGY: Target = Target {
    name: "lab_topology",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        Topology::parse("lab", Path::new("t.yaml"), &text).is_ok()
    },
    samples: || vec![include_bytes!("../../../examples/two-tenants.yaml").to_vec()],
};

#[cfg(test)]
mod tests {
    #[test]
    fn no_bytes_make_a_parser_panic() {
        damage::check(super::TARGETS);
    }
}
