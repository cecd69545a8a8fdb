//! Nanoseconds per packet of the core, by `BPF_PROG_TEST_RUN`; run as root:
//! `cargo run -p netloom-dataplane --features test-run --example packet_cost`.
//!
//! The figures are of the decision alone: parsing, guards, maps, counters; no driver, no copy,
//! no redirect. Frames and maps are those of the shared vectors. The first line decides next to
//! nothing: it is what the measurement itself costs, and is in all the others too. The least and
//! the median of all rounds are given: on a machine with other work only the least says much.

use netloom_dataplane::packet::vectors::{Vector, all};
use netloom_dataplane::packet::{DEFAULT_CONNTRACK_ENTRIES, Verdict};
use netloom_dataplane::{Options, Tables, TestHarness};

/// Packets per measurement, and measurements.
const REPEAT: u32 = 200_000;
const ROUNDS: usize = 21;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A mount namespace of its own: a measurement that is cut short leaves no mount behind.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let directory = std::env::temp_dir().join(format!("nlt-{}-cost", std::process::id()));
    let result = measure(&Options::new(directory.join("bpf")));
    netloom_dataplane::unload(&directory.join("bpf"))?;
    std::fs::remove_dir_all(&directory)?;
    result
}

fn measure(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut harness = TestHarness::open(options)?;
    // The first packet of each opens its connection, all others find it established.
    for (what, name) in [
        ("the measurement itself", "delivered frame passes to the port"),
        ("established, local delivery", "new tcp connection to a local port"),
        ("established, local delivery, ipv6", "new tcp connection to a local port over ipv6"),
        ("established, into the tunnel", "new udp flow to a remote station"),
        ("established, out of the tunnel", "udp from the same network reaches the port"),
        ("spoofed source, dropped", "another's ipv4 address is spoofed"),
    ] {
        report(&mut harness, what, &find(name)?)?;
    }
    // A request turns itself into a reply, and a connection is new once: one run at a time.
    singly(&mut harness, "arp reply", &find("arp request for a local port is answered")?, None)?;
    let udp = find("new udp flow to a remote station")?;
    singly(&mut harness, "new connection, into the tunnel", &udp, Some(34))?;
    Ok(())
}

fn find(name: &str) -> Result<Vector, String> {
    all().into_iter().find(|vector| vector.name == name).ok_or(format!("no vector {name}"))
}

fn fill(harness: &mut TestHarness, vector: &Vector) -> Result<(), netloom_dataplane::Error> {
    let memory = &vector.before;
    let mut tables = Tables {
        ports: memory.ports.clone(),
        addrs: memory.addrs.iter().map(|key| (*key, 1)).collect(),
        fdb: memory.fdb.clone(),
        neigh: memory.neigh.clone(),
        vteps: memory.vteps.clone(),
    };
    for port in tables.ports.values_mut() {
        port.conntrack_budget = DEFAULT_CONNTRACK_ENTRIES;
    }
    harness.plane.reconcile(&tables)?;
    let mut config = harness.config()?;
    config.tunnel_ifindex = memory.config.tunnel_ifindex;
    harness.set_config(config)
}

fn report(
    harness: &mut TestHarness,
    what: &str,
    vector: &Vector,
) -> Result<(), Box<dyn std::error::Error>> {
    fill(harness, vector)?;
    let mut nanoseconds = Vec::new();
    for _ in 0..ROUNDS {
        let run = harness.run(vector.entry, &vector.meta, &vector.before.frame, REPEAT)?;
        assert_eq!(run.verdict, vector.verdict.record(), "{what}");
        nanoseconds.push(run.duration.as_nanos());
    }
    nanoseconds.sort_unstable();
    println!("{:>5} ns  (median {:>5})  {what}", nanoseconds[0], nanoseconds[ROUNDS / 2]);
    Ok(())
}

/// Runs of one packet each; `vary` is the offset of two bytes that count up.
fn singly(
    harness: &mut TestHarness,
    what: &str,
    vector: &Vector,
    vary: Option<usize>,
) -> Result<(), Box<dyn std::error::Error>> {
    const RUNS: u16 = 2_000;
    fill(harness, vector)?;
    let mut nanoseconds = Vec::new();
    for run in 0..RUNS {
        let mut frame = vector.before.frame.clone();
        if let Some(at) = vary {
            frame[at..at + 2].copy_from_slice(&(run + 20_000).to_be_bytes());
        }
        let run = harness.run(vector.entry, &vector.meta, &frame, 1)?;
        let refused = matches!(vector.verdict, Verdict::Drop(_));
        assert!(refused || run.verdict == vector.verdict.record(), "{what}");
        nanoseconds.push(run.duration.as_nanos());
    }
    nanoseconds.sort_unstable();
    let (least, median) = (nanoseconds[0], nanoseconds[nanoseconds.len() / 2]);
    println!("{least:>5} ns  (median {median:>5})  {what} (single runs, cold caches)");
    Ok(())
}
