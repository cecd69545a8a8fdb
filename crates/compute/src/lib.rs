//! Drivers that run instances and plug their NICs into the host.
//!
//! A driver makes what an instance needs and a device on the host's side of each NIC. It never
//! decides about packets: it knows neither networks nor policy, and leaves the host's side down
//! until the data plane guards it ([`Driver::activate`]).
//!
//! Source: `ARCHITECTURE.md`, "Order" of port bring-up.

mod drivers;
mod error;
mod fake;
mod netns;
mod qemu;
mod spec;

use std::future::Future;

use uuid::Uuid;

pub use drivers::{Drivers, end_all};
pub use error::Error;
pub use fake::{DriverCall, Fake};
pub use netns::{Netns, Spare, host_device_name};
pub use qemu::{Accel, Begun, Qemu, QemuOptions, Sent, Traits};
pub use spec::{
    FarEnd, Found, FoundNic, ImageFormat, InstanceSpec, Journey, Machine, NicSpec, Prepared,
};

/// Runs instances of one kind on this host.
///
/// Every call may be repeated, also after a crash in the middle of an earlier one, and then ends
/// in the same state. Calls for one instance must not overlap; for different ones they may.
pub trait Driver: Send + Sync {
    /// Makes the instance and its NICs exactly as `spec` says, and reports the host's devices in
    /// the order of `spec.nics`.
    ///
    /// New devices are down on the host's side. What is right already is not touched; a NIC that
    /// `spec` lacks is deleted; MTU, addresses and gateways are changed in place.
    fn prepare(
        &self,
        spec: &InstanceSpec,
    ) -> impl Future<Output = Result<Vec<Prepared>, Error>> + Send;

    /// Puts the host's side of a NIC up: from here on its packets meet the data plane's programs.
    fn activate(&self, nic: Uuid) -> impl Future<Output = Result<(), Error>> + Send;

    /// Puts the host's side of a NIC down. No such NIC is success.
    fn deactivate(&self, nic: Uuid) -> impl Future<Output = Result<(), Error>> + Send;

    /// Removes the instance and all its NICs. No such instance is success.
    fn remove(&self, instance: Uuid) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes a host's device that no instance has any more: its guest has moved the other end out
    /// of sight, or its namespace lost its name. No such device is success.
    fn discard(&self, host_ifindex: u32) -> impl Future<Output = Result<(), Error>> + Send;

    /// Looks at one NIC of an instance: `None` when it is not there, or its cable ends elsewhere.
    fn find(
        &self,
        instance: Uuid,
        nic: Uuid,
    ) -> impl Future<Output = Result<Option<FoundNic>, Error>> + Send;

    /// What runs now, as the kernel says, sorted by instance. Needs no memory of earlier calls.
    fn list(&self) -> impl Future<Output = Result<Vec<Found>, Error>> + Send;
}
