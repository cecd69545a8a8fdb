//! What a change costs an agent whose host has many stations: real maps and a real file, neither
//! server nor instances.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use agent::{
    converge::{Cause, Converger},
    kernel::{
        Candidate, Counted, Directly, Guards, HostKernel, Movers, Observed, ObservedNic, Refusal,
        Room, Stock,
    },
    state::{Desired, StateFile},
    underlay::{Tunnels, Ways},
    uplink::Uplinks,
};
use compute::{InstanceSpec, Prepared};
use dataplane::{DataPlane, Desk, DropTurns, Edits, Lookup, Options, Tables, packet::Timeouts};
use hostnet::Losses;
use tokio::runtime::Runtime;
use uuid::Uuid;
use wire::{
    holding::Holding,
    message::Device,
    object::{Attachment, Network, Object, Peer, Tunnel},
};

use crate::{
    Failure,
    machine::memory,
    plan::{Group, Metric, Step},
    stats,
};

/// Changes that are measured in one sample.
const CHANGES: u32 = 50;
/// Peers that come at once with an instance.
const TOGETHER: u32 = 200;
/// Passes in which nothing is to be done.
const IDLE: usize = 200;

/// Everything that is measured of an agent.
pub(crate) const AGENT: Group = Group {
    id: "agent",
    steps: &[Step {
        id: "change",
        contenders: &["1000-stations", "10000-stations", "50000-stations"],
        metrics: &[
            Metric { id: "peer-p50", unit: "ms", quantile: 0.5 },
            Metric { id: "peer-p99", unit: "ms", quantile: 0.99 },
            Metric { id: "peers-200", unit: "ms", quantile: 0.5 },
            Metric { id: "idle", unit: "us", quantile: 0.5 },
            Metric { id: "audit", unit: "ms", quantile: 0.5 },
            Metric { id: "memory", unit: "MiB", quantile: 0.5 },
        ],
    }],
};

/// The maps of a host without instances.
#[derive(Clone)]
struct Maps(Arc<Mutex<DataPlane>>);

/// An agent at work, without its connection.
struct Host {
    converger: Converger<Maps>,
    file: StateFile,
    desired: Desired,
    runtime: Runtime,
    /// What it takes in memory, in MiB.
    memory: f64,
}

/// The agents, by contender; each is made when it is measured first.
pub(crate) struct Agents<'a> {
    directory: &'a Path,
    hosts: BTreeMap<String, Host>,
}

impl<'a> Agents<'a> {
    /// None yet; their files go to this directory.
    pub(crate) fn new(directory: &'a Path) -> Self {
        Self { directory, hosts: BTreeMap::new() }
    }

    /// Takes a sample.
    pub(crate) fn measure(&mut self, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        if !self.hosts.contains_key(contender) {
            let stations = contender.strip_suffix("-stations").unwrap_or_default().parse()?;
            let host = Host::new(&self.directory.join(contender), stations)?;
            self.hosts.insert(contender.to_owned(), host);
        }
        self.hosts.get_mut(contender).ok_or("what was just made is gone")?.sample()
    }

    /// Ends them, and takes their maps off the kernel.
    pub(crate) fn end(self) -> Result<(), Failure> {
        for contender in self.hosts.into_keys() {
            dataplane::unload(&self.directory.join(contender).join("bpf"))?;
        }
        Ok(())
    }
}

impl Host {
    fn new(directory: &Path, stations: u32) -> Result<Self, Failure> {
        std::fs::create_dir_all(directory)?;
        let before = memory(std::process::id(), "RssAnon")?;
        let plane = DataPlane::open(&Options::new(directory.join("bpf")))?;
        let converger = Converger::new(Maps(Arc::new(Mutex::new(plane))));
        let (file, _) = StateFile::open(&directory.join("data"))?;
        let mut holding = Holding::default();
        holding.upsert(network());
        (0..stations).for_each(|at| holding.upsert(peer(at)));
        let desired = Desired { revision: 1, lineage: None, holding: Arc::new(holding) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut host = Self { converger, file, desired, runtime, memory: 0.0 };
        host.pass()?;
        host.memory = memory(std::process::id(), "RssAnon")? - before;
        Ok(host)
    }

    fn sample(&mut self) -> Result<Vec<Vec<f64>>, Failure> {
        let mut peers = Vec::new();
        for at in 0..CHANGES {
            peers.push(self.change(at..=at)?);
        }
        let together = self.change(0..=TOGETHER - 1)?;
        let start = Instant::now();
        for _ in 0..IDLE {
            self.pass()?;
        }
        let idle = start.elapsed().as_secs_f64() * 1e6 / stats::count(IDLE);
        self.converger.doubt();
        let start = Instant::now();
        self.pass()?;
        let audit = stats::ms(start.elapsed());
        Ok(vec![peers.clone(), peers, vec![together], vec![idle], vec![audit], vec![self.memory]])
    }

    /// Lets peers come, and go again; ms until they were in effect.
    fn change(&mut self, peers: std::ops::RangeInclusive<u32>) -> Result<f64, Failure> {
        let before = self.desired.clone();
        let mut holding = Holding::clone(&before.holding);
        peers.for_each(|at| holding.upsert(peer(1_000_000 + at)));
        let start = Instant::now();
        self.desired = Desired { holding: Arc::new(holding), ..before.clone() };
        self.pass()?;
        let took = stats::ms(start.elapsed());
        self.desired = before;
        self.pass()?;
        Ok(took)
    }

    /// What an agent does when it is told of a change.
    fn pass(&mut self) -> Result<(), Failure> {
        self.file.save(&self.desired)?;
        let pass = self.converger.pass(&self.desired.holding, Cause::Due);
        let outcome = self.runtime.block_on(pass);
        let agrees = outcome.kernel == self.desired.holding.kernel_digest();
        match outcome.is_clean() && agrees {
            true => Ok(()),
            false => Err(format!("not as desired: {outcome:?}").into()),
        }
    }
}

fn network() -> Object {
    let local_vtep = IpAddr::from([192, 0, 2, 1]);
    let (vni, foreign) = (100, Vec::new());
    let tunnel = Tunnel { vni, local_vtep, foreign, is_gre: false, port: None };
    let attachment = Attachment::Tunnel(tunnel);
    Object::Network(Network { uuid: Uuid::from_u128(1), number: 1, attachment })
}

fn peer(at: u32) -> Object {
    let [_, b, c, d] = at.to_be_bytes();
    Object::Peer(Peer {
        uuid: Uuid::from_u128(2 + u128::from(at)),
        network: Uuid::from_u128(1),
        mac: [2, 0, 0, b, c, d],
        addresses: vec![IpAddr::from([10, b, c, d])],
        // Fifty stations on a host.
        vtep: IpAddr::from((0x0b00_0000 + at / 50).to_be_bytes()),
        prefixes: Vec::new(),
        goes: None,
        known_as: None,
    })
}

impl Maps {
    fn plane<T>(
        &self,
        work: impl FnOnce(&mut DataPlane) -> Result<T, dataplane::Error>,
    ) -> Result<T, Refusal> {
        let mut plane = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut plane).map_err(|error| Refusal(error.to_string()))
    }
}

impl HostKernel for Maps {
    const HAS_UNDERLAY: bool = false;

    fn unable(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    async fn tunnel(&mut self, _: u16) -> Result<u32, Refusal> {
        Ok(0)
    }

    async fn observe(&mut self) -> Result<Observed, Refusal> {
        Ok(Observed::default())
    }

    async fn lacking(&mut self, _: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, Refusal> {
        Ok(BTreeSet::new())
    }

    async fn guards(&mut self) -> Result<Guards, Refusal> {
        Ok(Guards { tunnel: true, ..Guards::default() })
    }

    async fn notice(&mut self) -> Option<String> {
        None
    }

    async fn news(&mut self) -> Option<u32> {
        std::future::pending().await
    }

    async fn see(&mut self, _: Uuid, _: Uuid) -> Result<Option<ObservedNic>, Refusal> {
        Ok(None)
    }

    async fn stock(&mut self) -> Result<Stock, Refusal> {
        Ok(Stock::Full)
    }

    async fn prepare(&mut self, _: &InstanceSpec) -> Result<Vec<Prepared>, Refusal> {
        Ok(Vec::new())
    }

    async fn activate(&mut self, _: Uuid) -> Result<(), Refusal> {
        Ok(())
    }

    async fn deactivate(&mut self, _: Uuid) -> Result<(), Refusal> {
        Ok(())
    }

    async fn remove(&mut self, _: Uuid) -> Result<(), Refusal> {
        Ok(())
    }

    async fn attach(&mut self, _: u32) -> Result<(), Refusal> {
        Ok(())
    }

    async fn discard(&mut self, _: u32) -> Result<(), Refusal> {
        Ok(())
    }

    async fn room(&mut self) -> Result<Room, Refusal> {
        Ok(Room::default())
    }

    async fn apply(&mut self, edits: Edits) -> Result<(), Refusal> {
        self.plane(|plane| plane.apply(edits)).map(|_| ())
    }

    async fn remember(&mut self, _: &Timeouts) -> Result<(), Refusal> {
        Ok(())
    }

    async fn losses(&mut self) -> Result<Vec<Losses>, Refusal> {
        Ok(Vec::new())
    }

    async fn arrived(&mut self, _: &BTreeSet<u32>) -> Result<BTreeSet<u32>, Refusal> {
        Ok(BTreeSet::new())
    }

    async fn connections(&mut self) -> Result<Counted, Refusal> {
        Ok(Counted::default())
    }

    async fn audit(&mut self, tables: &Tables) -> Result<Tables, Refusal> {
        self.plane(|plane| {
            let changes = plane.reconcile(tables)?;
            if changes.is_empty() { Ok(tables.clone()) } else { plane.view().tables() }
        })
    }

    async fn ways(&mut self, _: &Tunnels) -> Result<Ways, Refusal> {
        Ok(Ways::new())
    }

    async fn find(&mut self, _: &BTreeSet<String>) -> Result<BTreeMap<String, Candidate>, Refusal> {
        Ok(BTreeMap::new())
    }

    async fn borrow(&mut self, _: u32) -> Result<(), Refusal> {
        Ok(())
    }

    async fn give_back(&mut self, _: u32) -> Result<(), Refusal> {
        Ok(())
    }

    async fn devices(&mut self) -> Result<Vec<Device>, Refusal> {
        Ok(Vec::new())
    }

    async fn desk(&mut self) -> Result<Option<Desk>, Refusal> {
        Ok(None)
    }

    async fn lookup(&mut self) -> Result<Box<dyn Lookup + Send>, Refusal> {
        Err(Refusal("nobody asks here what becomes of packets".to_owned()))
    }

    async fn drop_turns(&mut self) -> Result<Option<DropTurns>, Refusal> {
        Ok(None)
    }

    fn movers(&self) -> Option<Movers> {
        None
    }

    async fn device_news(&mut self) {
        std::future::pending().await
    }

    async fn uplinks(&mut self, _: &BTreeSet<String>) -> Result<Uplinks, Refusal> {
        Ok(Uplinks::new())
    }

    async fn receive_directly(&mut self, _: Directly) -> Result<Option<String>, Refusal> {
        Ok(None)
    }
}
