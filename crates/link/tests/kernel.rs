//! The agent on the real kernel, with a server: needs root, see `hostnet::scratch`.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod world;

use std::{
    fs,
    path::{Path, PathBuf},
};

use dataplane::{Tables, View};
use hostnet::{
    LinkInfo, Netlink,
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

#[test]
fn a_host_follows_the_server_and_a_restart_touches_nothing() {
    if !scratch::root_or_skip() {
        return;
    }
    let namespace = Scratch::new("agent").unwrap();
    let run = || {
        let bpffs = scratch::bpf_directory().unwrap().join(scratch::name("agent"));
        // All threads of this runtime are in the namespace and see this directory.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(follow_and_restart(bpffs));
    };
    namespace.run_in(run).unwrap();
}

/// Whether the process sees this mount, as the machine does; threads may see others.
fn is_mounted_on_the_machine(bpffs: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.contains(bpffs.to_str().unwrap())
}

async fn follow_and_restart(bpffs: PathBuf) {
    let netlink = Netlink::current().await.unwrap();
    let loopback = netlink.existing("lo").await.unwrap();
    netlink.set_up(loopback.index).await.unwrap();
    let mut world = World::new();
    world.put([host(1), host(2), vtep(1), vtep(2), network(1)]);
    let config = agent::Config {
        data: world.directory.path().join("agent"),
        bpffs,
        prefix: scratch::name("vm"),
        enrol: Some(world.enrolment(1, "token", now().plus_seconds(60))),
    };
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
    let after = look(&config.bpffs).await;
    assert_eq!(after.1, Tables::default());
    let names: Vec<_> = after.0.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["lo", "nlvx"]);
    agent.stop().await;
}
