//! What rules and members cost a packet, and a host that follows their changes: the programs through
//! `BPF_PROG_TEST_RUN`, with maps that the agent's own ledger has made of objects; and that ledger.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Instant,
};

use agent::ledger::Ledger;
use dataplane::{
    Options, TestHarness,
    packet::{ConntrackSize, Entry, Mac, Meta},
};

use crate::{
    Failure,
    frame::{Station, udp},
    packet::on_own_host,
    plan::{Group, Metric, Step},
    policy_objects::{At, World, rule},
    rivals::Size,
    stats,
    worst::Worst,
};

/// Packets with rules.
pub(crate) const POLICY: Group = Group {
    id: "groups-packet",
    steps: &[
        Step {
            id: "rules",
            contenders: &["10-rules", "no-rules", "10000-rules"],
            metrics: &[
                metric("established", "ns"),
                metric("established-many", "ns"),
                metric("first", "ns"),
                metric("first-single", "ns"),
            ],
        },
        Step {
            id: "vectors",
            contenders: &["median", "slowest"],
            metrics: &[metric("vectors-repeated", "ns"), metric("vectors-single", "ns")],
        },
        Step {
            id: "follow",
            contenders: &["10-members", "100000-members"],
            metrics: &[
                metric("follow-all", "ms"),
                metric("follow-member", "ms"),
                metric("follow-rule", "ms"),
            ],
        },
    ],
};

const fn metric(id: &'static str, unit: &'static str) -> Metric {
    Metric { id, unit, quantile: 0.5 }
}

/// Repetitions of one run.
const REPEAT: u32 = 200_000;
/// Connections among which packets are drawn by lot: more than the cache of verdicts has places.
const MANY: u32 = 1 << 14;
/// Packets drawn by lot, each of which opens a connection; and single ones.
const FIRSTS: u32 = 100_000;
const SINGLES: u16 = 500;
/// A time long after boot, so that nothing has been idle since before it.
const NOW_NS: u64 = 1_000_000_000_000;
/// The kind of a `VerdictRecord` that delivers.
const DELIVER: u32 = 2;
/// Room for [`MANY`] connections of either port.
const TABLE: ConntrackSize =
    ConntrackSize { ports: 2, port_buckets: 20_000, common_buckets: 13_334 };

const CLIENT: At =
    At { number: 1, ifindex: 11, mac: [2, 0, 0, 0, 0, 1], ip: Ipv4Addr::new(10, 0, 0, 1) };
const SERVER: At =
    At { number: 2, ifindex: 12, mac: [2, 0, 0, 0, 0, 2], ip: Ipv4Addr::new(10, 0, 0, 2) };
const CLIENT_PORT: u16 = 1_000;
const SERVER_PORT: u16 = 2_000;

/// Ports of the host that follows.
const PORTS: u32 = 1_000;
/// The group that they are in.
const GROUP: u32 = 103;

/// The programs with tables of each size.
pub(crate) struct Costs {
    harnesses: BTreeMap<String, TestHarness>,
    worst: Option<Worst>,
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
        let directory = directory.to_owned();
        let mut costs = Costs { harnesses: BTreeMap::new(), worst: None, directory };
        let done = work(&mut costs);
        let Costs { harnesses, worst, directory } = costs;
        let mut names: Vec<String> = harnesses.into_keys().collect();
        names.extend(worst.map(|_| WORST.to_owned()));
        for name in names {
            dataplane::unload(&directory.join(name))?;
        }
        done
    })
}

/// The directory of the programs that run vectors.
const WORST: &str = "worst";

impl Costs {
    /// Takes a sample of a step.
    pub(crate) fn measure(
        &mut self,
        step: &str,
        contender: &str,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        match step {
            "rules" => self.rules(contender),
            "vectors" => {
                let worst = match &mut self.worst {
                    Some(worst) => worst,
                    None => self.worst.insert(Worst::open(&self.directory.join(WORST))?),
                };
                worst.measure(contender)
            }
            _ => follow(contender.split('-').next().unwrap_or_default().parse()?),
        }
    }

    fn rules(&mut self, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        if !self.harnesses.contains_key(contender) {
            let harness = open(&self.directory.join(contender), contender)?;
            self.harnesses.insert(contender.to_owned(), harness);
        }
        let harness = self.harnesses.get_mut(contender).ok_or("what was just opened is gone")?;
        let to_server = |port| udp(station(CLIENT, port), station(SERVER, SERVER_PORT));
        let mut run = |meta: Meta, frame: &[u8], repeat, is_varied| {
            let outcome = match is_varied {
                true => harness.run_varied(&meta, frame, repeat)?,
                false => harness.run(Entry::FromPort, &meta, frame, repeat)?,
            };
            match outcome.verdict.kind {
                DELIVER => Ok(outcome.duration.as_secs_f64() * 1e9),
                _ => Err(Failure::from(format!("{:?}, not delivered", outcome.verdict))),
            }
        };
        let (frame, meta) = (to_server(CLIENT_PORT), meta(CLIENT));
        run(meta, &frame, 1, false)?;
        let back = udp(station(SERVER, SERVER_PORT), station(CLIENT, CLIENT_PORT));
        run(self::meta(SERVER), &back, 1, false)?;
        let established = run(meta, &frame, REPEAT, false)?;
        let singles = (1..=SINGLES).map(|at| run(meta, &to_server(CLIENT_PORT + at), 1, false));
        let singles = singles.collect::<Result<Vec<f64>, Failure>>()?;
        let many = Meta { mark: MANY - 1, ..meta };
        run(many, &frame, 12 * MANY, true)?;
        let many = run(many, &frame, REPEAT, true)?;
        // Any of four thousand million.
        let first = run(Meta { mark: u32::MAX, ..meta }, &frame, FIRSTS, true)?;
        harness.set_conntrack(&[])?;
        Ok(vec![vec![established], vec![many], vec![first], singles])
    }
}

/// The programs with these rules; they filter, or there are none.
fn open(bpffs: &Path, contender: &str) -> Result<TestHarness, Failure> {
    let size = match contender {
        "no-rules" => None,
        "10-rules" => Some(Size { rules: 10, members: 10 }),
        _ => Some(Size { rules: 10_000, members: 100_000 }),
    };
    let world = match size {
        None => World::open(CLIENT, SERVER),
        Some(size) => World::filtered(CLIENT, SERVER, size),
    };
    let ledger = Ledger::of(&world.holding, &world.ties);
    if !ledger.unfit().is_empty() || ledger.closed().next().is_some() {
        return Err(format!("there is no room: {:?}", ledger.unfit()).into());
    }
    let mut harness = TestHarness::open(&Options { conntrack: TABLE, ..Options::new(bpffs) })?;
    harness.plane.reconcile(ledger.tables())?;
    // The server is no member.
    let back = udp(station(SERVER, SERVER_PORT), station(CLIENT, CLIENT_PORT));
    let outcome = harness.run(Entry::FromPort, &meta(SERVER), &back, 1)?;
    if (outcome.verdict.kind == DELIVER) != size.is_none() {
        return Err(format!("{contender}: {:?}: not filtered as it should", outcome.verdict).into());
    }
    harness.set_conntrack(&[])?;
    Ok(harness)
}

fn station(at: At, port: u16) -> Station {
    Station { mac: Mac(at.mac), ip: at.ip.octets(), port }
}

fn meta(of: At) -> Meta {
    Meta { now_ns: NOW_NS, ifindex: of.ifindex, length: 60, ..Meta::default() }
}

/// What it takes to find out what the maps of a host with [`PORTS`] ports need: all at once, one member
/// in another set of groups, and another rule of the group that all ports are in.
fn follow(members: u32) -> Result<Vec<Vec<f64>>, Failure> {
    let mut world = World::new();
    let of_members = |number| wire::policy::Rule { group: Some(GROUP), ..rule(number) };
    world.group(GROUP, vec![of_members(1)]);
    for number in 0..PORTS {
        let [_, _, c, d] = number.to_be_bytes();
        let (mac, ip) = ([2, 1, 0, 0, c, d], Ipv4Addr::new(10, 1, c, d));
        world.port(At { number: 1 + number, ifindex: 100 + number, mac, ip }, &[GROUP]);
    }
    let ip = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + number);
    for number in 0..members {
        world.member(number, ip(number), &[GROUP, 200 + number % 16]);
    }
    let mut ledger = Ledger::default();
    let mut timed = |world: &World| {
        let begin = Instant::now();
        let edits = ledger.follow(&world.holding, &world.ties);
        let took = stats::ms(begin.elapsed());
        match edits.is_empty() {
            false => Ok(vec![took]),
            true => Err(Failure::from("a change changes nothing")),
        }
    };
    let all = timed(&world)?;
    world.member(7, ip(7), &[GROUP, 299]);
    let member = timed(&world)?;
    world.group(GROUP, vec![wire::policy::Rule { protocol: Some(17), ..of_members(2) }]);
    Ok(vec![all, member, timed(&world)?])
}
