//! The Internet checksum (RFC 1071) of what this crate writes itself.
//!
//! Sums of words in memory order: RFC 1071, 2 (B), the sum does not depend on the byte order as
//! long as the result is stored as it was summed.

/// A running one's complement sum.
#[derive(Clone, Copy)]
pub(crate) struct Checksum(u64);

impl Checksum {
    /// The empty sum.
    #[inline(always)]
    pub(crate) fn new() -> Checksum {
        Checksum(0)
    }

    /// Adds words in memory order.
    #[inline(always)]
    pub(crate) fn add<const N: usize>(&mut self, words: &[u32; N]) {
        for word in words {
            self.0 += u64::from(*word);
        }
    }

    /// The sum so far, for [`Checksum::add_sum`].
    #[inline(always)]
    pub(crate) fn sum(self) -> u64 {
        self.0
    }

    /// Adds the sum of other words.
    #[inline(always)]
    pub(crate) fn add_sum(&mut self, sum: u64) {
        self.0 += sum;
    }

    /// The checksum field. Up to 2^32 words do not overflow before the folds.
    #[inline(always)]
    pub(crate) fn finish(self) -> [u8; 2] {
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
        let folded = sum as u16;
        (!folded).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::Checksum;

    #[test]
    fn matches_the_example_of_rfc_1071() {
        let mut sum = Checksum::new();
        sum.add(&[u32::from_ne_bytes([0x00, 0x01, 0xf2, 0x03])]);
        sum.add(&[u32::from_ne_bytes([0xf4, 0xf5, 0xf6, 0xf7])]);
        assert_eq!(sum.finish(), (!0xddf2_u16).to_be_bytes());
    }
}
