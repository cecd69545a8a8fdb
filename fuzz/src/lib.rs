//! Lets libFuzzer look for bytes that a parser does not bear, beginning with the samples that the
//! tests of its crate have.

use std::{fs, io, path::Path};

/// Writes the samples of a target to where the fuzzer begins.
///
/// # Errors
/// A file cannot be written.
pub fn seed(target: &damage::Target) -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    fs::create_dir_all(&corpus)?;
    for (number, sample) in (0..).zip((target.samples)()) {
        fs::write(corpus.join(format!("sample-{number}")), sample)?;
    }
    Ok(())
}

/// The whole of a target's file.
#[macro_export]
macro_rules! fuzz {
    ($target:expr) => {
        libfuzzer_sys::fuzz_target!(
            init: $crate::seed(&$target).expect("the samples can be written"),
            |bytes: &[u8]| {
                ($target.read)(bytes);
            }
        );
    };
}
