//! The netns driver against the kernel. Needs root; everything happens in namespaces of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, TcpStream},
    path::Path,
    pin::pin,
    process::Command,
    time::Duration,
};

use hostnet::{
    Address, Arp, Kind, LinkInfo, Namespace, Netlink, Origin, VethSpec,
    scratch::{Scratch, name, root_or_skip},
};
use netloom_compute::{
    Driver, Error, FarEnd, Found, FoundNic, InstanceSpec, Journey, Netns, NicSpec, Prepared,
    host_device_name,
};
use support::Crash;
use uuid::Uuid;

/// A host of the test's own, and a driver on it.
struct Host {
    namespace: Scratch,
    netlink: Netlink,
    driver: Netns,
    prefix: String,
}

impl Host {
    async fn new() -> Self {
        let namespace = Scratch::new("host").unwrap();
        let netlink = namespace.netlink().await.unwrap();
        let prefix = name("vm");
        let driver = Netns::on(prefix.clone(), &std::env::temp_dir(), (*namespace).clone());
        Self { namespace, netlink, driver, prefix }
    }

    async fn prepare(&self, spec: &InstanceSpec) -> Vec<Prepared> {
        self.driver.prepare(spec).await.unwrap()
    }

    fn inside(&self, spec: &InstanceSpec) -> Namespace {
        Namespace::open(&self.driver.namespace_name(spec.uuid)).unwrap()
    }

    /// All that a prepared instance consists of, without what the kernel numbers by itself.
    async fn state(&self, spec: &InstanceSpec) -> Vec<String> {
        let inside = self.inside(spec).netlink().await.unwrap();
        let mut state = Vec::new();
        for link in inside.links().await.unwrap() {
            state.push(format!("inside {:?}", anonymous(link.clone())));
            let mut addresses = inside.addresses(link.index).await.unwrap();
            addresses.sort_unstable_by_key(|it| it.ip);
            state.extend(addresses.iter().map(|it| format!("inside {} {it:?}", link.name)));
        }
        for mut route in inside.default_routes().await.unwrap() {
            route.index = 0;
            state.push(format!("inside {route:?}"));
        }
        for link in self.netlink.links().await.unwrap() {
            state.push(format!("host {:?}", anonymous(link)));
        }
        state.sort_unstable();
        state
    }

    /// Nothing is left of any instance.
    async fn check_empty(&self) {
        let links = self.netlink.links().await.unwrap();
        assert!(links.iter().all(|link| link.kind != Kind::Veth), "{links:?}");
        assert_eq!(Namespace::list(&self.prefix).unwrap(), Vec::<String>::new());
        assert_eq!(self.driver.list().await.unwrap(), []);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for name in Namespace::list(&self.prefix).unwrap_or_default() {
            Namespace::remove(&name).unwrap_or_else(|error| eprintln!("{error}"));
        }
    }
}

fn anonymous(link: LinkInfo) -> LinkInfo {
    // Whether a device runs already is the kernel's own business, in its own time.
    LinkInfo { index: 0, peer: None, peer_namespace_id: None, is_running: false, ..link }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nic(number: u8) -> NicSpec {
    NicSpec {
        uuid: Uuid::new_v4(),
        device: format!("eth{number}"),
        mac: [2, 0, 0, 0, 0, number],
        mtu_bytes: 1450,
        addresses: vec![
            (ip(&format!("10.0.{number}.2")), 24),
            (ip(&format!("2001:db8:{number}::2")), 64),
        ],
        asks_for: Vec::new(),
        gateways: vec![ip(&format!("10.0.{number}.1")), ip(&format!("2001:db8:{number}::1"))],
    }
}

fn instance(nics: Vec<NicSpec>) -> InstanceSpec {
    InstanceSpec {
        uuid: Uuid::new_v4(),
        name: "web".to_owned(),
        generation: 0,
        machine: None,
        is_paused: false,
        journey: Journey::Stays,
        nics,
    }
}

#[tokio::test]
async fn two_nics_come_up_inside_while_the_host_sides_stay_down() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(vec![nic(0), nic(1)]);
    let prepared = host.prepare(&spec).await;
    let inside = host.inside(&spec).netlink().await.unwrap();
    assert!(inside.existing("lo").await.unwrap().is_up);
    for (nic, prepared) in spec.nics.iter().zip(&prepared) {
        let outer = host.netlink.existing(&prepared.host_device).await.unwrap();
        assert_eq!((prepared.nic, prepared.host_ifindex), (nic.uuid, outer.index));
        assert_eq!(outer.alias, Some(nic.uuid.to_string()));
        assert_eq!(outer.mtu_bytes, 1450);
        assert!(!outer.is_up && outer.is_noarp && outer.is_addr_gen_none);
        assert_eq!(host.netlink.addresses(outer.index).await.unwrap(), []);
        let inner = inside.existing(&nic.device).await.unwrap();
        assert_eq!((inner.mac, inner.mtu_bytes, inner.is_up), (nic.mac, 1450, true));
        let found = inside.addresses(inner.index).await.unwrap();
        for (ip, prefix_len) in &nic.addresses {
            let wanted = Address { ip: *ip, prefix_len: *prefix_len, origin: Origin::Netloom };
            assert!(found.contains(&wanted), "{found:?}");
        }
    }
    let mut routes = inside.default_routes().await.unwrap();
    routes.sort_unstable_by_key(|route| (route.metric, route.gateway));
    let routes: Vec<_> = routes.iter().map(|route| (route.metric, route.gateway)).collect();
    let wanted =
        [(100, "10.0.0.1"), (100, "2001:db8::1"), (101, "10.0.1.1"), (101, "2001:db8:1::1")];
    assert_eq!(routes, wanted.map(|(metric, gateway)| (metric, ip(gateway))));
}

#[tokio::test]
async fn an_instance_can_send_as_soon_as_its_nic_is_active() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let specs: Vec<_> = (0..20).map(|_| instance(vec![nic(0)])).collect();
    let mut inside = Vec::new();
    for spec in &specs {
        host.prepare(spec).await;
        inside.push(host.inside(spec).netlink().await.unwrap());
    }
    // Many changes of carrier in a row: the kernel defers acting on them.
    for (spec, inside) in specs.iter().zip(&inside) {
        host.driver.activate(spec.nics[0].uuid).await.unwrap();
        let link = inside.links().await.unwrap().into_iter().find(|link| link.name == "eth0");
        assert!(link.unwrap().is_running);
    }
}

#[tokio::test]
async fn prepare_twice_changes_nothing() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(vec![nic(0), nic(1)]);
    let first = host.prepare(&spec).await;
    host.driver.activate(spec.nics[0].uuid).await.unwrap();
    let state = host.state(&spec).await;
    assert_eq!(host.prepare(&spec).await, first);
    assert_eq!(host.state(&spec).await, state);
}

#[tokio::test]
async fn what_a_guest_set_up_by_itself_stays() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(vec![nic(0)]);
    host.prepare(&spec).await;
    let (namespace, other) = (host.inside(&spec), Scratch::new("nested").unwrap());
    namespace.sysctl("net/ipv4/ip_forward", "1").unwrap();
    let inside = namespace.netlink().await.unwrap();
    let cable = VethSpec {
        name: "mine",
        mac: [2, 0, 0, 0, 1, 1],
        arp: Arp::On,
        peer_namespace: &other,
        peer_name: "mine",
        peer_mac: [2, 0, 0, 0, 1, 2],
        mtu_bytes: 1500,
    };
    inside.create_veth(&cable).await.unwrap();
    let state = host.state(&spec).await;
    host.prepare(&spec).await;
    assert_eq!(host.state(&spec).await, state);
    let forward = namespace.run_in(|| fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
    assert_eq!(forward.unwrap().unwrap().trim(), "1");
}

#[tokio::test]
async fn a_new_driver_finds_what_runs() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let (mut one, two) = (instance(vec![nic(0), nic(1)]), instance(Vec::new()));
    one.nics.sort_unstable_by_key(|nic| nic.uuid);
    let prepared = host.prepare(&one).await;
    host.prepare(&two).await;
    host.driver.activate(one.nics[1].uuid).await.unwrap();
    host.driver.activate(one.nics[1].uuid).await.unwrap();

    let restarted =
        Netns::on(host.prefix.clone(), &std::env::temp_dir(), (*host.namespace).clone());
    let nics = prepared.iter().zip([false, true]).map(|(prepared, up)| FoundNic {
        far_end: FarEnd::Elsewhere,
        nic: prepared.nic,
        host_ifindex: prepared.host_ifindex,
        up,
    });
    let mut wanted = vec![
        Found { instance: one.uuid, nics: nics.collect() },
        Found { instance: two.uuid, nics: Vec::new() },
    ];
    wanted.sort_unstable_by_key(|found| found.instance);
    assert_eq!(restarted.list().await.unwrap(), wanted);
    restarted.deactivate(one.nics[1].uuid).await.unwrap();
    let found = restarted.list().await.unwrap();
    assert!(found.iter().flat_map(|it| &it.nics).all(|nic| !nic.up), "{found:?}");
}

#[tokio::test]
async fn remove_leaves_nothing_and_may_be_repeated() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(vec![nic(0), nic(1)]);
    host.prepare(&spec).await;
    host.driver.activate(spec.nics[0].uuid).await.unwrap();
    // As with a process inside: the namespace itself lives on.
    let held = host.inside(&spec);
    for _ in 0..2 {
        host.driver.remove(spec.uuid).await.unwrap();
        host.check_empty().await;
    }
    assert_eq!(held.netlink().await.unwrap().links().await.unwrap().len(), 1);
    host.driver.deactivate(spec.nics[0].uuid).await.unwrap();
    let error = host.driver.activate(spec.nics[0].uuid).await.unwrap_err();
    assert!(matches!(error, Error::NoNic { .. }), "{error}");
}

#[tokio::test]
async fn a_running_instance_follows_its_spec_in_place() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let mut spec = instance(vec![nic(0), nic(1)]);
    spec.nics[0].addresses.push((ip("10.0.0.3"), 24));
    let first = host.prepare(&spec).await;
    host.driver.activate(spec.nics[0].uuid).await.unwrap();

    spec.nics.pop();
    spec.nics.push(nic(2));
    // The kernel removes 10.0.0.3 together with the first address of its prefix.
    spec.nics[0].addresses[0] = (ip("10.0.0.9"), 24);
    spec.nics[0].addresses[1].1 = 48;
    spec.nics[0].gateways = vec![ip("10.0.0.254")];
    spec.nics[0].mtu_bytes = 1300;
    let second = host.prepare(&spec).await;
    assert_eq!(second[0], first[0]);
    assert_eq!(host.netlink.link_by_name(&first[1].host_device).await.unwrap(), None);
    assert!(host.netlink.existing(&second[0].host_device).await.unwrap().is_up);

    let changed = host.state(&spec).await;
    host.driver.remove(spec.uuid).await.unwrap();
    host.prepare(&spec).await;
    host.driver.activate(spec.nics[0].uuid).await.unwrap();
    assert_eq!(host.state(&spec).await, changed);
}

#[tokio::test]
async fn a_nic_with_another_mac_or_device_is_made_anew() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let mut spec = instance(vec![nic(0), nic(1)]);
    host.prepare(&spec).await;
    spec.nics[0].mac = [2, 0, 0, 0, 0, 77];
    spec.nics[1].device = "eth7".to_owned();
    host.prepare(&spec).await;
    check_as_new(&host, &spec, "MAC and device").await;
    let (one, two) = spec.nics.split_at_mut(1);
    std::mem::swap(&mut one[0].device, &mut two[0].device);
    host.prepare(&spec).await;
    check_as_new(&host, &spec, "swapped devices").await;
}

/// The instance, which is prepared, is what prepare makes from nothing; then nothing is left of it.
async fn check_as_new(host: &Host, spec: &InstanceSpec, case: &str) {
    let state = host.state(spec).await;
    host.driver.remove(spec.uuid).await.unwrap();
    host.check_empty().await;
    host.prepare(spec).await;
    assert_eq!(host.state(spec).await, state, "{case}");
}

#[tokio::test]
async fn an_instance_of_another_generation_is_made_anew_once() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let mut spec = instance(vec![nic(0)]);
    let mark = async |spec: &InstanceSpec| {
        let inside = host.inside(spec).netlink().await.unwrap();
        inside.create_bridge("mark").await.unwrap();
    };
    let is_marked = async |spec: &InstanceSpec| {
        let inside = host.inside(spec).netlink().await.unwrap();
        inside.link_by_name("mark").await.unwrap().is_some()
    };
    for generation in [0, 1, 2] {
        spec.generation = generation;
        host.prepare(&spec).await;
        assert!(!is_marked(&spec).await, "generation {generation} is a new namespace");
        mark(&spec).await;
        // A driver that knows nothing of earlier calls, as after a restart.
        let restarted =
            Netns::on(host.prefix.clone(), &std::env::temp_dir(), (*host.namespace).clone());
        restarted.prepare(&spec).await.unwrap();
        assert!(is_marked(&spec).await, "generation {generation} is there already");
    }
    host.driver.remove(spec.uuid).await.unwrap();
    host.check_empty().await;
}

#[tokio::test]
async fn a_device_of_somebody_else_is_not_touched() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(vec![nic(0)]);
    let device = host_device_name(spec.nics[0].uuid);
    let bridge = host.netlink.create_bridge(&device).await.unwrap();
    let error = host.driver.prepare(&spec).await.unwrap_err();
    assert!(matches!(error, Error::Taken { .. }), "{error}");
    assert_eq!(host.netlink.existing(&device).await.unwrap(), bridge);
    let error = host.driver.activate(spec.nics[0].uuid).await.unwrap_err();
    assert!(matches!(error, Error::NoNic { .. }), "{error}");
}

#[tokio::test]
async fn a_nic_that_its_guest_has_hidden_can_be_discarded() {
    if !root_or_skip() {
        return;
    }
    let (host, elsewhere) = (Host::new().await, Scratch::new("hidden").unwrap());
    let spec = instance(vec![nic(0)]);
    let ifindex = host.prepare(&spec).await[0].host_ifindex;
    host.driver.activate(spec.nics[0].uuid).await.unwrap();
    let inside = host.inside(&spec);
    let moved = Command::new("ip")
        .args(["-n", inside.name(), "link", "set", "eth0", "netns", elsewhere.name()])
        .status();
    assert!(moved.unwrap().success());
    // A loopback under another name does not keep the instance from being mended either.
    let script = "ip link set lo down && ip link set lo name x";
    let renamed =
        Command::new("ip").args(["netns", "exec", inside.name(), "sh", "-c", script]).status();
    assert!(renamed.unwrap().success());

    assert_eq!(host.driver.list().await.unwrap()[0].nics, []);
    for _ in 0..2 {
        host.driver.discard(ifindex).await.unwrap();
    }
    assert_eq!(host.netlink.link_by_index(ifindex).await.unwrap(), None);
    host.prepare(&spec).await;
    assert_eq!(host.driver.list().await.unwrap()[0].nics.len(), 1);

    let bridge = host.netlink.create_bridge("br0").await.unwrap();
    let error = host.driver.discard(bridge.index).await.unwrap_err();
    assert!(matches!(error, Error::NotOurs { .. }), "{error}");
}

#[tokio::test]
async fn half_made_instances_are_completed() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(vec![nic(0), nic(1)]);
    let namespace = host.driver.namespace_name(spec.uuid);

    fs::write(Path::new("/run/netns").join(&namespace), "").unwrap();
    host.prepare(&spec).await;
    check_as_new(&host, &spec, "a file without namespace").await;

    host.driver.remove(spec.uuid).await.unwrap();
    let inside = Namespace::create(&namespace).unwrap();
    let device = host_device_name(spec.nics[0].uuid);
    let cable = VethSpec {
        name: &device,
        mac: [2, 0, 0, 0, 9, 9],
        arp: Arp::On,
        peer_namespace: &inside,
        peer_name: "eth0",
        peer_mac: [2, 0, 0, 0, 0, 0],
        mtu_bytes: 1500,
    };
    host.netlink.create_veth(&cable).await.unwrap();
    host.prepare(&spec).await;
    check_as_new(&host, &spec, "a veth with other MACs and without alias").await;

    host.driver.remove(spec.uuid).await.unwrap();
    let elsewhere = Scratch::new("elsewhere").unwrap();
    let lost = VethSpec { peer_namespace: &elsewhere, ..cable.clone() };
    host.netlink.create_veth(&lost).await.unwrap();
    host.prepare(&spec).await;
    check_as_new(&host, &spec, "a veth into another namespace").await;

    host.driver.remove(spec.uuid).await.unwrap();
    let inside = Namespace::create(&namespace).unwrap();
    let other = host_device_name(Uuid::new_v4());
    let stale = VethSpec { name: &other, peer_namespace: &inside, ..cable };
    host.netlink.create_veth(&stale).await.unwrap();
    host.prepare(&spec).await;
    check_as_new(&host, &spec, "another NIC on the device").await;
}

#[tokio::test]
async fn the_hosts_own_stack_is_silent_on_a_nic() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(vec![nic(0)]);
    let prepared = host.prepare(&spec).await;
    // The host has the very address that the guest takes for its gateway.
    let loopback = host.netlink.existing("lo").await.unwrap();
    host.netlink.address_add(loopback.index, ip("10.0.0.1"), 32).await.unwrap();
    host.netlink.set_up(loopback.index).await.unwrap();
    host.driver.activate(spec.nics[0].uuid).await.unwrap();
    let inside = host.inside(&spec);
    let connect = |limit| {
        let gateway = "10.0.0.1:9".parse().unwrap();
        TcpStream::connect_timeout(&gateway, limit).unwrap_err().kind()
    };
    let short = Duration::from_millis(300);
    assert_ne!(inside.run_in(|| connect(short)).unwrap(), ErrorKind::ConnectionRefused);

    // What the guest would hear otherwise.
    let device = &prepared[0].host_device;
    host.netlink.set_arp(prepared[0].host_ifindex, Arp::On).await.unwrap();
    host.namespace.sysctl(&format!("net/ipv4/conf/{device}/arp_ignore"), "0").unwrap();
    let back = ip("10.0.0.254");
    host.netlink.address_add(prepared[0].host_ifindex, back, 24).await.unwrap();
    let next_arp_request = Duration::from_secs(5);
    assert_eq!(inside.run_in(|| connect(next_arp_request)).unwrap(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_crash_at_any_request_is_made_good_by_the_next_prepare() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(vec![nic(0), nic(1)]);
    host.prepare(&spec).await;
    let state = host.state(&spec).await;
    for polls in 1.. {
        assert!(polls < 1000, "prepare does not end");
        host.driver.remove(spec.uuid).await.unwrap();
        host.check_empty().await;
        let crash = Crash(Box::pin(host.driver.prepare(&spec)), polls);
        let is_done = pin!(crash).await.is_some();
        host.prepare(&spec).await;
        assert_eq!(host.state(&spec).await, state, "after {polls} polls");
        let crash = Crash(Box::pin(host.driver.remove(spec.uuid)), polls);
        pin!(crash).await;
        if is_done {
            break;
        }
    }
}

#[tokio::test]
async fn a_file_that_a_crash_left_goes_and_namespaces_stay() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let [there, left] = [1, 2].map(|number| {
        let uuid = Uuid::from_u128(number);
        InstanceSpec {
            uuid,
            name: "vm".to_owned(),
            generation: 0,
            machine: None,
            is_paused: false,
            journey: Journey::Stays,
            nics: Vec::new(),
        }
    });
    host.prepare(&there).await;
    let path = |name: String| Path::new("/run/netns").join(name);
    let leftover = path(host.driver.namespace_name(left.uuid));
    let foreign = path(format!("{}-other", host.prefix));
    fs::write(&leftover, "").unwrap();
    fs::write(&foreign, "").unwrap();
    host.driver.sweep().unwrap();
    assert!(!leftover.exists());
    assert!(foreign.exists(), "no name of an instance");
    fs::remove_file(foreign).unwrap();
    assert_eq!(host.driver.list().await.unwrap().len(), 1);
    host.driver.remove(there.uuid).await.unwrap();
    host.check_empty().await;
}
