//! Running a command where a VM or a host sees the network.

use std::{os::unix::process::ExitStatusExt, path::Path, process::Command};

use hostnet::Namespace;
use model::Kind;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    Error, apply, names,
    state::{Place, Settings},
    topology::Topology,
    up::TOPOLOGY,
};

/// See [`crate::exec`].
pub(crate) fn exec(lab: &str, root: &Path, node: &str, argv: &[String]) -> Result<i32, Error> {
    let place = Place::new(lab, root)?;
    let namespace = namespace(&place, node)?;
    let (program, arguments) = argv.split_first().ok_or_else(|| {
        let rule = "is empty; say what to run, such as `ip addr`";
        Error::Name { what: "command", name: String::new(), rule }
    })?;
    // A child starts in the namespace of the thread that started it.
    let status = namespace.run_in(|| Command::new(program).args(arguments).status())?;
    let status = status.map_err(|error| Error::io(format_args!("run {program}"), error))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// The namespace of a host or VM, which is named or given by its uuid. The server is asked only for
/// VMs that the topology lacks.
pub(crate) fn namespace(place: &Place, node: &str) -> Result<Namespace, Error> {
    let settings = place.existing()?;
    if settings.hosts.iter().any(|host| host == node) {
        return Ok(Namespace::open(&names::namespace(&place.lab, node))?);
    }
    if let Some(found) =
        names::vm_namespace(&place.lab, names::uuid(&place.lab, Kind::VmInstance, node))?
    {
        return Ok(found);
    }
    let named = ask(place, &settings, node);
    if let [one] = named[..]
        && let Some(found) = names::vm_namespace(&place.lab, one)?
    {
        return Ok(found);
    }
    if named.len() > 1 {
        let uuids = named.iter().map(|uuid| uuid.simple().to_string()).collect::<Vec<_>>();
        return Err(Error::Ambiguous { node: node.to_owned(), uuids: uuids.join(", ") });
    }
    let topology = applied_topology(place)?;
    let vms = topology.vms();
    let known = settings.hosts.iter().map(String::as_str).chain(vms);
    let known = known.collect::<Vec<_>>().join(", ");
    Err(Error::NoNode { lab: place.lab.clone(), node: node.to_owned(), known })
}

/// The topology as it was applied last.
pub(crate) fn applied_topology(place: &Place) -> Result<Topology, Error> {
    place.existing()?;
    let path = place.path(TOPOLOGY);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Error::io(format_args!("read {}", path.display()), error))?;
    Topology::parse(&place.lab, &path, &text)
}

/// The VMs of this name or with this uuid; none when the server cannot be asked.
fn ask(place: &Place, settings: &Settings, vm: &str) -> Vec<Uuid> {
    let Ok(client) = apply::log_in(place, settings) else { return Vec::new() };
    let field = if model::id::parse_uuid(vm).is_some() { "uuid" } else { "name" };
    let path = Kind::VmInstance.def().path();
    let found = client.query(path, &[format!("{field}={vm}")]).unwrap_or_default();
    let is_gone = |vm: &&Value| {
        let state = vm.get("state").and_then(Value::as_str).unwrap_or_default();
        field == "name" && ["Destroying", "Destroyed"].contains(&state)
    };
    let uuid = |vm: &Value| Uuid::try_parse(vm.get("uuid").and_then(Value::as_str)?).ok();
    found.iter().filter(|vm| !is_gone(vm)).filter_map(uuid).collect()
}
