//! What it costs to look for a range that stands in the way of a new one.

use std::{cell::Cell, sync::Arc};

use model::{
    Claim, Kind, Meta, Timestamp,
    resource::{
        l2_network::L2Network,
        l3_network::{IpAllocatorStrategy, L3Type},
        zone::EnableState,
    },
};
use store::{Held, Key, Memory, Snapshot, Store};
use uuid::Uuid;

use super::*;

const L2: Id<L2Network> = Id::new(Uuid::from_u128(1));

/// A state that counts what is read of it.
struct Counting {
    snapshot: Snapshot<Record>,
    reads: Cell<usize>,
}

impl Counting {
    fn note(&self) {
        self.reads.set(self.reads.get() + 1);
    }

    fn count(&self) -> &Snapshot<Record> {
        self.note();
        &self.snapshot
    }

    /// Each id that is given is a read too.
    fn each(&self, ids: impl Iterator<Item = Uuid>) -> impl Iterator<Item = Uuid> {
        ids.inspect(|_| self.note())
    }
}

impl Read<Record> for Counting {
    fn get(&self, kind: Kind, id: Uuid) -> Option<Arc<Record>> {
        self.count().get(kind, id)
    }
    fn holder(&self, claim: &Claim) -> Option<(Kind, Uuid)> {
        self.count().holder(claim)
    }
    fn first_free(&self, from: &Claim) -> Option<Claim> {
        self.count().first_free(from)
    }
    fn list_after(&self, kind: Kind, after: Option<Uuid>) -> impl Iterator<Item = Arc<Record>> {
        self.count().list_after(kind, after).inspect(|_| self.note())
    }
    fn find(&self, kind: Kind, field: &str, key: &Key) -> impl Iterator<Item = Uuid> {
        self.each(self.snapshot.find(kind, field, key))
    }
    fn referrers(&self, kind: Kind, field: &str, parent: Uuid) -> impl Iterator<Item = Uuid> {
        self.each(self.snapshot.referrers(kind, field, parent))
    }
    fn pointing(&self, to: Uuid) -> impl Iterator<Item = (Kind, &'static str, Uuid)> {
        self.count().pointing(to).inspect(|_| self.note())
    }
    fn first_held(&self, low: &Claim, high: &Claim) -> Option<Held<Record>> {
        self.count().first_held(low, high)
    }
    fn count(&self, kind: Kind, field: &str, key: &Key) -> u64 {
        self.count().count(kind, field, key)
    }
    fn total(&self, kind: Kind) -> u64 {
        self.count().total(kind)
    }
}

fn l3(number: u128) -> L3Network {
    L3Network {
        uuid: Id::new(Uuid::from_u128(0x1000_0000 + number)),
        name: "l3".into(),
        description: None,
        network_type: L3Type::Basic,
        zone_uuid: Id::new(Uuid::from_u128(2)),
        l2_network_uuid: L2,
        state: EnableState::Enabled,
        dns_domain: None,
        system: false,
        category: L3Category::Private,
        ip_version: 4,
        enable_ipam: true,
        dns: Vec::new(),
        mtu: None,
        router_interface_ip: None,
        ip_allocator_strategy: IpAllocatorStrategy::Random,
    }
}

/// The addresses 16 n + 2 to 16 n + 9 of 10.0.0.0/8.
fn wanted(l3: &L3Network, n: u32) -> Wanted {
    let ip = |last: u32| IpAddr::V4((0x0a00_0000 + 16 * n + last).into());
    Wanted {
        l3: l3.uuid,
        name: "r".into(),
        description: None,
        start: ip(2),
        end: ip(9),
        gateway: "10.255.255.254".parse().unwrap(),
        cidr: "10.0.0.0/8".parse().unwrap(),
        address_mode: None,
        of_type: IpRangeType::Normal,
    }
}

/// So many ranges on one L2 network, of as many L3 networks.
fn ranges(count: u32, l3s: u32) -> Counting {
    let store = Store::open(Box::new(Memory::new())).unwrap();
    let meta = Meta { owner: None, created: Timestamp(0), changed: Timestamp(0) };
    for first in (0..count).step_by(1000) {
        let fill = move |tx: &mut store::Tx<Record>| {
            for n in first..count.min(first + 1000) {
                let l3 = l3(u128::from(n % l3s));
                let row = range(&l3, Id::new(Uuid::from_u128(u128::from(n + 10))), wanted(&l3, n));
                tx.put(Record::new(l3, meta)).unwrap();
                tx.put(Record::new(row, meta)).unwrap();
            }
            Ok(())
        };
        store.transact(fill).unwrap();
    }
    Counting { snapshot: store.snapshot(), reads: Cell::new(0) }
}

#[test]
fn ten_thousand_ranges_cost_a_new_one_no_more_than_ten_do() {
    let reads = |read: &Counting, wanted: &Wanted, l3: &L3Network| {
        read.reads.set(0);
        let fits = clash(read, l3, wanted).is_none();
        (fits, read.reads.get())
    };
    let (old, new) = (l3(0), l3(1_000_000));
    for l3s in [1, 10_000] {
        let (few, many) = (ranges(10, l3s), ranges(10_000, l3s));
        for l3 in [&old, &new] {
            // Beside all others, in a gap, and in the way of one.
            let (beyond, gap) = (wanted(l3, 50_000), wanted(l3, 5));
            let gap = Wanted {
                start: "10.0.0.90".parse().unwrap(),
                end: "10.0.0.97".parse().unwrap(),
                ..gap
            };
            let clash = Wanted { start: wanted(l3, 5).end, end: gap.end, ..gap.clone() };
            for (wanted, fits) in [(beyond, true), (gap, true), (clash, false)] {
                let (few, many) = (reads(&few, &wanted, l3), reads(&many, &wanted, l3));
                assert_eq!(few, many, "at 10 and at 10,000 ranges of {l3s} networks");
                assert_eq!(many.0, fits);
                // Two for each length that a prefix of a NIC around the range may have, one for addresses
                // that NICs share.
                assert!((1..=9 + 2 * 33).contains(&many.1), "{}", many.1);
            }
        }
    }
}

#[test]
fn an_overlap_is_found_wherever_it_lies() {
    let read = ranges(3, 1);
    let l3 = l3(0);
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    // 2 to 9, 18 to 25, 34 to 41.
    for (low, high, fits) in [
        (1, 1, true),
        (1, 2, false),
        (3, 4, false),
        (2, 9, false),
        (9, 10, false),
        (9, 9, false),
        (10, 17, true),
        (10, 18, false),
        (1, 60, false),
        (26, 33, true),
        (42, 42, true),
        (20, 60, false),
        (41, 41, false),
    ] {
        let new = Wanted { start: ip(low), end: ip(high), ..wanted(&l3, 0) };
        assert_eq!(clash(&read, &l3, &new).is_none(), fits, "{low} to {high}");
    }
}
