//! Turns commits into what changes for each host.

use std::collections::BTreeMap;

use crate::stub::{Compiler, HostDelta};
use model::{Id, Kind, Record, resource::host::Host};
use store::{Change, Event, Read, Snapshot};
use wire::object::Object;

use crate::{
    Error, Link,
    feed::{Feed, HostChange},
};

/// Follows the store until told to stop.
pub(crate) async fn follow(link: &Link) -> Result<(), Error> {
    let mut watch = link.store.watch();
    let mut compiler = Compiler::new();
    loop {
        // `next` is cancel safe, and nothing is to be done after a stop.
        let Some(event) = link.stop.run_until_cancelled(watch.next()).await else { return Ok(()) };
        match event.ok_or(Error::StoreEnded)? {
            Event::Snapshot(snapshot) => {
                compiler = Compiler::new();
                compiler.load(&snapshot);
                link.update(|feed| start_over(feed, &compiler, &snapshot));
            }
            Event::Commit(commit) => {
                let changes = compiler.apply(&commit.after, &commit.changes);
                let changes = changes.into_iter().map(|(host, delta)| (host, delta.into()));
                let changes = changes.collect();
                link.update(|feed| {
                    feed.apply(commit.revision, changes);
                    commit.changes.iter().for_each(|change| admit(feed, change));
                });
            }
            // A snapshot follows.
            Event::Lagged => tracing::warn!("fell behind the store; starting over"),
        }
    }
}

impl Link {
    fn update(&self, change: impl FnOnce(&mut Feed)) {
        let mut feed = self.feed();
        change(&mut feed);
        self.board.send_modify(|board| feed.publish(board));
    }
}

impl From<HostDelta> for HostChange {
    fn from(delta: HostDelta) -> Self {
        Self {
            upserts: delta.upserts.into_iter().collect(),
            removes: delta.removes.into_iter().collect(),
        }
    }
}

/// Everything anew: what hosts must hold, which ones exist and how they prove who they are.
fn start_over(feed: &mut Feed, compiler: &Compiler, snapshot: &Snapshot<Record>) {
    let hosts: Vec<Id<Host>> =
        snapshot.list(Kind::Host).map(|record| Id::new(record.uuid())).collect();
    let objects = |host: &Id<Host>| compiler.host(host).values().cloned().collect::<Vec<Object>>();
    let all: BTreeMap<_, _> = hosts.iter().map(|host| (*host, objects(host))).collect();
    feed.retain(|host| all.contains_key(&host));
    feed.replace(snapshot.revision(), all);
    for host in hosts {
        let certificate = certificate(snapshot, host);
        feed.recertify(host, certificate.as_deref());
    }
}

/// Ends the streams of hosts that are gone or that were given another certificate.
fn admit(feed: &mut Feed, change: &Change<Record>) {
    let host = Id::new(change.id);
    match (change.kind, change.after.as_deref()) {
        (Kind::Host, None) => feed.forget(host),
        (Kind::HostCredential, Some(Record::HostCredential(credential))) => {
            feed.recertify(host, credential.certificate_sha256.as_deref());
        }
        (Kind::HostCredential, None) => feed.recertify(host, None),
        _ => {}
    }
}

/// SHA-256 of the certificate with which a host may connect, if it has enrolled and exists.
pub(crate) fn certificate(snapshot: &Snapshot<Record>, host: Id<Host>) -> Option<String> {
    snapshot.get(Kind::Host, host.uuid())?;
    match &*snapshot.get(Kind::HostCredential, host.uuid())? {
        Record::HostCredential(credential) => credential.certificate_sha256.clone(),
        _ => None,
    }
}
