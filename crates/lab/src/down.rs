//! Taking a lab down, from what can be seen on the machine: it works after a crash at any point.
//!
//! Names carry the lab's name, and a name belongs to one state root (see [`crate::owner`]), so
//! nothing is touched that is not this lab's.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::Duration,
};

use hostnet::Namespace;
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::Signal,
};

use crate::{
    Error, STATE_ROOT, names,
    owner::{self, Owner},
    process::Process,
    state::Place,
    wait,
};

/// Where iproute2 keeps namespaces: also those that a crash left half made.
const NAMESPACES: &str = "/run/netns";

/// How long the kernel may take to end machines that were killed.
const MACHINES_LIMIT: Duration = Duration::from_secs(10);

/// See [`crate::down`].
pub(crate) fn down(name: &str, state_root: &Path) -> Result<(), Error> {
    let place = Place::new(name, state_root)?;
    let lock = place.lock()?;
    remove(&place)?;
    // Others that wait for the lock notice, and make the directory anew.
    let is_empty = fs::remove_dir(&place.root).is_ok();
    if is_empty && place.root == Path::new(STATE_ROOT) {
        place.root.parent().map(fs::remove_dir);
    }
    drop(lock);
    Ok(())
}

/// Removes everything of a lab; goes on after a failure, and reports the first one.
pub(crate) fn remove(place: &Place) -> Result<(), Error> {
    let mut first = Ok(());
    let mut note = |done: Result<(), Error>| {
        if let Err(error) = done {
            tracing::warn!(lab = place.lab, %error, "part of the lab stays behind");
            first = std::mem::replace(&mut first, Ok(())).and(Err(error));
        }
    };
    let owner = owner::adopt(place)?;
    let processes = Process::all(place, &hosts(place, &namespaces(&place.lab)?));
    // All at once, then one after the other.
    processes.iter().for_each(|process| note(process.signal(Signal::SIGTERM)));
    processes.iter().for_each(|process| note(process.stop()));
    // These outlive their agents, as they should.
    processes.iter().for_each(|process| note(end_machines(&process.data())));
    // Looked for only now: until it ends, an agent may make one more.
    match namespaces(&place.lab) {
        Ok(_) if owner != Owner::Own => {}
        Ok(left) => left.iter().for_each(|name| note(Namespace::remove(name).map_err(Error::from))),
        Err(error) => note(Err(error)),
    }
    note(unmount(&place.dir()));
    if let Owner::Other(root) = owner {
        note(Err(owner::owned(place, root)));
    }
    // The directory goes last: it tells a later run that the lab was this root's.
    note(owner::release(place));
    note(remove_directory(&place.dir()));
    first
}

/// Ends the instances of a host that are machines.
fn end_machines(data: &Path) -> Result<(), Error> {
    let ended = wait::until(MACHINES_LIMIT, || match compute::end_all(data) {
        Ok(0) => Ok(Some(())),
        Ok(_) => Ok(None),
        Err(error) => {
            let what = format_args!("end what runs in {}", data.display());
            Err(Error::io(what, io::Error::other(error)))
        }
    });
    match ended? {
        Some(()) => Ok(()),
        None => {
            let late = io::Error::from(io::ErrorKind::TimedOut);
            Err(Error::io(format_args!("end what runs in {}", data.display()), late))
        }
    }
}

/// The hosts that the lab ever had: listed in its settings, or with a namespace.
fn hosts(place: &Place, namespaces: &[String]) -> Vec<String> {
    let listed = place.settings().ok().flatten().map(|settings| settings.hosts);
    let prefix = names::prefix(&place.lab);
    let seen = namespaces.iter().filter_map(|name| name.strip_prefix(&prefix)?.split('-').next());
    let seen = seen.filter(|host| names::check_host(host).is_ok()).map(str::to_owned);
    let all: BTreeSet<String> = listed.into_iter().flatten().chain(seen).collect();
    all.into_iter().collect()
}

/// The namespaces of a lab of this name, half-made ones too.
pub(crate) fn namespaces(lab: &str) -> Result<Vec<String>, Error> {
    let prefix = names::prefix(lab);
    let entries = match fs::read_dir(NAMESPACES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format_args!("read {NAMESPACES}"), error)),
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(&prefix)).collect())
}

/// Takes off the bpf file systems of the agents, and with them every pinned map and program.
fn unmount(dir: &Path) -> Result<(), Error> {
    let table = fs::read("/proc/self/mountinfo");
    let table = table.map_err(|error| Error::io("read /proc/self/mountinfo", error))?;
    // The youngest mount is last, and lies on top.
    for point in mounts_below(&table, dir).iter().rev() {
        match umount2(point, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => {
                return Err(Error::io(format_args!("unmount {}", point.display()), errno));
            }
        }
    }
    Ok(())
}

/// The mount points at or below `dir`, in the order of the table (proc_pid_mountinfo(5)).
fn mounts_below(table: &[u8], dir: &Path) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4)).map(unescape);
    points.filter(|point| point.starts_with(dir)).collect()
}

/// Blanks are written as `\040`, and so on.
fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code =
            code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn remove_directory(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format_args!("remove {}", dir.display()), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_this_lab_are_found_and_others_are_not() {
        let table = b"29 1 0:1 / /run rw shared:1 - tmpfs tmpfs rw\n\
            30 29 0:2 / /run/lab/a/h1/bpf rw - bpf bpf rw\n\
            31 29 0:2 / /run/lab/ab/h1/bpf rw - bpf bpf rw\n\
            32 29 0:2 / /run/lab/a/x\\040y rw - bpf bpf rw\n";
        let found = mounts_below(table, Path::new("/run/lab/a"));
        assert_eq!(found, [Path::new("/run/lab/a/h1/bpf"), Path::new("/run/lab/a/x y")]);
    }
}
