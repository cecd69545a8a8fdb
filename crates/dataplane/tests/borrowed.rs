//! Devices that something else made: guarded, and given back. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use aya::programs::{SchedClassifier, TcAttachType};
use netloom_dataplane::{DataPlane, Options};
use std::collections::BTreeSet;
use support::{Host, ifindex, ip, may_run};

/// How many programs a device has at ingress and egress.
fn programs(device: &str) -> [usize; 2] {
    let count = |side| SchedClassifier::query_tcx(device, side).unwrap().1.len();
    [count(TcAttachType::Ingress), count(TcAttachType::Egress)]
}

#[test]
fn a_borrowed_device_is_given_back_also_by_a_later_process_and_no_other_one_is() {
    if !may_run("a_borrowed_device_is_given_back_also_by_a_later_process_and_no_other_one_is") {
        return;
    }
    let host = Host::enter();
    let options = Options::new(host.bpffs());
    ip("link add port1 type veth peer name inside1");
    ip("tuntap add vnet0 mode tap");
    let (port, tap) = (ifindex("port1"), ifindex("vnet0"));
    let mut plane = DataPlane::open(&options).unwrap();
    plane.attach_port(port).unwrap();
    for _ in 0..2 {
        plane.borrow_port(tap).unwrap();
        plane.borrow_port(tap).expect("again changes nothing");
        assert_eq!(plane.attached_ports().unwrap(), BTreeSet::from([port, tap]));
        assert_eq!(plane.borrowed_ports().unwrap(), BTreeSet::from([tap]));
        drop(plane);
        plane = DataPlane::open(&options).unwrap();
        assert_eq!(plane.borrowed_ports().unwrap(), BTreeSet::from([tap]), "it is known still");
        assert_eq!((programs("vnet0"), programs("port1")), ([1, 1], [1, 1]));

        assert!(!plane.give_back_port(port).unwrap(), "it is ours");
        assert!(plane.give_back_port(tap).unwrap());
        assert_eq!((programs("vnet0"), programs("port1")), ([0, 0], [1, 1]));
        assert!(!plane.give_back_port(tap).unwrap(), "it has been");
        assert_eq!(plane.attached_ports().unwrap(), BTreeSet::from([port]));
        assert_eq!(plane.borrowed_ports().unwrap(), BTreeSet::new());
    }
}

#[test]
fn a_mark_that_somebody_removes_comes_back_and_goes_with_its_device() {
    if !may_run("a_mark_that_somebody_removes_comes_back_and_goes_with_its_device") {
        return;
    }
    let host = Host::enter();
    ip("tuntap add vnet0 mode tap");
    let tap = ifindex("vnet0");
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    plane.borrow_port(tap).unwrap();
    let mark = host.bpffs().join(format!("links/{tap}-borrowed"));
    std::fs::remove_dir(&mark).unwrap();
    assert_eq!(plane.mend().unwrap(), 1);
    assert!(mark.exists());
    assert_eq!(plane.mend().unwrap(), 0);
    ip("link delete vnet0");
    assert_eq!(plane.borrowed_ports().unwrap(), BTreeSet::new());
    assert!(!mark.exists());
}
