//! What inventories show.

use model::{
    Id, Kind,
    resource::host::Host,
    status::{Board, HostStatus},
};
use netloom_control::inventory;
use serde_json::json;
use store::Read;

use crate::harness::Cloud;

#[test]
fn every_shown_field_is_known_to_queries() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let snapshot = cloud.snapshot();
    let shown = |kind: &&Kind| !kind.def().path.is_empty() && **kind != Kind::Account;
    for kind in Kind::ALL.iter().filter(shown) {
        let record = snapshot.list(*kind).next().expect("one of each kind");
        for name in inventory::show(&record, &snapshot, &Board::default()).keys() {
            let declared = kind.def().fields.iter().any(|field| field.name == name);
            let mut derived = inventory::derived_fields(*kind).iter().map(|(name, _)| *name);
            let known = declared || derived.any(|derived| derived == name);
            let structures = inventory::derived_structures(*kind);
            assert!(known || structures.contains(&name.as_str()), "{kind:?} {name}");
        }
    }
}

#[test]
fn a_host_is_synced_once_it_agrees_up_to_the_newest_revision() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let snapshot = cloud.snapshot();
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    let record = snapshot.get(Kind::Host, host.uuid()).unwrap();
    let newest = snapshot.revision();
    for (acked_revision, agrees, synced) in
        [(newest, true, true), (newest - 1, true, false), (newest, false, false)]
    {
        let status = HostStatus { acked_revision, agrees, ..HostStatus::default() };
        let board = Board { hosts: [(host, status)].into() };
        assert_eq!(inventory::show(&record, &snapshot, &board)["synced"], synced);
    }
}
