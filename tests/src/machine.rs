//! The machine as it is: what a restart must leave alone, and what must be gone after `down`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapInfo},
    programs::links::{FdLink, PinnedLink},
};
use dataplane::{
    Tables, View,
    packet::{
        AddrKey, Fdb, FdbKey, Neigh, NeighKey, Net, Plain, Port, PortKey, Source, Vtep, VtepKey,
    },
};
use hostnet::{LinkInfo, Namespace};

/// Everything of a lab that is in the kernel, without what agents keep ready for instances to come:
/// that comes and goes in its own time. Two are equal when nothing was made anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Namespaces and their inodes.
    pub namespaces: BTreeMap<String, u64>,
    /// The devices in each namespace: index, MAC, MTU, state.
    pub devices: BTreeMap<String, Vec<LinkInfo>>,
    /// Attached programs: pin, id of the TCX link.
    pub links: BTreeMap<PathBuf, u32>,
    /// Maps: pin, id.
    pub maps: BTreeMap<PathBuf, u32>,
}

impl Machine {
    /// Looks at the lab of this name, whose files are below `dir`.
    pub fn look(lab: &str, dir: &Path) -> Self {
        let mut machine = Self::default();
        // First of all: what is made from now on has no pin that was seen.
        for host in fs::read_dir(dir).into_iter().flatten().flatten() {
            machine.look_at_pins(&host.path().join("bpf"));
        }
        for name in Namespace::list(&format!("nl-{lab}-")).unwrap() {
            if name.contains(SPARE_NAMESPACE) {
                continue;
            }
            // It may go at this moment.
            let Ok(namespace) = Namespace::open(&name) else { continue };
            let inode = inode(&namespace);
            let (spares, others): (Vec<_>, Vec<_>) =
                devices(&namespace).into_iter().partition(|link| is_spare(&link.name));
            let host = name.rsplit('-').next().map(|host| dir.join(host).join("bpf"));
            machine.links.retain(|pin, _| {
                let is_here = host.as_ref().is_some_and(|bpffs| pin.starts_with(bpffs));
                !(is_here && spares.iter().any(|spare| is_pin_of(pin, spare.index)))
            });
            machine.devices.insert(name.clone(), others);
            machine.namespaces.insert(name, inode);
        }
        machine
    }

    fn look_at_pins(&mut self, bpffs: &Path) {
        for pin in entries(bpffs).iter().flat_map(|directory| entries(directory)) {
            let directory = pin.parent().and_then(Path::file_name).unwrap().to_string_lossy();
            if directory == "links" {
                // It may go at this moment.
                let Ok(link) = PinnedLink::from_pin(&pin) else { continue };
                self.links.insert(pin, FdLink::from(link).info().unwrap().id());
            } else if directory.starts_with("maps") {
                let id = MapInfo::from_pin(&pin).unwrap().id();
                self.maps.insert(pin, id);
            }
        }
    }
}

/// What the namespaces that agents keep ready have in their names.
const SPARE_NAMESPACE: &str = "-spare_";

/// Whether a device is the host's end of a cable that an agent keeps ready.
fn is_spare(device: &str) -> bool {
    device.len() == 15 && device.starts_with("nls")
}

fn is_pin_of(pin: &Path, ifindex: u32) -> bool {
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    name.split('-').next() == Some(ifindex.to_string().as_str())
}

/// What a namespace is, whatever its name.
pub fn inode(namespace: &Namespace) -> u64 {
    let own = || fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    namespace.run_in(own).unwrap()
}

/// The namespaces that the agents of a lab keep ready.
pub fn spares(lab: &str) -> Vec<String> {
    let names = Namespace::list(&format!("nl-{lab}-")).unwrap();
    names.into_iter().filter(|name| name.contains(SPARE_NAMESPACE)).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<_> = found.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// The devices of a namespace.
pub(crate) fn devices(namespace: &Namespace) -> Vec<LinkInfo> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { namespace.netlink().await.unwrap().links().await.unwrap() })
}

/// One of them.
///
/// # Panics
/// When there is none of this name.
pub fn device(namespace: &Namespace, name: &str) -> LinkInfo {
    let mut found = devices(namespace).into_iter().filter(|link| link.name == name);
    found.next().unwrap_or_else(|| panic!("{} has no {name}", namespace.name()))
}

/// What the maps of a host hold; `data` is where its agent keeps its files.
pub fn tables(data: &Path) -> Tables {
    view(data).tables().unwrap()
}

/// How many frames a host has dropped, by reason: quicker than a whole inspection.
pub fn drops(data: &Path) -> BTreeMap<&'static str, u64> {
    view(data).counters().unwrap().drops
}

/// The id of the program that sees what a port sends, by the host's device.
pub fn program(data: &Path, ifindex: u32) -> u32 {
    let pin = data.join(format!("bpf/links/{ifindex}-from_port"));
    FdLink::from(PinnedLink::from_pin(pin).unwrap()).info().unwrap().program_id()
}

fn view(data: &Path) -> View {
    View::open(&data.join("bpf")).unwrap()
}

/// What is done to a map by somebody who should not.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// An entry is removed.
    Remove,
    /// An entry gets another value.
    Change,
}

/// Damages an entry of a filled map of a host's data plane.
pub fn damage(data: &Path, map: &str, damage: Damage) {
    // Behind its name a pin has the map's version.
    let is_meant = |pin: &PathBuf| pin.to_string_lossy().contains(&format!("/maps/{map}_"));
    let pin = entries(&data.join("bpf/maps")).into_iter().find(is_meant).unwrap();
    match map {
        "ports" => spoil::<PortKey, Port>(&pin, damage),
        "nets" => spoil::<u32, Net>(&pin, damage),
        "addrs" => spoil::<AddrKey, Source>(&pin, damage),
        "fdb" => spoil::<FdbKey, Fdb>(&pin, damage),
        "neigh" => spoil::<NeighKey, Neigh>(&pin, damage),
        "vteps" => spoil::<VtepKey, Vtep>(&pin, damage),
        _ => panic!("no map {map}"),
    }
}

fn spoil<K: Plain, V: Plain>(pin: &Path, damage: Damage)
where
    K::Bytes: Pod,
    V::Bytes: Pod + AsMut<[u8]>,
{
    let data = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let mut map: HashMap<_, K::Bytes, V::Bytes> = data.try_into().unwrap();
    let (key, mut value) = map.iter().next().unwrap().unwrap();
    value.as_mut()[0] ^= 1;
    match damage {
        Damage::Remove => map.remove(&key).unwrap(),
        Damage::Change => map.insert(key, value, 0).unwrap(),
    }
}

/// What of a lab is left anywhere: namespaces, half-made ones too, mounts, files, processes, and
/// the claim to its name.
pub fn leftovers(lab: &str, root: &Path) -> Vec<String> {
    let claim = Path::new("/run/netloom/owners").join(lab);
    let mut found = Vec::new();
    if claim.exists() {
        found.push(claim.display().to_string());
    }
    let prefix = format!("nl-{lab}-");
    for entry in entries(Path::new("/run/netns")) {
        if entry.file_name().unwrap().to_string_lossy().starts_with(&prefix) {
            found.push(entry.display().to_string());
        }
    }
    let dir = root.join(lab);
    let text = dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(&text)).map(str::to_owned));
    if dir.exists() {
        found.push(text.clone());
    }
    for process in entries(Path::new("/proc")) {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&text) {
            found.push(process.display().to_string());
        }
    }
    found
}
