//! What the inventory of a host says of it for those who look after it: since when it is connected,
//! whether both ends agree, how far it is behind, how full it is, what it dropped, and where its
//! networks go. All of it is from the board, but for its VTEPs and networks.

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::{Map, Value, json};

use super::{host::Host, l2_attachment::L2NetworkClusterRef, l2_network::L2Network, vtep::Vtep};
use crate::{
    Claim, FieldDef, Kind, Plain, Record, Resource, Timestamp,
    shown::{Derived, View},
    status::{AgentRelease, Agreement, BlockedPath, HostCounters, HostStatus, Reason, Room},
};

/// Most VTEPs that one host shows; `QueryVtep` has all.
const VTEPS_MAX: usize = 16;

/// Most presences of networks that are looked at for the uplinks of one host: a page of hosts has
/// 10,000.
const NETWORKS_MAX: usize = 64;

/// Most ways to peers on which packets are lost that one host shows.
const BLOCKED_MAX: usize = 64;

/// The fields.
pub(super) const WORD: [Derived; 10] = [
    Derived {
        field: FieldDef::of::<Option<Timestamp>>(
            "statusSince",
            "Since when it is connected or not; absent as long as it has not been since the server started.",
        ),
        read: |record, view| {
            let since = status(record, view).and_then(|status| status.since);
            since.map_or(Plain::Null, Plain::Time)
        },
        found_by: &[],
        only: &[],
    },
    Derived {
        field: FieldDef::of::<Option<Value>>(
            "digests",
            "The first digits of digests, as of its last report: `objects` as the server has told and the agent holds them, `facts` as these objects give them and as the agent has read them back from the kernel's maps. `differing`: tables whose objects are not the same.",
        ),
        read: |record, view| {
            let known = status(record, view).and_then(|status| status.agreement.as_deref());
            known.map_or(Plain::Null, |known| Plain::Object(digests(known)))
        },
        found_by: &[],
        only: &[],
    },
    Derived {
        field: FieldDef::of::<Value>(
            "watermark",
            "`confirmedRevision`: it has confirmed all that concerns it up to here; 0 if nothing since the server started. `revision`: what the server has. `pending`: objects that it has not confirmed. `failed`: objects that it could not make, change or remove.",
        ),
        read: |record, view| Host::of(record).map_or(Plain::Null, |host| watermark(host, view)),
        found_by: &[],
        only: &[],
    },
    Derived {
        field: FieldDef::of::<Option<Value>>(
            "versions",
            "The release of its agent, the protocol, and the tables of objects that the agent knows, each up to which version.",
        ),
        read: |record, view| {
            let known = status(record, view).and_then(|status| status.agent.as_deref());
            known.map_or(Plain::Null, |known| Plain::Object(versions(known)))
        },
        found_by: &[],
        only: &[],
    },
    Derived {
        field: FieldDef::of::<Vec<Value>>(
            "maps",
            "How full the maps of its data plane are, the fullest first, with the version of their layout.",
        ),
        read: |record, view| counted(record, view, |counters| maps(&counters.maps)),
        found_by: &[],
        only: &[],
    },
    Derived {
        field: FieldDef::of::<Vec<Value>>(
            "drops",
            "Packets that it has dropped since its maps were made, by reason, with what the reason means; the most frequent first.",
        ),
        read: |record, view| counted(record, view, |counters| drops(&counters.drops)),
        found_by: &[],
        only: &[],
    },
    Derived {
        field: FieldDef::of::<Option<Value>>(
            "traffic",
            "What the ports that it has sent and received, since each of them was made.",
        ),
        read: |record, view| {
            let known = status(record, view).and_then(|status| status.counters.as_deref());
            known.map_or(Plain::Null, |known| Plain::Object(traffic(known)))
        },
        found_by: &[],
        only: &[],
    },
    Derived {
        field: FieldDef::of::<Vec<Value>>(
            "vteps",
            "Where its tunnels end, 16 at most, each with its pool and the device that has the address.",
        ),
        read: |record, view| Host::of(record).map_or(Plain::Null, |host| vteps(host, view)),
        found_by: &[],
        only: &[],
    },
    Derived {
        field: FieldDef::of::<Option<Value>>(
            "tunnels",
            "How the ways from its VTEPs to those of its peers are, as it has found by asking them with packets as tunnels send them: `probed` of them, and on which packets are lost (`blocked`), with both hosts, the direction and what is likely the cause.",
        ),
        read: |record, view| {
            let Some(host) = Host::of(record) else { return Plain::Null };
            let Some(paths) = &view.board().status(host.uuid).paths else { return Plain::Null };
            let blocked = blocked(host, view, BLOCKED_MAX);
            Plain::Object(json!({"probed": paths.probed, "blocked": blocked}))
        },
        found_by: &[],
        only: &[],
    },
    Derived {
        field: FieldDef::of::<Vec<Value>>(
            "uplinks",
            "The interfaces that its cluster's physical networks use, with their state and VLANs; of 64 networks at most.",
        ),
        read: |record, view| Host::of(record).map_or(Plain::Null, |host| uplinks(host, view)),
        found_by: &[],
        only: &[],
    },
];

fn status<'a>(record: &Record, view: &'a dyn View) -> Option<&'a HostStatus> {
    Host::of(record).map(|host| view.board().status(host.uuid))
}

fn counted(
    record: &Record,
    view: &dyn View,
    list: fn(&HostCounters) -> Vec<Value>,
) -> Plain<'static> {
    let known = status(record, view).and_then(|status| status.counters.as_deref());
    let list = known.map(list).unwrap_or_default();
    Plain::List(list.into_iter().map(Plain::Object).collect())
}

fn digests(known: &Agreement) -> Value {
    let Agreement { revision, differing, told, held, wanted, read_back } = known;
    json!({
        "agree": known.holds(),
        "revision": revision,
        "differing": differing,
        "objects": {"server": told, "agent": held},
        "facts": {"wanted": wanted, "kernel": read_back},
    })
}

fn watermark(host: &Host, view: &dyn View) -> Plain<'static> {
    let (board, status) = (view.board(), view.board().status(host.uuid));
    Plain::Object(json!({
        "confirmedRevision": board.confirmed_revision(host.uuid),
        "revision": board.revision,
        "pending": status.pending.len(),
        "failed": status.failed.len(),
    }))
}

fn versions(known: &AgentRelease) -> Value {
    let tables =
        known.tables.iter().map(|(table, version)| ((*table).to_owned(), (*version).into()));
    let tables: Map<String, Value> = tables.collect();
    json!({"release": &*known.release, "protocol": known.protocol, "tables": tables})
}

fn maps(maps: &[Room]) -> Vec<Value> {
    let mut maps: Vec<&Room> = maps.iter().collect();
    maps.sort_by_key(|room| (Reverse(room.percent()), &room.map));
    let shown = |room: &&Room| {
        let Room { map, version, entries, capacity } = room;
        let percent = room.percent();
        json!({
            "map": map, "version": version, "entries": entries, "capacity": capacity,
            "percent": percent,
        })
    };
    maps.iter().map(shown).collect()
}

fn drops(drops: &[Reason]) -> Vec<Value> {
    let mut drops: Vec<&Reason> = drops.iter().collect();
    drops.sort_by_key(|drop| (Reverse(drop.packets), &drop.reason));
    let shown = |drop: &&Reason| {
        let Reason { reason, meaning, packets } = drop;
        json!({"reason": reason, "packets": packets, "meaning": meaning})
    };
    drops.iter().map(shown).collect()
}

fn traffic(known: &HostCounters) -> Value {
    json!({
        "sentPackets": known.sent_packets,
        "sentBytes": known.sent_bytes,
        "receivedPackets": known.received_packets,
        "receivedBytes": known.received_bytes,
        "droppedPackets": known.drops.iter().map(|drop| drop.packets).sum::<u64>(),
    })
}

fn vteps(host: &Host, view: &dyn View) -> Plain<'static> {
    let found = view.pointing(Kind::Vtep, Vtep::HOST.field, host.uuid.uuid(), VTEPS_MAX);
    let devices = view.board().status(host.uuid).devices.clone();
    let shown = |vtep: &Vtep| {
        let has = devices.iter().flat_map(|all| all.iter());
        let device = has.clone().find(|device| device.addresses.contains(&vtep.vtep_ip));
        let pool = view.get(Kind::L2Network, vtep.pool_uuid.uuid());
        let pool = pool.as_deref().and_then(L2Network::of).map(|pool| pool.name.clone());
        let state = match (device, &devices) {
            (Some(device), _) => device.to_string(),
            (None, Some(_)) => "no device of the host has this address".to_owned(),
            (None, None) => "the host has not told of its devices".to_owned(),
        };
        json!({
            "vtepIp": vtep.vtep_ip, "port": vtep.port, "poolUuid": vtep.pool_uuid, "pool": pool,
            "device": state,
        })
    };
    let vteps = found.iter().filter_map(|record| Vtep::of(record));
    Plain::List(vteps.map(shown).map(Plain::Object).collect())
}

fn uplinks(host: &Host, view: &dyn View) -> Plain<'static> {
    let (field, cluster) = (L2NetworkClusterRef::CLUSTER.field, host.cluster_uuid.uuid());
    let found = view.pointing(Kind::L2NetworkClusterRef, field, cluster, NETWORKS_MAX);
    let mut by_interface: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for attached in found.iter().filter_map(|record| L2NetworkClusterRef::of(record)) {
        let Some(interface) = &attached.physical_interface else { continue };
        let l2 = view.get(Kind::L2Network, attached.l2_network_uuid.uuid());
        let name = l2.as_deref().and_then(L2Network::of).map(|l2| l2.name.clone());
        let network = json!({
            "l2NetworkUuid": attached.l2_network_uuid, "name": name, "vlan": attached.vlan,
        });
        by_interface.entry(interface).or_default().push(network);
    }
    let devices = view.board().status(host.uuid).devices.clone();
    let state = |interface: &str| {
        let Some(devices) = &devices else {
            return "the host has not told of its devices".to_owned();
        };
        match devices.iter().find(|device| device.name == interface) {
            Some(device) => device.why_no_uplink().unwrap_or_else(|| device.to_string()),
            None => "the host has no such interface".to_owned(),
        }
    };
    let shown = by_interface.into_iter().map(|(interface, networks)| {
        let state = state(interface);
        json!({"interface": interface, "state": state, "networks": networks})
    });
    Plain::List(shown.map(Plain::Object).collect())
}

/// On which ways between the VTEPs of a host and those of its peers packets are lost, a sentence each.
/// Not those to hosts whose agents are not there to answer, or never do.
pub(super) fn blocked(host: &Host, view: &dyn View, most: usize) -> Vec<String> {
    let Some(paths) = &view.board().status(host.uuid).paths else { return Vec::new() };
    if paths.blocked.is_empty() {
        return Vec::new();
    }
    let own = view.pointing(Kind::Vtep, Vtep::HOST.field, host.uuid.uuid(), VTEPS_MAX);
    let own: Vec<&Vtep> = own.iter().filter_map(|record| Vtep::of(record)).collect();
    let peer_of = |path: &BlockedPath| {
        let mut pools = own.iter().filter(|vtep| vtep.vtep_ip == path.own);
        let found = pools.find_map(|vtep| view.holder(&Claim::VtepIp(vtep.pool_uuid, path.peer)));
        let (Kind::Vtep, uuid) = found? else { return None };
        let vtep = view.get(Kind::Vtep, uuid)?;
        let peer = view.get(Kind::Host, Vtep::of(&vtep)?.host_uuid.uuid())?;
        Host::of(&peer).cloned()
    };
    let words = |path: &BlockedPath| {
        let peer = peer_of(path)?;
        let status = view.board().status(peer.uuid);
        let answers = status.connected && status.paths.is_some();
        answers.then(|| path.describe(&host.name, &peer.name))
    };
    paths.blocked.iter().filter_map(words).take(most).collect()
}
