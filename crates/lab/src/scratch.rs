//! State roots that live as long as a value, for tests that need root.
//!
//! What lies in one is run and removed as root, so all of them are below a directory that nobody
//! else can change. A root is locked as long as the process that made it lives: one without a lock
//! is a killed test's, and goes, with its labs, when the next one is made. Nobody asks for a pid,
//! which may be another process's by now.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    unistd::geteuid,
};
use uuid::Uuid;

use crate::{
    Error,
    state::{self, make_directory},
};

const ROOTS: &str = "/run/netloom-tests";
const LABS: &str = "labs";
/// The right of the group and of all others to write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A directory of one test alone. When dropped it goes, and its labs are taken down before.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Root {
    /// Makes one, and removes those of tests that are dead.
    ///
    /// # Errors
    /// What the kernel says, or that somebody else can change the directory above.
    pub fn new() -> Result<Self, Error> {
        Self::below(Path::new(ROOTS))
    }

    fn below(roots: &Path) -> Result<Self, Error> {
        // Until ours is locked it looks dead.
        let _lock = lock_roots(roots)?;
        sweep(roots)?;
        let path = roots.join(Uuid::new_v4().simple().to_string());
        make_directory(&path)?;
        let lock = try_lock(open_own(&path)?);
        let taken = || Error::io(format_args!("lock {}", path.display()), io::ErrorKind::Other);
        Ok(Self { _lock: lock.ok_or_else(taken)?, path })
    }

    /// For files of the test.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where labs keep their files.
    pub fn labs(&self) -> PathBuf {
        self.path.join(LABS)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.path) {
            tracing::warn!(root = %self.path.display(), %error, "a test's root stays behind");
        }
        let Some(roots) = self.path.parent() else { return };
        if let Ok(_lock) = lock_roots(roots) {
            // Others have theirs in it, or it is empty.
            fs::remove_dir(roots).ok();
        }
    }
}

fn lock_roots(roots: &Path) -> Result<Flock<File>, Error> {
    let lock = state::lock(roots)?;
    open_own(roots)?;
    Ok(lock)
}

/// Opens a directory that nobody else can change; not by way of a symbolic link.
fn open_own(path: &Path) -> Result<File, Error> {
    let failed = |error: io::Error| Error::io(format_args!("use {}", path.display()), error);
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let directory = File::options().read(true).custom_flags(flags.bits()).open(path);
    let directory = directory.map_err(failed)?;
    let found = directory.metadata().map_err(failed)?;
    if found.uid() != geteuid().as_raw() || found.mode() & WRITABLE_BY_OTHERS != 0 {
        let problem = "another user owns it or may write to it; remove it";
        return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, problem)));
    }
    Ok(directory)
}

/// `None`: somebody holds the lock.
fn try_lock(root: File) -> Option<Flock<File>> {
    Flock::lock(root, FlockArg::LockExclusiveNonblock).ok()
}

/// Removes the roots that nobody has locked. What is no root of ours stays untouched.
fn sweep(roots: &Path) -> Result<(), Error> {
    let failed = |error| Error::io(format_args!("read {}", roots.display()), error);
    for entry in fs::read_dir(roots).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(_lock) = open_own(&path).ok().and_then(try_lock) else { continue };
        if let Err(error) = clear(&path) {
            tracing::warn!(root = %path.display(), %error, "a dead test's root stays behind");
        }
    }
    Ok(())
}

/// Takes down the labs of a root, and removes it once they are gone.
fn clear(root: &Path) -> Result<(), Error> {
    let labs = root.join(LABS);
    if open_own(&labs).is_ok() {
        for lab in state::labs(&labs)? {
            if open_own(&labs.join(&lab)).is_ok() {
                crate::down(&lab, &labs)?;
            }
        }
    }
    // Does not follow symbolic links.
    let removed = fs::remove_dir_all(root);
    removed.map_err(|error| Error::io(format_args!("remove {}", root.display()), error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use hostnet::Namespace;

    use super::*;

    /// A place for roots that other tests do not sweep.
    fn roots() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_place_that_others_can_change_is_refused() {
        if !hostnet::scratch::root_or_skip() {
            return;
        }
        let scratch = roots();
        let path = |name| scratch.path().join(name);
        let make = |name, mode| {
            fs::create_dir(path(name)).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        make("own", 0o700);
        make("group", 0o770);
        make("world", 0o707);
        make("sticky", 0o1777);
        make("theirs", 0o700);
        chown(path("theirs"), Some(1), None).unwrap();
        symlink(path("own"), path("link")).unwrap();
        drop(Root::below(&path("own")).unwrap());
        assert!(!path("own").exists(), "it was empty");
        make("own", 0o700);
        for bad in ["group", "world", "sticky", "theirs", "link"] {
            let error = Root::below(&path(bad)).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
            assert!(path(bad).exists(), "{bad} is not ours to remove");
        }
    }

    #[test]
    fn a_dead_test_s_labs_go_a_live_one_s_stay_and_no_link_is_followed() {
        if !hostnet::scratch::root_or_skip() {
            return;
        }
        let (scratch, elsewhere) = (roots(), roots());
        let roots = scratch.path();
        let lab = format!("s{}", &Uuid::new_v4().simple().to_string()[..11]);
        let live = Root::below(roots).unwrap();
        let dead = roots.join("dead");
        fs::create_dir_all(dead.join(LABS).join(&lab)).unwrap();
        Namespace::create(&format!("nl-{lab}-fabric")).unwrap();
        let kept = elsewhere.path().join("labs/other/file");
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::write(&kept, "").unwrap();
        symlink(elsewhere.path(), roots.join("root")).unwrap();
        symlink(elsewhere.path().join("labs/other"), dead.join("labs/other")).unwrap();
        drop(Root::below(roots).unwrap());
        assert!(!dead.exists());
        assert!(Namespace::open(&format!("nl-{lab}-fabric")).is_err());
        assert!(live.path().exists() && kept.exists());
    }
}
