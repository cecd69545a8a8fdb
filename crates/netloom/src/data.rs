//! The server's data directory: there, and for its owner alone.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use crate::Failure;

/// The store's file in it.
pub(crate) const STORE: &str = "netloom.db";

/// Makes the directory, or takes one that is there. It holds password hashes and the key of the
/// agents' authority, so others may not enter it: an empty one, or one of an earlier server, is
/// closed to them. Any other directory is not ours to close.
pub(crate) fn open(data: &Path) -> Result<(), Failure> {
    let path = data.display();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(|cause| {
        format!("cannot make {path}: {cause}; choose a directory that you may write with --data")
    })?;
    let unusable = |cause: io::Error| {
        format!("cannot use {path}: {cause}; choose a directory of your own with --data")
    };
    let mode = fs::metadata(data).map_err(unusable)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let is_empty = fs::read_dir(data).map_err(unusable)?.next().is_none();
    if !is_empty && !data.join(STORE).exists() {
        return Err(format!(
            "{path} is open to other users (mode {:03o}) and has something else in it; choose an \
             empty directory with --data, or chmod 700 this one",
            mode & 0o777
        )
        .into());
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).map_err(unusable)?;
    tracing::warn!(dir = %path, "closed to other users: it holds secrets");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

    use std::path::PathBuf;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn wide(path: &Path) -> PathBuf {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_owned()
    }

    #[test]
    fn nobody_else_may_enter() {
        let scratch = tempfile::tempdir().unwrap();
        let new = scratch.path().join("a/b");
        open(&new).unwrap();
        assert_eq!(mode(&new), 0o700);

        let empty = wide(&scratch.path().join("empty"));
        open(&empty).unwrap();
        assert_eq!(mode(&empty), 0o700);

        let ours = wide(&scratch.path().join("ours"));
        fs::write(ours.join(STORE), "").unwrap();
        open(&ours).unwrap();
        assert_eq!(mode(&ours), 0o700);

        let foreign = wide(&scratch.path().join("foreign"));
        fs::write(foreign.join("letters"), "").unwrap();
        let refused = open(&foreign).unwrap_err().to_string();
        assert!(refused.contains("mode 755") && refused.contains("--data"), "{refused}");
        assert_eq!(mode(&foreign), 0o755, "left as it was");

        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(open(&file).unwrap_err().to_string().contains("--data"));
    }
}
