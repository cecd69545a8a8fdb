//! VLAN tags on a real link between two hosts: sub-ports of a trunk, and an uplink. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{Addr, AddrKey, Fdb, Port, PortKey, Source};
use netloom_dataplane::{DataPlane, Options, Tables, unload};
use std::net::UdpSocket;
use std::time::Duration;
use support::traffic::{LIMIT, ping, transfer};
use support::vm::{Vm, add_local, add_station, addresses, mac, v4};
use support::{Host, Namespace, ifindex, ip, may_run};

const VLAN: u16 = 5;
const SHORT: Duration = Duration::from_millis(300);

/// Two hosts with a wire between them: VM 1 on the near one, VM 2 on the far one, which knows VM 1
/// as what is in a VLAN of the wire.
struct Wire {
    host: Host,
    _far: Namespace,
    one: Vm,
    two: Option<Vm>,
    near_plane: DataPlane,
    far_plane: Option<DataPlane>,
}

impl Wire {
    fn up() -> Wire {
        let host = Host::enter();
        let far = Namespace::new();
        ip(&format!("link add wire0 type veth peer name wire0 netns {}", far.tid));
        // No IPv6 of the host's own on the wire: its router solicitations are untagged.
        ip("link set wire0 addrgenmode none");
        ip("link set wire0 up");
        let one = Vm::new(1);
        let mut near_plane = DataPlane::open(&Options::new(host.bpffs())).unwrap();
        near_plane.attach_port(one.ifindex()).unwrap();
        let bpffs = host.bpffs().with_file_name("far");
        let (two, far_plane) = far.run(|| {
            ip("link set wire0 addrgenmode none");
            ip("link set wire0 up");
            let two = Vm::new(2);
            let mut plane = DataPlane::open(&Options::new(bpffs)).unwrap();
            plane.attach_port(two.ifindex()).unwrap();
            plane.attach_port(ifindex("wire0")).unwrap();
            let mut tables = Tables::default();
            add_local(&mut tables, 2, two.ifindex(), Port::PEER);
            add_sub_port(&mut tables, 1, VLAN);
            plane.reconcile(&tables).unwrap();
            (two, plane)
        });
        Wire { host, _far: far, one, two: Some(two), near_plane, far_plane: Some(far_plane) }
    }

    /// Drops of this reason on the far host.
    fn drops(&self, reason: &str) -> u64 {
        let counters = self.far_plane.as_ref().unwrap().view().counters().unwrap();
        counters.drops.get(reason).copied().unwrap_or_default()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop((self.far_plane.take(), self.two.take()));
        let _ = unload(&self.host.bpffs().with_file_name("far"));
    }
}

/// Adds what is in a VLAN of the wire as a port.
fn add_sub_port(tables: &mut Tables, number: u32, vlan: u16) {
    let key = PortKey::tagged(ifindex("wire0"), vlan);
    let port = Port { number, net: 1, generation: 1, mac: mac(number), ..Port::default() };
    tables.ports.insert(key, port);
    for addr in addresses(number).map(Addr::from) {
        tables.addrs.insert(AddrKey { port: number, addr }, Source::default());
    }
    add_station(tables, number, Fdb::local(key));
}

#[test]
fn a_sub_port_of_a_trunk_talks_in_its_vlan_only() {
    if !may_run("a_sub_port_of_a_trunk_talks_in_its_vlan_only") {
        return;
    }
    let mut wire = Wire::up();
    wire.near_plane.attach_port(ifindex("wire0")).unwrap();
    let tables = |vlan| {
        let mut tables = Tables::default();
        add_local(&mut tables, 1, ifindex("port1"), Port::PEER);
        add_sub_port(&mut tables, 2, vlan);
        tables
    };
    wire.near_plane.reconcile(&tables(VLAN)).unwrap();
    let (one, two) = (&wire.one.inside, &wire.two.as_ref().unwrap().inside);
    assert!(ping(one, v4(2), LIMIT));
    assert!(ping(two, v4(1), LIMIT));
    transfer(one, two, v4(2).into());
    transfer(two, one, v4(1).into());
    assert_eq!(wire.drops("unknown_port"), 0);

    for vlan in [6, 0] {
        wire.near_plane.reconcile(&tables(vlan)).unwrap();
        let before = wire.drops("unknown_port");
        assert!(!ping(one, v4(2), SHORT), "in VLAN {vlan}");
        assert!(wire.drops("unknown_port") > before, "in VLAN {vlan}");
    }
}

#[test]
fn a_frame_into_an_uplink_has_its_tag_on_the_wire() {
    if !may_run("a_frame_into_an_uplink_has_its_tag_on_the_wire") {
        return;
    }
    let mut wire = Wire::up();
    let mut tables = Tables::default();
    add_local(&mut tables, 1, wire.one.ifindex(), Port::PEER);
    let two = &wire.two.as_ref().unwrap().inside;
    let inbox = two.run(|| UdpSocket::bind((v4(2), 7_001)).unwrap());
    let uplink = ifindex("wire0");
    for vlan in [0, VLAN, 6] {
        add_station(&mut tables, 2, Fdb::uplink(PortKey::tagged(uplink, vlan)));
        wire.near_plane.reconcile(&tables).unwrap();
        let before = wire.drops("unknown_port");
        // Those after the first find their flow.
        wire.one.inside.run(|| {
            let socket = UdpSocket::bind((v4(1), 7_000)).unwrap();
            (0..3_u8).for_each(|n| {
                socket.send_to(&[n], (v4(2), 7_001)).unwrap();
            });
        });
        inbox.set_read_timeout(Some(if vlan == VLAN { LIMIT } else { SHORT })).unwrap();
        let arrived = (0..3).take_while(|_| inbox.recv(&mut [0; 8]).is_ok()).count();
        let dropped = wire.drops("unknown_port") - before;
        assert_eq!(arrived, if vlan == VLAN { 3 } else { 0 }, "in VLAN {vlan}");
        assert_eq!(dropped, if vlan == VLAN { 0 } else { 3 }, "in VLAN {vlan}");
    }
}
