//! netloom as a contender: a lab of real processes, made from `bench/topology.yaml`.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process,
};

use client::Client;
use hostnet::Namespace;
use serde_json::{Map, Value};

use crate::{Failure, site::is_gone};

/// Where the benchmark's labs keep their files; `make demo` has another place.
const STATE_ROOT: &str = "/run/netloom/bench";
/// What the names of the benchmark's labs start with.
const PREFIX: &str = "nlb";
const TOPOLOGY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/topology.yaml");

/// The host of the VMs `a` and `b`.
pub(crate) const HOST: &str = "h1";
/// The host of the VM `c`.
pub(crate) const OTHER_HOST: &str = "h2";
/// A VM on [`HOST`].
pub(crate) const A: (&str, Ipv4Addr) = ("a", Ipv4Addr::new(10, 0, 0, 11));
/// Another VM on [`HOST`].
pub(crate) const B: (&str, Ipv4Addr) = ("b", Ipv4Addr::new(10, 0, 0, 12));
/// A VM on [`OTHER_HOST`].
pub(crate) const C: (&str, Ipv4Addr) = ("c", Ipv4Addr::new(10, 0, 0, 13));

/// A lab that is up; it goes when this is dropped.
pub(crate) struct Loom {
    name: String,
    /// A session of `admin` with its server.
    pub(crate) client: Client,
}

impl Loom {
    /// Brings it up.
    ///
    /// # Errors
    /// What the lab says.
    pub(crate) fn up(binary: &Path) -> Result<Self, Failure> {
        let name = format!("{PREFIX}{}", process::id());
        let report = lab::up(&lab::UpOptions {
            topology: PathBuf::from(TOPOLOGY),
            name: name.clone(),
            state_root: PathBuf::from(STATE_ROOT),
            binary: binary.to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
        })?;
        // From here on it goes with the value, whatever fails.
        let mut loom = Self { name, client: Client::new(&report.url) };
        let password = fs::read_to_string(&report.password_file)?;
        loom.client.log_in("admin", password.trim())?;
        Ok(loom)
    }

    /// The start of the names of its namespaces.
    pub(crate) fn prefix(&self) -> String {
        format!("nl-{}-", self.name)
    }

    /// The process of the server, or of a host's agent.
    pub(crate) fn pid(&self, process: &str) -> Result<i32, Failure> {
        Ok(lab::start(&self.name, Path::new(STATE_ROOT), process)?)
    }

    /// The namespace of a VM.
    pub(crate) fn vm(&self, name: &str) -> Result<Namespace, Failure> {
        let uuid = self.uuid("/vm-instances", name)?;
        let namespaces = Namespace::list(&self.prefix())?;
        let own = namespaces.iter().find(|namespace| namespace.ends_with(&uuid));
        Ok(Namespace::open(own.ok_or_else(|| format!("VM {name} has no namespace"))?)?)
    }

    /// The uuid of a resource below a path of the API.
    pub(crate) fn uuid(&self, path: &str, name: &str) -> Result<String, Failure> {
        let found = self.client.query(path, &[format!("name={name}")])?;
        let uuid = found.first().and_then(|one| one["uuid"].as_str());
        Ok(uuid.ok_or_else(|| format!("{path} has no {name}"))?.to_owned())
    }
}

impl Drop for Loom {
    fn drop(&mut self) {
        if let Err(error) = lab::down(&self.name, Path::new(STATE_ROOT)) {
            eprintln!("lab {} stays behind: {error}", self.name);
        }
    }
}

/// Takes down the labs of runs that are gone.
pub(crate) fn sweep() -> Result<(), Failure> {
    for lab in lab::status(Path::new(STATE_ROOT))? {
        if lab.name.strip_prefix(PREFIX).is_some_and(is_gone) {
            lab::down(&lab.name, Path::new(STATE_ROOT))?;
        }
    }
    Ok(())
}

/// The fields of a message, written as an object.
pub(crate) fn params(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
