//! The files that the command line reads, for property tests and fuzzing: whatever is there, nothing
//! panics.

use damage::Target;

use crate::topology::Topology;

/// All of them.
pub const TARGETS: &[Target] = &[TOPOLOGY];

/// The YAML of `apply`.
pub const TOPOLOGY: Target = Target {
    name: "cli_topology",
    read: |bytes| Topology::parse(&String::from_utf8_lossy(bytes)).is_ok(),
    samples: || TOPOLOGIES.map(|text| text.as_bytes().to_vec()).to_vec(),
};

const TOPOLOGIES: [&str; 2] = [
    "name: web\nresources:\n  - zone: {name: z1}\n\
     \x20 - CreateCluster: {name: c1, zoneUuid: z1, hypervisorType: KVM}\n\
     \x20 - pool attach: {l2: p1, cluster: c1, cidr: 192.0.2.0/24}\n",
    "resources:\n- &a {zone: {name: z, description: \"a\\tb\"}}\n- *a\n- host:\n    name: |\n      h\n",
];

#[cfg(test)]
mod tests {
    #[test]
    fn no_bytes_make_a_parser_panic() {
        damage::check(super::TARGETS);
    }
}
