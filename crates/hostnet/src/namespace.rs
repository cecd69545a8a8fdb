//! Named network namespaces, kept as iproute2 keeps them.
//!
//! A namespace is a file in `/run/netns` onto which the kernel's handle is mounted; it lives on
//! without any process. What must happen inside runs on a thread of its own, so the caller's
//! threads never change their namespace. Never `ip netns exec`, which would bring a private mount
//! namespace in which such mounts are invisible to everybody else.
//!
//! Source: iproute2 `ip/ipnetns.c` (`netns_add`, `netns_delete`).

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    panic,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};

use crate::{Error, Netlink};

const DIRECTORY: &str = "/run/netns";
/// The calling thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// How many mounts `remove` takes off one file; more than one comes only from a race of others.
const STACKED_MOUNTS_MAX: usize = 16;

/// An open network namespace. It stays usable, even when its name is removed, until dropped.
#[derive(Clone, Debug)]
pub struct Namespace {
    pub(crate) name: Arc<str>,
    pub(crate) file: Arc<File>,
}

impl Namespace {
    /// Opens the namespace `name`, after making it where it does not exist.
    ///
    /// A leftover file onto which nothing is mounted, from a crash between two steps, is reused.
    /// Blocks for about a millisecond.
    ///
    /// # Errors
    /// [`Error::InvalidName`], or what the kernel says.
    pub fn create(name: &str) -> Result<Self, Error> {
        match Self::open(name) {
            Err(Error::NoNamespace { .. }) => {}
            done => return done,
        }
        let path = path_of(name)?;
        // The thread's end lets go of the namespace when another caller was faster.
        on_own_thread(name, || publish(&path))?
            .map_err(|source| Error::kernel(name, "create the namespace", source))?;
        Self::open(name)
    }

    /// Opens the namespace `name`.
    ///
    /// # Errors
    /// [`Error::NoNamespace`] when there is none, or only a leftover file.
    pub fn open(name: &str) -> Result<Self, Error> {
        let path = path_of(name)?;
        let none = || Error::NoNamespace { name: name.to_owned() };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(none()),
            Err(error) => return Err(Error::kernel(name, "open the namespace", error)),
        };
        if !is_live(&file).map_err(|error| Error::kernel(name, "open the namespace", error))? {
            return Err(none());
        }
        Ok(Self { name: name.into(), file: Arc::new(file) })
    }

    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel says when `/proc` is not mounted.
    pub fn current() -> Result<Self, Error> {
        let name = "(current)";
        let file = File::open(OWN).map_err(|error| Error::kernel(name, "open it", error))?;
        Ok(Self { name: name.into(), file: Arc::new(file) })
    }

    /// Makes a namespace without a name: with the last socket, device of a process and value like this
    /// one that keep it, it is gone. `topic` stands for its name in messages.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unnamed(topic: &str) -> Result<Self, Error> {
        let failed = |error| Error::kernel(topic, "make a namespace", error);
        let opened = on_own_thread(topic, || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open(OWN)
        })?;
        Ok(Self { name: topic.into(), file: Arc::new(opened.map_err(failed)?) })
    }

    /// The names of all live namespaces that start with `prefix`, sorted.
    ///
    /// # Errors
    /// What the kernel says when `/run/netns` cannot be read; its absence is an empty list.
    pub fn list(prefix: &str) -> Result<Vec<String>, Error> {
        let failed = |error| Error::kernel(prefix, format!("read {DIRECTORY}"), error);
        let entries = match fs::read_dir(DIRECTORY) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
            if !name.starts_with(prefix) {
                continue;
            }
            match Self::open(&name) {
                Ok(_) => names.push(name),
                Err(Error::NoNamespace { .. }) => {}
                // Not to be taken for "there is none": what runs there would be taken for gone.
                Err(error) => return Err(error),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes the name; the kernel takes the namespace and its devices down once nobody uses it,
    /// which may be after this returns. No such namespace is success. Blocks shortly.
    ///
    /// # Errors
    /// [`Error::InvalidName`], or what the kernel says.
    pub fn remove(name: &str) -> Result<(), Error> {
        let path = path_of(name)?;
        unpublish(&path).map_err(|error| Error::kernel(name, "remove the namespace", error))
    }

    /// Gives the namespace `from` the name `to`, which no namespace may have. It never has both:
    /// for a moment it has neither, and a crash then is its end. Blocks shortly.
    ///
    /// # Errors
    /// [`Error::NoNamespace`] when there is no `from`, [`Error::is_exists`] when there is a `to`, or
    /// what the kernel says.
    pub fn rename(from: &str, to: &str) -> Result<(), Error> {
        let (old, new) = (path_of(from)?, path_of(to)?);
        republish(&Self::open(from)?.file, &old, &new)
            .map_err(|error| Error::kernel(from, format!("rename it to {to}"), error))
    }

    /// Removes the files that a crash left in `/run/netns` between making a file and mounting a
    /// namespace onto it, of those names that `is_ours`. Blocks shortly.
    ///
    /// # Errors
    /// What the kernel says; the other files are gone then.
    pub fn sweep(is_ours: impl Fn(&str) -> bool) -> Result<(), Error> {
        let failed = |error| Error::kernel(DIRECTORY, "remove leftover files", error);
        let entries = match fs::read_dir(DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        // Whoever is making a namespace has the lock until it is mounted.
        let _lock = lock_directory().map_err(failed)?;
        let mut done = Ok(());
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let is_ours = path.file_name().and_then(|name| name.to_str()).is_some_and(&is_ours);
            let is_left =
                is_ours && File::open(&path).is_ok_and(|file| is_live(&file) == Ok(false));
            if is_left && let Err(error) = fs::remove_file(&path) {
                done = Err(failed(error));
            }
        }
        done
    }

    /// The name in `/run/netns`, or `(current)`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether both are the same namespace, under whatever name.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_same(&self, other: &Self) -> Result<bool, Error> {
        let failed = |error| Error::kernel(&self.name, "identify the namespace", error);
        let ours = self.file.metadata().map_err(failed)?;
        let theirs = other.file.metadata().map_err(failed)?;
        Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()))
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    ///
    /// What `work` opens (sockets above all) stays in the namespace. A panic of `work` is passed
    /// on. Blocks: from async code wrap it in `spawn_blocking` if `work` does more than open.
    ///
    /// # Errors
    /// What the kernel says when it refuses a thread or the change of namespace.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_own_thread(&self.name, || {
            setns(&*self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::kernel(&self.name, "enter the namespace", errno))?;
            Ok(work())
        })?
    }

    /// Opens a netlink socket in this namespace; requests then need no change of namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn netlink(&self) -> Result<Netlink, Error> {
        Netlink::open(self).await
    }
}

fn path_of(name: &str) -> Result<PathBuf, Error> {
    if name.is_empty()
        || name.len() > 255
        || name == "."
        || name == ".."
        || name.contains(['/', '\0'])
    {
        let rule = "a namespace is a file name of 1 to 255 bytes, without '/'";
        return Err(Error::InvalidName { name: name.to_owned(), rule });
    }
    Ok(Path::new(DIRECTORY).join(name))
}

fn is_live(file: &File) -> nix::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == NSFS_MAGIC)
}

fn on_own_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::kernel(name, "start a thread", error))?;
        Ok(thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause)))
    })
}

/// Gives the calling thread a new namespace and mounts it onto `path`, unless one is there.
fn publish(path: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let _lock = lock_directory()?;
    if File::open(path).is_ok_and(|file| is_live(&file) == Ok(true)) {
        return Ok(());
    }
    File::options().append(true).create(true).mode(0o600).open(path)?;
    mount(Some(OWN), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

/// A mount below a shared one cannot be moved, so it is taken off and made anew.
fn republish(namespace: &File, old: &Path, new: &Path) -> io::Result<()> {
    let lock = lock_directory()?;
    if File::open(new).is_ok_and(|file| is_live(&file) == Ok(true)) {
        return Err(Errno::EEXIST.into());
    }
    File::options().append(true).create(true).mode(0o600).open(new)?;
    take_off(old, &lock)?;
    let open = format!("/proc/thread-self/fd/{}", namespace.as_raw_fd());
    mount(Some(open.as_str()), new, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

fn unpublish(path: &Path) -> io::Result<()> {
    if !path.try_exists()? {
        return Ok(());
    }
    take_off(path, &lock_directory()?)
}

/// Takes the namespace off its file, and the file away.
fn take_off(path: &Path, _lock: &Flock<File>) -> io::Result<()> {
    for _ in 0..STACKED_MOUNTS_MAX {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // EINVAL: no mount here (any more).
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the directory a shared mount, so that mounts in it reach every mount namespace, and
/// holds the lock that iproute2 takes for the same purpose.
fn lock_directory() -> io::Result<Flock<File>> {
    fs::create_dir_all(DIRECTORY)?;
    let lock = Flock::lock(File::open(DIRECTORY)?, FlockArg::LockExclusive)
        .map_err(|(_, errno)| io::Error::from(errno))?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, DIRECTORY, None::<&str>, flags, None::<&str>)
    };
    match share() {
        Ok(()) => {}
        // EINVAL: not a mount point yet.
        Err(Errno::EINVAL) => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(DIRECTORY), DIRECTORY, None::<&str>, flags, None::<&str>)?;
            share()?;
        }
        Err(errno) => return Err(errno.into()),
    }
    Ok(lock)
}
