//! What every parser of outside bytes has to bear: bytes at random, and valid input with something
//! broken in it. Only for tests, and for the targets in `fuzz/`.
//!
//! A crate with such a parser lists it as a [`Target`] in its module `fuzz`. The crate's own tests
//! [`check`] it, and `make fuzz` lets a fuzzer look for what they do not find.

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};

/// A parser of outside bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name within its crate.
    pub name: &'static str,
    /// Reads bytes and says whether they mean anything. It panics when the parser does, or when
    /// what was read breaks a promise, such as that it is written as it was read.
    pub read: fn(&[u8]) -> bool,
    /// Inputs that mean something.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// Damage of one place.
#[derive(Clone, Debug)]
enum Harm {
    Put(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    /// From here on it goes on as another sample does from there on.
    Graft(Index, Index, Index),
    Cut(Index),
}

/// Samples, and what damage leaves of them; now and then bytes at random.
pub fn damaged(samples: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let which = any::<Index>();
    let harmed = (which, vec(harm(), 1..6)).prop_map(move |(which, harms)| {
        let sample = samples[which.index(samples.len())].clone();
        harms.into_iter().fold(sample, |bytes, harm| harm.done(bytes, &samples))
    });
    prop_oneof![9 => harmed, 1 => vec(any::<u8>(), 0..200)]
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<Index>;
    // Most formats that people read mean something by these.
    let telling = prop::sample::select(b"\0\n \"'(),-.0:;<=>[]{}%&*#$/\\\xff".to_vec());
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Harm::Put(at, byte)),
        (at(), telling).prop_map(|(at, byte)| Harm::Put(at, byte)),
        (at(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Harm::Insert(at, bytes)),
        (at(), 1..16_usize).prop_map(|(at, length)| Harm::Remove(at, length)),
        (at(), 1..64_usize).prop_map(|(at, length)| Harm::Repeat(at, length)),
        (at(), at(), at()).prop_map(|(at, other, from)| Harm::Graft(at, other, from)),
        at().prop_map(Harm::Cut),
    ]
}

impl Harm {
    fn done(self, mut bytes: Vec<u8>, samples: &[Vec<u8>]) -> Vec<u8> {
        let place = |at: Index| at.index(bytes.len() + 1);
        let part = |at: usize, length: usize| at..bytes.len().min(at + length);
        match self {
            Self::Put(at, byte) => match bytes.len() {
                0 => bytes.push(byte),
                length => bytes[at.index(length)] = byte,
            },
            Self::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more);
            }
            Self::Remove(at, length) => {
                let part = part(place(at), length);
                bytes.drain(part);
            }
            Self::Repeat(at, length) => {
                let part = part(place(at), length);
                let (end, again) = (part.end, bytes[part].to_vec());
                bytes.splice(end..end, again);
            }
            Self::Graft(at, other, from) => {
                bytes.truncate(place(at));
                let other = &samples[other.index(samples.len())];
                bytes.extend(&other[from.index(other.len() + 1)..]);
            }
            Self::Cut(at) => bytes.truncate(place(at)),
        }
        bytes
    }
}

/// Lets parsers read their samples, which they must understand, and damaged ones, which they must
/// bear.
///
/// # Panics
/// When one of them does not; it is named, with the bytes.
pub fn check(targets: &[Target]) {
    for Target { name, read, samples } in targets {
        let samples = samples();
        assert!(!samples.is_empty(), "{name} has no samples");
        for sample in &samples {
            let text = sample.escape_ascii();
            assert!(read(sample), "{name} does not understand its sample {text}");
        }
        let config = Config { failure_persistence: None, ..Config::default() };
        let borne = TestRunner::new(config).run(&damaged(samples), |bytes| {
            read(&bytes);
            Ok(())
        });
        borne.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parser with a fault: it believes a length.
    fn read(bytes: &[u8]) -> bool {
        let Some((length, rest)) = bytes.split_first() else { return false };
        rest[..usize::from(*length)].iter().all(u8::is_ascii_digit)
    }

    #[test]
    #[should_panic(expected = "short: Test failed: range end index")]
    fn a_parser_that_believes_a_length_is_found() {
        check(&[Target { name: "short", read, samples: || vec![b"\x03123".to_vec()] }]);
    }

    #[test]
    #[should_panic(expected = "short does not understand its sample \\x01a")]
    fn a_sample_that_is_not_understood_is_found() {
        check(&[Target { name: "short", read, samples: || vec![b"\x01a".to_vec()] }]);
    }
}
