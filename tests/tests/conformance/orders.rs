//! Cases about who decides: the order of rules and groups, policies, both ends, changes.

use crate::cases::Case;

pub fn all() -> Vec<Case> {
    Vec::new()
}
