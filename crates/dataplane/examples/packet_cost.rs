//! Nanoseconds per packet of the core, by `BPF_PROG_TEST_RUN`; run as root:
//! `cargo run -p netloom-dataplane --features test-run --example packet_cost`.
//!
//! The figures are of the decision alone: parsing, guards, maps, counters; no driver, no copy,
//! no redirect. Frames and maps are those of the shared vectors. The first line decides next to
//! nothing: it is what the measurement itself costs, and is in all the others too. The least and
//! the median of all rounds are given: on a machine with other work only the least says much.

use netloom_dataplane::packet::vectors::{CONNTRACK, Vector, all};
use netloom_dataplane::packet::{ConntrackSize, Meta, Verdict};
use netloom_dataplane::{Options, Tables, TestHarness};

/// Packets per measurement, and measurements.
const REPEAT: u32 = 200_000;
const ROUNDS: usize = 21;
/// A table in which each of four ports has room for a quarter of a million connections.
const TABLE: ConntrackSize =
    ConntrackSize { ports: 4, port_buckets: 65_536, common_buckets: 16_384 };

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A mount namespace of its own: a measurement that is cut short leaves no mount behind.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let directory = std::env::temp_dir().join(format!("nlt-{}-cost", std::process::id()));
    let options = Options { conntrack: TABLE, ..Options::new(directory.join("bpf")) };
    let result = measure(&options);
    netloom_dataplane::unload(&directory.join("bpf"))?;
    let result = result.and_then(|()| refusals(&Options { conntrack: CONNTRACK, ..options }));
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
        ("a syn sent again, out of the tunnel", "a port without a policy lets in its network"),
        ("a syn sent again, by a rule", "a rule lets in what the rest does not"),
        ("a syn sent again, by a rule for a group", "a member of a group"),
        ("decided each time, by a stateless rule", "a stateless rule opens nothing"),
        (
            "decided each time, denied by a rule for addresses",
            "an earlier rule about fewer addresses",
        ),
        (
            "decided each time, denied by a rule for a group",
            "a member whose address is denied before",
        ),
        ("spoofed source, dropped", "another's ipv4 address is spoofed"),
    ] {
        report(&mut harness, what, &find(name)?)?;
    }
    // A request turns itself into a reply, and a connection is new once: one run at a time.
    singly(&mut harness, "arp reply", &find("arp request for a local port is answered")?, None)?;
    let udp = find("new udp flow to a remote station")?;
    singly(&mut harness, "new connection, into the tunnel", &udp, Some(34))?;
    for (what, name) in [
        ("new connection, out of the tunnel", "udp from the same network reaches the port"),
        ("new connection, by a rule", "udp to the lowest port"),
    ] {
        singly(&mut harness, what, &find(name)?, Some(34))?;
    }
    for (what, name) in [
        ("into the tunnel", "new udp flow to a remote station"),
        ("local delivery", "new tcp connection to a local port"),
    ] {
        for bits in [0, 10, 14, 18] {
            at_random(&mut harness, what, &find(name)?, bits)?;
        }
    }
    Ok(())
}

fn find(name: &str) -> Result<Vector, String> {
    all().into_iter().find(|vector| vector.name == name).ok_or(format!("no vector {name}"))
}

fn fill(harness: &mut TestHarness, vector: &Vector) -> Result<(), netloom_dataplane::Error> {
    let memory = &vector.before;
    let tables = Tables {
        nets: memory.nets.clone(),
        ports: memory.ports.clone(),
        addrs: memory.addrs.clone(),
        fdb: memory.fdb.clone(),
        neigh: memory.neigh.clone(),
        behind: memory.behind.clone(),
        vteps: memory.vteps.clone(),
        wires: memory.wires.clone(),
        ranges: memory.ranges.clone(),
        chapters: memory.chapters.clone(),
        classes: memory.classes.clone(),
        idents: memory.idents.clone(),
        ..Tables::default()
    };
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
    // Another policy would still find what the one before has let in.
    harness.set_conntrack(&[])?;
    repeat(harness, what, vector)
}

fn repeat(
    harness: &mut TestHarness,
    what: &str,
    vector: &Vector,
) -> Result<(), Box<dyn std::error::Error>> {
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

/// What it costs to refuse, in the small table of the vectors.
fn refusals(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut harness = TestHarness::open(options)?;
    for (what, name) in [
        ("refused, no room", "a port whose room is in use is refused, and loses nothing"),
        ("refused, no room for this peer", "a peer at its limit is refused, though there is room"),
    ] {
        let vector = find(name)?;
        fill(&mut harness, &vector)?;
        for (key, port) in &vector.before.ports {
            harness.set_port(key, port)?;
        }
        let buckets: Vec<_> = (0..).zip(vector.before.buckets.iter().copied()).collect();
        harness.set_conntrack(&buckets)?;
        harness.set_config(vector.before.config)?;
        repeat(&mut harness, what, &vector)?;
    }
    Ok(())
}

/// Packets of so many connections, drawn by lot.
fn at_random(
    harness: &mut TestHarness,
    what: &str,
    vector: &Vector,
    bits: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    const RUNS: u32 = 1_000_000;
    const MOST: usize = 7;
    fill(harness, vector)?;
    let connections = 1 << bits;
    let meta = Meta { mark: connections - 1, ..vector.meta };
    // So often that hardly any connection is left to open while the clock runs.
    harness.run_varied(&meta, &vector.before.frame, 16 * connections)?;
    let mut nanoseconds = Vec::new();
    for _ in 0..MOST {
        let run = harness.run_varied(&meta, &vector.before.frame, RUNS)?;
        assert_eq!(run.verdict, vector.verdict.record(), "{what}");
        nanoseconds.push(run.duration.as_nanos());
    }
    nanoseconds.sort_unstable();
    let (least, median) = (nanoseconds[0], nanoseconds[MOST / 2]);
    println!("{least:>5} ns  (median {median:>5})  {what}, one of {connections} connections");
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
