//! A machine that goes from one host to another while it runs: QEMU's own migration, over a socket of
//! each QEMU. What is between the two sockets is somebody else's matter.
//!
//! Nothing of it decides alone. The QEMU that the memory came to stands still until it is told that the
//! other one is given up ([`Qemu::land`]); the one that it came from stands still from the moment it has
//! sent the last of it, and goes on only if it is known that the other one does not
//! ([`Journey::Stays`]). What has been decided is on disk first.
//!
//! Source: QEMU's docs/devel/migration and qapi/migration.json.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{
    net::UnixStream,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{
    Qemu,
    accel::Accel,
    files::{Files, Record},
    nic_link, plug,
    qmp::Qmp,
};
use crate::{Error, Machine};

/// The sockets that memory leaves by and comes in by.
const OUT: &str = "memory-out";
const IN: &str = "memory-in";

/// How long a QEMU may take to connect to a socket, or to listen at one.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// How long it may take to stop sending.
const CANCEL_LIMIT: Duration = Duration::from_secs(20);

/// How fast memory is sent, in bytes per second: a gigabit link of the hosts' is not filled by one.
const BYTES_PER_SECOND: u64 = 100 << 20;
/// How long a guest stands still at the end, as QEMU estimates it.
const DOWNTIME_MS: u64 = 200;

/// What must be the same on both hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Traits {
    /// How it runs, and on which processor, if its guest sees that.
    pub processor: String,
    /// The machine as it was started.
    pub machine: Machine,
    /// The slots of its NICs.
    pub slots: BTreeMap<Uuid, u32>,
}

/// Whether memory may be sent by a move.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Begun {
    /// It is the first time.
    Now,
    /// That was begun before, and broken off.
    Before,
    /// By that move it may run on the other host already.
    HandedOver,
}

/// How far memory has been sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sent {
    /// So many bytes of so many are left, by QEMU's last count.
    Left(u64, u64),
    /// All of it; the guest stands still.
    All,
    /// It was broken off.
    Failed(String),
}

impl Qemu {
    /// What must be the same on another host for a machine to go there.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn traits(&self, instance: Uuid) -> Result<Traits, Error> {
        let (files, record) = self.running(instance)?;
        let slots = plug::slots(&mut Qmp::connect(&files).await?).await?;
        let processor = match self.accel().await? {
            Accel::Kvm => format!("kvm, {}", processor()),
            Accel::Auto | Accel::Tcg => "tcg".to_owned(),
        };
        Ok(Traits { processor, machine: record.machine, slots })
    }

    /// Notes that memory is sent by this move, before anything is; whether that was so before.
    ///
    /// # Errors
    /// When it does not run, or its record cannot be written.
    pub fn begin(&self, instance: Uuid, number: u32) -> Result<Begun, Error> {
        let (files, record) = self.running(instance)?;
        if record.sent_by == number {
            return Ok(if record.is_handed_over { Begun::HandedOver } else { Begun::Before });
        }
        files.note(&Record { sent_by: number, is_handed_over: false, ..record })?;
        Ok(Begun::Now)
    }

    /// Begins to send the memory of a machine; what is to be read until its end.
    ///
    /// # Errors
    /// When QEMU does not do it.
    pub async fn send(&self, instance: Uuid) -> Result<UnixStream, Error> {
        let (files, _) = self.running(instance)?;
        let listener = files.listen(OUT).map_err(Error::file(&files.path(OUT)))?;
        let mut qmp = Qmp::connect(&files).await?;
        let limits = json!({"max-bandwidth": BYTES_PER_SECOND, "downtime-limit": DOWNTIME_MS});
        qmp.call("migrate-set-parameters", limits).await?;
        qmp.call("migrate", json!({"uri": format!("unix:{OUT}")})).await?;
        drop(qmp);
        let accepted = timeout(CONNECT_LIMIT, listener.accept()).await;
        let _ = fs::remove_file(files.path(OUT));
        match accepted {
            Ok(accepted) => Ok(accepted.map_err(Error::file(&files.path(OUT)))?.0),
            Err(_) => Err(Error::Unmovable("its QEMU does not send its memory".to_owned())),
        }
    }

    /// How far the memory has been sent.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn sent(&self, instance: Uuid) -> Result<Sent, Error> {
        let (files, _) = self.running(instance)?;
        let answer = Qmp::connect(&files).await?.call("query-migrate", json!({})).await?;
        Ok(sent(&answer))
    }

    /// Notes that a machine, all of whose memory was sent, may run on the other host.
    ///
    /// # Errors
    /// When its record cannot be written.
    pub fn hand_over(&self, instance: Uuid) -> Result<(), Error> {
        let (files, record) = self.running(instance)?;
        files.note(&Record { is_handed_over: true, ..record })
    }

    /// Ends the sending, and has the guest go on here: it does not run on the other host.
    ///
    /// # Errors
    /// When QEMU does not do it.
    pub async fn stay(&self, instance: Uuid) -> Result<(), Error> {
        let (files, _) = self.running(instance)?;
        stay(&files, &mut Qmp::connect(&files).await?).await
    }

    /// Has a machine take its memory; where that is to be written to.
    ///
    /// # Errors
    /// When QEMU does not do it.
    pub async fn receive(&self, instance: Uuid) -> Result<UnixStream, Error> {
        let (files, _) = self.coming(instance)?;
        let mut qmp = Qmp::connect(&files).await?;
        qmp.call("migrate-incoming", json!({"uri": format!("unix:{IN}")})).await?;
        drop(qmp);
        let limit = Instant::now() + CONNECT_LIMIT;
        loop {
            match files.connect(IN).await {
                Ok(stream) => {
                    let _ = fs::remove_file(files.path(IN));
                    return Ok(stream);
                }
                Err(error) if Instant::now() > limit => {
                    return Err(Error::file(&files.path(IN))(error));
                }
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Whether a machine that comes has all of its memory.
    ///
    /// # Errors
    /// When it has ended, with its last words.
    pub async fn has_received(&self, instance: Uuid) -> Result<bool, Error> {
        let files = self.files(instance);
        let dead =
            || Error::Unmovable(format!("its QEMU has ended, saying {}", files.last_words()));
        if files.pid().is_none() {
            return Err(dead());
        }
        let status = match Qmp::connect(&files).await {
            Ok(mut qmp) => qmp.status().await,
            Err(error) => Err(error),
        };
        match status {
            Ok(status) => Ok(status != "inmigrate"),
            Err(_) if files.pid().is_none() => Err(dead()),
            // It is at work, and answers later.
            Err(_) => Ok(false),
        }
    }

    /// Has a machine that has all of its memory run here: the other host will not. Its NICs go up, and
    /// it announces them.
    ///
    /// # Errors
    /// When it does not.
    pub async fn land(&self, instance: Uuid) -> Result<(), Error> {
        let (files, record) = self.running(instance)?;
        if !record.is_coming {
            return Ok(());
        }
        let mut qmp = Qmp::connect(&files).await?;
        let status = qmp.status().await?;
        if status == "inmigrate" {
            return Err(Error::Unmovable("it has not got its memory".to_owned()));
        }
        let host = self.host().await?;
        for plugged in &record.nics {
            let link = nic_link(&host, plugged.uuid).await?;
            let link = link.ok_or(Error::NoNic { nic: plugged.uuid })?;
            host.set_up(link.index).await?;
        }
        if status != "running" {
            qmp.call("cont", json!({})).await?;
        }
        files.note(&Record { is_coming: false, ..record })?;
        let rounds = json!({"initial": 10, "max": 500, "rounds": 6, "step": 100});
        if let Err(error) = qmp.call("announce-self", rounds).await {
            tracing::warn!(%instance, %error, "its NICs move with what it sends next");
        }
        Ok(())
    }

    /// Whether a machine that was to come runs here.
    #[must_use]
    pub fn has_landed(&self, instance: Uuid) -> bool {
        self.running(instance).is_ok_and(|(_, record)| !record.is_coming)
    }

    fn running(&self, instance: Uuid) -> Result<(Files, Record), Error> {
        let files = self.files(instance);
        match (files.pid(), files.record()) {
            (Some(_), Some(record)) => Ok((files, record)),
            _ => Err(Error::Unmovable("its QEMU does not run".to_owned())),
        }
    }

    fn coming(&self, instance: Uuid) -> Result<(Files, Record), Error> {
        let (files, record) = self.running(instance)?;
        match record.is_coming {
            true => Ok((files, record)),
            false => Err(Error::Unmovable("it runs here".to_owned())),
        }
    }
}

/// A crash may have come between that a machine ran and that this was noted.
pub(super) fn settle(files: &Files, status: &str) -> Result<(), Error> {
    match files.record() {
        Some(record) if record.is_coming && status == "running" => {
            files.note(&Record { is_coming: false, ..record })
        }
        _ => Ok(()),
    }
}

/// Ends whatever is left of a machine's way to another host, and has it go on.
pub(super) async fn stay(files: &Files, qmp: &mut Qmp) -> Result<(), Error> {
    let Some(record) = files.record().filter(|record| record.sent_by != 0) else { return Ok(()) };
    qmp.call("migrate_cancel", json!({})).await?;
    let limit = Instant::now() + CANCEL_LIMIT;
    loop {
        match qmp.status().await?.as_str() {
            "postmigrate" => {
                qmp.call("cont", json!({})).await?;
            }
            "finish-migrate" if Instant::now() < limit => {}
            _ => break,
        }
        sleep(PAUSE).await;
    }
    // The number stays: by that move it does not go any more.
    match record.is_handed_over {
        true => files.note(&Record { is_handed_over: false, ..record }),
        false => Ok(()),
    }
}

/// What QEMU says of its sending.
fn sent(answer: &Value) -> Sent {
    let count = |of: &str| answer["ram"][of].as_u64().unwrap_or_default();
    match answer["status"].as_str().unwrap_or("none") {
        "completed" => Sent::All,
        status @ ("failed" | "cancelled" | "cancelling" | "none") => {
            let why = answer["error-desc"].as_str().unwrap_or(status);
            Sent::Failed(why.to_owned())
        }
        _ => Sent::Left(count("remaining"), count("total")),
    }
}

/// The processor of the host, which a guest sees that runs by KVM.
fn processor() -> String {
    let text = fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name =
        line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, name)| name.trim());
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_says_of_its_sending_is_understood() {
        let left = json!({"status": "active", "ram": {"remaining": 5, "total": 9}});
        assert_eq!(sent(&left), Sent::Left(5, 9));
        assert_eq!(sent(&json!({"status": "setup"})), Sent::Left(0, 0));
        assert_eq!(sent(&json!({"status": "device", "ram": {}})), Sent::Left(0, 0));
        assert_eq!(sent(&json!({"status": "completed"})), Sent::All);
        let failed = json!({"status": "failed", "error-desc": "no room"});
        assert_eq!(sent(&failed), Sent::Failed("no room".to_owned()));
        assert_eq!(sent(&json!({})), Sent::Failed("none".to_owned()));
    }
}
