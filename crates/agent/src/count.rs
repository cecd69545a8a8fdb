//! Counts the connections of the ports, now and then, for whoever wants to know how much room they
//! have left. Beside all else: it reads every bucket of the table that a port may use.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::{
    message::Connections,
    object::{Object, ObjectKey, Table},
};

use crate::{
    kernel::{Counted, HostKernel},
    state::Desired,
};

/// How much more time passes between two counts than one takes: half a hundredth of a CPU.
const SHARE: u32 = 200;

/// Bounds of the time between two counts.
const EVERY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(600)];

/// Counts until told to stop.
pub(crate) async fn keep<K: HostKernel>(
    mut kernel: K,
    mut wanted: watch::Receiver<Option<Desired>>,
    counted: watch::Sender<Option<Connections>>,
    stop: CancellationToken,
) {
    let counting = async {
        // Without ports that have names there is nothing to tell.
        if wanted.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            let begin = Instant::now();
            match kernel.connections().await {
                Ok(found) => {
                    let desired = wanted.borrow().clone();
                    let named = desired.map(|desired| named(found, &desired));
                    counted.send_if_modified(|known| {
                        let is_new = *known != named;
                        *known = named;
                        is_new
                    });
                }
                Err(refusal) => tracing::debug!(%refusal, "connections are not counted"),
            }
            let [least, most] = EVERY;
            sleep((begin.elapsed() * SHARE).clamp(least, most)).await;
        }
    };
    stop.run_until_cancelled(counting).await;
}

/// By the uuids of the ports that are wanted.
fn named(counted: Counted, desired: &Desired) -> Connections {
    let [first, last] =
        [Uuid::nil(), Uuid::max()].map(|uuid| ObjectKey { table: Table::Port, uuid });
    let ports = desired.holding.objects().range(first..=last);
    let ports = ports.filter_map(|(_, object)| match &**object {
        Object::Port(port) => Some((port.uuid, *counted.ports.get(&port.number)?)),
        _ => None,
    });
    Connections { sure: counted.sure, ports: ports.collect() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sample;

    #[test]
    fn wanted_ports_are_counted_by_their_uuid() {
        let counted = Counted { sure: 512, ports: [(5, 3), (77, 9)].into() };
        let holding = Arc::new(sample::two_networks());
        let desired = Desired { revision: 1, lineage: None, holding };
        let ports = [(sample::uuid(sample::PORT_A), 3)].into();
        assert_eq!(named(counted, &desired), Connections { sure: 512, ports });
    }
}
