//! The guests of this host by the numbers of their ports, and what each is to be told: found at once for
//! each frame, and followed change by change.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use imbl::ordmap::DiffItem;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Object, ObjectKey, Port, PortAddress, Subnet, Table},
    shared::Shared,
    told::{AddressRange, Service, Told},
};

/// What is wanted, with the ports by number.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    desired: Arc<Holding>,
    ports: HashMap<u32, Uuid>,
    /// MACs of stations by network and IPv6 address: some of them are routers.
    macs: HashMap<(Uuid, Ipv6Addr), [u8; 6]>,
}

impl Guests {
    /// Follows what is wanted; the ports, by number, that may be told something else from now on.
    pub(crate) fn follow(&mut self, desired: &Arc<Holding>) -> BTreeSet<u32> {
        let before = std::mem::replace(&mut self.desired, Arc::clone(desired));
        let (mut numbers, mut subnets) = (BTreeSet::new(), BTreeSet::new());
        for item in before.objects().diff(desired.objects()) {
            let (old, new) = match &item {
                DiffItem::Add(_, new) => (None, Some(*new)),
                DiffItem::Remove(_, old) => (Some(*old), None),
                DiffItem::Update { old: (_, old), new: (_, new) } => (Some(*old), Some(*new)),
            };
            old.into_iter().for_each(|object| self.forget(object, &mut subnets));
            new.into_iter().for_each(|object| self.note(object, &mut numbers, &mut subnets));
        }
        if !subnets.is_empty() {
            let is_of =
                |address: &PortAddress| address.subnet.is_some_and(|s| subnets.contains(&s));
            let ports = self.ports.iter().filter(|(_, uuid)| {
                self.port(**uuid).is_some_and(|port| port.addresses.iter().any(is_of))
            });
            numbers.extend(ports.map(|(number, _)| *number));
        }
        numbers
    }

    fn forget(&mut self, object: &Shared, subnets: &mut BTreeSet<Uuid>) {
        match &**object {
            Object::Port(port) if self.ports.get(&port.number) == Some(&port.uuid) => {
                self.ports.remove(&port.number);
            }
            Object::Subnet(subnet) => _ = subnets.insert(subnet.uuid),
            _ => {}
        }
        for (key, mac) in stations(object) {
            if self.macs.get(&key) == Some(&mac) {
                self.macs.remove(&key);
            }
        }
    }

    fn note(&mut self, object: &Shared, numbers: &mut BTreeSet<u32>, subnets: &mut BTreeSet<Uuid>) {
        match &**object {
            Object::Port(port) => {
                self.ports.insert(port.number, port.uuid);
                numbers.insert(port.number);
            }
            Object::Subnet(subnet) => _ = subnets.insert(subnet.uuid),
            _ => {}
        }
        self.macs.extend(stations(object));
    }

    fn port(&self, uuid: Uuid) -> Option<&Port> {
        match self.desired.get(&ObjectKey { table: Table::Port, uuid }) {
            Some(Object::Port(port)) => Some(port),
            _ => None,
        }
    }

    /// The guest at the port with this number, if it is told anything.
    pub(crate) fn get(&self, number: u32) -> Option<Guest<'_>> {
        let port = self.port(*self.ports.get(&number)?)?;
        let told = port.told.as_ref()?;
        Some(Guest { port, told, all: self })
    }
}

/// The MAC of a station at each of its IPv6 addresses.
fn stations(object: &Shared) -> Vec<((Uuid, Ipv6Addr), [u8; 6])> {
    let (network, mac, addresses): (_, _, Vec<IpAddr>) = match &**object {
        Object::Port(port) => {
            (port.network, port.mac, port.addresses.iter().map(|a| a.ip).collect())
        }
        Object::Peer(peer) => (peer.network, peer.mac, peer.addresses.clone()),
        _ => return Vec::new(),
    };
    let v6 = |ip| if let IpAddr::V6(ip) = ip { Some(((network, ip), mac)) } else { None };
    addresses.into_iter().filter_map(v6).collect()
}

/// A guest, at one of its NICs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest<'a> {
    pub(crate) port: &'a Port,
    pub(crate) told: &'a Told,
    all: &'a Guests,
}

/// An address of a guest, with its L3 network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home<'a, A> {
    pub(crate) ip: A,
    pub(crate) address: &'a PortAddress,
    pub(crate) subnet: &'a Subnet,
}

impl<'a> Guest<'a> {
    /// Whether netloom does this for it.
    pub(crate) fn has(&self, service: Service) -> bool {
        self.told.services.contains(&service)
    }

    /// Its IPv4 addresses that are of L3 networks with services.
    pub(crate) fn homes_v4(&self) -> impl Iterator<Item = Home<'a, Ipv4Addr>> + use<'a> {
        self.homes().filter_map(|(address, subnet)| match address.ip {
            IpAddr::V4(ip) => Some(Home { ip, address, subnet }),
            IpAddr::V6(_) => None,
        })
    }

    /// The same of IPv6.
    pub(crate) fn homes_v6(&self) -> impl Iterator<Item = Home<'a, Ipv6Addr>> + use<'a> {
        self.homes().filter_map(|(address, subnet)| match address.ip {
            IpAddr::V6(ip) => Some(Home { ip, address, subnet }),
            IpAddr::V4(_) => None,
        })
    }

    fn homes(&self) -> impl Iterator<Item = (&'a PortAddress, &'a Subnet)> + use<'a> {
        let desired = &self.all.desired;
        let addresses = self.port.addresses.iter();
        addresses.filter_map(|address| Some((address, desired.subnet(address.subnet?)?)))
    }

    /// The MAC of the station of its network that has this address.
    pub(crate) fn mac_of(&self, ip: Ipv6Addr) -> Option<[u8; 6]> {
        self.all.macs.get(&(self.port.network, ip)).copied()
    }
}

impl<'a, A: Copy + Into<IpAddr>> Home<'a, A> {
    /// The range of its L3 network that the address is in.
    pub(crate) fn range(&self) -> Option<&'a AddressRange> {
        let ip = self.ip.into();
        self.subnet.ranges.iter().find(|range| contains(range, ip))
    }
}

fn contains(range: &AddressRange, ip: IpAddr) -> bool {
    let bits = u32::from(range.prefix.bits);
    match (range.prefix.ip, ip) {
        (IpAddr::V4(prefix), IpAddr::V4(ip)) => {
            let differs = prefix.to_bits() ^ ip.to_bits();
            differs.leading_zeros() >= bits
        }
        (IpAddr::V6(prefix), IpAddr::V6(ip)) => {
            (prefix.to_bits() ^ ip.to_bits()).leading_zeros() >= bits
        }
        _ => false,
    }
}
