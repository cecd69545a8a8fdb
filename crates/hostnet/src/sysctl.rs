//! Settings below `/proc/sys/net`, which belong to a namespace and often to one device.

use std::{fs, io, path::Path};

use crate::{Error, Namespace};

impl Namespace {
    /// Gives one setting a value: `sysctl("net/ipv4/conf/all/arp_ignore", "8")`.
    ///
    /// # Errors
    /// As [`Namespace::sysctls`].
    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), Error> {
        self.sysctls(&[(path, value)])
    }

    /// Gives several settings their values, in order, in one visit to the namespace.
    ///
    /// A setting that has its value is not written. One below `net/ipv6` that does not exist is
    /// skipped: a kernel without IPv6, or a device with an MTU below 1280, has none to set.
    ///
    /// # Errors
    /// [`Error::InvalidName`] for a path outside of `net/`; nothing is written then. Else what the
    /// kernel says to the first setting that it refuses.
    pub fn sysctls<P: AsRef<str> + Sync>(&self, settings: &[(P, &str)]) -> Result<(), Error> {
        for (path, _) in settings {
            check(path.as_ref())?;
        }
        self.run_in(|| {
            settings.iter().try_for_each(|(path, value)| {
                let path = path.as_ref();
                set(path, value).map_err(|error| {
                    Error::kernel(self.name(), format!("set {path} to {value}"), error)
                })
            })
        })?
    }
}

fn check(path: &str) -> Result<(), Error> {
    let is_plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if path.starts_with("net/") && is_plain {
        return Ok(());
    }
    let rule = "a setting is written as net/ipv4/conf/all/arp_ignore";
    Err(Error::InvalidName { name: path.to_owned(), rule })
}

fn set(path: &str, value: &str) -> io::Result<()> {
    let file = Path::new("/proc/sys").join(path);
    match fs::read_to_string(&file) {
        Ok(found) if found.trim_end() == value => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.starts_with("net/ipv6/") => {
            Ok(())
        }
        _ => fs::write(&file, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_cannot_leave_the_net_directory() {
        for bad in ["kernel/panic", "/net/x", "net/../kernel/panic", "net//x", "net/", ""] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check("net/ipv4/conf/eth0.5/arp_ignore").is_ok());
    }
}
