//! What a decision costs: the eBPF programs through `BPF_PROG_TEST_RUN`, in nanoseconds.
//!
//! The programs stop at the verdict: neither the redirect nor the encapsulation is in the figures.
//! Runs of many repetitions have warm caches. What changes the frame or the tables cannot be
//! repeated: it is run once at a time, with the kernel's clock reading in it, and compared with
//! the baseline run once at a time.

use std::{
    path::{Path, PathBuf},
    thread,
};

use dataplane::{
    Options, Tables, TestHarness,
    packet::{
        Addr, AddrKey, Config, ConntrackSize, DELIVERED_MARK, Entry, Fdb, FdbKey, Mac, Meta, Neigh,
        NeighKey, Net, Port, PortKey, Source, Vtep, VtepKey,
    },
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    Failure,
    frame::{Station, arp_request, udp},
    plan::{Group, Metric, Step},
    scratch::Scratch,
};

/// The programs, by what they are given.
pub(crate) const PACKET: Group = Group {
    id: "packet",
    steps: &[
        Step {
            id: "repeated",
            contenders: &["pass", "local", "tunnel-out", "tunnel-in", "spoofed", "refused"],
            metrics: &[Metric { id: "repeated", unit: "ns", quantile: 0.5 }],
        },
        Step {
            id: "random",
            contenders: &["1-connection", "1024", "16384", "262144"],
            metrics: &[Metric { id: "random", unit: "ns", quantile: 0.5 }],
        },
        Step {
            id: "stations",
            contenders: &["10-stations", "10000-stations"],
            metrics: &[
                Metric { id: "stations", unit: "ns", quantile: 0.5 },
                Metric { id: "stations-first", unit: "ns", quantile: 0.5 },
            ],
        },
        Step {
            id: "single",
            contenders: &["pass", "arp-reply", "new-connection"],
            metrics: &[Metric { id: "single", unit: "ns", quantile: 0.5 }],
        },
    ],
};

/// Repetitions of one run: about a tenth of a second.
const REPEAT: u32 = 200_000;
/// Single runs of a sample, and at the same time ports of a sample: each opens a connection.
const SINGLES: u16 = 500;
/// A time long after boot, so that nothing has been idle since before it.
const NOW_NS: u64 = 1_000_000_000_000;

/// Runs of a sample on connections drawn by lot, and before the first one, for each connection: so
/// many that hardly any is left to open.
const RANDOM: u32 = 500_000;
const EACH: u32 = 12;
/// Room for 262,144 connections that a port opens, with some to spare.
const LARGE: ConntrackSize =
    ConntrackSize { ports: 2, port_buckets: 160_000, common_buckets: 106_666 };

/// Room for the connections of a sample, from one peer; small, as it is emptied before each.
const TABLE: ConntrackSize = ConntrackSize { ports: 2, port_buckets: 2_048, common_buckets: 1_024 };

const NET: u32 = 1;
const VNI: u32 = 100;
const VTEP: Addr = Addr::v4([192, 0, 2, 2]);
const LOCAL_VTEP: Addr = Addr::v4([192, 0, 2, 1]);
const A: Station = Station { mac: Mac([2, 0, 0, 0, 0, 1]), ip: [10, 0, 0, 1], port: 1000 };
const B: Station = Station { mac: Mac([2, 0, 0, 0, 0, 2]), ip: [10, 0, 0, 2], port: 2000 };
/// On another host.
const C: Station = Station { mac: Mac([2, 0, 0, 0, 0, 3]), ip: [10, 0, 0, 3], port: 3000 };
/// Interfaces and numbers of the ports of A and B; test runs need no real interfaces.
const PORT_A: (u32, u32) = (11, 1);
const PORT_B: (u32, u32) = (12, 2);
/// The interface of the tunnel.
const TUNNEL_DEVICE: u32 = 13;

/// The kinds of a `VerdictRecord`.
const DROP: u32 = 1;
const DELIVER: u32 = 2;
const TUNNEL: u32 = 3;
const REFLECT: u32 = 4;
const PASS: u32 = 5;

/// Something that is given to a program, and the kind of verdict that must come out.
struct Case {
    entry: Entry,
    meta: Meta,
    frame: Vec<u8>,
    verdict: u32,
}

/// The programs, loaded, with a small network in the maps.
pub(crate) struct Costs {
    harness: TestHarness,
    /// The same with room for many connections, all of which are there; made when it is needed.
    large: Option<TestHarness>,
    /// The same with many stations in the network.
    crowded: Option<TestHarness>,
    directory: PathBuf,
}

/// Runs `work` with the programs, on a host of its own.
///
/// # Errors
/// What `work` says, or that the programs cannot be loaded.
pub(crate) fn in_own_namespaces<T: Send>(
    scratch: &Path,
    work: impl FnOnce(&mut Costs) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    on_own_host(scratch, |directory| {
        let mut costs = Costs {
            harness: open(&directory.join("bpf"), TABLE)?,
            large: None,
            crowded: None,
            directory: directory.to_owned(),
        };
        let done = work(&mut costs);
        let more = [("large", costs.large.is_some()), ("crowded", costs.crowded.is_some())];
        drop(costs);
        for (name, _) in more.into_iter().filter(|(_, is_there)| *is_there) {
            dataplane::unload(&directory.join(name))?;
        }
        dataplane::unload(&directory.join("bpf"))?;
        done
    })
}

/// Runs `work` on a thread that has a host of its own, and a directory: network and mounts vanish
/// with it.
///
/// # Errors
/// What `work` says, or that there is no such host.
pub(crate) fn on_own_host<T: Send>(
    scratch: &Path,
    work: impl FnOnce(&Path) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let directory = Scratch::new(scratch, "host")?;
    let on_thread = || -> Result<T, Failure> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        work(&directory.0)
    };
    let done = thread::scope(|scope| {
        scope.spawn(|| on_thread().map_err(|error| error.to_string())).join()
    });
    Ok(done.map_err(|_| "the thread panicked")??)
}

impl Costs {
    /// Takes a sample of a step.
    pub(crate) fn measure(
        &mut self,
        step: &str,
        contender: &str,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        if step == "random" {
            return Ok(vec![vec![self.random(contender)?]]);
        }
        if step == "stations" {
            return self.stations(contender);
        }
        self.harness.set_conntrack(&[])?;
        let values = match step {
            "repeated" if contender == "refused" => vec![self.refused()?],
            "repeated" => vec![self.repeated(contender)?],
            _ => self.singles(contender)?,
        };
        Ok(vec![values])
    }

    fn repeated(&mut self, contender: &str) -> Result<f64, Failure> {
        let case = case(contender, A.port)?;
        // Both directions first: what is measured is an established connection.
        self.run(&case, 1)?;
        if contender == "local" {
            self.run(
                &Case {
                    entry: Entry::FromPort,
                    meta: meta(PORT_B),
                    frame: udp(B, A),
                    verdict: DELIVER,
                },
                1,
            )?;
        }
        self.run(&case, REPEAT)
    }

    /// What it costs to refuse a peer that has as many connections to a VM as one may.
    fn refused(&mut self) -> Result<f64, Failure> {
        let back = |port| Case {
            entry: Entry::FromPort,
            meta: meta(PORT_B),
            frame: udp(B, Station { port, ..A }),
            verdict: DELIVER,
        };
        for port in A.port..u16::MAX {
            let there = case("new-connection", port)?;
            if self.run(&there, 1).is_err() {
                return self.run(&Case { verdict: DROP, ..there }, REPEAT);
            }
            // What gives way for nobody is established.
            self.run(&back(port), 1)?;
            self.run(&there, 1)?;
        }
        Err("a peer may have any number of connections".into())
    }

    /// Packets of so many connections, drawn by lot.
    fn random(&mut self, contender: &str) -> Result<f64, Failure> {
        const MOST: u32 = 1 << 18;
        let case = case("tunnel-out", A.port)?;
        let large = match &mut self.large {
            Some(large) => large,
            None => {
                let mut large = open(&self.directory.join("large"), LARGE)?;
                let meta = Meta { mark: MOST - 1, ..case.meta };
                large.run_varied(&meta, &case.frame, EACH * MOST)?;
                self.large.insert(large)
            }
        };
        let connections = contender.parse().unwrap_or(1);
        let meta = Meta { mark: connections - 1, ..case.meta };
        large.run_varied(&meta, &case.frame, 8 * connections)?;
        let outcome = large.run_varied(&meta, &case.frame, RANDOM)?;
        if outcome.verdict.kind != TUNNEL {
            return Err(format!("{:?}, not sent", outcome.verdict).into());
        }
        Ok(outcome.duration.as_secs_f64() * 1e9)
    }

    /// A packet of a known connection, and the first one to each of several stations of another host,
    /// in a network of so many.
    fn stations(&mut self, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        let count: u32 = contender.split('-').next().unwrap_or_default().parse()?;
        if self.crowded.is_none() {
            self.crowded = Some(open(&self.directory.join("crowded"), TABLE)?);
        }
        let Some(harness) = &mut self.crowded else { return Err("no harness".into()) };
        let mut wanted = tables();
        wanted.nets.insert(NET, Net::closed());
        for number in 0..count {
            let station = elsewhere(number);
            let remote = Fdb::remote(VNI, VTEP).sent_from(LOCAL_VTEP);
            wanted.fdb.insert(FdbKey::new(NET, station.mac), remote);
            let neigh = NeighKey { net: NET, addr: Addr::v4(station.ip) };
            wanted.neigh.insert(neigh, Neigh::behind(VTEP, station.mac));
        }
        harness.plane.reconcile(&wanted)?;
        harness.set_conntrack(&[])?;
        // Scattered over all of them; where there are few, from other ports.
        let frame = |number: u16| {
            let to = elsewhere(u32::from(number).wrapping_mul(7_919) % count);
            udp(Station { port: A.port + number, ..A }, to)
        };
        let mut run = |number, repeat| {
            let outcome = harness.run(Entry::FromPort, &meta(PORT_A), &frame(number), repeat)?;
            match outcome.verdict.kind {
                TUNNEL => Ok(outcome.duration.as_secs_f64() * 1e9),
                _ => Err(Failure::from(format!("{:?}, not sent", outcome.verdict))),
            }
        };
        let firsts: Result<Vec<f64>, Failure> = (0..SINGLES).map(|number| run(number, 1)).collect();
        Ok(vec![vec![run(0, REPEAT)?], firsts?])
    }

    fn singles(&mut self, contender: &str) -> Result<Vec<f64>, Failure> {
        let ports = A.port..A.port + SINGLES;
        ports.map(|port| self.run(&case(contender, port)?, 1)).collect()
    }

    fn run(&mut self, case: &Case, repeat: u32) -> Result<f64, Failure> {
        let outcome = self.harness.run(case.entry, &case.meta, &case.frame, repeat)?;
        if outcome.verdict.kind != case.verdict {
            return Err(format!("{:?}, not kind {}", outcome.verdict, case.verdict).into());
        }
        Ok(outcome.duration.as_secs_f64() * 1e9)
    }
}

/// The programs with a connection table of this size and the small network.
fn open(bpffs: &Path, conntrack: ConntrackSize) -> Result<TestHarness, Failure> {
    let mut harness = TestHarness::open(&Options { conntrack, ..Options::new(bpffs) })?;
    harness.plane.reconcile(&tables())?;
    let config = harness.config()?;
    harness.set_config(Config { tunnel_ifindex: TUNNEL_DEVICE, ..config })?;
    Ok(harness)
}

fn case(contender: &str, port: u16) -> Result<Case, Failure> {
    let a = Station { port, ..A };
    let from_a =
        |frame, verdict| Case { entry: Entry::FromPort, meta: meta(PORT_A), frame, verdict };
    Ok(match contender {
        // The least that a program does: look at the mark, let go.
        "pass" => Case {
            entry: Entry::ToPort,
            meta: Meta { mark: DELIVERED_MARK, ..meta(PORT_B) },
            frame: udp(a, B),
            verdict: PASS,
        },
        "local" | "new-connection" => from_a(udp(a, B), DELIVER),
        "tunnel-out" => from_a(udp(a, C), TUNNEL),
        "spoofed" => from_a(udp(Station { ip: C.ip, ..a }, B), DROP),
        "arp-reply" => from_a(arp_request(a, B.ip), REFLECT),
        "tunnel-in" => Case {
            entry: Entry::FromTunnel,
            meta: Meta {
                tunnelled: 1,
                vni: VNI,
                vtep: VTEP,
                local: LOCAL_VTEP,
                ..meta((TUNNEL_DEVICE, 0))
            },
            frame: udp(C, B),
            verdict: DELIVER,
        },
        other => return Err(format!("there is no contender {other}").into()),
    })
}

/// A station of another host.
fn elsewhere(number: u32) -> Station {
    let [_, high, middle, low] = number.to_be_bytes();
    Station { mac: Mac([2, 1, 0, high, middle, low]), ip: [10, 1 + high, middle, low], port: 3000 }
}

fn meta((ifindex, _): (u32, u32)) -> Meta {
    Meta { now_ns: NOW_NS, ifindex, length: 60, ..Meta::default() }
}

/// A and B here, C behind the tunnel.
fn tables() -> Tables {
    let mut tables = Tables::default();
    tables.nets.insert(NET, Net::closed());
    for ((ifindex, number), station) in [(PORT_A, A), (PORT_B, B)] {
        let (key, mac) = (PortKey::untagged(ifindex), station.mac);
        let port =
            Port { number, net: NET, generation: 1, mac, flags: Port::PEER, ..Port::default() };
        tables.ports.insert(key, port);
        tables
            .addrs
            .insert(AddrKey { port: number, addr: Addr::v4(station.ip) }, Source::default());
        tables.fdb.insert(FdbKey::new(NET, station.mac), Fdb::local(key));
    }
    let remote = Fdb::remote(VNI, VTEP).sent_from(LOCAL_VTEP);
    tables.fdb.insert(FdbKey::new(NET, C.mac), remote);
    let neigh = NeighKey { net: NET, addr: Addr::v4(C.ip) };
    tables.neigh.insert(neigh, Neigh::behind(VTEP, C.mac));
    tables.vteps.insert(VtepKey { vni: VNI, addr: VTEP }, Vtep::of_host(NET, LOCAL_VTEP));
    for station in [A, B] {
        let key = NeighKey { net: NET, addr: Addr::v4(station.ip) };
        tables.neigh.insert(key, Neigh::local(station.mac));
    }
    tables
}
