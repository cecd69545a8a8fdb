//! Whether guests run on the processor itself, by KVM, or are translated, by TCG.
//!
//! That `/dev/kvm` is there says little: in a cloud's VM it may open, and a guest then hangs in its
//! firmware for ever. So one that does nothing is run, once.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::launch::find_program;
use crate::Error;

/// How guests run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Accel {
    /// By KVM where it works, else by TCG.
    #[default]
    Auto,
    /// By KVM.
    Kvm,
    /// By TCG, which needs nothing of the host and is many times slower.
    Tcg,
}

/// How long a guest that does nothing may take with KVM; it takes a quarter of a second.
const LIMIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);

/// The port of QEMU's device `isa-debug-exit`.
const EXIT_PORT: u16 = 0x501;
/// What the guest writes there, and what QEMU makes of it.
const WRITTEN: u8 = 1;
const STATUS: i32 = WRITTEN as i32 * 2 + 1;

/// Says whether KVM runs guests on this host. The directory is for a file that is gone afterwards.
pub(super) async fn kvm_works(directory: &Path) -> Result<bool, Error> {
    if fs::metadata("/dev/kvm").is_err() {
        return Ok(false);
    }
    let disk = directory.join("probe.img");
    fs::create_dir_all(directory).map_err(Error::file(directory))?;
    fs::write(&disk, boot_disk()).map_err(Error::file(&disk))?;
    let works = runs(&disk, ["kvm", "host"], LIMIT).await;
    fs::remove_file(&disk).map_err(Error::file(&disk))?;
    let works = works?;
    if !works {
        tracing::warn!("KVM is there and runs no guest: machines are translated, which is slow");
    }
    Ok(works)
}

async fn runs(disk: &Path, [accel, cpu]: [&str; 2], limit: Duration) -> Result<bool, Error> {
    let mut command = Command::new(find_program()?);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc"]);
    command.args(["-accel", accel, "-cpu", cpu, "-m", "16"]);
    command.args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=2")]);
    let path = disk.display().to_string().replace(',', ",,");
    command.args(["-drive", &format!("file={path},format=raw,if=virtio,readonly=on")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let failed = Error::file(Path::new("the probe of KVM"));
    let mut child = command.spawn().map_err(&failed)?;
    let limit = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(&failed)? {
            return Ok(status.code() == Some(STATUS));
        }
        if Instant::now() > limit {
            child.kill().and_then(|()| child.wait()).map_err(&failed)?;
            return Ok(false);
        }
        sleep(PAUSE).await;
    }
}

/// The firmware finds nothing on a smaller disk.
const DISK_BYTES: usize = 1 << 20;

/// A disk whose first sector, which the firmware runs, writes to the port.
fn boot_disk() -> Vec<u8> {
    let [low, high] = EXIT_PORT.to_le_bytes();
    // mov dx, port; mov al, written; out dx, al; hlt
    let mut sector = vec![0xba, low, high, 0xb0, WRITTEN, 0xee, 0xf4];
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(DISK_BYTES, 0);
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_guest_of_the_probe_runs_and_one_that_does_not_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("a,b.img");
        fs::write(&disk, boot_disk()).unwrap();
        let limit = Duration::from_secs(30);
        assert!(runs(&disk, ["tcg", "max"], limit).await.unwrap());
        assert!(!runs(&disk, ["none", "max"], limit).await.unwrap());
        // It halts, and says nothing.
        let mut sector = boot_disk();
        sector[5] = 0xf4;
        fs::write(&disk, sector).unwrap();
        assert!(!runs(&disk, ["tcg", "max"], Duration::from_millis(500)).await.unwrap());
    }
}
