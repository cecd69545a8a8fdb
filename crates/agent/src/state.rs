//! The last desired state on disk: what the agent applies before it has ever talked to a server.
//!
//! It is written before it is applied, so a crash in between is finished at the next start. A file
//! that is damaged, or that another release wrote in a form that this one cannot read, is moved aside,
//! and nothing is taken down until the server has said what is wanted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use wire::{
    codec::{self, Saved},
    digest::TableDigests,
    durable,
    holding::Holding,
};

use crate::Error;

/// The file's name in the data directory.
const FILE: &str = "state";

/// How a file begins; then comes the SHA-256 of the rest.
const MAGIC: &[u8] = b"netloom state 2\n";

/// Bytes of a SHA-256.
const CHECKSUM_BYTES: usize = 32;

/// What the host must hold.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    /// The store's revision.
    pub(crate) revision: u64,
    /// The lineage of the server that told it so, if it said it.
    pub(crate) lineage: Option<Uuid>,
    pub(crate) holding: Arc<Holding>,
}

/// What tells whether a state is worth writing again: revisions that change nothing here are not.
type Mark = (Option<Uuid>, TableDigests);

/// The file, and what is in it.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    saved: Option<Mark>,
}

impl StateFile {
    /// Reads what was saved last; `None` when that is not known. Blocks, before all else.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Option<Desired>), Error> {
        let path = directory.join(FILE);
        let failed = |action| Error::file(&path, action);
        fs::create_dir_all(directory).map_err(failed("make its directory"))?;
        let desired = match read(directory)? {
            Ok(saved) => saved,
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
        let saved = desired.as_ref().map(Desired::mark);
        Ok((Self { path, saved }, desired))
    }

    /// Makes this state durable, unless its objects are saved already. Blocks.
    ///
    /// # Errors
    /// The kernel's; the old state is then still there.
    pub(crate) fn save(&mut self, desired: &Desired) -> io::Result<()> {
        let mark = desired.mark();
        if self.saved == Some(mark) {
            return Ok(());
        }
        durable::replace(&self.path, &render(desired))?;
        self.saved = Some(mark);
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
    let path = directory.join(FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(None)),
        Err(error) => Err(Error::file(&path, "read")(error)),
        Ok(bytes) => Ok(parse(&bytes).map(Some)),
    }
}

fn render(desired: &Desired) -> Vec<u8> {
    let Desired { revision, lineage, holding } = desired;
    let objects = holding.objects().values().cloned().collect();
    let body = codec::encode_state(&Saved { revision: *revision, lineage: *lineage, objects });
    [MAGIC, Sha256::digest(&body).as_slice(), &body].concat()
}

fn parse(bytes: &[u8]) -> Result<Desired, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a state of this version")?;
    let (checksum, body) = rest.split_at_checked(CHECKSUM_BYTES).ok_or("too short")?;
    if Sha256::digest(body).as_slice() != checksum {
        return Err("wrong checksum".to_owned());
    }
    let saved = codec::decode_state(body).map_err(|error| error.to_string())?;
    let Saved { revision, lineage, objects } = saved;
    Ok(Desired { revision, lineage, holding: Arc::new(objects.into_iter().collect()) })
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
        let bytes = render(&desired());
        for at in [0, MAGIC.len(), MAGIC.len() + CHECKSUM_BYTES, bytes.len() - 1] {
            let directory = tempfile::tempdir().unwrap();
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(directory.path().join(FILE), &damaged).unwrap();
            assert!(StateFile::open(directory.path()).unwrap().1.is_none(), "byte {at}");
            assert_eq!(fs::read(directory.path().join("state.damaged")).unwrap(), damaged);
            assert!(!directory.path().join(FILE).exists());
        }
        for length in 0..MAGIC.len() + CHECKSUM_BYTES {
            assert!(parse(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn a_state_of_the_first_release_is_not_taken_for_one_that_wants_nothing() {
        let bytes = [b"netloom state 1\n", &render(&desired())[MAGIC.len()..]].concat();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), &bytes).unwrap();
        assert!(StateFile::open(directory.path()).unwrap().1.is_none());
    }

    #[test]
    fn the_same_objects_are_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, _) = StateFile::open(directory.path()).unwrap();
        file.save(&desired()).unwrap();
        fs::remove_file(directory.path().join(FILE)).unwrap();
        file.save(&Desired { revision: 8, ..desired() }).unwrap();
        assert!(!directory.path().join(FILE).exists());
        file.save(&Desired { lineage: None, ..desired() }).unwrap();
        assert!(directory.path().join(FILE).exists(), "of another store");
    }
}
