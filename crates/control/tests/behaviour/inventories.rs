//! What inventories show.

use std::sync::Arc;

use model::{
    Id, Kind,
    resource::{account_resource_ref::AccountResourceRef, host::Host},
    status::{Board, HostStatus},
};
use netloom_control::inventory::{self, Observed};
use serde_json::json;
use store::Read;

use crate::{harness::Cloud, specimen};

#[test]
fn every_shown_field_can_be_chosen() {
    let snapshot = specimen::of_every_kind().snapshot();
    let board = Board::default();
    for kind in Kind::ALL.iter().filter(|kind| kind.def().is_shown()) {
        let record = match kind {
            // It is made of every other row.
            Kind::AccountResourceRef => {
                let row = snapshot.list(Kind::Zone).next().unwrap();
                Arc::new(AccountResourceRef::to(&row).expect("it has an owner"))
            }
            kind => snapshot.list(*kind).next().expect("one of each kind"),
        };
        let shown = inventory::show(&record, &Observed::new(&snapshot, &board));
        assert!(shown.contains_key("uuid") && shown.contains_key("createDate"), "{kind:?}");
        for name in shown.keys() {
            inventory::entry(*kind, "fields", name).unwrap();
        }
    }
}

#[test]
fn a_host_is_synced_once_it_agrees_up_to_the_newest_revision() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let snapshot = cloud.snapshot();
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    let record = snapshot.get(Kind::Host, host.uuid()).unwrap();
    let newest = snapshot.revision();
    for (compiled, agrees, synced) in
        [(newest, true, true), (newest - 1, true, false), (newest, false, false)]
    {
        let status = HostStatus { agrees, confirmed: true, ..HostStatus::default() };
        cloud.board.put(host, status);
        cloud.board.revision = compiled;
        let shown = inventory::show(&record, &Observed::new(&snapshot, &cloud.board));
        assert_eq!(shown["synced"], synced);
    }
}

#[test]
fn what_a_host_cannot_do_is_shown_on_the_resource_itself() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let snapshot = cloud.snapshot();
    let vm = snapshot.get(Kind::VmInstance, vm.parse().unwrap()).unwrap();
    let nic = snapshot.list(Kind::VmNic).next().unwrap();
    let host = vm.home().unwrap();
    let failed = [(vm.uuid(), "no such image"), (nic.uuid(), "no tunnel")];
    let failed = failed.into_iter().map(|(uuid, reason)| (uuid, Arc::from(reason))).collect();
    cloud.board.put(host, HostStatus { connected: true, failed, ..HostStatus::default() });
    let shown = |board: &Board| inventory::show(&vm, &Observed::new(&snapshot, board));
    let now = shown(&cloud.board);
    assert_eq!(now["state"], "Starting");
    assert_eq!(now["notInEffect"], "no such image");
    assert_eq!(now["vmNics"][0]["notInEffect"], "no tunnel");
    assert_eq!(shown(&Board::default()).get("notInEffect"), None);
}
