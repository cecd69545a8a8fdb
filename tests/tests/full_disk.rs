//! The server's disk is full (field case F25): callers are told so, reads go on, nothing
//! acknowledged is lost, and it heals once there is space. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

use client::Client;
use lab::{scratch::Root, wait};
use netloom_tests::{LIMIT, binary, rest::Rest, root_or_skip};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};

/// Enough for a start, and for what the server still has to write once the rest is full.
const DISK: &str = "size=3m";
/// What another program keeps on the same disk, and gives back.
const BALLAST_BYTES: usize = 1_000_000;
/// Far more zones than fit.
const ZONES_MAX: usize = 2_000;

#[test]
fn a_full_disk_is_told_and_costs_nothing_that_was_acknowledged() {
    if !root_or_skip() {
        return;
    }
    let root = Root::new().unwrap();
    // The disk belongs to this thread's mount namespace, and goes with it however the test ends.
    let result = thread::scope(|scope| scope.spawn(|| fill_and_heal(root.path())).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn fill_and_heal(root: &Path) {
    let disk = small_disk(root);
    let (data, log) = (disk.join("data"), root.join("server.log"));
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![0; BALLAST_BYTES]).unwrap();

    let server = Server::start(&data, &log);
    let rest = server.log_in();
    let acknowledged = fill(&rest);
    assert!(!acknowledged.is_empty());
    assert_eq!(uuids(&rest), acknowledged, "reads go on");
    server.log_in();
    drop(server);

    // Killed. What it writes at a start may just fit; otherwise it says what is missing.
    let mut again = Server::spawn(&data, &log);
    match again.serves(&log) {
        true => assert_eq!(uuids(&again.log_in()), acknowledged, "reads go on"),
        false => {
            let told = text(&log);
            assert!(
                told.contains("the disk is full") && told.contains("free some space"),
                "{told}"
            );
        }
    }
    drop(again);

    fs::remove_file(&ballast).unwrap();
    let server = Server::start(&data, &log);
    let rest = server.log_in();
    assert_eq!(uuids(&rest), acknowledged, "nothing is lost, nothing half there");
    // Full again, and freed under a server that runs: it needs no restart.
    let mut more = acknowledged;
    more.extend(fill(&rest));
    more.sort();
    mount(None::<&str>, &disk, None::<&str>, MsFlags::MS_REMOUNT, Some("size=9m")).unwrap();
    more.push(zone(&rest).unwrap());
    more.sort();
    drop(server);
    assert_eq!(uuids(&Server::start(&data, &log).log_in()), more);
}

/// A disk that only this thread and what it starts can see.
fn small_disk(root: &Path) -> PathBuf {
    let (disk, nothing) = (root.join("disk"), None::<&str>);
    fs::create_dir(&disk).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing).unwrap();
    mount(Some("scratch"), &disk, Some("tmpfs"), MsFlags::empty(), Some(DISK)).unwrap();
    disk
}

/// Makes zones until the disk is full; the refusal names it. Gives those that were made.
fn fill(rest: &Rest) -> Vec<String> {
    let mut made = Vec::new();
    for _ in 0..ZONES_MAX {
        match zone(rest) {
            Ok(uuid) => made.push(uuid),
            Err(error) => {
                assert_eq!(error["code"], "NL.1005", "{error}");
                assert!(error["details"].to_string().contains("the disk is full"), "{error}");
                assert!(error["elaboration"].to_string().contains("free some space"), "{error}");
                made.sort();
                return made;
            }
        }
    }
    panic!("{ZONES_MAX} zones fit");
}

/// Makes a zone that takes some space; gives its uuid, or the error.
fn zone(rest: &Rest) -> Result<String, Value> {
    let params = json!({"name": "z", "description": "x".repeat(2_000)});
    let answer = rest.post("/zones", &params);
    match answer.status {
        200 => Ok(answer.body["inventory"]["uuid"].as_str().unwrap().to_owned()),
        _ => Err(answer.body["error"].clone()),
    }
}

/// The uuids of all zones, ascending.
fn uuids(rest: &Rest) -> Vec<String> {
    let zones = rest.all("/zones").into_iter();
    let mut uuids: Vec<_> = zones.map(|zone| zone["uuid"].as_str().unwrap().to_owned()).collect();
    uuids.sort();
    uuids
}

fn text(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// A server, killed when dropped.
struct Server {
    child: Child,
    data: PathBuf,
    url: String,
}

impl Server {
    /// Starts one, and waits until it serves.
    fn start(data: &Path, log: &Path) -> Self {
        let mut this = Self::spawn(data, log);
        assert!(this.serves(log), "{}", text(log));
        this
    }

    /// Waits until it serves, or has ended by itself; gives which.
    fn serves(&mut self, log: &Path) -> bool {
        let is_decided = || {
            let has_ended = self.child.try_wait().unwrap().is_some();
            let text = text(log);
            let address = text.split_once("serving rest=").map(|(_, rest)| rest);
            let address = address.and_then(|rest| rest.split_once(' ')).map(|(first, _)| first);
            self.url = address.map(|address| format!("http://{address}")).unwrap_or_default();
            has_ended || !self.url.is_empty()
        };
        assert!(wait::holds(LIMIT, is_decided), "{}", text(log));
        self.child.try_wait().unwrap().is_none()
    }

    /// Starts one with a log of its own.
    fn spawn(data: &Path, log: &Path) -> Self {
        let mut command = Command::new(binary());
        let any = "127.0.0.1:0";
        command.args(["server", "--listen", any, "--link-listen", any, "--data"]).arg(data);
        let child = command.stderr(File::create(log).unwrap()).spawn().unwrap();
        Self { child, data: data.to_owned(), url: String::new() }
    }

    /// A new session: that needs no space either.
    fn log_in(&self) -> Rest {
        let password = fs::read_to_string(self.data.join("admin-password")).unwrap();
        let mut client = Client::new(&self.url);
        client.log_in("admin", &password).unwrap();
        Rest::new(&self.url, client.session())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
