//! Instances that are machines: each a QEMU of its own.
//!
//! A QEMU is nobody's child for long: it has a session of its own and goes on when the agent ends
//! or is killed. The next one finds it by its directory (`files`), where the pid is that it wrote
//! itself, and talks to it by its socket there (`qmp`). It is started with its guest standing still
//! and without NICs. Each NIC is then plugged in, and gets a tap that QEMU makes: named as the
//! host's end of a veth would be, with `vnet_hdr`, down, and gone with the QEMU, however that ends.
//! The guest begins to run when the first NIC is put up, so after all of them have their programs.

mod accel;
mod files;
mod journey;
mod launch;
mod leave;
mod plug;
mod qmp;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hostnet::{Kind, LinkInfo, Namespace, Netlink};
use serde_json::json;
use tokio::sync::OnceCell;
use uuid::Uuid;

pub use accel::Accel;
use files::{Files, Record};
pub use journey::{Begun, Sent, Traits};
use qmp::Qmp;

use crate::{
    Driver, Error, FarEnd, Found, FoundNic, InstanceSpec, Journey, Machine, Prepared,
    host_device_name,
};
pub(crate) use leave::end_all;

/// A QEMU that has run for so long has not failed to start.
const LIVED_LONG: Duration = Duration::from_secs(60);

/// Longest wait before one that ends soon is started again.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What the driver is told.
#[derive(Clone, Debug)]
pub struct QemuOptions {
    /// Where it keeps what belongs to instances that run.
    pub directory: PathBuf,
    /// Where images are; nothing outside of it is one.
    pub images: PathBuf,
    /// How guests run.
    pub accel: Accel,
    /// How long a guest that is to end may take to do so by itself.
    pub patience: Duration,
}

/// Where instances have their files, below what the agent of a host keeps.
const INSTANCES: &str = "vm";
/// Where images are, there too.
const IMAGES: &str = "images";
/// How long a guest that is to end may take to do so by itself.
const PATIENCE: Duration = Duration::from_secs(60);

impl QemuOptions {
    /// Those of a host whose agent keeps its data there.
    #[must_use]
    pub fn below(data: &Path, accel: Accel) -> Self {
        let (directory, images) = (data.join(INSTANCES), data.join(IMAGES));
        Self { directory, images, accel, patience: PATIENCE }
    }
}

/// Runs instances by QEMU.
#[derive(Clone)]
pub struct Qemu(Arc<Inner>);

struct Inner {
    options: QemuOptions,
    /// Where taps live; `None`: in the namespace of the calling process.
    host: Option<Namespace>,
    /// How guests run, once that is known.
    accel: OnceCell<Accel>,
    memory: Mutex<Memory>,
    /// Guests that are to end.
    leaving: leave::Leaving,
}

/// What a driver remembers of what it did. Without it, all goes on; it only is less patient.
#[derive(Default)]
struct Memory {
    /// Processes to wait for, lest they stay as zombies.
    children: Vec<Child>,
    started: BTreeMap<Uuid, Instant>,
    deaths: BTreeMap<Uuid, Death>,
    /// Instances that are being worked on.
    busy: BTreeSet<Uuid>,
}

/// The end of a QEMU that nobody has asked for.
struct Death {
    at: Instant,
    lived: Duration,
    /// How often this has happened without one that lived long.
    times: u32,
    words: String,
}

impl Qemu {
    /// A driver whose host is the namespace of this process.
    pub fn new(options: QemuOptions) -> Self {
        Self::made(options, None)
    }

    /// A driver whose host is another namespace.
    pub fn on(options: QemuOptions, host: Namespace) -> Self {
        Self::made(options, Some(host))
    }

    fn made(options: QemuOptions, host: Option<Namespace>) -> Self {
        let (accel, memory) = (OnceCell::new(), Mutex::default());
        let leaving = leave::Leaving::default();
        Self(Arc::new(Inner { options, host, accel, memory, leaving }))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn host(&self) -> Result<Netlink, Error> {
        Ok(match &self.0.host {
            Some(namespace) => namespace.netlink().await?,
            None => Netlink::current().await?,
        })
    }

    fn files(&self, instance: Uuid) -> Files {
        let directory = self.0.options.directory.join(instance.simple().to_string());
        Files { instance, directory }
    }

    /// The instances that have a directory.
    fn known(&self) -> Result<Vec<Files>, Error> {
        let directory = &self.0.options.directory;
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::file(directory))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let instance = |name: String| {
            Uuid::try_parse(&name).ok().filter(|uuid| uuid.simple().to_string() == name)
        };
        let mut found: Vec<_> = names.filter_map(instance).map(|uuid| self.files(uuid)).collect();
        found.sort_by_key(|files| files.instance);
        Ok(found)
    }

    /// Whether the host has a QEMU.
    ///
    /// # Errors
    /// [`Error::NoQemu`].
    pub fn check() -> Result<(), Error> {
        launch::find_program().map(drop)
    }

    /// How guests run here. Asked once: it takes seconds where KVM does not work.
    async fn accel(&self) -> Result<Accel, Error> {
        let options = &self.0.options;
        let find = async || match options.accel {
            Accel::Auto if accel::kvm_works(&options.directory).await? => Ok(Accel::Kvm),
            Accel::Auto => Ok(Accel::Tcg),
            chosen => Ok(chosen),
        };
        self.0.accel.get_or_try_init(find).await.copied()
    }

    /// Clears up behind a QEMU that has ended by itself, and remembers what it said.
    fn bury(&self, files: &Files) -> Result<(), Error> {
        let words = files.last_words();
        tracing::warn!(instance = %files.instance, words, "its QEMU has ended");
        match files.record().is_some_and(|record| record.is_coming) {
            // No machine of this host yet: whoever sends it is told, and may send it again at once.
            true => self.memory().forget(files.instance),
            false => self.memory().note_end(files.instance, words),
        }
        files.remove()
    }

    /// Makes the QEMU of an instance run, and says as what it was started.
    async fn run(
        &self,
        files: &Files,
        spec: &InstanceSpec,
        machine: &Machine,
    ) -> Result<Record, Error> {
        let (pid, record) = (files.pid(), files.record());
        match (pid, record) {
            (Some(_), Some(record))
                if record.generation == spec.generation && is_fit(&record, spec) =>
            {
                return Ok(record);
            }
            // A guest that is to start anew keeps its machine.
            (Some(_), Some(record)) if record.machine == *machine && is_fit(&record, spec) => {
                let record = Record { generation: spec.generation, ..record };
                Qmp::connect(files).await?.call("system_reset", json!({})).await?;
                files.note(&record)?;
                return Ok(record);
            }
            // It is to be another machine, or nobody knows what it is.
            (Some(pid), _) => {
                files::end(pid)?;
                leave::until_gone(files).await?;
                files.remove()?;
            }
            (None, _) if files.directory.exists() => self.bury(files)?,
            (None, _) => {}
        }
        self.memory().may_start(spec.uuid)?;
        let (options, host) = (&self.0.options, self.0.host.as_ref());
        let how = (host, self.accel().await?);
        let what = (machine, spec.journey);
        let child = match launch::launch(files, what, &options.images, how).await {
            Ok(child) => child,
            Err(error) => {
                files.remove()?;
                return Err(error);
            }
        };
        self.memory().note_start(spec.uuid, child);
        let (generation, machine) = (spec.generation, machine.clone());
        let is_coming = spec.journey == Journey::Comes;
        let (nics, sent_by, is_handed_over) = (Vec::new(), 0, false);
        let record = Record { generation, machine, nics, is_coming, sent_by, is_handed_over };
        files.note(&record)?;
        Ok(record)
    }

    async fn make(&self, spec: &InstanceSpec, machine: &Machine) -> Result<Vec<Prepared>, Error> {
        let files = self.files(spec.uuid);
        let record = self.run(&files, spec, machine).await?;
        let mut qmp = Qmp::connect(&files).await?;
        let host = self.host().await?;
        let links = plug::plug(&host, &mut qmp, (&files, record), &spec.nics).await?;
        let status = qmp.status().await?;
        match spec.journey {
            Journey::Comes => journey::settle(&files, &status)?,
            // It was to go, and is not any more.
            Journey::Stays => journey::stay(&files, &mut qmp).await?,
            Journey::Goes => {}
        }
        match (status.as_str(), spec.is_paused) {
            _ if spec.journey != Journey::Stays => {}
            ("running", true) => _ = qmp.call("stop", json!({})).await?,
            ("paused", false) => _ = qmp.call("cont", json!({})).await?,
            // Nobody puts a NIC up.
            ("prelaunch", false) if links.is_empty() => _ = qmp.call("cont", json!({})).await?,
            _ => {}
        }
        let prepared = spec.nics.iter().zip(links).map(|(nic, link)| Prepared {
            nic: nic.uuid,
            host_ifindex: link.index,
            far_end: FarEnd::of(&link),
            host_device: link.name,
        });
        Ok(prepared.collect())
    }

    /// The instance that has this NIC.
    fn instance_of(&self, nic: Uuid) -> Result<Option<Files>, Error> {
        let has = |files: &Files| {
            let record = files.record();
            record.is_some_and(|record| record.nics.iter().any(|plugged| plugged.uuid == nic))
        };
        Ok(self.known()?.into_iter().find(has))
    }
}

/// Whether a QEMU is one that waits for memory, if it is to be. One that came is as any other.
fn is_fit(record: &Record, spec: &InstanceSpec) -> bool {
    !record.is_coming || spec.journey == Journey::Comes
}

impl Memory {
    /// Waits for processes that have ended.
    fn reap(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    fn note_start(&mut self, instance: Uuid, child: Child) {
        self.children.push(child);
        self.started.insert(instance, Instant::now());
    }

    /// It has ended by itself.
    fn note_end(&mut self, instance: Uuid, words: String) {
        let lived = self.started.remove(&instance).map(|at| at.elapsed());
        // Started by an earlier agent: it has lived as long as nobody knows.
        self.note_death(instance, lived.unwrap_or(LIVED_LONG), words);
    }

    /// It is to end.
    fn forget(&mut self, instance: Uuid) {
        self.reap();
        self.started.remove(&instance);
        self.deaths.remove(&instance);
    }

    fn note_death(&mut self, instance: Uuid, lived: Duration, words: String) {
        let before = self.deaths.get(&instance).map_or(0, |death| death.times);
        let times = if lived < LIVED_LONG { before + 1 } else { 0 };
        // What is not asked for again is forgotten some time.
        self.deaths.retain(|_, death| death.at.elapsed() < 2 * WAIT_MAX);
        self.deaths.insert(instance, Death { at: Instant::now(), lived, times, words });
    }

    /// Whether it is time to start an instance again that has ended by itself.
    fn may_start(&self, instance: Uuid) -> Result<(), Error> {
        let Some(death) = self.deaths.get(&instance) else { return Ok(()) };
        let wait = death.wait();
        if death.at.elapsed() >= wait {
            return Ok(());
        }
        Err(Error::Ended {
            lived_seconds: death.lived.as_secs(),
            times: death.times,
            words: death.words.clone(),
            wait_seconds: wait.as_secs(),
        })
    }
}

impl Death {
    /// How long it is not started again: twice as long each time.
    fn wait(&self) -> Duration {
        match self.times {
            0 => Duration::ZERO,
            times => Duration::from_secs(1 << (times - 1).min(10)).min(WAIT_MAX),
        }
    }
}

/// Keeps an instance from being taken for one that has ended, while it is being made.
struct Busy<'a>(&'a Qemu, Uuid);

impl<'a> Busy<'a> {
    fn new(driver: &'a Qemu, instance: Uuid) -> Self {
        driver.memory().busy.insert(instance);
        Self(driver, instance)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.memory().busy.remove(&self.1);
    }
}

impl Driver for Qemu {
    async fn prepare(&self, spec: &InstanceSpec) -> Result<Vec<Prepared>, Error> {
        spec.check()?;
        let rule = "it is to be a machine, and nothing says of what kind";
        let no_machine = || Error::InvalidMachine { instance: spec.uuid, rule };
        let machine = spec.machine.as_ref().ok_or_else(no_machine)?;
        let _busy = Busy::new(self, spec.uuid);
        self.memory().reap();
        self.make(spec, machine).await
    }

    async fn activate(&self, nic: Uuid) -> Result<(), Error> {
        let host = self.host().await?;
        let Some(link) = nic_link(&host, nic).await? else { return Err(Error::NoNic { nic }) };
        if link.is_up {
            return Ok(());
        }
        let files = self.instance_of(nic)?.ok_or(Error::NoNic { nic })?;
        let mut qmp = Qmp::connect(&files).await?;
        // First: one whose NIC is up runs.
        if qmp.status().await? == "prelaunch" {
            qmp.call("cont", json!({})).await?;
        }
        Ok(host.set_up(link.index).await?)
    }

    async fn deactivate(&self, nic: Uuid) -> Result<(), Error> {
        let host = self.host().await?;
        let Some(link) = nic_link(&host, nic).await? else { return Ok(()) };
        match host.set_down(link.index).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn remove(&self, instance: Uuid) -> Result<(), Error> {
        let _busy = Busy::new(self, instance);
        let files = self.files(instance);
        self.memory().forget(instance);
        match files.pid() {
            Some(pid) => self.0.leaving.send_off(&files, pid, self.0.options.patience).await,
            None => files.remove(),
        }
    }

    async fn discard(&self, host_ifindex: u32) -> Result<(), Error> {
        let host = self.host().await?;
        match host.link_by_index(host_ifindex).await? {
            Some(link) if is_tap(&link) => Ok(host.delete_link(link.index).await?),
            Some(link) => Err(Error::NotOurs { device: link.name }),
            None => Ok(()),
        }
    }

    async fn find(&self, instance: Uuid, nic: Uuid) -> Result<Option<FoundNic>, Error> {
        let files = self.files(instance);
        let has = |record: Record| record.nics.iter().any(|plugged| plugged.uuid == nic);
        if files.pid().is_none() || !files.record().is_some_and(has) {
            return Ok(None);
        }
        let host = self.host().await?;
        Ok(nic_link(&host, nic).await?.map(|link| found_nic(nic, &link)))
    }

    async fn list(&self) -> Result<Vec<Found>, Error> {
        self.0.leaving.resume(&self.0.options)?;
        self.memory().reap();
        let known = self.known()?;
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let links = self.host().await?.links().await?;
        let mut found = Vec::new();
        for files in known {
            let instance = files.instance;
            if files.pid().is_none() {
                let is_busy = self.memory().busy.contains(&instance);
                if !is_busy {
                    self.bury(&files)?;
                }
                continue;
            }
            let record = files.record();
            let nics = record.into_iter().flat_map(|record| record.nics).filter_map(|plugged| {
                let is_it = |link: &&LinkInfo| is_of(link, plugged.uuid);
                Some(found_nic(plugged.uuid, links.iter().find(is_it)?))
            });
            let mut nics: Vec<_> = nics.collect();
            nics.sort_unstable();
            found.push(Found { instance, nics });
        }
        Ok(found)
    }
}

fn found_nic(nic: Uuid, link: &LinkInfo) -> FoundNic {
    FoundNic { nic, host_ifindex: link.index, up: link.is_up, far_end: FarEnd::of(link) }
}

/// The tap of a NIC, if it is there and complete.
async fn nic_link(host: &Netlink, nic: Uuid) -> Result<Option<LinkInfo>, Error> {
    let found = host.link_by_name(&host_device_name(nic)).await?;
    Ok(found.filter(|link| is_of(link, nic)))
}

/// Whether a link is the tap of a NIC, and complete.
fn is_of(link: &LinkInfo, nic: Uuid) -> bool {
    let alias = link.alias.as_deref().and_then(|alias| Uuid::try_parse(alias).ok());
    is_tap(link) && alias == Some(nic) && link.name == host_device_name(nic)
}

/// Whether a link is a tap of ours, complete or not.
pub(crate) fn is_tap(link: &LinkInfo) -> bool {
    let is_ours = crate::netns::is_host_device_name(&link.name);
    link.kind == Kind::Other("tun".to_owned()) && is_ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_soon_again_and_again_is_started_ever_later() {
        let (mut memory, vm) = (Memory::default(), Uuid::from_u128(1));
        memory.may_start(vm).unwrap();
        let mut waits = Vec::new();
        for _ in 0..9 {
            memory.note_death(vm, Duration::from_secs(2), "panic".to_owned());
            waits.push(memory.deaths[&vm].wait().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        let told = memory.may_start(vm).unwrap_err().to_string();
        assert!(told.contains("2 s after its start, 9 times in a row, saying panic"), "{told}");
        memory.note_death(vm, LIVED_LONG, "killed".to_owned());
        memory.may_start(vm).unwrap();
    }
}
