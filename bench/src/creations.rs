//! Durable creations per second over HTTP, with several clients at once.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Failure,
    connection::{Connection, Request},
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
    clients: Vec<Connection>,
    network: Network,
    _serving: Serving,
}

impl Creations {
    /// Starts a server on this disk.
    pub(crate) fn new(binary: &Path, scratch: &Path, disk: Disk) -> Result<Self, Failure> {
        let (first, listen, serving) = match disk {
            Disk::AsItIs => {
                let directory = Scratch::new(scratch, "creations")?;
                let mut server = Server::start(binary, &directory)?;
                let first = server.log_in(&directory)?;
                let listen = server.listen();
                (first, listen, Serving::Process { _server: server, _directory: directory })
            }
            Disk::Slow => {
                let server = SlowServer::start(scratch)?;
                (server.log_in()?, server.listen(), Serving::Here { _server: server })
            }
        };
        let network = make_network(&first)?;
        let clients = (0..CLIENTS_MAX).map(|_| Connection::new(listen, &first));
        Ok(Self { clients: clients.collect::<Result<_, _>>()?, network, _serving: serving })
    }

    /// Makes things with so many clients at once.
    pub(crate) fn sample(
        &mut self,
        made: Made,
        clients: usize,
        time: Duration,
    ) -> Result<Sample, Failure> {
        let (start, network) = (Instant::now(), &self.network);
        let alone = |client: &mut Connection| {
            // Threads hand over texts: not every failure may leave its thread.
            Maker { client, network, made }.work(start, time).map_err(|error| error.to_string())
        };
        let took: Result<Vec<Vec<f64>>, String> = thread::scope(|scope| {
            let clients = self.clients.iter_mut().take(clients);
            let threads: Vec<_> =
                clients.map(|client| scope.spawn(move || alone(client))).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|took| took.unwrap_or_else(|_| Err("a client panicked".to_owned()))).collect()
        });
        let took = took?.concat();
        let per_second = stats::count(took.len()) / start.elapsed().as_secs_f64();
        Ok(Sample { per_second, took })
    }
}

/// One of the clients at work.
struct Maker<'a> {
    client: &'a mut Connection,
    network: &'a Network,
    made: Made,
}

impl Maker<'_> {
    /// Makes one thing after the other: how long each takes, in ms.
    fn work(mut self, start: Instant, time: Duration) -> Result<Vec<f64>, Failure> {
        let (mut took, mut zone) = (Vec::new(), Value::Null);
        while start.elapsed() < time {
            if self.made == Made::Tag && took.len() % TAGS == 0 {
                zone = self.make_zone()?;
            }
            let request = self.request(took.len(), &zone)?;
            let begin = Instant::now();
            self.client.ask(&request)?;
            took.push(stats::ms(begin.elapsed()));
        }
        Ok(took)
    }

    fn request(&self, n: usize, zone: &Value) -> Result<Request, Failure> {
        let (name, fields) = match self.made {
            Made::Nic => ("CreateVmNic", json!({"l3NetworkUuid": self.network.l3})),
            Made::L3 => ("CreateL3Network", json!({"name": "n", "l2NetworkUuid": self.network.l2})),
            Made::Tag => {
                let tag = n.to_string();
                let on = json!({"resourceType": "ZoneVO", "resourceUuid": zone, "tag": tag});
                ("CreateUserTag", on)
            }
        };
        Request::of_message(name, &fields)
    }

    /// Its uuid.
    fn make_zone(&mut self) -> Result<Value, Failure> {
        let request = Request::of_message("CreateZone", &json!({"name": "tagged"}))?;
        let mut zone: Value = serde_json::from_slice(self.client.ask(&request)?)?;
        Ok(zone["inventory"]["uuid"].take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_measured_can_be_made_with_several_clients() {
        let scratch = tempfile::tempdir().unwrap();
        let mut creations = Creations::new(Path::new("none"), scratch.path(), Disk::Slow).unwrap();
        for made in [Made::Nic, Made::L3, Made::Tag] {
            let sample = creations.sample(made, 2, Duration::from_millis(20)).unwrap();
            assert!(sample.took.len() >= 2 && sample.per_second > 0.0, "{made:?}");
            assert!(sample.took.iter().all(|took| *took >= 1.0), "{made:?}: {:?}", sample.took);
        }
    }
}
