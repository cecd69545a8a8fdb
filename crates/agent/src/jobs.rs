//! Work on instances, beside all else: a driver may be slow, and the maps do not wait for it.
//!
//! One instance has one job at a time, and a job has one step, in its own order. What it did comes
//! back as a message; nothing here decides what to do next.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use compute::InstanceSpec;
use tokio::task::{Id, JoinError, JoinSet};
use uuid::Uuid;

use crate::{
    kernel::{HostKernel, Plug, Refusal, Stock},
    plan::Step,
};

/// Most jobs at a time: instances wait for each other in the kernel anyway.
const JOBS_MAX: usize = 8;

/// What the reason begins with why an instance is not there.
pub(crate) const CANNOT_BE_MADE: &str = "cannot be made";

/// What a job is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    /// An instance.
    Instance(Uuid),
    /// A device that something else made.
    Device(u32),
    /// Devices that no instance has.
    Strays,
    /// Devices that are kept ready.
    Stock,
}

/// What a job did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// What was not done, by object, with the reason.
    pub(crate) failed: BTreeMap<Uuid, String>,
    /// Devices that could not be deleted.
    pub(crate) trouble: Vec<String>,
    /// The instance is there like this, and its NICs are these interfaces.
    pub(crate) prepared: Option<(InstanceSpec, BTreeMap<Uuid, Plug>)>,
    /// These interfaces have their programs.
    pub(crate) guarded: BTreeSet<u32>,
    /// These interfaces are gone.
    pub(crate) gone: BTreeSet<u32>,
    /// The instance is gone.
    pub(crate) removed: bool,
    /// What became of the devices that are kept ready.
    pub(crate) stock: Option<Stock>,
    /// These NICs are up or down.
    pub(crate) up: BTreeMap<Uuid, bool>,
}

/// The jobs under way.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    running: JoinSet<Done>,
    subjects: HashMap<Id, Subject>,
}

impl Jobs {
    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// How many are under way.
    pub(crate) fn count(&self) -> usize {
        self.subjects.len()
    }

    /// Whether one about this is.
    pub(crate) fn is_about(&self, subject: Subject) -> bool {
        self.subjects.values().any(|other| *other == subject)
    }

    /// The instances that jobs are about.
    pub(crate) fn instances(&self) -> impl Iterator<Item = Uuid> {
        self.subjects.values().filter_map(|subject| match subject {
            Subject::Instance(uuid) => Some(*uuid),
            Subject::Device(_) | Subject::Strays | Subject::Stock => None,
        })
    }

    /// The devices of somebody else that jobs are about.
    pub(crate) fn devices(&self) -> impl Iterator<Item = u32> {
        self.subjects.values().filter_map(|subject| match subject {
            Subject::Device(ifindex) => Some(*ifindex),
            Subject::Instance(_) | Subject::Strays | Subject::Stock => None,
        })
    }

    /// Whether there is room for one more.
    pub(crate) fn has_room(&self) -> bool {
        self.subjects.len() < JOBS_MAX
    }

    /// Starts a step about an instance; `attached` are the interfaces that have their programs.
    pub(crate) fn start<K: HostKernel>(
        &mut self,
        kernel: K,
        instance: Uuid,
        step: Step,
        attached: &BTreeSet<u32>,
    ) {
        let attached = attached.clone();
        let work = async move {
            let mut job = Job { kernel, done: Done::default() };
            match step {
                Step::Cut(nics) => job.lower(&nics).await,
                Step::Remove { down, interfaces } => job.remove(instance, &down, interfaces).await,
                Step::Prepare { down, spec } => job.prepare(&down, spec, &attached).await,
                Step::Raise(nics) => job.raise(&nics).await,
            }
            job.done
        };
        let id = self.running.spawn(work).id();
        self.subjects.insert(id, Subject::Instance(instance));
    }

    /// Starts deleting devices that no instance has.
    pub(crate) fn discard<K: HostKernel>(&mut self, kernel: K, interfaces: BTreeSet<u32>) {
        let work = async move {
            let mut job = Job { kernel, done: Done::default() };
            job.discard(interfaces).await;
            job.done
        };
        let id = self.running.spawn(work).id();
        self.subjects.insert(id, Subject::Strays);
    }

    /// Starts guarding a device that something else made, for a port.
    pub(crate) fn borrow<K: HostKernel>(&mut self, mut kernel: K, ifindex: u32, port: Uuid) {
        let work = async move {
            let mut done = Done::default();
            match kernel.borrow(ifindex).await {
                Ok(()) => _ = done.guarded.insert(ifindex),
                Err(refusal) => {
                    done.failed.insert(port, format!("cannot be guarded: {refusal}"));
                }
            }
            done
        };
        let id = self.running.spawn(work).id();
        self.subjects.insert(id, Subject::Device(ifindex));
    }

    /// Starts taking the programs off a device that something else made.
    pub(crate) fn give_back<K: HostKernel>(&mut self, mut kernel: K, ifindex: u32) {
        let work = async move {
            let mut done = Done::default();
            match kernel.give_back(ifindex).await {
                Ok(()) => _ = done.gone.insert(ifindex),
                Err(refusal) => done.trouble.push(format!(
                    "interface {ifindex} cannot be given back to its owner: {refusal}"
                )),
            }
            done
        };
        let id = self.running.spawn(work).id();
        self.subjects.insert(id, Subject::Device(ifindex));
    }

    /// Starts making one more device ready, or one less.
    pub(crate) fn stock<K: HostKernel>(&mut self, mut kernel: K) {
        let work = async move {
            let mut done = Done::default();
            match kernel.stock().await {
                Ok(stock) => done.stock = Some(stock),
                Err(refusal) => done.trouble.push(refusal.to_string()),
            }
            done
        };
        let id = self.running.spawn(work).id();
        self.subjects.insert(id, Subject::Stock);
    }

    /// Waits for the next one to end. For ever, if there is none; dropping it loses nothing.
    pub(crate) async fn next(&mut self) -> (Subject, Done) {
        loop {
            match self.running.join_next_with_id().await {
                None => std::future::pending().await,
                Some(ended) => {
                    if let Some(done) = self.take(ended) {
                        return done;
                    }
                }
            }
        }
    }

    /// The next one that has ended already.
    pub(crate) fn try_next(&mut self) -> Option<(Subject, Done)> {
        let ended = self.running.try_join_next_with_id()?;
        self.take(ended)
    }

    fn take(&mut self, ended: Result<(Id, Done), JoinError>) -> Option<(Subject, Done)> {
        match ended {
            Ok((id, done)) => Some((self.subjects.remove(&id)?, done)),
            Err(error) => {
                let subject = self.subjects.remove(&error.id())?;
                let mut done = Done::default();
                match subject {
                    Subject::Instance(uuid) => _ = done.failed.insert(uuid, error.to_string()),
                    Subject::Device(_) | Subject::Strays | Subject::Stock => {
                        done.trouble.push(error.to_string())
                    }
                }
                Some((subject, done))
            }
        }
    }
}

/// One job.
struct Job<K> {
    kernel: K,
    done: Done,
}

impl<K: HostKernel> Job<K> {
    async fn remove(&mut self, instance: Uuid, down: &[Uuid], interfaces: BTreeSet<u32>) {
        self.lower(down).await;
        match self.kernel.remove(instance).await {
            Ok(()) => {
                self.done.removed = true;
                // Gone with it, unless a guest has hidden one from the driver.
                self.discard(interfaces).await;
            }
            Err(refusal) => self.fail(instance, "cannot be removed", &refusal),
        }
    }

    async fn prepare(&mut self, down: &[Uuid], spec: InstanceSpec, attached: &BTreeSet<u32>) {
        self.lower(down).await;
        let prepared = match self.kernel.prepare(&spec).await {
            Ok(prepared) => prepared,
            Err(refusal) => return self.fail(spec.uuid, CANNOT_BE_MADE, &refusal),
        };
        let nics: BTreeMap<_, _> = prepared.iter().map(|nic| (nic.nic, Plug::of(nic))).collect();
        for (nic, plug) in nics.iter().filter(|(_, plug)| !attached.contains(&plug.ifindex)) {
            match self.kernel.attach(plug.ifindex).await {
                Ok(()) => _ = self.done.guarded.insert(plug.ifindex),
                Err(refusal) => {
                    self.fail(*nic, "cannot be guarded", &refusal);
                    // It may be up: then somebody has taken its programs off.
                    self.lower(&[*nic]).await;
                }
            }
        }
        self.done.prepared = Some((spec, nics));
    }

    async fn raise(&mut self, nics: &[Uuid]) {
        for nic in nics {
            match self.kernel.activate(*nic).await {
                Ok(()) => _ = self.done.up.insert(*nic, true),
                Err(refusal) => self.fail(*nic, "cannot be put up", &refusal),
            }
        }
    }

    async fn lower(&mut self, nics: &[Uuid]) {
        for nic in nics {
            match self.kernel.deactivate(*nic).await {
                Ok(()) => _ = self.done.up.insert(*nic, false),
                Err(refusal) => self.fail(*nic, "cannot be put down", &refusal),
            }
        }
    }

    async fn discard(&mut self, interfaces: BTreeSet<u32>) {
        for ifindex in interfaces {
            match self.kernel.discard(ifindex).await {
                Ok(()) => _ = self.done.gone.insert(ifindex),
                // It stays guarded, and the maps do not know it: nothing passes.
                Err(refusal) => {
                    self.done.trouble.push(format!("interface {ifindex}: {refusal}"));
                }
            }
        }
    }

    fn fail(&mut self, uuid: Uuid, what: &str, refusal: &Refusal) {
        self.done.failed.entry(uuid).or_insert_with(|| format!("{what}: {refusal}"));
    }
}
