//! Databases that releases wrote, kept for ever: every later release reads them as they were meant,
//! and goes on with them.
//!
//! In `tests/databases`, `<release>.db` is what the release wrote, and does not change once the
//! release is out. `<release>.rows` beside it says what is in it as the present release reads it,
//! a row or counter a line; a line of an old release changes only when its kind gets a new version.
//!
//! `NETLOOM_RENEW=1 cargo test -p netloom-control --test behaviour databases` writes the listings
//! anew, and the database of the release in the making if that one would write another.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use model::{Kind, Record, Resource, Result, resource::vm_nic::VmNic};
use serde_json::{Value, json};
use store::{Engine, Loaded, Read, Sqlite, Store, StoredRow};
use tempfile::TempDir;

use crate::{harness::Cloud, specimen};

/// Every release with a database, the oldest first; the last one may be in the making.
const RELEASES: &[&str] = &["0.1.0"];

/// The release that this code will be, or is.
const PRESENT: &str = env!("CARGO_PKG_VERSION");

fn file(release: &str, end: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/databases/{release}.{end}"))
}

fn renewing() -> bool {
    env::var("NETLOOM_RENEW").is_ok_and(|value| value == "1")
}

/// A release's database, to be opened and written to.
struct Copied {
    directory: TempDir,
}

impl Copied {
    fn of(release: &str) -> Self {
        let copied = Self { directory: tempfile::tempdir().unwrap() };
        fs::copy(file(release, "db"), copied.path()).unwrap();
        copied
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("netloom.db")
    }

    /// As a server opens it.
    fn open(&self) -> Store<Record> {
        Store::open(Box::new(Sqlite::open(self.path()).unwrap())).unwrap()
    }

    /// What is in the file as this release reads it, a line for each row and counter.
    fn listing(&self) -> String {
        let snapshot = self.open().snapshot();
        let rows = Kind::ALL.iter().flat_map(|kind| snapshot.list(*kind));
        let rows: Vec<String> = rows.map(|row| row.encode().unwrap().get().to_owned()).collect();
        let (stored, loaded) = stored(&self.path()).unwrap();
        assert_eq!(rows.len(), stored.len(), "a row was lost on the way");
        let counters =
            loaded.counters.iter().map(|(name, last)| json!({"counter": name, "last": last}));
        let lines = rows.into_iter().chain(counters.map(|line| line.to_string()));
        lines.map(|line| line + "\n").collect()
    }
}

/// What is in a file, unread, and its counters.
fn stored(path: &Path) -> Result<(Vec<StoredRow>, Loaded)> {
    let mut rows = Vec::new();
    let mut take = |row| {
        rows.push(row);
        Ok(())
    };
    let loaded = Sqlite::open(path)?.load(&mut take)?;
    rows.sort_by_key(|row| (row.kind.clone(), row.id));
    Ok((rows, loaded))
}

/// The kind of a stored row, and the version of its form.
fn form(row: &StoredRow) -> (String, u64) {
    let json: Value = serde_json::from_str(row.json.get()).unwrap();
    (row.kind.clone(), json["version"].as_u64().unwrap())
}

#[tokio::test]
async fn what_a_release_wrote_is_read_as_it_was_meant() {
    if renewing() {
        return renew().await;
    }
    for release in RELEASES {
        let (found, listed) =
            (Copied::of(release).listing(), fs::read_to_string(file(release, "rows")).unwrap());
        let differing: Vec<_> =
            found.lines().zip(listed.lines()).filter(|(found, listed)| found != listed).collect();
        assert!(
            found == listed,
            "the database of {release} reads differently (now, listed): {differing:#?}; if it is \
             by a new version of the kind, NETLOOM_RENEW=1 writes the listing anew"
        );
    }
}

/// Writes what the top of this file says. A database is not replaced by one with the same rows: it would differ
/// by the store's lineage.
async fn renew() {
    let made = Copied { directory: tempfile::tempdir().unwrap() };
    specimen::write(&made.path()).await;
    let log = made.path().with_extension("db-wal");
    assert!(!log.exists(), "the file alone is the database once it is closed");
    if RELEASES.last() == Some(&PRESENT) {
        let kept = Copied { directory: tempfile::tempdir().unwrap() };
        let copied = fs::copy(file(PRESENT, "db"), kept.path()).is_ok();
        // What this code cannot open any more is another one.
        let kept = if copied { stored(&kept.path()).ok() } else { None };
        let text =
            |(rows, loaded): (Vec<StoredRow>, Loaded)| format!("{rows:?} {:?}", loaded.counters);
        if kept.map(text) != Some(text(stored(&made.path()).unwrap())) {
            fs::copy(made.path(), file(PRESENT, "db")).unwrap();
        }
    }
    for release in RELEASES {
        fs::write(file(release, "rows"), Copied::of(release).listing()).unwrap();
    }
}

#[test]
fn a_stored_form_does_not_change_without_a_new_version() {
    for release in RELEASES.iter().filter(|_| !renewing()) {
        for row in stored(&Copied::of(release).path()).unwrap().0 {
            let record = Record::decode(&row.json).unwrap();
            let (kind, version) = form(&row);
            if version != record.kind().def().version() as u64 {
                continue;
            }
            let before: Value = serde_json::from_str(row.json.get()).unwrap();
            let now: Value = serde_json::from_str(record.encode().unwrap().get()).unwrap();
            assert_eq!(
                before, now,
                "{kind} is stored differently than by {release}: give it a new version, with a \
                 step from the old one (#[resource(upcasts)]); as long as {release} is not out, \
                 NETLOOM_RENEW=1 makes its database anew"
            );
        }
    }
}

#[test]
fn every_version_of_every_kind_is_in_some_database() {
    if renewing() {
        return;
    }
    let rows = |release: &&str| stored(&Copied::of(release).path()).unwrap().0;
    let found: BTreeSet<_> = RELEASES.iter().flat_map(rows).map(|row| form(&row)).collect();
    for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::AccountResourceRef) {
        let name = serde_json::to_value(kind).unwrap();
        for version in 1..=kind.def().version() as u64 {
            assert!(
                found.contains(&(name.as_str().unwrap().to_owned(), version)),
                "no database has a {kind:?} of version {version}: add {PRESENT} to RELEASES here \
                 unless it is there, and run this with NETLOOM_RENEW=1"
            );
        }
    }
}

#[test]
fn databases_are_small_enough_to_keep_them_all() {
    for release in RELEASES.iter().filter(|_| !renewing()) {
        let size = fs::metadata(file(release, "db")).unwrap().len();
        assert!(size < 300_000, "{release}: {size} bytes");
    }
}

#[test]
fn work_goes_on_with_what_a_release_wrote() {
    for release in RELEASES.iter().filter(|_| !renewing()) {
        let copied = Copied::of(release);
        let before = copied.open().snapshot();
        let first = |kind| before.list(kind).next().unwrap().uuid().simple().to_string();
        let cloud = Cloud::over(copied.open());
        let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": first(Kind::L3Network)}));
        let nic: VmNic = cloud.get(nic.parse().unwrap()).unwrap();
        let older = before.list(Kind::VmNic).filter_map(|row| VmNic::of(&row).map(|n| n.number));
        assert!(older.into_iter().all(|number| number < nic.number), "{release}");
        let after = cloud.contents();
        drop(cloud);
        let cloud = Cloud::over(copied.open());
        assert_eq!(cloud.contents(), after, "{release}");
        cloud.call("DeleteZone", json!({"uuid": first(Kind::Zone)})).unwrap();
        assert_eq!(cloud.snapshot().total(Kind::VmNic), 0, "{release}");
    }
}
