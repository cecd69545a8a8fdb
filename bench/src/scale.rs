//! What a large cloud costs the server: beside a small one, in this process and without VMs.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use store::Memory;

use crate::{
    Failure,
    cloud::{Cloud, Shape},
    plan::{Group, Metric, Step},
    ports::Ports,
    queries,
    reconnect::{self, Reconnect},
    restart::Restart,
    writes::Writes,
};

/// The small and the large cloud.
const SIZES: &[&str] = &["1000-nics", "100000-nics"];

/// The two quantiles of a query.
macro_rules! metrics {
    ($id:literal) => {
        [metric(concat!($id, "-p50"), "ms", 0.5), metric(concat!($id, "-p99"), "ms", 0.99)]
    };
}
/// Everything that is measured in clouds of several sizes.
pub(crate) const SCALE: Group = Group {
    id: "scale",
    steps: &[
        Step {
            id: "port",
            contenders: &["100-hosts", "500-hosts", "2000-hosts", "one-network"],
            metrics: &[
                metric("port-compile-p50", "ms", 0.5),
                metric("port-compile-p99", "ms", 0.99),
                metric("port-delta-p50", "ms", 0.5),
                metric("port-delta-p99", "ms", 0.99),
                metric("port-messages", "messages", 0.5),
                metric("port-bytes", "bytes", 0.5),
            ],
        },
        query("query-ip", &metrics!("query-ip")),
        query("query-ip-alike", &metrics!("query-ip-alike")),
        query("query-mac", &metrics!("query-mac")),
        query("query-page", &metrics!("query-page")),
        query("query-page-own", &metrics!("query-page-own")),
        query("query-count", &metrics!("query-count")),
        query("query-like", &metrics!("query-like")),
        query("query-sorted", &metrics!("query-sorted")),
        Step {
            id: "write",
            contenders: SIZES,
            metrics: &[
                metric("write-CreateVmNic", "us", 0.5),
                metric("write-DestroyVmInstance", "us", 0.5),
                metric("write-CreateL2VxlanNetwork", "us", 0.5),
            ],
        },
        Step {
            id: "reconnect",
            contenders: &[reconnect::NOTHING_HELD, reconnect::ALL_HELD],
            metrics: &[
                metric("reconnect-all", "ms", 0.5),
                metric("reconnect-bytes", "bytes", 0.5),
                metric("reconnect-commit-p50", "ms", 0.5),
                metric("reconnect-commit-p99", "ms", 0.99),
                metric("reconnect-commit-alone-p50", "ms", 0.5),
                metric("reconnect-commit-alone-p99", "ms", 0.99),
            ],
        },
    ],
};

/// How a server starts on them.
pub(crate) const START: Group = Group {
    id: "start",
    steps: &[Step {
        id: "start",
        contenders: SIZES,
        metrics: &[
            metric("start-answers", "ms", 0.5),
            metric("start-idle", "ms", 0.5),
            metric("start-memory", "MiB", 0.5),
            metric("start-memory-peak", "MiB", 0.5),
        ],
    }],
};

const fn metric(id: &'static str, unit: &'static str, quantile: f64) -> Metric {
    Metric { id, unit, quantile }
}

const fn query(id: &'static str, metrics: &'static [Metric]) -> Step {
    Step { id, contenders: SIZES, metrics }
}

/// The contenders, each made when it is measured first.
pub(crate) struct Scale {
    binary: PathBuf,
    scratch: PathBuf,
    ports: BTreeMap<String, Ports>,
    clouds: BTreeMap<String, (Cloud, Writes)>,
    restarts: BTreeMap<String, Restart>,
    /// One for both contenders.
    reconnect: Option<Reconnect>,
}

impl Scale {
    /// None made yet.
    pub(crate) fn new(binary: &Path, scratch: &Path) -> Self {
        let (ports, clouds, restarts, reconnect) = Default::default();
        let (binary, scratch) = (binary.to_owned(), scratch.to_owned());
        Self { binary, scratch, ports, clouds, restarts, reconnect }
    }

    /// Takes a sample of a step.
    pub(crate) fn measure(
        &mut self,
        step: &str,
        contender: &str,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        let shape = shape(step, contender);
        match step {
            "port" => of(&mut self.ports, contender, || Ports::new(shape))?.sample(),
            "start" => {
                let make = || Restart::new(&self.binary, &self.scratch, shape);
                of(&mut self.restarts, contender, make)?.sample()
            }
            "reconnect" => {
                let reconnect = match self.reconnect.take() {
                    Some(made) => made,
                    None => Reconnect::new(&self.scratch, shape)?,
                };
                self.reconnect.insert(reconnect).sample(contender)
            }
            step => {
                let (cloud, writes) = of(&mut self.clouds, contender, || filled(shape))?;
                match queries::of_step(step) {
                    Some(asked) => {
                        let took = queries::sample(cloud, asked)?;
                        Ok(vec![took.clone(), took])
                    }
                    None => writes.sample(cloud),
                }
            }
        }
    }
}

fn shape(step: &str, contender: &str) -> Shape {
    let (hosts, usual) = match contender {
        "1000-nics" => (20, 50),
        reconnect::NOTHING_HELD | reconnect::ALL_HELD => (200, 50),
        "100-hosts" => (100, 50),
        "500-hosts" => (500, 50),
        "one-network" => (500, 25_000),
        _ => (2000, 50),
    };
    // A start compiles everything: in small networks twenty rounds of it take minutes.
    let ports_per_network = if step == "start" { 10 } else { usual };
    Shape { hosts, ports_per_network }
}

fn filled(shape: Shape) -> Result<(Cloud, Writes), Failure> {
    let mut cloud = Cloud::new(Box::new(Memory::new()), shape)?;
    cloud.fill()?;
    let writes = Writes::new(&cloud)?;
    Ok((cloud, writes))
}

/// What is there by this name, after making it if it is not.
fn of<'a, T>(
    all: &'a mut BTreeMap<String, T>,
    name: &str,
    make: impl FnOnce() -> Result<T, Failure>,
) -> Result<&'a mut T, Failure> {
    if !all.contains_key(name) {
        all.insert(name.to_owned(), make()?);
    }
    all.get_mut(name).ok_or_else(|| "what was just made is gone".into())
}
