//! Asks the VTEPs of its peers whether packets come through, as tunnels send them: by UDP to the port of
//! tunnels, whole, short and as long as instances here may make them. Firewalls, missing routes and
//! MTUs that are too small show before a tenant meets them.
//!
//! It is beside all else: what tunnels carry does not wait for it, and goes on without it. Only
//! VTEPs of this host's own networks are asked and answered, each so often; an answer is as long as
//! what has asked, so nobody gets more out of this host than they send.

mod probe;
mod state;

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use hostnet::{DatagramListener, PacketSender};
use model::{mtu::Family, resource::vtep::VXLAN_PORT};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Object, Table, Tunnel},
    paths::Paths,
};

use crate::{plan, state::Desired, underlay};
use probe::{LONGEST_BYTES, Probe};
use state::{Ends, Sending, Ways};

/// How often it is looked whom to ask, and how many are asked then.
const TICK: Duration = Duration::from_millis(100);
const AT_ONCE: usize = 2;
/// How often peers are looked up anew, at most: there may be very many objects.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After how long sockets that cannot be opened are tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Probes that are taken before anything else has its turn.
const HEAR_MAX: usize = 64;

/// The sockets of one family.
struct Sockets {
    sender: PacketSender,
    listener: DatagramListener,
}

impl Sockets {
    fn open(family: Family, port: u16) -> io::Result<Self> {
        let is_ipv4 = family == Family::Ipv4;
        let listener = DatagramListener::open(is_ipv4, port, probe::WORD)?;
        Ok(Self { sender: PacketSender::open(is_ipv4)?, listener })
    }
}

/// What is asked, and what is known.
struct Walker {
    ways: Ways,
    /// The UDP port of tunnels.
    port: u16,
    /// Those of the families of VTEPs that there are.
    sockets: BTreeMap<Family, Sockets>,
    retry: Option<Instant>,
    looked: Option<Instant>,
    buffer: Vec<u8>,
}

/// Asks until told to stop; tells what has come of it when that is something new.
pub(crate) async fn keep(
    mut wanted: watch::Receiver<Option<Desired>>,
    told: watch::Sender<Option<Paths>>,
    stop: CancellationToken,
) {
    let mut walker = Walker {
        ways: Ways::default(),
        port: VXLAN_PORT,
        sockets: BTreeMap::new(),
        retry: None,
        looked: None,
        buffer: vec![0; 1 << 16],
    };
    wanted.mark_changed();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Each branch only waits: dropping the others loses nothing.
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => None,
            () = readable(walker.sockets.get(&Family::Ipv4)) => Some(Family::Ipv4),
            () = readable(walker.sockets.get(&Family::Ipv6)) => Some(Family::Ipv6),
        };
        let now = Instant::now();
        if let Some(family) = heard {
            walker.hear(family, now);
            continue;
        }
        let is_time = walker.looked.is_none_or(|looked| now >= looked + LOOK_EVERY);
        if is_time && wanted.has_changed().unwrap_or(false) {
            let desired = wanted.borrow_and_update().clone();
            let desired = desired.as_ref().map(|desired| &*desired.holding);
            let port = desired.and_then(plan::vxlan_port).unwrap_or(VXLAN_PORT);
            walker.look(desired.map(ends).unwrap_or_default(), port, now);
        }
        walker.ask(now);
        let paths = walker.ways.told(now, walker.port);
        told.send_if_modified(|known| {
            let is_new = paths.is_some() && *known != paths;
            if is_new {
                log(known.as_ref(), paths.as_ref());
                known.clone_from(&paths);
            }
            is_new
        });
    }
}

async fn readable(sockets: Option<&Sockets>) {
    match sockets {
        Some(sockets) if sockets.listener.readable().await.is_ok() => {}
        _ => pending().await,
    }
}

/// The ways of VXLAN from own VTEPs to those of peers, with the longest packet that there may be, in
/// bytes. GRE has no port that could be asked.
fn ends(desired: &Holding) -> BTreeMap<Ends, u32> {
    let longest = underlay::longest(desired);
    let mut ends = BTreeMap::new();
    for object in plan::of_table(desired, Table::Peer) {
        let Object::Peer(peer) = object else { continue };
        let tunnel = desired.network(peer.network).and_then(|network| network.tunnel());
        let asked = |tunnel: &&Tunnel| tunnel.local_vtep != peer.vtep && !tunnel.is_gre;
        let Some(tunnel) = tunnel.filter(asked) else { continue };
        let Some(longest) = longest.get(&tunnel.local_vtep) else { continue };
        ends.insert((tunnel.local_vtep, peer.vtep), longest.needed().min(LONGEST_BYTES));
    }
    ends
}

impl Walker {
    fn look(&mut self, wanted: BTreeMap<Ends, u32>, port: u16, now: Instant) {
        self.looked = Some(now);
        if self.port != port {
            self.port = port;
            self.sockets.clear();
        }
        self.sockets.retain(|family, _| wanted.keys().any(|(own, _)| Family::of(*own) == *family));
        self.ways.set(&wanted, now);
    }

    /// The sockets of a VTEP's family, if they can be had.
    fn open(&mut self, own: IpAddr, now: Instant) -> Option<&Sockets> {
        let family = Family::of(own);
        if !self.sockets.contains_key(&family) {
            if self.retry.is_some_and(|retry| now < retry) {
                return None;
            }
            match Sockets::open(family, self.port) {
                Ok(sockets) => _ = self.sockets.insert(family, sockets),
                Err(error) => {
                    tracing::warn!(%error, "the ways to other hosts are not asked for now");
                    self.retry = Some(now + AGAIN);
                }
            }
        }
        self.sockets.get(&family)
    }

    fn ask(&mut self, now: Instant) {
        let number = || Uuid::new_v4().as_u64_pair().0;
        for sending in self.ways.due(now, AT_ONCE, number) {
            if !self.send(&sending, now) {
                self.ways.unsent(&sending);
            }
        }
    }

    /// Says whether it has left this host.
    fn send(&mut self, sending: &Sending, now: Instant) -> bool {
        let Some(packet) = sending.probe.packet(sending.ends, self.port) else { return false };
        let (own, peer) = sending.ends;
        let Some(sockets) = self.open(own, now) else { return false };
        match sockets.sender.send(&packet, peer) {
            Ok(()) => true,
            // The firewall of this host, or its routes: nothing arrives.
            Err(error) if blocks(&error) => true,
            Err(error) => {
                tracing::debug!(%error, %own, %peer, bytes = packet.len(), "not asked");
                false
            }
        }
    }

    fn hear(&mut self, family: Family, now: Instant) {
        for _ in 0..HEAR_MAX {
            let Some(sockets) = self.sockets.get(&family) else { return };
            let mut buffer = std::mem::take(&mut self.buffer);
            let heard = sockets.listener.hear(&mut buffer);
            let ip_bytes = |start| if family == Family::Ipv4 { start } else { 40 };
            let read = |heard: &hostnet::Heard| {
                Probe::read(&buffer[heard.start..heard.end], ip_bytes(heard.start))
            };
            let probe = heard.as_ref().ok().and_then(read);
            self.buffer = buffer;
            let Ok(heard) = heard else { return };
            let Some(probe) = probe else { continue };
            for answer in self.ways.heard(heard.from, probe, now) {
                self.send(&answer, now);
            }
        }
    }
}

/// Whether a packet that could not be sent would not have been either if a tunnel had sent it.
fn blocks(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, PermissionDenied};
    matches!(error.kind(), PermissionDenied | HostUnreachable | NetworkUnreachable)
}

/// Says what is new.
fn log(before: Option<&Paths>, now: Option<&Paths>) {
    let blocked =
        |paths: Option<&Paths>| paths.map(|paths| paths.blocked.clone()).unwrap_or_default();
    let (before, now) = (blocked(before), blocked(now));
    for path in now.iter().filter(|path| !before.contains(path)) {
        let wire::paths::BlockedPath { own, peer, direction, passes_bytes, lost_bytes, port } =
            path;
        tracing::warn!(
            %own, %peer, ?direction, port, passes_bytes, lost_bytes,
            "packets between this host's VTEP and a peer's are lost"
        );
    }
    for path in before.iter().filter(|path| now.iter().all(|it| it.peer != path.peer)) {
        tracing::info!(own = %path.own, peer = %path.peer, "packets pass again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_peers_of_the_host_s_networks_are_asked_with_the_longest_packet_of_its_ports() {
        let [one, two] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        assert_eq!(ends(&sample::two_networks()), [((one, two), 1_500)].into());
    }
}
