//! Why an instance could not be brought into its state.

use uuid::Uuid;

/// Why an instance could not be brought into its state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec breaks a rule; nothing was changed.
    #[error("instance {instance}: nic {nic}: {rule}")]
    InvalidSpec {
        /// The instance.
        instance: Uuid,
        /// The NIC.
        nic: Uuid,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The NIC has no device on this host.
    #[error("nic {nic} has no device on this host; prepare its instance first")]
    NoNic {
        /// The NIC.
        nic: Uuid,
    },
    /// A device that belongs to something else has the name that the NIC's device must have.
    #[error("nic {nic}: its device name {device} is taken by {owner}; remove that first")]
    Taken {
        /// The NIC.
        nic: Uuid,
        /// The device.
        device: String,
        /// What the device belongs to, as far as its alias says.
        owner: String,
    },
    /// A device that no instance has does not bear the name of one that a driver makes.
    #[error("device {device} belongs to no instance and is not ours to delete; remove it by hand")]
    NotOurs {
        /// The device.
        device: String,
    },
    /// The kernel refused something about a link or a namespace.
    #[error(transparent)]
    Host(#[from] hostnet::Error),
    /// The runtime is shutting down.
    #[error("the work on an instance was cancelled: the runtime is shutting down")]
    Cancelled,
}
