//! VMs behind veths, on one host or on two with a tunnel between them.

use super::traffic::LIMIT;
use super::{Host, Namespace, ifindex, ip};
use netloom_dataplane::packet::{
    Addr, AddrKey, Fdb, FdbKey, FdbTarget, Mac, Neigh, NeighKey, Net, Port, PortKey, Source, Vtep,
    VtepKey,
};
use netloom_dataplane::{DataPlane, Options, Tables};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The network's VXLAN identifier.
pub(crate) const VNI: u32 = 4_242;

/// The network's MTU, and its gateways, which are nowhere. VMs know of neither.
pub(crate) const MTU: u32 = 1_450;
pub(crate) const GATEWAY: (IpAddr, IpAddr) = (
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xfe)),
);

/// A VM behind a veth: the host side is `port<n>`, the inside is `eth0` with 10.0.0.<n> and
/// fd00::<n>.
pub(crate) struct Vm {
    pub(crate) number: u32,
    pub(crate) inside: Namespace,
}

impl Vm {
    /// Makes it on the host of the calling thread.
    pub(crate) fn new(number: u32) -> Vm {
        let inside = Namespace::new();
        let mac = mac(number);
        let [a, b, c, d, e, f] = mac.0;
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        let tid = inside.tid;
        ip(&format!("link add port{number} type veth peer name eth0 address {mac} netns {tid}"));
        ip(&format!("link set port{number} up"));
        inside.ip("link set eth0 up");
        inside.ip(&format!("addr add 10.0.0.{number}/24 dev eth0"));
        inside.ip(&format!("addr add fd00::{number}/64 dev eth0 nodad"));
        Vm { number, inside }
    }

    /// Of its host side.
    pub(crate) fn ifindex(&self) -> u32 {
        ifindex(&format!("port{}", self.number))
    }
}

pub(crate) fn mac(number: u32) -> Mac {
    Mac([2, 0, 0, 0, 0, u8::try_from(number).unwrap()])
}

pub(crate) fn v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(number).unwrap())
}

pub(crate) fn v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::try_from(number).unwrap())
}

/// Both addresses of a VM.
pub(crate) fn addresses(number: u32) -> [IpAddr; 2] {
    [v4(number).into(), v6(number).into()]
}

/// Adds a local VM to network 1.
pub(crate) fn add_local(tables: &mut Tables, number: u32, ifindex: u32, flags: u16) {
    let key = PortKey::untagged(ifindex);
    let port = Port { number, net: 1, generation: 1, mac: mac(number), flags, ..Port::default() };
    tables.nets.insert(1, Net::closed());
    tables.ports.insert(key, port);
    for addr in addresses(number).map(Addr::from) {
        let gateway = Addr::from(if addr.is_v4() { GATEWAY.0 } else { GATEWAY.1 });
        tables
            .addrs
            .insert(AddrKey { port: number, addr }, Source { gateway, mtu: MTU, domain: 0 });
    }
    add_station(tables, number, Fdb::local(key));
}

pub(crate) fn add_station(tables: &mut Tables, number: u32, place: Fdb) {
    tables.fdb.insert(FdbKey::new(1, mac(number)), place);
    let neigh = match place.target() {
        Some(FdbTarget::Remote { vtep, .. }) => Neigh::behind(vtep, mac(number)),
        _ => Neigh::local(mac(number)),
    };
    for addr in addresses(number).map(Addr::from) {
        tables.neigh.insert(NeighKey { net: 1, addr }, neigh);
    }
}

/// The underlay addresses and the one VXLAN device, as the agent makes it.
pub(crate) fn tunnel(addresses: &[&str]) {
    for address in addresses {
        ip(&format!("addr add {address}/24 dev under0"));
    }
    ip("link set under0 up");
    ip("link add vx0 mtu 1500 type vxlan dstport 4789 external gbp nolearning");
    ip("link set vx0 up");
}

/// A tunnel, and at its other end no host, but whoever reads the outer packets.
pub(crate) fn far_inbox() -> (Namespace, UdpSocket) {
    let far = Namespace::new();
    ip(&format!("link add under0 mtu 1600 type veth peer name under0 mtu 1600 netns {}", far.tid));
    tunnel(&["192.0.2.1"]);
    let inbox = far.run(|| {
        ip("addr add 192.0.2.2/24 dev under0");
        ip("link set under0 up");
        UdpSocket::bind("192.0.2.2:4789").unwrap()
    });
    inbox.set_read_timeout(Some(LIMIT)).unwrap();
    (far, inbox)
}

/// Two hosts with a tunnel between them: VMs 1 and 3 on the near one, 2 on the far one.
pub(crate) struct Hosts {
    pub(crate) host: Host,
    pub(crate) far: Namespace,
    pub(crate) vms: [Vm; 3],
    pub(crate) plane: DataPlane,
    pub(crate) far_plane: Option<DataPlane>,
}

impl Hosts {
    /// Makes them; the calling thread becomes the near one. Each local port has these flags.
    pub(crate) fn up(flags: u16) -> Hosts {
        let host = Host::enter();
        let far = Namespace::new();
        let peer = format!("peer name under0 mtu 1600 netns {}", far.tid);
        ip(&format!("link add under0 mtu 1600 type veth {peer}"));
        tunnel(&["192.0.2.1"]);
        let (one, three) = (Vm::new(1), Vm::new(3));
        let plane = open(host.bpffs(), &[&one, &three], &[2], flags);
        let far_bpffs = host.bpffs().with_file_name("far");
        let (two, far_plane) = far.run(move || {
            tunnel(&["192.0.2.2"]);
            let two = Vm::new(2);
            let plane = open(far_bpffs, &[&two], &[1, 3], flags);
            (two, plane)
        });
        Hosts { host, far, vms: [one, two, three], plane, far_plane: Some(far_plane) }
    }

    /// A VM by its number.
    pub(crate) fn vm(&self, number: u32) -> &Vm {
        self.vms.iter().find(|vm| vm.number == number).unwrap()
    }

    /// Drops of this reason on the near host.
    pub(crate) fn drops(&self, reason: &str) -> u64 {
        self.plane.view().counters().unwrap().drops.get(reason).copied().unwrap_or_default()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        drop(self.far_plane.take());
        let _ = netloom_dataplane::unload(&self.host.bpffs().with_file_name("far"));
    }
}

/// The data plane of a host with these VMs and these stations behind the other one.
fn open(bpffs: std::path::PathBuf, local: &[&Vm], remote: &[u32], flags: u16) -> DataPlane {
    let near = local.iter().any(|vm| vm.number == 1);
    let (own, other) = if near { (1, 2) } else { (2, 1) };
    let [own, other] = [own, other].map(|last| Addr::v4([192, 0, 2, last]));
    let mut plane = DataPlane::open(&Options::new(bpffs)).unwrap();
    plane.set_tunnel_device(ifindex("vx0")).unwrap();
    let mut tables = Tables::default();
    for vm in local {
        plane.attach_port(vm.ifindex()).unwrap();
        add_local(&mut tables, vm.number, vm.ifindex(), flags);
    }
    for number in remote {
        add_station(&mut tables, *number, Fdb::remote(VNI, other).sent_from(own));
    }
    tables.vteps.insert(VtepKey { vni: VNI, addr: other }, Vtep::of_host(1, own));
    plane.reconcile(&tables).unwrap();
    plane
}
