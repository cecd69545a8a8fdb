//! What the control plane costs: durable NICs per second, and the time until a new VM answers.

use std::{path::PathBuf, time::Duration};

use crate::{
    Failure,
    binding::{Bare, Instances},
    loom::{HOST, Loom, OTHER_HOST},
    nics::{Nics, Rows},
    plan::{Group, Metric, Step},
};

/// Everything that is measured through the API.
pub(crate) const CONTROL: Group = Group {
    id: "control",
    steps: &[
        Step {
            id: "nic-create",
            contenders: &["sqlite", "1-client", "32-clients"],
            metrics: &[Metric { id: "nic-create", unit: "1/s", quantile: 0.5 }],
        },
        Step {
            id: "bind-same-host",
            contenders: &["veth", "netloom"],
            metrics: &[
                Metric { id: "bind-same-host-ack-p50", unit: "ms", quantile: 0.5 },
                Metric { id: "bind-same-host-ack-p99", unit: "ms", quantile: 0.99 },
                Metric { id: "bind-same-host-total-p50", unit: "ms", quantile: 0.5 },
                Metric { id: "bind-same-host-total-p99", unit: "ms", quantile: 0.99 },
            ],
        },
        Step {
            id: "bind-cross-host",
            contenders: &["veth", "netloom"],
            metrics: &[
                Metric { id: "bind-cross-host-ack-p50", unit: "ms", quantile: 0.5 },
                Metric { id: "bind-cross-host-ack-p99", unit: "ms", quantile: 0.99 },
                Metric { id: "bind-cross-host-total-p50", unit: "ms", quantile: 0.5 },
                Metric { id: "bind-cross-host-total-p99", unit: "ms", quantile: 0.99 },
            ],
        },
    ],
};

/// Clients at once.
const CLIENTS: usize = 32;

/// The contenders, each made when it is measured first.
pub(crate) struct Control {
    binary: PathBuf,
    scratch: PathBuf,
    time: Duration,
    rows: Option<Rows>,
    nics: Option<Nics>,
    bare: Option<Bare>,
    instances: Option<Instances>,
}

impl Control {
    /// None made yet.
    pub(crate) fn new(binary: &std::path::Path, scratch: &std::path::Path, time: Duration) -> Self {
        Self {
            binary: binary.to_owned(),
            scratch: scratch.to_owned(),
            time,
            rows: None,
            nics: None,
            bare: None,
            instances: None,
        }
    }

    /// Takes a sample of a step.
    pub(crate) fn measure(
        &mut self,
        step: &str,
        contender: &str,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        match (step, contender) {
            ("nic-create", "sqlite") => {
                let rows = ready(&mut self.rows, || Rows::new(&self.scratch))?;
                Ok(vec![vec![rows.commit(self.time)?]])
            }
            ("nic-create", clients) => {
                let clients = if clients == "1-client" { 1 } else { CLIENTS };
                let nics =
                    ready(&mut self.nics, || Nics::new(&self.binary, &self.scratch, CLIENTS))?;
                Ok(vec![vec![nics.create(clients, self.time)?]])
            }
            (_, "veth") => {
                let sample = ready(&mut self.bare, Bare::new)?.sample()?;
                Ok(sample.into_metrics())
            }
            (step, _) => {
                let host = if step == "bind-same-host" { HOST } else { OTHER_HOST };
                let instances =
                    ready(&mut self.instances, || Instances::new(Loom::up(&self.binary)?))?;
                Ok(instances.sample(host)?.into_metrics())
            }
        }
    }
}

/// What is there, after making it if it is not.
fn ready<T>(
    slot: &mut Option<T>,
    make: impl FnOnce() -> Result<T, Failure>,
) -> Result<&mut T, Failure> {
    let made = match slot.take() {
        Some(made) => made,
        None => make()?,
    };
    Ok(slot.insert(made))
}
