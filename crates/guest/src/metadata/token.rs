//! Tokens as of EC2's IMDSv2. Nothing is kept of them: a token says until when it is good, and the
//! port it is for is in what it is signed with. The key ends with the agent, and clients ask for
//! another token when theirs is refused.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a moment.
const MOMENT: usize = 8;

/// What tokens are made with.
pub(crate) struct Tokens {
    key: [u8; 32],
}

impl Tokens {
    /// With a key that nobody else knows.
    pub(crate) const fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// A token for a port, good until this moment.
    pub(crate) fn issue(&self, port: u32, until: u64) -> String {
        let moment = until.to_be_bytes();
        let signature = self.signing(port, moment).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&moment[..], &signature].concat())
    }

    /// Whether a token is for a port, and good at this moment.
    pub(crate) fn is_good(&self, port: u32, now: u64, token: &[u8]) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((moment, signature)) = bytes.split_first_chunk::<MOMENT>() else { return false };
        let is_ours = self.signing(port, *moment).verify_slice(signature).is_ok();
        is_ours && now < u64::from_be_bytes(*moment)
    }

    fn signing(&self, port: u32, moment: [u8; MOMENT]) -> Hmac<Sha256> {
        let keyed = Hmac::<Sha256>::new_from_slice(&self.key);
        let mut keyed = keyed.expect("HMAC takes keys of any length");
        keyed.update(&port.to_be_bytes());
        keyed.update(&moment);
        keyed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_is_good_for_its_port_and_its_time(
            port in any::<u32>(), other in any::<u32>(), until in any::<u64>(), now in any::<u64>(),
            place in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let tokens = Tokens::new([7; 32]);
            let token = tokens.issue(port, until);
            prop_assert_eq!(tokens.is_good(port, now, token.as_bytes()), now < until);
            prop_assert!(other == port || !tokens.is_good(other, 0, token.as_bytes()));
            prop_assert!(!Tokens::new([8; 32]).is_good(port, 0, token.as_bytes()));
            let mut bent = token.into_bytes();
            let place = place.index(bent.len());
            bent[place] ^= flip;
            prop_assert!(!tokens.is_good(port, 0, &bent));
        }
    }
}
