//! Namespaces and their settings. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{fs, path::Path, thread};

use netloom_hostnet::{
    Error, Namespace,
    scratch::{Scratch, name, root_or_skip},
};

fn own_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
}

#[test]
fn create_twice_gives_the_same_namespace() {
    if !root_or_skip() {
        return;
    }
    let first = Scratch::new("twice").unwrap();
    let second = Namespace::create(first.name()).unwrap();
    assert!(first.is_same(&second).unwrap());
    assert!(!first.is_same(&Namespace::current().unwrap()).unwrap());
    assert!(Namespace::list("nlt-").unwrap().contains(&first.name().to_owned()));
}

#[test]
fn a_namespace_without_a_name_is_nobody_elses() {
    if !root_or_skip() {
        return;
    }
    let [first, second] = ["one", "one"].map(|topic| Namespace::unnamed(topic).unwrap());
    assert!(!first.is_same(&second).unwrap());
    assert!(!first.is_same(&Namespace::current().unwrap()).unwrap());
    assert!(matches!(Namespace::open("one"), Err(Error::NoNamespace { .. })));
    let inodes = [&first, &first.clone()].map(|it| it.run_in(own_namespace).unwrap());
    assert_eq!(inodes[0], inodes[1]);
}

#[test]
fn creators_at_the_same_time_agree_on_one_namespace() {
    if !root_or_skip() {
        return;
    }
    let name = name("race");
    let made: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| Namespace::create(&name))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    let inodes: Vec<_> = made.iter().map(|it| it.run_in(own_namespace).unwrap()).collect();
    assert!(inodes.iter().all(|inode| *inode == inodes[0]), "{inodes:?}");
    Namespace::remove(&name).unwrap();
    assert!(!Path::new("/run/netns").join(&name).exists());
}

#[test]
fn a_renamed_namespace_is_the_same_one_and_takes_nobodys_name() {
    if !root_or_skip() {
        return;
    }
    let (old, taken, new) = (name("old"), Scratch::new("taken").unwrap(), name("new"));
    let inode = Namespace::create(&old).unwrap().run_in(own_namespace).unwrap();
    let error = Namespace::rename(&old, taken.name()).unwrap_err();
    assert!(error.is_exists(), "{error}");
    Namespace::rename(&old, &new).unwrap();
    assert_eq!(Namespace::open(&new).unwrap().run_in(own_namespace).unwrap(), inode);
    assert!(!Path::new("/run/netns").join(&old).exists());
    let error = Namespace::rename(&old, &new).unwrap_err();
    assert!(matches!(error, Error::NoNamespace { .. }), "{error}");
    Namespace::remove(&new).unwrap();
}

#[test]
fn a_leftover_file_is_no_namespace_and_is_repaired() {
    if !root_or_skip() {
        return;
    }
    let name = name("leftover");
    let file = Path::new("/run/netns").join(&name);
    fs::create_dir_all("/run/netns").unwrap();
    fs::write(&file, "").unwrap();
    assert!(matches!(Namespace::open(&name), Err(Error::NoNamespace { .. })));
    assert!(!Namespace::list("nlt-").unwrap().contains(&name));
    Namespace::create(&name).unwrap();
    assert!(Namespace::open(&name).is_ok());
    Namespace::remove(&name).unwrap();
    fs::write(&file, "").unwrap();
    Namespace::remove(&name).unwrap();
    Namespace::remove(&name).unwrap();
    assert!(!file.exists());
}

#[test]
fn work_inside_leaves_the_caller_where_it_is() {
    if !root_or_skip() {
        return;
    }
    let scratch = Scratch::new("inside").unwrap();
    let before = own_namespace();
    let inside = scratch.run_in(own_namespace).unwrap();
    assert_ne!(inside, before);
    assert_eq!(own_namespace(), before);
}

#[test]
fn a_name_cannot_leave_the_directory() {
    for bad in ["", ".", "..", "a/b", "../x", "a\0"] {
        assert!(matches!(Namespace::create(bad), Err(Error::InvalidName { .. })), "{bad:?}");
        assert!(matches!(Namespace::remove(bad), Err(Error::InvalidName { .. })), "{bad:?}");
    }
}

#[test]
fn a_setting_is_made_in_its_own_namespace_only() {
    if !root_or_skip() {
        return;
    }
    let scratch = Scratch::new("sysctl").unwrap();
    let path = "net/ipv4/conf/all/arp_ignore";
    let read = || fs::read_to_string(Path::new("/proc/sys").join(path)).unwrap();
    let outside = read();
    scratch.sysctl(path, "8").unwrap();
    assert_eq!(scratch.run_in(read).unwrap().trim(), "8");
    assert_eq!(read(), outside);
    scratch.sysctl("net/ipv6/conf/none0/accept_dad", "0").unwrap();
    let error = scratch.sysctl("net/ipv4/conf/none0/arp_ignore", "8").unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().contains("net/ipv4/conf/none0/arp_ignore"), "{error}");
}
