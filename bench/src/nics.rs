//! Durable NICs per second: `CreateVmNic` over REST against a server of its own, and as the
//! baseline single-row commits of SQLite, which the server also stores with.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use client::Client;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::{Failure, loom::params, scratch::Scratch, server::Server, stats};

/// Roughly a NIC as it is stored.
const ROW_BYTES: usize = 512;

/// Bare SQLite, set as netloom sets it: a commit is on disk when it returns.
pub(crate) struct Rows {
    connection: Connection,
    _directory: Scratch,
}

impl Rows {
    /// An empty database.
    pub(crate) fn new(scratch: &Path) -> Result<Self, Failure> {
        let directory = Scratch::new(scratch, "rows")?;
        let connection = Connection::open(directory.0.join("rows.db"))?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)", [])?;
        Ok(Self { connection, _directory: directory })
    }

    /// Commits rows one by one; how many per second.
    pub(crate) fn commit(&self, time: Duration) -> Result<f64, Failure> {
        let body = [0x5a_u8; ROW_BYTES];
        let mut insert = self.connection.prepare("INSERT INTO rows (body) VALUES (?1)")?;
        let (start, mut rows) = (Instant::now(), 0);
        while start.elapsed() < time {
            insert.execute([body.as_slice()])?;
            rows += 1;
        }
        Ok(stats::count(rows) / start.elapsed().as_secs_f64())
    }
}

/// A server with a network, and connections to it.
pub(crate) struct Nics {
    clients: Vec<Client>,
    l3: String,
    /// Ends before its directory goes.
    _server: Server,
    _directory: Scratch,
}

impl Nics {
    /// Starts the server and makes a network.
    pub(crate) fn new(binary: &Path, scratch: &Path, clients: usize) -> Result<Self, Failure> {
        let directory = Scratch::new(scratch, "server")?;
        let mut server = Server::start(binary, &directory)?;
        let first = server.log_in(&directory)?;
        let session = first.session().ok_or("the server gave no session")?.to_owned();
        let l3 = make_network(&first)?.l3;
        // A client each: they keep their connections.
        let others = (0..clients).map(|_| Client::with_session(&server.url(), session.clone()));
        Ok(Self { clients: others.collect(), l3, _server: server, _directory: directory })
    }

    /// Makes NICs with so many clients at once; how many per second were acknowledged.
    pub(crate) fn create(&self, clients: usize, time: Duration) -> Result<f64, Failure> {
        let start = Instant::now();
        let made: Result<Vec<usize>, String> = thread::scope(|scope| {
            let clients = self.clients.iter().take(clients);
            let threads: Vec<_> = clients
                .map(|client| scope.spawn(|| self.create_alone(client, start, time)))
                .collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|made| made.unwrap_or_else(|_| Err("a client panicked".to_owned()))).collect()
        });
        Ok(stats::count(made?.iter().sum()) / start.elapsed().as_secs_f64())
    }

    fn create_alone(
        &self,
        client: &Client,
        start: Instant,
        time: Duration,
    ) -> Result<usize, String> {
        let mut nics = 0;
        while start.elapsed() < time {
            let nic = params(json!({"l3NetworkUuid": self.l3}));
            client.call("CreateVmNic", nic, &[]).map_err(|error| error.to_string())?;
            nics += 1;
        }
        Ok(nics)
    }
}

/// A network, and what it is on.
pub(crate) struct Network {
    /// Its L2 network.
    pub(crate) l2: String,
    /// Itself.
    pub(crate) l3: String,
}

/// A network with a quarter of a million addresses.
pub(crate) fn make_network(client: &Client) -> Result<Network, Failure> {
    let make = |name: &str, fields: Value| -> Result<String, Failure> {
        let answer = client.call(name, params(fields), &[])?;
        let uuid = answer["inventory"]["uuid"].as_str();
        Ok(uuid.ok_or_else(|| format!("{name} gave no uuid"))?.to_owned())
    };
    let zone = make("CreateZone", json!({"name": "bench"}))?;
    let pool = make("CreateL2VxlanNetworkPool", json!({"name": "pool", "zoneUuid": zone}))?;
    let vnis = json!({"name": "v", "l2NetworkUuid": pool, "startVni": 100, "endVni": 199});
    make("CreateVniRange", vnis)?;
    let l2 = make("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": pool}))?;
    let l3 = json!({"name": "l3", "l2NetworkUuid": l2, "category": "Private"});
    let l3 = make("CreateL3Network", l3)?;
    let range = json!({
        "name": "range",
        "l3NetworkUuid": l3,
        "startIp": "10.0.0.2",
        "endIp": "10.3.255.254",
        "netmask": "255.252.0.0",
        "gateway": "10.0.0.1",
    });
    make("AddIpRange", range)?;
    Ok(Network { l2, l3 })
}
