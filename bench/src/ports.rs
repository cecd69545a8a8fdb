//! What one more port costs the server's way from a commit to the hosts: compiled, taken into what
//! each host concerned must hold, and cut into messages as they go onto the wire.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use compile::{Compiler, HostDelta};
use model::{Id, Record, resource::host::Host};
use prost::Message;
use serde_json::json;
use store::{Event, Memory, Watch};
use uuid::Uuid;
use wire::{holding::Holding, parts};

use crate::{
    Failure,
    cloud::{Cloud, Shape, request},
    stats,
};

/// Ports that come, one after the other, in one sample.
const PORTS: u32 = 50;

/// A cloud, compiled, and what its hosts hold.
pub(crate) struct Ports {
    cloud: Cloud,
    watch: Watch<Record>,
    compiler: Compiler,
    holdings: BTreeMap<Id<Host>, Holding>,
    /// How many ports have come and gone.
    come: u32,
}

/// What one port cost.
struct Cost {
    compile: Duration,
    total: Duration,
    messages: usize,
    bytes: usize,
}

impl Ports {
    /// Makes a cloud and compiles it.
    pub(crate) fn new(shape: Shape) -> Result<Self, Failure> {
        let mut cloud = Cloud::new(Box::new(Memory::new()), shape)?;
        let watch = cloud.store.watch();
        cloud.fill()?;
        let (compiler, holdings) = (Compiler::new(), BTreeMap::new());
        let mut ports = Self { cloud, watch, compiler, holdings, come: 0 };
        ports.catch_up()?;
        Ok(ports)
    }

    /// Of each port: compile time in ms, the same with messages, how many messages and bytes; the
    /// times twice, for two quantiles.
    pub(crate) fn sample(&mut self) -> Result<Vec<Vec<f64>>, Failure> {
        let mut costs = Vec::new();
        for _ in 0..PORTS {
            costs.push(self.one_more()?);
        }
        let of = |value: &dyn Fn(&Cost) -> f64| costs.iter().map(value).collect::<Vec<f64>>();
        let compile = of(&|cost| stats::ms(cost.compile));
        let total = of(&|cost| stats::ms(cost.total));
        let messages = of(&|cost| stats::count(cost.messages));
        let bytes = of(&|cost| stats::count(cost.bytes));
        Ok(vec![compile.clone(), compile, total.clone(), total, messages, bytes])
    }

    /// A port comes, which is measured, and goes.
    fn one_more(&mut self) -> Result<Cost, Failure> {
        let (uuid, shape) = (Uuid::new_v4(), self.cloud.shape);
        let network = self.come % shape.networks();
        // One that stays out of the way of the ports that are there.
        self.come += 1;
        self.cloud.run(vec![self.cloud.instance(uuid, network, shape.ports_per_network)])?;
        let cost = self.follow()?;
        let destroy = json!({"uuid": uuid.simple().to_string()});
        self.cloud.run(vec![request("DestroyVmInstance", destroy)])?;
        self.cloud.release()?;
        self.catch_up()?;
        Ok(cost)
    }

    /// Takes the next commit to the hosts.
    fn follow(&mut self) -> Result<Cost, Failure> {
        let Some(Event::Commit(commit)) = self.watch.try_next() else {
            return Err("the store did not tell of a commit".into());
        };
        let start = Instant::now();
        let deltas = self.compiler.apply(&commit.changes);
        let compile = start.elapsed();
        let (mut messages, mut bytes) = (0, 0);
        for (host, delta) in deltas {
            let holding = self.holdings.entry(host).or_default();
            hold(holding, &delta);
            let HostDelta { upserts, removes } = delta;
            for part in parts::delta(commit.revision, upserts, removes, holding.digests()) {
                let message = wire::r#gen::ServerMessage::from(&part).encode_to_vec();
                messages += 1;
                bytes += message.len();
            }
        }
        Ok(Cost { compile, total: start.elapsed(), messages, bytes })
    }

    /// Takes in what has been committed, and sends nothing.
    fn catch_up(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.watch.try_next() {
            let deltas = match event {
                Event::Snapshot(snapshot) => {
                    let whole = self.compiler.load(&snapshot).into_iter();
                    let holding =
                        |(host, objects): (_, Vec<_>)| (host, objects.into_iter().collect());
                    self.holdings = whole.map(holding).collect();
                    continue;
                }
                Event::Commit(commit) => self.compiler.apply(&commit.changes),
                Event::Lagged => return Err("the benchmark fell behind the store".into()),
            };
            for (host, delta) in deltas {
                hold(self.holdings.entry(host).or_default(), &delta);
            }
        }
        Ok(())
    }
}

fn hold(holding: &mut Holding, delta: &HostDelta) {
    delta.removes.iter().for_each(|key| holding.remove(key));
    delta.upserts.iter().for_each(|object| holding.upsert(object.clone()));
}
