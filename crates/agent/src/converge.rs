//! One pass over the host: brings it from what is there to what is desired, as far as it lets us.
//!
//! Level-triggered. What is there is kept in memory and followed change by change; an audit reads
//! all of it again. There are three concerns, each with its own pace, in this order: the tunnel
//! device; the maps, with the ports that are guarded by now and the uplinks; the instances, whose driver works
//! beside all else ([`jobs`](crate::jobs)) and starts the next pass when it is done. One object that
//! fails does not stop the others; it is tried again.

mod borrowed;
mod chores;
mod moves;
mod times;
mod tunnels;
mod uplinks;

use std::collections::{BTreeMap, BTreeSet};

use compute::InstanceSpec;
use packet::Timeouts;
use uuid::Uuid;
use wire::{counters::MapFill, digest::SetDigest, fact, holding::Holding};

use crate::{
    jobs::{Done, Jobs, Subject},
    kernel::{Guards, HostKernel, Observed, ObservedNic, Plug, Refusal, Ties},
    ledger::Ledger,
    plan::{self, Step, Steps, Wanted},
    render::facts,
    underlay::{Tunnels, Ways},
    uplink::{self, Uplink, Uplinks},
};
use borrowed::Borrowed;
use chores::Chores;
use moves::Moves;
use tunnels::{Direct, Vteps};

pub use chores::Calm;

/// What became of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The host could be seen and its maps written: what must be there is there or in `failed`,
    /// and what must be gone is gone or in `failed`.
    pub processed: bool,
    /// The digest of the facts that the maps hold.
    pub kernel: SetDigest,
    /// Instances that run and ports that are up and guarded.
    pub up: BTreeSet<Uuid>,
    /// Objects that are not applied or removed, with the reason.
    pub failed: BTreeMap<Uuid, String>,
    /// What concerns the host as a whole.
    pub trouble: Vec<String>,
    /// How full the maps have to be.
    pub fill: Vec<MapFill>,
    /// Moves to this host, by number, whose NIC has sent its first frame here, or whose instance runs
    /// here.
    pub arrived: BTreeSet<u32>,
    /// Moves of instances from this host, by number, that have failed, and why.
    pub given_up: BTreeMap<u32, String>,
    /// Instances that are ready to take their memory from another host.
    pub awaiting: BTreeSet<Uuid>,
}

impl Outcome {
    /// Whether there is something to try again soon.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.processed && self.failed.is_empty() && self.trouble.is_empty()
    }
}

/// Why there is a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Something else is desired, or it is time: what failed is tried again.
    Due,
    /// The driver has done something.
    Driver,
}

/// Brings one host to what is desired.
pub struct Converger<K> {
    kernel: K,
    ledger: Ledger,
    /// The ledger knows what the maps have room for.
    has_room: bool,
    /// All ports tell of their connections.
    is_sampled: bool,
    observed: Observed,
    /// Instances that were made like this since the start.
    prepared: BTreeMap<Uuid, InstanceSpec>,
    /// Instances that were cut off, until they are removed.
    leaving: BTreeSet<Uuid>,
    /// Interfaces that somebody may have changed.
    suspects: BTreeSet<u32>,
    chores: Chores,
    borrowed: Borrowed,
    /// The tunnel device.
    tunnel: Result<u32, Refusal>,
    /// The UDP port that it was made with.
    port: u16,
    vteps: Vteps,
    /// The digest of what the maps hold, as far as is known.
    held: SetDigest,
    known: Known,
    jobs: Jobs,
    /// The tunnels whose ways were looked up, and the ways.
    underlay: (Tunnels, Ways),
    /// What of them goes past the tunnel device, and what else is known of that.
    direct: Direct,
    uplinks: Uplinks,
    moves: Moves,
    /// How long connections are remembered that are idle, unless that is not known.
    times: Timeouts,
    /// What the last job about something could not do.
    failures: BTreeMap<Subject, (BTreeMap<Uuid, String>, Vec<String>)>,
}

/// What of the host is known to be as it is in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    tunnel: bool,
    vteps: bool,
    devices: bool,
    external: bool,
    maps: bool,
    times: bool,
    underlay: bool,
    uplinks: bool,
}

impl<K: HostKernel> Converger<K> {
    /// For this kernel, of which nothing is known yet.
    pub fn new(kernel: K) -> Self {
        Self {
            kernel,
            ledger: Ledger::default(),
            has_room: false,
            is_sampled: false,
            observed: Observed::default(),
            prepared: BTreeMap::new(),
            leaving: BTreeSet::new(),
            suspects: BTreeSet::new(),
            chores: Chores::default(),
            borrowed: Borrowed::default(),
            tunnel: Ok(0),
            port: 0,
            vteps: Vteps::default(),
            held: SetDigest::default(),
            known: Known::default(),
            jobs: Jobs::default(),
            underlay: Default::default(),
            direct: Direct::default(),
            uplinks: Uplinks::new(),
            moves: Moves::default(),
            times: Timeouts::default(),
            failures: BTreeMap::new(),
        }
    }

    /// Makes the next pass read everything again.
    pub fn doubt(&mut self) {
        self.known = Known::default();
    }

    /// Somebody may have changed this interface, or any, or addresses; whether that is to be looked
    /// at soon. One that is nobody's may still become an instance's, by a job.
    pub fn suspect(&mut self, interface: Option<u32>) -> bool {
        let Some(ifindex) = interface else {
            self.known = Known { maps: self.known.maps, ..Known::default() };
            return true;
        };
        let carries = self.underlay.1.values().any(|way| way.index == ifindex);
        self.known.underlay &= !carries;
        // One that is missing may be any that comes.
        let leads =
            |uplink: &Result<Uplink, _>| uplink.as_ref().map_or(true, |u| u.ifindex == ifindex);
        let leads = self.uplinks.values().any(leads);
        self.known.uplinks &= !leads;
        let is_ours = self.is_tunnel(ifindex) || self.owner(ifindex).is_some();
        // News have no names: one that has come may be wanted, its far end may have moved.
        let may_be_wanted = !is_ours && self.borrowed.is_watching();
        self.known.external &= !may_be_wanted;
        if is_ours || self.is_awaited() {
            self.suspects.insert(ifindex);
        }
        is_ours || carries || leads || may_be_wanted
    }

    /// Whether it is the tunnel device, or may be what stands in its way.
    fn is_tunnel(&self, ifindex: u32) -> bool {
        self.tunnel.as_ref().map_or(true, |tunnel| *tunnel == ifindex)
    }

    /// Whether there is an interface that somebody may have changed.
    pub fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Looks at these interfaces. If one is not as it is in memory, the next pass looks at all. One
    /// of an instance that a job is about is looked at another time.
    pub async fn look(&mut self) {
        for ifindex in std::mem::take(&mut self.suspects) {
            self.known.tunnel &= !self.is_tunnel(ifindex);
            let Some((instance, nic, seen)) = self.owner(ifindex) else { continue };
            if self.jobs.is_about(Subject::Instance(instance)) {
                self.suspects.insert(ifindex);
            } else if self.kernel.see(instance, nic).await != Ok(Some(seen)) {
                self.known.devices = false;
            }
        }
    }

    /// Whose interface it is, as far as is known.
    fn owner(&self, ifindex: u32) -> Option<(Uuid, Uuid, ObservedNic)> {
        self.observed.instances.iter().find_map(|(instance, nics)| {
            let (nic, seen) = nics.iter().find(|(_, seen)| seen.ifindex == ifindex)?;
            Some((*instance, *nic, *seen))
        })
    }

    /// Reads the maps back and mends them, if they were filled before: when somebody else changes
    /// them the kernel brings no news.
    pub async fn mend_maps(&mut self) {
        if self.has_room && self.known.maps {
            self.known.maps = self.read_maps().await.is_ok();
        }
    }

    /// Looks whether ports, tunnel and uplinks still have their programs: of that the kernel brings no news.
    /// Ports that have not are put down and guarded anew by the next pass.
    pub async fn probe(&mut self) {
        let guards = self.kernel.guards().await;
        let has = |is_so: fn(&Guards, &Self) -> bool| guards.as_ref().is_ok_and(|g| is_so(g, self));
        let devices = has(|guards, this| this.observed.attached.is_subset(&guards.ports));
        let tunnel = has(|guards, this| guards.tunnel || this.tunnel.is_err());
        let gre = has(|guards, this| this.direct.wanted.gre.is_subset(&guards.gre));
        let uplinks = has(|guards, this| {
            let usable = uplink::usable(&this.uplinks);
            usable.values().all(|uplink| guards.uplinks.contains(&uplink.ifindex))
        });
        self.known.devices &= devices;
        self.known.tunnel &= tunnel;
        self.known.underlay &= gre || self.direct.why_not.is_some();
        self.known.uplinks &= uplinks;
    }

    /// The host that it works on.
    pub(crate) fn kernel(&self) -> K {
        self.kernel.clone()
    }

    /// Does one pass. It never waits for the driver.
    pub async fn pass(&mut self, desired: &Holding, cause: Cause) -> Outcome {
        while let Some((subject, done)) = self.jobs.try_next() {
            self.note(subject, done);
        }
        let wanted = plan::wanted(desired);
        self.prepared.retain(|uuid, _| wanted.instances.contains_key(uuid));
        if cause == Cause::Due {
            self.chores.stuck.clear();
        }
        let mut outcome =
            Outcome { processed: true, failed: wanted.unusable.clone(), ..Outcome::default() };
        self.tunnel(desired, cause, &mut outcome).await;
        self.vteps(desired, &mut outcome).await;
        let seen = match self.room().await {
            Ok(()) => self.devices().await,
            refused => refused,
        };
        if let Err(refusal) = seen {
            outcome.kernel = self.held;
            return outcome.blind(&refusal);
        }
        self.uplinks(desired, &mut outcome).await;
        self.find(&wanted, &mut outcome).await;
        let filled = self.fill(desired, &wanted, &mut outcome).await;
        outcome.trouble.extend(self.kernel.notice().await);
        self.times(desired, &mut outcome).await;
        self.underlay(desired, &mut outcome).await;
        self.arrivals(desired, &mut outcome).await;
        self.journeys(desired, &wanted, &mut outcome);
        self.start(&wanted, filled, cause);
        self.conclude(&wanted, outcome)
    }

    /// Whether the driver is at work.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether it is at work on something that somebody waits for.
    pub fn is_awaited(&self) -> bool {
        self.jobs.count() > usize::from(self.chores.running.is_some())
    }

    /// Whether something failed that may work another time.
    pub fn has_failed(&self) -> bool {
        let known = &self.known;
        !self.failures.is_empty()
            || self.tunnel.is_err()
            || self.borrowed.is_blind()
            || !(known.maps && known.times && known.vteps && known.uplinks)
    }

    /// Waits until the driver has done something, for ever if it has nothing to do. Dropping this
    /// loses nothing.
    pub async fn driver(&mut self) {
        let (subject, done) = self.jobs.next().await;
        self.note(subject, done);
    }

    /// Takes in what a job did.
    fn note(&mut self, subject: Subject, done: Done) {
        let Done { failed, trouble, prepared, guarded, gone, removed, stock, up } = done;
        if self.chores.running == Some(subject) {
            self.chores.running = None;
        }
        if subject == Subject::Stock {
            return self.note_stock(stock, &trouble);
        }
        self.note_device(subject, &guarded, &gone);
        self.observed.attached.extend(guarded);
        self.observed.attached.retain(|ifindex| !gone.contains(ifindex));
        if let Subject::Instance(uuid) = subject {
            if removed {
                self.observed.instances.remove(&uuid);
                self.leaving.remove(&uuid);
            }
            if let Some((spec, interfaces)) = prepared {
                for plug in interfaces.values() {
                    self.chores.is_stocked &= !self.observed.spares.remove(&plug.ifindex);
                }
                let before = self.observed.instances.remove(&uuid).unwrap_or_default();
                let nic = |(nic, Plug { ifindex, far_end }): (Uuid, Plug)| {
                    let same = before.get(&nic).filter(|seen| seen.ifindex == ifindex);
                    (nic, ObservedNic { ifindex, far_end, up: same.is_some_and(|seen| seen.up) })
                };
                let nics = interfaces.into_iter().map(nic).collect();
                self.observed.instances.insert(uuid, nics);
                self.prepared.insert(uuid, spec);
            }
            let nics = self.observed.instances.get_mut(&uuid);
            for (nic, seen) in nics.into_iter().flatten() {
                seen.up = up.get(nic).copied().unwrap_or(seen.up);
            }
        }
        if failed.is_empty() && trouble.is_empty() {
            self.failures.remove(&subject);
            return;
        }
        // Who knows how far it got.
        self.known.devices = false;
        if let Subject::Instance(uuid) = subject {
            self.prepared.remove(&uuid);
            self.chores.stuck.insert(uuid);
        }
        self.failures.insert(subject, (failed, trouble));
    }

    /// Asks what the maps have room for, unless that is known.
    async fn room(&mut self) -> Result<(), Refusal> {
        if !self.has_room {
            self.ledger = Ledger::new(self.kernel.room().await?).telling(self.is_sampled);
            self.has_room = true;
        }
        Ok(())
    }

    /// Looks at instances and devices, unless they are known.
    async fn devices(&mut self) -> Result<(), Refusal> {
        if self.known.devices {
            return Ok(());
        }
        let mut found = self.kernel.observe().await?;
        // What a job is about is half done; it will tell.
        for uuid in self.jobs.instances() {
            match self.observed.instances.remove(&uuid) {
                Some(nics) => found.instances.insert(uuid, nics),
                None => found.instances.remove(&uuid),
            };
        }
        self.observed = found;
        self.known.devices = true;
        self.chores.is_stocked = false;
        Ok(())
    }

    /// Makes the maps hold what is desired, with the ports that are guarded by now.
    async fn fill(&mut self, desired: &Holding, wanted: &Wanted, outcome: &mut Outcome) -> bool {
        let mut ports = plan::guarded(wanted, &self.observed);
        ports.extend(self.plugged());
        let ties = Ties { ports, uplinks: uplink::usable(&self.uplinks) };
        let edits = self.ledger.follow(desired, &ties);
        let filled = match self.known.maps {
            true if edits.is_empty() => Ok(()),
            true => self.kernel.apply(edits).await.map(|()| self.held = self.ledger.digest()),
            false => self.read_maps().await,
        };
        self.known.maps = filled.is_ok();
        if let Err(refusal) = &filled {
            outcome.processed = false;
            outcome.trouble.push(format!("data plane: {refusal}"));
        }
        filled.is_ok()
    }

    /// Makes the maps hold what the ledger says, whatever they hold now.
    async fn read_maps(&mut self) -> Result<(), Refusal> {
        let tables = self.kernel.audit(self.ledger.tables()).await?;
        self.held = fact::digest(&facts(&tables));
        Ok(())
    }

    /// Gives the driver what it has to do.
    fn start(&mut self, wanted: &Wanted, filled: bool, cause: Cause) {
        self.leaving.retain(|uuid| self.observed.instances.contains_key(uuid));
        let cut = plan::cut(wanted, &self.observed);
        let cut = cut.filter(|uuid| !self.jobs.is_about(Subject::Instance(*uuid)));
        self.leaving.extend(cut);
        let Steps { instances, remains, discard } =
            plan::steps(wanted, &self.observed, &self.prepared, &self.leaving);
        self.chores.remains = remains;
        for (uuid, step) in instances {
            let subject = Subject::Instance(uuid);
            let waits = cause == Cause::Driver && self.failures.contains_key(&subject);
            if waits || self.jobs.is_about(subject) || !self.jobs.has_room() {
                continue;
            }
            let step = match step {
                Step::Raise(_) if !filled => continue,
                // Those that the maps have no room for stay down.
                Step::Raise(mut nics) => {
                    nics.retain(|nic| self.is_known_to_the_maps(uuid, *nic));
                    if nics.is_empty() {
                        continue;
                    }
                    Step::Raise(nics)
                }
                step => step,
            };
            self.jobs.start(self.kernel.clone(), uuid, step, &self.observed.attached);
        }
        self.start_devices(filled, cause);
        let waits = cause == Cause::Driver && self.failures.contains_key(&Subject::Strays);
        // While an instance is being made, its devices are not known yet.
        if self.jobs.is_empty() && !discard.is_empty() && !waits {
            self.jobs.discard(self.kernel.clone(), discard);
        }
    }

    /// Says what is in effect by now, and what is not, and why.
    fn conclude(&mut self, wanted: &Wanted, mut outcome: Outcome) -> Outcome {
        outcome.kernel = self.held;
        outcome.up = plan::up(wanted, &self.observed);
        outcome.fill = self.ledger.fill();
        for (instance, nics) in &self.observed.instances {
            let closed = nics.keys().filter(|nic| !self.is_known_to_the_maps(*instance, **nic));
            closed.for_each(|nic| _ = outcome.up.remove(nic));
        }
        for (peer, network) in self.ledger.lacking() {
            outcome.failed.insert(peer, plan::lacking("network", network));
        }
        outcome.failed.extend(self.ledger.unfit().clone());
        let closed = self.ledger.closed().map(|(port, reason)| (port, reason.to_owned()));
        outcome.failed.extend(closed);
        let (observed, borrowed) = (&self.observed, &self.borrowed);
        self.failures.retain(|subject, _| match subject {
            Subject::Instance(uuid) => {
                wanted.instances.contains_key(uuid) || observed.instances.contains_key(uuid)
            }
            Subject::Device(ifindex) => {
                borrowed.keeps(*ifindex) || observed.borrowed.contains(ifindex)
            }
            Subject::Strays | Subject::Stock => true,
        });
        for (failed, trouble) in self.failures.values() {
            outcome.failed.extend(failed.clone());
            outcome.trouble.extend(trouble.clone());
        }
        self.pending(wanted, &mut outcome);
        self.conclude_devices(wanted, &mut outcome);
        for (uuid, reason) in &outcome.failed {
            tracing::debug!(uuid = %uuid.simple(), reason, "not in effect");
        }
        outcome
    }

    /// Notes what is not done yet: nothing is acknowledged before it is in effect.
    fn pending(&self, wanted: &Wanted, outcome: &mut Outcome) {
        for (uuid, spec) in &wanted.instances {
            let changes = self.prepared.get(uuid) != Some(spec);
            let nics = spec.nics.iter().map(|nic| nic.uuid);
            let reason = match outcome.failed.contains_key(uuid) {
                true => "waits for its instance",
                false if outcome.awaiting.contains(uuid) => "waits for its memory",
                false => "is being made",
            };
            for object in nics.chain([*uuid]) {
                let is_coming = outcome.awaiting.contains(uuid);
                if changes || is_coming || !outcome.up.contains(&object) {
                    outcome.failed.entry(object).or_insert_with(|| reason.to_owned());
                }
            }
        }
        // A device may be going up at this moment.
        let unsure = self.jobs.instances().filter(|uuid| {
            !wanted.instances.contains_key(uuid)
                && self.chores.running != Some(Subject::Instance(*uuid))
        });
        for uuid in plan::surplus(wanted, &self.observed).chain(unsure) {
            let reason = || "ought to be gone and is still there".to_owned();
            outcome.failed.entry(uuid).or_insert_with(reason);
        }
    }
}

impl Outcome {
    /// Nothing can be seen, so nothing can be said.
    fn blind(mut self, refusal: &Refusal) -> Self {
        tracing::warn!(%refusal, "cannot see what is on the host");
        self.processed = false;
        self.trouble.push(format!("cannot see what is there: {refusal}"));
        self
    }
}

#[cfg(test)]
#[path = "converge/tests.rs"]
mod tests;
