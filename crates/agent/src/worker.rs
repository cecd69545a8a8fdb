//! Repeats passes: after each change of what is wanted, now and then, and soon after a failure.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use wire::digest::TableDigests;

use crate::{
    backoff::Backoff,
    converge::{Converger, Outcome},
    kernel::HostKernel,
    state::{Desired, StateFile},
};

/// How often the host is looked over when nothing has changed.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What was achieved last.
#[derive(Clone, Debug)]
pub(crate) struct Achieved {
    /// The revision whose objects were applied.
    pub(crate) revision: u64,
    /// The digests of these objects.
    pub(crate) digests: TableDigests,
    pub(crate) outcome: Outcome,
}

/// Works until told to stop; a pass that is under way is finished.
pub(crate) async fn work<K: HostKernel>(
    mut converger: Converger<K>,
    mut file: StateFile,
    mut wanted: watch::Receiver<Option<Desired>>,
    achieved: watch::Sender<Option<Achieved>>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let desired = wanted.borrow_and_update().clone();
        let mut wait = LOOK_EVERY;
        // Without a known desired state nothing is touched.
        if let Some(desired) = desired {
            let unsaved = save(&mut file, &desired).await;
            let mut outcome = converger.pass(&desired.holding).await;
            if let Some(reason) = unsaved {
                outcome.processed = false;
                outcome.trouble.push(reason);
            }
            match outcome.is_clean() {
                true => backoff.reset(),
                false => wait = backoff.next(),
            }
            let (revision, digests) = (desired.revision, desired.holding.digests());
            achieved.send_replace(Some(Achieved { revision, digests, outcome }));
        }
        match stop.run_until_cancelled(timeout(wait, wanted.changed())).await {
            // Changed, or it is time.
            Some(Ok(Ok(())) | Err(_)) => {}
            // Told to stop, or nobody is left to want anything.
            None | Some(Ok(Err(_))) => return,
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
