//! Shared test vectors: one packet each, with the maps it meets and exactly what must come out.
//!
//! The same list runs on the host against [`Memory`] and in the kernel through
//! `BPF_PROG_TEST_RUN` (`crates/dataplane/tests/vectors.rs`). Expected frames are built by
//! [`frame`], which shares no code with the stages.

mod connections;
mod dhcp;
mod fill_in;
#[cfg(test)]
mod flow_log;
mod foreign;
mod fragments;
pub mod frame;
mod from_port;
mod from_tunnel;
mod gre;
#[cfg(test)]
mod histories;
mod memory;
mod moves;
mod neighbours;
mod nets;
mod policy;
mod prefixes;
mod rewrite;
mod room;
pub mod rules;
mod sharers;
mod singles;
mod too_big;
mod uplinks;
mod vlans;
mod world;

pub use gre::{GreVector, gres};
pub use memory::Memory;
pub use rewrite::{RewriteVector, rewrites};

use crate::{
    ConntrackSize, CtSlot, CtWord, DropReason, Entry, Meta, Packet, Traffic, Verdict, from_port,
    from_tunnel, from_wire, to_port,
};
use std::collections::BTreeMap;

/// The connection table of the vectors; small enough to be filled.
pub const CONNTRACK: ConntrackSize = ConntrackSize { ports: 4, port_buckets: 4, common_buckets: 4 };

/// A connection in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// State, initiator and deadline, without what says where it is.
    pub word: CtWord,
    /// The rest.
    pub slot: CtSlot,
}

/// One packet and what becomes of it.
#[derive(Clone, Debug)]
pub struct Vector {
    /// What it shows, as a sentence.
    pub name: &'static str,
    /// Where the frame comes in.
    pub entry: Entry,
    /// Its metadata.
    pub meta: Meta,
    /// The frame and the maps before.
    pub before: Memory,
    /// The verdict.
    pub verdict: Verdict,
    /// Number of the rule that drops it, if a policy does.
    pub rule: u32,
    /// Why the frame is dropped that is answered, or that ports do not get while it goes on.
    pub answered: Option<DropReason>,
    /// The frame afterwards, if it is changed.
    pub frame_after: Option<Vec<u8>>,
    /// Counters that change, by port.
    pub traffic: BTreeMap<u32, Traffic>,
    /// The connections in the table afterwards, anywhere. `None`: as before, unless the verdict is
    /// to send or deliver; what opens or refreshes one is said where it matters.
    pub connections: Option<Vec<Tracked>>,
}

impl Vector {
    /// The frame that must come out.
    #[must_use]
    pub fn expected_frame(&self) -> &[u8] {
        self.frame_after.as_deref().unwrap_or(&self.before.frame)
    }

    /// The drops that must be counted.
    #[must_use]
    pub fn expected_drops(&self) -> BTreeMap<DropReason, u64> {
        match (self.verdict, self.answered) {
            (Verdict::Drop(reason), _) | (_, Some(reason)) => BTreeMap::from([(reason, 1)]),
            _ => BTreeMap::new(),
        }
    }

    /// The connections that must be in the table; `None` if the vector does not care.
    #[must_use]
    pub fn expected_connections(&self) -> Option<Vec<Tracked>> {
        let keeps = !matches!(
            self.verdict,
            Verdict::DeliverLocal { .. }
                | Verdict::Tunnel { .. }
                | Verdict::Strangers { .. }
                | Verdict::Uplink { .. }
                | Verdict::Host { .. }
        );
        match &self.connections {
            Some(connections) => Some(sorted(connections.clone())),
            None => keeps.then(|| sorted(self.before.tracked())),
        }
    }

    /// Whether `BPF_PROG_TEST_RUN` takes the frame: Linux refuses one that ends within the IP
    /// header that its ethertype promises.
    #[must_use]
    pub fn fits_test_run(&self) -> bool {
        let frame = &self.before.frame;
        let least = match frame.get(12..14) {
            Some([0x08, 0x00]) => 14 + 20,
            Some([0x86, 0xdd]) => 14 + 40,
            _ => 15,
        };
        frame.len() >= least
    }

    /// Runs it on the host: the verdict and everything afterwards.
    #[must_use]
    pub fn run(&self) -> (Verdict, Memory) {
        let mut memory = self.before.clone();
        let mut packet = Packet::default();
        match self.entry {
            Entry::FromPort => from_port(&mut memory, &self.meta, &mut packet),
            Entry::FromTunnel => from_tunnel(&mut memory, &self.meta, &mut packet),
            Entry::ToPort => packet.verdict = to_port(&mut memory, &self.meta),
            // Of what leaves in GRE nothing is decided there: see `gres`.
            Entry::ToTunnel => packet.verdict = Verdict::Pass,
            entry @ (Entry::FromUplink | Entry::ToUplink) => {
                if !from_wire(&mut memory, &self.meta, entry, &mut packet) {
                    packet.verdict = Verdict::Pass;
                }
            }
        }
        (packet.verdict, memory)
    }
}

fn sorted(mut connections: Vec<Tracked>) -> Vec<Tracked> {
    connections.sort_by_key(|tracked| (tracked.slot, tracked.word.0));
    connections
}

/// All vectors.
#[must_use]
pub fn all() -> Vec<Vector> {
    let mut vectors = neighbours::vectors();
    vectors.extend(from_port::vectors());
    vectors.extend(from_tunnel::vectors());
    vectors.extend(connections::vectors());
    vectors.extend(room::vectors());
    vectors.extend(fill_in::vectors());
    vectors.extend(fragments::vectors());
    vectors.extend(too_big::vectors());
    vectors.extend(nets::vectors());
    vectors.extend(prefixes::vectors());
    vectors.extend(vlans::vectors());
    vectors.extend(dhcp::vectors());
    vectors.extend(uplinks::vectors());
    vectors.extend(foreign::vectors());
    vectors.extend(sharers::vectors());
    vectors.extend(moves::vectors());
    vectors.extend(policy::vectors());
    vectors.extend(singles::vectors());
    vectors
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_vector_gives_what_it_says_on_the_host() {
        for vector in all() {
            let (verdict, after) = vector.run();
            let name = vector.name;
            assert_eq!(verdict, vector.verdict, "{name}");
            assert_eq!(after.frame, vector.expected_frame(), "{name}");
            assert_eq!(after.drops, vector.expected_drops(), "{name}");
            assert_eq!(after.denied_by, vector.rule, "{name}");
            let mut traffic = after.traffic.clone();
            traffic.retain(|_, counts| *counts != Traffic::default());
            assert_eq!(traffic, vector.traffic, "{name}");
            if let Some(connections) = vector.expected_connections() {
                assert_eq!(sorted(after.tracked()), connections, "{name}");
            }
        }
    }

    #[test]
    fn every_drop_reason_of_the_core_has_a_vector() {
        // The kernel alone can refuse a tunnel key, a tag or room in a buffer.
        let mut missing: BTreeSet<&str> = DropReason::ALL.iter().map(|info| info.name).collect();
        missing.remove(DropReason::TunnelKeyRefused.name());
        missing.remove(DropReason::VlanRefused.name());
        missing.remove(DropReason::HandOffRefused.name());
        // What leaves in GRE is decided upon before; what is in its way then only a kernel knows.
        for info in DropReason::ALL {
            if info.name.starts_with("gre_") {
                missing.remove(info.name);
            }
        }
        for vector in all() {
            if let Verdict::Drop(reason) = vector.verdict {
                missing.remove(reason.name());
            }
        }
        assert!(missing.is_empty(), "no vector for {missing:?}");
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = all().iter().map(|vector| vector.name).collect();
        assert_eq!(names.len(), all().len());
        assert!(names.len() >= 40);
    }
}
