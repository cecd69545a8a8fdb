//! Secrets: made from the system's randomness, known later by their hash alone.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{Code, Error, Result};
use sha2::{Digest, Sha256};

/// 256 random bits as 43 characters that are safe in files, URLs and shells.
///
/// # Errors
/// [`Code::Internal`] if the system gives no randomness.
pub fn random() -> Result<String> {
    let mut bits = [0u8; 32];
    getrandom::fill(&mut bits).map_err(|cause| {
        Error::new(Code::Internal, "the system gives no randomness").cause(cause)
    })?;
    Ok(URL_SAFE_NO_PAD.encode(bits))
}

/// The SHA-256 of a secret, in lower-case hex. Only for secrets of [`random`]: a password that
/// people chose needs a slow hash.
#[must_use]
pub fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
