//! How a QEMU is started: its arguments, and when it is ready.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use hostnet::Namespace;
use tokio::time::{Instant, sleep};

use super::{
    accel::Accel,
    files::{self, Files},
    qmp::Qmp,
};
use crate::{Error, ImageFormat, Journey, Machine};

/// The program.
pub(super) const QEMU: &str = "qemu-system-x86_64";

/// How long it may take until it answers: with much memory the kernel has work to do.
const READY_LIMIT: Duration = Duration::from_secs(30);
const READY_PAUSE: Duration = Duration::from_millis(5);

/// What a QEMU must not do any more once it runs: its guest may take it over. It never needs to start
/// a program or to get other rights.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// The slot of the disk on the machine's PCI bus.
const DISK_SLOT: u32 = 3;

/// What an image that is a kernel is told if it has no file for that.
const KERNEL_WORDS: &str = "quiet panic=-1";

/// Says that the program is there, before it is needed.
pub(super) fn find_program() -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(QEMU));
    found.into_iter().find(|program| program.is_file()).ok_or(Error::NoQemu(QEMU))
}

/// Starts a QEMU whose guest stands still and that has no NICs, and waits until it answers.
pub(super) async fn launch(
    files: &Files,
    (machine, journey): (&Machine, Journey),
    images: &Path,
    (host, accel): (Option<&Namespace>, Accel),
) -> Result<Child, Error> {
    let program = find_program()?;
    let image = image(machine, images)?;
    let log = files.make()?;
    let mut command = Command::new("setsid");
    // What the agent was told of its heap is not for a machine with many threads.
    command.env_remove("MALLOC_ARENA_MAX").env_remove("MALLOC_TRIM_THRESHOLD_");
    // A session of its own: no terminal's signals reach it, and it goes on when the agent ends. It
    // stays the same process, as the agent's child leads no process group.
    command.arg(program).args(arguments(files, machine, accel)).args(image);
    if journey == Journey::Comes {
        command.args(["-incoming", "defer"]);
    }
    command.current_dir(&files.directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // A child starts in the namespace of the thread that started it, and makes its taps there.
    let started = match host {
        Some(namespace) => namespace.run_in(|| command.spawn())?,
        None => command.spawn(),
    };
    let mut child = started.map_err(Error::file(Path::new("setsid")))?;
    let limit = Instant::now() + READY_LIMIT;
    loop {
        let ended = child.try_wait().map_err(Error::file(&files.directory))?;
        let words = match ended {
            Some(_) => files.last_words(),
            None if Instant::now() > limit => {
                child.kill().and_then(|()| child.wait()).map_err(Error::file(&files.directory))?;
                format!("not within {} s, {}", READY_LIMIT.as_secs(), files.last_words())
            }
            // The socket is there long before it has read its image, which may be none.
            None if Qmp::connect(files).await.is_ok() && files.pid().is_some() => return Ok(child),
            None => {
                sleep(READY_PAUSE).await;
                continue;
            }
        };
        return Err(Error::NotStarted { words });
    }
}

/// All but what depends on the image.
fn arguments(files: &Files, machine: &Machine, accel: Accel) -> Vec<String> {
    let socket = |name: &str| format!("socket,id={name},path={name},server=on,wait=off");
    let (accel, cpu) = match accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Auto | Accel::Tcg => ("tcg", "max"),
    };
    let mut words: Vec<String> = Vec::new();
    let mut add = |name: &str, value: String| words.extend([format!("-{name}"), value]);
    add("uuid", files.instance.to_string());
    // Tells people whose it is. A comma ends a value, unless there are two.
    add("name", format!("guest={}", files.directory.display().to_string().replace(',', ",,")));
    // In its working directory, as its sockets: one that nobody follows any more, because the agent
    // was killed in between, finds the directory gone and ends.
    add("pidfile", files::PID.to_owned());
    add("display", "none".to_owned());
    add("sandbox", SANDBOX.to_owned());
    add("machine", "pc".to_owned());
    add("accel", accel.to_owned());
    add("cpu", cpu.to_owned());
    add("smp", machine.cpus.to_string());
    add("m", format!("{}M", machine.memory_mib));
    add("chardev", socket(files::QMP));
    add("mon", format!("chardev={},mode=control", files::QMP));
    add("chardev", socket(files::CONSOLE));
    add("serial", format!("chardev:{}", files::CONSOLE));
    words.extend(["-S", "-no-user-config", "-nodefaults"].map(str::to_owned));
    words
}

/// How the image is used. It is never written: what a guest writes to its disk lasts as long as its
/// QEMU.
fn image(machine: &Machine, images: &Path) -> Result<Vec<String>, Error> {
    let path = images.join(&machine.image);
    let check = |path: &Path| match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(path.display().to_string()),
        Ok(_) => {
            let cause = io::Error::other("it is no file");
            Err(Error::NoImage { path: path.to_owned(), cause })
        }
        Err(cause) => Err(Error::NoImage { path: path.to_owned(), cause }),
    };
    let format = match machine.format {
        ImageFormat::Raw => "raw",
        ImageFormat::Qcow2 => "qcow2",
        ImageFormat::Kernel => {
            let [kernel, initrd] = [check(&path.join("vmlinuz"))?, check(&path.join("initrd"))?];
            let words = fs::read_to_string(path.join("cmdline"));
            let words = words.as_deref().map_or(KERNEL_WORDS, str::trim);
            let words = format!("console=ttyS0 {words}");
            return Ok(["-kernel", &kernel, "-initrd", &initrd, "-append", &words]
                .map(str::to_owned)
                .into());
        }
    };
    // A comma ends a value, unless there are two.
    let path = check(&path)?.replace(',', ",,");
    let drive = format!("file={path},format={format},if=none,id=root,snapshot=on");
    let device = format!("virtio-blk-pci,drive=root,addr={DISK_SLOT:#x},bootindex=0");
    Ok(["-drive", &drive, "-device", &device].map(str::to_owned).into())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn machine(image: &str, format: ImageFormat) -> Machine {
        Machine { cpus: 2, memory_mib: 300, image: image.to_owned(), format }
    }

    #[test]
    fn a_disk_is_not_written_and_may_have_a_comma_in_its_name() {
        let images = tempfile::tempdir().unwrap();
        fs::write(images.path().join("a,b.img"), "").unwrap();
        let words = image(&machine("a,b.img", ImageFormat::Raw), images.path()).unwrap();
        let path = images.path().join("a,,b.img");
        let drive = format!("file={},format=raw,if=none,id=root,snapshot=on", path.display());
        assert_eq!(words[..2], ["-drive".to_owned(), drive]);
    }

    #[test]
    fn an_image_that_the_host_does_not_have_is_named() {
        let images = tempfile::tempdir().unwrap();
        for (name, format, missing) in [
            ("none.img", ImageFormat::Qcow2, "none.img"),
            ("guest", ImageFormat::Kernel, "guest/vmlinuz"),
        ] {
            let told = image(&machine(name, format), images.path()).unwrap_err().to_string();
            let path = images.path().join(missing).display().to_string();
            assert!(told.contains(&path) && told.contains("put it there"), "{told}");
        }
        let told = image(&machine("", ImageFormat::Raw), images.path()).unwrap_err().to_string();
        assert!(told.contains("it is no file"), "{told}");
    }

    #[test]
    fn kvm_has_the_hosts_processor_and_tcg_all_that_it_can() {
        let files = Files { instance: Uuid::nil(), directory: "/d".into() };
        let words = |accel| arguments(&files, &machine("x", ImageFormat::Raw), accel).join(" ");
        assert!(words(Accel::Kvm).contains("-accel kvm -cpu host -smp 2 -m 300M"));
        assert!(words(Accel::Tcg).contains("-accel tcg -cpu max"));
    }
}
