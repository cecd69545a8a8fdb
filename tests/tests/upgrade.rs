//! A host is upgraded: its agent finds the data plane of an earlier version at work, and takes over
//! under traffic. Needs root.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use ::dataplane;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab, machine, networks::public_network, root_or_skip, traffic::Traffic,
};
use nix::net::if_::{if_indextoname, if_nametoindex};

#[path = "../../crates/dataplane/tests/support/old.rs"]
mod old;

/// How long traffic runs in each state.
const WHILE: Duration = Duration::from_secs(2);
/// What is upgraded from: another connection table; no physical networks yet, which the last had.
const LAYOUTS: [u32; 2] = [3, 6];
const VXLAN_PORT: u32 = 8472;
const HOST_1: [u8; 4] = [172, 31, 255, 11];
const ONE: [u8; 4] = [172, 31, 255, 101];

#[test]
fn an_agent_takes_over_from_an_earlier_data_plane_and_cuts_no_traffic() {
    if root_or_skip() {
        takes_over(&TestLab::up(), LAYOUTS[0]);
    }
}

/// With its physical network in use, by VMs and by the host itself: it is the operator's way in.
#[test]
fn an_agent_takes_over_the_uplinks_of_an_earlier_data_plane() {
    if root_or_skip() {
        let lab = TestLab::up();
        public_network(&lab);
        lab.settle(&["h1", "h2"]);
        takes_over(&lab, LAYOUTS[1]);
    }
}

fn takes_over(lab: &TestLab, layout: u32) {
    let digests = lab.digests("h1");
    lab.kill(&["h1"]);
    put_earlier_plane(lab, "h1", layout);
    let before = lab.machine();
    lab.check();

    // One end's host is upgraded, and the other's is not; whichever of them asks.
    let [red_1, red_2, blue_1, blue_2] =
        ["red-1", "red-2", "blue-1", "blue-2"].map(|name| lab.namespace(name));
    let mut traffic = vec![
        Traffic::start(&red_1, &red_2, [10, 0, 0, 12].into()),
        Traffic::start(&red_2, &red_1, [10, 0, 0, 11].into()),
        Traffic::start(&blue_2, &blue_1, [10, 0, 0, 11].into()),
    ];
    if layout == LAYOUTS[1] {
        let [machine, h1, one, two] = ["fabric", "h1", "one", "two"].map(|at| lab.namespace(at));
        traffic.push(Traffic::start(&machine, &h1, HOST_1.into()));
        traffic.push(Traffic::start(&machine, &one, ONE.into()));
        traffic.push(Traffic::start(&two, &one, ONE.into()));
        traffic.push(Traffic::start(&one, &h1, HOST_1.into()));
    }
    traffic[0].run_for(WHILE);
    // Wherever it gets to.
    for milliseconds in [100, 300, 600, 900] {
        lab.start(&["h1"]);
        traffic[0].run_for(Duration::from_millis(milliseconds));
        lab.kill(&["h1"]);
    }
    lab.start(&["h1"]);
    lab.settle(&["h1"]);
    traffic[0].run_for(WHILE);
    for probes in traffic.into_iter().map(Traffic::finish) {
        assert!(probes.sent > 300 && probes.lost == 0, "{probes:?}");
    }
    // The earliest one had no programs on the underlay, none had one where tunnels begin.
    let at_ports = |links: BTreeMap<PathBuf, u32>| -> BTreeMap<PathBuf, u32> {
        let ends = |link: &Path, hook| link.to_string_lossy().ends_with(hook);
        let is_new = |link: &Path| ends(link, "-from_underlay") || ends(link, "-to_tunnel");
        links.into_iter().filter(|(link, _)| !is_new(link)).collect()
    };
    let (links, before) = (at_ports(lab.machine().links), at_ports(before.links));
    assert_eq!(links, before, "no program was ever taken off a device");
    assert_eq!(lab.digests("h1"), digests);
    let root = lab.data("h1").join("bpf");
    let old = [format!("maps-{layout}"), old::PROGRAMS.to_owned(), "maps/nets_6".to_owned()];
    assert!(old.iter().all(|old| !root.join(old).exists()), "what is old is gone");
    lab.check();
}

/// As after a downgrade: the ports that are there are of a version that nobody here knows.
#[test]
fn an_agent_that_cannot_take_connections_along_says_so_and_cuts_no_traffic() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let before = lab.machine();
    lab.kill(&["h1"]);
    let maps = lab.data("h1").join("bpf/maps");
    let ports = names(&maps).into_iter().find(|name| name.starts_with("ports_")).unwrap();
    fs::rename(maps.join(ports), maps.join("ports_999")).unwrap();
    let traffic =
        Traffic::start(&lab.namespace("red-1"), &lab.namespace("red-2"), [10, 0, 0, 12].into());
    traffic.run_for(WHILE);
    lab.start(&["h1"]);
    let rest = lab.rest();
    let told = || {
        let host = rest.all("/hosts").into_iter().find(|host| host["name"] == "h1").unwrap();
        host["notInEffect"].to_string()
    };
    assert!(wait::holds(LIMIT, || told().contains("version 999 of the map ports")), "{}", told());
    traffic.run_for(WHILE);
    let probes = traffic.finish();
    // An answer that was under way when the programs changed is nobody's.
    assert!(probes.sent > 300 && probes.lost <= 1, "{probes:?}");
    assert_eq!(lab.machine().links, before.links);
    lab.digests("h1");
    lab.check();
}

/// Makes the host one whose agent was of an earlier version, and is dead.
fn put_earlier_plane(lab: &TestLab, host: &str, layout: u32) {
    let (tables, bpffs) = (machine::tables(&lab.data(host)), lab.data(host).join("bpf"));
    let work = move || {
        let links = names(&bpffs.join("links"));
        let (maps, sets) = (bpffs.join("maps"), names(&bpffs));
        let now = bpffs.join("maps-now");
        fs::rename(maps, &now).unwrap();
        let mut earlier = old::OldPlane::open(&bpffs, layout);
        earlier.configure(if_nametoindex("nlvx").unwrap(), VXLAN_PORT);
        earlier.fill(&tables);
        for link in links {
            let (ifindex, hook) = link.split_once('-').unwrap();
            if !old::programs_of(layout).contains(&hook) {
                // It had no such program.
                fs::remove_file(bpffs.join("links").join(&link)).unwrap();
                continue;
            }
            let interface = if_indextoname(ifindex.parse().unwrap()).unwrap();
            earlier.attach(hook, interface.to_str().unwrap());
        }
        for set in sets.iter().filter(|name| name.starts_with("programs-")) {
            fs::remove_dir_all(bpffs.join(set)).unwrap();
        }
        fs::remove_dir_all(now).unwrap();
    };
    lab.namespace(host).run_in(work).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
