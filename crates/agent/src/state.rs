//! The last desired state on disk: what the agent applies before it has ever talked to a server.
//!
//! The file is a log: a record of everything, then a record for each change, so that a change costs
//! what it is and not what there is. When the changes are longer than the whole, it is begun anew.
//!
//! A change is written before it is applied, so a crash in between is finished at the next start. A
//! last record that a crash cut off was never applied, and is dropped. A file that is damaged
//! otherwise, or that another release wrote in a form that this one cannot read, is moved aside,
//! and nothing is taken down until the server has said what is wanted.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use imbl::ordmap::DiffItem;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use wire::{
    codec::{self, Saved},
    digest::TableDigests,
    durable,
    holding::Holding,
    object::{ObjectKey, Table},
};

use crate::Error;

/// The file's name in the data directory.
const FILE: &str = "state";

/// How a file begins; then come records.
const MAGIC: &[u8] = b"netloom state 3\n";

/// How a file of an earlier release begins; then comes the SHA-256 of the rest, the saved state.
const MAGIC_WHOLE: &[u8] = b"netloom state 2\n";

/// Bytes of a SHA-256.
const CHECKSUM_BYTES: usize = 32;

/// A record begins with the length of its body, the same with all bits inverted, and the body's
/// SHA-256. The body has the number of removed keys, these, and a saved state of the rest.
const HEADER_BYTES: usize = 8 + CHECKSUM_BYTES;

/// Bytes of a removed key: its table's number and its uuid.
const KEY_BYTES: usize = 4 + 16;

/// Bytes of changes that are never too many.
const CHANGES_BYTES_MIN: u64 = 64 * 1024;

/// What the host must hold.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The store's revision.
    pub revision: u64,
    /// The lineage of the server that told it so, if it said it.
    pub lineage: Option<Uuid>,
    /// The objects.
    pub holding: Arc<Holding>,
}

/// What tells whether a state is worth writing again: revisions that change nothing here are not.
type Mark = (Option<Uuid>, TableDigests);

/// The file, and what is in it.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    saved: Option<Desired>,
    log: Option<Log>,
    /// The file as it was left.
    left: Option<Stamp>,
}

/// What tells whether somebody else has changed a file: its inode, length, and time of change.
type Stamp = (u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec()))
}

/// A file to which changes can be added.
#[derive(Debug)]
struct Log {
    file: File,
    /// Bytes of the record of everything.
    whole: u64,
    /// Bytes up to the end of the last good record.
    end: u64,
}

/// What was read from a file.
struct Read {
    desired: Desired,
    /// Bytes of the record of everything, and up to the end of the last good record; none in a
    /// file to which nothing can be added.
    log: Option<(u64, u64)>,
}

impl StateFile {
    /// Reads what was saved last; `None` when that is not known. Blocks, before all else.
    ///
    /// # Errors
    /// [`Error::File`] when the directory or the file cannot be used.
    pub fn open(directory: &Path) -> Result<(Self, Option<Desired>), Error> {
        let path = directory.join(FILE);
        let failed = |action| Error::file(&path, action);
        fs::create_dir_all(directory).map_err(failed("make its directory"))?;
        let read = match read_file(directory)? {
            Ok(read) => read,
            Err(reason) => {
                let aside = path.with_extension("damaged");
                fs::rename(&path, &aside).map_err(failed("move the damaged file aside"))?;
                tracing::error!(
                    file = %aside.display(), reason,
                    "the saved state cannot be read and was moved aside; everything that runs \
                     stays as it is until the server says what is wanted"
                );
                None
            }
        };
        let mut log = None;
        if let Some((whole, end)) = read.as_ref().and_then(|read| read.log) {
            let open = Log::open(&path, whole).and_then(|mut log| log.cut(end).map(|()| log));
            log = Some(open.map_err(failed("open"))?);
        }
        let saved = read.map(|read| read.desired);
        let left = stamp(&path);
        Ok((Self { path, saved: saved.clone(), log, left }, saved))
    }

    /// Makes this state durable, unless its objects are saved already, in a file that is as it was
    /// left. Blocks.
    ///
    /// # Errors
    /// The kernel's; the old state is then still there.
    pub fn save(&mut self, desired: &Desired) -> io::Result<()> {
        let is_untouched = self.left.is_some() && stamp(&self.path) == self.left;
        if is_untouched && self.saved.as_ref().map(Desired::mark) == Some(desired.mark()) {
            return Ok(());
        }
        if !is_untouched {
            self.log = None;
        }
        // Until the end, nothing is known of the file.
        self.left = None;
        if !self.append(desired)? {
            self.log = None;
            let content = [MAGIC, &whole(desired)].concat();
            durable::replace(&self.path, &content)?;
            self.log = Log::open(&self.path, content.len() as u64).ok();
        }
        self.saved = Some(desired.clone());
        self.left = stamp(&self.path);
        Ok(())
    }

    /// Adds a change; whether that is possible and worth it.
    fn append(&mut self, desired: &Desired) -> io::Result<bool> {
        let (Some(log), Some(saved)) = (&mut self.log, &self.saved) else { return Ok(false) };
        let record = change(saved, desired);
        let grown = log.end - log.whole + record.len() as u64;
        if grown > log.whole.max(CHANGES_BYTES_MIN) {
            return Ok(false);
        }
        let added = log.file.write_all(&record).and_then(|()| log.file.sync_data());
        if added.is_err() {
            // The disk is full, perhaps: what is half written must not stand before the next.
            let end = log.end;
            match log.cut(end) {
                Ok(()) => self.left = stamp(&self.path),
                Err(_) => self.log = None,
            }
        } else {
            log.end += record.len() as u64;
        }
        added.map(|()| true)
    }
}

impl Log {
    fn open(path: &Path, whole: u64) -> io::Result<Self> {
        let file = File::options().append(true).open(path)?;
        Ok(Self { file, whole, end: whole })
    }

    /// Cuts off what stands after the last good record.
    fn cut(&mut self, end: u64) -> io::Result<()> {
        self.end = end;
        if self.file.metadata()?.len() > end {
            self.file.set_len(end)?;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl Desired {
    fn mark(&self) -> Mark {
        (self.lineage, self.holding.digests())
    }
}

/// What was saved last, if anything was; within, why it cannot be understood. Changes nothing.
pub(crate) fn read(directory: &Path) -> Result<Result<Option<Desired>, String>, Error> {
    Ok(read_file(directory)?.map(|read| read.map(|read| read.desired)))
}

fn read_file(directory: &Path) -> Result<Result<Option<Read>, String>, Error> {
    let path = directory.join(FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(None)),
        Err(error) => Err(Error::file(&path, "read")(error)),
        Ok(bytes) => Ok(parse(&bytes).map(Some)),
    }
}

/// The record of everything.
fn whole(desired: &Desired) -> Vec<u8> {
    let nothing = Desired { holding: Arc::default(), ..desired.clone() };
    change(&nothing, desired)
}

/// The record of what leads from one state to the next.
fn change(before: &Desired, after: &Desired) -> Vec<u8> {
    let (mut removed, mut objects) = (Vec::new(), Vec::new());
    for item in before.holding.objects().diff(after.holding.objects()) {
        match item {
            DiffItem::Add(_, object) | DiffItem::Update { new: (_, object), .. } => {
                objects.push(object.clone());
            }
            DiffItem::Remove(key, _) => removed.push(*key),
        }
    }
    let count = u32::try_from(removed.len()).unwrap_or(u32::MAX);
    let mut body = count.to_be_bytes().to_vec();
    for key in removed {
        body.extend(key.table.number().to_be_bytes());
        body.extend(key.uuid.as_bytes());
    }
    let Desired { revision, lineage, .. } = *after;
    body.extend(codec::encode_state(&Saved { revision, lineage, objects }));
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let lengths = [length.to_be_bytes(), (!length).to_be_bytes()].concat();
    [lengths.as_slice(), Sha256::digest(&body).as_slice(), &body].concat()
}

fn parse(bytes: &[u8]) -> Result<Read, String> {
    if let Some(rest) = bytes.strip_prefix(MAGIC_WHOLE) {
        let (checksum, body) = rest.split_at_checked(CHECKSUM_BYTES).ok_or("too short")?;
        check(checksum, body)?;
        let mut desired = nothing();
        put(&mut desired, &[], body)?;
        return Ok(Read { desired, log: None });
    }
    let mut rest = bytes.strip_prefix(MAGIC).ok_or("not a state of this version")?;
    let Some(body) = next(&mut rest)? else { return Err("cut off".to_owned()) };
    let mut desired = nothing();
    apply(&mut desired, body)?;
    let whole = bytes.len() - rest.len();
    while let Some(body) = next(&mut rest)? {
        apply(&mut desired, body)?;
    }
    let end = bytes.len() - rest.len();
    Ok(Read { desired, log: Some((whole as u64, end as u64)) })
}

fn nothing() -> Desired {
    Desired { revision: 0, lineage: None, holding: Arc::default() }
}

/// The body of the next record, if there is one. One that a crash cut off is none: the file may
/// end within it, or with bytes that never reached the disk.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, String> {
    let all = *rest;
    let Some((header, after)) = all.split_at_checked(HEADER_BYTES) else { return Ok(None) };
    let number = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    };
    if number(0) != !number(4) {
        return match all[8..].iter().all(|byte| *byte == 0) {
            true => Ok(None),
            false => Err("a record has no length".to_owned()),
        };
    }
    let length = usize::try_from(number(0)).unwrap_or(usize::MAX);
    let Some((body, after)) = after.split_at_checked(length) else { return Ok(None) };
    match check(&header[8..], body) {
        Err(_) if after.is_empty() => return Ok(None),
        checked => checked?,
    }
    *rest = after;
    Ok(Some(body))
}

fn check(checksum: &[u8], body: &[u8]) -> Result<(), String> {
    let is_right = Sha256::digest(body).as_slice() == checksum;
    is_right.then_some(()).ok_or_else(|| "wrong checksum".to_owned())
}

/// Applies the body of a record.
fn apply(desired: &mut Desired, body: &[u8]) -> Result<(), String> {
    let (count, rest) = body.split_at_checked(4).ok_or("too short")?;
    let count = count.try_into().map_or(0, u32::from_be_bytes);
    let bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(KEY_BYTES);
    let (keys, state) = rest.split_at_checked(bytes).ok_or("too short")?;
    put(desired, keys, state)
}

fn put(desired: &mut Desired, removed: &[u8], state: &[u8]) -> Result<(), String> {
    let saved = codec::decode_state(state).map_err(|error| error.to_string())?;
    let holding = Arc::make_mut(&mut desired.holding);
    for key in removed.chunks_exact(KEY_BYTES) {
        let (table, uuid) = key.split_at(4);
        let table = table.try_into().map_or(0, u32::from_be_bytes);
        let table = Table::from_number(table).ok_or("an object of an unknown table")?;
        let uuid = Uuid::from_slice(uuid).map_err(|error| error.to_string())?;
        holding.remove(&ObjectKey { table, uuid });
    }
    saved.objects.into_iter().for_each(|object| holding.upsert(object));
    (desired.revision, desired.lineage) = (saved.revision, saved.lineage);
    Ok(())
}

/// Whether these bytes are a file, or what a checksum protects in one.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn is_understood(bytes: &[u8]) -> bool {
    let (file, record) = (parse(bytes).is_ok(), apply(&mut nothing(), bytes).is_ok());
    file || record
}

/// A file with two records, and the body of each.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let holding = Arc::new(crate::sample::two_networks());
    let one = Desired { revision: 7, lineage: Some(Uuid::max()), holding };
    let records = [whole(&one), change(&one, &nothing())];
    let bodies = records.iter().map(|record| record[HEADER_BYTES..].to_vec());
    bodies.chain([[MAGIC, &records.concat()].concat()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn desired() -> Desired {
        {
            let lineage = Some(Uuid::from_u128(7));
            Desired { revision: 7, lineage, holding: Arc::new(sample::two_networks()) }
        }
    }

    #[test]
    fn what_was_saved_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, nothing) = StateFile::open(directory.path()).unwrap();
        assert!(nothing.is_none());
        file.save(&desired()).unwrap();
        let (_, read) = StateFile::open(directory.path()).unwrap();
        let read = read.unwrap();
        let expected = (7, Some(Uuid::from_u128(7)), &sample::two_networks());
        assert_eq!((read.revision, read.lineage, &*read.holding), expected);
    }

    #[test]
    fn any_damage_is_noticed_and_the_file_moved_aside() {
        let bytes = [MAGIC, &whole(&desired())].concat();
        for at in [0, MAGIC.len(), MAGIC.len() + HEADER_BYTES, bytes.len() - 1] {
            let directory = tempfile::tempdir().unwrap();
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(directory.path().join(FILE), &damaged).unwrap();
            assert!(StateFile::open(directory.path()).unwrap().1.is_none(), "byte {at}");
            assert_eq!(fs::read(directory.path().join("state.damaged")).unwrap(), damaged);
            assert!(!directory.path().join(FILE).exists());
        }
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "cut off after {length} bytes");
        }
    }

    #[test]
    fn a_state_of_the_first_release_is_not_taken_for_one_that_wants_nothing() {
        let bytes = [b"netloom state 1\n".as_slice(), &whole(&desired())].concat();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), &bytes).unwrap();
        assert!(StateFile::open(directory.path()).unwrap().1.is_none());
    }

    #[test]
    fn the_same_objects_are_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, _) = StateFile::open(directory.path()).unwrap();
        file.save(&desired()).unwrap();
        let path = directory.path().join(FILE);
        let before = stamp(&path);
        file.save(&Desired { revision: 8, ..desired() }).unwrap();
        assert_eq!(stamp(&path), before);
        file.save(&Desired { lineage: None, ..desired() }).unwrap();
        assert_ne!(stamp(&path), before, "of another store");
    }

    #[test]
    fn a_file_that_somebody_removes_or_damages_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let (mut file, _) = StateFile::open(directory.path()).unwrap();
        let damages: [fn(&Path); 4] = [
            |path| fs::remove_file(path).unwrap(),
            |path| fs::write(path, "").unwrap(),
            |path| {
                let mut bytes = fs::read(path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(path, bytes).unwrap();
            },
            |path| fs::rename(path, path.with_extension("aside")).unwrap(),
        ];
        for (at, damage) in damages.iter().enumerate() {
            file.save(&desired()).unwrap();
            damage(&path);
            // The time of a change has the grain of a tick of the kernel.
            while stamp(&path) == file.left {
                damage(&path);
            }
            file.save(&desired()).unwrap();
            let (_, held) = reopened(directory.path());
            assert_eq!(held.as_deref(), Some(&*desired().holding), "{at}");
        }
    }

    /// The states of a history: peers come and go.
    fn history() -> Vec<Desired> {
        let mut holding = sample::two_networks();
        let state = |at: u8| {
            let peer = sample::peer(100 + u128::from(at), sample::NETWORK_A, at);
            match at % 3 {
                2 => holding.remove(&sample::peer(99 + u128::from(at), 0, 0).key()),
                _ => holding.upsert(peer),
            }
            Desired { revision: at.into(), lineage: None, holding: Arc::new(holding.clone()) }
        };
        (0..60).map(state).collect()
    }

    /// Opens the file; the holding of the state in it.
    fn reopened(directory: &Path) -> (StateFile, Option<Arc<Holding>>) {
        let (file, read) = StateFile::open(directory).unwrap();
        (file, read.map(|desired| desired.holding))
    }

    #[test]
    fn changes_are_added_and_read_back_over_restarts() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, _) = StateFile::open(directory.path()).unwrap();
        let mut before: Option<u64> = None;
        for (at, state) in history().iter().enumerate() {
            file.save(state).unwrap();
            let length = fs::metadata(directory.path().join(FILE)).unwrap().len();
            // A record has some 50 bytes of its own, a peer some 70.
            assert!(before.is_none_or(|before| length - before < 200), "{length} bytes");
            if at % 7 == 0 {
                let (again, held) = reopened(directory.path());
                assert_eq!(held.as_deref(), Some(&*state.holding));
                file = again;
            }
            before = Some(length);
        }
    }

    #[test]
    fn a_record_that_a_crash_cut_off_is_dropped_and_written_over() {
        let states = history();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let (mut file, _) = StateFile::open(directory.path()).unwrap();
        let mut ends = Vec::new();
        for state in &states[..4] {
            file.save(state).unwrap();
            ends.push(usize::try_from(fs::metadata(&path).unwrap().len()).unwrap());
        }
        let bytes = fs::read(&path).unwrap();
        for length in ends[2]..ends[3] {
            let lost = vec![0; ends[3] - length];
            for tail in [&[][..], &lost] {
                fs::write(&path, [&bytes[..length], tail].concat()).unwrap();
                let (mut file, held) = reopened(directory.path());
                assert_eq!(held.as_deref(), Some(&*states[2].holding), "cut off at {length}");
                file.save(&states[5]).unwrap();
                let (_, held) = reopened(directory.path());
                assert_eq!(held.as_deref(), Some(&*states[5].holding));
            }
        }
        // In the middle it is no crash that did it.
        let mut damaged = bytes.clone();
        damaged[ends[1] + HEADER_BYTES + 5] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert!(reopened(directory.path()).1.is_none());
        assert_eq!(fs::read(directory.path().join("state.damaged")).unwrap(), damaged);
    }

    #[test]
    fn the_file_is_begun_anew_when_changes_outgrow_the_whole() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, _) = StateFile::open(directory.path()).unwrap();
        let (one, other) = (desired(), Desired { lineage: None, ..history()[1].clone() });
        let (mut lengths, mut largest) = (Vec::new(), 0);
        for at in 0..800 {
            file.save(if at % 2 == 0 { &one } else { &other }).unwrap();
            lengths.push(fs::metadata(directory.path().join(FILE)).unwrap().len());
            largest = largest.max(lengths[at]);
        }
        assert!(largest < 2 * CHANGES_BYTES_MIN, "{largest} bytes");
        assert!(!lengths.is_sorted());
        assert_eq!(reopened(directory.path()).1.as_deref(), Some(&*other.holding));
    }

    #[test]
    fn a_file_of_the_release_before_is_read() {
        let Desired { revision, lineage, holding } = desired();
        let objects = holding.objects().values().cloned().collect();
        let body = codec::encode_state(&Saved { revision, lineage, objects });
        let bytes = [MAGIC_WHOLE, Sha256::digest(&body).as_slice(), &body].concat();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), &bytes).unwrap();
        let (mut file, held) = reopened(directory.path());
        assert_eq!(held.as_deref(), Some(&*holding));
        file.save(&history()[3]).unwrap();
        assert_eq!(reopened(directory.path()).1.as_deref(), Some(&*history()[3].holding));
    }
}
