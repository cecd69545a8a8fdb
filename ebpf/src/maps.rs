//! The maps. Keys, values, sizes, versions: the `maps!` table of `netloom_packet`. The loader pins
//! them by their names, which have the version: `ports_4`.
//!
//! All hash maps are preallocated: an insert under memory pressure must not fail, and a value
//! that is removed stays readable memory for a program that still holds it. The agent writes the
//! filled ones; a program that races with it sees the old value or the new one, copied.
//!
//! But for those that may have many entries and mostly have few (`sparse`, `BPF_F_NO_PREALLOC`): what
//! rules say, and to whom. The programs only read them, user space alone writes. There an insert may
//! fail where memory is short: the agent tells why and tries again, and until then who needs the entry
//! is let nothing pass. What is removed may become another entry of the map while a program still
//! reads it. That changes the verdict of a packet or two, as if they had come a moment later or
//! earlier, and is not remembered: nothing is removed that is in use before the generation of the
//! ports, or the count of changes of members, is another one (`Removed::Last`, `Config::members`), and
//! a verdict is noted under what was there before it was asked for.
//!
//! The kernel preallocates no trie (`BPF_F_NO_PREALLOC`). Where memory is short, an insert fails:
//! the agent tells why and tries again, and until then the prefix lets nothing pass. A value that is
//! removed is freed once no program runs that may have seen it (RCU).

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use packet::{FLOWS, Flow, Meta, Packet, VerdictRecord};

/// Makes every map of the table. As aya's `map` does it, whose name must be a literal.
macro_rules! make {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident $version:literal:
                $shape:ident $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept {$(
            $(#[$kept_doc:meta])*
            $kept:ident $kept_constant:ident $kept_version:literal:
                $kind:ident $held:ty, $size:expr;
        )*}
    ) => {
        $(make! { $(#[$doc])* $name $constant $version $shape [$key, $value] $entries })*
        $(make! { $(#[$kept_doc])* $kept $kept_constant $kept_version $kind [$held] $size })*
    };
    ($(#[$doc:meta])* $name:ident $constant:ident $version:literal hash [$($type:ty),*] $entries:expr) => {
        make! { $(#[$doc])* $name $constant $version = HashMap<$($type),*>, $entries, 0 }
    };
    ($(#[$doc:meta])* $name:ident $constant:ident $version:literal sparse [$($type:ty),*] $entries:expr) => {
        make! { $(#[$doc])* $name $constant $version = HashMap<$($type),*>, $entries, BPF_F_NO_PREALLOC }
    };
    // The key as aya has it: the number of bits, and bytes.
    ($(#[$doc:meta])* $name:ident $constant:ident $version:literal lpm [$key:ty, $value:ty] $entries:expr) => {
        make! { $(#[$doc])* $name $constant $version
            = LpmTrie<[u8; size_of::<$key>() - size_of::<u32>()], $value>, $entries, 0 }
    };
    ($(#[$doc:meta])* $name:ident $constant:ident $version:literal array [$($type:ty),*] $entries:expr) => {
        make! { $(#[$doc])* $name $constant $version = Array<$($type),*>, $entries, 0 }
    };
    ($(#[$doc:meta])* $name:ident $constant:ident $version:literal paged [$($type:ty),*] $entries:expr) => {
        make! { $(#[$doc])* $name $constant $version = Array<$($type),*>, $entries, BPF_F_MMAPABLE }
    };
    ($(#[$doc:meta])* $name:ident $constant:ident $version:literal per_cpu [$($type:ty),*] $entries:expr) => {
        make! { $(#[$doc])* $name $constant $version = PerCpuArray<$($type),*>, $entries, 0 }
    };
    ($(#[$doc:meta])* $name:ident $constant:ident $version:literal ring [$($type:ty),*] $bytes:expr) => {
        make! { $(#[$doc])* $name $constant $version = RingBuf, $bytes, 0 }
    };
    ($(#[$doc:meta])* $name:ident $constant:ident $version:literal = $map:ty, $size:expr, $bits:expr) => {
        $(#[$doc])*
        #[unsafe(link_section = "maps")]
        #[unsafe(export_name = concat!(stringify!($name), "_", $version))]
        pub(crate) static $constant: $map = <$map>::pinned($size, $bits);
    };
}
packet::maps!(make);

/// The flow cache: `FLOWS` places of all CPUs together, then as many for each of them, which the
/// loader multiplies. One array, as the values of a per-CPU map start anywhere in a cache line. Not pinned: it is nobody else's.
#[map(name = "flows")]
pub(crate) static FLOW_CACHE: Array<Flow> = Array::with_max_entries(FLOWS, BPF_F_MMAPABLE);

/// Room for what is known of a frame: it spares the stack, which has 512 bytes.
pub(crate) struct Room {
    /// What is known without looking inside.
    pub(crate) meta: Meta,
    /// The parsed headers.
    pub(crate) packet: Packet,
    /// What the test programs tell of a verdict.
    pub(crate) record: VerdictRecord,
}

/// The room of each CPU. Programs do not interrupt each other on a CPU.
#[map(name = "room")]
pub(crate) static ROOM: PerCpuArray<Room> = PerCpuArray::with_max_entries(1, 0);

/// What the test programs take for the frame's metadata. Not pinned: a test's own.
#[map(name = "test_meta")]
pub(crate) static TEST_META: Array<Meta> = Array::with_max_entries(1, 0);

/// What the test programs decided. Not pinned.
#[map(name = "test_verdict")]
pub(crate) static TEST_VERDICT: Array<VerdictRecord> = Array::with_max_entries(1, 0);
