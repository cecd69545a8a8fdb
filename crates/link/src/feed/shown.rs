//! What agents say for people, in the board's words.

use std::sync::Arc;

use model::{
    Id,
    resource::host::Host,
    status::{
        AgentRelease, Agreement, BlockedPath, HostCounters, HostDevice, HostPaths, LeaseSeen,
        Reason, Room,
    },
};
use wire::{
    counters::{Counters, DropCount, MapFill, Traffic},
    digest::{SetDigest, TableDigests},
    message::{Device, Hello, Report},
    object::Table,
    paths::{Direction, Paths},
};

/// Digits of a digest that are enough to compare by eye.
const DIGITS: usize = 12;

/// What runs on the host.
pub(super) fn agent(hello: &Hello) -> Arc<AgentRelease> {
    let name = |(number, version)| Some((Table::from_number(number)?.name(), version));
    Arc::new(AgentRelease {
        release: hello.agent_version.as_str().into(),
        protocol: hello.protocol,
        tables: hello.tables.numbered().filter_map(name).collect(),
    })
}

/// How the digests of what a host was told, objects and facts, and of what it reports compare.
pub(super) fn agreement(told: (TableDigests, SetDigest), report: &Report) -> Agreement {
    let (objects, facts) = told;
    let differs = |table: &&Table| objects.table(**table) != report.digests.table(**table);
    Agreement {
        revision: report.revision,
        differing: Table::ALL.iter().filter(differs).map(|table| table.name()).collect(),
        told: short(objects.whole()),
        held: short(report.digests.whole()),
        wanted: short(facts),
        read_back: short(report.kernel),
    }
}

fn short(digest: SetDigest) -> String {
    format!("{:.DIGITS$}", digest.to_string())
}

pub(super) fn device(device: Device) -> HostDevice {
    let Device { name, mtu_bytes, is_up, is_ethernet, is_owned, addresses } = device;
    HostDevice { name, mtu_bytes, is_up, is_ethernet, is_owned, addresses }
}

pub(super) fn lease(seen: wire::leases::LeaseSeen) -> LeaseSeen {
    let wire::leases::LeaseSeen { at_ms, kind, address, hostname, client_id, .. } = seen;
    let at = model::Timestamp(i64::try_from(at_ms).unwrap_or(i64::MAX));
    LeaseSeen { at, kind: kind.word(), address, hostname, client_id }
}

pub(super) fn counters(counters: Counters) -> HostCounters {
    let Counters { drops, traffic, maps } = counters;
    let Traffic { from_port_packets, from_port_bytes, to_port_packets, to_port_bytes } = traffic;
    let drop = |DropCount { reason, meaning, packets }| Reason { reason, meaning, packets };
    let map = |MapFill { name, version, entries, capacity }| Room {
        map: name,
        version,
        entries,
        capacity,
    };
    HostCounters {
        drops: drops.into_iter().map(drop).collect(),
        sent_packets: from_port_packets,
        sent_bytes: from_port_bytes,
        received_packets: to_port_packets,
        received_bytes: to_port_bytes,
        maps: maps.into_iter().map(map).collect(),
    }
}

pub(super) fn paths(paths: Paths) -> HostPaths {
    let blocked = |path: wire::paths::BlockedPath| BlockedPath {
        own: path.own,
        peer: path.peer,
        is_there: path.direction == Direction::There,
        port: path.port,
        passes_bytes: path.passes_bytes,
        lost_bytes: path.lost_bytes,
    };
    HostPaths { probed: paths.probed, blocked: paths.blocked.into_iter().map(blocked).collect() }
}

/// Says what is blocked that was not before, and what is not any more.
pub(super) fn log_paths(host: Id<Host>, before: Option<&HostPaths>, now: &HostPaths) {
    let before = before.map_or(&[][..], |before| &before.blocked);
    for path in now.blocked.iter().filter(|path| !before.contains(path)) {
        let what = path.describe("this host", "its peer");
        tracing::warn!(%host, what, "packets between VTEPs are lost");
    }
    let is_open = |path: &&BlockedPath| !now.blocked.iter().any(|it| it.peer == path.peer);
    for path in before.iter().filter(is_open) {
        tracing::info!(%host, own = %path.own, peer = %path.peer, "packets between VTEPs pass again");
    }
}
