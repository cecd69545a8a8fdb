//! Networks in GRE between two hosts, through real links. Needs root.
#![allow(clippy::unwrap_used, reason = "a test says what failed by panicking")]

mod support;

use netloom_dataplane::packet::{Addr, Fdb, GRE, Port, Vtep, VtepKey};
use netloom_dataplane::{DataPlane, Options, Tables};
use std::collections::BTreeSet;
use support::ethtool::{OFFLOADS, switch_off};
use support::traffic::{LIMIT, ping, transfer};
use support::vm::{VNI, Vm, add_local, add_station, tunnel, v4, v6};
use support::{Host, Namespace, ifindex, ip, may_run};

/// Any port: that frames may pass the tunnel device by.
const PORT: u16 = 4_789;

/// The data plane of a host with this VM, the other one behind the other host.
fn open(bpffs: std::path::PathBuf, own: u32, vm: &Vm) -> DataPlane {
    let other = 3 - own;
    let vtep = |number: u32| Addr::v4([192, 0, 2, u8::try_from(number).unwrap()]);
    let options = Options { direct_port: PORT, ..Options::new(bpffs) };
    let mut plane = DataPlane::open(&options).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    plane.set_gre_devices(&BTreeSet::from([ifindex("under0")])).unwrap();
    let mut tables = Tables::default();
    plane.attach_port(vm.ifindex()).unwrap();
    add_local(&mut tables, vm.number, vm.ifindex(), Port::PEER);
    let station = Fdb::remote(VNI | GRE, vtep(other)).sent_from(vtep(own));
    add_station(&mut tables, other, station);
    let key = VtepKey { vni: VNI | GRE, addr: vtep(other) };
    tables.vteps.insert(key, Vtep::of_host(1, vtep(own)));
    plane.reconcile(&tables).unwrap();
    plane
}

/// Packets that the underlay's device has sent.
fn sent() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("under0:")).unwrap();
    line.split_whitespace().nth(9).unwrap().parse().unwrap()
}

#[test]
fn hosts_talk_in_gre() {
    if !may_run("hosts_talk_in_gre") {
        return;
    }
    let host = Host::enter();
    let far = Namespace::new();
    let peer = format!("peer name under0 mtu 1600 netns {}", far.tid);
    ip(&format!("link add under0 mtu 1600 type veth {peer}"));
    ip("link set lo up");
    std::fs::write("/proc/sys/net/ipv4/conf/lo/forwarding", "1").unwrap();
    tunnel(&["192.0.2.1"]);
    let a = Vm::new(1);
    let plane = open(host.bpffs(), 1, &a);
    let far_bpffs = host.bpffs().with_file_name("far");
    let (b, far_plane) = far.run(move || {
        ip("link set lo up");
        std::fs::write("/proc/sys/net/ipv4/conf/lo/forwarding", "1").unwrap();
        tunnel(&["192.0.2.2"]);
        let b = Vm::new(2);
        let plane = open(far_bpffs, 2, &b);
        (b, plane)
    });
    assert!(ping(&a.inside, v4(2), LIMIT));
    let pass = || {
        for (from, to, number) in [(&a, &b, 2), (&b, &a, 1)] {
            transfer(&from.inside, &to.inside, v4(number).into());
            transfer(&from.inside, &to.inside, v6(number).into());
        }
    };
    let before = sent();
    pass();
    // A megabyte in segments of 1,400 bytes is 750 of them, each way and of each family.
    assert!(sent() - before < 1_000, "segments go together: {}", sent() - before);
    // The device takes them one by one: the kernel cuts them.
    switch_off("under0", &["tx-gre-segmentation", "tx-gre-csum-segmentation"]);
    far.run(|| switch_off("under0", &["tx-gre-segmentation", "tx-gre-csum-segmentation"]));
    let before = sent();
    pass();
    assert!(sent() - before > 1_400, "segments go one by one: {}", sent() - before);
    switch_off("under0", &OFFLOADS);
    pass();
    for vm in [&a, &b] {
        vm.inside.run(|| switch_off("eth0", &OFFLOADS));
    }
    pass();
    // The VMs' devices have an MTU of 1,500, their network has less: they were told, and heeded it.
    let told = plane.view().counters().unwrap().drops;
    assert!(told.get("packet_too_big").is_some_and(|count| *count > 0), "{told:?}");
    let losses = [&plane, &far_plane].map(|plane| {
        let drops = plane.view().counters().unwrap().drops;
        drops.into_iter().filter(|(reason, _)| reason.starts_with("gre_")).count()
    });
    assert_eq!(losses, [0, 0]);
    drop(far_plane);
    netloom_dataplane::unload(&host.bpffs().with_file_name("far")).unwrap();
}
