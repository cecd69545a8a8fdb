//! What guests say to the agent, for property tests and fuzzing: whatever it is, nothing panics.

use damage::Target;

use crate::{names, translate};

/// All of them.
pub const TARGETS: &[Target] = &[FRAME, QUERY];

/// A frame, as the data plane hands it over.
pub const FRAME: Target =
    Target { name: "guest_frame", read: translate::is_understood, samples: translate::samples };

/// A DNS query.
pub const QUERY: Target =
    Target { name: "guest_query", read: names::is_understood, samples: names::samples };

#[cfg(test)]
mod tests {
    #[test]
    fn no_bytes_make_a_parser_panic() {
        damage::check(super::TARGETS);
    }
}
