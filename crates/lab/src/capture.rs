//! `netloom lab capture`: the frames of a VM's NIC or of a host, with what the data plane decided.
//!
//! A frame is heard where the kernel hears it first. What a VM sends is heard on the host's side of
//! its NIC, before the programs: dropped frames are heard too. What a VM receives is heard inside
//! it, as it is handed over past the host's side. The programs tell of each drop by an event with
//! the frame's first bytes; [`join`] finds the frame that it is about. A drop that no frame was
//! heard of (what was to be delivered, or came out of a tunnel) is written down by itself, as far
//! as the event has its bytes.

mod join;
mod write;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};

use dataplane::{DropWatch, DroppedFrame};
use hostnet::{Kind, LinkInfo, Namespace, Tap, wait_for_frames};

use crate::{Error, exec, names, state::Place, underlay};
use join::{Frame, Joiner, Record};
use write::Sink;

/// How long nothing is looked at when no frame comes.
const TICK: Duration = Duration::from_millis(20);

/// Frames that are taken from one device before the others have their turn.
const BURST: usize = 256;

/// Devices of a host at most.
const DEVICES_MAX: usize = 16;

/// What is to be captured, and where to.
#[derive(Clone, Debug)]
pub struct Capture {
    /// A VM or a host.
    pub node: String,
    /// Which NIC of a VM, from 0.
    pub nic: u32,
    /// The pcapng file; `None`: text on standard output.
    pub file: Option<PathBuf>,
    /// Ends after so long.
    pub time: Option<Duration>,
    /// Ends after so many frames and drops.
    pub count: Option<u64>,
}

/// What was captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Frames and drops that were written.
    pub records: u64,
    /// Those among them that were dropped.
    pub dropped: u64,
    /// Frames that the kernel had no room for: they are missing.
    pub missed: u64,
    /// Drops that the data plane had no room to tell of: as many frames seem to have passed.
    pub untold: u64,
}

/// A device that is listened to.
struct Ear {
    tap: Tap,
    /// Which frames count.
    hears: Hears,
    /// Its index, if drops on it are about frames that are heard here.
    joins: Option<u32>,
}

/// Which frames of a device count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hears {
    Incoming,
    Both,
}

/// Where frames are heard, and which drops concern them.
struct Scene {
    host: String,
    ears: Vec<Ear>,
    /// What each ear hears, in words.
    titles: Vec<String>,
    /// Only drops on this interface, or of the port on it.
    port: Option<u32>,
}

pub(crate) fn capture(place: &Place, what: &Capture, stop: &AtomicBool) -> Result<Captured, Error> {
    let mut scene = scene(place, what)?;
    let failed = |source| Error::DataPlane { host: scene.host.clone(), source };
    let bpffs = place.path(&scene.host).join("bpf");
    let mut drops = DropWatch::open(&bpffs).map_err(failed)?;
    let number = match scene.port {
        Some(ifindex) => drops.port(ifindex).map_err(failed)?,
        None => None,
    };
    let mut sink = Sink::open(what.file.as_deref(), &scene.titles)?;
    let (mut joiner, mut done) = (Joiner::default(), Captured::default());
    let (begin, clock) = (Instant::now(), clock_offset(drops.now_ns()));
    let is_over = |done: &Captured| {
        stop.load(Ordering::Relaxed)
            || what.time.is_some_and(|time| begin.elapsed() >= time)
            || what.count.is_some_and(|count| done.records >= count)
    };
    let concerns = |drop: &DroppedFrame| match scene.port {
        None => true,
        Some(ifindex) => drop.ifindex == ifindex || number.is_some_and(|port| drop.port == port),
    };
    while !is_over(&done) {
        let taps: Vec<&Tap> = scene.ears.iter().map(|ear| &ear.tap).collect();
        wait_for_frames(&taps, TICK).map_err(|error| Error::io("wait for frames", error))?;
        hear(&mut scene.ears, &mut joiner)?;
        let told = drops.read().map_err(failed)?;
        for drop in told.into_iter().filter(|drop| concerns(drop)) {
            joiner.dropped(drop, clock);
        }
        write(&mut sink, joiner.due(now()), (&mut done, what.count))?;
    }
    // What is on its way still counts: a drop is told right after its frame was heard.
    hear(&mut scene.ears, &mut joiner)?;
    for drop in drops.read().map_err(failed)?.into_iter().filter(|drop| concerns(drop)) {
        joiner.dropped(drop, clock);
    }
    write(&mut sink, joiner.all(), (&mut done, what.count))?;
    done.missed = scene.ears.iter().map(|ear| u64::from(ear.tap.missed())).sum();
    done.untold = drops.lost().map_err(failed)?;
    Ok(done)
}

fn hear(ears: &mut [Ear], joiner: &mut Joiner) -> Result<(), Error> {
    for (at, ear) in ears.iter_mut().enumerate() {
        for _ in 0..BURST {
            let heard = ear.tap.take().map_err(|error| Error::io("take a frame", error))?;
            let Some(frame) = heard else { break };
            if ear.hears == Hears::Incoming && frame.is_outgoing {
                continue;
            }
            // What leaves is heard after the programs have let it through.
            let joins = ear.joins.filter(|_| !frame.is_outgoing);
            joiner.heard(Frame { ear: at, joins, frame });
        }
    }
    Ok(())
}

fn write(
    sink: &mut Sink,
    records: Vec<Record>,
    (done, most): (&mut Captured, Option<u64>),
) -> Result<(), Error> {
    for record in records {
        if most.is_some_and(|most| done.records >= most) {
            break;
        }
        sink.write(&record)?;
        done.records += 1;
        done.dropped += u64::from(record.drop.is_some());
    }
    sink.flush()
}

/// What has to be added to the clock of events to have the time since 1970.
fn clock_offset(now_ns: u64) -> Duration {
    now().saturating_sub(Duration::from_nanos(now_ns))
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn scene(place: &Place, what: &Capture) -> Result<Scene, Error> {
    let settings = place.existing()?;
    let namespace = exec::namespace(place, &what.node)?;
    match settings.hosts.contains(&what.node) {
        true => of_host(&what.node, &namespace),
        false => of_vm(place, (&namespace, &settings.hosts), what),
    }
}

/// All devices of a host that have Ethernet frames and are up, and every drop.
fn of_host(host: &str, namespace: &Namespace) -> Result<Scene, Error> {
    let links = links(namespace)?;
    let is_wire = |link: &&LinkInfo| {
        link.is_up
            && link.is_ethernet
            && !matches!(link.kind, Kind::Vxlan { .. })
            && !link.name.starts_with("nl")
    };
    let (mut ears, mut titles) = (Vec::new(), Vec::new());
    for link in links.iter().filter(is_wire).filter(|link| link.mac != [0; 6]).take(DEVICES_MAX) {
        let (tap, joins) = (namespace.tap(&link.name)?, Some(link.index));
        ears.push(Ear { tap, hears: Hears::Both, joins });
        titles.push(format!("{} of host {host}", link.name));
    }
    Ok(Scene { host: host.to_owned(), ears, titles, port: None })
}

/// The NIC of a VM, on both of its sides.
fn of_vm(
    place: &Place,
    (vm, hosts): (&Namespace, &[String]),
    what: &Capture,
) -> Result<Scene, Error> {
    let none = || Error::NoNic { vm: what.node.clone(), nic: what.nic };
    let device = format!("eth{}", what.nic);
    let inside = links(vm)?.into_iter().find(|link| link.name == device).ok_or_else(none)?;
    let host = hosts
        .iter()
        .find(|host| vm.name().starts_with(&format!("{}-", names::namespace(&place.lab, host))));
    let host = host.ok_or_else(none)?;
    let outside = Namespace::open(&names::namespace(&place.lab, host))?;
    let own: BTreeMap<u32, LinkInfo> =
        links(&outside)?.into_iter().map(|link| (link.index, link)).collect();
    let other = inside.peer.and_then(|index| own.get(&index)).ok_or_else(none)?;
    let sent =
        Ear { tap: outside.tap(&other.name)?, hears: Hears::Incoming, joins: Some(other.index) };
    let received = Ear { tap: vm.tap(&device)?, hears: Hears::Incoming, joins: None };
    let titles = vec![
        format!("sent by {device} of {}", what.node),
        format!("received by {device} of {}", what.node),
    ];
    let (host, port) = (host.clone(), Some(other.index));
    Ok(Scene { host, ears: vec![sent, received], titles, port })
}

fn links(namespace: &Namespace) -> Result<Vec<LinkInfo>, Error> {
    underlay::runtime()?.block_on(async { Ok(namespace.netlink().await?.links().await?) })
}
