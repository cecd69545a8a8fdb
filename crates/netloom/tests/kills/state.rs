//! What a dead server has left in its file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use control::doctor;
use model::{
    Kind, Record, Resource,
    resource::{vm_nic::VmNic, zone::Zone},
};
use sha2::{Digest, Sha256};
use store::{Engine, Read, Sqlite, Store};
use uuid::Uuid;

use crate::writer::Known;

/// The rows that come of all revisions since the first one.
#[derive(Default)]
pub(crate) struct History {
    revision: u64,
    rows: Rows,
}

type Rows = BTreeMap<(String, Uuid), String>;

impl History {
    /// Replays what the log has had since the last time, and compares what comes of it with what
    /// the file has; gives how many revisions there are.
    pub(crate) fn compare(&mut self, data: &Path) -> u64 {
        let mut engine = Sqlite::open(data.join("netloom.db")).unwrap();
        let mut there = Rows::new();
        let mut take = |row: store::StoredRow| {
            assert!(there.insert((row.kind, row.id), row.json.get().to_owned()).is_none());
            Ok(())
        };
        let loaded = engine.load(&mut take).unwrap();
        assert!(loaded.head >= self.revision, "revisions are lost");
        while self.revision < loaded.head {
            for record in engine.read_log(self.revision, 256).unwrap() {
                assert_eq!(record.revision, self.revision + 1, "the log has a gap");
                self.revision = record.revision;
                for row in record.rows {
                    let key = (row.kind, row.id);
                    match row.value {
                        Some(json) => _ = self.rows.insert(key, json.get().to_owned()),
                        None => _ = self.rows.remove(&key),
                    }
                }
            }
        }
        let digests = [&self.rows, &there].map(digest);
        assert_eq!(digests[0], digests[1], "the state is not what its history gives");
        loaded.head
    }
}

fn digest(rows: &Rows) -> Vec<u8> {
    let mut digest = Sha256::new();
    for ((kind, id), json) in rows {
        digest.update(format!("{kind} {id} {}\n{json}\n", json.len()));
    }
    digest.finalize().to_vec()
}

/// The file has exactly what the writers know, and nothing leaks.
pub(crate) fn judge(data: &Path, known: &[Known]) {
    let store: Store<Record> =
        Store::open(Box::new(Sqlite::open(data.join("netloom.db")).unwrap())).unwrap();
    let snapshot = store.snapshot();
    let zones = snapshot.list(Kind::Zone).map(|row| Zone::of(&row).unwrap().clone());
    // One of its own has the network.
    let zones = zones.filter(|zone| zone.name != "z");
    let zones: BTreeMap<Uuid, _> =
        zones.map(|zone| (zone.uuid.uuid(), (zone.name, zone.description))).collect();
    let expected: BTreeMap<Uuid, _> = known.iter().flat_map(|it| it.zones.clone()).collect();
    assert_eq!(zones, expected);
    let nics: Vec<VmNic> =
        snapshot.list(Kind::VmNic).map(|row| VmNic::of(&row).unwrap().clone()).collect();
    let found: BTreeSet<Uuid> = nics.iter().map(|nic| nic.uuid.uuid()).collect();
    let expected: BTreeSet<Uuid> = known.iter().flat_map(|it| it.nics.clone()).collect();
    assert_eq!(found, expected);
    let report = doctor::examine(&snapshot);
    assert!(report.is_sound(), "{:?}", report.findings);
}
