//! What an agent reads from its host, for property tests and fuzzing: whatever is there, nothing
//! panics.

use damage::Target;

use crate::{identity, serve, state};

/// All of them.
pub const TARGETS: &[Target] = &[STATE, ENROLMENT, GUEST];

/// The last desired state, as it is on disk.
pub const STATE: Target =
    Target { name: "agent_state", read: state::is_understood, samples: state::samples };

/// An enrolment, as an operator carries it to a host.
pub const ENROLMENT: Target = Target {
    name: "agent_enrolment",
    read: identity::is_understood,
    samples: || ENROLMENTS.map(|text| text.as_bytes().to_vec()).to_vec(),
};

/// A frame of a guest that wants to know its addresses.
pub const GUEST: Target =
    Target { name: "agent_guest", read: serve::fuzz::read, samples: serve::fuzz::samples };

const ENROLMENTS: [&str; 2] = [
    "{\"server\": \"192.0.2.1:7481\", \"host\": \"00000000000000000000000000000005\", \
     \"token\": \"t\", \"ca\": \"-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n\"}",
    "{\"inventory\": {\"server\": \"[2001:db8::1]:7481\", \
     \"host\": \"00000000-0000-0000-0000-000000000005\", \"token\": \"\", \"ca\": \"\"}}",
];

#[cfg(test)]
mod tests {
    #[test]
    fn no_bytes_make_a_parser_panic() {
        damage::check(super::TARGETS);
    }
}
