//! The qemu driver against the kernel and QEMU. Needs root; everything happens in namespaces of its
//! own. The guests are a few bytes in a boot sector, which the firmware starts in a tenth of a second.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::{
    fs::{self, File},
    future::Future,
    io::Read,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant},
};

use hostnet::{
    Netlink,
    scratch::{Scratch, root_or_skip},
};
use netloom_compute::{
    Accel, Driver, Error, FarEnd, ImageFormat, InstanceSpec, Journey, Machine, NicSpec, Qemu,
    QemuOptions, host_device_name,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::Crash;
use tempfile::TempDir;
use uuid::Uuid;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
/// How long guests that are to end have for that: they do not hear that they are to.
const PATIENCE: Duration = Duration::from_millis(200);

/// A host of the test's own.
struct Host {
    namespace: Scratch,
    netlink: Netlink,
    data: TempDir,
}

impl Host {
    async fn new() -> Self {
        let namespace = Scratch::new("qemu").unwrap();
        let netlink = namespace.netlink().await.unwrap();
        let data = tempfile::tempdir().unwrap();
        let images = data.path().join("images");
        fs::create_dir(&images).unwrap();
        fs::write(images.join("talks.img"), talking_disk()).unwrap();
        Self { namespace, netlink, data }
    }

    /// A driver, as an agent that has just started has one.
    fn driver(&self) -> Qemu {
        let options = QemuOptions::below(self.data.path(), Accel::Tcg);
        let options = QemuOptions { patience: PATIENCE, ..options };
        Qemu::on(options, (*self.namespace).clone())
    }

    fn directory(&self, spec: &InstanceSpec) -> PathBuf {
        self.data.path().join("vm").join(spec.uuid.simple().to_string())
    }

    fn pid(&self, spec: &InstanceSpec) -> Pid {
        let text = fs::read_to_string(self.directory(spec).join("pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap())
    }

    /// Connects to the guest's console.
    fn console(&self, spec: &InstanceSpec) -> UnixStream {
        let directory = File::open(self.directory(spec)).unwrap();
        let path = format!("/proc/self/fd/{}/console", directory.as_raw_fd());
        let stream = UnixStream::connect(path).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// Nothing is left of any instance.
    async fn is_empty(&self) -> bool {
        let links = self.netlink.links().await.unwrap();
        let entries = fs::read_dir(self.data.path().join("vm"));
        let left = entries.into_iter().flatten().count();
        left == 0 && links.iter().all(|link| link.name == "lo") && processes(&self.data).is_empty()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        netloom_compute::end_all(self.data.path()).unwrap();
    }
}

/// The processes that name a directory.
fn processes(data: &TempDir) -> Vec<PathBuf> {
    let path = data.path().display().to_string();
    let names = |process: &PathBuf| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&path)
    };
    fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()).filter(names).collect()
}

/// A guest that says `!` all the time, and lets QEMU do other things in between: `mov dx, 0x3f8;
/// mov al, '!'; again: out dx, al; mov cx, 0xffff; loop here; jmp again`.
fn talking_disk() -> Vec<u8> {
    let mut disk =
        vec![0xba, 0xf8, 0x03, 0xb0, b'!', 0xee, 0xb9, 0xff, 0xff, 0xe2, 0xfe, 0xeb, 0xf8];
    disk.resize(510, 0);
    disk.extend([0x55, 0xaa]);
    disk.resize(1 << 20, 0);
    disk
}

fn nic(at: u8) -> NicSpec {
    NicSpec {
        uuid: Uuid::new_v4(),
        device: format!("eth{at}"),
        mac: [2, 0, 0, 0, 0, at],
        mtu_bytes: 1450,
        addresses: vec![("10.0.0.2".parse().unwrap(), 24)],
        asks_for: Vec::new(),
        gateways: Vec::new(),
    }
}

fn spec(image: &str, nics: Vec<NicSpec>) -> InstanceSpec {
    let (uuid, name) = (Uuid::new_v4(), "vm".to_owned());
    let (image, format) = (image.to_owned(), ImageFormat::Raw);
    let machine = Some(Machine { cpus: 1, memory_mib: 16, image, format });
    InstanceSpec {
        uuid,
        name,
        generation: 0,
        machine,
        is_paused: false,
        journey: Journey::Stays,
        nics,
    }
}

async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LIMIT, "does not come to hold");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether the guest says something within a while: one that stands still says nothing.
async fn talks(console: &mut UnixStream, within: Duration) -> bool {
    // What it said before it was stopped.
    let mut buffer = [0; 1 << 16];
    while console.read(&mut buffer).is_ok_and(|length| length == buffer.len()) {}
    let start = Instant::now();
    loop {
        if console.read(&mut buffer).is_ok_and(|length| length > 0) {
            return true;
        }
        if start.elapsed() > within {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn a_guest_runs_once_a_nic_is_up_and_goes_on_under_the_next_agent() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let (driver, spec) = (host.driver(), spec("talks.img", vec![nic(0), nic(1)]));
    let prepared = driver.prepare(&spec).await.unwrap();
    let names: Vec<_> = prepared.iter().map(|nic| nic.host_device.clone()).collect();
    assert_eq!(names, spec.nics.iter().map(|nic| host_device_name(nic.uuid)).collect::<Vec<_>>());
    for nic in &prepared {
        let link = host.netlink.link_by_index(nic.host_ifindex).await.unwrap().unwrap();
        assert!(!link.is_up && link.is_noarp && link.mtu_bytes == 1450, "{link:?}");
        assert_eq!(nic.far_end, FarEnd::Here);
    }
    let mut console = host.console(&spec);
    assert!(!talks(&mut console, Duration::from_millis(300)).await, "it runs unguarded");
    driver.activate(spec.nics[0].uuid).await.unwrap();
    assert!(talks(&mut console, LIMIT).await);
    drop(console);

    let (pid, found) = (host.pid(&spec), driver.list().await.unwrap());
    assert_eq!(found[0].nics.iter().filter(|nic| nic.up).count(), 1);
    drop(driver);
    let next = host.driver();
    assert_eq!(next.list().await.unwrap(), found);
    assert_eq!(next.prepare(&spec).await.unwrap(), prepared);
    assert_eq!((next.list().await.unwrap(), host.pid(&spec)), (found, pid));

    // It stands still, and goes on.
    let paused = InstanceSpec { is_paused: true, ..spec.clone() };
    next.prepare(&paused).await.unwrap();
    let mut console = host.console(&spec);
    assert!(!talks(&mut console, Duration::from_millis(300)).await, "it is to stand still");
    next.prepare(&spec).await.unwrap();
    assert!(talks(&mut console, LIMIT).await);
    drop(console);

    // It starts anew in the machine that it has, and in another one where that is wanted.
    let again = InstanceSpec { generation: 1, ..spec.clone() };
    next.prepare(&again).await.unwrap();
    assert_eq!(host.pid(&spec), pid);
    let machine = spec.machine.clone().map(|machine| Machine { cpus: 2, ..machine });
    let other = InstanceSpec { generation: 2, machine, ..spec.clone() };
    next.prepare(&other).await.unwrap();
    assert_ne!(host.pid(&spec), pid);

    next.remove(spec.uuid).await.unwrap();
    assert_eq!(next.list().await.unwrap(), []);
    until(|| host.is_empty()).await;
}

#[tokio::test]
async fn nics_come_and_go_while_the_guest_runs() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let (driver, mut spec) = (host.driver(), spec("talks.img", Vec::new()));
    assert_eq!(driver.prepare(&spec).await.unwrap(), []);
    let pid = host.pid(&spec);
    assert!(talks(&mut host.console(&spec), LIMIT).await, "nobody puts a NIC of it up");
    spec.nics = vec![nic(0), nic(1)];
    let first = driver.prepare(&spec).await.unwrap();
    driver.activate(spec.nics[1].uuid).await.unwrap();
    let gone = spec.nics.remove(0);
    spec.nics.push(nic(2));
    let then = driver.prepare(&spec).await.unwrap();
    assert_eq!((&then[0], host.pid(&spec)), (&first[1], pid), "the one that stays is not touched");
    assert_eq!(driver.find(spec.uuid, gone.uuid).await.unwrap(), None);
    assert_eq!(host.netlink.link_by_name(&first[0].host_device).await.unwrap(), None);
    let up = driver.find(spec.uuid, spec.nics[0].uuid).await.unwrap();
    assert!(up.unwrap().up);
    // A tap that somebody deletes is made anew.
    host.netlink.delete_link(then[0].host_ifindex).await.unwrap();
    assert_eq!(driver.find(spec.uuid, spec.nics[0].uuid).await.unwrap(), None);
    spec.nics.truncate(1);
    driver.remove(spec.uuid).await.unwrap();
    until(|| host.is_empty()).await;
}

#[tokio::test]
async fn a_qemu_that_is_killed_is_gone_and_starts_anew_with_patience() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let (driver, spec) = (host.driver(), spec("talks.img", vec![nic(0)]));
    driver.prepare(&spec).await.unwrap();
    driver.activate(spec.nics[0].uuid).await.unwrap();
    let pid = host.pid(&spec);
    kill(pid, Signal::SIGKILL).unwrap();
    until(async || driver.list().await.unwrap().is_empty()).await;
    let told = driver.prepare(&spec).await.unwrap_err().to_string();
    assert!(told.contains("its QEMU ended") && told.contains("1 times in a row"), "{told}");
    until(async || driver.prepare(&spec).await.is_ok()).await;
    assert_ne!(host.pid(&spec), pid);
    driver.remove(spec.uuid).await.unwrap();
    until(|| host.is_empty()).await;
}

#[tokio::test]
async fn what_cannot_start_is_named_and_leaves_nothing() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let driver = host.driver();
    let missing = driver.prepare(&spec("none.img", vec![nic(0)])).await.unwrap_err();
    assert!(missing.to_string().contains("images/none.img"), "{missing}");
    let mut spec = spec("talks.img", vec![nic(0)]);
    spec.machine.as_mut().unwrap().format = ImageFormat::Qcow2;
    let Error::NotStarted { words } = driver.prepare(&spec).await.unwrap_err() else {
        panic!("it starts from what is no image");
    };
    assert!(words.contains("not in qcow2 format"), "{words}");
    assert!(host.is_empty().await);
}

#[tokio::test]
async fn what_somebody_wrote_over_or_cut_off_is_made_anew() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let (driver, spec) = (host.driver(), spec("talks.img", vec![nic(0)]));
    driver.prepare(&spec).await.unwrap();
    let record = host.directory(&spec).join("record.json");
    let text = fs::read(&record).unwrap();
    fs::write(&record, &text[..text.len() / 2]).unwrap();
    let next = host.driver();
    let found = next.list().await.unwrap();
    assert_eq!((found.len(), found[0].nics.len()), (1, 0), "nobody knows what it has");
    let pid = host.pid(&spec);
    next.prepare(&spec).await.unwrap();
    assert_ne!(host.pid(&spec), pid);
    next.remove(spec.uuid).await.unwrap();
    until(|| host.is_empty()).await;
}

#[tokio::test]
async fn a_crash_at_any_moment_of_making_one_is_made_good() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    for polls in (0..60).step_by(4) {
        let spec = spec("talks.img", vec![nic(0), nic(1)]);
        {
            let driver = host.driver();
            let making = pin!(driver.prepare(&spec));
            drop(Crash(Box::pin(making), polls).await);
        }
        let next = host.driver();
        next.list().await.unwrap();
        until(async || next.prepare(&spec).await.is_ok()).await;
        assert_eq!(next.list().await.unwrap()[0].nics.len(), 2, "after {polls}");
        next.remove(spec.uuid).await.unwrap();
        until(|| host.is_empty()).await;
    }
}

#[tokio::test]
async fn whoever_comes_next_ends_what_was_to_end() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let spec = spec("talks.img", vec![nic(0)]);
    let options = QemuOptions::below(host.data.path(), Accel::Tcg);
    {
        // Its guest does not end, and it has patience.
        let driver = Qemu::on(options, (*host.namespace).clone());
        driver.prepare(&spec).await.unwrap();
        driver.activate(spec.nics[0].uuid).await.unwrap();
        driver.remove(spec.uuid).await.unwrap();
        assert_eq!(driver.list().await.unwrap(), []);
        let device = host_device_name(spec.nics[0].uuid);
        assert_eq!(host.netlink.link_by_name(&device).await.unwrap(), None, "it is cut off");
    }
    assert!(!processes(&host.data).is_empty());
    let next = host.driver();
    assert_eq!(next.list().await.unwrap(), []);
    until(|| host.is_empty()).await;
}
