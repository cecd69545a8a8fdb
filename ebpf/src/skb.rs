//! [`packet::Kernel`] over a socket buffer and the maps.
//!
//! Headers are read straight from the frame where they lie in its linear part, and otherwise with
//! `bpf_skb_load_bytes`, which reads anything: about a fifth less time per packet than the helper
//! alone (`packet_cost` of `netloom-dataplane`).

use crate::maps::{
    ADDRS, AFAR, ANSWERS, ARRIVED, BEHIND, BUDGETS, CHAPTERS, CLASSES, CONFIG, CONNTRACK, CROWDED,
    DROPS, EVENTS, EVENTS_LOST, EVENTS_WANTED, FDB, FLOODS, FLOW_CACHE, FRAGMENTS, IDENTS, LEARNED,
    MOVES, NEIGH, NETS, PORTS, RANGES, REQUESTS, ROOM, Room, SERVING, SHARERS, TELLING, TIMEOUTS,
    TOLD, TRAFFIC, VTEPS, WIRES,
};
use crate::underlay;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_TUNINFO_IPV6, bpf_tunnel_key,
};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_l3_csum_replace, bpf_l4_csum_replace,
    bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_get_tunnel_key, bpf_skb_load_bytes,
    bpf_skb_store_bytes,
};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::marker::PhantomPinned;
use core::mem::MaybeUninit;
use core::ptr::from_ref;
use packet::{
    Addr, AddrKey, Afar, Behind, Bucket, Budget, Chapter, ChapterKey, ClassKey, Config, Covered,
    CtSlot, Direction, Drop, DropEvent, EVENT_HEADER_BYTES, FLOWS, Fdb, FdbKey, FloodKey, Flow,
    FlowEvent, IdentKey, Kernel, Learned, Meta, Move, Neigh, NeighKey, Net, NextHop, Node, Noted,
    Port, PortKey, PrefixKey, Serving, Sharer, SharerKey, Source, Timeout, Told, Traffic, Vtep,
    VtepKey, WAYS, Wire,
};

/// For the helpers that change a checksum: what has changed is a word of four bytes.
const WORD: u64 = 4;
/// `BPF_F_IPV6` of `linux/bpf.h`, from Linux 6.16 on: no header checksum makes up for the change of an
/// address, so what a card has summed changes, too.
const IPV6: u64 = 1 << 7;
/// Offsets above this one are left to the helper. One less than a power of two.
const MAX_LINEAR_OFFSET: u32 = 0xfff;

/// The frame that a program runs on: what the context pointer points to, of which nothing is read or
/// written but through [`Skb::raw`]. A reference to it is the pointer itself, so that a function that
/// takes one can be checked by itself (see the loader's `functions`), and none keeps it on the stack.
#[repr(C)]
pub(crate) struct Skb {
    context: UnsafeCell<[u8; 0]>,
    pinned: PhantomPinned,
}

impl Skb {
    /// The frame of a program.
    #[inline(always)]
    pub(crate) fn of(ctx: &TcContext) -> &mut Skb {
        // SAFETY: the context pointer that the kernel gave the program; it lives as long as that. The
        // type has no bytes, so no two references to it are to the same memory.
        unsafe { &mut *ctx.skb.skb.cast() }
    }

    /// The context pointer.
    #[inline(always)]
    pub(crate) fn raw(&self) -> *mut __sk_buff {
        from_ref(self).cast_mut().cast()
    }

    /// What the kernel knows about the frame, without its tunnel.
    #[inline(always)]
    pub(crate) fn meta(&self) -> Meta {
        // SAFETY: the context pointer that the kernel gave the program; it lives as long as that.
        let skb = unsafe { &*self.raw() };
        Meta {
            // SAFETY: a helper without arguments.
            now_ns: unsafe { bpf_ktime_get_coarse_ns() },
            ifindex: skb.ifindex,
            length: skb.len,
            mark: skb.mark,
            vlan: vlan(skb),
            // 16 bits in the kernel.
            gso_size: skb.gso_size as u16,
            ..Meta::default()
        }
    }

    /// Where a `T` at `offset` lies in the linear part of the frame; `None` if not all of it does.
    #[inline(always)]
    fn linear<T>(&self, offset: u32) -> Option<*const T> {
        // SAFETY: the context pointer that the kernel gave the program.
        let (data, end) = unsafe { ((*self.raw()).data as usize, (*self.raw()).data_end as usize) };
        // The verifier wants to see a bound of the offset; headers lie far below it.
        let start = data + (offset & MAX_LINEAR_OFFSET) as usize;
        if offset > MAX_LINEAR_OFFSET || start + size_of::<T>() > end {
            return None;
        }
        Some(start as *const T)
    }

    /// Adds the tunnel that the frame came out of, if it did.
    #[inline(always)]
    pub(crate) fn add_tunnel(&self, meta: &mut Meta) {
        let mut key = MaybeUninit::<bpf_tunnel_key>::zeroed();
        let size = size_of::<bpf_tunnel_key>() as u32;
        // SAFETY: the helper writes at most `size` bytes to a buffer of that size.
        if unsafe { bpf_skb_get_tunnel_key(self.raw(), key.as_mut_ptr(), size, 0) } == 0 {
            // SAFETY: all bytes were zero before, any bytes are a valid value.
            let key = unsafe { key.assume_init_ref() };
            // SAFETY: without the IPv6 flag the helper filled this member, in host order.
            let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
            // SAFETY: as above.
            let local = unsafe { key.__bindgen_anon_3.local_ipv4 };
            meta.vtep = Addr::v4(remote.to_be_bytes());
            meta.local = Addr::v4(local.to_be_bytes());
            meta.vni = key.tunnel_id;
            meta.tunnelled = 1;
            return;
        }
        let flags = u64::from(BPF_F_TUNINFO_IPV6);
        // SAFETY: as above.
        if unsafe { bpf_skb_get_tunnel_key(self.raw(), key.as_mut_ptr(), size, flags) } == 0 {
            // SAFETY: as above.
            let key = unsafe { key.assume_init_ref() };
            // SAFETY: with the IPv6 flag the helper filled this member, in network order.
            let words = unsafe { key.__bindgen_anon_1.remote_ipv6 };
            // SAFETY: as above.
            let local = unsafe { key.__bindgen_anon_3.local_ipv6 };
            let vtep = Addr::from_words(words);
            // An IPv6 packet from `::ffff:a.b.c.d` does not come from the VTEP a.b.c.d.
            meta.vtep = if vtep.as_v4().is_none() { vtep } else { Addr::UNSPECIFIED_V6 };
            meta.local = Addr::from_words(local);
            meta.vni = key.tunnel_id;
            meta.tunnelled = 1;
        }
    }
}

/// [`Meta::vlan`]. The priority in a tag does not matter.
#[inline(always)]
fn vlan(skb: &__sk_buff) -> u16 {
    /// ETH_P_8021Q, as `vlan_proto` has it.
    const DOT1Q: u32 = 0x8100_u16.to_be() as u32;
    match (skb.vlan_present, skb.vlan_proto, skb.vlan_tci & 0xfff) {
        (0, _, _) => 0,
        (_, DOT1Q, vlan @ 1..=4094) => vlan as u16,
        _ => Meta::OTHER_TAG,
    }
}

/// Reads words of a frame, each with one instruction, wherever they lie. BPF asks for no alignment
/// in a frame on machines that need none; the compiler does not know, and would read bytes.
///
/// # Safety
/// All of them are in the linear part of the frame.
#[inline(always)]
unsafe fn read_words<const N: usize>(words: *const [u32; N]) -> [u32; N] {
    let mut read = [0; N];
    let mut at = 0;
    while at < N {
        let word: u64;
        // SAFETY: the caller's. The instruction is what the compiler makes of an aligned read.
        unsafe {
            asm!(
                "{word} = *(u32 *)({from} + 0)",
                word = out(reg) word,
                from = in(reg) words.cast::<u32>().add(at),
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        read[at] = word as u32;
        at += 1;
    }
    read
}

/// The room of this CPU.
#[inline(always)]
pub(crate) fn room() -> Option<&'static mut Room> {
    // SAFETY: per-CPU memory that lives as long as the map; a program is not interrupted by
    // another one on its CPU, and asks once.
    ROOM.get_ptr_mut(0).map(|room| unsafe { &mut *room })
}

/// Where the word of a way is.
#[inline(always)]
fn word(way: u32) -> Option<*mut u64> {
    let bucket = CONNTRACK.get_ptr_mut(way >> 3)?;
    // SAFETY: the pointer to a value of the map, all of which is there.
    let words = unsafe { &raw mut (*bucket).words };
    let way = (way & 7) as usize;
    // SAFETY: within the words.
    if way < WAYS { Some(unsafe { words.cast::<u64>().add(way) }) } else { None }
}

/// A copy of a map's value.
macro_rules! lookup {
    ($map:ident, $key:expr) => {
        // SAFETY: the maps are preallocated, so the memory stays; a value that the agent replaces
        // meanwhile is read word by word, and every word of it is valid on its own.
        unsafe { $map.get($key) }.copied()
    };
}

impl Kernel for Skb {
    #[inline(always)]
    fn is_given(&self) {
        // SAFETY: no instruction, which wants the pointer in a register.
        unsafe { asm!("/* {0} */", in(reg) self.raw(), options(nomem, nostack, preserves_flags)) };
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        if let Some(bytes) = self.linear::<[u8; N]>(offset) {
            // SAFETY: `linear` checked that all of it is in the frame.
            return Some(unsafe { bytes.read_unaligned() });
        }
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes exactly `N` bytes or fails.
        let failed = unsafe {
            bpf_skb_load_bytes(self.raw().cast(), offset, bytes.as_mut_ptr().cast(), N as u32)
        };
        // SAFETY: written, as the helper did not fail.
        if failed == 0 { Some(unsafe { bytes.assume_init() }) } else { None }
    }

    #[inline(always)]
    fn peek_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        // SAFETY: `linear` checked that all of it is in the frame.
        self.linear::<[u32; N]>(offset).map(|words| unsafe { read_words(words) })
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        if let Some(words) = self.linear::<[u32; N]>(offset) {
            // SAFETY: `linear` checked that all of it is in the frame.
            return Some(unsafe { read_words(words) });
        }
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        let size = (N * size_of::<u32>()) as u32;
        // SAFETY: the helper writes exactly `size` bytes, those of `N` words, or fails.
        let failed = unsafe {
            bpf_skb_load_bytes(self.raw().cast(), offset, words.as_mut_ptr().cast(), size)
        };
        // SAFETY: written, as the helper did not fail.
        if failed == 0 { Some(unsafe { words.assume_init() }) } else { None }
    }

    #[inline(always)]
    fn store_words<const N: usize>(&mut self, offset: u32, words: &[u32; N]) -> bool {
        let size = (N * size_of::<u32>()) as u32;
        // SAFETY: the helper reads exactly `size` bytes, those of `N` words.
        unsafe { bpf_skb_store_bytes(self.raw(), offset, words.as_ptr().cast(), size, 0) == 0 }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> bool {
        // SAFETY: the helper reads exactly `N` bytes.
        unsafe { bpf_skb_store_bytes(self.raw(), offset, bytes.as_ptr().cast(), N as u32, 0) == 0 }
    }

    #[inline(always)]
    fn replace_l3(&mut self, checksum: u32, from: u32, to: u32) -> bool {
        // SAFETY: the context pointer, and numbers.
        unsafe {
            bpf_l3_csum_replace(self.raw(), checksum, u64::from(from), u64::from(to), WORD) == 0
        }
    }

    #[inline(always)]
    fn replace_l4(&mut self, covered: Covered, from: u32, to: u32) -> bool {
        let (from, to) = (u64::from(from), u64::from(to));
        let mut flags = WORD;
        if covered.is_pseudo {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if covered.may_be_absent {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        // SAFETY: the context pointer, and numbers.
        let replace = |flags| unsafe {
            bpf_l4_csum_replace(self.raw(), covered.checksum, from, to, flags) == 0
        };
        // A kernel that does not know the flag refuses it, and has done nothing.
        if covered.is_pseudo && covered.is_v6 && replace(flags | IPV6) {
            return true;
        }
        replace(flags)
    }

    #[inline(always)]
    fn quote(&mut self, kept: u32, room: u32) -> bool {
        // SAFETY: the context pointer, and numbers.
        let cut = unsafe { bpf_skb_change_tail(self.raw(), kept, 0) };
        // SAFETY: as above.
        cut == 0
            && unsafe { bpf_skb_adjust_room(self.raw(), room as i32, BPF_ADJ_ROOM_MAC, 0) } == 0
    }

    #[inline(always)]
    fn config(&self) -> Option<Config> {
        CONFIG.get(0).copied()
    }

    #[inline(always)]
    fn port(&self, key: &PortKey) -> Option<Port> {
        lookup!(PORTS, key)
    }

    #[inline(always)]
    fn addr_allowed(&self, key: &AddrKey) -> bool {
        ADDRS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn source(&self, key: &AddrKey) -> Option<Source> {
        lookup!(ADDRS, key)
    }

    #[inline(always)]
    fn serving(&self, key: &AddrKey) -> Option<Serving> {
        lookup!(SERVING, key)
    }

    #[inline(always)]
    fn fdb(&self, key: &FdbKey) -> Option<Fdb> {
        lookup!(FDB, key)
    }

    #[inline(always)]
    fn moving(&self, key: &FdbKey) -> Option<Move> {
        lookup!(MOVES, key)
    }

    #[inline(always)]
    fn arrived(&mut self, place: u32) -> Option<&mut u64> {
        // SAFETY: array memory lives as long as the map. Each place is an aligned word, and
        // `packet::moves` says why a race for it is harmless.
        ARRIVED.get_ptr_mut(place).map(|word| unsafe { &mut *word })
    }

    #[inline(always)]
    fn neigh(&self, key: &NeighKey) -> Option<Neigh> {
        lookup!(NEIGH, key)
    }

    #[inline(always)]
    fn behind(&self, key: &PrefixKey) -> Option<Behind> {
        let key: *const PrefixKey = key;
        // SAFETY: aya's form of the same bytes, which may start anywhere.
        BEHIND.get(unsafe { &*key.cast::<Key<_>>() }).copied()
    }

    #[inline(always)]
    fn sharer(&self, key: &SharerKey) -> Option<Sharer> {
        lookup!(SHARERS, key)
    }

    #[inline(always)]
    fn net(&self, number: u32) -> Option<Net> {
        lookup!(NETS, &number)
    }

    #[inline(always)]
    fn wire(&self, key: &PortKey) -> Option<Wire> {
        lookup!(WIRES, key)
    }

    #[inline(always)]
    fn vtep(&self, key: &VtepKey) -> Option<Vtep> {
        lookup!(VTEPS, key)
    }

    #[inline(always)]
    fn node(&self, key: u64) -> Option<&Node> {
        // SAFETY: the memory stays as long as the program runs. What `maps` says of a node that is
        // removed meanwhile holds; each of its fields is aligned.
        unsafe { RANGES.get(&key) }
    }

    #[inline(always)]
    fn chapter(&self, key: &ChapterKey) -> Option<Chapter> {
        lookup!(CHAPTERS, key)
    }

    #[inline(always)]
    fn class(&self, key: &ClassKey) -> Option<u32> {
        let key: *const ClassKey = key;
        // SAFETY: aya's form of the same bytes, which may start anywhere.
        CLASSES.get(unsafe { &*key.cast::<Key<_>>() }).copied()
    }

    #[inline(always)]
    fn ident(&self, key: &IdentKey) -> Option<u64> {
        lookup!(IDENTS, key)
    }

    #[inline(always)]
    fn timeout(&self, timeout: Timeout) -> u32 {
        TIMEOUTS.get(timeout as u32).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn noted(&mut self, number: u32) -> Option<&mut Noted> {
        // SAFETY: array memory lives as long as the map. Other CPUs may write the same place; each
        // of its two words is aligned, and `packet::fragments` says why a mix is harmless.
        FRAGMENTS.get_ptr_mut(number).map(|noted| unsafe { &mut *noted })
    }

    #[inline(always)]
    fn ct_bucket(&mut self, number: u32) -> Option<&mut Bucket> {
        // SAFETY: array memory lives as long as the map. Other CPUs may write the same bucket; each
        // field is an aligned word or byte, so no read is torn, and `packet::slots` and
        // `packet::conntrack` say why every mix of two writers is harmless.
        CONNTRACK.get_ptr_mut(number).map(|bucket| unsafe { &mut *bucket })
    }

    #[inline(always)]
    fn ct_slot(&mut self, way: u32) -> Option<&mut CtSlot> {
        self.ct_bucket(way >> 3)?.slots.get_mut((way & 7) as usize)
    }

    #[inline(always)]
    fn ct_word(&self, way: u32) -> u64 {
        match word(way) {
            // SAFETY: an aligned word of map memory, which lives as long as the map. Volatile: it
            // may have changed since the last look.
            Some(word) => unsafe { word.read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn ct_swap(&mut self, way: u32, seen: u64, new: u64) -> bool {
        const SEQ: AtomicOrdering = AtomicOrdering::SeqCst;
        let Some(word) = word(way) else { return false };
        // SAFETY: an aligned word of map memory, only ever changed atomically.
        unsafe { atomic_cxchg::<u64, SEQ, SEQ>(word, seen, new).1 }
    }

    #[inline(always)]
    fn next_hop(&self, vtep: &Addr, local: &Addr) -> Option<NextHop> {
        let port = CONFIG.get(0)?.direct_port;
        if port == 0 { None } else { underlay::next_hop(self, vtep, local) }
    }

    #[inline(always)]
    fn flow(&mut self, place: u32) -> Option<&mut Flow> {
        // SAFETY: a helper without arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        // SAFETY: array memory lives as long as the map. Its places are of this CPU, on which a
        // program is not interrupted by another one.
        FLOW_CACHE.get_ptr_mut((cpu + 1) * FLOWS + place).map(|flow| unsafe { &mut *flow })
    }

    #[inline(always)]
    fn flows(&mut self, place: u32) -> Option<(&mut Flow, &mut Flow)> {
        // The first places are those of all CPUs.
        let shared = FLOW_CACHE.get_ptr_mut(place & (FLOWS - 1))?;
        // SAFETY: as in `flow`. Other CPUs may write the same place; each field is aligned, and
        // `packet::flow` says how it knows a mix of two writers.
        Some((self.flow(place)?, unsafe { &mut *shared }))
    }

    #[inline(always)]
    fn afar(&self, key: &FloodKey) -> Option<Afar> {
        lookup!(AFAR, key)
    }

    #[inline(always)]
    fn learned(&mut self, slot: u32) -> Option<&mut Learned> {
        // SAFETY: the memory of a map's value, which lives as long as the program. CPUs race for it:
        // see `packet::learned`.
        LEARNED.get_ptr_mut(slot).map(|slot| unsafe { &mut *slot })
    }

    #[inline(always)]
    fn budget(&mut self, place: u32) -> Option<&mut Budget> {
        // SAFETY: array memory lives as long as the map. Both fields are aligned words, and a race
        // costs a count.
        BUDGETS.get_ptr_mut(place).map(|budget| unsafe { &mut *budget })
    }

    #[inline(always)]
    fn requests(&mut self, place: u32) -> Option<&mut Budget> {
        // SAFETY: as above.
        REQUESTS.get_ptr_mut(place).map(|budget| unsafe { &mut *budget })
    }

    #[inline(always)]
    fn answer_mark(&self) -> u32 {
        ANSWERS.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn flood_budget(&mut self, slot: u32) -> Option<&mut Budget> {
        // SAFETY: as above.
        FLOODS.get_ptr_mut(slot).map(|budget| unsafe { &mut *budget })
    }

    #[inline(always)]
    fn telling(&mut self, place: u32) -> Option<&mut Told> {
        // SAFETY: as above.
        TELLING.get_ptr_mut(place).map(|told| unsafe { &mut *told })
    }

    #[inline(always)]
    fn tell(&mut self, event: &FlowEvent) -> bool {
        TOLD.output::<FlowEvent>(event, 0).is_ok()
    }

    #[inline(always)]
    fn count(&mut self, place: u32, direction: Direction, bytes: u32) {
        let Some(traffic) = TRAFFIC.get_ptr_mut(place) else { return };
        // SAFETY: per-CPU memory; a program is not interrupted by another one on its CPU.
        let traffic: &mut Traffic = unsafe { &mut *traffic };
        match direction {
            Direction::FromPort => {
                traffic.from_port_packets += 1;
                traffic.from_port_bytes += u64::from(bytes);
            }
            Direction::ToPort => {
                traffic.to_port_packets += 1;
                traffic.to_port_bytes += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn count_drop(&mut self, meta: &Meta, drop: &Drop) {
        report(self, meta, drop);
    }
}

/// Counts a drop and writes the event, if somebody reads them; the number of the reason.
#[inline(never)]
pub(crate) fn report(skb: &Skb, meta: &Meta, drop: &Drop) -> u32 {
    if let Some(count) = DROPS.get_ptr_mut(drop.reason.number()) {
        // SAFETY: per-CPU memory; a program is not interrupted by another one on its CPU.
        unsafe { *count += 1 };
    }
    if let Some(traffic) = TRAFFIC.get_ptr_mut(drop.port.place) {
        // SAFETY: as above.
        unsafe { (*traffic).dropped_packets += 1 };
    }
    if drop.reason.is_for_lack_of_room()
        && let Some(crowded) = CROWDED.get_ptr_mut(drop.port.place)
    {
        // SAFETY: as above.
        unsafe { *crowded += 1 };
    }
    // A buffer that nobody reads is full after some thousands of drops. All CPUs would queue for
    // its lock with each further one, only to find out.
    if EVENTS_WANTED.get(0).is_none_or(|wanted| *wanted == 0) {
        return drop.reason.number();
    }
    let Some(mut event) = EVENTS.reserve::<DropEvent>(0) else {
        if let Some(lost) = EVENTS_LOST.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe { *lost += 1 };
        }
        return drop.reason.number();
    };
    let record = event.write(DropEvent {
        time_ns: meta.now_ns,
        ifindex: meta.ifindex,
        port: drop.port.number,
        reason: drop.reason.number(),
        entry: drop.entry as u32,
        length: meta.length,
        header_length: 0,
        rule: if drop.reason.is_of_policy() { drop.rule } else { 0 },
        pad: [0; 4],
        header: [0; EVENT_HEADER_BYTES],
    });
    // A constant size would fail on a frame that is shorter, so the size has steps.
    for size in [64, 42, 14] {
        // SAFETY: at most `EVENT_HEADER_BYTES` bytes are written to an array of that size.
        let failed = unsafe {
            bpf_skb_load_bytes(skb.raw().cast(), 0, record.header.as_mut_ptr().cast(), size)
        };
        if failed == 0 {
            record.header_length = size;
            break;
        }
    }
    event.submit(0);
    drop.reason.number()
}
