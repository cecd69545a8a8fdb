//! How fast guests get addresses by DHCP, beside dnsmasq.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use hostnet::Namespace;
use lab::wait;
use serde_json::json;

use crate::{
    Failure,
    clients::Clients,
    loom::{HOST, Loom, text},
    plan::{Group, Metric, NETLOOM, Step},
    scratch::Scratch,
    site::{BRIDGE, Site},
};

const DNSMASQ: &str = "dnsmasq";

/// Exchanges per second, and how long each takes.
macro_rules! exchanges {
    ($id:literal) => {
        Step {
            id: $id,
            contenders: &[DNSMASQ, NETLOOM],
            metrics: &[
                Metric { id: $id, unit: "1/s", quantile: 0.5 },
                Metric { id: concat!($id, "-p50"), unit: "ms", quantile: 0.5 },
                Metric { id: concat!($id, "-p99"), unit: "ms", quantile: 0.99 },
                Metric { id: concat!($id, "-all"), unit: "ms", quantile: 0.5 },
            ],
        }
    };
}

/// What is measured of leases.
pub(crate) const LEASES: Group = Group {
    id: "leases",
    steps: &[exchanges!("ten"), exchanges!("thousand"), exchanges!("storm")],
};

/// Most clients; a Linux bridge has 1,023 ports at most.
const PORTS: u32 = 1_000;
/// Room for the connections of as many ports.
const CONNECTION_MIB: u32 = 400;
/// How long a port rests until it may ask as often as at its start: longer than a window of the
/// programs' budget (`crates/packet/src/budget.rs`).
const REST: Duration = Duration::from_secs(5);
/// How long a server may take until it answers.
const LIMIT: Duration = Duration::from_secs(30);
/// Calls to the API at once.
const CALLERS: usize = 8;
/// The server's address, and the first of the clients' (dnsmasq).
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// Both contenders, each with all its ports.
pub(crate) struct Leases {
    dnsmasq: Clients,
    netloom: Clients,
    _server: Server,
    _site: Site,
    _loom: Loom,
    _scratch: Scratch,
}

impl Leases {
    /// Brings them up.
    ///
    /// # Errors
    /// What the lab or the kernel says; there is no dnsmasq.
    pub(crate) fn new(binary: &Path, scratch: &Path) -> Result<Self, Failure> {
        let loom = Loom::with_room(binary, CONNECTION_MIB)?;
        let (mut site, scratch) = (Site::new()?, Scratch::new(scratch, "leases")?);
        let (dnsmasq, server) = dnsmasq(&mut site, &scratch.0)?;
        let netloom = netloom(&mut site, &loom)?;
        Ok(Self { dnsmasq, netloom, _server: server, _site: site, _loom: loom, _scratch: scratch })
    }

    /// Takes a sample.
    pub(crate) fn sample(&mut self, step: &str, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        let clients = if contender == NETLOOM { &mut self.netloom } else { &mut self.dnsmasq };
        if contender == NETLOOM {
            wait::holds(REST, || false);
        }
        let (count, at_once, times) = match step {
            "ten" => (10, 1, 3),
            "thousand" => (1_000, 32, 1),
            "storm" => (500, 500, 1),
            other => return Err(format!("there is no step {other}").into()),
        };
        let (mut rates, mut took) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let (rate, each) = clients.sample(count, at_once)?;
            rates.push(rate);
            took.extend(each);
        }
        let all =
            rates.iter().map(|rate| 1e3 * f64::from(u32::try_from(count).unwrap_or(1)) / rate);
        Ok(vec![rates.clone(), took.clone(), took, all.collect()])
    }
}

/// A dnsmasq; it ends when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The MAC of the client with this number, counted from 0, where we choose it.
fn mac(number: u32) -> [u8; 6] {
    let [_, _, high, low] = number.to_be_bytes();
    [0x02, b'n', b'l', b'd', high, low]
}

fn written(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn near(number: u32) -> String {
    format!("nlb{number}")
}

fn far(number: u32) -> String {
    format!("c{number}")
}

/// Pairs of devices, one end in each of two namespaces, all up.
fn cables(one: &Namespace, other: &Namespace) -> Result<(), Failure> {
    let (mut make, mut up) = (String::new(), String::new());
    for number in 0..PORTS {
        let (near, far) = (near(number), far(number));
        writeln!(make, "link add {near} type veth peer name {far} netns {}", other.name())?;
        writeln!(make, "link set {near} up")?;
        writeln!(up, "link set {far} up")?;
    }
    batch(one, &make)?;
    batch(other, &up)
}

/// Has `ip` carry out so many lines: with one process each, a thousand devices take minutes.
fn batch(namespace: &Namespace, lines: &str) -> Result<(), Failure> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped());
    let mut child = namespace.run_in(|| command.spawn())??;
    child.stdin.take().ok_or("ip without standard input")?.write_all(lines.as_bytes())?;
    match child.wait()?.success() {
        true => Ok(()),
        false => Err("ip failed".into()),
    }
}

fn dnsmasq(site: &mut Site, scratch: &Path) -> Result<(Clients, Server), Failure> {
    let (host, guests) = (site.namespace("dhcp")?, site.namespace("asks-it")?);
    site.bridge(&host, &[], 1500)?;
    site.address((&host, BRIDGE), SERVER, 16)?;
    cables(&host, &guests)?;
    let mut ports = String::new();
    let mut entries = String::new();
    for number in 0..PORTS {
        let near = near(number);
        writeln!(ports, "link set {near} master {BRIDGE}")?;
        writeln!(ports, "link set {near} type bridge_slave isolated on")?;
        let ip = Ipv4Addr::from_bits(SERVER.to_bits() + 256 + number);
        writeln!(entries, "{},{ip},infinite", written(mac(number)))?;
    }
    batch(&host, &ports)?;
    let file = std::path::absolute(scratch.join("hosts"))?;
    fs::write(&file, entries)?;
    let mut command = Command::new(DNSMASQ);
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping"]);
    command.args([
        "--leasefile-ro",
        "--dhcp-authoritative",
        "--dhcp-lease-max=2000",
        "--user=root",
    ]);
    command.arg(format!("--interface={BRIDGE}")).arg("--bind-interfaces").arg("--pid-file=");
    command.arg("--dhcp-range=10.78.0.0,static,255.255.0.0");
    command.arg(format!("--dhcp-hostsfile={}", file.display()));
    command.args(["--quiet-dhcp", "--log-facility=/dev/null"]);
    let started = host.run_in(|| command.spawn())?;
    let why = |error| format!("cannot start dnsmasq (apt-get install dnsmasq-base): {error}");
    let server = Server(started.map_err(why)?);
    let wanted: Vec<_> = (0..PORTS).map(|number| (far(number), mac(number))).collect();
    let mut clients = Clients::open(&guests, &wanted)?;
    first(&mut clients)?;
    Ok((clients, server))
}

fn netloom(site: &mut Site, loom: &Loom) -> Result<Clients, Failure> {
    let (host, guests) = (loom.host(HOST)?, site.namespace("asks-us")?);
    cables(&host, &guests)?;
    let pool = loom.uuid("/l2-networks/vxlan-pool", "pool")?;
    let l2 = json!({"name": "leases", "poolUuid": pool});
    let l2 = text(&loom.made("CreateL2VxlanNetwork", l2, &[])?, "uuid")?;
    let l3 = json!({"name": "leases", "l2NetworkUuid": l2, "category": "Private"});
    let l3 = text(&loom.made("CreateL3Network", l3, &[])?, "uuid")?;
    let range = json!({"name": "leases", "l3NetworkUuid": l3, "startIp": "10.78.0.2",
        "endIp": "10.78.255.254", "netmask": "255.255.0.0", "gateway": "10.78.0.1"});
    loom.made("AddIpRange", range, &[])?;
    let services = json!({"l3NetworkUuid": l3, "networkServices": {"Flat": ["DHCP"]}});
    loom.made("AttachNetworkServiceToL3Network", services, &[])?;
    let host = loom.uuid("/hosts", HOST)?;
    let plug = |number: u32| -> Result<(String, [u8; 6]), Failure> {
        let nic = loom.made("CreateVmNic", json!({"l3NetworkUuid": l3}), &[])?;
        let uuid = text(&nic, "uuid")?;
        let plug = json!({"vmNicUuid": uuid, "hostUuid": host, "device": near(number)});
        loom.made("PlugVmNic", plug, &[])?;
        let mac = text(&nic, "mac")?;
        let bytes = mac.split(':').map(|part| u8::from_str_radix(part, 16));
        let bytes = bytes.collect::<Result<Vec<_>, _>>()?;
        let mac = bytes.try_into().map_err(|_| format!("{mac} is no MAC"))?;
        Ok((far(number), mac))
    };
    let wanted = at_once(&plug)?;
    let mut clients = Clients::open(&guests, &wanted)?;
    first(&mut clients)?;
    Ok(clients)
}

/// Does something for every port, several at once: each waits until it is in effect.
fn at_once<T: Send>(work: &(dyn Fn(u32) -> Result<T, Failure> + Sync)) -> Result<Vec<T>, Failure> {
    let numbers: Vec<u32> = (0..PORTS).collect();
    let done: Result<Vec<Vec<T>>, String> = thread::scope(|scope| {
        let parts = numbers.chunks(numbers.len().div_ceil(CALLERS));
        let threads: Vec<_> = parts
            .map(|part| {
                let all = || part.iter().map(|number| work(*number)).collect::<Result<Vec<T>, _>>();
                // Not every failure may leave its thread.
                scope.spawn(move || all().map_err(|error| error.to_string()))
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|done| done.unwrap_or_else(|_| Err("a caller panicked".to_owned()))).collect()
    });
    Ok(done?.into_iter().flatten().collect())
}

/// Waits until the server answers.
fn first(clients: &mut Clients) -> Result<(), Failure> {
    let mut error = None;
    let answers = wait::holds(LIMIT, || match clients.sample(1, 1) {
        Ok(_) => true,
        Err(failed) => {
            error = Some(failed);
            false
        }
    });
    match (answers, error) {
        (true, _) => Ok(()),
        (false, error) => Err(error.unwrap_or_else(|| "no server answers".into())),
    }
}
