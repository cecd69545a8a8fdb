//! Frames from instances, tunnels and the underlay, for property tests and fuzzing: whatever comes,
//! nothing panics, and every drop is counted once.

use damage::Target;

use crate::{
    HEADER_BYTES, Meta, Outer, Verdict, outer,
    vectors::{Memory, Vector, all},
};

/// All of them.
pub const TARGETS: &[Target] = &[FRAME, UNDERLAY];

/// A vector's number, two bytes, and the frame that meets its maps.
pub const FRAME: Target = Target { name: "packet_frame", read: frame, samples: frames };

/// A frame of the underlay.
pub const UNDERLAY: Target = Target { name: "packet_underlay", read: underlay, samples: outers };

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

/// Whether an outer packet is opened. What is taken for the frame inside ends where it ends.
fn underlay(bytes: &[u8]) -> bool {
    let mut memory = Memory { frame: bytes.to_vec(), ..Memory::default() };
    (memory.config.direct_port, memory.config.tunnel_ifindex) = (8_472, 9);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut meta = Meta { length, ifindex: 5, ..Meta::default() };
    let before = meta;
    if outer::open(&memory, &mut meta).is_none() {
        assert_eq!(meta, before, "what is not opened is as it was");
        return false;
    }
    assert_eq!(meta.length + HEADER_BYTES, length);
    true
}

/// Outer packets around the frames out of tunnels.
fn outers() -> Vec<Vec<u8>> {
    let is_whole = |frame: &Vec<u8>| frame.len() >= 16;
    let frames = all().into_iter().map(|vector| vector.before.frame).filter(is_whole);
    frames.map(|frame| in_outer(&frame)).collect()
}

/// A frame in an outer packet, as another host sends it.
fn in_outer(frame: &[u8]) -> Vec<u8> {
    let words: [u32; 4] = std::array::from_fn(|at| {
        let word: [u8; 4] = std::array::from_fn(|byte| frame[4 * at + byte]);
        u32::from_ne_bytes(word)
    });
    let length = u32::try_from(frame.len()).unwrap_or(0);
    let [local, vtep] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(u32::from_ne_bytes);
    let outer = Outer { vni: 7, vtep, local, port: 8_472, length, hash: 7, identity: 7 };
    let headers = outer.headers(&words);
    let headers = headers.iter().flat_map(|word| word.to_ne_bytes());
    let mut whole = [[6; 12].as_slice(), &[8, 0]].concat();
    whole.extend(headers.take(HEADER_BYTES as usize));
    whole.extend(&frame[14..]);
    whole
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_frame_makes_the_core_panic() {
        damage::check(super::TARGETS);
    }
}
