//! Which state root a lab's name belongs to.
//!
//! Namespaces are known by the lab's name alone, and state roots do not know of each other. So a
//! name is recorded before its first namespace is made, and free again when the last one is gone:
//! no root ever takes or removes the namespaces of another one's lab.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use crate::{
    Error, down,
    state::{self, Place, Settings},
};

/// Holds for each lab a file of its name with the path of its state root. Not below any of them.
const OWNERS: &str = "/run/netloom/owners";

/// Whose a lab's name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The state root's own.
    Own,
    /// Another state root's.
    Other(PathBuf),
    /// Nobody has claimed it.
    Nobody,
}

/// Takes the name for the place's state root, before any namespace is made. `known`: what the root
/// knows of a lab of this name.
///
/// # Errors
/// [`Error::Owned`] when another root has it, [`Error::Unowned`] when there are namespaces of that
/// name and nothing tells whose they are.
pub(crate) fn claim(place: &Place, known: Option<&Settings>) -> Result<(), Error> {
    let _lock = state::lock(Path::new(OWNERS))?;
    match of(place)? {
        Owner::Own => return Ok(()),
        Owner::Other(root) => return Err(owned(place, root)),
        Owner::Nobody => {}
    }
    let namespaces = down::namespaces(&place.lab)?;
    if known.is_none() && !namespaces.is_empty() {
        return Err(Error::Unowned { name: place.lab.clone(), namespaces });
    }
    write(place)
}

/// Whose the name is, before the lab is removed. A lab on disk takes a name that nobody has: the
/// record is lost, or `up` was killed before it wrote one.
pub(crate) fn adopt(place: &Place) -> Result<Owner, Error> {
    let _lock = state::lock(Path::new(OWNERS))?;
    let owner = of(place)?;
    if owner == Owner::Nobody && place.dir().exists() {
        write(place)?;
        return Ok(Owner::Own);
    }
    Ok(owner)
}

/// Gives the name back, unless a namespace of the lab is left.
pub(crate) fn release(place: &Place) -> Result<(), Error> {
    let _lock = state::lock(Path::new(OWNERS))?;
    if of(place)? == Owner::Own && down::namespaces(&place.lab)?.is_empty() {
        let path = record(place);
        let removed = fs::remove_file(&path);
        removed.map_err(|error| Error::io(format_args!("remove {}", path.display()), error))?;
    }
    // Both hold others' files, or are empty.
    if fs::remove_dir(OWNERS).is_ok() {
        Path::new(OWNERS).parent().map(fs::remove_dir);
    }
    Ok(())
}

/// The error that tells where the lab is.
pub(crate) fn owned(place: &Place, owner: PathBuf) -> Error {
    Error::Owned { name: place.lab.clone(), owner }
}

/// Whose the lab's name is.
fn of(place: &Place) -> Result<Owner, Error> {
    let path = record(place);
    match fs::read(&path) {
        Ok(root) if root == place.root.as_os_str().as_bytes() => Ok(Owner::Own),
        Ok(root) => Ok(Owner::Other(PathBuf::from(OsString::from_vec(root)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Owner::Nobody),
        Err(error) => Err(Error::io(format_args!("read {}", path.display()), error)),
    }
}

fn write(place: &Place) -> Result<(), Error> {
    let (path, draft) = (record(place), record(place).with_extension("new"));
    let written = fs::write(&draft, place.root.as_os_str().as_bytes());
    let written = written.and_then(|()| fs::rename(&draft, &path));
    written.map_err(|error| Error::io(format_args!("write {}", path.display()), error))
}

fn record(place: &Place) -> PathBuf {
    Path::new(OWNERS).join(&place.lab)
}

#[cfg(test)]
mod tests {
    use hostnet::Namespace;
    use uuid::Uuid;

    use super::*;
    use crate::{UpOptions, scratch::Root};

    fn options(root: &Root, name: &str) -> UpOptions {
        UpOptions {
            topology: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/two-tenants.yaml"),
            name: name.to_owned(),
            state_root: root.labs(),
            binary: "/bin/false".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            agent_options: Vec::new(),
        }
    }

    #[test]
    fn a_lab_is_neither_taken_nor_removed_by_way_of_another_state_root() {
        if !hostnet::scratch::root_or_skip() {
            return;
        }
        let (ours, theirs) = (Root::new().unwrap(), Root::new().unwrap());
        let name = format!("o{}", &Uuid::new_v4().simple().to_string()[..11]);
        let place = Place::new(&name, &theirs.labs()).unwrap();
        place.create().unwrap();
        claim(&place, None).unwrap();
        let fabric = format!("nl-{name}-fabric");
        Namespace::create(&fabric).unwrap();
        let root = theirs.labs().display().to_string();
        let refused =
            [crate::up(&options(&ours, &name)).map(drop), crate::down(&name, &ours.labs())];
        for refused in refused {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::Owned { .. }), "{error}");
            assert!(error.to_string().contains(&root), "{error}");
            assert!(Namespace::open(&fabric).is_ok());
            assert!(!ours.labs().join(&name).exists());
        }
        crate::down(&name, &theirs.labs()).unwrap();
        assert!(Namespace::open(&fabric).is_err());
        assert_eq!(of(&place).unwrap(), Owner::Nobody);
    }

    #[test]
    fn namespaces_that_nobody_knows_are_left_alone() {
        if !hostnet::scratch::root_or_skip() {
            return;
        }
        let root = Root::new().unwrap();
        let name = format!("o{}", &Uuid::new_v4().simple().to_string()[..11]);
        let place = Place::new(&name, &root.labs()).unwrap();
        let fabric = format!("nl-{name}-fabric");
        Namespace::create(&fabric).unwrap();
        let error = crate::up(&options(&root, &name)).unwrap_err();
        assert!(error.to_string().contains(&fabric), "{error}");
        crate::down(&name, &root.labs()).unwrap();
        assert!(Namespace::open(&fabric).is_ok(), "the lab is not this root's");
        // What an earlier version made is known by its files.
        place.create().unwrap();
        crate::down(&name, &root.labs()).unwrap();
        assert!(Namespace::open(&fabric).is_err());
    }
}
