//! All drivers of a host as one: an instance's spec says which one runs it, the kind of a device
//! whose it is.

use std::path::Path;

use uuid::Uuid;

use crate::{Driver, Error, Found, FoundNic, InstanceSpec, Netns, Prepared, Qemu, netns, qemu};

/// The drivers of a host.
#[derive(Clone)]
pub struct Drivers {
    /// For instances that are nothing but their network.
    pub netns: Netns,
    /// For those that are machines.
    pub qemu: Qemu,
}

impl Driver for Drivers {
    async fn prepare(&self, spec: &InstanceSpec) -> Result<Vec<Prepared>, Error> {
        match spec.machine {
            Some(_) => self.qemu.prepare(spec).await,
            None => self.netns.prepare(spec).await,
        }
    }

    async fn activate(&self, nic: Uuid) -> Result<(), Error> {
        match self.netns.activate(nic).await {
            Err(Error::NoNic { .. }) => self.qemu.activate(nic).await,
            done => done,
        }
    }

    async fn deactivate(&self, nic: Uuid) -> Result<(), Error> {
        self.netns.deactivate(nic).await?;
        self.qemu.deactivate(nic).await
    }

    async fn remove(&self, instance: Uuid) -> Result<(), Error> {
        self.netns.remove(instance).await?;
        self.qemu.remove(instance).await
    }

    async fn discard(&self, host_ifindex: u32) -> Result<(), Error> {
        match self.netns.discard(host_ifindex).await {
            Err(Error::NotOurs { .. }) => self.qemu.discard(host_ifindex).await,
            done => done,
        }
    }

    async fn find(&self, instance: Uuid, nic: Uuid) -> Result<Option<FoundNic>, Error> {
        match self.netns.find(instance, nic).await? {
            Some(found) => Ok(Some(found)),
            None => self.qemu.find(instance, nic).await,
        }
    }

    async fn list(&self) -> Result<Vec<Found>, Error> {
        let mut found = self.netns.list().await?;
        found.extend(self.qemu.list().await?);
        found.sort_by_key(|found| found.instance);
        Ok(found)
    }
}

/// Ends all processes of instances of a host whose agent kept its data there and does not run any more; how
/// many there were. They may still be there for a moment.
///
/// # Errors
/// What the kernel says.
pub fn end_all(data: &Path) -> Result<usize, Error> {
    Ok(netns::end_all(data)? + qemu::end_all(data)?)
}
