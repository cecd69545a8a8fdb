//! What the flow log says: from events of the programs to lines. Pure; the time is told.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use imbl::ordmap::DiffItem;
use model::Timestamp;
use packet::{Addr, Direction, DropReason, FlowEvent};
use serde::Serialize;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Object, ObjectKey, Table},
    policy::Rule,
};

/// Lines of one NIC in a second, beside one that says how many more there would have been. It may have as
/// many at once.
const LINES_PER_SECOND: u64 = 100;

/// Different events that wait to be written. With one more all are.
const WAITING_MAX: usize = 8_192;

/// What time it is: for people, and on the clock of events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Timestamp,
    pub(crate) now_ns: u64,
}

impl Clock {
    /// The time of an event as people write it (RFC 3339).
    fn at(&self, time_ns: u64) -> String {
        let ago_ms = self.now_ns.saturating_sub(time_ns) / 1_000_000;
        let ago_ms = i64::try_from(ago_ms).unwrap_or(i64::MAX);
        Timestamp(self.now.0.saturating_sub(ago_ms)).rfc3339()
    }
}

/// The ports that have a log, and what they have told.
#[derive(Debug, Default)]
pub(crate) struct Book {
    holding: Arc<Holding>,
    /// By number.
    tellers: HashMap<u32, Teller>,
    waiting: BTreeMap<Kept, Times>,
}

/// A port that has a log.
#[derive(Debug)]
struct Teller {
    nic: Uuid,
    /// Lines that it may have, in billionths of a second that they take.
    credit_ns: u64,
    at_ns: u64,
    suppressed: u64,
}

/// What makes an event the same as another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    port: u32,
    direction: u8,
    reason: u32,
    rule: u32,
    protocol: u8,
    local: (Addr, u16),
    remote: (Addr, u16),
}

/// When it came first, and how often.
#[derive(Clone, Copy, Debug)]
struct Times {
    first_ns: u64,
    count: u64,
}

/// A line about a connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    time: String,
    nic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    direction: &'static str,
    protocol: u8,
    source: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<u16>,
    destination: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<u16>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    count: u64,
}

/// A line about lines that a NIC had too many of.
#[derive(Debug, Serialize)]
struct Suppressed {
    time: String,
    nic: String,
    suppressed: u64,
}

/// A line about lines that could not be written.
#[derive(Debug, Serialize)]
struct Lost {
    time: String,
    lost: u64,
}

impl Book {
    /// Takes up what the host holds.
    pub(crate) fn follow(&mut self, holding: Arc<Holding>) {
        let before = std::mem::replace(&mut self.holding, holding);
        let after = Arc::clone(&self.holding);
        for item in before.objects().diff(after.objects()) {
            let (old, new) = match &item {
                DiffItem::Add(_, new) => (None, Some(*new)),
                DiffItem::Update { old: (_, old), new: (_, new) } => (Some(*old), Some(*new)),
                DiffItem::Remove(_, old) => (Some(*old), None),
            };
            let teller = |object: &Object| match object {
                Object::Port(port) if port.flow_log.is_some() => Some((port.number, port.uuid)),
                _ => None,
            };
            let [old, new] = [old, new].map(|object| object.and_then(|object| teller(object)));
            if old != new {
                old.map(|(number, _)| self.tellers.remove(&number));
                new.map(|(number, nic)| self.tellers.insert(number, Teller::new(nic)));
            }
        }
    }

    /// Notes an event. One of a port that has no log any more counts no longer.
    pub(crate) fn note(&mut self, event: &FlowEvent) {
        let Some(teller) = self.tellers.get_mut(&event.port) else { return };
        teller.suppressed = teller.suppressed.saturating_add(event.missed.into());
        let kept = Kept {
            port: event.port,
            direction: event.direction,
            reason: event.reason,
            rule: event.rule,
            protocol: event.protocol,
            local: (event.local, event.local_port),
            remote: (event.remote, event.remote_port),
        };
        let times = self.waiting.entry(kept);
        times.or_insert(Times { first_ns: event.time_ns, count: 0 }).count += 1;
    }

    /// Whether there is anything to be written.
    pub(crate) fn has_any(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether it has to be written at once.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// Takes what is to be written, in the order in which it came.
    pub(crate) fn lines(&mut self, clock: &Clock) -> Vec<String> {
        let mut waiting: Vec<_> = std::mem::take(&mut self.waiting).into_iter().collect();
        waiting.sort_by_key(|(_, times)| times.first_ns);
        let mut lines = Vec::new();
        for (kept, times) in waiting {
            let Some(teller) = self.tellers.get_mut(&kept.port) else { continue };
            if teller.may(clock.now_ns) {
                lines.extend(self.line(&kept, times, clock));
            } else {
                teller.suppressed = teller.suppressed.saturating_add(times.count);
            }
        }
        let over = self.tellers.values_mut().filter(|teller| teller.suppressed > 0);
        lines.extend(over.filter_map(|teller| {
            let suppressed = std::mem::take(&mut teller.suppressed);
            let (time, nic) = (clock.now.rfc3339(), teller.nic.simple().to_string());
            serde_json::to_string(&Suppressed { time, nic, suppressed }).ok()
        }));
        lines
    }

    fn line(&self, kept: &Kept, times: Times, clock: &Clock) -> Option<String> {
        let nic = self.tellers.get(&kept.port)?.nic;
        let Some(Object::Port(port)) =
            self.holding.get(&ObjectKey { table: Table::Port, uuid: nic })
        else {
            return None;
        };
        let is_out = kept.direction == Direction::FromPort as u8;
        let has_ports = [6, 17].contains(&kept.protocol);
        let [from, to] = if is_out { [kept.local, kept.remote] } else { [kept.remote, kept.local] };
        let l4 = |(_, port): (Addr, u16)| has_ports.then_some(port);
        let groups = port.policy.iter().flat_map(|policy| &policy.groups);
        let rule = groups.filter(|_| kept.rule != 0).find_map(|group| self.rule(*group, kept.rule));
        let line = Line {
            time: clock.at(times.first_ns),
            nic: nic.simple().to_string(),
            instance: port.instance.map(|instance| instance.simple().to_string()),
            direction: if is_out { "egress" } else { "ingress" },
            protocol: kept.protocol,
            source: from.0.into(),
            source_port: l4(from),
            destination: to.0.into(),
            destination_port: l4(to),
            verdict: if kept.reason == 0 { "new" } else { "denied" },
            reason: DropReason::from_number(kept.reason).map(DropReason::name),
            rule: rule.map(|(rule, _)| rule.uuid.simple().to_string()),
            group: rule.map(|(_, group)| group.simple().to_string()),
            count: times.count,
        };
        serde_json::to_string(&line).ok()
    }

    /// A rule of a group that the host has, by its number.
    fn rule(&self, group: Uuid, number: u32) -> Option<(&Rule, Uuid)> {
        match self.holding.get(&ObjectKey { table: Table::SecurityGroup, uuid: group }) {
            Some(Object::SecurityGroup(found)) => {
                let rule = found.rules.iter().find(|rule| rule.number == number)?;
                Some((rule, group))
            }
            _ => None,
        }
    }
}

impl Teller {
    const fn new(nic: Uuid) -> Self {
        Self { nic, credit_ns: SECOND_NS, at_ns: 0, suppressed: 0 }
    }

    /// Whether it may have one more line: a bucket of tokens, which fills up with time.
    fn may(&mut self, now_ns: u64) -> bool {
        const EACH_NS: u64 = SECOND_NS / LINES_PER_SECOND;
        let since = now_ns.saturating_sub(self.at_ns);
        self.at_ns = self.at_ns.max(now_ns);
        self.credit_ns = self.credit_ns.saturating_add(since).min(SECOND_NS);
        match self.credit_ns.checked_sub(EACH_NS) {
            Some(left) => {
                self.credit_ns = left;
                true
            }
            None => false,
        }
    }
}

/// A second, in nanoseconds.
const SECOND_NS: u64 = 1_000_000_000;

/// A line that says that so many were not written.
pub(crate) fn lost(lost: u64, clock: &Clock) -> String {
    let line = Lost { time: clock.now.rfc3339(), lost };
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests;
