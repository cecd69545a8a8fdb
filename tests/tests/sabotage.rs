//! Somebody with root's rights breaks a host under an agent that runs: it heals, or the host says
//! what is wrong. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramInfo, SchedClassifier, TcAttachType, links::LinkOrder, tc::TcAttachOptions},
};
use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    machine::{self, Machine},
    root_or_skip,
    traffic::{Traffic, one_packet_passes},
};
use nix::mount::{MntFlags, umount2};

const RED_2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 12));

/// How long it may take to heal what the kernel brings no news of, on a machine with other work.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn pins_that_are_removed_come_back_and_no_packet_is_lost() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let traffic = traffic(&lab);
    let before = lab.machine();
    let bpffs = lab.data("h2").join("bpf");
    let pins = before.maps.keys().chain(before.links.keys());
    let pins: Vec<_> = pins.filter(|pin| pin.starts_with(&bpffs)).collect();
    assert!(pins.len() > 10, "{pins:?}");
    // One of each kind by itself, then all at once.
    for pin in [pins[0], pins[pins.len() - 1]] {
        fs::remove_file(pin).unwrap();
        heals(&lab, &before, &pin.display().to_string());
    }
    for directory in directories(&bpffs) {
        fs::remove_dir_all(&directory).unwrap();
    }
    heals(&lab, &before, "all directories");
    umount2(&bpffs, MntFlags::MNT_DETACH).unwrap();
    heals(&lab, &before, "the file system");
    let probes = traffic.finish();
    assert_eq!(probes.lost, 0, "of {}", probes.sent);

    // Nothing depends on what the agent has open.
    lab.kill(&["h2"]);
    assert_eq!(lab.machine(), before);
    lab.check();
    lab.start(&["h2"]);
    lab.settle(&["h1", "h2"]);
    assert_eq!(lab.machine(), before);
}

#[test]
fn entries_of_maps_that_somebody_changes_are_put_right() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let data = lab.data("h2");
    let before = machine::tables(&data);
    for map in ["nets", "ports", "addrs", "fdb", "neigh", "vteps"] {
        for damage in [machine::Damage::Remove, machine::Damage::Change] {
            machine::damage(&data, map, damage);
            let begin = Instant::now();
            let is_right = || machine::tables(&data) == before;
            assert!(wait::holds(SOON, is_right), "{map}: {damage:?}");
            eprintln!("{map}: {damage:?}: {:?}", begin.elapsed());
        }
    }
    lab.check();
}

#[test]
fn devices_that_somebody_breaks_are_mended_one_after_the_other() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (red_1, port) = (lab.namespace("red-1"), lab.host_end("red-2"));
    for sabotage in [
        format!("link delete {port}"),
        format!("link set {port} down"),
        format!("link set {port} name other0"),
        format!("link set {port} alias nobody"),
        "link delete nlvx".to_owned(),
        "link set nlvx down".to_owned(),
        "link set nlvx name other1".to_owned(),
    ] {
        let before = devices(&lab, &port);
        assert_eq!(before.len(), 2, "{before:?}");
        lab.ip("h2", &sabotage);
        let begin = Instant::now();
        let is_mended = || {
            let red_2 = lab.namespace("red-2");
            devices(&lab, &port) == before && one_packet_passes(&red_1, &red_2, RED_2)
        };
        assert!(wait::holds(LIMIT, is_mended), "{sabotage}: {:#}", lab.inspect("h2"));
        eprintln!("{sabotage}: {:?}", begin.elapsed());
        lab.settle(&["h1", "h2"]);
    }
    lab.check();
    assert_eq!(lab.inspect("h2")["inEffect"], true);
}

#[test]
fn a_program_that_somebody_puts_before_ours_gives_way() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let h2 = lab.namespace("h2");
    for (device, name) in [(lab.host_end("red-2"), "from_port"), ("nlvx".to_owned(), "from_tunnel")]
    {
        let first = || {
            let seen = h2.run_in(|| SchedClassifier::query_tcx(&device, TcAttachType::Ingress));
            seen.unwrap().unwrap().1.first().map(ProgramInfo::id)
        };
        // The same program, with maps of its own: as good as one that drops everything.
        let mut other = foreign(&lab, name);
        let program: &mut SchedClassifier = other.program_mut(name).unwrap().try_into().unwrap();
        program.load().unwrap();
        let ours = first();
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let attach = || program.attach_with_options(&device, TcAttachType::Ingress, options);
        h2.run_in(attach).unwrap().unwrap();
        let begin = Instant::now();
        assert!(wait::holds(SOON, || first() == ours), "{name}");
        eprintln!("{name}: {:?}", begin.elapsed());
        lab.settle(&["h1", "h2"]);
        lab.check();
    }
}

/// The programs of an earlier release, in a data plane of somebody else's.
fn foreign(lab: &TestLab, name: &str) -> Ebpf {
    let object = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/dataplane/tests/objects/layout-4.bpf.o");
    let pins = lab.data("h2").join("bpf").join(format!("foreign-{name}"));
    fs::create_dir(&pins).unwrap();
    let mut loader = EbpfLoader::new();
    loader.btf(None).map_max_entries("conntrack", 64).default_map_pin_directory(&pins);
    loader.load(&fs::read(object).unwrap()).unwrap()
}

#[test]
fn an_instance_whose_namespace_is_deleted_is_made_again() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let name = lab.namespace("red-2").name().to_owned();
    let begin = Instant::now();
    let mut command = std::process::Command::new("ip");
    assert!(command.args(["netns", "delete", &name]).status().unwrap().success());
    let red_1 = lab.namespace("red-1");
    let is_mended = || {
        // It has a namespace before it has its address there.
        let has_address = |red_2: &Namespace| {
            red_2.run_in(|| UdpSocket::bind((RED_2, 0)).is_ok()).is_ok_and(|has| has)
        };
        lab::namespace(lab.name(), lab.root(), "red-2")
            .is_ok_and(|red_2| has_address(&red_2) && one_packet_passes(&red_1, &red_2, RED_2))
    };
    assert!(wait::holds(LIMIT, is_mended), "{:#?}", lab.inspect("h2"));
    eprintln!("{:?}", begin.elapsed());
    lab.settle(&["h1", "h2"]);
    lab.check();
}

#[test]
fn what_was_broken_while_no_agent_ran_is_mended_at_its_start() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (data, port) = (lab.data("h2"), lab.host_end("red-2"));
    let bpffs = data.join("bpf");
    let sabotages: [(&str, &dyn Fn()); 4] = [
        ("links", &|| fs::remove_dir_all(bpffs.join("links")).unwrap()),
        ("file system", &|| umount2(&bpffs, MntFlags::MNT_DETACH).unwrap()),
        ("port", &|| lab.ip("h2", &format!("link delete {port}"))),
        ("tunnel", &|| lab.ip("h2", "link delete nlvx")),
    ];
    for (what, sabotage) in sabotages {
        lab.kill(&["h2"]);
        sabotage();
        lab.start(&["h2"]);
        lab.settle(&["h1", "h2"]);
        lab.check();
        lab.digests("h2");
        eprintln!("{what} is mended");
    }
    // Without its maps nobody knows the connections any more, and the host says so.
    lab.kill(&["h2"]);
    fs::remove_dir_all(bpffs.join("maps")).unwrap();
    lab.start(&["h2"]);
    let told = || lab.named("/hosts", "h2")["notInEffect"].to_string();
    let is_told = || told().contains("no connection was taken along");
    assert!(wait::holds(LIMIT, is_told), "{}", told());
    assert!(wait::holds(LIMIT, || lab.inspect("h2")["asDesired"] == true), "{}", told());
    lab.check();
}

#[test]
fn the_saved_state_is_written_again_and_what_runs_needs_none() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let state = lab.data("h2").join("state");
    let saved = || lab.inspect("h2")["asDesired"] == true;
    let damages: [(&str, &dyn Fn()); 2] = [
        ("removed", &|| fs::remove_file(&state).unwrap()),
        ("damaged", &|| fs::write(&state, "nonsense").unwrap()),
    ];
    for (what, damage) in damages {
        damage();
        assert!(wait::holds(SOON, saved), "{what}");
    }
    // And with nobody there who could write it, or say what is wanted.
    for (what, damage) in damages {
        lab.kill(&["h2", "server"]);
        let before = lab.machine();
        damage();
        lab.start(&["h2"]);
        assert!(wait::holds(LIMIT, || !lab.inspect("h2")["agent"].is_null()), "it runs");
        lab.check();
        assert_eq!(lab.machine(), before, "{what}: nothing is touched");
        lab.start(&["server"]);
        lab.settle(&["h1", "h2"]);
        assert_eq!(lab.machine(), before, "{what}");
        assert!(saved());
    }
}

/// Probes and a connection from red-1 on h1 to red-2 on h2.
fn traffic(lab: &TestLab) -> Traffic {
    Traffic::start(&lab.namespace("red-1"), &lab.namespace("red-2"), RED_2)
}

/// The host's end of a NIC and the tunnel device, as far as an operator can break them: name, alias,
/// whether it is up.
fn devices(lab: &TestLab, port: &str) -> Vec<(String, Option<String>, bool)> {
    let machine = lab.machine();
    let of_host = &machine.devices[lab.namespace("h2").name()];
    let ours = of_host.iter().filter(|link| link.name == port || link.name == "nlvx");
    let mut ours: Vec<_> =
        ours.map(|link| (link.name.clone(), link.alias.clone(), link.is_up)).collect();
    ours.sort();
    ours
}

/// Waits until all is as it was.
fn heals(lab: &TestLab, before: &Machine, what: &str) {
    let begin = Instant::now();
    let bpffs = lab.data("h2").join("bpf");
    // Looking at pins that are being made is not for `Machine`.
    let expected = before.maps.keys().chain(before.links.keys());
    let expected: Vec<_> = expected.filter(|pin| pin.starts_with(&bpffs)).collect();
    let is_right = || expected.iter().all(|pin| pin.exists()) && lab.machine() == *before;
    assert!(wait::holds(SOON, is_right), "{what}: {:#?}\n{before:#?}", lab.machine());
    eprintln!("{what}: {:?}", begin.elapsed());
}

fn directories(bpffs: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(bpffs).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}
