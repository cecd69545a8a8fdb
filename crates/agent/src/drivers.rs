//! Which drivers cannot run instances here, for the server: it places instances where they can run.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::watch, time::interval};
use tokio_util::sync::CancellationToken;

use crate::kernel::HostKernel;

/// How often it is looked: somebody may install what is missing.
const EVERY: Duration = Duration::from_secs(10);

/// Tells which there are until told to stop.
pub(crate) async fn keep<K: HostKernel>(
    kernel: K,
    told: watch::Sender<Option<BTreeMap<String, String>>>,
    stop: CancellationToken,
) {
    let mut tick = interval(EVERY);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        // A few looks at directories.
        let found = Some(kernel.unable());
        told.send_if_modified(|known| {
            let is_new = *known != found;
            *known = found;
            is_new
        });
    }
}
