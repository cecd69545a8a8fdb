//! A row without meaning, engines to try it on, and short words for what the suite does often.

use std::{sync::mpsc, task::Poll, thread};

use model::{Code, Error};
use netloom_store::{
    Change, ClaimKey, Commit, Engine, Event, Key, Memory, Read, Row, Sqlite, Store, Tx, Watch,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tempfile::TempDir;
use uuid::Uuid;

/// Two tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    Box,
    #[default]
    Thing,
}

/// A row that may point at two others, is found by its value and its tags, and may hold places.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Toy {
    pub(crate) kind: Kind,
    pub(crate) id: Uuid,
    pub(crate) inside: Option<Uuid>,
    pub(crate) beside: Option<Uuid>,
    pub(crate) value: u64,
    pub(crate) tags: Vec<String>,
    pub(crate) places: Vec<Place>,
}

/// What a toy claims: a name, or a number in a line of [`LINE_END`] numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Place {
    Name(String),
    Number(u8, u8),
}

/// The last number of a line.
pub(crate) const LINE_END: u8 = 5;

impl ClaimKey for Place {
    fn next(&self) -> Option<Self> {
        match self {
            Place::Number(line, n) if *n < LINE_END => Some(Place::Number(*line, n + 1)),
            Place::Number(..) | Place::Name(_) => None,
        }
    }
}

impl Row for Toy {
    type Kind = Kind;
    type Claim = Place;
    fn kind(&self) -> Kind {
        self.kind
    }
    fn id(&self) -> Uuid {
        self.id
    }
    fn index(&self) -> Vec<(&'static str, Key)> {
        let fields = [("inside", self.inside), ("beside", self.beside)];
        let fields = fields.into_iter().filter_map(|(field, id)| Some((field, Key::Uuid(id?))));
        let tags = self.tags.iter().map(|tag| ("tags", Key::Text(tag.as_str().into())));
        let value = i64::try_from(self.value).map(|value| ("value", Key::Number(value)));
        fields.chain(tags).chain(value.ok()).collect()
    }
    fn claims(&self) -> Vec<Place> {
        self.places.clone()
    }
    fn encode(&self) -> serde_json::Result<Box<RawValue>> {
        serde_json::value::to_raw_value(self)
    }
    fn decode(_: Kind, json: &RawValue) -> serde_json::Result<Self> {
        serde_json::from_str(json.get())
    }
}

pub(crate) fn id(n: u64) -> Uuid {
    Uuid::from_u128(n.into())
}

pub(crate) fn thing(n: u64, value: u64) -> Toy {
    Toy { id: id(n), value, ..Toy::default() }
}

/// A thing that claims the name `name`.
pub(crate) fn named(n: u64, name: &str) -> Toy {
    Toy { places: vec![Place::Name(name.to_owned())], ..thing(n, 0) }
}

/// Who holds this name.
pub(crate) fn name_holder(read: &impl Read<Toy>, name: &str) -> Option<Uuid> {
    read.holder(&Place::Name(name.to_owned())).map(|(_, id)| id)
}

/// What survives a restart: a file, or the memory twin's state.
pub(crate) enum Disk {
    Sqlite(TempDir),
    Memory(Memory),
}

impl Disk {
    pub(crate) fn sqlite() -> Self {
        Disk::Sqlite(tempfile::tempdir().expect("a directory for the test"))
    }

    pub(crate) fn memory() -> Self {
        Disk::Memory(Memory::new())
    }

    pub(crate) fn engine(&self) -> Box<dyn Engine> {
        match self {
            Disk::Sqlite(dir) => {
                Box::new(Sqlite::open(dir.path().join("store.db")).expect("the file opens"))
            }
            Disk::Memory(memory) => Box::new(memory.clone()),
        }
    }

    pub(crate) fn open(&self) -> Store<Toy> {
        Store::open(self.engine()).expect("the store opens")
    }
}

/// A server on the memory twin.
pub(crate) fn server(memory: &Memory) -> Store<Toy> {
    Store::open(Box::new(memory.clone())).expect("the store opens")
}

/// Commits one row; gives the revision.
pub(crate) fn put(store: &Store<Toy>, row: Toy) -> u64 {
    commit(store, move |tx| put_free(tx, row.clone())).1
}

/// Puts a row whose claims nobody else holds.
pub(crate) fn put_free(tx: &mut Tx<Toy>, row: Toy) {
    tx.put(row).expect("its claims are free");
}

/// Commits what cannot be refused; gives the value and the revision.
pub(crate) fn commit<T: Send + 'static>(
    store: &Store<Toy>,
    mut work: impl FnMut(&mut Tx<Toy>) -> T + Send + 'static,
) -> (T, u64) {
    let done = store.transact(move |tx| Ok(work(tx))).expect("it commits");
    (done.value, done.revision)
}

/// A transaction for [`batch`].
pub(crate) type Work<T> = Box<dyn FnMut(&mut Tx<Toy>) -> T + Send>;

/// Commits these as one batch: they are queued while another transaction holds the writer.
pub(crate) fn batch<T: Send + 'static>(store: &Store<Toy>, works: Vec<Work<T>>) -> Vec<(T, u64)> {
    let (started, start) = mpsc::channel();
    let (open, gate) = mpsc::channel::<()>();
    let holder = store.clone();
    let holder = thread::spawn(move || {
        commit(&holder, move |_| {
            started.send(()).expect("the test waits");
            gate.recv().expect("the gate opens");
        })
    });
    start.recv().expect("the writer is held");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let waiting =
            works.into_iter().map(|mut work| store.transact_async(move |tx| Ok(work(tx))));
        let mut waiting: Vec<_> = waiting.map(Box::pin).collect();
        std::future::poll_fn(|ctx| {
            waiting.iter_mut().for_each(|one| assert!(one.as_mut().poll(ctx).is_pending()));
            Poll::Ready(())
        })
        .await;
        open.send(()).expect("the writer is held");
        let mut done = Vec::new();
        for one in waiting {
            done.push(one.await.map(|done| (done.value, done.revision)).expect("it commits"));
        }
        holder.join().expect("no panic");
        done
    })
}

pub(crate) fn value(read: &impl Read<Toy>, n: u64) -> Option<u64> {
    read.get(Kind::Thing, id(n)).map(|row| row.value)
}

pub(crate) fn refused() -> Error {
    Error::new(Code::InvalidArgument, "no")
}

/// The next event, which must be a commit.
pub(crate) fn next_commit(watch: &mut Watch<Toy>) -> Commit<Toy> {
    match watch.next_blocking() {
        Some(Event::Commit(commit)) => commit,
        other => panic!("not a commit: {other:?}"),
    }
}

/// The next event, which must be a snapshot; gives its revision.
pub(crate) fn next_snapshot(watch: &mut Watch<Toy>) -> u64 {
    match watch.next_blocking() {
        Some(Event::Snapshot(snapshot)) => snapshot.revision(),
        other => panic!("not a snapshot: {other:?}"),
    }
}

/// The ids of changed rows.
pub(crate) fn changed(changes: &[Change<Toy>]) -> Vec<Uuid> {
    changes.iter().map(|change| change.id).collect()
}

/// Every row of the toy's tables.
pub(crate) fn everything(read: &impl Read<Toy>) -> Vec<Toy> {
    let rows = [Kind::Box, Kind::Thing].into_iter().flat_map(|kind| read.list(kind));
    rows.map(|row| (*row).clone()).collect()
}
