//! From a record to what the compiler needs of it, and from there to wire objects.
//!
//! Only fields that a host needs are taken, so a change of any other field has no effect here.

use std::{net::IpAddr, sync::Arc};

use model::{
    Id,
    resource::{
        cluster::Cluster,
        dhcp_option::DhcpOption,
        host::Host,
        image::RootFormat,
        l2_network::{L2Network, Segment},
        l3_network::L3Network,
        remote_vtep::RemoteVtep,
        used_ip::UsedIp,
        vm_instance::{InstanceDriver, VmInstance},
        vm_nic::VmNic,
        vtep::{VXLAN_PORT, Vtep},
        zone::EnableState,
    },
};
use wire::{
    object::{
        Attachment, Driver, Handover, ImageFormat, Instance, Machine, Moving, Network, Object,
        Peer, Port, PortAddress, Prefix, Tunnel, Uplink,
    },
    told::{KnownAs, Service, Told},
};

use crate::lan::{Brief, Choice};

/// A host and a pool: where a VTEP is needed, or is.
pub(crate) type Site = (Id<Host>, Id<L2Network>);

/// A host's own VTEP, and the UDP port there.
pub(crate) type Local = (IpAddr, u16);

/// The ends of a host's tunnels in a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ends {
    /// Its own VTEP.
    pub(crate) local: IpAddr,
    /// The UDP port there.
    pub(crate) port: u16,
    /// Those of the pool in its cluster that are no host's, sorted.
    pub(crate) foreign: Vec<IpAddr>,
}

/// An address of a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    ip: IpAddr,
    prefix_bits: u8,
    /// None if its L3 network is not that of the instance's default route.
    gateway: Option<IpAddr>,
    pub(crate) l3: Id<L3Network>,
}

/// A NIC that is enabled, bound and plugged in: into an instance, or else into a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nic {
    pub(crate) uuid: Id<VmNic>,
    pub(crate) host: Id<Host>,
    pub(crate) network: Id<L2Network>,
    pub(crate) instance: Option<Id<VmInstance>>,
    /// The device, if it has no instance.
    device: Option<String>,
    number: u32,
    device_id: u32,
    pub(crate) mac: [u8; 6],
    /// Sorted.
    addresses: Vec<Address>,
    mtu_bytes: u32,
    /// What it routes for, sorted.
    prefixes: Vec<(IpAddr, u8)>,
    /// Its hostname, if it was given one.
    hostname: Option<String>,
    /// The L3 networks of its addresses of whose guests hosts take care, sorted.
    lans: Vec<Brief>,
    /// What else DHCP tells it, sorted.
    options: Vec<Choice>,
    /// The default route of its instance goes by it.
    is_default: bool,
    /// Its pending binding.
    pub(crate) pending: Option<Pending>,
}

/// What another row means for a NIC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Of {
    /// It has an address.
    Address(Address),
    /// Hosts take care of the guests of an L3 network of which it has an address.
    Lan(Brief),
    /// DHCP tells it something else, too.
    Option(Choice),
}

/// Where a NIC moves to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pending {
    pub(crate) host: Id<Host>,
    /// The device there, if it has no instance.
    device: Option<String>,
    /// The move's number.
    number: u32,
    /// The management addresses of the host where it is and of that one, if they are known.
    ips: Option<[IpAddr; 2]>,
}

/// What has a default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RouteKey {
    Instance(Id<VmInstance>),
    /// A NIC without an instance: of that only who runs behind it knows.
    Alone(Id<VmNic>),
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Net {
    pub(crate) uuid: Id<L2Network>,
    pub(crate) number: u32,
    way: Way,
}

/// What leads from a host into a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// Tunnels: hosts need a VTEP in the pool.
    Tunnel { pool: Id<L2Network>, vni: u32, is_gre: bool },
    /// An interface, with or without a tag. Peers are learned by the physical network, so none are
    /// sent.
    Uplink { interface: String, vlan: Option<u16> },
}

impl Nic {
    /// A NIC without its addresses; `None`: no host carries it.
    pub(crate) fn of(nic: &VmNic) -> Option<Self> {
        let device = nic.plugged().map(|(_, device)| device.to_owned());
        if nic.vm_instance_uuid.is_none() && device.is_none() {
            return None;
        }
        let prefixes = nic.allowed_prefixes.iter();
        let prefixes = prefixes.map(|net| (net.addr(), net.prefix_len()));
        let bound = Self {
            uuid: nic.uuid,
            host: nic.host_uuid?,
            network: nic.l2_network_uuid,
            number: nic.number,
            instance: nic.vm_instance_uuid,
            device,
            device_id: nic.device_id,
            mac: nic.mac.0,
            addresses: Vec::new(),
            mtu_bytes: nic.mtu,
            prefixes: prefixes.collect(),
            hostname: nic.hostname.clone(),
            lans: Vec::new(),
            options: Vec::new(),
            is_default: true,
            pending: nic.moves_to().map(|host| Pending {
                host,
                device: nic.pending().map(|(_, device)| device.to_owned()),
                number: nic.move_number,
                ips: nic.move_ips.as_slice().try_into().ok(),
            }),
        };
        (nic.state == EnableState::Enabled).then_some(bound)
    }

    /// The same NIC with these, which are sorted.
    pub(crate) fn with(&self, all: &[Of]) -> Self {
        let mut nic = self.clone();
        for of in all {
            match of {
                Of::Address(address) => nic.addresses.push(*address),
                Of::Lan(lan) => nic.lans.push(lan.clone()),
                Of::Option(choice) => nic.options.push(choice.clone()),
            }
        }
        nic
    }

    /// The L3 networks of whose guests its hosts take care.
    pub(crate) fn lans(&self) -> impl Iterator<Item = Id<L3Network>> + '_ {
        self.lans.iter().map(|lan| lan.uuid)
    }

    /// Its addresses.
    pub(crate) fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(|address| address.ip)
    }

    /// Whether its hosts do this for it.
    pub(crate) fn has(&self, service: Service) -> bool {
        self.lans.iter().any(|lan| lan.services.contains(&service))
    }

    /// Its instance, if that may read something about itself.
    pub(crate) fn reader(&self) -> Option<Id<VmInstance>> {
        self.instance.filter(|_| self.has(Service::Metadata))
    }

    /// Its name with its domain, for its instance; whether that has another NIC for its default one.
    pub(crate) fn full_name(&self) -> Option<(bool, String)> {
        let lan = self.lans.first();
        let name = match (lan, &self.hostname) {
            (Some(lan), _) => self.name_in(lan)?,
            (None, Some(name)) => name.clone(),
            (None, None) => dashed(self.addresses.first()?.ip),
        };
        let domain = lan.and_then(|lan| lan.domain.as_ref()).filter(|_| !name.contains('.'));
        let name = domain.map_or(name.clone(), |domain| format!("{name}.{domain}"));
        Some((!self.is_default, name))
    }

    /// What decides its default route: its instance. One without has a key of its own.
    pub(crate) fn route_key(&self) -> RouteKey {
        match self.instance {
            Some(instance) => RouteKey::Instance(instance),
            None => RouteKey::Alone(self.uuid),
        }
    }

    /// The same NIC in an instance whose default route goes by `default`; by any of its networks
    /// if there is none.
    pub(crate) fn routed(self: &Arc<Self>, default: Option<Id<L3Network>>) -> Arc<Self> {
        let Some(default) = default else { return Arc::clone(self) };
        if self.addresses.iter().all(|address| address.l3 == default) {
            return Arc::clone(self);
        }
        let keep = |address: &Address| match address.l3 == default {
            true => *address,
            false => Address { gateway: None, ..*address },
        };
        let addresses: Vec<_> = self.addresses.iter().map(keep).collect();
        let is_default = addresses.iter().any(|address| address.l3 == default);
        Arc::new(Self { addresses, is_default, ..Self::clone(self) })
    }

    /// What its own host holds for it, but for what guards it; `goal` is the VTEP where it moves to.
    pub(crate) fn port(&self, goal: Option<IpAddr>) -> Port {
        let goes = self.moving(goal);
        let handover = goes.as_ref().and_then(|_| {
            let pending = self.pending.as_ref()?;
            handover(pending.number, pending.host, pending.ips?[1])
        });
        Port { goes, handover, ..self.still() }
    }

    /// What the host that it moves to holds for it, likewise; `vtep` is that of the host where it is.
    pub(crate) fn waiting(&self, vtep: Option<IpAddr>) -> Option<Port> {
        let pending = self.pending.as_ref()?;
        let (device, comes) = (pending.device.clone(), Some(self.moving(vtep)?));
        let handover = pending.ips.and_then(|ips| handover(pending.number, self.host, ips[0]));
        Some(Port { device, comes, handover, ..self.still() })
    }

    fn moving(&self, vtep: Option<IpAddr>) -> Option<Moving> {
        Some(Moving { number: self.pending.as_ref()?.number, vtep: vtep? })
    }

    fn still(&self) -> Port {
        let address = |&Address { ip, prefix_bits, gateway, l3 }| PortAddress {
            ip,
            prefix_bits,
            gateway,
            subnet: self.lans.iter().any(|lan| lan.uuid == l3).then(|| l3.uuid()),
            domain: 0,
        };
        Port {
            uuid: self.uuid.uuid(),
            number: self.number,
            network: self.network.uuid(),
            instance: self.instance.map(Id::uuid),
            device_id: self.device_id,
            mac: self.mac,
            addresses: self.addresses.iter().map(address).collect(),
            mtu_bytes: self.mtu_bytes,
            prefixes: self.prefixes(),
            device: self.device.clone(),
            goes: None,
            comes: None,
            handover: None,
            told: self.told(),
            policy: None,
            flow_log: None,
        }
    }

    /// What another host holds for it; `vtep` is that of the NIC's host, `goal` that where it moves to.
    pub(crate) fn peer(&self, vtep: IpAddr, goal: Option<IpAddr>) -> Object {
        Object::Peer(Peer {
            uuid: self.uuid.uuid(),
            network: self.network.uuid(),
            mac: self.mac,
            addresses: self.ips().collect(),
            vtep,
            prefixes: self.prefixes(),
            goes: self.moving(goal),
            known_as: self.known_as(),
        })
    }

    /// What its guest is told about it, besides addresses.
    fn told(&self) -> Option<Told> {
        let mut services: Vec<_> =
            self.lans.iter().flat_map(|lan| lan.services.iter().copied()).collect();
        services.sort_unstable();
        services.dedup();
        (!services.is_empty()).then(|| Told {
            services,
            hostname: self.lans.first().and_then(|lan| self.name_in(lan)),
            options: self.options.iter().filter_map(Choice::option).collect(),
            is_default: self.is_default,
            may_choose: self.lans.iter().any(|lan| lan.may_choose),
            addresses: self.lans.iter().find_map(|lan| lan.addresses),
        })
    }

    /// The name by which others of its L3 network may ask for it.
    fn known_as(&self) -> Option<KnownAs> {
        let lan = self.lans.iter().find(|lan| lan.services.contains(&Service::Dns))?;
        Some(KnownAs { hostname: self.name_in(lan)?, subnet: lan.uuid.uuid() })
    }

    /// Its name in an L3 network, without the domain there: what it was given, else its first address
    /// with dashes, as ZStack has it.
    fn name_in(&self, lan: &Brief) -> Option<String> {
        let Some(given) = &self.hostname else {
            return self.addresses.first().map(|address| dashed(address.ip));
        };
        let host = lan.domain.as_ref().and_then(|domain| without(given, domain));
        Some(host.unwrap_or(given).to_owned())
    }

    fn prefixes(&self) -> Vec<Prefix> {
        self.prefixes.iter().map(|&(ip, bits)| Prefix { ip, bits }).collect()
    }
}

impl Net {
    /// `None`: no ports are on it.
    pub(crate) fn of(l2: &L2Network) -> Option<Self> {
        let interface = || l2.physical_interface.clone().unwrap_or_default();
        let way = match l2.segment {
            Segment::NoVlan => Way::Uplink { interface: interface(), vlan: None },
            Segment::Vlan { vlan } => Way::Uplink { interface: interface(), vlan: Some(vlan) },
            Segment::Vxlan { vni, pool_uuid: pool } => Way::Tunnel { pool, vni, is_gre: false },
            Segment::Gre { vni, pool_uuid: pool } => Way::Tunnel { pool, vni, is_gre: true },
            Segment::VxlanPool | Segment::GrePool => return None,
        };
        Some(Self { uuid: l2.uuid, number: l2.number, way })
    }

    /// The pool in which a host needs a VTEP to have ports on it.
    pub(crate) const fn pool(&self) -> Option<Id<L2Network>> {
        match &self.way {
            Way::Tunnel { pool, .. } => Some(*pool),
            Way::Uplink { .. } => None,
        }
    }

    /// What a host holds for it, whose tunnels end there if it needs some.
    pub(crate) fn network(&self, ends: Option<&Ends>) -> Option<Object> {
        let attachment = match (&self.way, ends) {
            (Way::Tunnel { vni, is_gre, .. }, Some(Ends { local, port, foreign })) => {
                Attachment::Tunnel(Tunnel {
                    vni: *vni,
                    local_vtep: *local,
                    foreign: foreign.clone(),
                    is_gre: *is_gre,
                    // Unsaid where it is the one that every release knows.
                    port: Some(*port).filter(|port| !is_gre && *port != VXLAN_PORT),
                })
            }
            (Way::Tunnel { .. }, None) => return None,
            (Way::Uplink { interface, vlan }, _) => {
                Attachment::Uplink(Uplink { interface: interface.clone(), vlan: *vlan })
            }
        };
        let (uuid, number) = (self.uuid.uuid(), self.number);
        Some(Object::Network(Network { uuid, number, attachment }))
    }
}

/// The NIC that has an address.
pub(crate) fn address(used: &UsedIp) -> Option<(Id<VmNic>, Address)> {
    let (ip, prefix_bits, gateway) = (used.ip, used.prefix_len, Some(used.gateway));
    Some((used.used_by.id()?, Address { ip, prefix_bits, gateway, l3: used.l3_network_uuid }))
}

/// An address as a name: it neither begins nor ends with a dash.
fn dashed(ip: IpAddr) -> String {
    let name = ip.to_string().replace(['.', ':'], "-");
    let pad = |is_dash: bool| if is_dash { "0" } else { "" };
    [pad(name.starts_with('-')), &name, pad(name.ends_with('-'))].concat()
}

/// A name without its domain, if it has this one.
fn without<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let at = name.len().checked_sub(domain.len())?;
    let (host, end) = name.split_at_checked(at)?;
    let host = host.strip_suffix('.').filter(|host| !host.is_empty());
    host.filter(|_| end.eq_ignore_ascii_case(domain))
}

/// What DHCP tells a NIC beside what it tells all.
pub(crate) fn option(row: &DhcpOption) -> Option<(Id<VmNic>, Of)> {
    Some((row.resource.id()?, Of::Option(Choice::of(row))))
}

/// The L3 network of an instance's default route.
pub(crate) fn default_l3(instance: &VmInstance) -> Option<(RouteKey, Id<L3Network>)> {
    Some((RouteKey::Instance(instance.uuid), instance.default_l3_network_uuid?))
}

/// Where it is, and what tells it from others there.
pub(crate) fn vtep(vtep: &Vtep) -> (Site, (Id<Vtep>, Local)) {
    ((vtep.host_uuid, vtep.pool_uuid), (vtep.uuid, (vtep.vtep_ip, vtep.port)))
}

/// A tunnel end that is no host's: the cluster whose hosts reach it, the pool, and the address.
pub(crate) fn remote_vtep(remote: &RemoteVtep) -> (Id<Cluster>, (Id<L2Network>, IpAddr)) {
    (remote.cluster_uuid, (remote.pool_uuid, remote.vtep_ip))
}

/// What goes over between the agents of this host and of another one.
fn handover(number: u32, host: Id<Host>, address: IpAddr) -> Option<Handover> {
    (number != 0).then_some(Handover { number, host: host.uuid(), address })
}

/// What the hosts of an instance hold for it: that on which it is, and that which it moves to.
pub(crate) fn instances(row: &VmInstance) -> impl Iterator<Item = (Id<Host>, Object)> + use<> {
    let number = row.move_number;
    let ips: Option<[IpAddr; 2]> = row.move_ips.as_slice().try_into().ok();
    let away = row.host_uuid.zip(row.moves_to()).zip(ips);
    let goes = away.and_then(|((_, to), [_, ip])| handover(number, to, ip));
    let comes = away.and_then(|((from, _), [ip, _])| handover(number, from, ip));
    let here = row.host_uuid.map(|host| (host, instance(row, goes, None)));
    let there = row.moves_to().filter(|_| comes.is_some());
    here.into_iter().chain(there.map(|host| (host, instance(row, None, comes))))
}

fn instance(instance: &VmInstance, goes: Option<Handover>, comes: Option<Handover>) -> Object {
    let (driver, machine) = match instance.driver {
        InstanceDriver::Netns => (Driver::Netns, None),
        InstanceDriver::Qemu => (Driver::Qemu, Some(machine(instance))),
    };
    Object::Instance(Instance {
        uuid: instance.uuid.uuid(),
        name: instance.name.clone(),
        driver,
        generation: instance.generation,
        machine,
        goes,
        comes,
    })
}

/// The machine that an instance is.
fn machine(instance: &VmInstance) -> Machine {
    let memory_mib = instance.memory_size.unwrap_or_default().div_ceil(1 << 20);
    Machine {
        cpus: instance.cpu_num.unwrap_or(1),
        memory_mib: u32::try_from(memory_mib).unwrap_or(u32::MAX),
        image: instance.image_path.clone().unwrap_or_default(),
        format: match instance.image_format {
            Some(RootFormat::Qcow2) => ImageFormat::Qcow2,
            Some(RootFormat::Kernel) => ImageFormat::Kernel,
            Some(RootFormat::Raw) | None => ImageFormat::Raw,
        },
        is_paused: instance.is_paused,
    }
}
