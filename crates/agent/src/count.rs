//! Counts the connections of the ports, now and then, for whoever wants to know how much room they
//! have left, and reads what the programs have counted. Beside all else: it reads every bucket of
//! the table that a port may use.

use std::{collections::BTreeMap, time::Duration};

use packet::{ConntrackSize, DropReason, ReasonInfo, WAYS};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::{
    counters::{Counters, DropCount, MapFill, Traffic},
    message::Connections,
    object::{Object, ObjectKey, Table},
};

use crate::{
    kernel::{Counted, HostKernel},
    state::Desired,
    worker::Achieved,
};

/// The table of connections among the maps.
const CONNTRACK: &str = "conntrack";

/// What was counted last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Of the wanted ports.
    pub(crate) connections: Connections,
    /// Of the host.
    pub(crate) counters: Counters,
}

/// How much more time passes between two counts than one takes: half a hundredth of a CPU.
const SHARE: u32 = 200;

/// Bounds of the time between two counts.
const EVERY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(600)];

/// Counts until told to stop.
pub(crate) async fn keep<K: HostKernel>(
    mut kernel: K,
    (mut wanted, mut achieved): (
        watch::Receiver<Option<Desired>>,
        watch::Receiver<Option<Achieved>>,
    ),
    counted: watch::Sender<Option<Counts>>,
    stop: CancellationToken,
) {
    let counting = async {
        // Without ports that have names there is nothing to tell.
        if wanted.wait_for(Option::is_some).await.is_err() {
            return;
        }
        // How full the maps are is known after a pass.
        if achieved.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            let begin = Instant::now();
            match kernel.connections().await {
                Ok(found) => {
                    let desired = wanted.borrow().clone();
                    let fill = achieved.borrow().as_ref().map(|last| last.outcome.fill.clone());
                    let counts = desired.map(|desired| counts(found, fill, &desired));
                    counted.send_if_modified(|known| {
                        let is_new = *known != counts;
                        *known = counts;
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

/// What the programs have counted, in words.
pub(crate) fn counters(
    counted: &dataplane::Counters,
    room: &ConntrackSize,
    connections: &BTreeMap<u32, u32>,
) -> Counters {
    let drop = |info: &ReasonInfo| {
        let packets = *counted.drops.get(info.name)?;
        let (reason, meaning) = (info.name.to_owned(), info.doc.trim().to_owned());
        Some(DropCount { reason, meaning, packets })
    };
    let mut traffic = Traffic::default();
    for port in counted.traffic.values() {
        traffic.from_port_packets += port.from_port_packets;
        traffic.from_port_bytes += port.from_port_bytes;
        traffic.to_port_packets += port.to_port_packets;
        traffic.to_port_bytes += port.to_port_bytes;
    }
    let version = dataplane::map_version(CONNTRACK);
    let conntrack = MapFill {
        name: CONNTRACK.to_owned(),
        version,
        entries: connections.values().copied().map(u64::from).sum(),
        capacity: u64::from(room.buckets()) * WAYS as u64,
    };
    let drops = DropReason::ALL.iter().filter_map(drop).collect();
    Counters { drops, traffic, maps: vec![conntrack] }
}

fn counts(mut counted: Counted, fill: Option<Vec<MapFill>>, desired: &Desired) -> Counts {
    let mut counters = std::mem::take(&mut counted.counters);
    counters.maps.extend(fill.unwrap_or_default());
    Counts { connections: named(counted, desired), counters }
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
        let ports = [(5, 3), (77, 9)].into();
        let counted = Counted { sure: 512, ports, ..Counted::default() };
        let holding = Arc::new(sample::two_networks());
        let desired = Desired { revision: 1, lineage: None, holding };
        let ports = [(sample::uuid(sample::PORT_A), 3)].into();
        assert_eq!(named(counted, &desired), Connections { sure: 512, ports });
    }

    #[test]
    fn drops_are_told_with_the_sentence_of_their_reason() {
        let one = packet::Traffic { from_port_packets: 2, to_port_bytes: 9, ..Default::default() };
        let counted = dataplane::Counters {
            drops: [(DropReason::SpoofedMac.name(), 3)].into(),
            traffic: [(1, one), (2, one)].into(),
            crowded: BTreeMap::new(),
            events_lost: 0,
        };
        let room = ConntrackSize { ports: 10, port_buckets: 4, common_buckets: 8 };
        let told = counters(&counted, &room, &[(1, 5), (2, 2)].into());
        let meaning = "The source MAC is not the port's.".to_owned();
        let drop = DropCount { reason: "spoofed_mac".to_owned(), meaning, packets: 3 };
        assert_eq!(told.drops, [drop]);
        assert_eq!((told.traffic.from_port_packets, told.traffic.to_port_bytes), (4, 18));
        let conntrack = &told.maps[0];
        assert_eq!((conntrack.entries, conntrack.capacity), (7, 48 * WAYS as u64));
        assert!(conntrack.version > 0);
    }
}
