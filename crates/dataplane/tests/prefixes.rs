//! The trie of prefixes in the kernel: what is written is read back, and the longest prefix counts.
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::vectors::{CONNTRACK, Memory, Vector, all};
use netloom_dataplane::packet::{Addr, Behind, Mac, PrefixKey};
use netloom_dataplane::{Options, Tables, TestHarness};
use std::collections::BTreeMap;
use std::net::IpAddr;
use support::{Host, may_run};

fn find(name: &str) -> Vector {
    all().into_iter().find(|vector| vector.name == name).unwrap()
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn key(net: u32, prefix: &str, bits: u8) -> PrefixKey {
    PrefixKey::new(net, addr(prefix), bits)
}

/// What the kernel's maps are to hold.
fn tables(memory: &Memory) -> Tables {
    Tables {
        nets: memory.nets.clone(),
        ports: memory.ports.clone(),
        addrs: memory.addrs.clone(),
        fdb: memory.fdb.clone(),
        neigh: memory.neigh.clone(),
        behind: memory.behind.clone(),
        sharers: memory.sharers.clone(),
        vteps: memory.vteps.clone(),
        ..Tables::default()
    }
}

fn open(host: &Host) -> TestHarness {
    TestHarness::open(&Options { conntrack: CONNTRACK, ..Options::new(host.bpffs()) }).unwrap()
}

#[test]
fn prefixes_are_read_back_as_they_were_written() {
    if !may_run("prefixes_are_read_back_as_they_were_written") {
        return;
    }
    let host = Host::enter();
    let mut harness = open(&host);
    let behind = |last| Behind::local(Mac([2, 0, 0, 0, 0, last]), 1450);
    let remote = Behind::remote(Mac([2, 0, 0, 0, 0, 9]), addr("192.0.2.2"));
    let mut wanted = Tables::default();
    // Some in each other, equal ones in two networks, everything, and one address.
    for (net, prefix, bits) in [
        (1, "0.0.0.0", 0),
        (1, "::", 0),
        (1, "10.0.0.0", 8),
        (1, "10.1.0.0", 16),
        (1, "10.1.0.0", 24),
        (1, "10.1.0.0", 32),
        (2, "10.1.0.0", 16),
        (1, "fd00::", 8),
        (1, "fd00::1", 128),
        (u32::MAX, "255.255.255.255", 32),
    ] {
        wanted.behind.insert(key(net, prefix, bits), behind(bits));
    }
    harness.plane.reconcile(&wanted).unwrap();
    assert_eq!(harness.plane.view().tables().unwrap(), wanted);
    assert!(harness.plane.reconcile(&wanted).unwrap().is_empty(), "nothing differs");
    assert!(wanted.behind.remove(&key(1, "10.1.0.0", 16)).is_some());
    wanted.behind.insert(key(1, "10.1.0.0", 24), remote);
    let changes = harness.plane.reconcile(&wanted).unwrap();
    assert_eq!((changes.behind.written, changes.behind.removed), (1, 1));
    assert_eq!(harness.plane.view().tables().unwrap(), wanted);
}

#[test]
fn in_the_kernel_the_longest_prefix_of_a_network_counts() {
    if !may_run("in_the_kernel_the_longest_prefix_of_a_network_counts") {
        return;
    }
    let host = Host::enter();
    let mut harness = open(&host);
    for (name, family) in [("from a prefix of the port", 4), ("from an ipv6 prefix of the port", 6)]
    {
        let vector = find(name);
        let own = *vector.before.behind.values().find(|at| at.vtep == Addr::default()).unwrap();
        let other = Behind::local(Mac([2, 0, 0, 0, 0, 0xb]), own.mtu);
        let remote = Behind::remote(own.mac, addr("192.0.2.2"));
        let candidates = match family {
            4 => [
                (key(1, "0.0.0.0", 0), other),
                (key(1, "192.168.0.0", 16), own),
                (key(1, "192.168.77.0", 24), other),
                (key(1, "192.168.77.128", 25), own),
                (key(1, "192.168.77.129", 32), remote),
                (key(2, "192.168.77.0", 26), own),
            ],
            _ => [
                (key(1, "::", 0), own),
                (key(1, "fd00::", 8), other),
                (key(1, "fd77::", 64), own),
                (key(1, "fd77::8000:0:0:0", 65), other),
                (key(1, "fd77::1", 128), remote),
                (key(2, "fd77::", 66), own),
            ],
        };
        let sources: [&str; 6] = match family {
            4 => [
                "192.168.77.1",
                "192.168.77.129",
                "192.168.77.130",
                "192.168.1.1",
                "1.1.1.1",
                "10.0.0.9",
            ],
            _ => ["fd77::1", "fd77::2", "fd77::8000:0:0:1", "fd78::1", "2001:db8::1", "fd00::9"],
        };
        // Every set of them.
        for set in 0..1_u32 << candidates.len() {
            let chosen = (0..).zip(candidates).filter(|(at, _)| set >> at & 1 == 1);
            let behind: BTreeMap<PrefixKey, Behind> = chosen.map(|(_, entry)| entry).collect();
            let memory = Memory { behind, ..vector.before.clone() };
            harness.plane.reconcile(&tables(&memory)).unwrap();
            for source in sources {
                let mut vector = Vector { before: memory.clone(), ..vector.clone() };
                let octets = addr(source).octets();
                match family {
                    4 => vector.before.frame[26..30].copy_from_slice(&octets[12..]),
                    _ => vector.before.frame[22..38].copy_from_slice(&octets),
                }
                let frame = vector.before.frame.clone();
                let outcome = harness.run(vector.entry, &vector.meta, &frame, 1).unwrap();
                let (verdict, _) = vector.run();
                assert_eq!(outcome.verdict, verdict.record(), "{source} {:?}", memory.behind);
            }
        }
    }
}
