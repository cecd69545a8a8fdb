//! Upgrades under traffic, from objects of earlier layouts. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{Addr, Fdb, Port, PortKey, Vtep, VtepKey};
use netloom_dataplane::{DataPlane, Error, Options, Tables, View};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::flows::{Flows, sent_again};
use support::old::OldPlane;
use support::vm::{Vm, add_local, add_station, tunnel};
use support::{Host, Namespace, ifindex, ip, may_run};

const VNI: u32 = 4_242;
const NEAR: Addr = Addr::v4([192, 0, 2, 1]);
const FAR: Addr = Addr::v4([192, 0, 2, 2]);
/// Links of the host that is upgraded: two for each port, one for the tunnel.
const LINKS: usize = 5;

/// A host with two VMs whose data plane is of an earlier layout, another host with a third VM, and
/// traffic between them.
struct World {
    host: Host,
    far: Namespace,
    vms: [Vm; 3],
    flows: Vec<Flows>,
}

impl World {
    fn new(layout: u32) -> World {
        let host = Host::enter();
        let far = Namespace::new();
        let tid = far.tid;
        ip(&format!("link add under0 mtu 1600 type veth peer name under0 mtu 1600 netns {tid}"));
        tunnel(&["192.0.2.1"]);
        far.run(|| tunnel(&["192.0.2.2"]));
        let (a, b) = (Vm::new(1), Vm::new(2));
        let bpffs = far_bpffs(&host);
        let c = far.run(move || {
            let c = Vm::new(3);
            start_far(bpffs, &c);
            c
        });
        start_old(&host.bpffs(), layout, [&a, &b]);
        let flows = vec![Flows::start(&a, &b), Flows::start(&b, &c)];
        World { host, far, vms: [a, b, c], flows }
    }

    /// Ends the traffic: nothing of it may have been lost, but for so many answers to pings that
    /// were under way.
    fn end(mut self, most_lost: u64) {
        for flows in std::mem::take(&mut self.flows) {
            let [ping, tcp] = flows.stop();
            let drops = View::open(&self.host.bpffs()).unwrap().counters().unwrap().drops;
            println!("ping {ping:?}, TCP {tcp:?}, drops {drops:?}");
            assert!(ping.sent > 10 && tcp.sent > 10, "{ping:?} {tcp:?}");
            assert!(ping.lost <= most_lost && tcp.lost == 0, "{ping:?} {tcp:?}");
        }
        for vm in &self.vms {
            assert_eq!(sent_again(vm), 0, "VM {}", vm.number);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.flows.clear();
        let bpffs = far_bpffs(&self.host);
        self.far.run(move || netloom_dataplane::unload(&bpffs).unwrap());
    }
}

fn far_bpffs(host: &Host) -> PathBuf {
    host.bpffs().with_file_name("far")
}

fn start_far(bpffs: PathBuf, vm: &Vm) {
    let mut plane = DataPlane::open(&Options::new(bpffs)).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    plane.attach_port(vm.ifindex()).unwrap();
    let mut tables = Tables::default();
    add_local(&mut tables, 3, vm.ifindex(), Port::PEER);
    add_station(&mut tables, 1, Fdb::remote(VNI, NEAR).sent_from(FAR));
    add_station(&mut tables, 2, Fdb::remote(VNI, NEAR).sent_from(FAR));
    tables.vteps.insert(VtepKey { vni: VNI, addr: NEAR }, Vtep::of_host(1, FAR));
    plane.reconcile(&tables).unwrap();
}

fn start_old(bpffs: &Path, layout: u32, vms: [&Vm; 2]) {
    let mut old = OldPlane::open(bpffs, layout);
    old.configure(ifindex("vx0"), 0);
    old.fill(&desired());
    old.attach("from_tunnel", "vx0");
    for vm in vms {
        old.attach("to_port", &format!("port{}", vm.number));
        old.attach("from_port", &format!("port{}", vm.number));
    }
}

/// What the host that is upgraded is to hold.
fn desired() -> Tables {
    let mut tables = Tables::default();
    for number in [1, 2] {
        add_local(&mut tables, number, ifindex(&format!("port{number}")), Port::PEER);
    }
    add_station(&mut tables, 3, Fdb::remote(VNI, FAR).sent_from(NEAR));
    tables.vteps.insert(VtepKey { vni: VNI, addr: FAR }, Vtep::of_host(1, NEAR));
    tables
}

/// What an agent does at its start, in its order.
fn upgrade(bpffs: &Path) -> DataPlane {
    let mut plane = DataPlane::open(&Options::new(bpffs)).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    let ports = [1, 2].map(|number| ifindex(&format!("port{number}")));
    assert_eq!(plane.attached_ports().unwrap(), ports.into());
    plane.reconcile(&desired()).unwrap();
    plane
}

/// The program that each link runs, by the name of its pin; and the link. Without that of a hook that
/// earlier layouts did not have.
fn links(bpffs: &Path) -> BTreeMap<String, (u32, u32)> {
    let look = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let link = aya::programs::links::PinnedLink::from_pin(&path).unwrap();
        let info = aya::programs::links::FdLink::from(link).info().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, (info.program_id(), info.id()))
    };
    let all = fs::read_dir(bpffs.join("links")).unwrap().map(look);
    all.filter(|(name, _)| !name.ends_with("-to_tunnel")).collect()
}

fn programs(bpffs: &Path) -> Vec<u32> {
    links(bpffs).into_values().map(|(program, _)| program).collect()
}

/// How the TCP connections of the host's ports are seen: state, whether their opening was.
fn tcp(plane: &DataPlane) -> Vec<(u32, &'static str, bool)> {
    let connections = plane.view().connections().unwrap().into_iter();
    let tcp = connections.filter(|seen| seen.key.protocol == 6);
    let mut tcp: Vec<_> =
        tcp.map(|seen| (seen.port, seen.state, seen.initiator.is_some())).collect();
    tcp.sort_unstable();
    tcp
}

fn check_upgrade_from(layout: u32) {
    let world = World::new(layout);
    let bpffs = world.host.bpffs();
    let before = links(&bpffs);
    assert_eq!(before.len(), LINKS);

    // Without anything to fill the maps with, what runs goes on.
    let mut plane = DataPlane::open(&Options::new(&bpffs)).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    plane.attach_port(ifindex("port1")).unwrap();
    // Maps that are the same are full already.
    if plane.is_upgrading() {
        assert_eq!(links(&bpffs), before, "no link is touched before the maps are full");
    }
    assert!(plane.is_upgrading() || layout > 3);
    drop(plane);

    let plane = upgrade(&bpffs);
    let after = links(&bpffs);
    for (name, (program, link)) in &after {
        assert_eq!(*link, before[name].1, "{name}: the link is the same");
        assert_ne!(*program, before[name].0, "{name}: the program is another");
    }
    // Port 2 is in two connections: as the one that answers, and as the one that asks.
    let established = |port| (port, "established", true);
    assert_eq!(tcp(&plane), [1, 2, 2].map(established), "all of them were taken along");
    assert_eq!(plane.view().tables().unwrap(), desired());
    let left: Vec<String> = fs::read_dir(&bpffs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("maps-") || name == support::old::PROGRAMS)
        .collect();
    assert_eq!(left, [""; 0], "what is old is gone");
    drop(plane);
    drop(upgrade(&bpffs));
    assert_eq!(links(&bpffs), after, "another start changes nothing");
    world.end(0);
}

#[test]
fn an_upgrade_that_converts_the_connections_cuts_no_traffic() {
    if may_run("an_upgrade_that_converts_the_connections_cuts_no_traffic") {
        check_upgrade_from(3);
    }
}

#[test]
fn an_upgrade_that_keeps_the_connections_cuts_no_traffic() {
    if may_run("an_upgrade_that_keeps_the_connections_cuts_no_traffic") {
        check_upgrade_from(4);
    }
}

#[test]
fn an_upgrade_of_some_maps_cuts_no_traffic() {
    if may_run("an_upgrade_of_some_maps_cuts_no_traffic") {
        check_upgrade_from(6);
    }
}

#[test]
fn an_upgrade_to_ports_with_policies_cuts_no_traffic() {
    if may_run("an_upgrade_to_ports_with_policies_cuts_no_traffic") {
        check_upgrade_from(7);
    }
}

#[test]
fn maps_that_cannot_be_filled_leave_the_old_data_plane() {
    if !may_run("maps_that_cannot_be_filled_leave_the_old_data_plane") {
        return;
    }
    let world = World::new(3);
    let bpffs = world.host.bpffs();
    let before = links(&bpffs);
    let mut plane = DataPlane::open(&Options::new(&bpffs)).unwrap();
    let mut too_many = desired();
    let port = *too_many.ports.values().next().unwrap();
    let more = (1_000..6_000).map(|n| (PortKey::untagged(n), Port { number: n, ..port }));
    too_many.ports.extend(more);
    let refused = plane.reconcile(&too_many).unwrap_err();
    assert!(matches!(refused, Error::Upgrade { .. }), "{refused}");
    assert!(refused.to_string().contains("another version goes on"), "{refused}");
    assert_eq!(links(&bpffs), before);
    plane.reconcile(&desired()).unwrap();
    let after = links(&bpffs);
    assert!(after.iter().all(|(name, (program, _))| before[name].0 != *program));
    world.end(0);
}

/// As after a downgrade: ports, configuration and connections are of a version that is not known.
#[test]
fn what_cannot_be_converted_costs_connections_and_no_traffic() {
    if !may_run("what_cannot_be_converted_costs_connections_and_no_traffic") {
        return;
    }
    let world = World::new(4);
    let bpffs = world.host.bpffs();
    drop(upgrade(&bpffs));
    for base in ["ports", "config"] {
        let pins = fs::read_dir(bpffs.join("maps")).unwrap().map(|pin| pin.unwrap().path());
        let is_it = |pin: &PathBuf| pin.to_string_lossy().contains(&format!("/{base}_"));
        for pin in pins.filter(is_it).collect::<Vec<_>>() {
            fs::rename(&pin, pin.with_file_name(format!("{base}_999"))).unwrap();
        }
    }
    let before = programs(&bpffs);
    let plane = upgrade(&bpffs);
    assert!(programs(&bpffs).iter().all(|program| !before.contains(program)));
    assert!(tcp(&plane).iter().all(|(_, _, is_known)| !is_known), "they are picked up");
    assert!(plane.lost_connections().unwrap().contains("version 999"));
    world.end(1);
}

/// Steps of an upgrade, by what is said when they are done, and how many links of the earlier layout
/// have a new program then. The last step comes with each link; the second one is that of a hook that
/// the layout did not have.
const STEPS: [(&str, usize); 8] = [
    ("upgrade: another version's data plane goes on until ours is filled", 0),
    ("maps are made", 0),
    ("programs are loaded", 0),
    ("upgrade: connections are converted", 0),
    ("maps are full", 0),
    (NEW_PROGRAM, 1),
    (NEW_PROGRAM, 1),
    (NEW_PROGRAM, 2),
];
const NEW_PROGRAM: &str = "a link has its new program";

#[test]
fn a_kill_at_any_step_of_an_upgrade_cuts_no_traffic() {
    if !may_run("a_kill_at_any_step_of_an_upgrade_cuts_no_traffic") {
        return;
    }
    let world = World::new(3);
    let bpffs = world.host.bpffs();
    let before = programs(&bpffs);
    for (step, expected) in STEPS {
        let killed = run_agent(&bpffs, step);
        assert!(killed, "nothing was said of: {step}");
        let now = programs(&bpffs);
        assert_eq!(now.len(), LINKS, "no device is without its programs");
        let new = now.iter().filter(|program| !before.contains(program)).count();
        assert_eq!(new, expected, "links with a new program after: {step}");
    }
    assert!(!run_agent(&bpffs, "never said"), "the rest is done at once");
    assert!(programs(&bpffs).iter().all(|program| !before.contains(program)));
    world.end(0);
}

const STEP: &str = "NETLOOM_TEST_KILLED_AT";
const BPFFS: &str = "NETLOOM_TEST_BPFFS";

/// Runs an upgrade in a process of its own that kills itself when it says this; whether it did.
fn run_agent(bpffs: &Path, step: &str) -> bool {
    let mut agent = Command::new(std::env::current_exe().unwrap());
    agent.args(["--ignored", "--exact", "an_agent_that_kills_itself"]);
    let status = agent.env(STEP, step).env(BPFFS, bpffs).status().unwrap();
    assert!(status.code().is_none_or(|code| code == 0), "{status}");
    status.code().is_none()
}

#[test]
#[ignore = "the process of a_kill_at_any_step_of_an_upgrade_cuts_no_traffic"]
fn an_agent_that_kills_itself() {
    let step = std::env::var(STEP).unwrap();
    tracing::subscriber::set_global_default(KillAt(step)).unwrap();
    drop(upgrade(Path::new(&std::env::var(BPFFS).unwrap())));
}

/// Kills the process as soon as this is said.
struct KillAt(String);

impl tracing::Subscriber for KillAt {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if format!("{value:?}") == self.0 {
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
            }
        });
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
