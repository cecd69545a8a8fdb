//! What REST's callers get: durable creations beside the bound that syncs set, and reads of a large
//! cloud.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{
    Failure, Setting,
    creations::{Creations, Made},
    plan::{Group, Metric, Step},
    reads::Reads,
    slow_disk::Disk,
};

/// A creation: how many per second, and how long each takes.
macro_rules! creation {
    ($id:literal) => {
        Step {
            id: $id,
            contenders: &[SYNC, "netloom"],
            metrics: &[
                Metric { id: $id, unit: "1/s", quantile: 0.5 },
                Metric { id: concat!($id, "-p50"), unit: "ms", quantile: 0.5 },
                Metric { id: concat!($id, "-p99"), unit: "ms", quantile: 0.99 },
            ],
        }
    };
}

/// A read: how long it takes.
macro_rules! read {
    ($id:literal) => {
        Step {
            id: $id,
            contenders: &["netloom"],
            metrics: &[
                Metric { id: concat!($id, "-p50"), unit: "ms", quantile: 0.5 },
                Metric { id: concat!($id, "-p99"), unit: "ms", quantile: 0.99 },
            ],
        }
    };
}

/// The bound: clients that wait for nothing but syncs which all of them share.
const SYNC: &str = "fsync";

/// Everything that is measured by HTTP.
pub(crate) const HTTP: Group = Group {
    id: "http",
    steps: &[
        creation!("nic-1"),
        creation!("nic-8"),
        creation!("nic-32"),
        creation!("l3-1"),
        creation!("l3-8"),
        creation!("l3-32"),
        creation!("tag-1"),
        creation!("tag-8"),
        creation!("tag-32"),
        creation!("slow-nic-1"),
        creation!("slow-nic-8"),
        creation!("slow-nic-32"),
        creation!("slow-l3-1"),
        creation!("slow-l3-8"),
        creation!("slow-l3-32"),
        creation!("slow-tag-1"),
        creation!("slow-tag-8"),
        creation!("slow-tag-32"),
        read!("show"),
        read!("list"),
        read!("page"),
        read!("nested-name"),
        read!("nested-host"),
        read!("nested-count"),
    ],
};

/// What a step of creations is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Creation {
    made: Made,
    clients: usize,
    disk: Disk,
}

impl Creation {
    fn of_step(step: &str) -> Option<Self> {
        let (disk, rest) = match step.strip_prefix("slow-") {
            Some(rest) => (Disk::Slow, rest),
            None => (Disk::AsItIs, step),
        };
        let (made, clients) = rest.split_once('-')?;
        let made = match made {
            "nic" => Made::Nic,
            "l3" => Made::L3,
            "tag" => Made::Tag,
            _ => return None,
        };
        Some(Self { made, clients: clients.parse().ok()?, disk })
    }
}

/// The contenders, each made when it is measured first.
pub(crate) struct Http {
    binary: PathBuf,
    scratch: PathBuf,
    time: Duration,
    creations: BTreeMap<Disk, Creations>,
    reads: Option<Reads>,
}

impl Http {
    /// None made yet.
    pub(crate) fn new(setting: &Setting<'_>) -> Self {
        let (binary, scratch) = (setting.binary.to_owned(), setting.scratch.to_owned());
        Self { binary, scratch, time: setting.time, creations: BTreeMap::new(), reads: None }
    }

    /// Takes a sample of a step.
    pub(crate) fn measure(
        &mut self,
        step: &str,
        contender: &str,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        let Some(creation) = Creation::of_step(step) else {
            let reads = match self.reads.take() {
                Some(reads) => reads,
                None => Reads::new(&self.binary, &self.scratch)?,
            };
            let took = self.reads.insert(reads).sample(step)?;
            return Ok(vec![took.clone(), took]);
        };
        let Creation { made, clients, disk } = creation;
        let sample = if contender == SYNC {
            disk.syncs(&self.scratch, clients, self.time)?
        } else {
            if !self.creations.contains_key(&disk) {
                let creations = Creations::new(&self.binary, &self.scratch, disk)?;
                self.creations.insert(disk, creations);
            }
            let creations = self.creations.get_mut(&disk).ok_or("what was just made is gone")?;
            creations.sample(made, clients, self.time)?
        };
        Ok(vec![vec![sample.per_second], sample.took.clone(), sample.took])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{creations::CLIENTS_MAX, reads};

    #[test]
    fn every_step_is_a_creation_or_a_read_and_its_first_metric_has_its_name() {
        for step in HTTP.steps {
            assert!(step.metrics[0].id.starts_with(step.id), "{}", step.id);
            match Creation::of_step(step.id) {
                Some(creation) => assert!(creation.clients <= CLIENTS_MAX, "{creation:?}"),
                None => assert!(reads::of_step(step.id).is_some(), "{}", step.id),
            }
        }
        let slow = Creation { made: Made::L3, clients: 32, disk: Disk::Slow };
        assert_eq!(Creation::of_step("slow-l3-32"), Some(slow));
    }
}
