//! `netloom backup` and `netloom restore`: the server's directory at one moment, and back.
//!
//! A backup is made beside a running server, and is a directory: the database, `pki/`, `rest-pki/`
//! and the marker of [`installation`]. Before it gets its name, it was opened and read.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use control::secret;
use link::Pki;
use model::{Kind, Record, Timestamp};
use store::{Read, Snapshot, Sqlite, Store};
use wire::durable;

use crate::{Failure, data, installation, runtime, tls};

/// What belongs to a backup besides the database, as far as it is there.
const BESIDE: [&str; 2] = [installation::PKI, tls::PKI];
/// A backup that is being restored, below the data directory.
const PARTIAL: &str = "restore.partial";

/// What `netloom backup` takes.
#[derive(Args)]
#[group(id = "backup")]
pub(crate) struct Backup {
    /// The server's data directory. The server may run.
    #[arg(long)]
    data: PathBuf,
    /// The directory to make. It holds the secrets of the installation.
    #[arg(long)]
    to: PathBuf,
}

/// What `netloom restore` takes.
#[derive(Args)]
#[group(id = "restore")]
pub(crate) struct Restore {
    /// The server's data directory. The server must be stopped; the directory may be lost.
    #[arg(long)]
    data: PathBuf,
    /// A directory that `netloom backup` has made.
    #[arg(long)]
    from: PathBuf,
    /// Restore although something would be lost: without this, it is told what.
    #[arg(long)]
    force: bool,
}

pub(crate) fn backup(arguments: &Backup) -> Result<ExitCode, Failure> {
    let (data, to) = (&arguments.data, &arguments.to);
    installation::must_have_database(data)?;
    if !data.join(data::STORE).is_file() {
        return Err(no_store(data, "--data").into());
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(
            format!("{} is there already: name a new directory with --to", to.display()).into()
        );
    }
    let mut partial = to.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let revision = fill(data, &partial).and_then(|()| Ok(read(&partial)?.revision()))?;
    fs::rename(&partial, to).map_err(|cause| format!("cannot name {}: {cause}", to.display()))?;
    sync(to.parent())?;
    cli::print(&format!("revision {revision} is in {}", to.display()))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn restore(arguments: &Restore) -> Result<ExitCode, Failure> {
    let (data, from) = (&arguments.data, &arguments.from);
    if !from.join(data::STORE).is_file() {
        return Err(no_store(from, "--from").into());
    }
    data::open(data)?;
    let partial = data.join(PARTIAL);
    fill(from, &partial)?;
    let backup = read(&partial)?;
    if data.join(data::STORE).is_file() {
        // The store's lock keeps this from a running server's, and is held until it is moved away.
        let store = installation::open_store(data)?;
        let lost = Lost::between(&store.snapshot(), &backup);
        if !lost.is_nothing() && !arguments.force {
            return Err(format!(
                "{}: {lost}; to restore all the same, say --force",
                data.display()
            )
            .into());
        }
        set_aside(data, runtime::now())?;
        drop(store);
    } else {
        set_aside(data, runtime::now())?;
    }
    put(&partial, data)?;
    cli::print(&format!(
        "{} is at revision {}, as {} was. Hosts that were told more will not be told anything until \
         the server is started once with --accept-older-database",
        data.display(),
        backup.revision(),
        from.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn no_store(directory: &Path, option: &str) -> String {
    format!("{} has no {}: name another directory with {option}", directory.display(), data::STORE)
}

/// Copies an installation into a directory that is made anew.
fn fill(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |cause| format!("cannot make {}: {cause}", to.display());
    if fs::symlink_metadata(to).is_ok() {
        fs::remove_dir_all(to).map_err(failed)?;
    }
    fs::DirBuilder::new().mode(0o700).create(to).map_err(failed)?;
    Sqlite::copy(from.join(data::STORE), to.join(data::STORE))?;
    for part in BESIDE.iter().filter(|part| from.join(part).is_dir()) {
        fs::DirBuilder::new().mode(0o700).create(to.join(part)).map_err(failed)?;
        for entry in fs::read_dir(from.join(part)).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name() else { continue };
            let text = fs::read(&path)
                .map_err(|cause| format!("cannot read {}: {cause}", path.display()))?;
            durable::replace(&to.join(part).join(name), &text)?;
        }
    }
    durable::replace(&to.join(installation::MARKER), installation::MARKER_TEXT.as_bytes())?;
    sync(Some(to))
}

/// What a copy holds, which proves that a server can read it and that its parts belong together.
fn read(copy: &Path) -> Result<Snapshot<Record>, Failure> {
    let store: Store<Record> = installation::open_store(copy)?;
    let snapshot = store.snapshot();
    let pki = copy.join(installation::PKI);
    if !pki.is_dir() {
        return Err(format!(
            "{} has no {}/: without the authority to which hosts are bound a backup is none",
            copy.display(),
            installation::PKI
        )
        .into());
    }
    let own = secret::hash(Pki::open(&pki, runtime::now())?.certificate());
    if installation::known_authority(&snapshot).is_some_and(|known| known != own) {
        return Err(format!(
            "{} does not belong to the database beside it: it is another authority",
            pki.display()
        )
        .into());
    }
    Ok(snapshot)
}

/// Moves what is there out of the way, for an operator who has second thoughts. The database goes
/// first: without it no server starts here, whatever else is missing.
fn set_aside(data: &Path, now: Timestamp) -> Result<(), Failure> {
    let aside = data.join(format!("replaced-{}", now.0));
    let log = ["-wal", "-shm"].map(|end| format!("{}{end}", data::STORE));
    let parts = [data::STORE, &log[0], &log[1]].into_iter().chain(BESIDE);
    for part in parts.filter(|part| fs::symlink_metadata(data.join(part)).is_ok()) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&aside);
        made.and_then(|()| fs::rename(data.join(part), aside.join(part)))
            .map_err(|cause| format!("cannot move {part} to {}: {cause}", aside.display()))?;
    }
    sync(Some(data))
}

/// Moves a restored copy in. The database comes last: a crash before that is told as a loss, and
/// restoring again helps.
fn put(partial: &Path, data: &Path) -> Result<(), Failure> {
    for part in BESIDE.into_iter().chain([installation::MARKER, data::STORE]) {
        if fs::symlink_metadata(partial.join(part)).is_ok() {
            fs::rename(partial.join(part), data.join(part)).map_err(|cause| {
                format!("cannot move {part} to {}: {cause}; restore again", data.display())
            })?;
            sync(Some(data))?;
        }
    }
    fs::remove_dir_all(partial).map_err(|cause| {
        format!("restored, but cannot remove {}: {cause}", partial.display()).into()
    })
}

fn sync(directory: Option<&Path>) -> Result<(), Failure> {
    let named = directory.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(named)?.sync_all()?)
}

/// What would be lost.
#[derive(Debug, PartialEq, Eq)]
struct Lost {
    revisions: (u64, u64),
    made: BTreeMap<String, usize>,
    changed: usize,
    deleted: usize,
}

impl Lost {
    fn between(now: &Snapshot<Record>, backup: &Snapshot<Record>) -> Self {
        let revisions = (now.revision(), backup.revision());
        let mut lost = Self { revisions, made: BTreeMap::new(), changed: 0, deleted: 0 };
        // What nobody can ask for is not missed.
        for &kind in Kind::ALL.iter().filter(|kind| !kind.def().faces.is_empty()) {
            for record in now.list(kind) {
                match backup.get(kind, record.uuid()) {
                    None => *lost.made.entry(format!("{kind:?}")).or_default() += 1,
                    Some(then) => lost.changed += usize::from(then != record),
                }
            }
            lost.deleted += backup.ids(kind).filter(|id| now.get(kind, *id).is_none()).count();
        }
        lost
    }

    fn is_nothing(&self) -> bool {
        self.made.is_empty() && self.changed == 0 && self.deleted == 0
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (now, backup) = self.revisions;
        write!(f, "the database is at revision {now}, the backup at {backup}. Lost would be")?;
        let made: Vec<_> = self.made.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        match made.is_empty() {
            true => write!(f, " nothing that was made")?,
            false => write!(f, " what was made since ({})", made.join(", "))?,
        }
        write!(f, ", {} changes; {} deletions would be undone", self.changed, self.deleted)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

    use model::{
        Id, Meta,
        resource::zone::{EnableState, Zone, ZoneType},
    };
    use uuid::Uuid;

    use super::*;
    use crate::installation::OnLoss;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn start(data: &Path) -> Store<Record> {
        installation::open(data, OnLoss::Refuse, (Uuid::new_v4(), NOW)).unwrap().0
    }

    fn zone(store: &Store<Record>, name: &str) {
        let zone = Zone {
            uuid: Id::new(Uuid::new_v4()),
            name: name.to_owned(),
            description: None,
            state: EnableState::Enabled,
            zone_type: ZoneType::Zstack,
            is_default: false,
        };
        let put = move |tx: &mut store::Tx<Record>| {
            tx.put(Record::new(zone.clone(), Meta::default())).unwrap();
            Ok(())
        };
        store.transact(put).unwrap();
    }

    fn zones(data: &Path) -> usize {
        start(data).snapshot().list(Kind::Zone).count()
    }

    fn make(data: &Path, to: &Path) -> Result<ExitCode, Failure> {
        backup(&Backup { data: data.to_owned(), to: to.to_owned() })
    }

    fn bring_back(data: &Path, from: &Path, force: bool) -> Result<(), String> {
        let arguments = Restore { data: data.to_owned(), from: from.to_owned(), force };
        restore(&arguments).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_backup_of_a_running_server_brings_back_what_was_there_then() {
        let scratch = tempfile::tempdir().unwrap();
        let [data, to] = ["d", "backup"].map(|name| scratch.path().join(name));
        let store = start(&data);
        zone(&store, "first");
        make(&data, &to).unwrap();
        zone(&store, "second");
        drop(store);
        let authority = fs::read(data.join("pki/ca.pem")).unwrap();
        let refused = bring_back(&data, &to, false).unwrap_err();
        let says = ["made since (1 Zone)", "0 changes", "--force"];
        assert!(says.iter().all(|word| refused.contains(word)), "{refused}");
        assert_eq!(zones(&data), 2, "nothing has changed");
        bring_back(&data, &to, true).unwrap();
        assert_eq!(zones(&data), 1);
        assert_eq!(fs::read(data.join("pki/ca.pem")).unwrap(), authority);
        let names = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        assert!(names.iter().any(|name| name.starts_with("replaced-")), "{names:?}");
        assert!(!names.iter().any(|name| name == PARTIAL), "{names:?}");
    }

    #[test]
    fn a_lost_directory_is_restored_with_its_authority() {
        let scratch = tempfile::tempdir().unwrap();
        let [data, to] = ["d", "backup"].map(|name| scratch.path().join(name));
        zone(&start(&data), "z");
        make(&data, &to).unwrap();
        let authority = fs::read(data.join("pki/ca.pem")).unwrap();
        fs::remove_dir_all(&data).unwrap();
        bring_back(&data, &to, false).unwrap();
        assert_eq!(zones(&data), 1);
        assert_eq!(fs::read(data.join("pki/ca.pem")).unwrap(), authority);
    }

    #[test]
    fn a_running_servers_database_is_not_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let [data, to] = ["d", "backup"].map(|name| scratch.path().join(name));
        let running = start(&data);
        make(&data, &to).unwrap();
        let refused = bring_back(&data, &to, true).unwrap_err();
        assert!(refused.contains("another"), "{refused}");
        zone(&running, "z");
        drop(running);
        assert_eq!(zones(&data), 1);
    }

    #[test]
    fn what_is_no_backup_is_refused_and_nothing_is_made() {
        let scratch = tempfile::tempdir().unwrap();
        let [data, to, other] = ["d", "backup", "other"].map(|name| scratch.path().join(name));
        assert!(make(&data, &to).unwrap_err().to_string().contains("--data"));
        assert!(!to.exists() && !data.exists());
        drop(start(&data));
        make(&data, &to).unwrap();
        assert!(make(&data, &to).unwrap_err().to_string().contains("--to"));
        // The authority of another installation.
        drop(start(&other));
        fs::copy(other.join("pki/ca.pem"), to.join("pki/ca.pem")).unwrap();
        let refused = bring_back(&data, &to, true).unwrap_err();
        assert!(refused.contains("another authority"), "{refused}");
        fs::remove_dir_all(to.join("pki")).unwrap();
        assert!(bring_back(&data, &to, true).unwrap_err().contains("backup is none"));
        fs::write(to.join(data::STORE), "nonsense").unwrap();
        bring_back(&data, &to, true).unwrap_err();
        fs::remove_file(to.join(data::STORE)).unwrap();
        assert!(bring_back(&data, &to, true).unwrap_err().contains("--from"));
        assert!(installation::open(&data, OnLoss::Refuse, (Uuid::new_v4(), NOW)).is_ok());
    }
}
