//! The data plane of an earlier version, as its agent left it: the object that was committed then,
//! loaded, pinned, attached and filled as the loader of then did it. `objects/README.md`.
//!
//! Structs of then are written as bytes: their types are gone.

use super::dataplane::packet::{Fdb, FdbTarget, Plain, Port};
use super::dataplane::{Hold, Tables};
use aya::maps::{Array, HashMap};
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use std::fs;
use std::path::{Path, PathBuf};

/// Ports, buckets of each, and of the common area, for layouts with areas.
const SIZE: [u32; 3] = [64, 512, 8_192];

/// It, while its agent runs. Dropped, it goes on.
pub(crate) struct OldPlane {
    layout: u32,
    bpffs: PathBuf,
    object: Ebpf,
}

impl OldPlane {
    /// Makes the one of this layout.
    pub(crate) fn open(bpffs: &Path, layout: u32) -> OldPlane {
        // Mounts it.
        drop(Hold::take(bpffs).unwrap());
        let maps = bpffs.join(format!("maps-{layout}"));
        for directory in [&maps, &bpffs.join(PROGRAMS), &bpffs.join("links")] {
            fs::create_dir_all(directory).unwrap();
        }
        let mut loader = EbpfLoader::new();
        loader.btf(None).default_map_pin_directory(&maps);
        if layout >= 4 {
            let [ports, own, common] = SIZE;
            loader.map_max_entries("ports", ports);
            loader.map_max_entries("conntrack", ports * own + common);
        }
        let mut object = loader.load(object_of(layout)).unwrap();
        for name in ["from_port", "from_tunnel", "to_port"] {
            let program: &mut SchedClassifier =
                object.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap();
            program.pin(bpffs.join(PROGRAMS).join(name)).unwrap();
        }
        OldPlane { layout, bpffs: bpffs.to_owned(), object }
    }

    /// Attaches a program to an interface before all others, with a pinned link in the place of
    /// any other.
    pub(crate) fn attach(&mut self, name: &str, interface: &str) {
        let side = match name {
            "to_port" => TcAttachType::Egress,
            _ => TcAttachType::Ingress,
        };
        let program: &mut SchedClassifier =
            self.object.program_mut(name).unwrap().try_into().unwrap();
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(interface, side, order).unwrap();
        let link = FdLink::try_from(program.take_link(id).unwrap()).unwrap();
        let ifindex = nix::net::if_::if_nametoindex(interface).unwrap();
        let pin = self.bpffs.join("links").join(format!("{ifindex}-{name}"));
        let new = pin.with_file_name("new");
        link.pin(&new).unwrap();
        let _ = fs::remove_file(&pin);
        fs::rename(new, pin).unwrap();
    }

    /// Says which device is the tunnel, and where the areas of the connection table are.
    pub(crate) fn configure(&mut self, tunnel_ifindex: u32) {
        let [_, own, common] = SIZE;
        match self.layout {
            3 => self.set("config", bytes::<8>(&[&ne(tunnel_ifindex), &ne(65_536)])),
            _ => self.set(
                "config",
                bytes::<24>(&[
                    &ne(tunnel_ifindex),
                    &ne(FIRST_ZONE + 64),
                    &ne(common),
                    &ne(own),
                    &0x1234_5678_9abc_def0_u64.to_ne_bytes(),
                ]),
            ),
        }
    }

    /// Fills it; ports get places and zones in their order.
    pub(crate) fn fill(&mut self, tables: &Tables) {
        let before_4 = self.layout < 4;
        for (place, (key, port)) in (1..).zip(&tables.ports) {
            if before_4 {
                self.insert("ct_used", ne(port.number), 0_i64.to_ne_bytes());
            }
            self.insert("ports", key.to_bytes(), self.port(place, port));
        }
        for key in tables.addrs.keys() {
            self.insert("addrs", key.to_bytes(), ne(1));
        }
        for (key, station) in &tables.fdb {
            self.insert("fdb", key.to_bytes(), fdb(station));
        }
        for (key, neigh) in &tables.neigh {
            let behind = neigh.vtep.octets();
            match before_4 {
                true => self.insert("neigh", key.to_bytes(), bytes::<8>(&[&neigh.mac.0])),
                false => {
                    let value = bytes::<24>(&[&neigh.mac.0, &[0; 2], &behind]);
                    self.insert("neigh", key.to_bytes(), value);
                }
            }
        }
        for (key, vtep) in &tables.vteps {
            let local = vtep.local.octets();
            match before_4 {
                true => self.insert("vteps", key.to_bytes(), ne(vtep.net)),
                false => {
                    self.insert("vteps", key.to_bytes(), bytes::<20>(&[&ne(vtep.net), &local]));
                }
            }
        }
    }

    /// number, net, generation, budget or zone, MAC, flags and place.
    fn port(&self, place: u32, port: &Port) -> [u8; 24] {
        let fourth = if self.layout < 4 { 16_384 } else { FIRST_ZONE + place };
        let numbers = [port.number, port.net, port.generation, fourth].map(ne).concat();
        let flags = port.flags & Port::PEER | u16::try_from(place).unwrap() << 1;
        bytes(&[&numbers, &port.mac.0, &flags.to_ne_bytes()])
    }

    fn insert<const K: usize, const V: usize>(&mut self, map: &str, key: [u8; K], value: [u8; V]) {
        let mut map: HashMap<_, [u8; K], [u8; V]> =
            HashMap::try_from(self.object.map_mut(map).unwrap()).unwrap();
        map.insert(key, value, 0).unwrap();
    }

    fn set<const V: usize>(&mut self, map: &str, value: [u8; V]) {
        let mut map: Array<_, [u8; V]> =
            Array::try_from(self.object.map_mut(map).unwrap()).unwrap();
        map.set(0, value, 0).unwrap();
    }
}

/// A zone that the first port's follows.
const FIRST_ZONE: u32 = 40;

/// The object of this layout.
pub(crate) fn object_of(layout: u32) -> &'static [u8] {
    match layout {
        3 => aya::include_bytes_aligned!("../objects/layout-3.bpf.o"),
        4 => aya::include_bytes_aligned!("../objects/layout-4.bpf.o"),
        _ => panic!("no object of layout {layout}"),
    }
}

/// A set of programs that is not ours.
pub(crate) const PROGRAMS: &str = "programs-00000000000000ff";

fn ne(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

/// Kind, the port of a local station, VNI, its VTEP and ours.
fn fdb(station: &Fdb) -> [u8; 48] {
    match station.target().unwrap() {
        FdbTarget::Local(port) => bytes(&[&ne(1), &port.to_bytes()]),
        FdbTarget::Remote { vni, vtep, local } => {
            bytes(&[&ne(2), &[0; 8], &ne(vni), &vtep.octets(), &local.octets()])
        }
        FdbTarget::Uplink(_) | FdbTarget::Host(_) => {
            panic!("layouts of then have no uplinks")
        }
    }
}

/// The parts one after the other, and then zeros.
fn bytes<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let all = parts.concat();
    let mut bytes = [0; N];
    bytes[..all.len()].copy_from_slice(&all);
    bytes
}
