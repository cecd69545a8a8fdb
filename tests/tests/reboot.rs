//! A host that reboots: its network namespace with all devices, its processes and, as the case may
//! be, its bpf file system are gone and made again. It comes back with everything, its physical
//! networks too, and nothing is left over. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    machine::Machine,
    networks::public_network,
    root_or_skip,
    traffic::{Ping, ping},
    uuid,
};
use nix::mount::{MntFlags, umount2};

const HOSTS: [&str; 2] = ["h1", "h2"];

/// What a lab has, by name where names say whose it is; indexes and ids are others after a reboot.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    namespaces: BTreeSet<String>,
    devices: BTreeSet<(String, String)>,
    links: usize,
    maps: BTreeSet<PathBuf>,
}

impl Held {
    fn of(lab: &TestLab) -> Self {
        let Machine { namespaces, devices, links, maps } = lab.machine();
        let names = devices.into_iter().flat_map(|(namespace, links)| {
            links.into_iter().map(move |link| (namespace.clone(), link.name))
        });
        Self {
            namespaces: namespaces.into_keys().collect(),
            devices: names.collect(),
            links: links.len(),
            maps: maps.into_keys().collect(),
        }
    }
}

/// Whether the VMs on the wire reach each other, the machine on it, and their hosts.
fn wire_works(lab: &TestLab) -> bool {
    let reach = |vm: &str, address: &str| {
        let found = lab::namespace(lab.name(), lab.root(), vm);
        found.is_ok_and(|vm| ping(&vm, address.parse().unwrap(), 56) == Ping::Answered)
    };
    reach("one", "172.31.255.102")
        && reach("two", "172.31.255.101")
        && reach("two", "172.31.255.1")
        && reach("two", "172.31.255.12")
}

/// Takes away what a reboot does.
fn power_off(lab: &TestLab, host: &str, has_pins: bool) {
    lab.kill(&[host]);
    let own = format!("nl-{}-{host}", lab.name());
    for namespace in Namespace::list(&format!("{own}-")).unwrap() {
        Namespace::remove(&namespace).unwrap();
    }
    if !has_pins {
        umount2(&lab.data(host).join("bpf"), MntFlags::MNT_DETACH).unwrap();
    }
    Namespace::remove(&own).unwrap();
    // The kernel takes the devices with it, and with the host's NIC the other end of its cable.
    let fabric = format!("nl-{}-fabric", lab.name());
    let cable = format!("p-{host}");
    let is_off = || lab.machine().devices[&fabric].iter().all(|device| device.name != cable);
    assert!(wait::holds(LIMIT, is_off), "{host} is still there");
}

#[test]
fn a_host_comes_back_with_its_networks_and_wires_and_nothing_is_left_over() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    public_network(&lab);
    lab.settle(&HOSTS);
    lab.check();
    assert!(wait::holds(LIMIT, || wire_works(&lab)));
    let before = Held::of(&lab);
    let digests = HOSTS.map(|host| lab.digests(host));
    // As a crash leaves it that came between a namespace's file and the namespace.
    let half = Path::new("/run/netns").join(format!("nl-{}-h2-{}", lab.name(), uuid()));
    for has_pins in [false, true] {
        power_off(&lab, "h2", has_pins);
        File::create(&half).unwrap();
        lab.apply();
        lab.settle(&HOSTS);
        assert!(wait::holds(LIMIT, || wire_works(&lab)), "pins stayed: {has_pins}");
        lab.check();
        let is_whole = wait::holds(LIMIT, || Held::of(&lab) == before);
        assert!(is_whole, "pins stayed: {has_pins}: {:#?}, was {before:#?}", Held::of(&lab));
        assert_eq!(HOSTS.map(|host| lab.digests(host)), digests, "pins stayed: {has_pins}");
        assert!(!fs::exists(&half).unwrap(), "a half-made namespace is gone");
        let host = lab.named("/hosts", "h2");
        assert_eq!(host["digests"]["agree"], true, "{host:#}");
        let uplink = host["uplinks"][0]["state"].as_str().unwrap();
        assert!(uplink.starts_with("eth0 up"), "{uplink}");
    }
}
