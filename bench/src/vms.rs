//! From the wish for a VM to its first packet, on hosts with few and with many VMs, and what the
//! agent asks of the kernel for it.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hostnet::Namespace;
use lab::wait;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use crate::{
    Failure,
    loom::{A, C, HOST, Loom, OTHER_HOST, params},
    machine::memory,
    ping::Pinger,
    plan::{Group, Metric, Step},
    scratch::Scratch,
    stats,
};

/// What is measured of VMs.
pub(crate) const VMS: Group = Group {
    id: "vm",
    steps: &[Step {
        id: "create",
        contenders: &[FEW, "200-vms"],
        metrics: &[
            Metric { id: "vm-p50", unit: "ms", quantile: 0.5 },
            Metric { id: "vm-p95", unit: "ms", quantile: 0.95 },
            Metric { id: "vm-syscalls", unit: "calls", quantile: 0.5 },
            Metric { id: "vm-agent-memory", unit: "MiB", quantile: 0.5 },
        ],
    }],
};

const FEW: &str = "5-vms";
/// VMs of either host, those of the topology included.
const COUNTS: [u32; 2] = [5, 200];
/// VMs of a sample.
const SAMPLE: usize = 5;
/// The first address that the topology leaves free.
const FIRST: u32 = u32::from_be_bytes([10, 0, 1, 0]);
/// How long anything may take until a host is at rest.
const LIMIT: Duration = Duration::from_secs(60);

/// How long what cannot be seen takes then.
const REST: Duration = Duration::from_millis(150);

/// A host with VMs.
struct Host {
    name: &'static str,
    uuid: String,
    pinger: Pinger,
    /// The start of the names of its VMs' namespaces.
    prefix: String,
    /// How many there are when it is at rest.
    namespaces: usize,
}

/// A lab with two hosts, one with few and one with many VMs.
pub(crate) struct Vms {
    hosts: [Host; 2],
    l3: String,
    made: u32,
    scratch: Scratch,
    loom: Loom,
}

impl Vms {
    /// Brings it up.
    ///
    /// # Errors
    /// What the lab says, or the server.
    pub(crate) fn new(loom: Loom, scratch: &Path) -> Result<Self, Failure> {
        let host = |name: &'static str, asker: &str| {
            let (uuid, pinger) = (loom.uuid("/hosts", name)?, Pinger::open(&loom.vm(asker)?)?);
            let prefix = format!("{}{name}-", loom.prefix());
            Ok::<_, Failure>(Host { name, uuid, pinger, prefix, namespaces: 0 })
        };
        let hosts = [host(HOST, A.0)?, host(OTHER_HOST, C.0)?];
        let (l3, scratch) = (loom.uuid("/l3-networks", "red-l3")?, Scratch::new(scratch, "vms")?);
        let mut vms = Self { hosts, l3, made: 0, scratch, loom };
        for (host, (count, own)) in COUNTS.into_iter().zip([2, 1]).enumerate() {
            for _ in own..count {
                vms.create(host)?;
            }
            let all = usize::try_from(count)? + agent::SPARES;
            vms.hosts[host].namespaces = all;
            vms.rest(host)?;
        }
        Ok(vms)
    }

    /// ms from the wish to the first reply, twice for two quantiles, the system calls of one, and the
    /// MiB that the host's agent has in memory of its own.
    pub(crate) fn sample(&mut self, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        let host = usize::from(contender != FEW);
        let mut times = Vec::new();
        for _ in 0..SAMPLE {
            let wished = Instant::now();
            let uuid = self.come(host)?;
            times.push(stats::ms(wished.elapsed()));
            self.go(host, &uuid)?;
        }
        let strace = Strace::attach(self.loom.pid(self.hosts[host].name)?, &self.scratch.0)?;
        let uuid = self.come(host)?;
        let calls = strace.detach()?;
        self.go(host, &uuid)?;
        let pid = self.loom.pid(self.hosts[host].name)?.unsigned_abs();
        let memory = memory(pid, "RssAnon")?;
        Ok(vec![times.clone(), times, vec![calls], vec![memory]])
    }

    /// A VM comes, and answers.
    fn come(&mut self, host: usize) -> Result<String, Failure> {
        let (uuid, ip) = self.create(host)?;
        self.hosts[host].pinger.first_reply(ip)?;
        Ok(uuid)
    }

    /// It goes, and the host is at rest again.
    fn go(&mut self, host: usize, uuid: &str) -> Result<(), Failure> {
        self.loom.client.call("DestroyVmInstance", params(json!({"uuid": uuid})), &[])?;
        self.rest(host)
    }

    fn create(&mut self, host: usize) -> Result<(String, Ipv4Addr), Failure> {
        let ip = Ipv4Addr::from(FIRST + self.made);
        let name = format!("vm{}", self.made);
        self.made += 1;
        let host = &self.hosts[host].uuid;
        let fields = json!({"name": name, "l3NetworkUuids": [self.l3], "hostUuid": host});
        let tags = [format!("staticIp::{}::{ip}", self.l3)];
        let answer = self.loom.client.call("CreateVmInstance", params(fields), &tags)?;
        let uuid = answer["inventory"]["uuid"].as_str().ok_or("a VM without uuid")?;
        Ok((uuid.to_owned(), ip))
    }

    /// Waits until what is gone is removed and what is kept ready is there.
    fn rest(&self, host: usize) -> Result<(), Failure> {
        let Host { name, prefix, namespaces, .. } = &self.hosts[host];
        let is_at_rest = || Namespace::list(prefix).is_ok_and(|found| found.len() == *namespaces);
        if !wait::holds(LIMIT, is_at_rest) {
            return Err(format!("{name} does not come to rest").into());
        }
        // The last one that is made ready has a namespace before it has its programs.
        wait::holds(REST, || false);
        Ok(())
    }
}

/// A tracer that counts the system calls of a process.
struct Strace {
    child: Child,
    counts: PathBuf,
}

impl Strace {
    /// Begins to count. Every thread is traced when this returns.
    fn attach(pid: i32, scratch: &Path) -> Result<Self, Failure> {
        let counts = scratch.join("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-p", &pid.to_string(), "-o"]).arg(&counts);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("strace: {error}: install it"))?;
        let strace = Self { child, counts };
        match wait::holds(LIMIT, || is_traced(pid).unwrap_or(false)) {
            true => Ok(strace),
            false => Err(format!("strace does not trace {pid}").into()),
        }
    }

    /// Ends it; how many calls there were.
    fn detach(mut self) -> Result<f64, Failure> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        self.child.wait()?;
        // The last line: % time, seconds, usecs/call, calls, errors, `total`.
        let text = fs::read_to_string(&self.counts)?;
        let calls = text.lines().last().and_then(|line| line.split_whitespace().nth(3));
        Ok(calls.ok_or("strace counted nothing")?.parse()?)
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody traces every thread of a process.
fn is_traced(pid: i32) -> io::Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        if status.lines().any(|line| line == "TracerPid:\t0") {
            return Ok(false);
        }
    }
    Ok(true)
}
