//! Measures the store on SQLite with transactions like the creation of a NIC: a counter, and three
//! rows (NIC, address, job) of some 400 bytes each that hold two claims.
//!
//! `cargo run --release -p netloom-store --example commits -- <directory> [rounds]` prints one line
//! of figures a round: the WAL of a commit, then commits by 1 and by 32 callers for two seconds
//! each (times in microseconds), with all that is written for one, then and later. `... -- start <file> [NICs]` fills a file unless it is there, and says how long a start
//! takes and what memory it needs.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use model::{Code, Error, Result};
use netloom_store::{ClaimKey, Key, Read, Row, Sqlite, Store, Tx};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

const TIME: Duration = Duration::from_secs(2);
/// NICs that are there before anything is measured.
const FILLED: u64 = 20_000;
/// Commits whose WAL is measured: few enough that no form of the store cuts it meanwhile.
const WAL_COMMITS: u64 = 40;
/// A page and its header in the WAL (<https://sqlite.org/fileformat.html#the_write_ahead_log>).
const FRAME_BYTES: u64 = 4096 + 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Kind {
    Nic,
    Ip,
    Job,
}

/// A row of any of the three tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    kind: Kind,
    uuid: Uuid,
    name: String,
    description: String,
    vm_instance_uuid: Uuid,
    l3_network_uuid: Uuid,
    number: u32,
    state: String,
    create_date: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Mac(u64),
    Ip(Uuid, u32),
}

impl ClaimKey for Claim {
    fn next(&self) -> Option<Self> {
        match self {
            Claim::Mac(_) => None,
            Claim::Ip(l3, ip) => Some(Claim::Ip(*l3, ip.checked_add(1)?)),
        }
    }
}

/// A number that looks like chance.
fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Row for Resource {
    type Kind = Kind;
    type Claim = Claim;
    fn kind(&self) -> Kind {
        self.kind
    }
    fn id(&self) -> Uuid {
        self.uuid
    }
    fn index(&self) -> Vec<(&'static str, Key)> {
        let vm = ("vmInstanceUuid", Key::Uuid(self.vm_instance_uuid));
        let l3 = ("l3NetworkUuid", Key::Uuid(self.l3_network_uuid));
        let name = ("name", Key::Text(self.name.as_str().into()));
        let ip = ("ip", Key::Ip(self.number.into()));
        let mac = scattered(self.number.into()).to_be_bytes();
        let mac = ("mac", Key::Mac([2, mac[3], mac[4], mac[5], mac[6], mac[7]]));
        match self.kind {
            Kind::Nic => vec![vm, l3, name, ip, mac],
            Kind::Ip => vec![("nicUuid", Key::Uuid(self.vm_instance_uuid)), l3, ip],
            Kind::Job => vec![],
        }
    }
    fn claims(&self) -> Vec<Claim> {
        match self.kind {
            Kind::Nic => vec![Claim::Mac(scattered(self.number.into()))],
            Kind::Ip => vec![Claim::Ip(self.l3_network_uuid, self.number)],
            Kind::Job => vec![],
        }
    }
    fn encode(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(self)
    }
    fn decode(_: Kind, json: &RawValue) -> serde_json::Result<Self> {
        serde_json::from_str(json.get())
    }
}

fn resource(kind: Kind, number: u64) -> Resource {
    let (high, low) = (scattered(number), scattered(number ^ (1 << (60 + kind as u64))));
    Resource {
        kind,
        uuid: Uuid::from_u64_pair(high, low),
        name: format!("interface {number}"),
        description: "x".repeat(100),
        vm_instance_uuid: Uuid::from_u64_pair(1, scattered(number)),
        l3_network_uuid: Uuid::from_u64_pair(2, number / 1_000),
        number: u32::try_from(number).unwrap_or(u32::MAX),
        state: "Enabled".to_owned(),
        create_date: "Nov 25, 2026 10:00:00 PM".to_owned(),
    }
}

fn create_nic(tx: &mut Tx<Resource>) -> Result<()> {
    let number = tx.counter("number");
    for kind in [Kind::Nic, Kind::Ip, Kind::Job] {
        let put = tx.put(resource(kind, number));
        put.map_err(|taken| Error::new(Code::Internal, taken.to_string()))?;
    }
    Ok(())
}

fn fill(store: &Store<Resource>, nics: u64) -> Result<()> {
    while store.snapshot().total(Kind::Nic) < nics {
        store.transact(|tx| (0..1_000).try_for_each(|_| create_nic(tx)))?;
    }
    Ok(())
}

/// Commits until then; gives how long each one took.
fn commits(store: &Store<Resource>, until: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        store.transact(create_nic)?;
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Prints what so many callers reach.
fn measure(store: &Store<Resource>, callers: usize) -> Result<()> {
    let (start, written) = (Instant::now(), bytes_written());
    let until = start + TIME;
    let run = || {
        let store = store.clone();
        thread::spawn(move || commits(&store, until))
    };
    let threads: Vec<_> = (0..callers).map(|_| run()).collect();
    let mut times = Vec::new();
    for thread in threads {
        times.extend(thread.join().unwrap_or_else(|_| Ok(Vec::new()))?);
    }
    let (seconds, done) = (start.elapsed().as_secs_f64(), times.len());
    times.sort_unstable();
    let us = |per_mille: usize| times.get(done * per_mille / 1000).map_or(0, Duration::as_micros);
    settle();
    let kib = bytes_written().saturating_sub(written) / 1024;
    print!(
        " | {callers} callers: rate {:.0}",
        f64::from(u32::try_from(done).unwrap_or(0)) / seconds
    );
    print!(" p50 {} p99 {} p999 {}", us(500), us(990), us(999));
    print!(" KiB {:.1}", kib as f64 / done as f64);
    Ok(())
}

/// Waits until what the commits have left to be done later is done.
fn settle() {
    thread::park_timeout(Duration::from_secs(3));
}

/// All that this process has written.
fn bytes_written() -> u64 {
    status_number("/proc/self/io", "wchar:")
}

fn status_number(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn open(file: &Path) -> Result<Store<Resource>> {
    Store::open(Box::new(Sqlite::open(file)?))
}

fn with_end(file: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", file.display()))
}

fn remove(file: &Path) {
    for end in ["", "-wal", "-shm"] {
        // It may be gone already: SQLite removes its WAL when it closes.
        let _ = fs::remove_file(with_end(file, end));
    }
}

fn round(file: &Path) -> Result<()> {
    let store = open(file)?;
    fill(&store, FILLED)?;
    settle();
    drop(store);
    let store = open(file)?;
    let start = Instant::now();
    for _ in 0..WAL_COMMITS {
        store.transact(create_nic)?;
    }
    let wal = fs::metadata(with_end(file, "-wal")).map_or(0, |wal| wal.len());
    let pages = wal as f64 / FRAME_BYTES as f64 / WAL_COMMITS as f64;
    print!("WAL pages {pages:.1} in {} ms", start.elapsed().as_millis());
    measure(&store, 1)?;
    measure(&store, 32)?;
    println!();
    Ok(())
}

fn start(file: &Path, nics: u64) -> Result<()> {
    if !file.exists() {
        let store = open(file)?;
        fill(&store, nics)?;
        settle();
        return Ok(());
    }
    let begun = Instant::now();
    let store = open(file)?;
    let snapshot = store.snapshot();
    let ms = begun.elapsed().as_millis();
    let rss = status_number("/proc/self/status", "VmRSS:") / 1024;
    println!("{} NICs: start {ms} ms, RSS {rss} MiB", snapshot.total(Kind::Nic));
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, or: u64| arguments.get(at).and_then(|n| n.parse().ok()).unwrap_or(or);
    match arguments.first().map(String::as_str) {
        Some("start") if arguments.len() > 1 => start(Path::new(&arguments[1]), number(2, 100_000)),
        directory => {
            let directory = directory.map_or_else(env::temp_dir, PathBuf::from);
            let file = directory.join(format!("commits-{}.db", std::process::id()));
            for _ in 0..number(1, 1) {
                let done = round(&file);
                remove(&file);
                done?;
                let _ = io::Write::flush(&mut io::stdout());
            }
            Ok(())
        }
    }
}
