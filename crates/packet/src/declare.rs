//! The eBPF maps, each declared once.
//!
//! Whoever needs something for every map hands the table to a macro of its own: `ebpf/` makes the
//! maps, `dataplane` opens, fills, compares and reads them, the agent counts who wants an entry.

/// Hands the table of maps to the macro with this name.
///
/// Each has its name in user space and, in capitals, in the programs. *Filled* maps hold what the
/// agent wants, and are hash maps: `Key => Value, entries`. They stand in the order in which
/// entries are added, from the far end of a packet's way to the near one. `removed Last` says that
/// what goes stays until everything that comes is there, so that traffic which goes on has an entry
/// at any time; `removed First` says that two owners of one thing must never be there together.
///
/// *Kept* maps hold what the programs count and remember, or what the loader tells them.
#[macro_export]
macro_rules! maps {
    ($then:ident) => {
        $then! {
            filled {
                /// VTEPs that may send, and the network they then send into.
                vteps VTEPS: $crate::VtepKey => $crate::Vtep, $crate::MAX_VTEPS, removed Last;
                /// Stations of the networks present.
                fdb FDB: $crate::FdbKey => $crate::Fdb, $crate::MAX_FDB, removed Last;
                /// Addresses that ARP and ND are answered for.
                neigh NEIGH: $crate::NeighKey => $crate::Neigh, $crate::MAX_NEIGH, removed Last;
                /// Addresses that ports may use as source. The value is 1.
                addrs ADDRS: $crate::AddrKey => u32, $crate::MAX_ADDRS, removed First;
                /// Ports by interface. A port that is attached and not listed drops everything.
                ports PORTS: $crate::PortKey => $crate::Port, $crate::MAX_PORTS, removed First;
            }
            kept {
                /// Written by the loader, once per tunnel device.
                config CONFIG: array $crate::Config, 1;
                /// Index of the connections. Written by the programs on all CPUs; races:
                /// `packet::slots`. As many entries as `ct_slots`, both set by the loader.
                ct CT: hash $crate::CtKey => u32, $crate::DEFAULT_CONNTRACK_ENTRIES;
                /// The connections. Written by the programs on all CPUs; races:
                /// `packet::conntrack`.
                ct_slots CT_SLOTS: array $crate::CtSlot, $crate::DEFAULT_CONNTRACK_ENTRIES;
                /// Counts the walks over `ct_slots`, so that no two start alike. Moved by atomic
                /// adds only.
                ct_hand CT_HAND: array u32, 1;
                /// Connections by port number. Entries made and removed by the agent, together
                /// with the port; changed by the programs, by atomic adds only.
                ct_used CT_USED: hash u32 => i64, $crate::MAX_PORTS;
                /// Traffic by `Port::place`. Set to zero by the agent when a port gets the place;
                /// per CPU, so there is no race.
                traffic TRAFFIC: per_cpu $crate::Traffic, $crate::COUNTER_PLACES;
                /// Drops by reason number, per CPU.
                drops DROPS: per_cpu u64, $crate::MAX_REASONS;
                /// Drop events, while `events_wanted`. A full buffer loses the event.
                events EVENTS: ring $crate::DropEvent, $crate::EVENTS_BYTES;
                /// 1 while somebody reads `events`, else 0. Written by the loader.
                events_wanted EVENTS_WANTED: array u32, 1;
                /// Events that found the buffer full, per CPU.
                events_lost EVENTS_LOST: per_cpu u64, 1;
            }
        }
    };
}
