//! What a host says for people who look after it. Nothing is decided by it.

use std::{net::IpAddr, sync::Arc};

/// What runs on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentRelease {
    /// The release of its agent.
    pub release: Arc<str>,
    /// The version of the protocol that it speaks.
    pub protocol: u32,
    /// The tables of objects that it knows, and up to which version.
    pub tables: Vec<(&'static str, u32)>,
}

/// How what a host was told and what it reports compare, by the first digits of their digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The revision of the objects that the report is about.
    pub revision: u64,
    /// The tables whose objects differ between server and agent.
    pub differing: Vec<&'static str>,
    /// Of the objects that the server has told.
    pub told: String,
    /// Of the objects that the agent holds.
    pub held: String,
    /// Of the facts that these objects give.
    pub wanted: String,
    /// Of the facts that the agent has read back from the kernel's maps.
    pub read_back: String,
}

impl Agreement {
    /// Whether both pairs are equal.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.differing.is_empty() && self.told == self.held && self.wanted == self.read_back
    }
}

/// How the ways from a host's VTEPs to those of its peers are, as it has asked them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPaths {
    /// How many ways were asked.
    pub probed: u32,
    /// Those on which packets are lost.
    pub blocked: Vec<BlockedPath>,
}

/// A way between VTEPs on which packets are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedPath {
    /// The host's VTEP.
    pub own: IpAddr,
    /// The peer's.
    pub peer: IpAddr,
    /// They are lost on the way to the peer; else on the way back.
    pub is_there: bool,
    /// UDP port of the tunnels.
    pub port: u16,
    /// IP packets of so many bytes get through; 0 if none do.
    pub passes_bytes: u32,
    /// Those of so many are lost.
    pub lost_bytes: u32,
}

impl BlockedPath {
    /// What is lost between hosts of these names, and what is likely to be the cause.
    #[must_use]
    pub fn describe(&self, own: &str, peer: &str) -> String {
        let (own, peer) = ((own, self.own), (peer, self.peer));
        let ((from, from_ip), (to, to_ip)) = if self.is_there { (own, peer) } else { (peer, own) };
        let (port, lost, passes) = (self.port, self.lost_bytes, self.passes_bytes);
        if passes == 0 {
            return format!(
                "{from} -> {to}: nothing of {lost} bytes from {from_ip} arrives at {to_ip} UDP {port}: \
                 a firewall on one of the hosts or between them, or no route?"
            );
        }
        format!(
            "{from} -> {to}: packets of {passes} bytes from {from_ip} arrive at {to_ip} UDP {port}, \
             those of {lost} do not: raise the MTU of all that is between them to {lost}, or lower \
             the networks' MTU"
        )
    }
}

/// What the data plane of a host has counted since its maps were made, and how full it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCounters {
    /// Dropped packets, for each reason that has occurred.
    pub drops: Vec<Reason>,
    /// Packets that the ports that there are sent, and that were let through.
    pub sent_packets: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Packets delivered to these ports.
    pub received_packets: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// How full its maps are.
    pub maps: Vec<Room>,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// Its name in metrics.
    pub reason: String,
    /// A sentence for the operator.
    pub meaning: String,
    /// How many.
    pub packets: u64,
}

/// How full a map is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// The map's name.
    pub map: String,
    /// The version of its layout.
    pub version: u32,
    /// Entries in it.
    pub entries: u64,
    /// Most that it can have.
    pub capacity: u64,
}

impl Room {
    /// How much of it is in use, in percent, rounded up: a map with one entry is not empty.
    #[must_use]
    pub fn percent(&self) -> u64 {
        match self.capacity {
            0 => 0,
            capacity => self.entries.saturating_mul(100).div_ceil(capacity),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_with_one_entry_is_not_empty_and_a_full_one_is_full() {
        let of = |entries, capacity| Room { entries, capacity, ..Room::default() }.percent();
        assert_eq!([of(0, 8), of(1, 100_000), of(7, 8), of(8, 8), of(3, 0)], [0, 1, 88, 100, 0]);
    }
}
