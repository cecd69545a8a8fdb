//! What root takes away under a data plane that is open, and how it comes back. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use aya::maps::MapInfo;
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use netloom_dataplane::{DataPlane, Hold, Options, Tables, View};
use nix::mount::{MntFlags, umount2};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use support::{Host, ifindex, ip, may_run};

/// Ids of everything that is pinned, by pin.
fn pins(bpffs: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let directories = fs::read_dir(bpffs).unwrap().map(|entry| entry.unwrap().path());
    for directory in directories.filter(|path| path.is_dir()) {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            // The mark of a set of programs that is complete.
            if path.is_dir() {
                continue;
            }
            let id = match directory.file_name().unwrap().to_str().unwrap() {
                "links" => link(&path),
                "maps" => MapInfo::from_pin(&path).unwrap().id(),
                _ => ProgramInfo::from_pin(&path).unwrap().id(),
            };
            found.insert(path.display().to_string(), id);
        }
    }
    found
}

fn link(pin: &Path) -> u32 {
    let link = aya::programs::links::PinnedLink::from_pin(pin).unwrap();
    aya::programs::links::FdLink::from(link).info().unwrap().id()
}

/// A data plane with a port and a tunnel device, and all its pins.
fn plane(host: &Host) -> (DataPlane, BTreeMap<String, u32>) {
    ip("link add port1 type veth peer name inside1");
    ip("link add vx0 type vxlan dstport 4789 external");
    ip("link add eth0 type veth peer name wire");
    let options = Options { direct_port: 4789, ..Options::new(host.bpffs()) };
    let mut plane = DataPlane::open(&options).unwrap();
    plane.attach_port(ifindex("port1")).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    plane.set_underlay_devices(&[ifindex("eth0")].into()).unwrap();
    let pins = pins(&host.bpffs());
    assert!(pins.len() > 10, "{pins:?}");
    (plane, pins)
}

#[test]
fn whatever_pin_is_removed_comes_back_as_the_same_object() {
    if !may_run("whatever_pin_is_removed_comes_back_as_the_same_object") {
        return;
    }
    let host = Host::enter();
    let (mut plane, before) = plane(&host);
    assert_eq!(plane.mend().unwrap(), 0, "nothing is missing");
    for pin in before.keys() {
        fs::remove_file(pin).unwrap();
        assert_eq!(plane.mend().unwrap(), 1, "{pin}");
        assert_eq!(pins(&host.bpffs()), before, "{pin}");
    }
    for directory in ["links", "maps", "programs-"] {
        let entries = fs::read_dir(host.bpffs()).unwrap().map(|entry| entry.unwrap().path());
        let is_meant = |path: &std::path::PathBuf| {
            path.file_name().unwrap().to_str().unwrap().starts_with(directory)
        };
        fs::remove_dir_all(entries.into_iter().find(is_meant).unwrap()).unwrap();
        assert!(plane.mend().unwrap() > 1, "{directory}");
        assert_eq!(pins(&host.bpffs()), before, "{directory}");
    }
    assert_eq!(plane.attached_ports().unwrap(), BTreeSet::from([ifindex("port1")]));
    assert!(plane.has_tunnel().unwrap());
}

/// An audit may come to a device before it has looked at the pins.
#[test]
fn whoever_attaches_again_keeps_the_link_whose_pin_is_gone() {
    if !may_run("whoever_attaches_again_keeps_the_link_whose_pin_is_gone") {
        return;
    }
    let host = Host::enter();
    let (mut plane, before) = plane(&host);
    umount2(&host.bpffs(), MntFlags::MNT_DETACH).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    plane.attach_port(ifindex("port1")).unwrap();
    plane.set_underlay_devices(&[ifindex("eth0")].into()).unwrap();
    plane.mend().unwrap();
    assert_eq!(pins(&host.bpffs()), before);
}

#[test]
fn a_map_that_is_pinned_in_the_place_of_ours_gives_way() {
    if !may_run("a_map_that_is_pinned_in_the_place_of_ours_gives_way") {
        return;
    }
    let host = Host::enter();
    let (mut plane, before) = plane(&host);
    let named = |name: &str| before.keys().find(|pin| pin.contains(name)).unwrap();
    let (ports, fdb) = (named("/ports_"), named("/fdb_"));
    fs::remove_file(ports).unwrap();
    fs::rename(fdb, ports).unwrap();
    assert_eq!(plane.mend().unwrap(), 2);
    assert_eq!(pins(&host.bpffs()), before);
}

#[test]
fn a_file_system_that_is_unmounted_is_mounted_again_with_everything_in_it() {
    if !may_run("a_file_system_that_is_unmounted_is_mounted_again_with_everything_in_it") {
        return;
    }
    let host = Host::enter();
    let mut hold = Hold::take(&host.bpffs()).unwrap();
    let (mut plane, before) = plane(&host);
    umount2(&host.bpffs(), MntFlags::MNT_DETACH).unwrap();
    assert!(View::open(&host.bpffs()).is_err());
    hold.renew(&host.bpffs()).unwrap();
    assert_eq!(plane.mend().unwrap(), before.len());
    assert_eq!(pins(&host.bpffs()), before, "the same maps, programs and links");
    assert!(Hold::take(&host.bpffs()).is_err(), "it is still this agent's");
    assert_eq!(View::open(&host.bpffs()).unwrap().tables().unwrap(), Tables::default());
    drop((plane, hold));
    // Nothing was left to what the process had open.
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    assert_eq!(pins(&host.bpffs()), before);
    assert_eq!(plane.attached_ports().unwrap(), BTreeSet::from([ifindex("port1")]));
}

#[test]
fn another_agent_on_a_file_system_mounted_meanwhile_is_left_alone() {
    if !may_run("another_agent_on_a_file_system_mounted_meanwhile_is_left_alone") {
        return;
    }
    let host = Host::enter();
    let mut hold = Hold::take(&host.bpffs()).unwrap();
    // As if this one had found it mounted.
    drop(hold);
    hold = Hold::take(&host.bpffs()).unwrap();
    umount2(&host.bpffs(), MntFlags::MNT_DETACH).unwrap();
    let other = Hold::take(&host.bpffs()).unwrap();
    let refused = hold.renew(&host.bpffs()).unwrap_err().to_string();
    assert!(refused.contains("another netloom agent"), "{refused}");
    drop(other);
    hold.renew(&host.bpffs()).unwrap();
}

#[test]
fn a_tunnel_device_without_its_program_is_noticed() {
    if !may_run("a_tunnel_device_without_its_program_is_noticed") {
        return;
    }
    let host = Host::enter();
    let (mut plane, _) = plane(&host);
    assert!(plane.has_tunnel().unwrap());
    ip("link delete vx0");
    assert!(!plane.has_tunnel().unwrap());
    ip("link add vx0 type vxlan dstport 4789 external");
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    assert!(plane.has_tunnel().unwrap());
    // Somebody else's program, before ours.
    let mut other = aya::EbpfLoader::new()
        .btf(None)
        .default_map_pin_directory(host.bpffs())
        .load(support::old::object_of(4))
        .unwrap();
    let program: &mut SchedClassifier =
        other.program_mut("from_tunnel").unwrap().try_into().unwrap();
    program.load().unwrap();
    let first = aya::programs::links::LinkOrder::first();
    let options = aya::programs::tc::TcAttachOptions::TcxOrder(first);
    program.attach_with_options("vx0", TcAttachType::Ingress, options).unwrap();
    assert!(!plane.has_tunnel().unwrap());
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    assert!(plane.has_tunnel().unwrap(), "ours is the first again");
}
