//! Every shared vector through `BPF_PROG_TEST_RUN`: the kernel must give what the host gives, in
//! verdict, frame, counters and the whole conntrack table. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::vectors::frame::with_class;
use netloom_dataplane::packet::vectors::{CONNTRACK, Memory, Vector, all, gres, rewrites};
use netloom_dataplane::packet::{
    Bucket, COUNTER_PLACES, Config, GRE, Meta, Net, Noted, Traffic, Verdict, Vtep, VtepKey,
};
use netloom_dataplane::{Counters, Options, Tables, TestHarness, trace};
use std::collections::BTreeMap;
use support::{Host, may_run};

#[test]
fn every_vector_gives_in_the_kernel_what_it_gives_on_the_host() {
    if !may_run("every_vector_gives_in_the_kernel_what_it_gives_on_the_host") {
        return;
    }
    let host = Host::enter();
    let options = Options { conntrack: CONNTRACK, ..Options::new(host.bpffs()) };
    let mut harness = TestHarness::open(&options).unwrap();
    let mut failures = Vec::new();
    for vector in all() {
        if !vector.fits_test_run() {
            println!("HOST ONLY {}: the kernel does not run so short a frame", vector.name);
            continue;
        }
        if let Err(difference) = check(&mut harness, &vector) {
            failures.push(format!("{}: {difference}", vector.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_kernel_rewrites_a_frame_as_its_new_ends_would_have_sent_it() {
    if !may_run("the_kernel_rewrites_a_frame_as_its_new_ends_would_have_sent_it") {
        return;
    }
    let host = Host::enter();
    let mut harness = TestHarness::open(&Options::new(host.bpffs())).unwrap();
    for vector in rewrites() {
        let frame = harness.rewrite(&vector.frame, &vector.rewrite).unwrap();
        assert_eq!(frame, vector.expected, "{}", vector.name);
    }
}

#[test]
fn the_kernel_puts_frames_into_gre_and_takes_them_out() {
    if !may_run("the_kernel_puts_frames_into_gre_and_takes_them_out") {
        return;
    }
    let host = Host::enter();
    let mut harness = TestHarness::open(&Options::new(host.bpffs())).unwrap();
    let config = harness.config().unwrap();
    harness.set_config(Config { direct_port: 1, tunnel_ifindex: 9, ..config }).unwrap();
    let length = |frame: &[u8]| u32::try_from(frame.len()).unwrap();
    for vector in gres() {
        let ([vtep, local], name) = (vector.ends, vector.name);
        let vni = vector.key | GRE;
        let meta = Meta { vni, vtep, local, length: length(&vector.frame), ..Meta::default() };
        let inside = harness.into_gre(&meta, &vector.frame).unwrap();
        assert_eq!(inside.verdict, Verdict::Pass.record(), "{name}");
        // The next hop's MACs are written when it is known.
        assert_eq!(inside.frame[14..], vector.outer[14..], "{name}");

        let meta = Meta { length: length(&vector.outer), ..Meta::default() };
        let other = harness.out_of_gre(&meta, &vector.outer).unwrap();
        assert_eq!(other.verdict, Verdict::Pass.record(), "{name}");
        assert_eq!(other.frame, vector.outer, "{name}: from nobody who may send");
        let (local, vtep) = (vtep, local);
        let key = VtepKey { vni, addr: vtep };
        let vteps = BTreeMap::from([(key, Vtep::of_host(1, local))]);
        harness.plane.reconcile(&Tables { vteps, ..Tables::default() }).unwrap();
        let taken = harness.out_of_gre(&meta, &vector.outer).unwrap();
        assert_eq!(taken.verdict, Verdict::Tunnel { vni, vtep, local }.record(), "{name}");
        assert_eq!(taken.frame, vector.frame, "{name}");
        // Congestion on the way is told to whoever can hear of it.
        let experienced = with_class(vector.outer.clone(), 3);
        let taken = harness.out_of_gre(&meta, &experienced).unwrap();
        let hears = vector.frame[12..14] == [8, 0] && vector.frame[15] == 2;
        let class = if hears { 3 } else { vector.frame[15] };
        assert_eq!(taken.frame[15], class, "{name}");
        harness.plane.reconcile(&Tables::default()).unwrap();
    }
}

/// Runs a vector; what differs from the host's run.
fn check(harness: &mut TestHarness, vector: &Vector) -> Result<(), String> {
    let (verdict, after) = vector.run();
    fill(harness, &vector.before);
    traced(harness, vector)?;
    let before = harness.plane.view().counters().unwrap();
    let _ = harness.plane.events().unwrap();
    let outcome = harness
        .run(vector.entry, &vector.meta, &vector.before.frame, 1)
        .map_err(|error| error.to_string())?;
    same("verdict", &outcome.verdict, &verdict.record())?;
    same("frame", &outcome.frame.as_slice(), &vector.expected_frame())?;
    counted(&before, &harness.plane.view().counters().unwrap(), vector)?;
    told(harness, vector)?;
    same("fragments", &harness.fragments().unwrap(), &after.fragments)?;
    for moving in after.moves.values() {
        let word = after.arrived.get(&moving.place()).copied().unwrap_or_default();
        same("arrived", &harness.arrived(moving.place()).unwrap(), &word)?;
    }
    same("table", &harness.conntrack_table().unwrap(), &numbered(&after))
}

/// A trace over the same maps says what the host says, where nothing is known of the connection, and
/// changes nothing.
fn traced(harness: &mut TestHarness, vector: &Vector) -> Result<(), String> {
    let state = |harness: &TestHarness| {
        let view = harness.plane.view();
        let tables =
            (view.tables().unwrap(), harness.config().unwrap(), harness.flooded().unwrap());
        let kept = (harness.conntrack_table().unwrap(), harness.fragments().unwrap());
        (tables, kept, view.counters().unwrap(), view.learned().unwrap(), harness.spent().unwrap())
    };
    let before = state(harness);
    let _ = harness.plane.events().unwrap();
    let traced = trace(harness.plane.view(), (vector.entry, &vector.meta), &vector.before.frame);
    let traced = traced.map_err(|error| error.to_string())?;
    if state(harness) != before || !harness.plane.events().unwrap().is_empty() {
        return Err("a trace changed something".to_owned());
    }
    let Memory { budgets, requests, floods, fragments, answer_mark, .. } = &vector.before;
    let is_new = vector.before.tracked().is_empty()
        && [budgets, requests, floods].iter().all(|spent| spent.is_empty())
        && fragments.iter().all(|noted| *noted == Noted::default())
        && *answer_mark == 0;
    // A frame that is longer than its first bytes is told by its length alone.
    if !is_new {
        return Ok(());
    }
    same("a trace's verdict", &traced.verdict.record(), &vector.verdict.record())?;
    same("a trace's frame", &traced.frame.as_slice(), &vector.expected_frame())?;
    let dropped = traced.dropped.map(|drop| (drop.reason, drop.rule));
    let expected = match vector.verdict {
        Verdict::Drop(reason) if reason.is_of_policy() => Some((reason, vector.rule)),
        Verdict::Drop(reason) => Some((reason, dropped.map_or(0, |(_, rule)| rule))),
        _ => None,
    };
    same("a trace's drop", &dropped, &expected)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what} is\n  {found:02x?}, not\n  {expected:02x?}"))
}

/// Fills the kernel's maps with the vector's.
fn fill(harness: &mut TestHarness, memory: &Memory) {
    let tables = Tables {
        nets: memory.nets.clone(),
        ports: memory.ports.clone(),
        addrs: memory.addrs.clone(),
        serving: memory.serving.clone(),
        fdb: memory.fdb.clone(),
        neigh: memory.neigh.clone(),
        behind: memory.behind.clone(),
        sharers: memory.sharers.clone(),
        vteps: memory.vteps.clone(),
        wires: memory.wires.clone(),
        moves: memory.moves.clone(),
        ranges: memory.ranges.clone(),
        chapters: memory.chapters.clone(),
        classes: memory.classes.clone(),
        idents: memory.idents.clone(),
        ..Tables::default()
    };
    harness.plane.reconcile(&tables).unwrap();
    // The vector's own places and zones, and not those that a reconcile gives.
    for (key, port) in &memory.ports {
        harness.set_port(key, port).unwrap();
        let budget = memory.budgets.get(&port.place()).copied().unwrap_or_default();
        harness.set_budget(port.place(), &budget).unwrap();
        let requests = memory.requests.get(&port.place()).copied().unwrap_or_default();
        harness.set_requests(port.place(), &requests).unwrap();
    }
    for (number, net) in memory.nets.iter().filter(|(_, net)| net.flags & Net::FOREIGN != 0) {
        harness.set_learning(*number, net, &memory.learned).unwrap();
    }
    // Those of port A and of network 1.
    for slot in [1, COUNTER_PLACES + 1] {
        let budget = memory.floods.get(&slot).copied().unwrap_or_default();
        harness.set_flood_budget(slot, &budget).unwrap();
    }
    for moving in memory.moves.values() {
        let word = memory.arrived.get(&moving.place()).copied().unwrap_or_default();
        harness.set_arrived(moving.place(), word).unwrap();
    }
    harness.set_answer_mark(memory.answer_mark).unwrap();
    harness.set_conntrack(&numbered(memory)).unwrap();
    harness.set_fragments(&memory.fragments).unwrap();
    // A new epoch: what an earlier vector has left in the flow cache holds no more.
    let epoch = harness.config().unwrap().epoch.wrapping_add(1);
    harness.set_config(Config { epoch, ..memory.config }).unwrap();
}

/// The buckets that are not empty.
fn numbered(memory: &Memory) -> Vec<(u32, Bucket)> {
    let buckets = (0..).zip(memory.buckets.iter().copied());
    buckets.filter(|(_, bucket)| *bucket != Bucket::default()).collect()
}

/// The counters changed by what the vector says, and by nothing else.
fn counted(before: &Counters, after: &Counters, vector: &Vector) -> Result<(), String> {
    let drops = after
        .drops
        .iter()
        .map(|(name, count)| (*name, count - before.drops.get(name).copied().unwrap_or_default()));
    let drops: BTreeMap<&str, u64> = drops.filter(|(_, count)| *count > 0).collect();
    let expected = vector.expected_drops();
    let expected = expected.iter().map(|(reason, count)| (reason.name(), *count)).collect();
    same("drops", &drops, &expected)?;
    let crowded = |counters: &Counters| counters.crowded.values().sum::<u64>();
    let is_crowded = vector.expected_drops().keys().any(|reason| reason.is_for_lack_of_room());
    same("crowded", &(crowded(after) - crowded(before)), &u64::from(is_crowded))?;
    let traffic = after.traffic.iter().map(|(port, now)| {
        let was = before.traffic.get(port).copied().unwrap_or_default();
        let difference = Traffic {
            from_port_packets: now.from_port_packets - was.from_port_packets,
            from_port_bytes: now.from_port_bytes - was.from_port_bytes,
            to_port_packets: now.to_port_packets - was.to_port_packets,
            to_port_bytes: now.to_port_bytes - was.to_port_bytes,
            dropped_packets: now.dropped_packets - was.dropped_packets,
        };
        (*port, difference)
    });
    let traffic: BTreeMap<u32, Traffic> =
        traffic.filter(|(_, difference)| *difference != Traffic::default()).collect();
    same("traffic", &traffic, &vector.traffic)
}

/// A drop has one event, with the start of the frame as it is by then.
fn told(harness: &mut TestHarness, vector: &Vector) -> Result<(), String> {
    let events = harness.plane.events().unwrap();
    let Some(reason) = vector.expected_drops().into_keys().next() else {
        return same("events", &events.len(), &0);
    };
    same("events", &events.len(), &1)?;
    let event = &events[0];
    same("reason", &event.reason, &Some(reason))?;
    same("rule", &event.rule, &vector.rule)?;
    same("interface", &event.ifindex, &vector.meta.ifindex)?;
    let length = event.header.len();
    let frame = vector.expected_frame();
    let whole = frame.len().min(64);
    if length < 14 || length + 28 < whole {
        return Err(format!("the event has only {length} of {whole} bytes"));
    }
    same("header", &event.header.as_slice(), &&frame[..length])
}

#[test]
fn a_place_that_another_port_had_is_empty() {
    if !may_run("a_place_that_another_port_had_is_empty") {
        return;
    }
    let host = Host::enter();
    let options = Options { conntrack: CONNTRACK, ..Options::new(host.bpffs()) };
    let mut harness = TestHarness::open(&options).unwrap();
    let mut vector = find("a port whose room is in use is refused, and loses nothing");
    // The time of the vector is not the kernel's: only what is in the table counts.
    fill(&mut harness, &vector.before);
    let tables = harness.plane.view().tables().unwrap();
    let before = zones(&harness, &vector.before);
    harness.plane.reconcile(&Tables { ports: BTreeMap::new(), ..tables.clone() }).unwrap();
    harness.plane.reconcile(&tables).unwrap();
    let after = zones(&harness, &vector.before);
    assert!(after.iter().all(|zone| *zone != 0 && !before.contains(zone)), "{before:?} {after:?}");
    let common = CONNTRACK.common_buckets;
    let table = harness.conntrack_table().unwrap();
    assert!(table.iter().all(|(number, _)| *number < common), "an area is not empty: {table:?}");
    vector.meta.now_ns += 1;
    let outcome = harness.run(vector.entry, &vector.meta, &vector.before.frame, 1).unwrap();
    assert_eq!(outcome.verdict.kind, 3, "the port opens again");
}

/// The zones of the vector's ports in the map.
fn zones(harness: &TestHarness, memory: &Memory) -> Vec<u32> {
    let zone = |key| harness.port(key).unwrap().unwrap().zone;
    memory.ports.keys().map(zone).collect()
}

fn find(name: &str) -> Vector {
    all().into_iter().find(|vector| vector.name == name).unwrap()
}

#[test]
fn an_open_plane_has_the_connection_table_that_it_was_made_with() {
    if !may_run("an_open_plane_has_the_connection_table_that_it_was_made_with") {
        return;
    }
    let host = Host::enter();
    let small = Options { conntrack: CONNTRACK, ..Options::new(host.bpffs()) };
    let seed = TestHarness::open(&small).unwrap().config().unwrap().seed;
    let harness = TestHarness::open(&Options::new(host.bpffs())).unwrap();
    assert_eq!(harness.plane.view().room().unwrap(), CONNTRACK);
    assert_eq!(harness.config().unwrap().seed, seed, "connections are found again");
}

#[test]
fn events_are_written_while_somebody_reads_them() {
    if !may_run("events_are_written_while_somebody_reads_them") {
        return;
    }
    let host = Host::enter();
    let options = Options { conntrack: CONNTRACK, ..Options::new(host.bpffs()) };
    let vector = find("another's ipv4 address is spoofed");
    // As many drops as would fill the buffer.
    let drop_many = |harness: &mut TestHarness| {
        harness.run(vector.entry, &vector.meta, &vector.before.frame, 4_000).unwrap();
        harness.plane.view().counters().unwrap()
    };
    let mut harness = TestHarness::open(&options).unwrap();
    fill(&mut harness, &vector.before);
    assert_eq!(drop_many(&mut harness).events_lost, 0, "nobody reads");
    assert_eq!(harness.plane.events().unwrap(), [], "nothing of before");
    let lost = drop_many(&mut harness).events_lost;
    let told = harness.plane.events().unwrap().len();
    assert!(lost > 0, "the buffer is full");
    assert_eq!(u64::try_from(told).unwrap() + lost, 4_000);
    drop(harness);

    let mut harness = TestHarness::open(&options).unwrap();
    assert_eq!(drop_many(&mut harness).events_lost, lost, "the reader is gone");
    assert_eq!(harness.plane.events().unwrap(), []);
}
