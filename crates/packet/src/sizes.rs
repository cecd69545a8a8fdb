//! Names, default sizes and limits of the eBPF maps: the one place for them.
//!
//! Sizes are fixed when a map is created; the loader may be told others. What happens when a map
//! is full is said at each.

use crate::addr::Mac;

/// Ports of one host. Full: the agent reports the port as failed, it stays closed.
pub const MAX_PORTS: u32 = 4_096;
/// Places for the counters of ports; place 0 belongs to none.
pub const COUNTER_PLACES: u32 = MAX_PORTS + 1;
/// Networks present on one host.
pub const MAX_NETS: u32 = 4_096;
/// Addresses of all ports of one host.
pub const MAX_ADDRS: u32 = 16_384;
/// What netloom does for ports of one host, by address: eight for each port.
pub const MAX_SERVING: u32 = 32_768;
/// MACs of all networks that are present on one host.
pub const MAX_FDB: u32 = 65_536;
/// Stations of all networks present on one host that are being moved, here, away or elsewhere. A
/// power of two.
pub const MAX_MOVES: u32 = 4_096;
/// Addresses that ARP and ND are answered for, over all networks present on one host.
pub const MAX_NEIGH: u32 = 65_536;
/// Prefixes that stations route for, over all networks present on one host.
pub const MAX_PREFIXES: u32 = 16_384;
/// Pairs of VNI and remote VTEP that may send to this host.
pub const MAX_VTEPS: u32 = 16_384;
/// Addresses of members of groups that rules of ports of one host name. This map and the three that
/// follow take memory for what is in them. Full: a change that needs more is refused as a whole, and
/// the agent reports what it is for as not in effect. Ports whose policy it would have changed are
/// closed, as those to come are; all others keep what they have.
pub const MAX_IDENTS: u32 = 262_144;
/// Prefixes in rules, of all rule sets of one host.
pub const MAX_CLASSES: u32 = 131_072;
/// Chapters of all rule sets of one host.
pub const MAX_CHAPTERS: u32 = 65_536;
/// Nodes of their trees, of [`crate::FAN_OUT`] ranges each.
pub const MAX_RANGES: u32 = 65_536;
/// Connections of one bucket of the connection table.
pub const WAYS: usize = 7;
/// Bytes of a bucket.
pub const BUCKET_BYTES: u64 = 512;

/// How large the connection table of a host is. It is made once, in full: no packet ever waits
/// for memory, and what a port has is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackSize {
    /// Ports that have an area of their own. Another one is not made: the agent reports it as
    /// failed.
    pub ports: u32,
    /// Buckets of the area of each port.
    pub port_buckets: u32,
    /// Buckets that all ports share. Full: as said at [`crate::DropReason::ConntrackFull`].
    pub common_buckets: u32,
}

impl ConntrackSize {
    /// Connections that each side of a port may have at once, unless told otherwise.
    pub const DEFAULT_PER_PORT: u32 = 512;
    /// Ports that even a small host has room for.
    const LEAST_PORTS: u32 = 64;
    /// Connections to a bucket, of one side of a port, that find a way even if the other side has
    /// all that it may: see `slots`.
    const PROMISED_PER_BUCKET: u32 = 1;

    /// For a host with so many bytes of memory: about a 256th of it (Cilium takes a 400th for
    /// some smaller maps), three quarters of that for the ports' own areas. `per_port` are the
    /// connections that each side of each port is sure of.
    #[must_use]
    pub const fn of_host(memory_bytes: u64, per_port: u32) -> ConntrackSize {
        let size = ConntrackSize::of_table(memory_bytes / 256, per_port);
        let least = ConntrackSize::LEAST_PORTS;
        if size.ports < least { size.for_ports(least) } else { size }
    }

    /// For a table of about so many bytes, with room for at least one port.
    #[must_use]
    pub const fn of_table(bytes: u64, per_port: u32) -> ConntrackSize {
        let port_buckets = per_port.div_ceil(ConntrackSize::PROMISED_PER_BUCKET);
        let port_buckets = if port_buckets == 0 { 1 } else { port_buckets };
        let ports = bytes / BUCKET_BYTES / 4 * 3 / port_buckets as u64;
        let ports = if ports < MAX_PORTS as u64 { (ports & 0xffff_ffff) as u32 } else { MAX_PORTS };
        ConntrackSize::of_ports(if ports == 0 { 1 } else { ports }, port_buckets)
    }

    /// For so many ports, with a common area of a third of theirs.
    const fn of_ports(ports: u32, port_buckets: u32) -> ConntrackSize {
        let own = ports.saturating_mul(port_buckets);
        ConntrackSize { ports, port_buckets, common_buckets: own / 3 }
    }

    /// As it is, but for so many ports.
    #[must_use]
    pub const fn for_ports(self, ports: u32) -> ConntrackSize {
        ConntrackSize::of_ports(ports, self.port_buckets)
    }

    /// All buckets.
    #[must_use]
    pub const fn buckets(&self) -> u32 {
        self.ports.saturating_mul(self.port_buckets).saturating_add(self.common_buckets)
    }

    /// Connections that each side of a port is sure of, if its peers are several.
    #[must_use]
    pub const fn per_port(&self) -> u32 {
        self.port_buckets * ConntrackSize::PROMISED_PER_BUCKET
    }
}

/// Places of the flow cache of each CPU, and of that of all together, as a power of two: 512 KiB.
pub const FLOW_BITS: u32 = 12;
/// Places of the flow cache of each CPU. Full: a newer flow takes the place of an older one.
pub const FLOWS: u32 = 1 << FLOW_BITS;

/// Packets in fragments that are on their way at once, of one side of a port, and yet need not wait
/// for each other. One more takes the place of an older one, whose last fragments may be lost.
pub const FRAGMENTS_EACH: u32 = 128;
/// The same of both sides: 4 KiB.
pub const FRAGMENTS_PER_PORT: u32 = 2 * FRAGMENTS_EACH;

/// Bytes of the ring buffer of drop events, which are written while somebody reads them. Full:
/// the event is lost and counted.
pub const EVENTS_BYTES: u32 = 256 * 1_024;
/// Bytes of a dropped frame that an event carries.
pub const EVENT_HEADER_BYTES: usize = 64;
/// Bytes of the ring buffer of connections that ports tell of: 3,640. Full: the port counts it, and says
/// so with the next one.
pub const TOLD_BYTES: u32 = 256 * 1_024;
/// Connections that one port tells of in a window of [`crate::Budget`], a good second.
pub const TOLD_PER_WINDOW: u32 = 256;
/// Bytes of the ring buffer of frames for the agent: 168 of the longest. Full: the frame is dropped
/// and counted.
pub const HANDED_BYTES: u32 = 256 * 1_024;
/// Bytes of the longest frame that is handed to the agent.
pub const HANDED_FRAME_BYTES: usize = 1_536;
/// Frames that one port may hand off in a window of `hand_off`. A client of DHCP sends two at its
/// start, and repeats them after seconds (RFC 2131, 4.1).
pub const HANDED_PER_WINDOW: u32 = 8;
/// Bytes of the ring buffer of what else ports ask the agent: 336 of the longest. Full: the frame is
/// dropped and counted.
pub const ASKED_BYTES: u32 = 512 * 1_024;
/// Frames that one port may ask the agent in a window of [`ASKED_WINDOW_BITS`]: 476 in a second, and
/// never so many at once that no other port finds room.
pub const ASKED_PER_WINDOW: u32 = 32;
/// Bits of that window, in nanoseconds: 67 ms.
pub const ASKED_WINDOW_BITS: u32 = 26;
/// The MAC of netloom itself, in every network: locally administered (IEEE 802). What is sent to it
/// never leaves the host.
pub const SERVICE_MAC: Mac = Mac([0x02, 0x6e, 0x65, 0x74, 0x6c, 0x6d]);
/// Ports that one flooded frame reaches at most, of one network on one host. Copies of it are made
/// one after the other, and the host does nothing else meanwhile. More: the others do not get it.
/// ARP and ND for a port here are no matter of this: they go to that port alone.
pub const FLOOD_TARGETS: u32 = 256;
/// VTEPs that one flooded frame is sent to at most, of one network. More: the others do not get it.
pub const FLOOD_VTEPS: u32 = 256;
/// Networks of one host that learn where strangers are. Of one more, all that is for strangers is
/// flooded to its foreign VTEPs.
pub const LEARNING_NETS: u16 = 64;
/// MACs that one network learns. Full: what is for others is flooded to its foreign VTEPs.
pub const LEARNED_PER_NET: u32 = 1_024;
/// Slots of the array of those: 2 MiB.
pub const LEARNED_SLOTS: u32 = LEARNING_NETS as u32 * LEARNED_PER_NET;
/// How long a MAC is remembered that is not heard of, in ticks: 300 s, as Linux bridges do (the
/// default of `ageing_time`, IEEE 802.1D-2004, table 7-5).
pub const LEARNED_TICKS: u32 = 280;
/// Frames that one port may have flooded in a window of [`crate::Budget`]. Enough to ask for each
/// address of a /24 once.
pub const FLOODS_PER_PORT: u32 = 256;
/// Frames from elsewhere that are flooded to the ports of a network here in a window.
pub const FLOODS_PER_NET: u32 = 1_024;
/// Slots of the array of these budgets. Networks whose numbers are alike modulo [`MAX_NETS`] share
/// one.
pub const FLOOD_BUDGETS: u32 = COUNTER_PLACES + MAX_NETS;
/// Slots of the array of drop counters, one per reason number.
pub const MAX_REASONS: u32 = 64;

/// Mark on a frame that netloom delivers to a port by way of the port's own egress hook.
///
/// The programs set it right before a plain redirect; [`crate::to_port`] lets only marked frames
/// pass and clears it. A tenant cannot set it: a frame from a port never leaves unmodified, and
/// the kernel clears the mark of a frame that crosses network namespaces.
pub const DELIVERED_MARK: u32 = 0x6e65_744c;

/// What an outer packet has around a frame: IPv4, UDP and VXLAN headers.
pub const OUTER_BYTES: u32 = 20 + 8 + 8;
/// The same of GRE: IPv4 header, and a GRE header with a key.
pub const GRE_OUTER_BYTES: u32 = 20 + 8;

/// Set in a VNI, which has 24 bits, where frames are in GRE with that key, and not in VXLAN. So a
/// frame in the one is never taken for one in the other.
pub const GRE: u32 = 1 << 24;

/// Hop limit of the outer header of tunnelled frames.
pub const TUNNEL_TTL: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_areas_of_all_ports_are_in_the_table() {
        for memory in [0, 1 << 30, 4 << 30, 24 << 30, 1 << 40, u64::MAX] {
            let size = ConntrackSize::of_host(memory, ConntrackSize::DEFAULT_PER_PORT);
            assert_eq!(size.buckets(), size.ports * size.port_buckets + size.common_buckets);
            assert!((64..=MAX_PORTS).contains(&size.ports), "{size:?}");
            assert!(size.per_port() >= ConntrackSize::DEFAULT_PER_PORT, "{size:?}");
            let bytes = u64::from(size.buckets()) * BUCKET_BYTES;
            assert!(bytes <= (memory / 256).max(22 << 20), "{size:?} takes {bytes}");
        }
        let host = ConntrackSize::of_host(24 << 30, ConntrackSize::DEFAULT_PER_PORT);
        assert_eq!((host.ports, host.port_buckets, host.common_buckets), (288, 512, 49_152));
    }
}
