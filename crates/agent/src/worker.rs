//! Repeats passes: after each change of what is wanted, now and then, and soon after a failure.

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field::Empty};
use wire::digest::TableDigests;

use crate::{
    backoff::Backoff,
    converge::{Calm, Cause, Converger, Outcome},
    handover::Told,
    kernel::HostKernel,
    state::{Desired, StateFile},
};

/// An audit: it costs a thousandth of a CPU.
const AUDIT: Pace = Pace::new(1_000, Duration::from_secs(1), Duration::from_secs(300));

/// Reading the maps, of which the kernel brings no news.
const MAPS: Pace = Pace::new(100, Duration::from_millis(500), Duration::from_secs(300));

/// Looking at pins and programs.
const PROBE: Pace = Pace::new(50, Duration::from_millis(250), Duration::from_secs(5));

/// How much more time passes between two looks at devices, after news, than one takes.
const LOOK_SHARE: u32 = 20;

/// How long news of devices are collected: one change brings several.
const NEWS_PAUSE: Duration = Duration::from_millis(10);

/// How often it is looked whether NICs that move here have come. Their frames do not wait for that.
const MOVES: Duration = Duration::from_millis(20);

/// How long the driver may take before the server is told that it is at work.
const PATIENCE: Duration = Duration::from_millis(100);

/// When something is due again that is done now and then.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How much more time passes between two times than one takes.
    share: u32,
    least: Duration,
    most: Duration,
    /// When it is due; `None`: at once.
    due: Option<Instant>,
}

impl Pace {
    const fn new(share: u32, least: Duration, most: Duration) -> Self {
        Self { share, least, most, due: None }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// It was done from `begin` to `end`.
    fn done(&mut self, begin: Instant, end: Instant) {
        self.due = Some(end + ((end - begin) * self.share).clamp(self.least, self.most));
    }
}

/// How long nobody must have waited for the driver before it does what can wait.
const CALM_AFTER: Duration = Duration::from_millis(50);

/// What was achieved last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Achieved {
    /// The revision whose objects were applied.
    pub(crate) revision: u64,
    /// The digests of these objects.
    pub(crate) digests: TableDigests,
    pub(crate) outcome: Outcome,
}

/// What passes are done for, beside what time brings.
pub(crate) struct News {
    /// What is wanted.
    pub(crate) wanted: watch::Receiver<Option<Desired>>,
    /// What is known of moves.
    pub(crate) moves: watch::Receiver<Told>,
    /// What troubles the flow log.
    pub(crate) troubles: watch::Receiver<Option<String>>,
}

/// Works until told to stop; what is under way is finished.
pub(crate) async fn work<K: HostKernel>(
    converger: Converger<K>,
    file: StateFile,
    News { mut wanted, mut moves, mut troubles }: News,
    achieved: watch::Sender<Option<Achieved>>,
    stop: CancellationToken,
) {
    let (mut host, mut gate) = (converger.kernel(), converger.kernel());
    let mut worker = Worker::new(converger, file, achieved);
    worker.troubles = Some(troubles.clone());
    let mut cause = Cause::Due;
    let mut tick = interval(MOVES);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        let desired = wanted.borrow_and_update().clone();
        // Without a known desired state nothing is touched.
        let next = match &desired {
            Some(desired) => worker.pass(desired, cause).await,
            None => {
                worker.look = None;
                Instant::now() + AUDIT.most
            }
        };
        let awaited = worker.converger.awaited_moves();
        cause = loop {
            tokio::select! {
                () = stop.cancelled() => break Cause::Due,
                changed = wanted.changed() => match changed {
                    Ok(()) => {
                        worker.told = None;
                        break Cause::Due;
                    }
                    // Nobody is left to want anything.
                    Err(_) => {
                        worker.finish().await;
                        return;
                    }
                },
                () = worker.converger.driver() => break Cause::Driver,
                () = arrival(&mut gate, &awaited, &mut tick) => break Cause::Driver,
                Ok(()) = moves.changed() => {
                    worker.told = None;
                    break Cause::Driver;
                }
                Ok(()) = troubles.changed() => {
                    worker.told = None;
                    break Cause::Driver;
                }
                interface = host.news() => worker.hear(interface),
                () = sleep_until(next.min(worker.look.unwrap_or(next))) => {
                    break worker.cause_now();
                }
            }
        };
    }
    worker.finish().await;
}

/// Waits until a NIC has come that moves here. Dropping it loses nothing.
async fn arrival<K: HostKernel>(host: &mut K, moves: &BTreeSet<u32>, tick: &mut Interval) {
    if moves.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tick.tick().await;
        if host.arrived(moves).await.is_ok_and(|arrived| !arrived.is_empty()) {
            return;
        }
    }
}

struct Worker<K> {
    converger: Converger<K>,
    file: StateFile,
    achieved: watch::Sender<Option<Achieved>>,
    /// What was told last; `None` when something else is wanted by now.
    told: Option<Achieved>,
    backoff: Backoff,
    /// When to try again what failed.
    retry: Option<Instant>,
    audit: Pace,
    maps: Pace,
    probe: Pace,
    /// When to look at devices, after news.
    look: Option<Instant>,
    /// When that was done last, and how long it took.
    looked: (Instant, Duration),
    /// Since when somebody waits for the driver, and when that was so last.
    busy: Option<Instant>,
    awaited: Instant,
    /// What troubles others, which passes tell.
    troubles: Option<watch::Receiver<Option<String>>>,
}

impl<K: HostKernel> Worker<K> {
    fn new(
        converger: Converger<K>,
        file: StateFile,
        achieved: watch::Sender<Option<Achieved>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            converger,
            file,
            achieved,
            told: None,
            backoff: Backoff::default(),
            retry: None,
            audit: AUDIT,
            maps: MAPS,
            probe: PROBE,
            look: None,
            looked: (now, Duration::ZERO),
            busy: None,
            awaited: now,
            troubles: None,
        }
    }

    /// Does one pass, tells what became of it, and says when the next one is due.
    async fn pass(&mut self, desired: &Desired, cause: Cause) -> Instant {
        let revision = desired.revision;
        let span = tracing::info_span!(
            target: model::TRACES, "pass", revision, ?cause, processed = Empty, failed = Empty
        );
        self.passed(desired, cause, &span).instrument(span.clone()).await
    }

    async fn passed(&mut self, desired: &Desired, cause: Cause, span: &Span) -> Instant {
        let begin = Instant::now();
        let is_audit = self.audit.is_due(begin);
        let is_look = self.look.is_some_and(|look| begin >= look);
        self.doubt(begin, is_audit, is_look).await;
        let unsaved = save(&mut self.file, desired).await;
        let mut outcome = self.converger.pass(&desired.holding, cause).await;
        let failed = unsaved.is_some() || !outcome.processed;
        if let Some(reason) = unsaved {
            outcome.processed = false;
            outcome.trouble.push(reason);
        }
        let others = self.troubles.as_ref().and_then(|told| told.borrow().clone());
        outcome.trouble.extend(others);
        span.record("processed", outcome.processed).record("failed", outcome.failed.len());
        let now = Instant::now();
        if is_audit || is_look {
            (self.look, self.looked) = (None, (now, now - begin));
        }
        if cause == Cause::Driver && self.converger.has_suspects() {
            self.look_soon();
        }
        if is_audit {
            self.audit.done(begin, now);
        }
        self.retry = match failed || self.converger.has_failed() {
            false => {
                self.backoff.reset();
                None
            }
            // What the driver does in between is no reason to wait longer.
            true if cause == Cause::Driver && self.retry.is_some() => self.retry,
            true => Some(now + self.backoff.next()),
        };
        let paces = [self.audit, self.maps, self.probe].map(|pace| pace.due);
        let soon = paces.into_iter().chain([self.retry]).flatten().min().unwrap_or(now);
        if self.busy.is_some() || self.converger.is_awaited() {
            self.awaited = now;
        }
        self.busy = self.converger.is_awaited().then(|| self.busy.unwrap_or(begin));
        let soon = self.chore(now).map_or(soon, |then| then.min(soon));
        match self.busy.map(|since| since + PATIENCE) {
            Some(patient) if now < patient => return soon.min(patient),
            _ => self.tell(desired, outcome),
        }
        soon
    }

    /// Says what of the host is to be looked at again.
    async fn doubt(&mut self, begin: Instant, is_audit: bool, is_look: bool) {
        if is_audit {
            return self.converger.doubt();
        }
        if self.maps.is_due(begin) {
            self.converger.mend_maps().await;
            self.maps.done(begin, Instant::now());
        }
        if is_look {
            self.converger.look().await;
        } else if self.probe.is_due(begin) {
            let begin = Instant::now();
            self.converger.probe().await;
            self.probe.done(begin, Instant::now());
        }
    }

    /// Lets the driver do what can wait, or says when it may.
    fn chore(&mut self, now: Instant) -> Option<Instant> {
        let then = self.awaited + CALM_AFTER;
        let calm = if self.busy.is_none() && now >= then { Calm::Still } else { Calm::Lively };
        self.converger.start_chore(calm);
        // While somebody waits, the end of that is waited for.
        (self.busy.is_none() && self.converger.has_chores()).then_some(then)
    }

    /// A device may have changed: it is looked at soon, but not all the time.
    fn hear(&mut self, interface: Option<u32>) {
        if self.converger.suspect(interface) {
            self.look_soon();
        }
    }

    fn look_soon(&mut self) {
        let (looked, took) = self.looked;
        let soon = (Instant::now() + NEWS_PAUSE).max(looked + took * LOOK_SHARE);
        self.look.get_or_insert(soon);
    }

    /// Lets the driver end what it is at.
    async fn finish(&mut self) {
        while self.converger.is_busy() {
            self.converger.driver().await;
        }
    }

    /// Whether it is time to try again what failed.
    fn cause_now(&self) -> Cause {
        match self.retry {
            Some(retry) if retry > Instant::now() => Cause::Driver,
            _ => Cause::Due,
        }
    }

    /// Tells it, unless it was told.
    fn tell(&mut self, desired: &Desired, outcome: Outcome) {
        let (revision, digests) = (desired.revision, desired.holding.digests());
        let achieved = Achieved { revision, digests, outcome };
        if self.told.as_ref() == Some(&achieved) {
            return;
        }
        log(self.achieved.borrow().as_ref(), &achieved);
        self.told = Some(achieved.clone());
        self.achieved.send_replace(Some(achieved));
    }
}

/// Says what is not in effect and what troubles the host, unless it was said already.
fn log(before: Option<&Achieved>, now: &Achieved) {
    for (uuid, reason) in &now.outcome.failed {
        if before.and_then(|before| before.outcome.failed.get(uuid)) != Some(reason) {
            tracing::warn!(uuid = %uuid.simple(), reason, "not in effect");
        }
    }
    for trouble in &now.outcome.trouble {
        if before.is_none_or(|before| !before.outcome.trouble.contains(trouble)) {
            tracing::warn!(trouble, "the host is in trouble; trying again");
        }
    }
}

/// Makes the state durable before it is applied; says why that failed. It is applied nevertheless:
/// what must go must go even if the disk is full.
async fn save(file: &mut StateFile, desired: &Desired) -> Option<String> {
    // Writing takes milliseconds and nothing else runs in this task.
    let saved = tokio::task::block_in_place(|| file.save(desired));
    let error = saved.err()?;
    tracing::warn!(%error, revision = desired.revision, "the desired state cannot be saved");
    Some(format!("the desired state cannot be saved: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;
    use crate::{memory::Memory, sample};

    /// Counts passes: how many began, and how many told what became of them.
    #[derive(Clone, Default)]
    struct Passes(Arc<(AtomicUsize, AtomicUsize)>);

    impl Subscriber for Passes {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.is_span() && metadata.target() == model::TRACES
        }

        fn new_span(&self, new: &span::Attributes<'_>) -> span::Id {
            assert_eq!(new.metadata().name(), "pass");
            self.0.0.fetch_add(1, Ordering::Relaxed);
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, values: &span::Record<'_>) {
            let name = |name: &str| format!("{values:?}").contains(name);
            if name("processed: true") {
                self.0.1.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &Event<'_>) {}

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pass_is_a_span_that_says_what_became_of_it() {
        let (directory, passes) = (tempfile::tempdir().unwrap(), Passes::default());
        let (file, _) = StateFile::open(directory.path()).unwrap();
        let (achieved, _told) = watch::channel(None);
        let mut worker = Worker::new(Converger::new(Memory::default()), file, achieved);
        let holding = Arc::new(sample::two_networks());
        let desired = Desired { revision: 7, lineage: None, holding };
        let _heard = tracing::subscriber::set_default(passes.clone());
        worker.pass(&desired, Cause::Due).await;
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        assert_eq!((count(&passes.0.0), count(&passes.0.1)), (1, 1));
    }
}
