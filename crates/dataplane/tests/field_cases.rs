//! What guests do every day, between VMs on one host and across two. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{Addr, Fdb, Port};
use netloom_dataplane::{DataPlane, Options, Tables};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, TcpStream, UdpSocket};
use support::traffic::{LIMIT, ping_command};
use support::vm::{Hosts, MTU, VNI, Vm, add_local, add_station, addresses, far_inbox};
use support::{Host, ifindex, may_run};

/// Two hosts, and VMs that know the MTU of their network.
fn hosts() -> Hosts {
    let hosts = Hosts::up(Port::PEER);
    hosts.vms.iter().for_each(|vm| vm.inside.ip(&format!("link set eth0 mtu {MTU}")));
    hosts
}

/// Field case F05.
#[test]
fn packets_in_fragments_arrive() {
    if !may_run("packets_in_fragments_arrive") {
        return;
    }
    let hosts = hosts();
    let vm = &hosts.vm(1).inside;
    for number in [2, 3] {
        for address in addresses(number) {
            let (answered, said) = ping_command(vm, &format!("-c 3 -i 0.2 -s 4000 {address}"));
            assert!(answered && said.contains(" 0% packet loss"), "{said}");
        }
        let [address, _] = addresses(number);
        let (answered, said) = ping_command(vm, &format!("-c 3 -i 0.2 -s 60000 {address}"));
        assert!(answered && said.contains(" 0% packet loss"), "{said}");
    }
    assert_eq!(hosts.drops("fragment_alone"), 0);
    // No connection but the echoes: a fragment opens none.
    let connections = hosts.plane.view().connections().unwrap();
    assert!(connections.iter().all(|found| found.key.local_port != found.key.remote_port));
}

/// Field case F06.
#[test]
fn whoever_calls_a_closed_port_is_refused_at_once() {
    if !may_run("whoever_calls_a_closed_port_is_refused_at_once") {
        return;
    }
    let hosts = hosts();
    let vm = &hosts.vm(1).inside;
    for address in [2, 3].into_iter().flat_map(addresses) {
        for length in [10, 3_000] {
            let answer = vm.run(move || refused_datagram(address, length));
            assert_eq!(answer, ErrorKind::ConnectionRefused, "{length} bytes to {address}");
        }
        let answer = vm.run(move || {
            TcpStream::connect_timeout(&(address, 9).into(), LIMIT).unwrap_err().kind()
        });
        assert_eq!(answer, ErrorKind::ConnectionRefused, "TCP to {address}");
    }
}

/// What becomes of a datagram to a port where nobody listens.
fn refused_datagram(to: IpAddr, length: usize) -> ErrorKind {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.connect((to, 9)).unwrap();
    socket.send(&vec![7; length]).unwrap();
    socket.recv(&mut [0; 16]).unwrap_err().kind()
}

/// Field case F11: the underlay spreads flows over paths by the outer source port.
#[test]
fn each_flow_has_an_outer_source_port_of_its_own() {
    if !may_run("each_flow_has_an_outer_source_port_of_its_own") {
        return;
    }
    const FLOWS: u16 = 128;
    let host = Host::enter();
    let (_far, inbox) = far_inbox();
    let vm = Vm::new(1);
    let mut plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    plane.attach_port(vm.ifindex()).unwrap();
    let mut tables = Tables::default();
    add_local(&mut tables, 1, vm.ifindex(), Port::PEER);
    let (near, far) = (Addr::v4([192, 0, 2, 1]), Addr::v4([192, 0, 2, 2]));
    add_station(&mut tables, 2, Fdb::remote(VNI, far).sent_from(near));
    plane.reconcile(&tables).unwrap();
    vm.inside.run(|| {
        for address in addresses(2) {
            let any = if address.is_ipv4() { "0.0.0.0" } else { "::" };
            for flow in 0..FLOWS / 2 {
                let any: IpAddr = any.parse().unwrap();
                let socket = UdpSocket::bind((any, 20_000 + flow)).unwrap();
                socket.send_to(b"a flow", (address, 7)).unwrap();
            }
        }
    });
    let ports = (0..FLOWS).map(|_| inbox.recv_from(&mut [0; 256]).unwrap().1.port());
    let ports: BTreeSet<u16> = ports.collect();
    assert!(ports.len() > usize::from(FLOWS) * 9 / 10, "{} ports", ports.len());
}
