//! Applying a topology through the public API, and starting agents as their hosts become known.
//!
//! Idempotent: what exists by its uuid is left alone, whatever its fields are.

use std::{fs, thread, time::Duration};

use client::Client;
use model::Kind;
use serde_json::{Map, Value, json};

use crate::{
    Error, names,
    process::Process,
    state::{Addresses, Place, Settings, make_directory},
    topology::{ADD_HOST, ATTACH, Step, Topology},
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

/// What applying did.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) created: Vec<String>,
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

    /// Sends what is missing, in order, and starts the agents. The answer of a message is waited
    /// for, so hosts have applied it.
    pub(crate) fn apply(&self, topology: &Topology) -> Result<Applied, Error> {
        let mut applied = Applied::default();
        let mut hosts_connected = false;
        for step in &topology.steps {
            // Nothing is placed on a host whose agent is not there yet.
            if step.message.creates == Some(Kind::VmInstance) && !hosts_connected {
                self.until(&connected(topology))?;
                hosts_connected = true;
            }
            if step.message.creates == Some(Kind::VmInstance) {
                self.revive(&step.name)?;
            }
            if self.exists(step)? {
                applied.unchanged += 1;
            } else {
                self.call(step)?;
                applied.created.push(format!("{} {}", step.message.name, step.name));
            }
            if step.message.name == ADD_HOST {
                self.start_agent(&step.name)?;
            }
        }
        Ok(applied)
    }

    /// A VM of the topology that somebody has stopped is started, one that was destroyed makes room.
    fn revive(&self, vm: &str) -> Result<(), Error> {
        let Some(found) = self.find(Kind::VmInstance, vm)? else { return Ok(()) };
        let message = match found["state"].as_str() {
            Some("Destroying" | "Destroyed") => "ExpungeVmInstance",
            Some("Created" | "Stopping" | "Stopped") => "StartVmInstance",
            _ => return Ok(()),
        };
        let params = object(json!({"uuid": found["uuid"]}));
        let answer = self.client.call(message, params, &[]);
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
        let settled = wait::until(limit, || {
            self.check_agents()?;
            for (kind, name, field, value) in wanted {
                let found = self.find(*kind, name)?.unwrap_or_default();
                if found[field] != *value {
                    late = format!("{field} of {name} is {}, not {value}", found[field]);
                    return Ok::<_, Error>(None);
                }
            }
            Ok(Some(()))
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
        let uuid = names::uuid(&self.place.lab, host).simple().to_string();
        let params = object(json!({"uuid": uuid}));
        let answer = self.client.call("CreateHostEnrolment", params, &[]);
        let answer = answer.map_err(api(format!("CreateHostEnrolment {host}")))?;
        let bundle = answer["inventory"].to_string();
        self.place.write(&format!("{host}/bundle.json"), bundle.as_bytes())?;
        agent.start(self.settings).map(drop)
    }

    fn exists(&self, step: &Step) -> Result<bool, Error> {
        let Some(kind) = step.message.creates else { return self.is_attached(step) };
        Ok(self.find(kind, &step.name)?.is_some())
    }

    fn is_attached(&self, step: &Step) -> Result<bool, Error> {
        debug_assert_eq!(step.message.name, ATTACH);
        let pool = step.params.get("l2NetworkUuid").and_then(Value::as_str).unwrap_or_default();
        let cluster = step.params.get("clusterUuid");
        let found = self.query(Kind::L2Network, pool)?;
        let clusters = found.as_ref().and_then(|pool| pool["attachedClusterUuids"].as_array());
        Ok(clusters.is_some_and(|clusters| clusters.iter().any(|one| Some(one) == cluster)))
    }

    fn find(&self, kind: Kind, name: &str) -> Result<Option<Value>, Error> {
        self.query(kind, &names::uuid(&self.place.lab, name).simple().to_string())
    }

    fn query(&self, kind: Kind, uuid: &str) -> Result<Option<Value>, Error> {
        let found = self.client.query(kind.def().path(), &[format!("uuid={uuid}")]);
        let found = found.map_err(api(format!("Query{}", kind.def().name)))?;
        Ok(found.into_iter().next())
    }

    /// Sends a message. A host whose agent has ended would never acknowledge it, so the wait is on
    /// a thread of its own; it ends at the latest with the server, when a failed `up` removes it.
    fn call(&self, step: &Step) -> Result<(), Error> {
        let mut params = step.params.clone();
        if step.message.creates.is_some() {
            let uuid = names::uuid(&self.place.lab, &step.name).simple().to_string();
            params.insert("resourceUuid".to_owned(), uuid.into());
        }
        let (client, message) = (self.client.clone(), step.message.name);
        let tags = step.system_tags.clone();
        let running = thread::spawn(move || client.call(message, params, &tags));
        let done = wait::until(MESSAGE_LIMIT, || {
            self.check_agents()?;
            Ok::<_, Error>(running.is_finished().then_some(()))
        })?;
        let action = format!("{message} {}", step.name);
        if done.is_none() {
            let what = format!("{action} has not taken effect");
            return Err(self.timeout(what, MESSAGE_LIMIT));
        }
        match running.join() {
            Ok(answer) => answer.map(drop).map_err(api(action)),
            Err(panic) => std::panic::resume_unwind(panic),
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
