//! Frames from instances and tunnels, for property tests and fuzzing: whatever comes, nothing
//! panics, and every drop is counted once.

use damage::Target;

use crate::{
    Verdict,
    vectors::{Vector, all},
};

/// All of them.
pub const TARGETS: &[Target] = &[FRAME];

/// A vector's number, two bytes, and the frame that meets its maps.
pub const FRAME: Target = Target { name: "packet_frame", read: frame, samples: frames };

thread_local! {
    // Making them takes longer than running one.
    static VECTORS: Vec<Vector> = all();
}

fn frame(bytes: &[u8]) -> bool {
    let Some((number, frame)) = bytes.split_first_chunk() else { return false };
    VECTORS.with(|vectors| {
        let vector = &vectors[usize::from(u16::from_be_bytes(*number)) % vectors.len()];
        let mut changed = vector.clone();
        changed.before.frame = frame.to_vec();
        changed.meta.length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let (verdict, after) = changed.run();
        let drops: u64 = after.drops.values().sum();
        let is_drop = matches!(verdict, Verdict::Drop(_));
        assert!(drops == u64::from(is_drop) || vector.answered.is_some(), "{verdict:?}");
        verdict == vector.verdict
    })
}

fn frames() -> Vec<Vec<u8>> {
    let numbered = (0_u16..).zip(all());
    let samples = numbered
        .map(|(number, vector)| [number.to_be_bytes().as_slice(), &vector.before.frame].concat());
    samples.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_frame_makes_the_core_panic() {
        damage::check(super::TARGETS);
    }
}
