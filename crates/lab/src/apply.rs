//! Applying a topology through the public API, by the engine of `netloom apply`, and starting agents
//! as their hosts become known. Idempotent.

use std::{
    fs,
    panic::resume_unwind,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use cli::{Call, Plan, Step};
use client::Client;
use model::Kind;
use serde_json::{Map, Value, json};

use crate::{
    Error, names,
    process::Process,
    state::{Addresses, Place, Settings, make_directory},
    topology::{ADD_HOST, Topology},
    wait,
};

/// How long the server may take until it answers.
const SERVER_LIMIT: Duration = Duration::from_secs(30);
/// How long a message may take until its hosts have applied it.
const MESSAGE_LIMIT: Duration = Duration::from_secs(60);
/// How long hosts and VMs may take until they are as they should be: at least, and each host more.
/// All share a few processors, and each has programs of its own, which the kernel verifies.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
const SETTLE_LIMIT_EACH: Duration = Duration::from_secs(3);
/// How long an answer is waited for before the agents are looked at: each look reads a file and
/// asks for a process, of every host.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How many VMs are made at a time.
const SIDE_BY_SIDE: usize = 8;
const CREATE_VM: &str = "CreateVmInstance";

/// What applying did.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// In words, in order.
    pub(crate) done: Vec<String>,
    /// Resources and attachments that were as they should be.
    pub(crate) unchanged: usize,
}

/// A lab whose server runs, and an open session with it.
pub(crate) struct Applier<'a> {
    place: &'a Place,
    settings: &'a Settings,
    client: Client,
}

impl<'a> Applier<'a> {
    /// Waits for the server and logs in.
    pub(crate) fn connect(place: &'a Place, settings: &'a Settings) -> Result<Self, Error> {
        let server = Process::server(place);
        let mut last = None;
        let found = wait::until(SERVER_LIMIT, || {
            if server.pid()?.is_none() {
                return Err(server.ended());
            }
            match log_in(place, settings) {
                Ok(client) => Ok(Some(client)),
                // Not listening yet, no password file yet, or only half of one.
                Err(error) => {
                    last = Some(error.to_string());
                    Ok(None)
                }
            }
        })?;
        let client = found.ok_or_else(|| Error::Timeout {
            what: format!("the server lets nobody in: {}", last.unwrap_or_default()),
            seconds: SERVER_LIMIT.as_secs(),
            log: Some(server.log_end()),
        })?;
        Ok(Self { place, settings, client })
    }

    /// Compares the topology with what there is, and does what is missing, in order; starts the
    /// agents. The answer of a message is waited for, so hosts have applied it. VMs that follow each
    /// other are made side by side.
    pub(crate) fn apply(&self, topology: &Topology) -> Result<Applied, Error> {
        for vm in topology.vms() {
            self.make_room(vm)?;
        }
        for host in &topology.hosts {
            if self.find(Kind::Host, host)?.is_some() {
                self.start_agent(host)?;
            }
        }
        let plan = Plan::apply(&self.client, &topology.resources, true)?;
        let mut applied = Applied { unchanged: plan.unchanged, ..Applied::default() };
        let mut hosts_connected = false;
        let makes_vm = |step: &Step| step.call.message == CREATE_VM;
        for steps in plan.steps.chunk_by(|one, next| makes_vm(one) && makes_vm(next)) {
            // Nothing is placed on a host whose agent is not there yet.
            for step in steps {
                if !hosts_connected && is_about_vms(&step.call)? {
                    self.until(&connected(topology))?;
                    hosts_connected = true;
                }
            }
            self.call_beside(steps)?;
            applied.done.extend(steps.iter().map(Step::told));
        }
        self.until(&connected(topology))?;
        for vm in topology.vms() {
            self.revive(vm)?;
        }
        Ok(applied)
    }

    /// Does steps of which none needs another one, several at a time.
    fn call_beside(&self, steps: &[Step]) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), Error> {
            while let Some(step) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Of the others, those that have not begun need not begin.
                self.call_step(step).inspect_err(|_| next.store(steps.len(), Ordering::Relaxed))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let others = 1..steps.len().min(SIDE_BY_SIDE);
            let others: Vec<_> = others.map(|_| scope.spawn(work)).collect();
            others.into_iter().fold(work(), |done, other| {
                done.and(other.join().unwrap_or_else(|panic| resume_unwind(panic)))
            })
        })
    }

    fn call_step(&self, step: &Step) -> Result<(), Error> {
        let Call { message, params, tags } = &step.call;
        let call = Call { message, params: params.clone(), tags: tags.clone() };
        self.call(&step.told(), call)?;
        match params.get("name").and_then(Value::as_str) {
            Some(host) if *message == ADD_HOST => self.start_agent(host),
            _ => Ok(()),
        }
    }

    /// A VM of the topology that was destroyed makes room for one that is made anew.
    fn make_room(&self, vm: &str) -> Result<(), Error> {
        match self.find(Kind::VmInstance, vm)? {
            Some(found) if matches!(found["state"].as_str(), Some("Destroying" | "Destroyed")) => {
                self.tell("ExpungeVmInstance", vm, &found)
            }
            _ => Ok(()),
        }
    }

    /// A VM of the topology that somebody has stopped is started.
    fn revive(&self, vm: &str) -> Result<(), Error> {
        match self.find(Kind::VmInstance, vm)? {
            Some(found)
                if matches!(found["state"].as_str(), Some("Created" | "Stopping" | "Stopped")) =>
            {
                self.tell("StartVmInstance", vm, &found)
            }
            _ => Ok(()),
        }
    }

    fn tell(&self, message: &str, vm: &str, found: &Value) -> Result<(), Error> {
        let answer = self.client.call(message, object(json!({"uuid": found["uuid"]})), &[]);
        answer.map(drop).map_err(api(format!("{message} {vm}")))
    }

    /// Waits until all hosts are connected and hold what they should, and all VMs run.
    pub(crate) fn settle(&self, topology: &Topology) -> Result<(), Error> {
        let vms = topology.vms().into_iter();
        let vms = vms.map(|vm| (Kind::VmInstance, vm, "state", json!("Running")));
        let synced = |host| (Kind::Host, host, "synced", json!(true));
        let synced = topology.hosts.iter().map(String::as_str).map(synced);
        let wanted: Vec<_> = connected(topology).into_iter().chain(synced).chain(vms).collect();
        self.until(&wanted)
    }

    /// Waits until resources are as they should be.
    fn until(&self, wanted: &[Wanted<'_>]) -> Result<(), Error> {
        let mut late = String::new();
        let hosts = u32::try_from(self.settings.hosts.len()).unwrap_or(u32::MAX);
        let limit = SETTLE_LIMIT + SETTLE_LIMIT_EACH.saturating_mul(hosts);
        // Those before it were as they should be; in the end all are looked at once more.
        let mut first = 0;
        let mut looked = None;
        let settled = wait::until(limit, || {
            if looked.is_none_or(|looked: Instant| looked.elapsed() >= LOOK_PAUSE) {
                self.check_agents()?;
                looked = Some(Instant::now());
            }
            for (at, (kind, name, field, value)) in wanted.iter().enumerate().skip(first) {
                let found = self.find(*kind, name)?.unwrap_or_default();
                if found[field] != *value {
                    late = format!("{field} of {name} is {}, not {value}", found[field]);
                    first = at;
                    return Ok::<_, Error>(None);
                }
            }
            let were_all = first == 0;
            first = 0;
            Ok(were_all.then_some(()))
        })?;
        settled.ok_or_else(|| self.timeout(late, limit))
    }

    /// The addresses that the server gave to the VMs.
    pub(crate) fn addresses(&self, topology: &Topology) -> Result<Addresses, Error> {
        let mut addresses = Addresses::new();
        for vm in topology.vms() {
            let found = self.find(Kind::VmInstance, vm)?.unwrap_or_default();
            let nics = found["vmNics"].as_array().into_iter().flatten();
            let used = nics.filter_map(|nic| nic["usedIps"].as_array()).flatten();
            let ips = used.filter_map(|used| used["ip"].as_str()?.parse().ok()).collect();
            addresses.insert(vm.to_owned(), ips);
        }
        Ok(addresses)
    }

    /// A host's agent enrols with a bundle that works once; one that is enrolled ignores it.
    fn start_agent(&self, host: &str) -> Result<(), Error> {
        let agent = Process::agent(self.place, host);
        if agent.pid()?.is_some() {
            return Ok(());
        }
        make_directory(&agent.data())?;
        let uuid = names::uuid(&self.place.lab, Kind::Host, host).simple().to_string();
        let params = object(json!({"uuid": uuid}));
        let answer = self.client.call("CreateHostEnrolment", params, &[]);
        let answer = answer.map_err(api(format!("CreateHostEnrolment {host}")))?;
        let bundle = answer["inventory"].to_string();
        self.place.write(&format!("{host}/bundle.json"), bundle.as_bytes())?;
        agent.start(self.settings).map(drop)
    }

    fn find(&self, kind: Kind, name: &str) -> Result<Option<Value>, Error> {
        self.query(kind, &names::uuid(&self.place.lab, kind, name).simple().to_string())
    }

    fn query(&self, kind: Kind, uuid: &str) -> Result<Option<Value>, Error> {
        let found = self.client.query(kind.def().path(), &[format!("uuid={uuid}")]);
        let found = found.map_err(api(format!("Query{}", kind.def().name)))?;
        Ok(found.into_iter().next())
    }

    /// Sends a message. A host whose agent has ended would never acknowledge it, so the wait is on
    /// a thread of its own; it ends at the latest with the server, when a failed `up` removes it.
    fn call(&self, told: &str, call: Call) -> Result<(), Error> {
        let client = self.client.clone();
        let (finished, is_finished) = channel::<()>();
        let running = thread::spawn(move || {
            let _finished = finished;
            client.call(call.message, call.params, &call.tags)
        });
        let done = wait::until(MESSAGE_LIMIT, || match is_finished.recv_timeout(LOOK_PAUSE) {
            Err(RecvTimeoutError::Timeout) => self.check_agents().map(|()| None),
            // The thread has let go of its end.
            _ => Ok(Some(())),
        })?;
        if done.is_none() {
            let what = format!("\"{told}\" has not taken effect");
            return Err(self.timeout(what, MESSAGE_LIMIT));
        }
        match running.join() {
            Ok(answer) => answer.map(drop).map_err(api(told.to_owned())),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// All agents that were started must run.
    fn check_agents(&self) -> Result<(), Error> {
        for process in Process::all(self.place, &self.settings.hosts) {
            if process.was_started() && process.pid()?.is_none() {
                return Err(process.ended());
            }
        }
        Ok(())
    }

    fn timeout(&self, what: String, limit: Duration) -> Error {
        let all = Process::all(self.place, &self.settings.hosts);
        let logs = all.iter().map(|process| format!("[{}]\n{}", process.name, process.log_end()));
        let log = Some(logs.collect::<Vec<_>>().join("\n"));
        Error::Timeout { what, seconds: limit.as_secs(), log }
    }
}

/// A resource's kind and name, and the value that one of its fields should have.
type Wanted<'a> = (Kind, &'a str, &'static str, Value);

/// Whether a call makes a VM, or does something to one.
fn is_about_vms(call: &Call) -> Result<bool, Error> {
    let def = client::message(call.message).map_err(api(call.message.to_owned()))?;
    let target = def.target().and_then(|field| field.refs);
    Ok(def.creates.or(target) == Some(Kind::VmInstance))
}

/// Every host's agent is there.
fn connected(topology: &Topology) -> Vec<Wanted<'_>> {
    let connected = |host| (Kind::Host, host, "status", json!("Connected"));
    topology.hosts.iter().map(String::as_str).map(connected).collect()
}

/// Opens a session as `admin`.
pub(crate) fn log_in(place: &Place, settings: &Settings) -> Result<Client, Error> {
    let file = password_file(place);
    let password = fs::read_to_string(&file)
        .map_err(|error| Error::io(format_args!("read {}", file.display()), error))?;
    let mut client = Client::new(&url(settings));
    client.log_in("admin", password.trim()).map_err(api("log in as admin".to_owned()))?;
    Ok(client)
}

/// The file with the password of `admin`.
pub(crate) fn password_file(place: &Place) -> std::path::PathBuf {
    Process::server(place).data().join("admin-password")
}

/// Where the server answers REST.
pub(crate) fn url(settings: &Settings) -> String {
    format!("http://{}", settings.listen)
}

fn api(action: String) -> impl FnOnce(client::Error) -> Error {
    |source| Error::Api { action, source }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
