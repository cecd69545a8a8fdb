//! Whether this host can run the data plane. Every message says what to do.

use crate::btf;
use crate::error::{PreflightError, chain};
use aya::programs::{SchedClassifier, TcAttachType};
use std::fs;

/// The first kernel with TCX (BPF links on tc hooks) in it.
const OLDEST_KERNEL: (u32, u32) = (6, 6);

/// Capabilities by number (`linux/capability.h`) that loading, attaching and mounting need.
const CAPABILITIES: [(u32, &str); 3] =
    [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

/// Says whether this host can run the data plane, and if not, what to do.
///
/// # Errors
/// The first thing that is missing.
pub fn preflight() -> Result<(), PreflightError> {
    let release = release();
    if kernel_version(&release).is_none_or(|version| version < OLDEST_KERNEL) {
        return Err(PreflightError::Kernel { found: release });
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(missing) = missing_capability(&status) {
        return Err(PreflightError::Privilege(missing));
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "bpf") {
        return Err(PreflightError::Feature {
            what: "the bpf file system",
            hint: "boot a kernel with CONFIG_BPF_SYSCALL=y",
        });
    }
    // They are looked through when the object is loaded, which is told as well.
    if let Err(error) = fs::metadata(btf::PATH) {
        tracing::debug!(%error, "the kernel's types");
        return Err(PreflightError::Feature {
            what: "its own types (BTF, in /sys/kernel/btf/vmlinux)",
            hint: "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, and see that /sys is mounted",
        });
    }
    if let Err(error) = SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        tracing::debug!(error = %chain(&error), "TCX query failed");
        return Err(PreflightError::Feature {
            what: "TCX",
            hint: "boot a kernel with CONFIG_NET_CLS_ACT=y and CONFIG_NET_SCH_INGRESS",
        });
    }
    Ok(())
}

/// Whether the running kernel is at least of this version.
pub(crate) fn is_kernel(least: (u32, u32)) -> bool {
    kernel_version(&release()).is_some_and(|version| version >= least)
}

fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Major and minor number of a release such as `6.18.44-cloud-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The first capability that `/proc/self/status` does not show as effective.
fn missing_capability(status: &str) -> Option<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(line.trim(), 16).ok()?;
    let missing = CAPABILITIES.into_iter().find(|(bit, _)| effective & (1 << bit) == 0);
    missing.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(kernel_version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(kernel_version("6.1.0-38-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("unknown"), None);
        assert!(kernel_version("6.10.1") > Some(OLDEST_KERNEL));
    }

    #[test]
    fn the_missing_capability_is_named() {
        assert_eq!(missing_capability("CapEff:\t000001ffffffffff\n"), None);
        assert_eq!(missing_capability("CapEff:\t0000000000001000\n"), Some("CAP_SYS_ADMIN"));
    }
}
