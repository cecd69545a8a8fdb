//! The server's data directory as a whole: its parts are made together at the first start, and
//! later used only if they still belong together.
//!
//! The parts are the database, the certificate authority (`pki/`) and a marker, which says that
//! the first start was finished. They are made in an order that tells a crash during the first
//! start from a loss: the database's file, `pki/`, `admin-password`, the account in the database,
//! the hash of the authority in the database, the marker. So a directory with any part but without
//! the database has lost it, and so has an empty database beside the marker. Nothing that was lost
//! is made anew unless the operator says so.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use control::{account, platform, secret};
use link::Pki;
use model::{
    Code, Error, Id, Kind, Meta, Record, Resource, Timestamp,
    resource::installation::{INSTALLATION, Installation, Start},
};
use store::{Read, Snapshot, Store};
use uuid::Uuid;
use wire::durable;

use crate::{Failure, data, password};

/// The agents' authority.
pub(crate) const PKI: &str = "pki";
const AUTHORITY: &str = "pki/ca.pem";
/// Says that the first start was finished.
pub(crate) const MARKER: &str = "installation";
/// What it says.
pub(crate) const MARKER_TEXT: &str = "netloom.db and pki/ in this directory belong together: save and restore \
                           both.\n";

/// What to do about an authority that is gone or is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLoss {
    /// Refuse to start.
    Refuse,
    /// Make a new one; every host must enrol again.
    MakeAnew,
}

/// Opens what is in `data` for a start of the server; at the first one, makes it.
pub(crate) fn open(
    data: &Path,
    on_loss: OnLoss,
    (lineage, now): (Uuid, Timestamp),
) -> Result<(Store<Record>, Pki), Failure> {
    data::open(data)?;
    must_have_database(data)?;
    let store = open_store(data)?;
    let snapshot = store.snapshot();
    let is_first = snapshot.list(Kind::Account).next().is_none();
    if is_first && exists(&data.join(MARKER))? {
        return Err(lost_database(data, "is empty").into());
    }
    let pki = match is_first {
        true => Pki::open(&data.join(PKI), now)?,
        false => authority(data, &snapshot, on_loss, now)?,
    };
    if is_first {
        create_admin(&store, data, now)?;
    }
    platform::declare(&store, now)?;
    remember(&store, &secret::hash(pki.certificate()), lineage)?;
    if !exists(&data.join(MARKER))? {
        durable::replace(&data.join(MARKER), MARKER_TEXT.as_bytes())?;
    }
    Ok((store, pki))
}

/// Opens the store's file, or makes it, for its owner alone.
pub(crate) fn open_store(data: &Path) -> Result<Store<Record>, Failure> {
    let path = data.join(data::STORE);
    let file = File::options().create(true).append(true).open(&path);
    let private = |file: File| file.set_permissions(fs::Permissions::from_mode(0o600));
    file.and_then(private)
        .map_err(|cause| format!("cannot write {}: {cause}; is it yours?", path.display()))?;
    let store = Store::open(Box::new(store::Sqlite::open(&path)?))?;
    // Before anything else is made here: see the order above.
    File::open(data)?.sync_all()?;
    Ok(store)
}

/// Refuses a directory whose database is gone.
pub(crate) fn must_have_database(data: &Path) -> Result<(), Failure> {
    if exists(&data.join(data::STORE))? {
        return Ok(());
    }
    let log = format!("{}-wal", data::STORE);
    for part in [PKI, password::FILE, MARKER, &log] {
        if exists(&data.join(part))? {
            return Err(lost_database(data, &format!("is gone, {part} is there")).into());
        }
    }
    Ok(())
}

fn lost_database(data: &Path, what: &str) -> String {
    let path = data.display();
    format!(
        "{path}: the database {} {what}. This is not a first start: is a disk not mounted? Restore \
         {} from a backup. To really begin anew, with no host and no network, move {path} away or \
         choose another directory with --data",
        data::STORE,
        data::STORE
    )
}

/// The authority to which the database's hosts are bound.
fn authority(
    data: &Path,
    snapshot: &Snapshot<Record>,
    on_loss: OnLoss,
    now: Timestamp,
) -> Result<Pki, Failure> {
    let (path, directory) = (data.join(AUTHORITY), data.join(PKI));
    let lost = if exists(&path)? {
        let pki = Pki::open(&directory, now)?;
        let own = secret::hash(pki.certificate());
        // A crash during the first start may have left it out; it is the one beside it.
        if known_authority(snapshot).is_none_or(|known| known == own) {
            return match on_loss {
                OnLoss::Refuse => Ok(pki),
                OnLoss::MakeAnew => Err(format!(
                    "{} is there and belongs to the database, so --new-ca has nothing to replace: \
                     start without it",
                    path.display()
                )
                .into()),
            };
        }
        "is not the certificate authority to which this database's hosts are bound"
    } else {
        "is gone: it is the certificate authority to which this database's hosts are bound"
    };
    if on_loss == OnLoss::Refuse {
        return Err(format!(
            "{} {lost}. Restore pki/ from a backup. \
             If there is none, start once with --new-ca: it makes a new authority, and every host \
             must enrol again",
            path.display()
        )
        .into());
    }
    set_aside(&directory, now)?;
    let hosts = snapshot.list(Kind::Host).count();
    let pki = Pki::open(&directory, now)?;
    tracing::warn!(
        hosts,
        "made a new certificate authority: every host must enrol again \
        (CreateHostEnrolment, then `netloom agent --enrol`); until then agents cannot connect, and \
        running instances go on as they are"
    );
    Ok(pki)
}

/// Keeps what is replaced, for an operator who has second thoughts.
fn set_aside(directory: &Path, now: Timestamp) -> Result<(), Failure> {
    if exists(directory)? {
        let aside = directory.with_file_name(format!("{PKI}.replaced-{}", now.0));
        fs::rename(directory, &aside)
            .map_err(|cause| format!("cannot move {} away: {cause}", directory.display()))?;
        tracing::warn!(to = %aside.display(), "moved the old authority away");
    }
    Ok(())
}

/// Binds the database to its authority, and writes down this start.
fn remember(store: &Store<Record>, hash: &str, lineage: Uuid) -> Result<(), Failure> {
    let snapshot = store.snapshot();
    let (uuid, authority_sha256) = (Id::new(INSTALLATION), hash.to_owned());
    let starts = known(&snapshot).map(|known| known.starts).unwrap_or_default();
    let mut installation = Installation { uuid, authority_sha256, starts };
    installation.started(Start { lineage, revision: snapshot.revision() });
    let record = Record::new(installation, Meta::default());
    let bind = move |tx: &mut store::Tx<Record>| {
        let unheld = |_| Error::new(Code::Internal, "an installation claims nothing");
        tx.put(record.clone()).map_err(unheld)
    };
    store.transact(bind)?;
    Ok(())
}

/// The lineages of earlier starts, each with the newest revision that hosts can have been told in
/// it.
pub(crate) fn earlier_lineages(store: &Store<Record>) -> BTreeMap<Uuid, u64> {
    known(&store.snapshot()).map(|known| known.earlier_lineages()).unwrap_or_default()
}

/// The hash of the authority that the database knows.
pub(crate) fn known_authority(snapshot: &Snapshot<Record>) -> Option<String> {
    known(snapshot).map(|installation| installation.authority_sha256)
}

fn known(snapshot: &Snapshot<Record>) -> Option<Installation> {
    let record = snapshot.get(Kind::Installation, INSTALLATION)?;
    Installation::of(&record).cloned()
}

/// A password into `admin-password`, then its hash into the store. A file that a crash has left
/// here is used: somebody may have read it already.
fn create_admin(store: &Store<Record>, data: &Path, now: Timestamp) -> Result<(), Failure> {
    let password = match password::left(data)? {
        Some(password) => password,
        None => password::write_random(data)?,
    };
    let hash = account::hash(&account::client_digest(&password))?;
    account::create_admin(store, &hash, now)?;
    let file = data.join(password::FILE);
    tracing::info!(file = %file.display(), "made the account admin; its password is in the file");
    Ok(())
}

/// Whether something is there, in whatever state.
fn exists(path: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(format!("cannot look at {}: {error}", path.display()).into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn start(data: &Path) -> Result<String, String> {
        start_with(data, OnLoss::Refuse)
    }

    /// Starts and stops; the certificate that agents would see.
    fn start_with(data: &Path, on_loss: OnLoss) -> Result<String, String> {
        let opened =
            open(data, on_loss, (Uuid::new_v4(), NOW)).map_err(|error| error.to_string())?;
        Ok(opened.1.certificate().to_owned())
    }

    fn password_fits(data: &Path) -> bool {
        let password = fs::read_to_string(data.join(password::FILE)).unwrap();
        let store = open_store(data).unwrap();
        let digest = account::client_digest(&password);
        account::authenticate(&store.snapshot(), "admin", &digest).is_ok()
    }

    fn lose(data: &Path, parts: &[&str]) {
        for part in parts {
            let path = data.join(part);
            let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            gone.unwrap();
        }
    }

    #[test]
    fn a_restored_database_does_not_know_of_what_came_after_it() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, backup) = (scratch.path().join("d"), scratch.path().join("backup"));
        let start = |number| {
            let lineage = Uuid::from_u128(number);
            let (store, _) = open(&data, OnLoss::Refuse, (lineage, NOW)).unwrap();
            (earlier_lineages(&store), store.snapshot().revision())
        };
        let (_, told) = start(1);
        fs::copy(data.join(data::STORE), &backup).unwrap();
        let (earlier, told_later) = start(2);
        assert_eq!(earlier, [(Uuid::from_u128(1), told)].into());
        fs::copy(&backup, data.join(data::STORE)).unwrap();
        // It goes on beyond what the second start has told, and still does not know of it.
        let [_, _, newest] = [3, 4, 5].map(start);
        assert!(newest.1 > told_later);
        assert_eq!(newest.0.keys().map(|uuid| uuid.as_u128()).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(newest.0[&Uuid::from_u128(1)], told);
    }

    #[test]
    fn a_crash_anywhere_in_the_first_start_is_no_loss() {
        // What such a crash leaves, by what is not there yet; what earlier versions leave, too.
        let steps: [&[&str]; 5] = [
            &[data::STORE, PKI, password::FILE, MARKER],
            &[PKI, password::FILE, MARKER],
            &[password::FILE, MARKER],
            &[PKI, MARKER],
            &[MARKER],
        ];
        for missing in steps {
            let scratch = tempfile::tempdir().unwrap();
            let data = scratch.path().join("d");
            start(&data).unwrap();
            lose(&data, missing);
            if !missing.contains(&data::STORE) {
                // The account comes after these, so the database is still empty.
                lose(&data, &[data::STORE]);
                drop(open_store(&data).unwrap());
            }
            let left = fs::read_to_string(data.join(password::FILE)).ok();
            let certificate = start(&data).unwrap_or_else(|e| panic!("{missing:?}: {e}"));
            assert!(password_fits(&data), "{missing:?}");
            let kept = fs::read_to_string(data.join(password::FILE)).unwrap();
            assert!(left.is_none_or(|left| left == kept), "{missing:?}: a password was replaced");
            assert_eq!(start(&data).unwrap(), certificate);
        }
    }

    #[test]
    fn a_crash_after_the_account_is_no_loss_either() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("d");
        let certificate = start(&data).unwrap();
        lose(&data, &[MARKER]);
        let store = open_store(&data).unwrap();
        let forget = |tx: &mut store::Tx<Record>| {
            assert!(tx.get(Kind::Installation, INSTALLATION).is_some());
            tx.delete(Kind::Installation, INSTALLATION);
            Ok(())
        };
        store.transact(forget).unwrap();
        drop(store);
        assert_eq!(start(&data).unwrap(), certificate);
        assert!(data.join(MARKER).exists() && password_fits(&data));
    }

    #[test]
    fn a_torn_password_of_a_crash_is_made_anew() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("d");
        data::open(&data).unwrap();
        drop(open_store(&data).unwrap());
        fs::write(data.join(password::FILE), "abc").unwrap();
        start(&data).unwrap();
        assert!(password_fits(&data));
        let mode = fs::metadata(data.join(password::FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_lost_database_is_never_made_anew() {
        let others = [PKI, password::FILE, MARKER];
        for kept in others {
            let scratch = tempfile::tempdir().unwrap();
            let data = scratch.path().join("d");
            start(&data).unwrap();
            lose(&data, &[data::STORE]);
            lose(&data, &others.into_iter().filter(|part| *part != kept).collect::<Vec<_>>());
            for on_loss in [OnLoss::Refuse, OnLoss::MakeAnew] {
                let refused = start_with(&data, on_loss).unwrap_err();
                let says = ["netloom.db", kept, "Restore", "--data"];
                assert!(says.iter().all(|word| refused.contains(word)), "{refused}");
            }
            assert!(!data.join(data::STORE).exists() && data.join(kept).exists());
        }
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("d");
        start(&data).unwrap();
        let password = fs::read(data.join(password::FILE)).unwrap();
        fs::write(data.join(data::STORE), "").unwrap();
        let refused = start(&data).unwrap_err();
        assert!(refused.contains("is empty") && refused.contains("Restore"), "{refused}");
        assert_eq!(fs::read(data.join(password::FILE)).unwrap(), password);
    }

    #[test]
    fn a_lost_or_strange_authority_is_replaced_only_when_told() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, other) = (scratch.path().join("d"), scratch.path().join("other"));
        let first = start(&data).unwrap();
        assert!(start_with(&data, OnLoss::MakeAnew).unwrap_err().contains("start without it"));
        lose(&data, &[PKI]);
        let refused = start(&data).unwrap_err();
        assert!(refused.contains("--new-ca") && refused.contains("enrol again"), "{refused}");
        assert!(!data.join(PKI).exists());
        let second = start_with(&data, OnLoss::MakeAnew).unwrap();
        assert!(second != first && start(&data).unwrap() == second);

        start(&other).unwrap();
        fs::copy(other.join(AUTHORITY), data.join(AUTHORITY)).unwrap();
        let refused = start(&data).unwrap_err();
        assert!(refused.contains("is not the certificate authority"), "{refused}");
        // As if it had crashed after making a new one: told again, it makes another.
        let third = start_with(&data, OnLoss::MakeAnew).unwrap();
        assert!(third != second && start(&data).unwrap() == third);
        let names = fs::read_dir(&data).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().any(|n| n.to_string_lossy().starts_with("pki.replaced-")));
    }

    #[test]
    fn nobody_else_can_read_the_database() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("d");
        let opened = open(&data, OnLoss::Refuse, (Uuid::nil(), NOW)).unwrap();
        for entry in fs::read_dir(&data).unwrap().map(Result::unwrap) {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert!(entry.path().is_dir() || mode & 0o077 == 0, "{entry:?} {mode:o}");
        }
        drop(opened);
    }
}
