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
use netloom_tests::{LIMIT, TestLab, machine, root_or_skip, traffic::Traffic};
use nix::net::if_::{if_indextoname, if_nametoindex};

#[path = "../../crates/dataplane/tests/support/old.rs"]
mod old;

/// How long traffic runs in each state.
const WHILE: Duration = Duration::from_secs(2);
/// What is upgraded from.
const LAYOUT: u32 = 3;

#[test]
fn an_agent_takes_over_from_an_earlier_data_plane_and_cuts_no_traffic() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let digests = lab.digests("h1");
    lab.kill(&["h1"]);
    put_earlier_plane(&lab, "h1");
    let before = lab.machine();
    lab.check();

    // One end's host is upgraded, and the other's is not; whichever of them asks.
    let [red_1, red_2, blue_1, blue_2] =
        ["red-1", "red-2", "blue-1", "blue-2"].map(|name| lab.namespace(name));
    let traffic = [
        Traffic::start(&red_1, &red_2, [10, 0, 0, 12].into()),
        Traffic::start(&red_2, &red_1, [10, 0, 0, 11].into()),
        Traffic::start(&blue_2, &blue_1, [10, 0, 0, 11].into()),
    ];
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
    for probes in traffic.map(Traffic::finish) {
        assert!(probes.sent > 300 && probes.lost == 0, "{probes:?}");
    }
    // The earlier one had no programs on the underlay.
    let at_ports = |links: BTreeMap<PathBuf, u32>| -> BTreeMap<PathBuf, u32> {
        let is_new = |link: &Path| link.to_string_lossy().ends_with("-from_underlay");
        links.into_iter().filter(|(link, _)| !is_new(link)).collect()
    };
    let (links, before) = (at_ports(lab.machine().links), at_ports(before.links));
    assert_eq!(links, before, "no program was ever taken off a device");
    assert_eq!(lab.digests("h1"), digests);
    let root = lab.data("h1").join("bpf");
    assert!(!root.join(format!("maps-{LAYOUT}")).exists(), "what is old is gone");
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
fn put_earlier_plane(lab: &TestLab, host: &str) {
    let (tables, bpffs) = (machine::tables(&lab.data(host)), lab.data(host).join("bpf"));
    let work = move || {
        let links = names(&bpffs.join("links"));
        let (maps, sets) = (bpffs.join("maps"), names(&bpffs));
        let mut earlier = old::OldPlane::open(&bpffs, LAYOUT);
        earlier.configure(if_nametoindex("nlvx").unwrap());
        earlier.fill(&tables);
        for link in links {
            let (ifindex, hook) = link.split_once('-').unwrap();
            if hook == "from_underlay" {
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
        fs::remove_dir_all(maps).unwrap();
    };
    lab.namespace(host).run_in(work).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
