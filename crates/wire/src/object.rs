//! The keyed objects that a host must hold. `compile` makes them, the agent applies them.
//!
//! Each is declared once, here ([`declare`](crate::declare)): one more object is one more entry,
//! and what the agent does with it. An object never refers to what only one host can know (an
//! interface's index, a file): the same objects on both ends give the same digest.

use std::net::{IpAddr, Ipv6Addr};

use uuid::Uuid;

use crate::{
    codec::ParseError,
    declare::{message, objects, one_of, words},
    policy::{MemberAddress, Policy, Rule},
    told::{AddressRange, Bytes, Dhcp, KnownAs, Resolver, Route, Service, SshKey, Told},
};

/// What identifies an object on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub table: Table,
    /// The uuid of the resource it was made from.
    pub uuid: Uuid,
}

objects! {
    /// A broadcast domain that is present on the host.
    1 "network" => Network {
        /// The L2 network's uuid.
        1 => uuid: Uuid,
        /// Its number in the data plane: unique in the installation, never reused.
        2 => number: u32,
        /// How the host is attached to it.
        3 => attachment: Attachment,
    }

    /// A NIC of a network on this host that lives on *another* host.
    2 "peer" => Peer {
        /// The NIC's uuid.
        1 => uuid: Uuid,
        /// Its network's uuid.
        2 => network: Uuid,
        /// Its MAC.
        3 => mac: [u8; 6],
        /// Its addresses, sorted.
        4 => addresses: Vec<IpAddr>,
        /// The VTEP of the host it lives on.
        5 => vtep: IpAddr,
        /// The prefixes that it routes for, sorted.
        6 since 2 => prefixes: Vec<Prefix>,
        /// Where it moves to: once a frame of its own comes from there, it is there.
        7 since 4 => goes: Option<Moving>,
        /// Its name, where guests may ask for names.
        8 since 7 => known_as: Option<KnownAs>,
    }

    /// An instance (a VM or a container) that the host runs.
    3 "instance" => Instance checked by check_driver {
        /// The VM instance's uuid.
        1 => uuid: Uuid,
        /// Its name, for people.
        2 => name: String,
        /// What runs it.
        3 => driver: Driver,
        /// How often it was made anew: an older one is removed and made anew.
        4 => generation: u32,
        /// The machine that it is, if its driver makes one.
        5 since 5 => machine: Option<Machine>,
        /// The host that it moves to while it runs: it is here until it runs there.
        6 since 6 => goes: Option<Handover>,
        /// The host that it moves here from: it gets its memory from there before it runs.
        7 since 6 => comes: Option<Handover>,
    }

    /// A NIC that lives on this host.
    4 "port" => Port checked by check_plug {
        /// The NIC's uuid.
        1 => uuid: Uuid,
        /// Its number in the data plane: unique in the installation, never reused.
        2 => number: u32,
        /// Its network's uuid.
        3 => network: Uuid,
        /// The instance that it is plugged into; `None` if it is plugged into a device.
        4 => instance: Option<Uuid>,
        /// Position in the instance: 0 is `eth0`.
        5 => device_id: u32,
        /// Its MAC.
        6 => mac: [u8; 6],
        /// Its addresses, sorted by address.
        7 => addresses: Vec<PortAddress>,
        /// MTU inside the instance, in bytes.
        8 => mtu_bytes: u32,
        /// The prefixes that it routes for, sorted: it may send from any address in them.
        9 since 2 => prefixes: Vec<Prefix>,
        /// The name of the device, made by something else, that it is plugged into.
        10 since 3 => device: Option<String>,
        /// Where it moves to: once a frame of its own comes from there, it is no longer here.
        11 since 4 => goes: Option<Moving>,
        /// Where it moves here from: it is still there until its first frame comes from its device
        /// here, which until then gets nothing and sends nothing.
        12 since 4 => comes: Option<Moving>,
        /// The other host of the move, whose agent the port's connections go to or come from.
        13 since 6 => handover: Option<Handover>,
        /// What the guest is told about it, if netloom tells it anything.
        14 since 7 => told: Option<Told>,
        /// Who may talk to it, and to whom it may. Absent: whoever is in its network.
        15 since 8 => policy: Option<Policy>,
        /// Which of its connections the host writes to its flow log, if any.
        16 since 9 => flow_log: Option<FlowLog>,
    }

    /// An L3 network that NICs on this host have addresses of: what its guests are told.
    5 "subnet" => Subnet {
        /// The L3 network's uuid.
        1 => uuid: Uuid,
        /// The uuid of the L2 network that it is on.
        2 => network: Uuid,
        /// The domain of its guests' names.
        3 => domain: Option<String>,
        /// The DNS servers that guests are told of, in order.
        4 => dns: Vec<IpAddr>,
        /// The routes that guests are told of, besides the default route.
        5 => routes: Vec<Route>,
        /// Its subnets and how their addresses come to guests, sorted.
        6 => ranges: Vec<AddressRange>,
        /// DHCP, if it has it.
        7 => dhcp: Option<Dhcp>,
        /// netloom's own DNS, if it has it.
        8 => resolver: Option<Resolver>,
    }

    /// What an instance that the host runs may read about itself.
    6 "about" => About {
        /// The VM instance's uuid.
        1 => uuid: Uuid,
        /// Its name, for people.
        2 => name: String,
        /// Its hostname, with a domain if it has one.
        3 => hostname: String,
        /// Its user data, as its owner gave it.
        4 => user_data: Option<Bytes>,
        /// What the operator tells all instances (cloud-init's vendor data).
        5 => vendor_data: Option<Bytes>,
        /// The keys of its owner.
        6 => ssh_keys: Vec<SshKey>,
        /// The account that it belongs to.
        7 => account: Uuid,
        /// The zone that it is in: name.
        8 => zone: String,
        /// The offering that it was made from, or its size: name.
        9 => offering: String,
        /// What its owner says of it, as tags, sorted.
        10 => tags: Vec<String>,
        /// It gets nothing without a token (as of EC2's IMDSv2).
        11 => needs_token: bool,
    }

    /// A security group that a port on this host is in.
    7 "security_group" => SecurityGroup {
        /// The group's uuid.
        1 => uuid: Uuid,
        /// Its number in the data plane: unique in the installation, never reused.
        2 => number: u32,
        /// Its rules, in the order in which they are asked.
        3 => rules: Vec<Rule>,
        /// Its rules are for single packets: no connection is remembered, and an answer needs a
        /// rule of its own.
        4 => is_stateless: bool,
    }

    /// A NIC, wherever it lives, that is in groups which rules of ports on this host name.
    8 "member" => Member {
        /// The NIC's uuid.
        1 => uuid: Uuid,
        /// Its addresses, sorted.
        2 => addresses: Vec<MemberAddress>,
        /// Numbers of those groups, sorted.
        3 => groups: Vec<u32>,
    }

    /// How long the host remembers connections that are idle, in seconds. There is one at most:
    /// without it, the data plane's own times hold.
    9 "timeouts" => Timeouts {
        /// The host's uuid.
        1 => uuid: Uuid,
        /// TCP before the opener's ACK.
        2 => tcp_opening: u32,
        /// TCP.
        3 => tcp_established: u32,
        /// TCP that one end has closed.
        4 => tcp_closing: u32,
        /// TCP that both ends have closed, or one has aborted.
        5 => tcp_closed: u32,
        /// Anything else, without an answer or with the first one.
        6 => opening: u32,
        /// UDP that goes on.
        7 => udp_established: u32,
        /// ICMP echo.
        8 => icmp: u32,
        /// Any other protocol that goes on.
        9 => other: u32,
    }
}

one_of! {
    /// How a host is attached to a network.
    Attachment {
        /// By tunnels to the other hosts of the network.
        1 => Tunnel,
        /// By an interface of the host.
        2 => Uplink,
    }
}

message! {
    /// Tunnels to the other hosts of a network.
    Tunnel checked by check_vni {
        /// VXLAN network identifier, 24 bits (RFC 7348).
        1 => vni: u32,
        /// This host's own VTEP for the network.
        2 => local_vtep: IpAddr,
        /// VTEPs that are no host's, sorted: machines that nobody has told us of are behind them.
        3 since 4 => foreign: Vec<IpAddr>,
        /// Frames are in GRE, with the VNI as key (RFC 2890), and not in VXLAN.
        4 since 6 => is_gre: bool,
        /// UDP port of VXLAN, the same in all networks of a host; 8472 if absent.
        5 since 6 => port: Option<u16>,
    }
}

message! {
    /// An interface of the host that leads into the network.
    Uplink checked by check_vlan {
        /// The name of the interface.
        1 => interface: String,
        /// The IEEE 802.1Q VLAN on it, 1 to 4094; untagged if absent.
        2 => vlan: Option<u16>,
    }
}

message! {
    /// A NIC moves between this host and another one, or between two others.
    Moving checked by check_number {
        /// The move's number: unique in the installation, never reused, not 0.
        1 => number: u32,
        /// The VTEP of the other host; of two others, that where it goes.
        2 => vtep: IpAddr,
    }
}

message! {
    /// Something goes from this host's agent to another one's, or comes from there.
    Handover checked by check_handover {
        /// The number of the move that it is part of: unique in the installation, never reused, not 0.
        1 => number: u32,
        /// The other host, as its certificate names it.
        2 => host: Uuid,
        /// Its management address, where its agent listens.
        3 => address: IpAddr,
    }
}

words! {
    /// Which connections are written to the flow log.
    FlowLog {
        /// Those that were denied.
        1 => Denied,
        /// New ones, too.
        2 => All,
    }
}

words! {
    /// What runs an instance.
    Driver {
        /// A network namespace without processes of its own.
        1 => Netns,
        /// A QEMU.
        2 since 5 => Qemu,
    }
}

message! {
    /// A machine with processors of its own.
    Machine {
        /// Its processors.
        1 => cpus: u32,
        /// Its memory, in MiB.
        2 => memory_mib: u32,
        /// What it starts from: the way to it, below the host's directory of images.
        3 => image: String,
        /// What that is.
        4 => format: ImageFormat,
        /// It stands still, and goes on where it stood.
        5 => is_paused: bool,
    }
}

words! {
    /// What a machine starts from.
    ImageFormat {
        /// A disk, byte by byte.
        1 => Raw,
        /// A disk in QEMU's own format.
        2 => Qcow2,
        /// A directory with a kernel and its initramfs.
        3 => Kernel,
    }
}

message! {
    /// An address of a port.
    PortAddress checked by check_prefix {
        /// The address.
        1 => ip: IpAddr,
        /// Length of the subnet's prefix, in bits.
        2 => prefix_bits: u8,
        /// The subnet's gateway, if the instance's default route goes through it.
        3 => gateway: Option<IpAddr>,
        /// The L3 network that it is of, if that has services.
        4 since 7 => subnet: Option<Uuid>,
        /// Number of the routing domain in which nobody else has it; 0 if nothing here depends on it.
        5 since 8 => domain: u32,
    }
}

message! {
    /// All addresses that start with the same bits.
    Prefix checked by check_canonical {
        /// The lowest of them.
        1 => ip: IpAddr,
        /// How many bits these are.
        2 => bits: u8,
    }
}

impl Table {
    /// The table with this number, if this release knows it.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|table| table.number() == number)
    }
}

impl Port {
    /// The addresses that it may send from, besides those in its prefixes. In an open network
    /// that is the link-local one of its MAC, too (RFC 4291, appendix A): IPv6 routers there talk to
    /// nobody else. And wherever netloom tells it of IPv6.
    pub fn ips(&self, network: &Network) -> impl Iterator<Item = IpAddr> + '_ {
        let is_told = |told: &Told| told.services.contains(&Service::Ipv6);
        let has = network.is_open() || self.told.as_ref().is_some_and(is_told);
        let link_local = has.then(|| link_local(self.mac).into());
        self.addresses.iter().map(|address| address.ip).chain(link_local)
    }
}

/// The link-local address that RFC 4291, appendix A derives from a MAC.
#[must_use]
pub fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f].into()
}

impl Tunnel {
    /// Set in the VNI of a network in GRE where data planes tell networks apart by it.
    pub const GRE: u32 = 1 << 24;

    /// What data planes tell the network by.
    #[must_use]
    pub const fn id(&self) -> u32 {
        if self.is_gre { self.vni | Self::GRE } else { self.vni }
    }
}

impl Network {
    /// Whether machines that nobody has told us of are in it: a physical network, or one with
    /// foreign VTEPs. In any other one only known MACs exist.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        match &self.attachment {
            Attachment::Tunnel(tunnel) => !tunnel.foreign.is_empty(),
            Attachment::Uplink(_) => true,
        }
    }

    /// The interface by which the host is in it, if it is a physical one.
    #[must_use]
    pub const fn uplink(&self) -> Option<&Uplink> {
        match &self.attachment {
            Attachment::Tunnel(_) => None,
            Attachment::Uplink(uplink) => Some(uplink),
        }
    }

    /// The tunnel by which the host is attached, if it is by one.
    #[must_use]
    pub const fn tunnel(&self) -> Option<&Tunnel> {
        match &self.attachment {
            Attachment::Tunnel(tunnel) => Some(tunnel),
            Attachment::Uplink(_) => None,
        }
    }
}

/// RFC 7348: 24 bits.
fn check_vni(tunnel: &Tunnel) -> Result<(), ParseError> {
    let in_range = tunnel.vni >> 24 == 0;
    in_range.then_some(()).ok_or(ParseError::Range { field: "Tunnel.vni", value: tunnel.vni })
}

/// IEEE 802.1Q: 0 and 4095 are reserved.
fn check_vlan(uplink: &Uplink) -> Result<(), ParseError> {
    match uplink.vlan {
        Some(vlan) if !(1..=4094).contains(&vlan) => {
            Err(ParseError::Range { field: "Uplink.vlan", value: vlan.into() })
        }
        _ => Ok(()),
    }
}

/// Longest name of a device, in bytes: the kernel's `IFNAMSIZ`, without the zero.
const DEVICE_MAX: usize = 15;

/// The data plane has 0 for no move.
fn check_number(moving: &Moving) -> Result<(), ParseError> {
    let is_one = moving.number != 0;
    is_one.then_some(()).ok_or(ParseError::Range { field: "Moving.number", value: 0 })
}

/// As of a [`Moving`].
fn check_handover(handover: &Handover) -> Result<(), ParseError> {
    let is_one = handover.number != 0;
    is_one.then_some(()).ok_or(ParseError::Range { field: "Handover.number", value: 0 })
}

/// A port is plugged into one thing, and moves one way. What is without an instance, which earlier releases need, has
/// a device and so is withheld from them.
fn check_plug(port: &Port) -> Result<(), ParseError> {
    if port.goes.is_some() && port.comes.is_some() {
        return Err(ParseError::Both("Port.goes", "Port.comes"));
    }
    match (port.instance, &port.device) {
        (None, Some(device)) if !(1..=DEVICE_MAX).contains(&device.len()) => {
            Err(ParseError::Length { field: "Port.device", bytes: device.len() })
        }
        (Some(_), None) | (None, Some(_)) => Ok(()),
        (None, None) => Err(ParseError::Missing("Port.instance")),
        (Some(_), Some(_)) => Err(ParseError::Both("Port.instance", "Port.device")),
    }
}

/// A machine is what a QEMU runs, and nothing else does. It moves one way.
fn check_driver(instance: &Instance) -> Result<(), ParseError> {
    if instance.goes.is_some() && instance.comes.is_some() {
        return Err(ParseError::Both("Instance.goes", "Instance.comes"));
    }
    match (instance.driver, &instance.machine) {
        (Driver::Netns, None) | (Driver::Qemu, Some(_)) => Ok(()),
        (Driver::Qemu, None) => Err(ParseError::Missing("Instance.machine")),
        (Driver::Netns, Some(_)) => Err(ParseError::Both("Instance.driver", "Instance.machine")),
    }
}

fn check_prefix(address: &PortAddress) -> Result<(), ParseError> {
    let bits_max = if address.ip.is_ipv4() { 32 } else { 128 };
    let (field, value) = ("PortAddress.prefix_bits", address.prefix_bits.into());
    (address.prefix_bits <= bits_max).then_some(()).ok_or(ParseError::Range { field, value })
}

fn check_canonical(prefix: &Prefix) -> Result<(), ParseError> {
    let (field, value) = ("Prefix.bits", prefix.bits.into());
    let is_canonical = match prefix.ip {
        IpAddr::V4(ip) => {
            let rest = u32::MAX.checked_shr(prefix.bits.into()).unwrap_or(0);
            prefix.bits <= 32 && u32::from(ip) & rest == 0
        }
        IpAddr::V6(ip) => {
            let rest = u128::MAX.checked_shr(prefix.bits.into()).unwrap_or(0);
            // A mapped one is IPv4's.
            prefix.bits <= 128 && u128::from(ip) & rest == 0 && ip.to_ipv4_mapped().is_none()
        }
    };
    is_canonical.then_some(()).ok_or(ParseError::Range { field, value })
}

#[cfg(test)]
mod tests;
