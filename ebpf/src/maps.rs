//! The maps. Keys, values, sizes: `netloom_packet`. The loader pins them by these names.
//!
//! All hash maps are preallocated: an insert under memory pressure must not fail, and a value
//! that is removed stays readable memory for a program that still holds it.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use packet::{
    AddrKey, Bucket, COUNTER_PLACES, Config, EVENTS_BYTES, Fdb, FdbKey, MAX_ADDRS, MAX_FDB,
    MAX_NEIGH, MAX_PORTS, MAX_REASONS, MAX_VTEPS, Meta, Neigh, NeighKey, Packet, Port, PortKey,
    Traffic, VerdictRecord, Vtep, VtepKey,
};

/// Written by the agent. A race with a program: it sees the old value or the new one, copied.
#[map(name = "ports")]
pub(crate) static PORTS: HashMap<PortKey, Port> = HashMap::pinned(MAX_PORTS, 0);

/// Written by the agent.
#[map(name = "addrs")]
pub(crate) static ADDRS: HashMap<AddrKey, u32> = HashMap::pinned(MAX_ADDRS, 0);

/// Written by the agent.
#[map(name = "fdb")]
pub(crate) static FDB: HashMap<FdbKey, Fdb> = HashMap::pinned(MAX_FDB, 0);

/// Written by the agent.
#[map(name = "neigh")]
pub(crate) static NEIGH: HashMap<NeighKey, Neigh> = HashMap::pinned(MAX_NEIGH, 0);

/// Written by the agent.
#[map(name = "vteps")]
pub(crate) static VTEPS: HashMap<VtepKey, Vtep> = HashMap::pinned(MAX_VTEPS, 0);

/// Written by the loader, once per tunnel device.
#[map(name = "config")]
pub(crate) static CONFIG: Array<Config> = Array::pinned(1, 0);

/// The connections, in buckets. Written by the programs on all CPUs; races: `packet::slots`. The
/// loader sets the size. `BPF_F_MMAPABLE` lets the values start at a page, and so each bucket and
/// each slot at a cache line.
#[map(name = "conntrack")]
pub(crate) static CONNTRACK: Array<Bucket> = Array::pinned(1, BPF_F_MMAPABLE);

/// Traffic by `Port::place`. Set to zero by the agent when a port gets the place; per CPU, so
/// there is no race.
#[map(name = "traffic")]
pub(crate) static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::pinned(COUNTER_PLACES, 0);

/// Drops by reason number, per CPU.
#[map(name = "drops")]
pub(crate) static DROPS: PerCpuArray<u64> = PerCpuArray::pinned(MAX_REASONS, 0);

/// Drop events, while `events_wanted`. A full buffer loses the event.
#[map(name = "events")]
pub(crate) static EVENTS: RingBuf = RingBuf::pinned(EVENTS_BYTES, 0);

/// 1 while somebody reads `events`, else 0. Written by the loader.
#[map(name = "events_wanted")]
pub(crate) static EVENTS_WANTED: Array<u32> = Array::pinned(1, 0);

/// Events that found the buffer full, per CPU.
#[map(name = "events_lost")]
pub(crate) static EVENTS_LOST: PerCpuArray<u64> = PerCpuArray::pinned(1, 0);

/// Room for the parsed headers, per CPU. Programs do not interrupt each other on a CPU.
#[map(name = "packet")]
pub(crate) static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);

/// What the test programs take for the frame's metadata. Not pinned: a test's own.
#[map(name = "test_meta")]
pub(crate) static TEST_META: Array<Meta> = Array::with_max_entries(1, 0);

/// What the test programs decided. Not pinned.
#[map(name = "test_verdict")]
pub(crate) static TEST_VERDICT: Array<VerdictRecord> = Array::with_max_entries(1, 0);
