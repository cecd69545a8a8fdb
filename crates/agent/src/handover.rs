//! What goes from this host's agent to another one's when something moves: the memory of machines, and
//! the connections of ports. Host to host, by mutual TLS; the server has only said who moves where.
//!
//! Nothing waits for it that can do without: a NIC moves by its first frame whether or not its
//! connections came along. A machine needs its memory, so its move fails, and it goes on where it is.
//! What has become of each is told to the pass ([`Told`]).
//!
//! Who may send what: the agent that connects proves to be a host by its certificate, and is heard only
//! about what the objects here say comes from that host by that move ([`arrive`]).

mod arrive;
mod follow;
mod frame;
mod leave;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use dataplane::View;
use seats::{Entrance, Seats};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::object::{Handover, Instance, Object, Port, Table};

use crate::{Error, identity::Identity, kernel::Movers, plan, state::Desired, worker::Achieved};
use tls::Tls;

/// Where agents listen for each other by default. All of an installation have the same port.
pub const PORT: u16 = 7482;

/// Connections from other agents at a time, and those from one address.
const SEATS: usize = 128;
const SEATS_PER_SOURCE: usize = 32;

/// Things that leave this host at a time. Others wait for their turn.
const LEAVING_MAX: usize = 64;

/// So many machines that have come are remembered.
const LANDED_MAX: usize = 1024;

/// After how long a socket that cannot be bound is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(5);

/// What has become of moves, for the next pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Moves of instances from here that have failed, by number, and why.
    pub given_up: BTreeMap<u32, String>,
    /// Moves of instances to here that are over: they run here.
    pub landed: BTreeSet<u32>,
    /// How far an instance is that moves.
    pub progress: BTreeMap<Uuid, String>,
    /// What did not go along with a move, by its number.
    pub left_behind: BTreeMap<u32, String>,
}

/// What the tasks have in common.
#[derive(Clone)]
struct Shared {
    movers: Movers,
    desired: watch::Receiver<Option<Desired>>,
    achieved: watch::Receiver<Option<Achieved>>,
    told: watch::Sender<Told>,
    tls: watch::Receiver<Option<Arc<Tls>>>,
    /// The port at which all agents listen.
    port: u16,
    /// Reading the table of connections, one after the other.
    reading: Arc<Semaphore>,
}

/// What the part is given.
pub(crate) struct Sources {
    pub(crate) desired: watch::Receiver<Option<Desired>>,
    pub(crate) achieved: watch::Receiver<Option<Achieved>>,
    pub(crate) identity: watch::Receiver<Option<Identity>>,
    pub(crate) told: watch::Sender<Told>,
}

/// Hands over, and takes over, until told to stop. A host without anything that could move only waits.
pub(crate) async fn keep(
    movers: Option<Movers>,
    listen: Option<SocketAddr>,
    sources: Sources,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Some(movers) = movers else {
        stop.cancelled().await;
        return Ok(());
    };
    let Sources { desired, achieved, identity, told } = sources;
    let (tls, known) = watch::channel(None);
    let port = listen.map_or(PORT, |listen| listen.port());
    let reading = Arc::new(Semaphore::new(1));
    let shared = Shared { movers, desired, achieved, told, tls: known, port, reading };
    let work = async {
        tokio::join!(
            prove(identity, tls),
            hear(shared.clone(), listen),
            leave_all(shared.clone()),
            watch_landings(shared.clone()),
        );
    };
    stop.run_until_cancelled(work).await;
    Ok(())
}

/// Keeps ready what this host proves to be itself with.
async fn prove(
    mut identity: watch::Receiver<Option<Identity>>,
    tls: watch::Sender<Option<Arc<Tls>>>,
) {
    loop {
        let known = identity.borrow_and_update().clone();
        if let Some(known) = known {
            match Tls::of(&known) {
                Ok(made) => _ = tls.send_replace(Some(Arc::new(made))),
                Err(error) => tracing::warn!(error, "nothing can be handed over to other hosts"),
            }
        }
        if identity.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Listens for other agents.
async fn hear(shared: Shared, listen: Option<SocketAddr>) {
    let mut is_told = false;
    let listener = loop {
        match bind(listen) {
            Ok(listener) => break listener,
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    let port = shared.port;
                    tracing::warn!(%error, port, "other hosts cannot hand anything over to this one; \
                        trying again");
                }
                sleep(BIND_PAUSE).await;
            }
        }
    };
    let seats = Arc::new(Seats::new(SEATS, SEATS_PER_SOURCE));
    let mut entrance = match Entrance::new(listener, seats) {
        Ok(entrance) => entrance,
        Err(error) => {
            tracing::error!(%error, "other hosts cannot hand anything over to this one");
            return;
        }
    };
    let mut guests = JoinSet::new();
    loop {
        let newcomer = std::future::poll_fn(|cx| entrance.poll_next(cx)).await;
        while guests.try_join_next().is_some() {}
        let Ok(seat) = newcomer.seat else { continue };
        guests.spawn(arrive::serve(shared.clone(), newcomer.stream, (newcomer.peer.ip(), seat)));
    }
}

/// Both families, where there are both.
fn bind(listen: Option<SocketAddr>) -> std::io::Result<TcpListener> {
    match listen {
        Some(listen) => TcpListener::bind(listen),
        None => TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))
            .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))),
    }
}

/// Something that leaves this host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leaver {
    /// A machine, with its ports.
    Machine(Instance, Vec<Port>),
    /// A port that is plugged into a device of somebody else.
    Port(Box<Port>),
}

impl Leaver {
    fn handover(&self) -> Option<&Handover> {
        match self {
            Self::Machine(instance, _) => instance.goes.as_ref(),
            Self::Port(port) => port.handover.as_ref(),
        }
    }
}

/// What leaves, by the number of its move.
fn leavers(desired: &Desired) -> BTreeMap<u32, Leaver> {
    let holding = &desired.holding;
    let mut found = BTreeMap::new();
    let ports: Vec<&Port> = plan::ports(holding).filter(|port| port.goes.is_some()).collect();
    for object in plan::of_table(holding, Table::Instance) {
        let Object::Instance(instance) = object else { continue };
        let Some(handover) = &instance.goes else { continue };
        let own = ports.iter().filter(|port| port.instance == Some(instance.uuid));
        let own = own.map(|port| Port::clone(port)).collect();
        found.insert(handover.number, Leaver::Machine(instance.clone(), own));
    }
    for port in ports.into_iter().filter(|port| port.instance.is_none()) {
        if let Some(handover) = &port.handover {
            found.insert(handover.number, Leaver::Port(Box::new(port.clone())));
        }
    }
    found
}

/// Hands over what leaves: a task for each move, which ends when the move is over.
async fn leave_all(shared: Shared) {
    let mut desired = shared.desired.clone();
    let turns = Arc::new(Semaphore::new(LEAVING_MAX));
    let mut tasks: BTreeMap<u32, CancellationToken> = BTreeMap::new();
    let mut running = JoinSet::new();
    loop {
        let wanted = desired.borrow_and_update().as_ref().map(leavers).unwrap_or_default();
        tasks.retain(|number, task| {
            let stays = wanted.contains_key(number);
            if !stays {
                task.cancel();
                forget(&shared.told, *number);
            }
            stays
        });
        for (number, leaver) in wanted {
            if tasks.contains_key(&number) {
                continue;
            }
            let over = CancellationToken::new();
            tasks.insert(number, over.clone());
            let (shared, turns) = (shared.clone(), Arc::clone(&turns));
            running.spawn(async move {
                let turn = over.run_until_cancelled(turns.acquire()).await;
                let (Some(Ok(_turn)), Some(handover)) = (turn, leaver.handover().cloned()) else {
                    return;
                };
                match leaver {
                    Leaver::Machine(instance, ports) => {
                        leave::machine(&shared, (&instance, &ports), &handover, &over).await;
                    }
                    Leaver::Port(port) => follow::port(&shared, &port, &handover, &over).await,
                }
            });
        }
        while running.try_join_next().is_some() {}
        if desired.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn forget(told: &watch::Sender<Told>, number: u32) {
    told.send_if_modified(|told| {
        let left = told.left_behind.remove(&number).is_some();
        told.given_up.remove(&number).is_some() | left
    });
}

/// Sees which machines that come here run already, also when that was an earlier agent's doing.
async fn watch_landings(shared: Shared) {
    let mut desired = shared.desired.clone();
    loop {
        let coming: BTreeMap<u32, Uuid> = match &*desired.borrow_and_update() {
            Some(desired) => coming(desired).map(|(uuid, it)| (it.number, uuid)).collect(),
            None => BTreeMap::new(),
        };
        let qemu = &shared.movers.qemu;
        let landed = coming.iter().filter(|(_, instance)| qemu.has_landed(**instance));
        let landed: BTreeSet<u32> = landed.map(|(number, _)| *number).collect();
        shared.told.send_if_modified(|told| {
            let before = told.landed.len();
            // A pass may still be at work on what was wanted before. Numbers are not used twice.
            while told.landed.len() > LANDED_MAX {
                told.landed.pop_first();
            }
            told.landed.extend(landed);
            told.landed.len() != before
        });
        if desired.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The machines that come here, with where they come from.
fn coming(desired: &Desired) -> impl Iterator<Item = (Uuid, &Handover)> {
    plan::of_table(&desired.holding, Table::Instance).filter_map(|object| match object {
        Object::Instance(instance) => Some((instance.uuid, instance.comes.as_ref()?)),
        _ => None,
    })
}

impl Shared {
    /// Where another agent listens.
    fn address(&self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, self.port)
    }

    /// Says how far something is that moves.
    fn progress(&self, instance: Uuid, text: Option<String>) {
        self.told.send_if_modified(|told| {
            let before = match text.clone() {
                Some(text) => told.progress.insert(instance, text),
                None => told.progress.remove(&instance),
            };
            before != text
        });
    }

    /// Works on the table of connections in a thread that may block.
    async fn table<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut View) -> Result<T, dataplane::Error> + Send + 'static,
    ) -> Result<T, String> {
        let _turn = self.reading.acquire().await.map_err(|error| error.to_string())?;
        let bpffs = Arc::clone(&self.movers.bpffs);
        // By the pins: nobody who writes the maps waits for this.
        let done = tokio::task::spawn_blocking(move || work(&mut View::open(&bpffs)?)).await;
        let done = done.map_err(|error| error.to_string())?;
        done.map_err(|error| error.to_string())
    }
}
