//! The data plane of an earlier version, as its agent left it: the object that was committed then,
//! loaded, pinned, attached and filled as the loader of then did it. `objects/README.md`.
//!
//! Structs of then are written as bytes: their types are gone.

use super::dataplane::packet::{
    FRAGMENTS_PER_PORT, Fdb, FdbTarget, FloodKey, Flooded, Plain, Port,
};
use super::dataplane::{Hold, Tables, open_earlier};
use aya::maps::{Array, HashMap};
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use std::collections::BTreeMap;
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
        let maps = bpffs.join(if layout < 6 { format!("maps-{layout}") } else { "maps".into() });
        for directory in [&maps, &bpffs.join(PROGRAMS), &bpffs.join("links")] {
            fs::create_dir_all(directory).unwrap();
        }
        let mut object = load(layout, &maps);
        for name in programs_of(layout) {
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
            "to_port" | "to_uplink" => TcAttachType::Egress,
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

    /// Says which device is the tunnel, and where the areas of the connection table are. Frames pass
    /// it by with this destination port, from layout 6 on and if it is not 0.
    pub(crate) fn configure(&mut self, tunnel_ifindex: u32, direct_port: u32) {
        let [_, port_buckets, common_buckets] = SIZE;
        let (last_zone, seed) = (FIRST_ZONE + 64, 0x1234_5678_9abc_def0_u64);
        match self.layout {
            3 => self.set("config", bytes::<8>(&[&ne(tunnel_ifindex), &ne(65_536)])),
            4 => {
                let areas = [tunnel_ifindex, last_zone, common_buckets, port_buckets].map(ne);
                self.set("config", bytes::<24>(&[&areas.concat(), &seed.to_ne_bytes()]));
            }
            _ => {
                let areas = [tunnel_ifindex, last_zone, common_buckets, port_buckets].map(ne);
                let last = [1, direct_port].map(ne).concat();
                let config = bytes::<32>(&[&areas.concat(), &seed.to_ne_bytes(), &last]);
                self.set("config", config);
            }
        }
    }

    /// Fills it; ports get places and zones in their order.
    pub(crate) fn fill(&mut self, tables: &Tables) {
        let layout = self.layout;
        if layout >= 6 {
            self.fill_networks(tables);
        }
        for (place, (key, port)) in (1..).zip(&tables.ports) {
            if layout < 4 {
                self.insert("ct_used", ne(port.number), 0_i64.to_ne_bytes());
            }
            self.insert("ports", key.to_bytes(), self.port(place, port));
        }
        for (key, source) in &tables.addrs {
            match layout {
                ..6 => self.insert("addrs", key.to_bytes(), ne(1)),
                _ => {
                    let value = bytes::<20>(&[&source.gateway.octets(), &ne(source.mtu)]);
                    self.insert("addrs", key.to_bytes(), value);
                }
            }
        }
        for (key, station) in &tables.fdb {
            match layout {
                ..6 => self.insert("fdb", key.to_bytes(), fdb(station)),
                // None moves, and then it is as today.
                _ => self.insert("fdb", key.to_bytes(), station.to_bytes()),
            }
        }
        for (key, neigh) in &tables.neigh {
            let behind = neigh.vtep.octets();
            match layout {
                ..4 => self.insert("neigh", key.to_bytes(), bytes::<8>(&[&neigh.mac.0])),
                _ => {
                    let value = bytes::<24>(&[&neigh.mac.0, &[0; 2], &behind]);
                    self.insert("neigh", key.to_bytes(), value);
                }
            }
        }
        for (key, vtep) in &tables.vteps {
            let local = vtep.local.octets();
            match layout {
                ..4 => self.insert("vteps", key.to_bytes(), ne(vtep.net)),
                4..7 => {
                    self.insert("vteps", key.to_bytes(), bytes::<20>(&[&ne(vtep.net), &local]));
                }
                // As today.
                _ => self.insert("vteps", key.to_bytes(), vtep.to_bytes()),
            }
        }
    }

    /// Networks, the ways into physical ones, and the ports of each.
    fn fill_networks(&mut self, tables: &Tables) {
        for (number, net) in &tables.nets {
            assert_eq!(net.area, 0, "networks of then had no foreign VTEPs");
            self.insert("nets", ne(*number), net.to_bytes());
        }
        for (key, wire) in &tables.wires {
            self.insert("wires", key.to_bytes(), wire.to_bytes());
        }
        let mut counts = BTreeMap::new();
        for (place, (key, port)) in (1..).zip(&tables.ports) {
            let index: &mut u32 = counts.entry(port.net).or_default();
            let at = FloodKey { net: port.net, index: *index };
            *index += 1;
            let flooded = Flooded { key: *key, number: port.number, place };
            self.insert("flood", at.to_bytes(), flooded.to_bytes());
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
            HashMap::try_from(self.object.map_mut(self.full(map)).unwrap()).unwrap();
        map.insert(key, value, 0).unwrap();
    }

    fn set<const V: usize>(&mut self, map: &str, value: [u8; V]) {
        let mut map: Array<_, [u8; V]> =
            Array::try_from(self.object.map_mut(self.full(map)).unwrap()).unwrap();
        map.set(0, value, 0).unwrap();
    }

    /// What a map is called in the object.
    fn full<'a>(&self, map: &'a str) -> &'a str {
        if self.layout < 6 { map } else { full_name(self.layout, map) }
    }
}

/// The maps that have to be filled and sized, with their versions, in layout 6.
const MAPS_6: [&str; 11] = [
    "nets_6",
    "vteps_4",
    "fdb_3",
    "neigh_4",
    "addrs_5",
    "ports_4",
    "flood_6",
    "wires_6",
    "config_5",
    "conntrack_4",
    "fragments_5",
];

/// Those that have another version in layout 7.
const MAPS_7: [&str; 5] = ["nets_7", "vteps_7", "fdb_7", "neigh_7", "ports_7"];

/// What a map is called in an object from layout 6 on.
fn full_name(layout: u32, map: &str) -> &'static str {
    let newer = if layout < 7 { &[][..] } else { &MAPS_7[..] };
    let mut all = newer.iter().chain(&MAPS_6);
    all.find(|full| full.starts_with(&format!("{map}_"))).unwrap()
}

/// The object of a layout, with its maps made and pinned.
fn load(layout: u32, maps: &Path) -> Ebpf {
    let [ports, own, common] = SIZE;
    let buckets = ports * own + common;
    if layout >= 6 {
        let cpus = u32::try_from(aya::util::nr_cpus().unwrap()).unwrap();
        let sizes = [
            (full_name(layout, "ports"), ports),
            ("conntrack_4", buckets),
            ("fragments_5", ports * FRAGMENTS_PER_PORT),
            ("flows", FLOWS_6 * (cpus + 1)),
        ];
        return open_earlier(object_of(layout), maps, &sizes).unwrap();
    }
    let mut loader = EbpfLoader::new();
    loader.btf(None).default_map_pin_directory(maps);
    if layout >= 4 {
        loader.map_max_entries("ports", ports);
        loader.map_max_entries("conntrack", buckets);
    }
    loader.load(object_of(layout)).unwrap()
}

/// For each CPU, and for all of them together.
const FLOWS_6: u32 = 4_096;

/// Its programs, by their hooks.
pub(crate) fn programs_of(layout: u32) -> &'static [&'static str] {
    match layout {
        ..6 => &["from_port", "from_tunnel", "to_port"],
        6 => &["from_port", "from_tunnel", "to_port", "from_underlay", "from_uplink", "to_uplink"],
        _ => &[
            "from_port",
            "from_tunnel",
            "to_port",
            "from_underlay",
            "from_uplink",
            "to_uplink",
            "from_gre",
            "to_tunnel",
        ],
    }
}

/// A zone that the first port's follows.
const FIRST_ZONE: u32 = 40;

/// The object of this layout.
pub(crate) fn object_of(layout: u32) -> &'static [u8] {
    match layout {
        3 => aya::include_bytes_aligned!("../objects/layout-3.bpf.o"),
        4 => aya::include_bytes_aligned!("../objects/layout-4.bpf.o"),
        6 => aya::include_bytes_aligned!("../objects/layout-6.bpf.o"),
        7 => aya::include_bytes_aligned!("../objects/layout-7.bpf.o"),
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
