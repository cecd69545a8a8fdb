//! Durable creations per second over HTTP, with several clients at once.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use client::Client;
use serde_json::{Value, json};

use crate::{
    Failure,
    loom::params,
    nics::{Network, make_network},
    scratch::Scratch,
    server::Server,
    slow_disk::{Disk, Sample, SlowServer},
    stats,
};

/// Most clients at once.
pub(crate) const CLIENTS_MAX: usize = 32;
/// Tags that one zone gets before the next zone is made for more.
const TAGS: usize = 100;

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// A NIC with an address.
    Nic,
    /// An L3 network.
    L3,
    /// A user tag.
    Tag,
}

/// Who answers.
enum Serving {
    /// A process with a directory, which goes after it.
    Process { _server: Server, _directory: Scratch },
    /// This process, on a slow disk.
    Here { _server: SlowServer },
}

/// A server with a network, and connections to it.
pub(crate) struct Creations {
    clients: Vec<Client>,
    network: Network,
    _serving: Serving,
}

impl Creations {
    /// Starts a server on this disk.
    pub(crate) fn new(binary: &Path, scratch: &Path, disk: Disk) -> Result<Self, Failure> {
        let (first, url, serving) = match disk {
            Disk::AsItIs => {
                let directory = Scratch::new(scratch, "creations")?;
                let mut server = Server::start(binary, &directory)?;
                let first = server.log_in(&directory)?;
                (first, server.url(), Serving::Process { _server: server, _directory: directory })
            }
            Disk::Slow => {
                let server = SlowServer::start(scratch)?;
                (server.log_in()?, server.url().to_owned(), Serving::Here { _server: server })
            }
        };
        let session = first.session().ok_or("the server gave no session")?.to_owned();
        let network = make_network(&first)?;
        // A client each: they keep their connections.
        let others = (0..CLIENTS_MAX).map(|_| Client::with_session(&url, session.clone()));
        Ok(Self { clients: others.collect(), network, _serving: serving })
    }

    /// Makes things with so many clients at once.
    pub(crate) fn sample(
        &self,
        made: Made,
        clients: usize,
        time: Duration,
    ) -> Result<Sample, Failure> {
        let start = Instant::now();
        let took: Result<Vec<Vec<f64>>, String> = thread::scope(|scope| {
            let clients = self.clients.iter().take(clients);
            let threads: Vec<_> = clients
                .map(|client| scope.spawn(move || self.alone(client, made, (start, time))))
                .collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|took| took.unwrap_or_else(|_| Err("a client panicked".to_owned()))).collect()
        });
        let took = took?.concat();
        let per_second = stats::count(took.len()) / start.elapsed().as_secs_f64();
        Ok(Sample { per_second, took })
    }

    fn alone(
        &self,
        client: &Client,
        made: Made,
        (start, time): (Instant, Duration),
    ) -> Result<Vec<f64>, String> {
        let call = |name: &str, fields: Value| {
            client.call(name, params(fields), &[]).map_err(|error| format!("{name}: {error}"))
        };
        let (mut took, mut zone) = (Vec::new(), Value::Null);
        while start.elapsed() < time {
            if made == Made::Tag && took.len() % TAGS == 0 {
                zone = call("CreateZone", json!({"name": "tagged"}))?["inventory"]["uuid"].take();
            }
            let (name, fields) = match made {
                Made::Nic => ("CreateVmNic", json!({"l3NetworkUuid": self.network.l3})),
                Made::L3 => {
                    ("CreateL3Network", json!({"name": "n", "l2NetworkUuid": self.network.l2}))
                }
                Made::Tag => {
                    let tag = took.len().to_string();
                    let on = json!({"resourceType": "ZoneVO", "resourceUuid": zone, "tag": tag});
                    ("CreateUserTag", on)
                }
            };
            let begin = Instant::now();
            call(name, fields)?;
            took.push(stats::ms(begin.elapsed()));
        }
        Ok(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_measured_can_be_made_with_several_clients() {
        let scratch = tempfile::tempdir().unwrap();
        let creations = Creations::new(Path::new("none"), scratch.path(), Disk::Slow).unwrap();
        for made in [Made::Nic, Made::L3, Made::Tag] {
            let sample = creations.sample(made, 2, Duration::from_millis(20)).unwrap();
            assert!(sample.took.len() >= 2 && sample.per_second > 0.0, "{made:?}");
            assert!(sample.took.iter().all(|took| *took >= 1.0), "{made:?}: {:?}", sample.took);
        }
    }
}
