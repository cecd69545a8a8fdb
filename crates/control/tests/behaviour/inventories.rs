//! What inventories show.

use model::{
    Id, Kind,
    resource::host::Host,
    status::{Board, HostStatus},
};
use netloom_control::inventory::{self, Observed};
use store::Read;

use crate::{harness::Cloud, specimen};

#[test]
fn every_shown_field_can_be_chosen() {
    let snapshot = specimen::of_every_kind().snapshot();
    let board = Board::default();
    for kind in Kind::ALL.iter().filter(|kind| kind.def().is_shown()) {
        let record = snapshot.list(*kind).next().expect("one of each kind");
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
