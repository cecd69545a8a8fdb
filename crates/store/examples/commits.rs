//! Measures durable commits per second on SQLite, for some numbers of concurrent callers:
//! `cargo run --release -p netloom-store --example commits [directory]`. Each transaction draws a
//! number, takes a claim and puts a row of about 200 bytes.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use model::{Error, Id, Record, Resource, Timestamp, resource::release::Release};
use netloom_store::{Sqlite, Store, Tx};
use uuid::Uuid;

const TIME: Duration = Duration::from_secs(5);

fn work(tx: &mut Tx<Record>) -> Result<(), Error> {
    let number = tx.counter("n");
    let id = Uuid::from_u128(number.into());
    tx.claim(&format!("some/claim/{number}"), id)
        .map_err(|taken| Error::not_found("claim", taken.owner))?;
    let claims = vec![format!("some/claim/{number}"), "x".repeat(64)];
    let (uuid, l2_network_uuid) = (Id::new(id), Id::new(Uuid::nil()));
    let (hosts, create_date) = (Vec::new(), Timestamp(0));
    let row = Release { uuid, l2_network_uuid, claims, hosts, create_date };
    tx.put(row.into_record());
    Ok(())
}

fn commits(store: &Store<Record>, until: Instant) -> Result<u64, Error> {
    let mut done = 0;
    while Instant::now() < until {
        store.transact(work)?;
        done += 1;
    }
    Ok(done)
}

fn main() -> Result<(), Error> {
    let dir = env::args().nth(1).map_or_else(env::temp_dir, Into::into);
    for callers in [1, 4, 16, 64, 256] {
        let file = dir.join(format!("commits-{}-{callers}.db", std::process::id()));
        let store = Store::open(Box::new(Sqlite::open(&file)?))?;
        let until = Instant::now() + TIME;
        let run = || {
            let store = store.clone();
            thread::spawn(move || commits(&store, until))
        };
        let threads: Vec<_> = (0..callers).map(|_| run()).collect();
        let done = threads.into_iter().map(|t| t.join().unwrap_or(Ok(0)));
        let done: u64 = done.sum::<Result<u64, Error>>()?;
        println!("{callers:4} callers: {:8} commits/s", done / TIME.as_secs());
        drop(store);
        for end in ["", "-wal"] {
            // The file may be gone already: SQLite removes its WAL when it closes.
            let _ = std::fs::remove_file(format!("{}{end}", file.display()));
        }
    }
    Ok(())
}
