//! A physical network on a real link: a machine of the wire, the host, and VMs. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{FloodKey, Mac, Net, Port, PortKey, Wire};
use netloom_dataplane::{DataPlane, Options, Tables, TestHarness};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;
use support::traffic::{LIMIT, ping, transfer};
use support::vm::{Vm, add_local, v4};
use support::{Host, Namespace, ifindex, ip, may_run};

const SHORT: Duration = Duration::from_millis(300);
/// Where the machine on the wire and the host are, beside the VMs.
const MACHINE: u32 = 200;
const OWN: u32 = 201;

/// A host with two VMs and a wire to a machine that knows nothing of netloom.
struct Site {
    plane: DataPlane,
    machine: Namespace,
    vms: [Vm; 2],
    _host: Host,
}

impl Site {
    fn up() -> Site {
        let host = Host::enter();
        let machine = Namespace::new();
        ip(&format!(
            "link add wire0 address 02:00:00:00:77:01 type veth peer name wire0 netns {}",
            machine.tid
        ));
        ip("link set wire0 up");
        ip(&format!("address add {}/24 dev wire0", v4(OWN)));
        machine.ip("link set wire0 up");
        machine.ip(&format!("address add {}/24 dev wire0", v4(MACHINE)));
        let vms = [Vm::new(1), Vm::new(2)];
        let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
        let mut tables = Tables::default();
        for (number, vm) in (1..).zip(&vms) {
            plane.attach_port(vm.ifindex()).unwrap();
            add_local(&mut tables, number, vm.ifindex(), Port::PEER);
        }
        let key = PortKey::untagged(ifindex("wire0"));
        tables.wires.insert(key, Wire { net: 1 });
        tables.nets.insert(1, Net::open().behind(key, Mac([2, 0, 0, 0, 0x77, 1])));
        plane.set_uplinks(&[ifindex("wire0")].into()).unwrap();
        plane.reconcile(&tables).unwrap();
        Site { plane, machine, vms, _host: host }
    }
}

#[test]
fn a_machine_and_the_host_and_vms_reach_each_other_as_on_a_switch() {
    if !may_run("a_machine_and_the_host_and_vms_reach_each_other_as_on_a_switch") {
        return;
    }
    let mut site = Site::up();
    let [one, two] = [0, 1].map(|at| &site.vms[at].inside);
    assert!(ping(one, v4(MACHINE), LIMIT));
    assert!(ping(&site.machine, v4(2), LIMIT));
    assert!(ping(one, v4(2), LIMIT));
    assert!(ping(two, v4(OWN), LIMIT), "the host");
    transfer(one, &site.machine, v4(MACHINE).into());
    transfer(&site.machine, two, v4(2).into());

    let wire = ifindex("wire0");
    assert_eq!(site.plane.uplinks().unwrap(), [wire].into());
    site.plane.set_uplinks(&BTreeSet::new()).unwrap();
    assert_eq!(site.plane.uplinks().unwrap(), BTreeSet::new());
    assert!(!ping(&site.machine, v4(1), SHORT), "nobody looks at what comes in");
    site.plane.set_uplinks(&[wire].into()).unwrap();
    assert!(ping(&site.machine, v4(1), LIMIT));
}

#[test]
fn what_is_for_all_reaches_each_port_once_and_those_that_went_not() {
    if !may_run("what_is_for_all_reaches_each_port_once_and_those_that_went_not") {
        return;
    }
    let mut site = Site::up();
    let inboxes = [0, 1].map(|at| {
        site.vms[at].inside.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:7001").unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket
        })
    });
    let say = |site: &Site, text: &'static [u8]| {
        site.machine.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_broadcast(true).unwrap();
            let all = std::net::Ipv4Addr::new(10, 0, 0, 255);
            socket.send_to(text, (all, 7001)).unwrap();
        });
    };
    let hear = |socket: &UdpSocket| {
        let mut buffer = [0; 16];
        socket.recv(&mut buffer).map(|length| buffer[..length].to_vec())
    };
    say(&site, b"first");
    say(&site, b"second");
    for inbox in &inboxes {
        assert_eq!(hear(inbox).unwrap(), b"first");
        assert_eq!(hear(inbox).unwrap(), b"second");
    }
    let mut tables = site.plane.view().tables().unwrap();
    tables.ports.remove(&PortKey::untagged(site.vms[0].ifindex()));
    site.plane.reconcile(&tables).unwrap();
    say(&site, b"third");
    assert_eq!(hear(&inboxes[1]).unwrap(), b"third");
    inboxes[0].set_read_timeout(Some(SHORT)).unwrap();
    assert!(hear(&inboxes[0]).is_err(), "it is no port any more");
}

/// A port comes with this number in this network, or goes.
type Step = (u32, Option<u32>);

fn tables_of(ports: &std::collections::BTreeMap<u32, u32>) -> Tables {
    let mut tables = Tables::default();
    for (number, net) in ports {
        let mac = Mac([2, 0, 0, 0, 1, u8::try_from(*number).unwrap()]);
        let port = Port { number: *number, net: *net, mac, ..Port::default() };
        tables.ports.insert(PortKey::untagged(100 + number), port);
    }
    tables
}

/// After any history each network's ports have the indexes from 0 on, whether the maps were edited
/// or read back.
#[test]
fn the_ports_of_a_network_are_numbered_without_gaps() {
    if !may_run("the_ports_of_a_network_are_numbered_without_gaps") {
        return;
    }
    let host = Host::enter();
    let mut harness = TestHarness::open(&Options::new(host.bpffs())).unwrap();
    let mut held = std::collections::BTreeMap::new();
    let steps = prop::collection::vec((1..12_u32, prop::option::of(1..4_u32)), 1..6);
    let histories = prop::collection::vec((steps, any::<bool>()), 1..12);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(48));
    let harness = std::cell::RefCell::new(&mut harness);
    let held = std::cell::RefCell::new(&mut held);
    let checked = runner.run(&histories, |history| {
        let (mut harness, mut held) = (harness.borrow_mut(), held.borrow_mut());
        for (steps, reads) in history {
            let before = tables_of(&held);
            for (number, net) in steps.into_iter().collect::<Vec<Step>>() {
                match net {
                    Some(net) => _ = held.insert(number, net),
                    None => _ = held.remove(&number),
                }
            }
            let after = tables_of(&held);
            match reads {
                true => _ = harness.plane.reconcile(&after).unwrap(),
                false => _ = harness.plane.apply(before.edits_to(&after)).unwrap(),
            }
            let flood = harness.flooded().unwrap();
            prop_assert_eq!(flood.len(), held.len());
            for (at, flooded) in &flood {
                prop_assert_eq!(held.get(&flooded.number), Some(&at.net));
                let before = FloodKey { net: at.net, index: at.index.wrapping_sub(1) };
                prop_assert!(at.index == 0 || flood.contains_key(&before), "a gap at {at:?}");
            }
            let numbers: BTreeSet<u32> = flood.values().map(|flooded| flooded.number).collect();
            prop_assert_eq!(numbers.len(), held.len());
        }
        Ok(())
    });
    checked.unwrap();
}
