//! Names, default sizes and limits of the eBPF maps: the one place for them.
//!
//! Sizes are fixed when a map is created; the loader may be told others. What happens when a map
//! is full is said at each.

/// Version of every layout in this crate. A change of a key, a value or a map's kind raises it,
/// and with it the directory in which the maps are pinned.
pub const LAYOUT_VERSION: u32 = 3;

/// Ports of one host. Full: the agent reports the port as failed, it stays closed.
pub const MAX_PORTS: u32 = 4_096;
/// Places for the counters of ports; place 0 belongs to none.
pub const COUNTER_PLACES: u32 = MAX_PORTS + 1;
/// Addresses of all ports of one host.
pub const MAX_ADDRS: u32 = 16_384;
/// MACs of all networks that are present on one host.
pub const MAX_FDB: u32 = 65_536;
/// Addresses that ARP and ND are answered for, over all networks present on one host.
pub const MAX_NEIGH: u32 = 65_536;
/// Pairs of VNI and remote VTEP that may send to this host.
pub const MAX_VTEPS: u32 = 16_384;
/// Connections of all ports of one host. Full: a new connection is dropped as `ConntrackFull`.
pub const DEFAULT_CONNTRACK_ENTRIES: u32 = 65_536;
/// Connections of one port at most. Full: a new connection is dropped as `ConntrackPortBudget`. An
/// eighth of it is for connections that the port opens itself.
pub const DEFAULT_CONNTRACK_BUDGET: u32 = 16_384;
/// Connections that each of so many ports may hold, on a host with the default table: so many
/// that all ports together never fill it, or one tenant's ports could keep another's from opening
/// any. In powers of two, so that a change of the number rarely changes the ports.
#[must_use]
pub const fn conntrack_budget(ports: u32) -> u32 {
    let ports = if ports < MAX_PORTS { ports } else { MAX_PORTS };
    let share = DEFAULT_CONNTRACK_ENTRIES / ports.next_power_of_two();
    if share < DEFAULT_CONNTRACK_BUDGET { share } else { DEFAULT_CONNTRACK_BUDGET }
}

/// Bytes of the ring buffer of drop events, which are written while somebody reads them. Full:
/// the event is lost and counted.
pub const EVENTS_BYTES: u32 = 256 * 1_024;
/// Bytes of a dropped frame that an event carries.
pub const EVENT_HEADER_BYTES: usize = 64;
/// Slots of the array of drop counters, one per reason number.
pub const MAX_REASONS: u32 = 64;

/// Mark on a frame that netloom delivers to a port by way of the port's own egress hook.
///
/// The programs set it right before a plain redirect; [`crate::to_port`] lets only marked frames
/// pass and clears it. A tenant cannot set it: a frame from a port never leaves unmodified, and
/// the kernel clears the mark of a frame that crosses network namespaces.
pub const DELIVERED_MARK: u32 = 0x6e65_744c;

/// Hop limit of the outer header of tunnelled frames.
pub const TUNNEL_TTL: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budgets_of_all_ports_fit_into_the_table() {
        for ports in 1..=MAX_PORTS {
            let budget = conntrack_budget(ports);
            assert!(budget * ports <= DEFAULT_CONNTRACK_ENTRIES, "{ports} ports");
            assert!((16..=DEFAULT_CONNTRACK_BUDGET).contains(&budget), "{ports} ports");
        }
    }
}
