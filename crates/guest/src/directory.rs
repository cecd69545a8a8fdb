//! What the desired objects say about guests, by what they ask for: the port that asks, names and
//! addresses of a network. Kept along with the objects, so no question looks through them.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use uuid::Uuid;
use wire::{
    object::{About, Instance, Object, ObjectKey, Port, Prefix, Subnet, Table},
    shared::Shared,
    told::Service,
};

/// All that guests of this host may ask about.
#[derive(Default)]
pub struct Directory {
    objects: HashMap<ObjectKey, Shared>,
    /// NICs here by their port's number.
    ports: HashMap<u32, Uuid>,
    /// The NICs here of an instance.
    nics: HashMap<Uuid, BTreeSet<Uuid>>,
    /// By L3 network.
    names: HashMap<Uuid, Names>,
}

/// The names of an L3 network.
#[derive(Default)]
struct Names {
    /// NICs by their name, in small letters: of two with one name both are told.
    by_name: HashMap<Box<str>, Vec<Uuid>>,
    by_address: HashMap<IpAddr, Vec<Uuid>>,
}

/// A NIC that has a name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) hostname: &'a str,
    /// Its addresses; of a NIC elsewhere those in other L3 networks are among them.
    addresses: Addresses<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Addresses<'a> {
    Here(&'a Port, Uuid),
    Elsewhere(&'a [IpAddr]),
}

impl Directory {
    /// Puts an object in the place of the one with its key, or takes that one out.
    pub fn set(&mut self, key: ObjectKey, object: Option<&Shared>) {
        if let Some(before) = self.objects.remove(&key) {
            self.leaves(&before);
        }
        if let Some(object) = object.filter(|object| is_asked_about(object)) {
            self.comes(object);
            self.objects.insert(key, object.clone());
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        let Self { objects, ports, nics, names } = self;
        objects.is_empty() && ports.is_empty() && nics.is_empty() && names.is_empty()
    }

    /// The port with this number.
    #[must_use]
    pub fn port(&self, number: u32) -> Option<&Port> {
        self.nic(*self.ports.get(&number)?)
    }

    fn nic(&self, uuid: Uuid) -> Option<&Port> {
        match self.get(Table::Port, uuid)? {
            Object::Port(port) => Some(port),
            _ => None,
        }
    }

    /// The port with this number, if netloom does this for it.
    pub(crate) fn served(&self, number: u32, service: Service) -> Option<&Port> {
        let told =
            |port: &&Port| port.told.as_ref().is_some_and(|told| told.services.contains(&service));
        self.port(number).filter(told)
    }

    /// The NICs of an instance, in the order of its devices.
    pub(crate) fn nics_of(&self, instance: Uuid) -> Vec<&Port> {
        let uuids = self.nics.get(&instance).into_iter().flatten();
        let mut nics: Vec<_> = uuids.filter_map(|uuid| self.nic(*uuid)).collect();
        nics.sort_by_key(|port| (port.device_id, port.number));
        nics
    }

    /// What an instance may read about itself.
    pub(crate) fn about(&self, instance: Uuid) -> Option<&About> {
        match self.get(Table::About, instance)? {
            Object::About(about) => Some(about),
            _ => None,
        }
    }

    /// An instance.
    pub(crate) fn instance(&self, uuid: Uuid) -> Option<&Instance> {
        match self.get(Table::Instance, uuid)? {
            Object::Instance(instance) => Some(instance),
            _ => None,
        }
    }

    /// An L3 network.
    pub(crate) fn subnet(&self, uuid: Uuid) -> Option<&Subnet> {
        match self.get(Table::Subnet, uuid)? {
            Object::Subnet(subnet) => Some(subnet),
            _ => None,
        }
    }

    /// The L3 network of a port whose resolver has this address.
    pub(crate) fn resolver_at(&self, port: &Port, asked: IpAddr) -> Option<&Subnet> {
        let subnets = port.addresses.iter().filter_map(|address| address.subnet);
        let mut subnets = subnets.filter_map(|uuid| self.subnet(uuid));
        subnets.find(|subnet| {
            subnet.resolver.as_ref().is_some_and(|own| own.addresses.contains(&asked))
        })
    }

    /// The addresses in an L3 network of the NICs with this name, which is in small letters; `None` if
    /// there is no such name.
    pub(crate) fn addresses_of(&self, subnet: &Subnet, name: &str) -> Option<BTreeSet<IpAddr>> {
        let uuids = self.names.get(&subnet.uuid)?.by_name.get(name)?;
        let named = uuids.iter().filter_map(|uuid| self.named(*uuid, subnet.uuid));
        Some(named.flat_map(|nic| nic.addresses_in(subnet)).collect())
    }

    /// The names in an L3 network of the NICs with this address, sorted.
    pub(crate) fn names_of(&self, subnet: &Subnet, ip: IpAddr) -> BTreeSet<&str> {
        let uuids = self.names.get(&subnet.uuid).and_then(|names| names.by_address.get(&ip));
        let uuids = uuids.into_iter().flatten();
        uuids.filter_map(|uuid| Some(self.named(*uuid, subnet.uuid)?.hostname)).collect()
    }

    fn named(&self, nic: Uuid, subnet: Uuid) -> Option<Named<'_>> {
        // While a NIC moves it may be both.
        let here = self.get(Table::Port, nic).and_then(|object| name_in(object, subnet));
        here.or_else(|| name_in(self.get(Table::Peer, nic)?, subnet))
    }

    fn get(&self, table: Table, uuid: Uuid) -> Option<&Object> {
        self.objects.get(&ObjectKey { table, uuid }).map(|object| &**object)
    }

    fn comes(&mut self, object: &Object) {
        if let Object::Port(port) = object {
            self.ports.insert(port.number, port.uuid);
            if let Some(instance) = port.instance {
                self.nics.entry(instance).or_default().insert(port.uuid);
            }
        }
        for (subnet, uuid, named) in all_names(object) {
            let names = self.names.entry(subnet).or_default();
            let name = named.hostname.to_ascii_lowercase().into();
            names.by_name.entry(name).or_default().push(uuid);
            for ip in named.all() {
                names.by_address.entry(ip).or_default().push(uuid);
            }
        }
    }

    fn leaves(&mut self, object: &Object) {
        if let Object::Port(port) = object {
            if self.ports.get(&port.number) == Some(&port.uuid) {
                self.ports.remove(&port.number);
            }
            if let Some(instance) = port.instance
                && let Some(nics) = self.nics.get_mut(&instance)
            {
                nics.remove(&port.uuid);
                if nics.is_empty() {
                    self.nics.remove(&instance);
                }
            }
        }
        for (subnet, uuid, named) in all_names(object) {
            let Some(names) = self.names.get_mut(&subnet) else { continue };
            let name: Box<str> = named.hostname.to_ascii_lowercase().into();
            take_one(&mut names.by_name, name, uuid);
            for ip in named.all() {
                take_one(&mut names.by_address, ip, uuid);
            }
            if names.by_name.is_empty() && names.by_address.is_empty() {
                self.names.remove(&subnet);
            }
        }
    }
}

/// Whether an answer is made of it: a host may hold very many that none is.
fn is_asked_about(object: &Object) -> bool {
    match object {
        Object::Network(_) => false,
        Object::Peer(peer) => peer.known_as.is_some(),
        Object::Instance(_) | Object::Port(_) | Object::Subnet(_) | Object::About(_) => true,
        Object::SecurityGroup(_) | Object::Member(_) | Object::Timeouts(_) => false,
    }
}

/// Takes one entry out: a NIC that is here and elsewhere has two.
fn take_one<K: Eq + std::hash::Hash>(index: &mut HashMap<K, Vec<Uuid>>, key: K, uuid: Uuid) {
    let Some(uuids) = index.get_mut(&key) else { return };
    if let Some(place) = uuids.iter().position(|found| *found == uuid) {
        uuids.swap_remove(place);
    }
    if uuids.is_empty() {
        index.remove(&key);
    }
}

/// The names that an object gives, each with the L3 network and the NIC.
fn all_names(object: &Object) -> Vec<(Uuid, Uuid, Named<'_>)> {
    match object {
        Object::Port(port) => {
            let subnets: BTreeSet<_> = port.addresses.iter().filter_map(|it| it.subnet).collect();
            let named = subnets
                .into_iter()
                .filter_map(|subnet| Some((subnet, port.uuid, name_in(object, subnet)?)));
            named.collect()
        }
        Object::Peer(peer) => {
            let named = peer.known_as.iter().filter_map(|known| {
                Some((known.subnet, peer.uuid, name_in(object, known.subnet)?))
            });
            named.collect()
        }
        _ => Vec::new(),
    }
}

fn name_in(object: &Object, subnet: Uuid) -> Option<Named<'_>> {
    match object {
        Object::Port(port) => {
            let hostname = port.told.as_ref()?.hostname.as_deref()?;
            Some(Named { hostname, addresses: Addresses::Here(port, subnet) })
        }
        Object::Peer(peer) => {
            let known = peer.known_as.as_ref().filter(|known| known.subnet == subnet)?;
            let addresses = Addresses::Elsewhere(&peer.addresses);
            Some(Named { hostname: &known.hostname, addresses })
        }
        _ => None,
    }
}

impl Named<'_> {
    fn all(&self) -> Vec<IpAddr> {
        match self.addresses {
            Addresses::Here(port, subnet) => {
                let own = port.addresses.iter().filter(|address| address.subnet == Some(subnet));
                own.map(|address| address.ip).collect()
            }
            Addresses::Elsewhere(addresses) => addresses.to_vec(),
        }
    }

    fn addresses_in(&self, subnet: &Subnet) -> Vec<IpAddr> {
        let mut all = self.all();
        if matches!(self.addresses, Addresses::Elsewhere(_)) {
            all.retain(|ip| is_of(subnet, *ip));
        }
        all
    }
}

/// Whether an address is in one of the L3 network's ranges.
pub(crate) fn is_of(subnet: &Subnet, ip: IpAddr) -> bool {
    subnet.ranges.iter().any(|range| contains(&range.prefix, ip))
}

/// Whether an address is in a prefix.
pub(crate) fn contains(prefix: &Prefix, ip: IpAddr) -> bool {
    let start = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let rest = 128_u32.saturating_sub(prefix.bits.into());
    prefix.ip.is_ipv4() == ip.is_ipv4()
        && (start(prefix.ip) ^ start(ip)).checked_shr(rest).unwrap_or_default() == 0
}
