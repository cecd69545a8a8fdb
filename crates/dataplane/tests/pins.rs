//! What stays over restarts, upgrades and vanished interfaces. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{
    Addr, AddrKey, Fdb, FdbKey, IdentKey, Mac, Neigh, NeighKey, Net, Port, PortKey, Source, Vtep,
    VtepKey,
};
use netloom_dataplane::{
    Changes, DataPlane, Edits, Error, Hold, Options, Tables, TestHarness, preflight, unload,
};
use std::collections::BTreeSet;
use std::path::Path;
use support::{Host, ifindex, ip, may_run};

/// Ids of links and of the programs that they run, by pin.
fn links(bpffs: &Path) -> Vec<(String, u32, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(bpffs.join("links")).unwrap() {
        let path = entry.unwrap().path();
        let link = aya::programs::links::PinnedLink::from_pin(&path).unwrap();
        let link = aya::programs::links::FdLink::from(link);
        let info = link.info().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        found.push((name, info.id(), info.program_id()));
    }
    found.sort();
    found
}

fn port(number: u32) -> Port {
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    Port { number, net: 1, generation: 1, mac, flags: Port::PEER, ..Port::default() }
}

fn tables() -> Tables {
    let mut tables = Tables::default();
    tables.nets.insert(1, Net::closed());
    let key = PortKey::untagged(40);
    let addr = Addr::v4([10, 0, 0, 1]);
    tables.ports.insert(key, port(1));
    tables.addrs.insert(AddrKey { port: 1, addr }, Source::default());
    tables.fdb.insert(FdbKey::new(1, Mac([2, 0, 0, 0, 0, 1])), Fdb::local(key));
    let vtep = Addr::v6([0x20; 16]);
    tables.fdb.insert(FdbKey::new(1, Mac([2, 0, 0, 0, 0, 2])), Fdb::remote(7, vtep));
    tables.neigh.insert(NeighKey { net: 1, addr }, Neigh::local(Mac([2, 0, 0, 0, 0, 1])));
    tables.vteps.insert(VtepKey { vni: 7, addr: vtep }, Vtep::of_host(1, Addr::v6([0x21; 16])));
    tables
}

#[test]
fn this_host_passes_the_preflight() {
    if !may_run("this_host_passes_the_preflight") {
        return;
    }
    preflight().unwrap();
}

#[test]
fn reopening_touches_no_link() {
    if !may_run("reopening_touches_no_link") {
        return;
    }
    let host = Host::enter();
    let options = Options::new(host.bpffs());
    ip("link add port1 type veth peer name inside1");
    ip("link add vx0 type vxlan dstport 4789 external");
    let mut plane = DataPlane::open(&options).unwrap();
    plane.attach_port(ifindex("port1")).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    let before = links(&host.bpffs());
    assert_eq!(before.len(), 4);
    plane.attach_port(ifindex("port1")).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    assert_eq!(links(&host.bpffs()), before, "attaching twice changes nothing");
    drop(plane);
    let mut plane = DataPlane::open(&options).unwrap();
    assert_eq!(links(&host.bpffs()), before, "links and programs are those of before");
    assert_eq!(plane.attached_ports().unwrap(), BTreeSet::from([ifindex("port1")]));
}

#[test]
fn another_program_is_replaced_in_place() {
    if !may_run("another_program_is_replaced_in_place") {
        return;
    }
    let host = Host::enter();
    let options = Options::new(host.bpffs());
    ip("link add port1 type veth peer name inside1");
    let mut plane = DataPlane::open(&options).unwrap();
    plane.attach_port(ifindex("port1")).unwrap();
    drop(plane);
    let before = links(&host.bpffs());
    // As after an upgrade: the links run programs that are not the pinned ones of this object.
    for entry in std::fs::read_dir(host.bpffs()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("programs-") {
            std::fs::rename(&path, path.with_file_name("programs-0123456789abcdef")).unwrap();
        }
    }
    // And the maps of other layouts are beside ours.
    std::fs::create_dir(host.bpffs().join("maps-0")).unwrap();
    let old = host.bpffs().join("maps/drops_0");
    aya::maps::Array::<_, u32>::create(1, 0).unwrap().pin(&old).unwrap();
    drop(DataPlane::open(&options).unwrap());
    assert!(!host.bpffs().join("maps-0").exists());
    assert!(!old.exists());
    let after = links(&host.bpffs());
    let ids = |links: &[(String, u32, u32)]| -> Vec<(String, u32)> {
        links.iter().map(|(name, id, _)| (name.clone(), *id)).collect()
    };
    assert_eq!(ids(&after), ids(&before), "the links are the same");
    for (old, new) in before.iter().zip(&after) {
        assert_ne!(old.2, new.2, "{}: the program is another", old.0);
    }
    assert!(!host.bpffs().join("programs-0123456789abcdef").exists());
}

#[test]
fn one_agent_at_a_time_has_the_data_plane() {
    if !may_run("one_agent_at_a_time_has_the_data_plane") {
        return;
    }
    let host = Host::enter();
    let hold = Hold::take(&host.bpffs()).unwrap();
    let refused = Hold::take(&host.bpffs()).unwrap_err().to_string();
    assert!(refused.contains("another netloom agent"), "{refused}");
    drop(DataPlane::open(&Options::new(host.bpffs())).unwrap());
    drop(hold);
    let hold = Hold::take(&host.bpffs()).unwrap();
    assert!(Hold::take(&host.bpffs()).is_err(), "also when it found the file system mounted");
    drop(hold);
}

#[test]
fn links_of_vanished_interfaces_are_noticed() {
    if !may_run("links_of_vanished_interfaces_are_noticed") {
        return;
    }
    let host = Host::enter();
    let options = Options::new(host.bpffs());
    ip("link add port1 index 77 type veth peer name inside1");
    let mut plane = DataPlane::open(&options).unwrap();
    plane.attach_port(77).unwrap();
    assert_eq!(plane.attached_ports().unwrap(), BTreeSet::from([77]));
    ip("link del port1");
    ip("link add port2 index 77 type veth peer name inside2");
    // The pin is there and its index is in use again: the link is dead all the same.
    assert_eq!(links(&host.bpffs()).len(), 2);
    plane.attach_port(77).unwrap();
    assert_eq!(plane.attached_ports().unwrap(), BTreeSet::from([77]));
    ip("link del port2");
    assert_eq!(plane.attached_ports().unwrap(), BTreeSet::new());
    assert_eq!(links(&host.bpffs()).len(), 0, "dead pins are removed");
    let refused = plane.attach_port(77).unwrap_err();
    assert!(matches!(refused, Error::NoInterface { ifindex: 77 }), "{refused}");
}

#[test]
fn reconcile_writes_only_differences() {
    if !may_run("reconcile_writes_only_differences") {
        return;
    }
    let host = Host::enter();
    let options = Options::new(host.bpffs());
    let mut plane = DataPlane::open(&options).unwrap();
    let mut desired = tables();
    let first = plane.reconcile(&desired).unwrap();
    assert_eq!(first.fdb.written, 2);
    assert_eq!(plane.view().tables().unwrap(), desired);
    assert_eq!(plane.reconcile(&desired).unwrap(), Changes::default());
    drop(plane);
    let mut plane = DataPlane::open(&options).unwrap();
    assert_eq!(plane.reconcile(&desired).unwrap(), Changes::default(), "the maps survived");

    let key = PortKey::untagged(40);
    desired.ports.insert(key, Port { generation: 2, ..port(1) });
    let changes = plane.reconcile(&desired).unwrap();
    assert_eq!((changes.ports.written, changes.ports.removed), (1, 0), "a policy is no new port");
    desired.ports.insert(key, port(2));
    let changes = plane.reconcile(&desired).unwrap();
    assert_eq!((changes.ports.written, changes.ports.removed), (1, 1), "another number is");
    plane.reconcile(&Tables::default()).unwrap();
    assert_eq!(plane.view().tables().unwrap(), Tables::default());
    assert!(plane.view().counters().unwrap().traffic.is_empty(), "counters go with their ports");
}

#[test]
fn a_port_keeps_its_place_while_it_lives() {
    if !may_run("a_port_keeps_its_place_while_it_lives") {
        return;
    }
    let host = Host::enter();
    let mut harness = TestHarness::open(&Options::new(host.bpffs())).unwrap();
    let key = |number| PortKey::untagged(40 + number);
    let edit = |goes: &[u32], comes: &[u32]| {
        let goes = goes.iter().map(|number| (key(*number), None));
        let comes = comes.iter().map(|number| (key(*number), Some(port(*number))));
        Edits { ports: goes.chain(comes).collect(), ..Edits::default() }
    };
    let seen = |harness: &TestHarness, number| {
        let port = harness.port(&key(number)).unwrap().unwrap();
        (port.place(), port.zone)
    };
    harness.plane.apply(edit(&[], &[1, 2, 3])).unwrap();
    assert_eq!([1, 2, 3].map(|number| seen(&harness, number)), [(1, 1), (2, 2), (3, 3)]);
    harness.plane.apply(edit(&[2], &[4])).unwrap();
    let new = [(1, 1), (3, 3), (2, 4)];
    assert_eq!(
        [1, 3, 4].map(|number| seen(&harness, number)),
        new,
        "its zone is nobody's any more"
    );
    let mut desired = Tables::default();
    desired.ports.extend([1, 3, 4].map(|number| (key(number), port(number))));
    assert!(harness.plane.reconcile(&desired).unwrap().is_empty());

    // Nobody who forwards shares a place with another one, or has none.
    harness.set_port(&key(3), &port(3).placed(1, 1)).unwrap();
    harness.set_port(&key(4), &port(4)).unwrap();
    assert_eq!(harness.plane.reconcile(&desired).unwrap().ports.written, 2);
    assert_eq!([1, 3, 4].map(|number| seen(&harness, number)), [(1, 1), (2, 5), (3, 6)]);
}

#[test]
fn a_port_stays_the_same_while_policy_and_members_change() {
    if !may_run("a_port_stays_the_same_while_policy_and_members_change") {
        return;
    }
    let host = Host::enter();
    let mut harness = TestHarness::open(&Options::new(host.bpffs())).unwrap();
    let filtered = |number, ingress| Port { ingress, rules: Port::HAS_MEMBERS, ..port(number) };
    let member = |last| IdentKey { domain: 7, addr: Addr::v4([10, 0, 0, last]) };
    let mut desired = tables();
    let key = PortKey::untagged(40);
    desired.ports.insert(key, filtered(1, 3));
    desired.idents.insert(member(9), 4);
    harness.plane.reconcile(&desired).unwrap();
    let before = harness.port(&key).unwrap().unwrap();

    // The other policy, other members, and one more port: by edits, and by reading back.
    for (ingress, last) in [(5, 8), (6, 7)] {
        let (held, more) = (desired.clone(), PortKey::untagged(40 + u32::from(last)));
        desired.ports.insert(key, filtered(1, ingress));
        desired.ports.insert(more, filtered(u32::from(last), ingress));
        desired.idents = [(member(last), 4)].into();
        let changes = match last {
            8 => harness.plane.apply(held.edits_to(&desired)).unwrap(),
            _ => harness.plane.reconcile(&desired).unwrap(),
        };
        assert_eq!((changes.ports.written, changes.ports.removed), (2, 0));
        assert_eq!((changes.idents.written, changes.idents.removed), (1, 1));
        assert_eq!(harness.plane.view().tables().unwrap(), desired);
        let after = harness.port(&key).unwrap().unwrap();
        assert_eq!((after.place(), after.zone), (before.place(), before.zone));
        assert!(harness.plane.reconcile(&desired).unwrap().is_empty());
    }
}

#[test]
fn bad_tables_change_nothing() {
    if !may_run("bad_tables_change_nothing") {
        return;
    }
    let host = Host::enter();
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    let mut desired = tables();
    for ifindex in 100..100 + 5_000 {
        desired.ports.insert(PortKey::untagged(ifindex), port(ifindex));
    }
    let full = plane.reconcile(&desired).unwrap_err();
    let room = usize::try_from(plane.view().room().unwrap().ports).unwrap();
    let expected = |limit: usize| limit == room && (64..=4_096).contains(&limit);
    assert!(
        matches!(full, Error::MapFull { map: "ports", wanted: 5_001, limit } if expected(limit)),
        "{full}"
    );
    let mut desired = tables();
    desired.ports.insert(PortKey::untagged(41), port(1));
    assert!(matches!(plane.reconcile(&desired).unwrap_err(), Error::BadTable(_)));
    assert_eq!(plane.view().tables().unwrap(), Tables::default());
}

#[test]
fn unload_leaves_nothing() {
    if !may_run("unload_leaves_nothing") {
        return;
    }
    let host = Host::enter();
    ip("link add port1 type veth peer name inside1");
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    plane.attach_port(ifindex("port1")).unwrap();
    drop(plane);
    unload(&host.bpffs()).unwrap();
    assert!(!host.bpffs().exists());
    unload(&host.bpffs()).unwrap();
    let (_, programs) =
        aya::programs::SchedClassifier::query_tcx("port1", aya::programs::TcAttachType::Ingress)
            .unwrap();
    assert!(programs.is_empty());
}
