//! Why an instance could not be brought into its state.

use std::{io, path::PathBuf};

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
    /// The spec of a machine breaks a rule; nothing was changed.
    #[error("instance {instance}: {rule}")]
    InvalidMachine {
        /// The instance.
        instance: Uuid,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The host has no QEMU.
    #[error("the host has no {0}: install Debian's package qemu-system-x86 there")]
    NoQemu(&'static str),
    /// The host has no DHCP client for the instances that have no software of their own.
    #[error(
        "the host has no {0}, which asks for its addresses: install Debian's package dhcpcd-base there, or set \
         dhcp/netnsAddresses of its L3 network to Injected"
    )]
    NoClient(&'static str),
    /// The DHCP client of an instance has not come up.
    #[error("its DHCP client does not start: {words}")]
    ClientNotStarted {
        /// What it said.
        words: String,
    },
    /// The host does not have the image.
    #[error("the host has no image file {path} ({cause}): put it there, or choose another image")]
    NoImage {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        cause: io::Error,
    },
    /// QEMU has not come up.
    #[error("its QEMU does not start: {words}")]
    NotStarted {
        /// What it said.
        words: String,
    },
    /// QEMU has ended by itself, or was killed, and is not to start again yet.
    #[error(
        "its QEMU ended {lived_seconds} s after its start, {times} times in a row, saying {words}; \
         it starts anew {wait_seconds} s after that"
    )]
    Ended {
        /// How long it had run.
        lived_seconds: u64,
        /// How often it has ended soon.
        times: u32,
        /// What it said last.
        words: String,
        /// How long it is waited for.
        wait_seconds: u64,
    },
    /// QEMU refuses something, or does not answer.
    #[error("its QEMU does not do {command}: {reason}")]
    Qmp {
        /// What it was asked for.
        command: String,
        /// What it says.
        reason: String,
    },
    /// A machine cannot go to another host, or come from there.
    #[error("{0}")]
    Unmovable(String),
    /// A machine has no room for one more NIC.
    #[error("nic {nic}: the instance has no slot left for it; it has room for {max} NICs")]
    NoSlot {
        /// The NIC.
        nic: Uuid,
        /// So many fit.
        max: usize,
    },
    /// A file of an instance cannot be used.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
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

impl Error {
    /// For `map_err`: something failed about this file.
    pub(crate) fn file(path: &std::path::Path) -> impl Fn(io::Error) -> Self {
        move |cause| Self::File { path: path.to_owned(), cause }
    }
}
