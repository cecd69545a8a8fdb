//! A driver that only remembers: for tests of what uses drivers, and for the simulator.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use crate::{Driver, Error, FarEnd, Found, FoundNic, InstanceSpec, Prepared, host_device_name};

/// Keeps instances in memory, with the same rules as a real driver.
#[derive(Debug, Default)]
pub struct Fake(Mutex<FakeState>);

/// A call of the driver that was made, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DriverCall {
    /// [`Driver::prepare`] of an instance.
    Prepare(Uuid),
    /// [`Driver::activate`] of a NIC.
    Activate(Uuid),
    /// [`Driver::deactivate`] of a NIC.
    Deactivate(Uuid),
    /// [`Driver::remove`] of an instance.
    Remove(Uuid),
    /// [`Driver::discard`] of a device.
    Discard(u32),
}

#[derive(Debug, Default)]
struct FakeState {
    instances: BTreeMap<Uuid, Instance>,
    calls: Vec<DriverCall>,
    /// How many calls from now on fail.
    failures: usize,
    last_ifindex: u32,
}

#[derive(Debug)]
struct Instance {
    spec: InstanceSpec,
    nics: BTreeMap<Uuid, FoundNic>,
}

impl Fake {
    /// The calls so far, except `list`; those that failed too. Forgets them.
    pub fn take_calls(&self) -> Vec<DriverCall> {
        std::mem::take(&mut self.state().calls)
    }

    /// Lets the next `count` calls fail, except `list`, and change nothing.
    pub fn fail_next(&self, count: usize) {
        self.state().failures = count;
    }

    /// The spec that is in force, if the instance runs.
    pub fn spec(&self, instance: Uuid) -> Option<InstanceSpec> {
        self.state().instances.get(&instance).map(|it| it.spec.clone())
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, call: DriverCall) -> Result<MutexGuard<'_, FakeState>, Error> {
        let mut state = self.state();
        state.calls.push(call);
        if state.failures > 0 {
            state.failures -= 1;
            return Err(Error::Cancelled);
        }
        Ok(state)
    }
}

impl FakeState {
    fn nic(&mut self, nic: Uuid) -> Option<&mut FoundNic> {
        self.instances.values_mut().find_map(|instance| instance.nics.get_mut(&nic))
    }

    fn next_ifindex(&mut self) -> u32 {
        self.last_ifindex += 1;
        self.last_ifindex
    }
}

impl Driver for Fake {
    async fn prepare(&self, spec: &InstanceSpec) -> Result<Vec<Prepared>, Error> {
        let mut state = self.call(DriverCall::Prepare(spec.uuid))?;
        spec.check()?;
        let before = state.instances.remove(&spec.uuid);
        let before = before.filter(|instance| instance.spec.generation == spec.generation);
        let mut before = before.map(|instance| instance.nics).unwrap_or_default();
        let mut nics = BTreeMap::new();
        let mut prepared = Vec::new();
        for wanted in &spec.nics {
            let nic = wanted.uuid;
            let found = before.remove(&nic).unwrap_or_else(|| FoundNic {
                nic,
                host_ifindex: state.next_ifindex(),
                up: false,
                far_end: FarEnd::Elsewhere,
            });
            let (host_ifindex, far_end) = (found.host_ifindex, found.far_end);
            let host_device = host_device_name(nic);
            prepared.push(Prepared { nic, host_ifindex, host_device, far_end });
            nics.insert(nic, found);
        }
        state.instances.insert(spec.uuid, Instance { spec: spec.clone(), nics });
        Ok(prepared)
    }

    async fn activate(&self, nic: Uuid) -> Result<(), Error> {
        let mut state = self.call(DriverCall::Activate(nic))?;
        state.nic(nic).ok_or(Error::NoNic { nic })?.up = true;
        Ok(())
    }

    async fn deactivate(&self, nic: Uuid) -> Result<(), Error> {
        let mut state = self.call(DriverCall::Deactivate(nic))?;
        if let Some(nic) = state.nic(nic) {
            nic.up = false;
        }
        Ok(())
    }

    async fn remove(&self, instance: Uuid) -> Result<(), Error> {
        self.call(DriverCall::Remove(instance))?.instances.remove(&instance);
        Ok(())
    }

    async fn discard(&self, host_ifindex: u32) -> Result<(), Error> {
        let mut state = self.call(DriverCall::Discard(host_ifindex))?;
        for instance in state.instances.values_mut() {
            instance.nics.retain(|_, nic| nic.host_ifindex != host_ifindex);
        }
        Ok(())
    }

    async fn find(&self, instance: Uuid, nic: Uuid) -> Result<Option<FoundNic>, Error> {
        let state = self.state();
        Ok(state.instances.get(&instance).and_then(|it| it.nics.get(&nic)).cloned())
    }

    async fn list(&self) -> Result<Vec<Found>, Error> {
        let state = self.state();
        let found = state.instances.iter().map(|(instance, it)| Found {
            instance: *instance,
            nics: it.nics.values().cloned().collect(),
        });
        Ok(found.collect())
    }
}
