//! What the inventory of a host says of it for those who look after it.

use std::sync::Arc;

use model::{
    Id, Kind, Timestamp,
    resource::host::Host,
    status::{AgentRelease, Agreement, HostCounters, HostDevice, HostStatus, Reason, Room},
};
use netloom_control::inventory::{self, Observed};
use serde_json::{Map, Value, json};
use store::Read;

use crate::{
    harness::{Cloud, Fixture},
    l2::{into_cluster, no_vlan},
};

/// What a host that has told all shows.
fn shown(cloud: &mut Cloud, fixture: &Fixture, status: HostStatus) -> Map<String, Value> {
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    cloud.board.put(host, status);
    let snapshot = cloud.snapshot();
    let record = snapshot.get(Kind::Host, host.uuid()).unwrap();
    inventory::show(&record, &Observed::new(&snapshot, &cloud.board))
}

#[test]
fn a_host_shows_whether_it_agrees_how_far_it_is_behind_and_how_full_it_is() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let text = str::to_owned;
    let agreement = Agreement {
        revision: 7,
        differing: vec!["peer"],
        told: text("aa"),
        held: text("ab"),
        wanted: text("bb"),
        read_back: text("bb"),
    };
    let room = |map: &str, entries| Room { map: text(map), version: 4, entries, capacity: 8 };
    let drop =
        |reason: &str, packets| Reason { reason: text(reason), meaning: text("Why."), packets };
    let counters = HostCounters {
        drops: vec![drop("a", 1), drop("b", 9)],
        sent_packets: 5,
        maps: vec![room("nets", 1), room("ports", 7)],
        ..HostCounters::default()
    };
    let agent = AgentRelease { release: "0.1.0".into(), protocol: 2, tables: vec![("port", 3)] };
    let status = HostStatus {
        connected: true,
        confirmed: true,
        since: Some(Timestamp(0)),
        agreement: Some(Arc::new(agreement)),
        counters: Some(Arc::new(counters)),
        agent: Some(Arc::new(agent)),
        ..HostStatus::default()
    };
    cloud.board.revision = 7;
    let shown = shown(&mut cloud, &fixture, status);
    assert_eq!(
        (&shown["status"], &shown["statusSince"]),
        (&json!("Connected"), &json!("Jan 1, 1970 12:00:00 AM"))
    );
    let digests = &shown["digests"];
    assert_eq!((&digests["agree"], &digests["differing"]), (&json!(false), &json!(["peer"])));
    assert_eq!(digests["objects"], json!({"server": "aa", "agent": "ab"}));
    assert_eq!(
        (&shown["watermark"]["confirmedRevision"], &shown["watermark"]["pending"]),
        (&json!(7), &json!(0))
    );
    assert_eq!(
        shown["versions"],
        json!({"release": "0.1.0", "protocol": 2, "tables": {"port": 3}})
    );
    let names = |key: &str, field: &str| {
        let all = shown[key].as_array().unwrap().iter();
        all.map(|one| one[field].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("maps", "map"), ["ports", "nets"], "the fullest first");
    assert_eq!(shown["maps"][0]["percent"], 88);
    assert_eq!(names("drops", "reason"), ["b", "a"], "the most frequent first");
    assert_eq!(
        (&shown["traffic"]["sentPackets"], &shown["traffic"]["droppedPackets"]),
        (&json!(5), &json!(10))
    );
}

#[test]
fn a_host_shows_where_its_tunnels_end_and_what_its_uplinks_carry() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let tagged = json!({
        "name": "dmz", "zoneUuid": fixture.zone, "physicalInterface": "eth1", "vlan": 7,
    });
    let tagged = cloud.made("CreateL2VlanNetwork", tagged);
    let wires = [no_vlan(&cloud, &fixture, "eth1"), tagged, no_vlan(&cloud, &fixture, "eth2")];
    for l2 in &wires {
        cloud.call("AttachL2NetworkToCluster", into_cluster(&fixture, l2)).unwrap();
    }
    let device = HostDevice {
        name: "eth1".to_owned(),
        mtu_bytes: 1500,
        is_ethernet: true,
        ..HostDevice::default()
    };
    let status = HostStatus { devices: Some(Arc::from([device])), ..HostStatus::default() };
    let shown = shown(&mut cloud, &fixture, status);
    let uplinks = shown["uplinks"].as_array().unwrap();
    let of = |at: usize| (&uplinks[at]["interface"], uplinks[at]["state"].as_str().unwrap());
    assert_eq!(of(0), (&json!("eth1"), "its interface eth1 is down: put it up"));
    assert_eq!(of(1), (&json!("eth2"), "the host has no such interface"));
    let mut vlans: Vec<_> =
        uplinks[0]["networks"].as_array().unwrap().iter().map(|n| n["vlan"].as_u64()).collect();
    vlans.sort();
    assert_eq!(vlans, [None, Some(7)]);
    assert_eq!(shown["vteps"][0]["device"], "no device of the host has this address");
}

#[test]
fn a_host_that_has_told_nothing_shows_nothing_of_it() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let shown = shown(&mut cloud, &fixture, HostStatus::default());
    for field in ["statusSince", "digests", "versions", "traffic"] {
        assert!(!shown.contains_key(field), "{field}");
    }
    assert_eq!((&shown["status"], &shown["drops"]), (&json!("Connecting"), &json!([])));
}
