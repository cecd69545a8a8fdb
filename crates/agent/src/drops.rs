//! What was dropped lately, port by port, for whoever asks why.
//!
//! The programs tell of dropped frames in a ring buffer, which is read several times a second; by one
//! reader at a time, and this one yields to any other (`lab capture`). What many frames have in common is
//! kept once. A port has [`KINDS_OF_PORT`] kinds of them and a host [`KINDS_MAX`], so that one that
//! floods costs no other port its history, and the host no memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use dataplane::{DropTurns, DroppedFrame, Turn};
use packet::DropReason;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use wire::{
    holding::Holding,
    object::{Object, ObjectKey, Port, Table},
    question::{DROPS_TOLD_MAX, DropSeen, Drops},
};

use crate::{
    headers::{self, Headers},
    kernel::HostKernel,
    state::Desired,
    trace,
};

/// Kinds of dropped frames that a port has at most; the one that was seen last longest ago leaves first.
const KINDS_OF_PORT: usize = 64;

/// Kinds that a host has at most. Then one of the port leaves that has most.
const KINDS_MAX: usize = 4_096;

/// How long it takes to try again what has failed.
const RETRY: Duration = Duration::from_secs(5);

/// What frames have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    is_from_port: bool,
    reason: Option<DropReason>,
    rule: u32,
    /// Without the port of the source.
    headers: Headers,
}

/// When they were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    count: u64,
    at_ms: u64,
    source_port: u16,
    /// Higher than that of all that were seen before.
    turn: u64,
}

/// What was dropped lately.
#[derive(Debug, Default)]
pub(crate) struct History {
    ports: BTreeMap<u32, BTreeMap<Kind, Seen>>,
    /// Ports by how many kinds they have.
    sizes: BTreeSet<(usize, u32)>,
    total: usize,
    turn: u64,
    since_ms: u64,
    /// Drops that had been counted when listening began, and those heard of since.
    base: u64,
    heard: u64,
    lost: u64,
}

/// One history, written by one and read by others.
pub(crate) type Shared = Arc<Mutex<History>>;

/// Listens until told to stop.
pub(crate) async fn keep<K: HostKernel>(
    mut kernel: K,
    mut desired: watch::Receiver<Option<Desired>>,
    history: Shared,
    stop: CancellationToken,
) {
    let listening = async {
        loop {
            match kernel.drop_turns().await {
                Ok(Some(turns)) => {
                    let refusal = listen(turns, &mut desired, &history).await;
                    tracing::debug!(refusal, "drops are not heard of; trying again");
                }
                // Where nothing can be heard; an agent ends with the first of its parts that does.
                Ok(None) => std::future::pending::<()>().await,
                Err(refusal) => tracing::debug!(%refusal, "drops are not heard of; trying again"),
            }
            sleep(RETRY).await;
        }
    };
    stop.run_until_cancelled(listening).await;
}

/// Takes turns until that fails; why it did.
async fn listen(
    mut turns: DropTurns,
    desired: &mut watch::Receiver<Option<Desired>>,
    history: &Shared,
) -> String {
    let lock = || history.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let taken = tokio::task::spawn_blocking(move || {
            let turn = turns.take();
            (turns, turn)
        });
        let turn = match taken.await {
            Ok((again, Ok(turn))) => {
                turns = again;
                turn
            }
            Ok((_, Err(error))) => return error.to_string(),
            Err(error) => return error.to_string(),
        };
        let pause = turn.pause;
        lock().take(turn, clock_ms());
        if desired.has_changed().unwrap_or(false) {
            let ports = desired.borrow_and_update().as_ref().map(|d| numbers(&d.holding));
            ports.into_iter().for_each(|ports| lock().retain(&ports));
        }
        sleep(pause).await;
    }
}

/// The numbers of the ports of a host.
fn numbers(holding: &Holding) -> BTreeSet<u32> {
    trace::of_table(holding, Table::Port)
        .filter_map(|object| match object {
            Object::Port(port) => Some(port.number),
            _ => None,
        })
        .collect()
}

/// The wall clock, in milliseconds since 1970.
fn clock_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl History {
    /// Takes what was heard in a turn.
    fn take(&mut self, turn: Turn, now_ms: u64) {
        if self.since_ms == 0 {
            (self.since_ms, self.base) = (now_ms, turn.counted);
        }
        self.heard += turn.frames.len() as u64;
        let missed = turn.counted.saturating_sub(self.base).saturating_sub(self.heard);
        self.lost = self.lost.max(missed);
        for frame in turn.frames.iter().filter(|frame| frame.frame.port != 0) {
            let ago_ms = turn.now_ns.saturating_sub(frame.frame.time_ns) / 1_000_000;
            self.note(&frame.frame, frame.is_from_port, now_ms.saturating_sub(ago_ms));
        }
    }

    fn note(&mut self, frame: &DroppedFrame, is_from_port: bool, at_ms: u64) {
        let said = headers::read(&frame.header);
        let headers = Headers { source_port: 0, ..said };
        let kind = Kind { is_from_port, reason: frame.reason, rule: frame.rule, headers };
        self.turn += 1;
        let new = Seen { count: 1, at_ms, source_port: said.source_port, turn: self.turn };
        if let Some(seen) = self.ports.get_mut(&frame.port).and_then(|of| of.get_mut(&kind)) {
            *seen = Seen { count: seen.count + 1, ..new };
            return;
        }
        let has = self.ports.get(&frame.port).map_or(0, BTreeMap::len);
        if has >= KINDS_OF_PORT {
            self.forget_oldest(frame.port);
        } else if self.total >= KINDS_MAX
            && let Some((_, port)) = self.sizes.last().copied()
        {
            self.forget_oldest(port);
        }
        self.change(frame.port, |kinds| {
            kinds.insert(kind, new);
        });
    }

    fn forget_oldest(&mut self, port: u32) {
        self.change(port, |kinds| {
            let oldest = kinds.iter().min_by_key(|(_, seen)| seen.turn).map(|(kind, _)| *kind);
            oldest.into_iter().for_each(|kind| {
                kinds.remove(&kind);
            });
        });
    }

    /// Changes the kinds of a port, and what is known of their number.
    fn change(&mut self, port: u32, change: impl FnOnce(&mut BTreeMap<Kind, Seen>)) {
        let kinds = self.ports.entry(port).or_default();
        let before = kinds.len();
        change(kinds);
        let after = kinds.len();
        if after == 0 {
            self.ports.remove(&port);
        }
        self.sizes.remove(&(before, port));
        if after > 0 {
            self.sizes.insert((after, port));
        }
        self.total = self.total + after - before;
    }

    /// Forgets all but these ports.
    fn retain(&mut self, ports: &BTreeSet<u32>) {
        let gone: Vec<u32> =
            self.ports.keys().filter(|port| !ports.contains(port)).copied().collect();
        gone.into_iter().for_each(|port| self.change(port, BTreeMap::clear));
    }

    /// The newest drops of a port, the newest last; it has counted so many.
    pub(crate) fn tell(&self, holding: &Holding, port: &Port, most: u32, counted: u64) -> Drops {
        let most = usize::try_from(most.min(DROPS_TOLD_MAX)).unwrap_or(usize::MAX);
        let kinds = self.ports.get(&port.number).into_iter().flatten();
        let mut kinds: Vec<(&Kind, &Seen)> = kinds.collect();
        kinds.sort_unstable_by_key(|(_, seen)| seen.turn);
        let newest = kinds.len().saturating_sub(most);
        let frames = kinds.drain(newest..).map(|(kind, seen)| told(holding, port, kind, seen));
        Drops { frames: frames.collect(), counted, lost: self.lost, since_ms: self.since_ms }
    }
}

fn told(holding: &Holding, port: &Port, kind: &Kind, seen: &Seen) -> DropSeen {
    let headers = Headers { source_port: seen.source_port, ..kind.headers };
    let info = DropReason::ALL.iter().find(|info| Some(info.reason) == kind.reason);
    let (rule, group) = rule_numbered(holding, port, kind.rule).unzip();
    let ip = headers.protocol.is_some();
    DropSeen {
        at_ms: seen.at_ms,
        count: seen.count,
        reason: info.map_or("unknown", |info| info.name).to_owned(),
        meaning: info.map_or("Another release's reason.", |info| info.doc.trim()).to_owned(),
        is_from_port: kind.is_from_port,
        what: headers.words(),
        rule,
        group,
        source: headers.source.filter(|_| ip),
        destination: headers.destination.filter(|_| ip),
        protocol: headers.protocol,
        source_port: headers.source_port,
        port_or_type: headers.port_or_type,
    }
}

/// The rule with this number among those of the port's groups, and its group.
fn rule_numbered(holding: &Holding, port: &Port, number: u32) -> Option<(uuid::Uuid, uuid::Uuid)> {
    if number == 0 {
        return None;
    }
    let groups = port.policy.iter().flat_map(|policy| &policy.groups);
    let key = |uuid| ObjectKey { table: Table::SecurityGroup, uuid };
    groups.into_iter().find_map(|uuid| match holding.get(&key(*uuid)) {
        Some(Object::SecurityGroup(group)) => {
            let rule = group.rules.iter().find(|rule| rule.number == number)?;
            Some((rule.uuid, group.uuid))
        }
        _ => None,
    })
}

#[cfg(test)]
#[path = "drops/tests.rs"]
mod tests;
