//! What can go wrong, and what to do about it.

/// Why a lab could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not built yet.
    #[error("lab {0}: not built yet")]
    Unfinished(String),
}
