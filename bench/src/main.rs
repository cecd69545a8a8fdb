//! Measures netloom side by side with what a plain Linux host offers, in one interleaved run.
//!
//! `make bench` writes `bench/results/*.json` and `docs/benchmarks.md` from it. Fewer rounds than
//! [`PUBLISHED_ROUNDS`], or a part of a group, are printed and not written. Needs root and two CPUs.

mod agent;
mod binding;
mod change;
mod clients;
mod cloud;
mod connection;
mod control;
mod creations;
mod filtered;
mod flood;
mod frame;
mod groups;
mod hosts;
mod http;
mod leases;
mod load;
mod loom;
mod machine;
mod moves;
mod nics;
mod node;
mod packet;
mod ping;
mod plan;
mod policy_cost;
mod policy_objects;
mod ports;
mod publish;
mod queries;
mod reads;
mod reconnect;
mod restart;
mod rivals;
mod scale;
mod scratch;
mod serve;
mod server;
mod site;
mod slow_disk;
mod stats;
mod stream;
mod syn;
mod syn_flood;
mod traffic;
mod vms;
mod worst;
mod writes;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};

use crate::{
    loom::Loom,
    machine::Machine,
    plan::{Figure, Group, Plan},
    publish::Results,
    traffic::{CROSS_HOST, SAME_HOST, TAPS, Traffic, WIRES},
};

/// Why something could not be measured: for the user, nothing is done about it.
type Failure = Box<dyn std::error::Error>;

/// Fewer rounds are for looking, not for publishing.
const PUBLISHED_ROUNDS: usize = 20;

/// Measures netloom side by side with what a plain Linux host offers.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    internal: Option<Internal>,
    /// The netloom binary to measure.
    #[arg(long, default_value = "target/release/netloom")]
    netloom: PathBuf,
    /// How many rounds; fewer than 20 are printed, not published.
    #[arg(long, default_value_t = PUBLISHED_ROUNDS)]
    rounds: usize,
    /// Measure only what starts with this, such as `cross-host.tcp`.
    #[arg(long, default_value = "")]
    only: String,
    /// How long one sample takes, in seconds.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Write results and document here, whatever the number of rounds.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Where the databases lie that are measured: on a real disk, not in memory.
    #[arg(long, default_value = "target")]
    scratch: PathBuf,
}

#[derive(Subcommand)]
enum Internal {
    /// One end of the load, in a namespace; started by the benchmark.
    #[command(hide = true)]
    Node {
        /// Which end.
        role: node::Role,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.internal {
        Some(Internal::Node { role }) => node::main(*role),
        None => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netloom-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures all groups that are asked for. One that fails does not keep the others from it.
fn run(arguments: &Arguments) -> Result<(), Failure> {
    let binary = std::path::absolute(&arguments.netloom)?;
    if !binary.is_file() {
        return Err(format!("there is no {}: run `make build` first", binary.display()).into());
    }
    site::sweep()?;
    loom::sweep()?;
    scratch::sweep(&arguments.scratch)?;
    let machine = Machine::here();
    let plan = Plan { rounds: arguments.rounds, only: &arguments.only };
    let time = Duration::from_secs_f64(arguments.seconds);
    let mut failed = Vec::new();
    let mut measured = Vec::new();
    for (group, measure) in GROUPS {
        if group.selected(plan.only).next().is_none() {
            continue;
        }
        match measure(plan, &Setting { binary: &binary, scratch: &arguments.scratch, time }) {
            Ok(figures) => measured.push((group, Results { machine: machine.clone(), figures })),
            Err(error) => failed.push(format!("{}: {error}", group.id)),
        }
    }
    for (group, results) in &measured {
        print!("{}", publish::table(group.id, results));
        let is_published = plan.rounds >= PUBLISHED_ROUNDS && group.is_whole(plan.only);
        if is_published || arguments.out.is_some() {
            publish::write(arguments.out.as_deref(), group.id, results)?;
        } else {
            println!("not published: a part of the group, or fewer than {PUBLISHED_ROUNDS} rounds");
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("\n").into()),
    }
}

/// What every group needs.
struct Setting<'a> {
    binary: &'a Path,
    scratch: &'a Path,
    time: Duration,
}

/// Measures a group.
type Run = fn(Plan<'_>, &Setting<'_>) -> Result<Vec<Figure>, Failure>;

const GROUPS: [(Group, Run); 19] = [
    (SAME_HOST, same_host),
    (CROSS_HOST, cross_host),
    (WIRES, wires),
    (TAPS, taps),
    (moves::MOVES, move_gaps),
    (flood::FLOOD, flooded),
    (packet::PACKET, packet_costs),
    (groups::GROUPS, filtered_traffic),
    (policy_cost::POLICY, policy_costs),
    (change::CHANGE, changes_of_rules),
    (syn_flood::SYN_FLOOD, flooded_by_syns),
    (control::CONTROL, control_plane),
    (http::HTTP, over_http),
    (vms::VMS, time_to_vm),
    (scale::SCALE, large_clouds),
    (scale::START, start),
    (agent::AGENT, agents),
    (hosts::HOSTS, many_hosts),
    (leases::LEASES, dhcp_leases),
];

fn same_host(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let loom = Loom::up(setting.binary)?;
    let mut traffic = Traffic::same_host(&loom, setting.time)?;
    SAME_HOST.run(plan, &mut |step, contender| traffic.measure(step, contender))
}

fn cross_host(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let loom = Loom::up(setting.binary)?;
    let mut traffic = Traffic::cross_host(&loom, setting.time)?;
    CROSS_HOST.run(plan, &mut |step, contender| traffic.measure(step, contender))
}

fn wires(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let loom = Loom::up(setting.binary)?;
    let mut traffic = Traffic::wires(&loom, setting.time)?;
    WIRES.run(plan, &mut |step, contender| traffic.measure(step, contender))
}

fn taps(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let loom = Loom::up(setting.binary)?;
    let mut traffic = Traffic::taps(&loom, setting.time)?;
    TAPS.run(plan, &mut |step, contender| traffic.measure(step, contender))
}

fn move_gaps(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let mut moves = moves::Moves::new(Loom::up(setting.binary)?)?;
    moves::MOVES.run(plan, &mut |_, _| moves.sample())
}

fn dhcp_leases(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let mut leases = leases::Leases::new(setting.binary, setting.scratch)?;
    leases::LEASES.run(plan, &mut |step, contender| leases.sample(step, contender))
}

fn many_hosts(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let mut hosts = hosts::Hosts::new(setting.binary, setting.scratch)?;
    hosts::HOSTS.run(plan, &mut |_, contender| hosts.sample(contender))
}

fn flooded(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let loom = Loom::up(setting.binary)?;
    let mut flood = flood::Flood::new(&loom, setting.time)?;
    flood::FLOOD.run(plan, &mut |_, contender| flood.measure(contender))
}

fn packet_costs(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    packet::in_own_namespaces(setting.scratch, |costs| {
        packet::PACKET.run(plan, &mut |step, contender| costs.measure(step, contender))
    })
}

fn filtered_traffic(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let loom = Loom::up(setting.binary)?;
    let is_wanted = |rules| groups::has_step(plan.only, rules);
    let mut groups = groups::Groups::new(&loom, setting.time, &is_wanted)?;
    groups::GROUPS.run(plan, &mut |step, contender| groups.measure(step, contender))
}

fn policy_costs(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    policy_cost::in_own_namespaces(setting.scratch, |costs| {
        policy_cost::POLICY.run(plan, &mut |step, contender| costs.measure(step, contender))
    })
}

fn changes_of_rules(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let mut change = change::Change::new(setting.binary)?;
    change::CHANGE.run(plan, &mut |_, contender| change.sample(contender))
}

fn flooded_by_syns(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let loom = Loom::up(setting.binary)?;
    let mut flood = syn_flood::SynFlood::new(&loom, setting.time)?;
    syn_flood::SYN_FLOOD.run(plan, &mut |step, contender| flood.measure(step, contender))
}

fn control_plane(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let mut control = control::Control::new(setting.binary, setting.scratch, setting.time);
    control::CONTROL.run(plan, &mut |step, contender| control.measure(step, contender))
}

fn over_http(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let mut http = http::Http::new(setting);
    http::HTTP.run(plan, &mut |step, contender| http.measure(step, contender))
}

fn time_to_vm(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let mut vms = vms::Vms::new(Loom::up(setting.binary)?, setting.scratch)?;
    vms::VMS.run(plan, &mut |_, contender| vms.sample(contender))
}

fn large_clouds(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let mut scale = scale::Scale::new(setting.binary, setting.scratch);
    scale::SCALE.run(plan, &mut |step, contender| scale.measure(step, contender))
}

fn start(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    let mut scale = scale::Scale::new(setting.binary, setting.scratch);
    scale::START.run(plan, &mut |step, contender| scale.measure(step, contender))
}

fn agents(plan: Plan<'_>, setting: &Setting<'_>) -> Result<Vec<Figure>, Failure> {
    packet::on_own_host(setting.scratch, |directory| {
        let mut agents = agent::Agents::new(directory);
        let figures = agent::AGENT.run(plan, &mut |_, contender| agents.measure(contender));
        agents.end()?;
        figures
    })
}
