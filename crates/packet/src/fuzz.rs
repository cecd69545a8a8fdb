//! Frames from instances, tunnels and the underlay, for property tests and fuzzing: whatever comes,
//! nothing panics, and every drop is counted once.

use damage::Target;

use crate::{
    GRE_HEADER_BYTES, HEADER_BYTES, Meta, Verdict, outer,
    vectors::{
        Memory, Vector, all,
        frame::{gre, vxlan},
    },
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
        // What is for all on a wire goes on, whether ports get it or not. Who sends too much at once is
        // told so in the place of the frame, which is lost.
        let may_lose = matches!(verdict, Verdict::Pass | Verdict::Reflect) && drops < 2;
        let is_counted = drops == u64::from(is_drop) || may_lose;
        assert!(is_counted, "{verdict:?}");
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
    if outer::open(&memory, &mut meta).is_some() {
        assert_eq!(meta.length + HEADER_BYTES, length);
        return true;
    }
    assert_eq!(meta, before, "what is not opened is as it was");
    if outer::open_gre(&memory, &mut meta).is_some() {
        assert_eq!(meta.length + GRE_HEADER_BYTES, length);
        return true;
    }
    assert_eq!(meta, before, "what is not opened is as it was");
    false
}

/// Outer packets around the frames out of tunnels.
fn outers() -> Vec<Vec<u8>> {
    let frames = all().into_iter().map(|vector| vector.before.frame);
    let ends = ("192.0.2.1", "192.0.2.2");
    let in_both = |frame: Vec<u8>| [vxlan(7, ends, 8_472, &frame), gre(7, ends, 0x2000, &frame)];
    frames.flat_map(in_both).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_frame_makes_the_core_panic() {
        damage::check(super::TARGETS);
    }

    /// As libFuzzer found it: a frame that is answered and lost, where the maps are those of another one.
    #[test]
    fn what_is_answered_in_one_world_is_counted_in_all_others() {
        let vectors = super::all();
        let answered = vectors.iter().filter(|vector| vector.answered.is_some());
        for frame in answered.map(|vector| &vector.before.frame) {
            for number in (0_u16..).take(vectors.len()) {
                super::frame(&[number.to_be_bytes().as_slice(), frame].concat());
            }
        }
    }
}
