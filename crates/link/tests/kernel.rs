//! The agent on the real kernel, with a server: needs root, see `hostnet::scratch`.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod world;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dataplane::{Tables, View};
use hostnet::{
    LinkInfo, Namespace, Netlink,
    scratch::{self, Scratch},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use world::{
    World, now,
    records::{host, instance, instance_uuid, network, nic_uuid, vtep},
};

/// A running agent on the real kernel.
struct RealAgent {
    stop: CancellationToken,
    running: JoinSet<Result<(), agent::Error>>,
}

impl RealAgent {
    fn start(config: &agent::Config) -> Self {
        let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
        running.spawn(agent::run(config.clone(), stop.clone()));
        Self { stop, running }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.running.join_next().await.unwrap().unwrap().unwrap();
    }
}

/// Takes the data plane off the kernel, also when the test fails.
struct Unload(PathBuf);

impl Drop for Unload {
    fn drop(&mut self) {
        dataplane::unload(&self.0).unwrap();
    }
}

/// The host's devices and maps. The kernel notices the carrier of a device up to a second late.
async fn look(bpffs: &Path) -> (Vec<LinkInfo>, Tables) {
    let mut links = Netlink::current().await.unwrap().links().await.unwrap();
    links.iter_mut().for_each(|link| link.is_running = false);
    let tables = View::open(bpffs).unwrap().tables().unwrap();
    (links, tables)
}

/// Runs a test in a namespace of its own, with a place for its bpf file system.
fn on_own_host<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F + Send) {
    if !scratch::root_or_skip() {
        return;
    }
    let namespace = Scratch::new("agent").unwrap();
    let run = || {
        let bpffs = scratch::bpf_directory().unwrap().join(scratch::name("agent"));
        // All threads of this runtime are in the namespace and see this directory.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(test(bpffs));
    };
    namespace.run_in(run).unwrap();
}

#[test]
fn a_host_follows_the_server_and_a_restart_touches_nothing() {
    on_own_host(follow_and_restart);
}

#[test]
fn what_somebody_takes_away_is_mended_at_once() {
    on_own_host(mend);
}

/// Whether the process sees this mount, as the machine does; threads may see others.
fn is_mounted_on_the_machine(bpffs: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.contains(bpffs.to_str().unwrap())
}

/// A server with two hosts and a network, and what the agent of the first needs.
async fn world_and_config(bpffs: PathBuf) -> (World, agent::Config) {
    let netlink = Netlink::current().await.unwrap();
    let loopback = netlink.existing("lo").await.unwrap();
    netlink.set_up(loopback.index).await.unwrap();
    // The first host's VTEP.
    netlink.address_add(loopback.index, [192, 0, 0, 1].into(), 32).await.unwrap();
    let world = World::new();
    world.put([host(1), host(2), vtep(1), vtep(2), network(1)]);
    let config = agent::Config {
        data: world.directory.path().join("agent"),
        bpffs,
        prefix: scratch::name("vm"),
        enrol: Some(world.enrolment(1, "token", now().plus_seconds(60))),
        conntrack: agent::conntrack_size(16, Some(1)),
        direct_underlay: true,
        accel: agent::Accel::Tcg,
        handover: None,
        spares: 0,
        sample: 0,
    };
    (world, config)
}

async fn follow_and_restart(bpffs: PathBuf) {
    let (mut world, config) = world_and_config(bpffs).await;
    let _unload = Unload(config.bpffs.clone());
    let agent = RealAgent::start(&config);
    world.put(instance(20, 2, 1));
    let revision = world.put(instance(10, 1, 1));
    let status = world.settled(1, revision).await;
    assert_eq!(status.up, [instance_uuid(10), nic_uuid(10)].into_iter().collect());
    assert!(!is_mounted_on_the_machine(&config.bpffs), "a killed test would leave it");
    agent.stop().await;

    let before = look(&config.bpffs).await;
    assert_eq!((before.1.ports.len(), before.1.vteps.len()), (1, 1));
    assert!(before.0.iter().any(|link| link.name == "nlvx" && link.is_up));
    world.status(1, "gone", |status| !status.connected).await;
    let agent = RealAgent::start(&config);
    world.settled(1, revision).await;
    assert_eq!(look(&config.bpffs).await, before, "nothing was made anew");

    let revision = world.delete(instance(10, 1, 1));
    let status = world.settled(1, revision).await;
    assert!(status.up.is_empty() && status.failed.is_empty());
    // Its device is down; it is deleted a little later.
    let start = Instant::now();
    loop {
        let after = look(&config.bpffs).await;
        assert_eq!(after.1, Tables::default());
        let others: Vec<_> = after.0.iter().filter(|link| link.name != "nlvx").collect();
        assert!(others.iter().all(|link| link.name == "lo" || !link.is_up), "{others:?}");
        if others.len() == 1 {
            break;
        }
        assert!(start.elapsed() < MENDED, "{others:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    agent.stop().await;
}

/// When to give up waiting until the host is as it should be again. It takes some hundredths of a
/// second, and much longer on a machine that does a lot beside it.
const MENDED: Duration = Duration::from_secs(20);

/// Waits until the port of an instance is up, known to the maps and guarded, the tunnel device is
/// up, and `also` is the case.
async fn mended(bpffs: &Path, what: &str, also: impl Fn(&LinkInfo) -> bool) {
    let start = Instant::now();
    loop {
        let (links, tables) = look(bpffs).await;
        let has_tunnel = links.iter().any(|link| link.name == "nlvx" && link.is_up);
        let is_right = links.iter().any(|link| {
            let pin = |hook: &str| bpffs.join("links").join(format!("{}-{hook}", link.index));
            link.name == "nl00000000000a"
                && link.is_up
                && tables.ports.keys().any(|key| key.ifindex == link.index)
                && pin("from_port").exists()
                && pin("to_port").exists()
                && also(link)
        });
        if is_right && has_tunnel && tables.fdb.len() == 2 {
            return;
        }
        assert!(start.elapsed() < MENDED, "{what}: {links:?} {tables:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ip(arguments: &[&str]) {
    assert!(std::process::Command::new("ip").args(arguments).status().unwrap().success());
}

async fn mend(bpffs: PathBuf) {
    let (mut world, config) = world_and_config(bpffs).await;
    let _unload = Unload(config.bpffs.clone());
    let agent = RealAgent::start(&config);
    world.put(instance(20, 2, 1));
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    mended(&config.bpffs, "nothing was done yet", |_| true).await;
    let netlink = Netlink::current().await.unwrap();
    let device = || netlink.existing("nl00000000000a");

    let before = device().await.unwrap();
    netlink.delete_link(before.index).await.unwrap();
    mended(&config.bpffs, "the port's device", |link| link.index != before.index).await;

    let tunnel = netlink.existing("nlvx").await.unwrap();
    netlink.delete_link(tunnel.index).await.unwrap();
    mended(&config.bpffs, "the tunnel device", |_| true).await;
    assert_ne!(netlink.existing("nlvx").await.unwrap().index, tunnel.index);

    ip(&["link", "set", "nl00000000000a", "down"]);
    mended(&config.bpffs, "put down", |_| true).await;

    let before = device().await.unwrap();
    ip(&["link", "set", "nl00000000000a", "down", "name", "other"]);
    mended(&config.bpffs, "renamed", |link| link.index != before.index).await;
    assert!(netlink.existing("other").await.is_err(), "nothing of it is left");

    let guarded = device().await.unwrap().index;
    fs::remove_file(config.bpffs.join(format!("links/{guarded}-from_port"))).unwrap();
    mended(&config.bpffs, "not guarded", |_| true).await;

    let instance = instance_uuid(10).simple();
    Namespace::remove(&format!("{}-{instance}", config.prefix)).unwrap();
    mended(&config.bpffs, "without a namespace", |link| link.index != guarded).await;
    let status = world.settled(1, revision).await;
    assert!(status.up.contains(&nic_uuid(10)), "{status:?}");
    agent.stop().await;
}
