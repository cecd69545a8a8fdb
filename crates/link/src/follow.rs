//! Turns commits into what changes for each host.

use std::collections::BTreeMap;

use compile::Compiler;
use model::{
    Id, Kind, Record, Resource,
    resource::host::{Host, HostCredential},
};
use store::{Change, Event, Read, Snapshot};
use tokio::task::spawn_blocking;
use wire::holding::Holding;

use crate::{Error, Link, feed::Feed};

/// Follows the store until told to stop.
pub(crate) async fn follow(link: &Link) -> Result<(), Error> {
    let mut watch = link.store.watch();
    let mut compiler = Compiler::new();
    loop {
        // `next` is cancel safe, and nothing is to be done after a stop.
        let Some(event) = link.stop.run_until_cancelled(watch.next()).await else { return Ok(()) };
        match event.ok_or(Error::StoreEnded)? {
            Event::Snapshot(snapshot) => {
                // Seconds in a large cloud.
                let load = spawn_blocking(move || load(compiler, snapshot));
                let (loaded, snapshot, hosts) = load.await.map_err(Error::Load)?;
                compiler = loaded;
                link.update(|feed| start_over(feed, &snapshot, hosts));
            }
            Event::Commit(commit) => {
                let deltas = compiler.apply(&commit.changes);
                link.update(|feed| {
                    feed.apply(commit.revision, deltas);
                    commit.changes.iter().for_each(|change| admit(feed, commit.revision, change));
                });
            }
            // A snapshot follows.
            Event::Lagged => tracing::warn!("fell behind the store; starting over"),
        }
    }
}

/// Everything that each host must hold, digests included.
fn load(
    mut compiler: Compiler,
    snapshot: Snapshot<Record>,
) -> (Compiler, Snapshot<Record>, BTreeMap<Id<Host>, Holding>) {
    let hosts = compiler.load(&snapshot).into_iter();
    let hosts = hosts.map(|(host, objects)| (host, objects.into_iter().collect())).collect();
    (compiler, snapshot, hosts)
}

impl Link {
    fn update(&self, change: impl FnOnce(&mut Feed)) {
        let mut feed = self.feed();
        change(&mut feed);
        self.publish(&mut feed);
    }
}

/// Everything anew: what changed for hosts, which ones exist and how they prove who they are.
fn start_over(feed: &mut Feed, snapshot: &Snapshot<Record>, hosts: BTreeMap<Id<Host>, Holding>) {
    feed.load(snapshot.revision(), hosts);
    feed.retain(|host| snapshot.get(Kind::Host, host.uuid()).is_some());
    for record in snapshot.list(Kind::Host) {
        let host = Id::new(record.uuid());
        feed.recertify(host, certificate(snapshot, host).as_deref());
    }
}

/// Ends the streams of hosts that are gone, that were given another certificate, or that are to
/// connect anew.
fn admit(feed: &mut Feed, revision: u64, change: &Change<Record>) {
    let host = Id::new(change.id);
    match (change.kind, change.after.as_deref()) {
        (Kind::Host, None) => feed.forget(host),
        (Kind::Host, Some(after)) if reconnects(change.before.as_deref(), after) => {
            feed.reconnect(host, revision);
        }
        (Kind::HostCredential, after) => {
            let credential = after.and_then(HostCredential::of);
            feed.recertify(host, credential.and_then(|c| c.certificate_sha256.as_deref()));
        }
        _ => {}
    }
}

/// Whether a host was told to connect anew.
fn reconnects(before: Option<&Record>, after: &Record) -> bool {
    let times = |record| Host::of(record).map(|host| host.reconnects);
    before.is_some_and(|before| times(before) != times(after))
}

/// SHA-256 of a host's later certificate, until it has used it.
pub(crate) fn later_certificate(snapshot: &Snapshot<Record>, host: Id<Host>) -> Option<String> {
    snapshot.get(Kind::Host, host.uuid())?;
    let record = snapshot.get(Kind::HostCredential, host.uuid())?;
    HostCredential::of(&record)?.renewed_sha256.clone()
}

/// SHA-256 of the certificate with which a host may connect, if it has enrolled and exists.
pub(crate) fn certificate(snapshot: &Snapshot<Record>, host: Id<Host>) -> Option<String> {
    snapshot.get(Kind::Host, host.uuid())?;
    let record = snapshot.get(Kind::HostCredential, host.uuid())?;
    HostCredential::of(&record)?.certificate_sha256.clone()
}
