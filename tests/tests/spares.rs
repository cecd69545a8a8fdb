//! What agents keep ready for instances to come: used, made good, and never left behind. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::BTreeSet,
    sync::{Barrier, atomic::AtomicUsize, atomic::Ordering},
    thread,
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{LIMIT, TestLab, machine, root_or_skip};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];

/// How many each agent keeps.
const SPARES: usize = 8;

/// VMs that come at once: more than are ready.
const BURST: usize = 40;

/// Callers that ask for them.
const CALLERS: usize = 10;

#[test]
fn what_is_ready_is_used_survives_a_crash_and_goes_with_the_lab() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let before = until_ready(&lab);
    lab.kill(&["h1", "h2"]);
    lab.start(&["h1", "h2"]);
    lab.settle(&HOSTS);
    assert_eq!(until_ready(&lab), before, "a restarted agent takes over what is complete");

    let vm = create(&lab, "red-3");
    let inode = machine::inode(&lab.namespace("red-3"));
    assert!(before.contains(&inode), "it was ready");
    lab.check();
    let after = until_ready(&lab);
    assert!(!after.contains(&inode) && after.len() == 2 * SPARES, "another one takes its place");

    // A spare that somebody has meddled with is not taken over.
    lab.kill(&["h1"]);
    let meddled = machine::spares(lab.name()).into_iter().find(|name| name.contains("-h1-"));
    let namespace = Namespace::open(&meddled.unwrap()).unwrap();
    let gone = machine::inode(&namespace);
    let script = ["-n", namespace.name(), "link", "set", "eth0", "up"];
    assert!(std::process::Command::new("ip").args(script).status().unwrap().success());
    drop(namespace);
    lab.start(&["h1"]);
    lab.settle(&HOSTS);
    assert!(wait::holds(LIMIT, || !inodes(&lab).contains(&gone)));

    destroy(&lab, &vm);
    lab.down();
    assert_eq!(machine::leftovers(lab.name(), lab.root()), Vec::<String>::new());
    assert_eq!(machine::spares(lab.name()), Vec::<String>::new());
}

/// An agent may die while it makes one more, uses one, or removes what is gone.
#[test]
fn an_agent_that_is_killed_at_any_time_leaves_no_device_and_no_namespace() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    until_ready(&lab);
    let before = lab.machine();
    for round in 0..6 {
        lab.settle(&["h1"]);
        let vm = create(&lab, "red-3");
        if round % 2 == 0 {
            lab.kill(&["h1"]);
            lab.start(&["h1"]);
        }
        destroy(&lab, &vm);
        // Right when the job says that it is cut off: what is to be removed is still there.
        lab.kill(&["h1"]);
        lab.start(&["h1"]);
    }
    lab.settle(&HOSTS);
    until_ready(&lab);
    let is_clean = || lab.machine().devices == before.devices;
    assert!(wait::holds(LIMIT, is_clean), "{:#?}\n{before:#?}", lab.machine());
    // A pin whose device is gone goes with the next look at all of them.
    assert!(wait::holds(LIMIT, || lab.machine() == before), "{:#?}", lab.machine());
    lab.check();
}

/// Of a burst only the first find something ready; the others are made as ever, and none starves.
#[test]
fn a_burst_of_more_than_is_ready_is_served() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    until_ready(&lab);
    let (next, begin) = (AtomicUsize::new(0), Barrier::new(CALLERS));
    let made: Vec<Vec<String>> = thread::scope(|scope| {
        let work = || {
            begin.wait();
            let mut made = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= BURST {
                    return made;
                }
                made.push(create(&lab, &format!("burst-{number}")));
            }
        };
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(work)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let made = made.concat();
    assert_eq!(made.len(), BURST);
    let namespaces: BTreeSet<u64> =
        (0..BURST).map(|n| machine::inode(&lab.namespace(&format!("burst-{n}")))).collect();
    assert_eq!(namespaces.len(), BURST, "each has a namespace of its own");
    lab.check();
    until_ready(&lab);
    made.iter().for_each(|vm| destroy(&lab, vm));
    lab.check();
}

/// Waits until both agents keep as many as they should; which.
fn until_ready(lab: &TestLab) -> BTreeSet<u64> {
    // A spare is guarded last: one whose agent dies before that is made anew.
    let is_guarded = |host: &&str| {
        let data = lab.data(host);
        let links = std::fs::read_dir(data.join("bpf/links")).unwrap();
        let names = links.map(|link| link.unwrap().file_name().into_string().unwrap());
        let ports = names.filter(|name| name.ends_with("_port")).count();
        ports == 2 * (SPARES + machine::tables(&data).ports.len())
    };
    let is_full =
        || machine::spares(lab.name()).len() == 2 * SPARES && HOSTS.iter().all(is_guarded);
    assert!(wait::holds(LIMIT, is_full), "{:?}", machine::spares(lab.name()));
    inodes(lab)
}

fn inodes(lab: &TestLab) -> BTreeSet<u64> {
    let names = machine::spares(lab.name());
    let open = names.iter().filter_map(|name| Namespace::open(name).ok());
    open.map(|namespace| machine::inode(&namespace)).collect()
}

/// Makes a VM of tenant red on h1, and gives its uuid.
fn create(lab: &TestLab, name: &str) -> String {
    let rest = lab.rest();
    let of = |path: &str, name: &str| -> Value {
        rest.all(path).iter().find(|found| found["name"] == name).unwrap()["uuid"].clone()
    };
    let (network, host) = (of("/l3-networks", "red-l3"), of("/hosts", "h1"));
    let params = json!({"name": name, "l3NetworkUuids": [network], "hostUuid": host});
    let body = json!({"params": params}).to_string();
    let answer = rest.with("prefer", "wait=30").send("POST", "/vm-instances", &body).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["inventory"]["uuid"].as_str().unwrap().to_owned()
}

fn destroy(lab: &TestLab, vm: &str) {
    let rest = lab.rest().with("prefer", "wait=30");
    let answer = rest.send("DELETE", &format!("/vm-instances/{vm}"), "").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}
