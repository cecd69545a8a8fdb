//! One host: what it must hold, what it was sent, what it has confirmed.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use compile::HostDelta;
use imbl::OrdMap;
use model::{
    Id, Timestamp,
    resource::host::Host,
    status::{Clocks, HostDevice, HostStatus, Pending},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::{
    counters::Counters,
    digest::{SetDigest, TableDigests},
    holding::Holding,
    leases::LeaseSeen,
    message::{Connections, Heartbeat, Hello, Report},
    object::{ObjectKey, Table},
    paths::Paths,
    shared::Shared,
    versions::Versions,
};

use super::{
    LINGERING_MAX, News, Origin, PENDING_MAX, SENT_MAX,
    history::{Entry, History},
    outgoing::{Content, Outgoing},
    runs::Runs,
    shown,
};

pub(super) struct HostFeed {
    /// What the host is to hold, as far as its agent can.
    holding: Holding,
    /// Objects that the agent is too old to hold.
    pub(super) withheld: OrdMap<ObjectKey, Shared>,
    /// What its agent knows; until one connects, all that this release does.
    versions: Versions,
    pub(super) history: History,
    /// What the host has confirmed.
    pub(super) status: HostStatus,
    /// It was told something since the server started.
    told: bool,
    runs: Runs,
    pub(super) session: Option<Session>,
}

/// A host's open stream. At most one for each host.
pub(super) struct Session {
    pub(super) number: u64,
    /// The first change that was not sent. `None`: the host needs a snapshot.
    next: Option<u64>,
    /// What the host was told before it connected: the server's lineage, and the store's revision.
    seen: (Option<Uuid>, u64),
    /// Something was sent, so the agent knows at which revision it is.
    greeted: bool,
    /// A snapshot was sent because the host held other objects than those that it was sent.
    mended: bool,
    sent: VecDeque<Sent>,
    /// SHA-256 of the client certificate, hex.
    pub(super) certificate: String,
    pub(super) wake: Arc<Notify>,
    pub(super) over: CancellationToken,
}

/// A state that the host was brought to, or is on the way to.
struct Sent {
    revision: u64,
    digests: TableDigests,
    kernel: SetDigest,
}

impl Default for HostFeed {
    fn default() -> Self {
        Self {
            holding: Holding::default(),
            withheld: OrdMap::new(),
            versions: Versions::own(),
            history: History::default(),
            status: HostStatus::default(),
            told: false,
            runs: Runs::default(),
            session: None,
        }
    }
}

impl Session {
    pub(super) fn new(
        number: u64,
        certificate: String,
        wake: Arc<Notify>,
        over: CancellationToken,
    ) -> Self {
        let (next, seen, sent) = (None, (None, 0), VecDeque::new());
        let (greeted, mended) = (false, false);
        Self { number, next, seen, greeted, mended, sent, certificate, wake, over }
    }
}

impl HostFeed {
    /// Takes what the host is to hold when the server starts. It is not known whether an earlier
    /// run of the server told the host all of it; the host says so itself.
    pub(super) fn load(&mut self, host: Id<Host>, revision: u64, holding: Holding) {
        self.holding = holding;
        // This also clears the history: a session that was open before had nothing to compare with.
        self.divide(host, revision, self.versions);
    }

    /// How `next`, which the host is to hold, differs from what it was to hold until now.
    pub(super) fn difference(&self, next: &Holding) -> HostDelta {
        let known = self.holding.objects().keys().chain(self.withheld.keys());
        let mut removes: Vec<_> = known.filter(|key| next.get(key).is_none()).copied().collect();
        removes.sort_unstable_by(|a, b| b.cmp(a));
        let known = |object: &Shared| {
            let key = object.key();
            let known = self.holding.objects().get(&key).or_else(|| self.withheld.get(&key));
            known == Some(object)
        };
        let upserts = next.objects().values().filter(|object| !known(object)).cloned().collect();
        HostDelta { upserts, removes }
    }

    /// Takes a change that `revision` makes.
    pub(super) fn change(&mut self, host: Id<Host>, revision: u64, delta: HostDelta) {
        let before = self.holding.digests();
        let delta = self.hold(host, delta);
        let removed = delta.removes.iter().map(|key| key.uuid);
        let changed: Vec<_> = removed.chain(delta.upserts.iter().map(|o| o.key().uuid)).collect();
        if changed.is_empty() {
            return;
        }
        changed.into_iter().for_each(|object| self.expect(host, object, revision));
        self.history.push(Entry { before, delta });
        if let Some(session) = &self.session {
            session.wake.notify_one();
        }
    }

    /// Changes what the host is to hold, and gives how as far as its agent can hold it.
    fn hold(&mut self, host: Id<Host>, delta: HostDelta) -> HostDelta {
        let HostDelta { upserts, mut removes } = delta;
        for key in &removes {
            self.withhold_no_more(host, key);
        }
        let (upserts, too_new): (Vec<_>, Vec<_>) =
            upserts.into_iter().partition(|object| self.versions.can_hold(object));
        for object in too_new {
            let key = object.key();
            if self.holding.get(&key).is_some() {
                removes.push(key);
            }
            self.withhold(host, object);
        }
        for object in &upserts {
            self.withhold_no_more(host, &object.key());
        }
        removes.retain(|key| self.holding.get(key).is_some());
        removes.iter().for_each(|key| self.holding.remove(key));
        upserts.iter().for_each(|object| self.holding.upsert(object.clone()));
        HostDelta { upserts, removes }
    }

    /// An object has changed: the host has to confirm it.
    fn expect(&mut self, host: Id<Host>, object: Uuid, revision: u64) {
        let since = self.status.pending.get(&object).map_or(revision, |known| known.since);
        self.status.pending.insert(object, Pending { since, last: revision });
        if self.status.pending.len() > PENDING_MAX {
            tracing::info!(%host, revision, "the host has confirmed too little for too long; \
                what it holds is known again once it confirms all of it");
            self.status.pending = OrdMap::new();
            (self.status.confirmed, self.status.forgot) = (false, revision);
        }
    }

    pub(super) fn withhold(&mut self, host: Id<Host>, object: Shared) {
        let key = object.key();
        self.withheld.insert(key, object);
        self.tell_withheld(host, key.uuid);
    }

    fn withhold_no_more(&mut self, host: Id<Host>, key: &ObjectKey) {
        if self.withheld.remove(key).is_some() {
            self.tell_withheld(host, key.uuid);
        }
    }

    /// Several objects may be made from one resource, such as a NIC's port and what it is as a member: people
    /// are told of the first that is withheld.
    fn tell_withheld(&mut self, host: Id<Host>, uuid: Uuid) {
        let mut keys = Table::ALL.iter().map(|table| ObjectKey { table: *table, uuid });
        let Some(key) = keys.find(|key| self.withheld.contains_key(key)) else {
            self.status.failed.remove(&uuid);
            return;
        };
        let reason = format!(
            "{} {} is newer than the agent: upgrade the agent on host {host}",
            key.table.name(),
            uuid.simple()
        );
        self.status.failed.insert(uuid, reason.into());
    }

    /// Takes a new session while the store is at `revision`.
    pub(super) fn connect(
        &mut self,
        revision: u64,
        (hello, source): (&Hello, IpAddr),
        mut session: Session,
    ) {
        if let Some([there, here]) = self.runs.connect(hello.run, source) {
            self.doubles(Id::new(hello.host), there, here);
        }
        let is_all = self.withheld.is_empty() && self.versions.can_hold_all();
        if hello.tables != self.versions && !(is_all && hello.tables.can_hold_all()) {
            self.divide(Id::new(hello.host), revision, hello.tables);
        }
        self.versions = hello.tables;
        session.next = match hello.digests == self.holding.digests() {
            true => Some(self.history.end),
            false => self.history.find(hello.digests),
        };
        session.seen = (hello.lineage, hello.revision);
        self.session = Some(session);
        self.status.connected = true;
        self.status.heard += 1;
        self.status.refused = None;
        self.status.agent = Some(shown::agent(hello));
        // Until it says so itself, nobody knows whether it answers its peers.
        self.status.paths = None;
        // The host may have rebooted: only reports on this stream count.
        self.status.agrees = false;
    }

    /// Ends the session. What it still reports does not count: the next one has to confirm that the
    /// host is there.
    pub(super) fn reconnect(&mut self, host: Id<Host>, revision: u64) {
        if let Some(session) = self.session.take() {
            session.over.cancel();
        }
        self.status.connected = false;
        self.expect(host, host.uuid(), revision);
    }

    fn doubles(&mut self, host: Id<Host>, there: IpAddr, here: IpAddr) {
        let reason = format!(
            "two agents use the identity of host {host}, lately from {there} and {here}: a copy of \
             its disk or of its agent's data runs; stop one, and enrol it as a host of its own"
        );
        if self.status.doubled.is_none() {
            tracing::error!(%host, %there, %here, "two agents use one identity");
        }
        self.status.doubled = Some(reason.into());
    }

    /// Divides all objects anew into what an agent can hold and what it cannot.
    fn divide(&mut self, host: Id<Host>, revision: u64, versions: Versions) {
        let keys: Vec<_> = self.withheld.keys().copied().collect();
        for key in keys {
            let Some(object) = self.withheld.get(&key).cloned() else { continue };
            if versions.can_hold(&object) {
                self.withhold_no_more(host, &key);
                self.holding.upsert(object);
                self.expect(host, key.uuid, revision);
            }
        }
        let too_new: Vec<_> = match versions.can_hold_all() {
            true => Vec::new(),
            false => {
                let held = self.holding.objects().values();
                held.filter(|object| !versions.can_hold(object)).cloned().collect()
            }
        };
        for object in too_new {
            self.holding.remove(&object.key());
            self.withhold(host, object);
        }
        self.history.clear();
    }

    /// Whether the host may be told what this store has. Not if it was told a later revision, or
    /// was told by another store: then this database has replaced a newer one, and what was made
    /// meanwhile would be destroyed on the host.
    pub(super) fn is_told_by(&mut self, host: Id<Host>, origin: &Origin) -> bool {
        if self.told || origin.accept_older {
            return true;
        }
        let Some(Session { seen: (Some(lineage), revision), .. }) = self.session else {
            return true;
        };
        let reason = match origin.earlier.get(&lineage) {
            _ if lineage == origin.lineage => return true,
            Some(end) if revision <= *end => return true,
            Some(end) => {
                format!(
                    "host {host} was told revision {revision}, and this database knows of {end}"
                )
            }
            None => {
                format!("host {host} was last told what to hold by a database that is not this one")
            }
        };
        if self.status.refused.is_none() {
            tracing::error!(%host, reason, "the host is told nothing, and nothing changes on it: the \
                database is older than what the host has seen, or another one");
        }
        let hint = "the host is told nothing: restore the newest database, or start the server with \
                    --accept-older-database to make the host as this one says";
        self.status.refused = Some(format!("{reason}; {hint}").into());
        false
    }

    pub(super) fn pull(&mut self, revision: u64, lineage: Uuid) -> Option<Outgoing> {
        let session = self.session.as_mut()?;
        let (end, digests) = (self.history.end, self.holding.digests());
        if session.next == Some(end) && session.greeted || session.sent.len() == SENT_MAX {
            return None;
        }
        let content = match session.next.and_then(|next| self.history.since(next)) {
            Some(changes) => Content::Changes(changes),
            None => Content::Snapshot(self.holding.objects().clone()),
        };
        let welcome = (!session.greeted).then_some(lineage);
        (session.next, session.greeted, self.told) = (Some(end), true, true);
        session.sent.push_back(Sent { revision, digests, kernel: self.holding.kernel_digest() });
        Some(Outgoing { welcome, revision, digests, content })
    }

    pub(super) fn held(&self) -> usize {
        self.holding.objects().len()
    }

    /// Takes a report; says whether something is new.
    pub(super) fn report(&mut self, host: Id<Host>, report: Report) -> bool {
        let Some(session) = &mut self.session else { return false };
        let Some(at) = session.sent.iter().rposition(|sent| sent.revision == report.revision)
        else {
            tracing::debug!(%host, revision = report.revision, "report about another stream's state");
            return false;
        };
        session.sent.drain(..at);
        // There may be room again.
        session.wake.notify_one();
        let Some(sent) = session.sent.front() else { return false };
        let told = (sent.digests, sent.kernel);
        let agreement = Some(Arc::new(shown::agreement(told, &report)));
        let is_news = agreement != self.status.agreement;
        self.status.agreement = agreement;
        if sent.digests != report.digests {
            tracing::warn!(%host, revision = report.revision, "host holds other objects");
            if session.mended {
                // A second disagreement ends the stream: a snapshot costs the server more than a
                // false report costs an agent.
                session.over.cancel();
            } else if session.sent.len() == 1 {
                (session.next, session.mended) = (None, true);
            }
            self.status.agrees = false;
            return true;
        }
        session.mended = false;
        let agrees = sent.kernel == report.kernel;
        if report.processed && !agrees && report.failed.is_empty() {
            tracing::warn!(%host, revision = report.revision, "data plane holds other facts");
        }
        self.believe(host, report, agrees) || is_news
    }

    /// Takes a heartbeat that came at `now`; says whether it says anything new.
    pub(super) fn beat(&mut self, host: Id<Host>, beat: Heartbeat, now: Timestamp) -> News {
        let Heartbeat { clock_ms, connections, devices, counters, paths, lacking, leases } = beat;
        let can_run_others = lacking.as_ref().is_some_and(|new| *new != *self.status.lacking);
        if let Some(lacking) = lacking.filter(|_| can_run_others) {
            self.status.lacking = Arc::new(lacking);
        }
        let devices: Option<Arc<[HostDevice]>> =
            devices.map(|devices| devices.into_iter().map(shown::device).collect());
        let has_moved = devices.is_some() && devices != self.status.devices;
        if has_moved {
            self.status.devices = devices;
        }
        let has_counted =
            self.count(counters, connections) | self.walk(host, paths) | self.lease(leases);
        let its = clock_ms.map(|ms| Timestamp(i64::try_from(ms).unwrap_or(i64::MAX)));
        let clock = its.and_then(|host| Clocks { host, server: now }.apart());
        let same = match (clock, self.status.clock) {
            (Some(new), Some(known)) => new.is_about(known),
            (new, known) => new == known,
        };
        if !same {
            self.status.clock = clock;
        }
        match (!same || has_moved || can_run_others, has_counted) {
            (true, _) => News::ForAll,
            (false, true) => News::ForPeople,
            (false, false) => News::None,
        }
    }

    /// Takes how the ways to a host's peers are; says whether that is anything new.
    fn walk(&mut self, host: Id<Host>, paths: Option<Paths>) -> bool {
        let Some(paths) = paths.map(shown::paths) else { return false };
        if self.status.paths.as_deref() == Some(&paths) {
            return false;
        }
        shown::log_paths(host, self.status.paths.as_deref(), &paths);
        self.status.paths = Some(Arc::new(paths));
        true
    }

    /// Takes what guests have asked; says whether that is anything new. What NICs asked that are gone is
    /// forgotten.
    fn lease(&mut self, leases: Vec<LeaseSeen>) -> bool {
        if leases.is_empty() {
            return false;
        }
        let known = std::mem::take(&mut self.status.leases).into_iter();
        let is_here = |nic: Uuid| self.holds(&[Table::Port], nic);
        let mut known: imbl::OrdMap<_, _> = known.filter(|((nic, _), _)| is_here(*nic)).collect();
        for seen in leases.into_iter().filter(|seen| is_here(seen.nic)) {
            let all: &mut Arc<[_]> = known.entry((seen.nic, seen.is_v6)).or_default();
            let kept = &all[all.len().saturating_sub(model::status::LeaseSeen::KEPT - 1)..];
            *all = kept.iter().cloned().chain([shown::lease(seen)]).collect();
        }
        self.status.leases = known;
        true
    }

    /// Takes what a host has counted; says whether it is anything new.
    fn count(&mut self, counters: Option<Counters>, connections: Option<Connections>) -> bool {
        let mut is_new = false;
        if let Some(counters) = counters.map(shown::counters)
            && self.status.counters.as_deref() != Some(&counters)
        {
            (self.status.counters, is_new) = (Some(Arc::new(counters)), true);
        }
        let Some(Connections { sure, ports }) = connections else { return is_new };
        // What a host says of ports that it was not given is ignored.
        let ports = ports.into_iter().filter(|(uuid, _)| self.holds(&[Table::Port], *uuid));
        let counted = (ports.collect(), sure);
        let known = (&mut self.status.connections, &mut self.status.connections_sure);
        is_new |= (&*known.0, *known.1) != (&counted.0, counted.1);
        (*known.0, *known.1) = counted;
        is_new
    }

    /// Takes what a host says of the state that it was sent.
    fn believe(&mut self, host: Id<Host>, report: Report, agrees: bool) -> bool {
        let Report { revision, processed, up, failed, arrived, given_up, .. } = report;
        let before = self.status.clone();
        let told = self.own_failures(host, failed);
        let processed = processed && told.is_some();
        let told = told.unwrap_or_default();
        self.status.agrees = agrees && processed;
        // What a host says of objects that it was not given is ignored.
        let runs = [Table::Instance, Table::Port];
        self.status.up = up.into_iter().filter(|uuid| self.holds(&runs, *uuid)).collect();
        // Which of them there are, and to which host, the server knows.
        self.status.arrived = arrived.into_iter().collect();
        let given_up = given_up.into_iter().map(|(number, why)| (number, Arc::from(why)));
        self.status.given_up = given_up.collect();
        if processed {
            self.settle(revision);
            self.status.failed = told;
            // A report about an older state says nothing of the pending objects that were
            // forgotten.
            self.status.confirmed |= revision >= self.status.forgot;
            self.status.heard += 1;
        } else {
            // The report confirms nothing, so earlier failures may still hold.
            self.status.failed = told.union(std::mem::take(&mut self.status.failed));
        }
        self.status != before
    }

    /// The failures in a report that are about this host or its objects, with those of withheld
    /// objects. `None` if the report names too many objects that the host was never given.
    fn own_failures(
        &self,
        host: Id<Host>,
        failed: BTreeMap<Uuid, String>,
    ) -> Option<OrdMap<Uuid, Arc<str>>> {
        let (mut own, mut strange) = (OrdMap::new(), 0);
        for (uuid, reason) in failed {
            let known = uuid == host.uuid()
                || self.holds(Table::ALL, uuid)
                || !self.status.is_settled(uuid);
            if !known {
                if self.status.confirmed {
                    continue;
                }
                strange += 1;
            }
            own.insert(uuid, Arc::from(reason));
        }
        if strange > LINGERING_MAX {
            tracing::warn!(%host, strange, "the host speaks of too much that it was never given");
            return None;
        }
        for key in self.withheld.keys() {
            if let Some(reason) = self.status.failed.get(&key.uuid) {
                own.insert(key.uuid, Arc::clone(reason));
            }
        }
        Some(own)
    }

    /// What has changed up to `revision` is confirmed.
    fn settle(&mut self, revision: u64) {
        let open = self.status.pending.iter();
        let told: Vec<_> = open
            .filter(|(_, pending)| pending.since <= revision)
            .map(|(object, pending)| (*object, pending.last))
            .collect();
        for (object, last) in told {
            match last <= revision {
                true => self.status.pending.remove(&object),
                false => self.status.pending.insert(object, Pending { since: revision + 1, last }),
            };
        }
    }

    fn holds(&self, tables: &[Table], uuid: Uuid) -> bool {
        tables.iter().any(|table| self.holding.get(&ObjectKey { table: *table, uuid }).is_some())
    }
}
