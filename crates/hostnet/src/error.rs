//! What can go wrong, and what to do about it.

use std::io;

use nix::errno::Errno;

/// Why a link, an address or a namespace could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused. `source` holds the error number.
    #[error("namespace {namespace}: cannot {action}: {source}{}", hint(source))]
    Kernel {
        /// The namespace in which it was tried, `(current)` for the caller's own.
        namespace: String,
        /// What was tried, with the name of the device.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A device of that name exists and is another thing than asked for. Nothing was changed.
    #[error(
        "namespace {namespace}: device {device} exists with {found} where {wanted} was asked for; \
         delete it or choose another name"
    )]
    Mismatch {
        /// The namespace of the device.
        namespace: String,
        /// The name of the device.
        device: String,
        /// What the device has.
        found: String,
        /// What the caller wants.
        wanted: String,
    },
    /// There is no such device.
    #[error("namespace {namespace}: no device {device}")]
    NoDevice {
        /// The namespace that was searched.
        namespace: String,
        /// The name that was searched for.
        device: String,
    },
    /// There is no live namespace of that name.
    #[error("no namespace {name} in /run/netns; create it first")]
    NoNamespace {
        /// The name that was searched for.
        name: String,
    },
    /// The name cannot be a file in `/run/netns`, or the setting is not below `/proc/sys/net`.
    #[error("{name:?} is no valid name: {rule}")]
    InvalidName {
        /// The name that was given.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The kernel did not answer in time; the request may still take effect.
    #[error("namespace {namespace}: cannot {action}: no answer from the kernel in {seconds} s")]
    Timeout {
        /// The namespace in which it was tried.
        namespace: String,
        /// What was tried.
        action: String,
        /// How long we waited, in seconds.
        seconds: u64,
    },
    /// A list is longer than any that makes sense; a guest may have made it so.
    #[error("namespace {namespace}: cannot {action}: more than {limit} entries; remove some there")]
    TooMany {
        /// The namespace in which it was tried.
        namespace: String,
        /// What was tried.
        action: String,
        /// How many are read at most.
        limit: usize,
    },
    /// The netlink socket is gone, usually because its runtime was shut down.
    #[error("namespace {namespace}: cannot {action}: the netlink socket is closed; open another")]
    Closed {
        /// The namespace of the socket.
        namespace: String,
        /// What was tried.
        action: String,
    },
}

impl Error {
    pub(crate) fn kernel(
        namespace: &str,
        action: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Kernel {
            namespace: namespace.to_owned(),
            action: action.into(),
            source: source.into(),
        }
    }

    /// Whether the thing that was to be read, changed or deleted does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NoDevice { .. } | Self::NoNamespace { .. } => true,
            Self::Kernel { .. } => {
                [Errno::ENODEV, Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL]
                    .iter()
                    .any(|errno| self.is(*errno))
            }
            _ => false,
        }
    }

    /// Whether the name or the address that was to be created is taken.
    pub fn is_exists(&self) -> bool {
        self.is(Errno::EEXIST)
    }

    /// Whether there is no way to the address that was asked for, or none from where it was asked.
    pub(crate) fn is_no_route(&self) -> bool {
        let errnos = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];
        errnos.iter().any(|errno| self.is(*errno))
    }

    fn is(&self, errno: Errno) -> bool {
        let Self::Kernel { source, .. } = self else { return false };
        source.raw_os_error() == Some(errno as i32)
    }
}

/// What an operator can do about an error number; empty where the text says it all.
fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            "; run as root, or with the capabilities CAP_NET_ADMIN and CAP_SYS_ADMIN"
        }
        Some(Errno::EOPNOTSUPP) => "; the kernel lacks this kind of device: load its module",
        Some(Errno::EMFILE | Errno::ENFILE) => "; raise the limit of open files (LimitNOFILE=)",
        Some(Errno::ENAMETOOLONG | Errno::ERANGE) => {
            "; a device name has 1 to 15 bytes, an MTU lies within the device's limits"
        }
        Some(Errno::EADDRINUSE) => "; another device or process holds this UDP port",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_namespace_the_action_and_what_to_do() {
        let error = Error::kernel("vm1", "create veth nlabc", Errno::EPERM);
        let text = error.to_string();
        assert!(text.starts_with("namespace vm1: cannot create veth nlabc: "), "{text}");
        assert!(text.ends_with("CAP_NET_ADMIN and CAP_SYS_ADMIN"), "{text}");
        assert!(!error.is_not_found());
    }

    #[test]
    fn a_vanished_device_counts_as_not_found() {
        assert!(Error::kernel("vm1", "delete device 7", Errno::ENODEV).is_not_found());
        assert!(Error::kernel("vm1", "add address", Errno::EEXIST).is_exists());
    }
}
