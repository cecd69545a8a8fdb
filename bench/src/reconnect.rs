//! All hosts of a cloud come back at once: how long until each has all that it must hold, and what
//! that does to somebody who writes meanwhile.
//!
//! The server's end is the real one, with its gRPC and mTLS on loopback, but in this process: a
//! `netloom server` takes enrolments and writes by REST only, and its start, which has figures of
//! its own, would be in these. It has a runtime like the server's; the hosts have another one, of
//! a single thread, so that they cannot crowd out what is measured.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use link::Pki;
use model::{
    Code, Error, Id, Meta, Record,
    resource::host::{self, HostCredential},
    status::Board,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{Memory, Tx};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::{
    Failure,
    cloud::{Cloud, Shape, made},
    scratch::Scratch,
    stats,
    stream::Host,
    writes::{gone, now},
};

/// Hosts that lost their disk: each gets a snapshot.
pub(crate) const NOTHING_HELD: &str = "nothing-held";
/// Hosts that hold what the server wants, as after a restart of the server.
pub(crate) const ALL_HELD: &str = "all-held";

/// How long the hosts may take for anything.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(2);
/// Writes without any host that connects, for comparison.
const ALONE: usize = 200;
/// What every host enrols with.
const TOKEN: &str = "token";

/// A cloud with a server's end that serves it, and its hosts.
pub(crate) struct Reconnect {
    cloud: Cloud,
    hosts: Vec<Host>,
    clients: Runtime,
    board: watch::Receiver<Board>,
    server: JoinSet<Result<(), link::Error>>,
    _serving: (DropGuard, Runtime),
}

impl Reconnect {
    /// Makes the cloud, serves it, and enrols all hosts.
    pub(crate) fn new(scratch: &Path, shape: Shape) -> Result<Self, Failure> {
        let mut cloud = Cloud::new(Box::new(Memory::new()), shape)?;
        cloud.fill()?;
        open_enrolments(&cloud)?;
        let pki = Pki::open(&Scratch::new(scratch, "reconnect")?.0, now())?;
        let ca = pki.certificate().to_owned();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let config = link::Config {
            listener,
            pki,
            clock: now,
            lineage: Uuid::new_v4(),
            earlier: BTreeMap::new(),
            accept_older: false,
            limits: link::Limits::default(),
            questions: link::Questions::default(),
        };
        let (serving, stop) = (Runtime::new()?, CancellationToken::new());
        let (sender, board) = watch::channel(Board::default());
        let mut server = JoinSet::new();
        let task = link::serve(config, cloud.store.clone(), sender, stop.clone());
        server.spawn_on(task, serving.handle());
        let clients = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("hosts")
            .enable_all()
            .build()?;
        let hosts = clients.block_on(enrol(address, &ca, &cloud.hosts))?;
        let _serving = (stop.drop_guard(), serving);
        let mut reconnect = Self { cloud, hosts, clients, board, server, _serving };
        reconnect.until("served", |board, _| board.revision > 0)?;
        // They learn what they are to hold.
        reconnect.all_connect(false)?;
        Ok(reconnect)
    }

    /// ms until every host has all, bytes that came to them, and ms of each write meanwhile and
    /// without them; these twice, for two quantiles.
    pub(crate) fn sample(&mut self, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        let alone = self.write(|written| Ok(written < ALONE))?;
        let Came { last, bytes, writes } = self.all_connect(contender == ALL_HELD)?;
        let (last, bytes) = (vec![stats::ms(last)], vec![stats::count(bytes)]);
        Ok(vec![last, bytes, writes.clone(), writes, alone.clone(), alone])
    }

    /// All hosts connect, and leave again once the last one has all.
    fn all_connect(&mut self, hold_all: bool) -> Result<Came, Failure> {
        let attempts =
            self.hosts.iter().map(|host| host.attempt(hold_all)).collect::<Result<Vec<_>, _>>()?;
        let (mut coming, mut taken) = (JoinSet::new(), Vec::new());
        let start = Instant::now();
        for (n, attempt) in attempts.into_iter().enumerate() {
            let taking = async move { (n, attempt.run().await) };
            coming.spawn_on(taking, self.clients.handle());
        }
        let writes = self.write(|_| {
            while let Some(ended) = coming.try_join_next() {
                let (n, ended) = ended?;
                taken.push((n, ended?));
            }
            match start.elapsed() < LIMIT {
                true => Ok(!coming.is_empty()),
                false => Err(format!("{} hosts still lack something", coming.len()).into()),
            }
        })?;
        let (mut last, mut bytes) = (start, 0);
        for (n, taken) in &taken {
            if taken.is_snapshot == hold_all {
                return Err(
                    "a host that holds all got a snapshot, or one that does not none".into()
                );
            }
            (last, bytes) = (last.max(taken.at), bytes + taken.bytes);
            self.hosts[*n].remember(taken);
        }
        drop(taken);
        self.until("left", |board, host| !board.status(host).connected)?;
        Ok(Came { last: last - start, bytes, writes })
    }

    /// Writes as long as there is `more` to wait for, given the number of writes so far: ms of
    /// each. Leaves the cloud as it was.
    fn write(
        &self,
        mut more: impl FnMut(usize) -> Result<bool, Failure>,
    ) -> Result<Vec<f64>, Failure> {
        let (mut took, mut nics) = (Vec::new(), Vec::new());
        while more(took.len())? {
            let nic = Uuid::new_v4();
            let l3 = self.cloud.l3s[nics.len() % self.cloud.l3s.len()].simple().to_string();
            let start = Instant::now();
            self.cloud.run(vec![made("CreateVmNic", nic, json!({"l3NetworkUuid": l3}))])?;
            took.push(stats::ms(start.elapsed()));
            nics.push(nic);
            thread::park_timeout(PAUSE);
        }
        self.cloud.run_all(nics.into_iter().map(|nic| gone("DeleteVmNic", nic)).collect())?;
        self.cloud.release()?;
        Ok(took)
    }

    /// Waits until the server's end says this of every host.
    fn until(
        &mut self,
        what: &str,
        holds: impl Fn(&Board, Id<host::Host>) -> bool,
    ) -> Result<(), Failure> {
        let hosts = &self.cloud.hosts;
        let all = |board: &Board| hosts.iter().all(|host| holds(board, Id::new(*host)));
        let waiting = self.board.wait_for(all);
        match self.clients.block_on(async { timeout(LIMIT, waiting).await }) {
            Ok(Ok(_)) => Ok(()),
            _ => Err(format!("the hosts are not {what}: {:?}", self.server.try_join_next()).into()),
        }
    }
}

/// What came of hosts that connected.
struct Came {
    /// Until the last one had all.
    last: Duration,
    /// To all of them.
    bytes: usize,
    /// ms of each write meanwhile.
    writes: Vec<f64>,
}

/// Lets every host enrol.
fn open_enrolments(cloud: &Cloud) -> Result<(), Failure> {
    let digest = Sha256::digest(TOKEN.as_bytes());
    let token: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let open = |uuid: &Uuid| HostCredential {
        uuid: Id::new(*uuid),
        host_uuid: Id::new(*uuid),
        certificate_sha256: None,
        certificate_issued: None,
        renewed_sha256: None,
        token_sha256: Some(token.clone()),
        token_key_sha256: None,
        token_expires: now().plus_seconds(3600),
    };
    let opened: Vec<_> = cloud.hosts.iter().map(open).collect();
    cloud.store.transact(move |tx: &mut Tx<Record>| {
        for credential in &opened {
            let put = tx.put(Record::new(credential.clone(), Meta::default()));
            put.map_err(|taken| Error::new(Code::Internal, taken.to_string()))?;
        }
        Ok(())
    })?;
    Ok(())
}

/// The hosts enrol, one after the other.
async fn enrol(server: SocketAddr, ca: &str, hosts: &[Uuid]) -> Result<Vec<Host>, Failure> {
    let mut enrolled = Vec::new();
    for host in hosts {
        enrolled.push(timeout(LIMIT, Host::enrol(server, ca, *host, TOKEN)).await??);
    }
    Ok(enrolled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_get_everything_or_nothing_again_and_again() {
        let directory = std::env::temp_dir();
        let shape = Shape { hosts: 4, ports_per_network: 50 };
        let mut reconnect = Reconnect::new(&directory, shape).unwrap();
        for _ in 0..2 {
            let [nothing, all] =
                [NOTHING_HELD, ALL_HELD].map(|contender| reconnect.sample(contender).unwrap());
            let (nothing, all) = (nothing[1][0], all[1][0]);
            assert!(nothing > 10.0 * all && all > 0.0, "bytes: {nothing}, {all}");
        }
    }
}
