//! The interfaces that lead into physical networks, as a pass follows them.

use wire::holding::Holding;

use super::{Converger, Outcome};
use crate::{kernel::HostKernel, uplink};

impl<K: HostKernel> Converger<K> {
    /// Looks for the interfaces that lead into physical networks, before the maps say so.
    pub(super) async fn uplinks(&mut self, desired: &Holding, outcome: &mut Outcome) {
        let wanted = uplink::wanted(desired);
        if !self.known.uplinks || !self.uplinks.keys().eq(&wanted) {
            let found = self.kernel.uplinks(&wanted).await;
            self.known.uplinks = found.is_ok();
            self.uplinks = found.unwrap_or_else(|refusal| {
                wanted.into_iter().map(|name| (name, Err(refusal.clone()))).collect()
            });
        }
        for (uuid, reason) in uplink::lacking(desired, &self.uplinks) {
            outcome.failed.entry(uuid).or_insert(reason);
        }
        outcome.trouble.extend(uplink::narrow(desired, &self.uplinks));
    }
}
