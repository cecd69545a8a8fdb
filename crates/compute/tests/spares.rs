//! Spares of the netns driver against the kernel. Needs root; everything happens in namespaces of
//! its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::{pin::pin, process::Command};

use hostnet::{
    Arp, Kind, LinkInfo, Namespace, Netlink, VethSpec,
    scratch::{Scratch, name, root_or_skip},
};
use netloom_compute::{Driver, InstanceSpec, Journey, Netns, NicSpec, Spare};
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

    /// A driver as a new process has it.
    fn restarted(&self) -> Netns {
        Netns::on(self.prefix.clone(), &std::env::temp_dir(), (*self.namespace).clone())
    }

    /// A spare that may be taken.
    async fn stock(&self) -> Spare {
        let spare = self.driver.make_spare().await.unwrap();
        self.driver.offer(spare.clone());
        spare
    }

    async fn veths(&self) -> Vec<LinkInfo> {
        let links = self.netlink.links().await.unwrap();
        links.into_iter().filter(|link| link.kind == Kind::Veth).collect()
    }

    fn namespaces(&self) -> Vec<String> {
        Namespace::list(&self.prefix).unwrap()
    }

    /// All that an instance consists of, without what the kernel numbers by itself.
    async fn state(&self, spec: &InstanceSpec) -> Vec<String> {
        let inside = Namespace::open(&self.driver.namespace_name(spec.uuid)).unwrap();
        let inside = inside.netlink().await.unwrap();
        let mut state = Vec::new();
        for link in inside.links().await.unwrap() {
            let addresses = inside.addresses(link.index).await.unwrap();
            // Those that the kernel gives by itself come in its own time.
            let addresses = addresses.iter().filter(|it| !it.ip.to_string().starts_with("fe80"));
            state.push(format!("{:?} {:?}", anonymous(&link), addresses.collect::<Vec<_>>()));
        }
        for route in inside.default_routes().await.unwrap() {
            state.push(format!("{} {}", route.gateway, route.metric));
        }
        state.extend(self.veths().await.iter().map(|link| format!("{:?}", anonymous(link))));
        state.sort_unstable();
        state
    }

    async fn check_empty(&self) {
        assert_eq!((self.veths().await, self.namespaces()), (Vec::new(), Vec::new()));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for name in Namespace::list(&self.prefix).unwrap_or_default() {
            Namespace::remove(&name).unwrap_or_else(|error| eprintln!("{error}"));
        }
    }
}

fn anonymous(link: &LinkInfo) -> LinkInfo {
    LinkInfo { index: 0, peer: None, peer_namespace_id: None, is_running: false, ..link.clone() }
}

fn instance(devices: &[&str]) -> InstanceSpec {
    let nic = |(number, device): (u8, &&str)| NicSpec {
        uuid: Uuid::new_v4(),
        device: (*device).to_owned(),
        mac: [2, 0, 0, 0, 0, number],
        mtu_bytes: 1450,
        addresses: vec![([10, 0, number, 2].into(), 24)],
        asks_for: Vec::new(),
        gateways: vec![[10, 0, number, 1].into()],
    };
    let nics = (1..).zip(devices).map(nic).collect();
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
async fn an_instance_of_a_spare_is_like_any_other() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(&["eth3", "eth0"]);
    host.driver.prepare(&spec).await.unwrap();
    let made_anew = host.state(&spec).await;
    host.driver.remove(spec.uuid).await.unwrap();

    let spare = host.stock().await;
    assert_eq!(host.driver.list().await.unwrap(), [], "a spare is no instance");
    let first = host.driver.prepare(&spec).await.unwrap();
    assert_eq!(first[0].host_ifindex, spare.host_ifindex);
    assert_eq!(host.state(&spec).await, made_anew);
    assert_eq!(host.driver.prepare(&spec).await.unwrap(), first, "nothing is made anew");
    let found = host.driver.list().await.unwrap();
    assert_eq!((found.len(), found[0].nics.len()), (1, 2));
    assert_eq!(host.driver.offered(), Vec::<u32>::new());
    host.driver.remove(spec.uuid).await.unwrap();
    host.check_empty().await;
}

#[tokio::test]
async fn a_restarted_driver_finds_what_is_complete_and_removes_the_rest() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let mut spares = [host.stock().await, host.stock().await, host.stock().await];
    let device = host.netlink.link_by_index(spares[1].host_ifindex).await.unwrap().unwrap().name;
    let namespace = host.namespace.name();
    let rename = ["-n", namespace, "link", "set", &device, "name", "other"];
    assert!(Command::new("ip").args(rename).status().unwrap().success());
    host.netlink.set_up(spares[2].host_ifindex).await.unwrap();

    let restarted = host.restarted();
    assert_eq!(restarted.find_spares().await.unwrap(), spares[..1]);
    assert_eq!(host.namespaces().len(), 1);
    // The one whose device somebody has renamed went with its namespace.
    host.driver.remove_spare(&spares[0]).await.unwrap();
    assert_eq!(host.namespaces(), Vec::<String>::new());

    // Two that were offered are gone: an instance is made as ever.
    spares.sort_by_key(|spare| spare.host_ifindex);
    let spec = instance(&["eth0"]);
    let prepared = host.driver.prepare(&spec).await.unwrap();
    assert!(spares.iter().all(|spare| spare.host_ifindex != prepared[0].host_ifindex));
    let found = host.driver.list().await.unwrap();
    assert_eq!((found.len(), found[0].nics.len()), (1, 1));
}

#[tokio::test]
async fn a_foreign_device_with_the_name_of_a_spare_is_not_touched() {
    if !root_or_skip() {
        return;
    }
    let (host, other) = (Host::new().await, Scratch::new("other").unwrap());
    let foreign = VethSpec {
        name: "nls0123456789ab",
        mac: [2, 0, 0, 0, 0, 1],
        arp: Arp::On,
        peer_namespace: &other,
        peer_name: "eth0",
        peer_mac: [2, 0, 0, 0, 0, 2],
        mtu_bytes: 1500,
    };
    let made = host.netlink.create_veth(&foreign).await.unwrap();
    // As a crash leaves it before there is a device.
    Namespace::create(&format!("{}-spare_0123456789ab", host.prefix)).unwrap();
    let foreign_name = format!("{}-spare_x", host.prefix);
    Namespace::create(&foreign_name).unwrap();
    assert_eq!(host.restarted().find_spares().await.unwrap(), []);
    assert_eq!(host.netlink.existing(foreign.name).await.unwrap(), made);
    assert_eq!(host.namespaces(), [foreign_name]);
}

#[tokio::test]
async fn a_crash_while_a_spare_is_made_leaves_nothing_that_is_not_found() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    for polls in 1.. {
        assert!(polls < 1000, "it does not end");
        let is_done = pin!(Crash(Box::pin(host.driver.make_spare()), polls)).await.is_some();
        let found = host.restarted().find_spares().await.unwrap();
        assert_eq!(host.veths().await.len(), found.len(), "after {polls} polls");
        for spare in &found {
            host.driver.remove_spare(spare).await.unwrap();
        }
        host.check_empty().await;
        if is_done {
            break;
        }
    }
}

#[tokio::test]
async fn a_crash_while_a_spare_is_used_is_made_good() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = instance(&["eth1"]);
    host.driver.prepare(&spec).await.unwrap();
    let made_anew = host.state(&spec).await;
    host.driver.remove(spec.uuid).await.unwrap();
    for polls in 1.. {
        assert!(polls < 1000, "it does not end");
        host.stock().await;
        let is_done = pin!(Crash(Box::pin(host.driver.prepare(&spec)), polls)).await.is_some();
        let restarted = host.restarted();
        for spare in restarted.find_spares().await.unwrap() {
            restarted.remove_spare(&spare).await.unwrap();
        }
        restarted.prepare(&spec).await.unwrap();
        assert_eq!(host.state(&spec).await, made_anew, "after {polls} polls");
        restarted.remove(spec.uuid).await.unwrap();
        host.check_empty().await;
        if is_done {
            break;
        }
    }
}
