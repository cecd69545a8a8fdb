//! Nothing is left over of instances that come and go. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, thread};

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    machine::{self, Machine},
    process,
    rest::Rest,
    root_or_skip,
};

const HOSTS: [&str; 2] = ["h1", "h2"];
const PROCESSES: [&str; 3] = ["server", "h1", "h2"];
/// How many clients create and destroy.
const CLIENTS: usize = 6;
/// How many namespaces an agent keeps ready by default.
const SPARES: usize = 8;
/// Files that a process may have more open than before: idle connections.
const FILES_MORE: usize = 4;
/// Memory that a process may have more than before: caches and pools of the first rounds.
const KIB_MORE: u64 = 24 * 1024;

/// F23, as often as a quick test can.
#[test]
fn nothing_is_left_of_instances_that_come_and_go() {
    come_and_go(5, 12);
}

/// F23, as often as it was reported.
#[test]
#[ignore = "takes minutes"]
fn nothing_is_left_of_three_hundred_instances_that_come_and_go() {
    come_and_go(50, 74);
}

/// Each client creates and destroys so many; then so many are destroyed twice, at the same time.
fn come_and_go(rounds: usize, doubled: usize) {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (rest, before) = (lab.rest(), Held::of(&lab));
    let l3 = rest.uuid("/l3-networks", "red-l3");
    // What is kept for ever is there after the first of each kind, and when what was taken from the
    // stock is made good: an agent keeps the links of its devices open.
    each_client(&rest, &l3, 1);
    let spares = || machine::spares(lab.name());
    assert!(wait::holds(LIMIT, || spares().len() == HOSTS.len() * SPARES), "{:?}", spares());
    assert!(wait::holds(LIMIT, || Held::of(&lab) == before), "{:?}", Held::of(&lab));
    let processes = PROCESSES.map(|name| process::of(&lab, name));
    let used = processes.each_ref().map(|path| (process::files(path), process::resident_kib(path)));

    each_client(&rest, &l3, rounds);
    let vms: Vec<String> =
        (0..doubled).map(|at| create(&rest, &l3, &format!("twice-{at}"), at)).collect();
    thread::scope(|scope| {
        for vm in vms.iter().chain(&vms) {
            scope.spawn(|| destroy(&rest, vm));
        }
    });
    let is_clean = wait::holds(LIMIT, || Held::of(&lab) == before);
    assert!(is_clean, "{:?}, was {before:?}", Held::of(&lab));
    for (name, (path, (files_before, kib_before))) in
        PROCESSES.iter().zip(processes.iter().zip(used))
    {
        let few = wait::holds(LIMIT, || process::files(path) <= files_before + FILES_MORE);
        assert!(few, "{name}: {} files, were {files_before}", process::files(path));
        let kib = process::resident_kib(path);
        assert!(kib <= kib_before + KIB_MORE, "{name}: {kib} KiB, were {kib_before}");
    }
    lab.settle(&HOSTS);
    lab.check();
}

/// F27: what runs in an instance is not ended with it. It has no network, and the name is free.
#[test]
fn an_instance_in_which_a_process_runs_goes_and_the_process_stays() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (rest, before) = (lab.rest(), Held::of(&lab));
    let l3 = rest.uuid("/l3-networks", "red-l3");
    let vm = create(&rest, &l3, "busy", 0);
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let mut child = lab.namespace("busy").run_in(|| sleep.spawn()).unwrap().unwrap();
    destroy(&rest, &vm);
    // It is cut off at once, and its device goes a little later.
    let devices = format!("/proc/{}/net/dev", child.id());
    let has_no_device = || {
        let text = fs::read_to_string(&devices).unwrap();
        let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
        names.eq(["lo"])
    };
    let is_alone = wait::holds(LIMIT, has_no_device);
    let lives = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lives && is_alone);
    assert!(wait::holds(LIMIT, || Held::of(&lab) == before), "{:?}", Held::of(&lab));
    lab.check();
}

/// What a lab holds in the kernel, counted: what is kept in stock may be other pieces than before.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    namespaces: usize,
    devices: usize,
    links: usize,
    maps: BTreeMap<PathBuf, u32>,
}

impl Held {
    fn of(lab: &TestLab) -> Self {
        let Machine { namespaces, devices, links, maps } = lab.machine();
        let devices = devices.values().map(Vec::len).sum();
        Self { namespaces: namespaces.len(), devices, links: links.len(), maps }
    }
}

fn each_client(rest: &Rest, l3: &str, rounds: usize) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for round in 0..rounds {
                    let vm = create(rest, l3, &format!("once-{client}-{round}"), client);
                    destroy(rest, &vm);
                }
            });
        }
    });
}

/// Makes an instance on one host or the other.
fn create(rest: &Rest, l3: &str, name: &str, number: usize) -> String {
    let made = rest.create_vm(name, (l3, HOSTS[number % 2]), &[]);
    assert_eq!(made.status, 200, "{made:?}");
    made.body["inventory"]["uuid"].as_str().unwrap().to_owned()
}

/// Destroys an instance; that somebody else was faster is fine.
fn destroy(rest: &Rest, vm: &str) {
    let gone = rest.delete(&format!("/vm-instances/{vm}"));
    assert_eq!(gone.status, 200, "{gone:?}");
}
