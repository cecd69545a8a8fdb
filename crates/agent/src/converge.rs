//! One pass over the host: brings it from what is there to what is desired, as far as it lets us.
//!
//! Level-triggered: a pass knows nothing of the one before, except which instances it need not ask
//! the driver about again. One object that fails does not stop the others; it is tried again.

use std::collections::{BTreeMap, BTreeSet};

use compute::InstanceSpec;
use dataplane::Tables;
use uuid::Uuid;
use wire::{digest::SetDigest, fact, holding::Holding};

use crate::{
    kernel::{HostKernel, Observed, Refusal},
    ledger::Ledger,
    plan::{self, Steps, Wanted},
    render::facts,
};

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
    /// Objects that could not be applied or removed, with the reason.
    pub failed: BTreeMap<Uuid, String>,
    /// What concerns the host as a whole.
    pub trouble: Vec<String>,
}

impl Outcome {
    /// Whether there is something to try again soon.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.processed && self.failed.is_empty() && self.trouble.is_empty()
    }
}

/// Brings one host to what is desired.
pub struct Converger<K> {
    kernel: K,
    prepared: BTreeMap<Uuid, InstanceSpec>,
}

/// A pass under way.
struct Pass<'a> {
    desired: &'a Holding,
    wanted: Wanted,
    observed: Observed,
    /// What the maps hold now.
    tables: Tables,
    /// The interfaces of the guarded ports.
    guarded: BTreeMap<Uuid, u32>,
    changed: bool,
    outcome: Outcome,
}

impl<K: HostKernel> Converger<K> {
    /// For this kernel.
    pub fn new(kernel: K) -> Self {
        Self { kernel, prepared: BTreeMap::new() }
    }

    /// Does one pass.
    pub async fn pass(&mut self, desired: &Holding) -> Outcome {
        let wanted = plan::wanted(desired);
        self.prepared.retain(|uuid, _| wanted.instances.contains_key(uuid));
        let mut outcome =
            Outcome { processed: true, failed: wanted.unusable.clone(), ..Outcome::default() };
        if let Err(refusal) = self.kernel.tunnel().await {
            outcome.lacks_tunnel(desired, &refusal);
        }
        let observed = match self.kernel.observe().await {
            Ok(observed) => observed,
            Err(refusal) => return outcome.blind(&refusal),
        };
        let steps = plan::steps(&wanted, &observed, &self.prepared);
        let (tables, guarded) = (observed.tables.clone(), plan::guarded(&wanted, &observed));
        let mut pass = Pass { desired, wanted, observed, tables, guarded, changed: false, outcome };
        self.clear(&steps, &mut pass).await;
        let mut filled = self.fill(&mut pass).await;
        let interfaces = self.prepare(steps.prepare, &mut pass).await;
        self.guard(&interfaces, &mut pass).await;
        filled &= self.fill(&mut pass).await;
        if filled {
            self.raise(&mut pass).await;
        }
        self.conclude(pass).await
    }

    /// Corrects counts that the programs may get wrong. Not part of a pass: it is rarely needed,
    /// and nothing depends on it.
    pub(crate) async fn recount(&mut self) {
        if let Err(refusal) = self.kernel.recount().await {
            tracing::warn!(%refusal, "cannot recount the connections; trying again later");
        }
    }

    /// Takes away what must not be there: devices down, instances, programs.
    async fn clear(&mut self, steps: &Steps, pass: &mut Pass<'_>) {
        for nic in &steps.deactivate {
            let done = self.kernel.deactivate(*nic).await;
            pass.must(*nic, "cannot be put down", done);
        }
        let mut discard = steps.discard.clone();
        for (instance, interfaces) in &steps.remove {
            let done = self.kernel.remove(*instance).await;
            if pass.must(*instance, "cannot be removed", done) {
                // Gone already, unless a guest has hidden one from the driver meanwhile.
                discard.extend(interfaces.intersection(&pass.observed.attached));
            }
        }
        for ifindex in discard {
            pass.changed = true;
            if let Err(refusal) = self.kernel.discard(ifindex).await {
                // It stays guarded, and the maps do not know it: nothing passes.
                pass.outcome.trouble.push(format!("interface {ifindex}: {refusal}"));
            }
        }
    }

    /// Makes the maps hold what is desired, with the ports that are guarded by now.
    async fn fill(&mut self, pass: &mut Pass<'_>) -> bool {
        let ledger = Ledger::of(pass.desired, &pass.guarded);
        let (tables, unfit) = (ledger.tables().clone(), ledger.unfit().clone());
        // What has no room is guarded and closed; the others go on.
        pass.guarded.retain(|nic, _| !unfit.contains_key(nic));
        pass.outcome.failed.extend(unfit);
        if tables == pass.tables {
            return true;
        }
        pass.changed = true;
        match self.kernel.reconcile(&tables).await {
            Ok(()) => {
                pass.tables = tables;
                true
            }
            Err(refusal) => {
                pass.outcome.processed = false;
                pass.outcome.trouble.push(format!("data plane: {refusal}"));
                false
            }
        }
    }

    /// Makes instances; gives the interfaces of the wanted ports that are there then.
    async fn prepare(
        &mut self,
        specs: Vec<InstanceSpec>,
        pass: &mut Pass<'_>,
    ) -> BTreeMap<Uuid, u32> {
        let mut interfaces = BTreeMap::new();
        for (instance, spec) in &pass.wanted.instances {
            let Some(nics) = pass.observed.instances.get(instance) else { continue };
            let there = spec.nics.iter().filter_map(|nic| nics.get_key_value(&nic.uuid));
            interfaces.extend(there.map(|(nic, seen)| (*nic, seen.ifindex)));
        }
        for spec in specs {
            pass.changed = true;
            match self.kernel.prepare(&spec).await {
                Ok(prepared) => {
                    interfaces.extend(prepared.iter().map(|nic| (nic.nic, nic.host_ifindex)));
                    self.prepared.insert(spec.uuid, spec);
                }
                Err(refusal) => {
                    self.prepared.remove(&spec.uuid);
                    pass.outcome.failed.insert(spec.uuid, format!("cannot be made: {refusal}"));
                }
            }
        }
        interfaces
    }

    /// Attaches programs to the ports that lack them.
    async fn guard(&mut self, interfaces: &BTreeMap<Uuid, u32>, pass: &mut Pass<'_>) {
        pass.guarded.clear();
        for (nic, ifindex) in interfaces {
            if !pass.observed.attached.contains(ifindex) {
                pass.changed = true;
                if let Err(refusal) = self.kernel.attach(*ifindex).await {
                    pass.outcome.failed.insert(*nic, format!("cannot be guarded: {refusal}"));
                    // It may be up: then somebody has taken its programs off.
                    let done = self.kernel.deactivate(*nic).await;
                    pass.must(*nic, "is not guarded and cannot be put down", done);
                    continue;
                }
            }
            pass.guarded.insert(*nic, *ifindex);
        }
    }

    /// Puts up what is guarded and known to the maps.
    async fn raise(&mut self, pass: &mut Pass<'_>) {
        let seen: BTreeMap<_, _> = pass.observed.instances.values().flatten().collect();
        for (nic, ifindex) in &pass.guarded {
            if seen.get(nic).is_some_and(|seen| seen.up && seen.ifindex == *ifindex) {
                continue;
            }
            pass.changed = true;
            if let Err(refusal) = self.kernel.activate(*nic).await {
                pass.outcome.failed.insert(*nic, format!("cannot be put up: {refusal}"));
            }
        }
    }

    /// Looks at what is there now, and only then says what was achieved.
    async fn conclude(&mut self, mut pass: Pass<'_>) -> Outcome {
        if pass.changed {
            match self.kernel.observe().await {
                Ok(observed) => pass.observed = observed,
                Err(refusal) => return pass.outcome.blind(&refusal),
            }
        }
        let mut outcome = pass.outcome;
        outcome.kernel = fact::digest(&facts(&pass.observed.tables));
        outcome.up = plan::up(&pass.wanted, &pass.observed);
        let known: BTreeSet<_> = pass.observed.tables.ports.keys().map(|key| key.ifindex).collect();
        for (nic, seen) in pass.observed.instances.values().flatten() {
            if !known.contains(&seen.ifindex) {
                outcome.up.remove(nic);
            }
        }
        for uuid in plan::surplus(&pass.wanted, &pass.observed) {
            let reason = || "ought to be gone and is still there".to_owned();
            outcome.failed.entry(uuid).or_insert_with(reason);
        }
        for (uuid, reason) in &outcome.failed {
            tracing::warn!(uuid = %uuid.simple(), reason, "not applied; trying again");
        }
        for trouble in &outcome.trouble {
            tracing::warn!(trouble, "the host is in trouble; trying again");
        }
        outcome
    }
}

impl Pass<'_> {
    /// Notes what became of something that must not be there.
    fn must(&mut self, uuid: Uuid, what: &str, done: Result<(), Refusal>) -> bool {
        self.changed = true;
        if let Err(refusal) = &done {
            self.outcome.failed.insert(uuid, format!("{what}: {refusal}"));
        }
        done.is_ok()
    }
}

impl Outcome {
    /// Ports of tunnel networks work on this host only, which nobody has asked for.
    fn lacks_tunnel(&mut self, desired: &Holding, refusal: &Refusal) {
        let reason = format!("the host has no tunnel device: {refusal}");
        let before = self.failed.len();
        for nic in plan::tunneled(desired) {
            self.failed.entry(nic).or_insert_with(|| reason.clone());
        }
        // A host that has networks, and none with tunnels, does not need the device.
        if self.failed.len() > before || desired.objects().is_empty() {
            self.trouble.push(reason);
        }
    }

    /// Nothing can be seen, so nothing can be said.
    fn blind(mut self, refusal: &Refusal) -> Self {
        tracing::warn!(%refusal, "cannot see what is on the host");
        self.processed = false;
        self.trouble.push(format!("cannot see what is there: {refusal}"));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::Memory,
        sample::{self, uuid},
    };

    async fn pass(memory: &Memory, desired: &Holding) -> Outcome {
        Converger::new(memory.clone()).pass(desired).await
    }

    fn writes(memory: &Memory) -> usize {
        memory.state().writes
    }

    #[tokio::test]
    async fn an_empty_host_gets_everything_and_agrees() {
        let (memory, desired) = (Memory::default(), sample::two_networks());
        let outcome = pass(&memory, &desired).await;
        assert!(outcome.is_clean(), "{outcome:?}");
        assert_eq!(outcome.kernel, desired.kernel_digest());
        assert_eq!(outcome.up.len(), 3);
        assert_eq!(memory.state().violations, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_restarted_agent_writes_nothing() {
        let (memory, desired) = (Memory::default(), sample::two_networks());
        let first = pass(&memory, &desired).await;
        let before = writes(&memory);
        assert_eq!(pass(&memory, &desired).await, first);
        assert_eq!(writes(&memory), before);
    }

    #[tokio::test]
    async fn removal_leaves_nothing_behind() {
        let memory = Memory::default();
        pass(&memory, &sample::two_networks()).await;
        let outcome = pass(&memory, &Holding::default()).await;
        assert!(outcome.is_clean());
        let state = memory.state();
        assert!(state.instances.is_empty() && state.nics.is_empty() && state.attached.is_empty());
        assert_eq!(state.tables, Tables::default());
        assert_eq!(state.violations, Vec::<String>::new());
    }

    #[tokio::test]
    async fn one_broken_instance_does_not_stop_the_others() {
        let memory = Memory::default();
        let mut desired = sample::two_networks();
        desired.upsert(sample::instance(40));
        desired.upsert(sample::port(41, 40, sample::NETWORK_A, 7));
        memory.state().broken.insert(uuid(sample::INSTANCE));
        let mut converger = Converger::new(memory.clone());
        let outcome = converger.pass(&desired).await;
        assert!(outcome.processed && !outcome.is_clean());
        assert_eq!(outcome.failed.keys().copied().collect::<Vec<_>>(), [uuid(sample::INSTANCE)]);
        assert_eq!(outcome.up, [40, 41].map(uuid).into());

        memory.state().broken.clear();
        let outcome = converger.pass(&desired).await;
        assert!(outcome.is_clean());
        assert_eq!(outcome.kernel, desired.kernel_digest());
    }

    #[tokio::test]
    async fn an_instance_that_cannot_be_removed_stays_guarded_and_is_told_with_its_nics() {
        let memory = Memory::default();
        pass(&memory, &sample::two_networks()).await;
        memory.state().broken.insert(uuid(sample::INSTANCE));
        let outcome = pass(&memory, &Holding::default()).await;
        assert!(outcome.processed, "what else there is goes on");
        assert!(outcome.failed[&uuid(sample::INSTANCE)].starts_with("cannot be removed"));
        let told: Vec<_> = outcome.failed.keys().copied().collect();
        assert_eq!(told, [sample::INSTANCE, sample::PORT_A, sample::PORT_B].map(uuid));
        let state = memory.state();
        assert_eq!(state.attached.len(), 2);
        assert_eq!(state.tables, Tables::default(), "the guard lets nothing pass");
    }

    #[tokio::test]
    async fn a_host_that_cannot_be_seen_or_written_acknowledges_nothing() {
        let (memory, desired) = (Memory::default(), sample::two_networks());
        memory.state().maps_refused = true;
        let outcome = pass(&memory, &desired).await;
        assert!(!outcome.processed);
        memory.state().maps_refused = false;
        assert!(pass(&memory, &desired).await.is_clean());
    }

    #[tokio::test]
    async fn ports_of_an_uplink_stay_closed_and_hold_nothing_else_up() {
        let memory = Memory::default();
        let mut desired = sample::two_networks();
        desired.upsert(sample::uplink(3));
        desired.upsert(sample::port(33, sample::INSTANCE, 3, 8));
        let outcome = pass(&memory, &desired).await;
        assert!(outcome.processed);
        assert_eq!(outcome.failed.keys().copied().collect::<Vec<_>>(), [uuid(33)]);
        assert!(outcome.failed[&uuid(33)].contains("uplinks are not supported by this agent yet"));
        assert_eq!(outcome.up.len(), 3, "the instance and its other two ports");
        assert!(!memory.state().nics.contains_key(&uuid(33)));
    }

    #[tokio::test]
    async fn without_a_tunnel_only_ports_of_tunnel_networks_fail() {
        let memory = Memory::default();
        let mut desired = Holding::default();
        desired.upsert(sample::uplink(3));
        desired.upsert(sample::instance(sample::INSTANCE));
        desired.upsert(sample::port(33, sample::INSTANCE, 3, 8));
        memory.state().no_tunnel = true;
        let outcome = pass(&memory, &desired).await;
        assert!(outcome.failed.values().all(|reason| reason.contains("uplinks")), "{outcome:?}");
        assert!(outcome.trouble.is_empty());
    }

    #[tokio::test]
    async fn a_device_that_its_guest_has_hidden_is_replaced_and_never_unguarded() {
        let memory = Memory::default();
        let desired = sample::two_networks();
        pass(&memory, &desired).await;
        let hidden = memory.state().nics.remove(&uuid(sample::PORT_A)).unwrap();
        let outcome = pass(&memory, &desired).await;
        assert!(outcome.is_clean(), "{outcome:?}");
        assert_eq!(outcome.kernel, desired.kernel_digest());
        let state = memory.state();
        assert!(!state.attached.contains(&hidden.ifindex));
        assert_ne!(state.nics[&uuid(sample::PORT_A)].ifindex, hidden.ifindex);
    }

    #[tokio::test]
    async fn without_a_tunnel_no_nic_is_in_effect() {
        let (memory, desired) = (Memory::default(), sample::two_networks());
        memory.state().no_tunnel = true;
        let outcome = pass(&memory, &desired).await;
        assert_eq!(outcome.failed.len(), 2);
        assert!(outcome.failed.values().all(|reason| reason.contains("no tunnel device")));
        memory.state().no_tunnel = false;
        assert!(pass(&memory, &desired).await.is_clean());
    }

    #[tokio::test]
    async fn death_at_every_step_converges_and_opens_nothing() {
        let (mut some, all) = (sample::two_networks(), sample::two_networks());
        some.upsert(sample::instance(40));
        some.upsert(sample::port(41, 40, sample::NETWORK_B, 7));
        some.remove(&sample::port(sample::PORT_B, 0, 0, 0).key());
        for limit in 0..40 {
            let memory = Memory::default();
            pass(&memory, &some).await;
            let before = writes(&memory);
            memory.state().dies_after = Some(before + limit);
            pass(&memory, &all).await;
            memory.state().dies_after = None;
            let outcome = pass(&memory, &all).await;
            assert!(outcome.is_clean(), "dead after {limit} writes: {outcome:?}");
            assert_eq!(outcome.kernel, all.kernel_digest());
            assert_eq!(memory.state().violations, Vec::<String>::new());
        }
    }
}
