//! What varies in a router's packet filter: the elements of its sets and maps. The rules that ask them
//! are always the same ([`crate::rules`]), so a change is so many elements more and so many less,
//! however many there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use model::Mac;

use crate::{
    problems::{Problems, Service},
    state::{Desired, Eip, Forwarding, Nic, Role, SourceNat},
};

/// Forwarded ports that get an entry each, in a hash table. A longer range, or one that not everybody may
/// use, is one entry of a table of intervals, which costs a new connection a little more with each
/// thousand entries.
pub const PORTS_EACH: u16 = 64;

/// A field of a key, or a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A device's name, or a protocol's.
    Word(String),
    /// An address.
    Address(IpAddr),
    /// Addresses.
    Prefix(IpNet),
    /// A port.
    Port(u16),
    /// Ports, from the first to the last.
    Ports(u16, u16),
}

/// A type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A device's name.
    Device,
    /// An address of the family.
    Address,
    /// A protocol.
    Protocol,
    /// A port.
    Port,
}

/// A set or a map of one family, or of none.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Its name; with `4` or `6` after it in the kernel, if it is of a family.
    pub name: &'static str,
    /// The fields of its keys.
    pub key: &'static [Type],
    /// Its values, if it is a map.
    pub value: Option<Type>,
    /// Its keys are intervals.
    pub is_interval: bool,
    /// There is one of each family.
    pub is_of_family: bool,
}

const fn set(name: &'static str, key: &'static [Type]) -> Form {
    Form { name, key, value: None, is_interval: false, is_of_family: true }
}

const fn map(name: &'static str, key: &'static [Type], value: Type) -> Form {
    Form { value: Some(value), ..set(name, key) }
}

const fn devices(name: &'static str) -> Form {
    Form { is_of_family: false, ..set(name, &[Type::Device]) }
}

const fn intervals(form: Form) -> Form {
    Form { is_interval: true, ..form }
}

/// Destination, protocol and port of a packet; source, destination, protocol and port.
const SERVICE: &[Type] = &[Type::Address, Type::Protocol, Type::Port];
const SERVICE_FROM: &[Type] = &[Type::Address, Type::Address, Type::Protocol, Type::Port];

/// Devices of management NICs.
pub const MANAGEMENTS: Form = devices("managements");
/// Devices of public NICs.
pub const PUBLICS: Form = devices("publics");
/// Devices of guest NICs.
pub const GUESTS: Form = devices("guests");
/// Devices by which what is for a VIP may come.
pub const ENTRIES: Form = devices("entries");
/// The router's own addresses on public NICs, VIPs among them.
pub const OWN: Form = set("own", &[Type::Address]);
/// VIP of an EIP → guest.
pub const EIP_IN: Form = map("eip_in", &[Type::Address], Type::Address);
/// Guest with an EIP → VIP.
pub const EIP_OUT: Form = map("eip_out", &[Type::Address], Type::Address);
/// Forwarded port → guest, and → the guest's port.
pub const FORWARD: Form = map("forward", SERVICE, Type::Address);
/// See [`FORWARD`].
pub const FORWARD_PORT: Form = map("forward_port", SERVICE, Type::Port);
/// From whom, and forwarded ports → guest; and → the guest's port, where it is another one.
pub const RANGE: Form = intervals(map("range", SERVICE_FROM, Type::Address));
/// See [`RANGE`].
pub const RANGE_PORT: Form = intervals(map("range_port", SERVICE_FROM, Type::Port));
/// Device and guests → the public address that hides them.
pub const HIDE: Form = intervals(map("hide", &[Type::Device, Type::Address], Type::Address));
/// The keys of [`HIDE`].
pub const HIDDEN: Form = intervals(set("hidden", &[Type::Device, Type::Address]));
/// Guests that are hidden, and by which addresses some are.
pub const HIDDEN_GUESTS: Form = intervals(set("hidden_guests", &[Type::Address]));
/// See [`HIDDEN_GUESTS`].
pub const HIDDEN_BY: Form = set("hidden_by", &[Type::Address]);
/// VIP and guest: connections to the VIP that lead there.
pub const PAIRS: Form = set("pairs", &[Type::Address, Type::Address]);
/// Those of them whose source is replaced by the router's address.
pub const REPLACED: Form = set("replaced", &[Type::Address, Type::Address]);
/// Guest and VIP: connections of a guest that leave as its EIP.
pub const LEAVING: Form = set("leaving", &[Type::Address, Type::Address]);
/// Guests with an EIP.
pub const EIP_GUESTS: Form = set("eip_guests", &[Type::Address]);

/// All of them.
pub const FORMS: [Form; 19] = [
    MANAGEMENTS,
    PUBLICS,
    GUESTS,
    ENTRIES,
    OWN,
    EIP_IN,
    EIP_OUT,
    FORWARD,
    FORWARD_PORT,
    RANGE,
    RANGE_PORT,
    HIDE,
    HIDDEN,
    HIDDEN_GUESTS,
    HIDDEN_BY,
    PAIRS,
    REPLACED,
    LEAVING,
    EIP_GUESTS,
];

/// The name of a set in the kernel.
#[must_use]
pub fn name(form: &Form, is_ipv4: bool) -> String {
    match (form.is_of_family, is_ipv4) {
        (false, _) => form.name.to_owned(),
        (true, true) => format!("{}4", form.name),
        (true, false) => format!("{}6", form.name),
    }
}

/// The elements of one set: keys, each with its value if it is a map.
pub type Elements = BTreeMap<Vec<Part>, Option<Part>>;

/// The elements of all sets, by the set's name in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sets(pub BTreeMap<String, Elements>);

impl Sets {
    /// Puts an element in; `false` if its key is there already, with another value.
    fn put(&mut self, form: &Form, is_ipv4: bool, key: Vec<Part>, value: Option<Part>) -> bool {
        let elements = self.0.entry(name(form, is_ipv4)).or_default();
        let known = elements.entry(key).or_insert_with(|| value.clone());
        *known == value
    }

    fn has(&self, form: &Form, is_ipv4: bool, key: &[Part]) -> bool {
        self.0.get(&name(form, is_ipv4)).is_some_and(|elements| elements.contains_key(key))
    }
}

/// What a router's sets hold, given the names of the devices with its MACs. What cannot be is left out,
/// and said: one mistake costs no other entry.
#[must_use]
pub fn sets(desired: &Desired, devices: &BTreeMap<Mac, String>) -> (Sets, Problems) {
    let (mut sets, mut problems) = (Sets::default(), Problems::default());
    for nic in &desired.nics {
        match devices.get(&nic.mac) {
            Some(device) => put_nic(&mut sets, nic, device),
            None => problems.note(Service::Network, nic.mac, "no device has this MAC"),
        }
    }
    for hidden in &desired.source_nats {
        if let Err(why) = put_source_nat(&mut sets, hidden, devices) {
            problems.note(Service::Snat, hidden.guests, &why);
        }
    }
    for eip in &desired.eips {
        if let Err(why) = put_eip(&mut sets, eip) {
            problems.note(Service::Eip, eip.uuid.simple(), why);
        }
    }
    let mut taken = Taken::default();
    for forwarding in &desired.forwardings {
        if let Err(why) = put_forwarding(&mut sets, forwarding, &mut taken) {
            problems.note(Service::PortForwarding, forwarding.uuid.simple(), why);
        }
    }
    (sets, problems)
}

fn put_nic(sets: &mut Sets, nic: &Nic, device: &str) {
    let device = || vec![Part::Word(device.to_owned())];
    for (role, form) in
        [(Role::Management, MANAGEMENTS), (Role::Public, PUBLICS), (Role::Guest, GUESTS)]
    {
        if nic.roles.contains(&role) {
            sets.put(&form, true, device(), None);
        }
    }
    if nic.roles.contains(&Role::Public) || nic.roles.contains(&Role::Guest) {
        sets.put(&ENTRIES, true, device(), None);
    }
    if nic.roles.contains(&Role::Public) {
        let own = nic.addresses.iter().map(IpNet::addr).chain(nic.vips.iter().copied());
        for ip in own {
            sets.put(&OWN, ip.is_ipv4(), vec![Part::Address(ip)], None);
        }
    }
}

fn put_source_nat(
    sets: &mut Sets,
    nat: &SourceNat,
    devices: &BTreeMap<Mac, String>,
) -> Result<(), String> {
    let is_ipv4 = nat.to.is_ipv4();
    let guests = nat.guests.trunc();
    if guests.addr().is_ipv4() != is_ipv4 {
        return Err(format!("{guests} and {} are of different families", nat.to));
    }
    if !sets.has(&OWN, is_ipv4, &[Part::Address(nat.to)]) {
        return Err(format!("{} is on no public NIC", nat.to));
    }
    let Some(device) = devices.get(&nat.nic) else {
        return Err(format!("no device has the MAC {}", nat.nic));
    };
    let known = sets.0.get(&name(&HIDDEN_GUESTS, is_ipv4));
    let mut keys = known.into_iter().flat_map(|known| known.keys()).flatten();
    let overlaps = |part: &Part| match part {
        Part::Prefix(other) => other.contains(&guests) || guests.contains(other),
        _ => false,
    };
    if keys.any(overlaps) {
        return Err(format!("{guests} overlaps with other guests"));
    }
    let key = || vec![Part::Word(device.clone()), Part::Prefix(guests)];
    sets.put(&HIDE, is_ipv4, key(), Some(Part::Address(nat.to)));
    sets.put(&HIDDEN, is_ipv4, key(), None);
    sets.put(&HIDDEN_GUESTS, is_ipv4, vec![Part::Prefix(guests)], None);
    sets.put(&HIDDEN_BY, is_ipv4, vec![Part::Address(nat.to)], None);
    Ok(())
}

fn put_eip(sets: &mut Sets, eip: &Eip) -> Result<(), &'static str> {
    let (vip, guest) = (Part::Address(eip.vip), Part::Address(eip.guest));
    let is_ipv4 = check_vip(sets, (eip.vip, eip.guest))?;
    if sets.has(&EIP_OUT, is_ipv4, std::slice::from_ref(&guest)) {
        return Err("its guest has another EIP");
    }
    if !sets.put(&EIP_IN, is_ipv4, vec![vip.clone()], Some(guest.clone())) {
        return Err("its VIP is another EIP's");
    }
    sets.put(&EIP_OUT, is_ipv4, vec![guest.clone()], Some(vip.clone()));
    sets.put(&LEAVING, is_ipv4, vec![guest.clone(), vip.clone()], None);
    sets.put(&EIP_GUESTS, is_ipv4, vec![guest], None);
    put_pair(sets, (eip.vip, eip.guest), eip.hides_source);
    Ok(())
}

/// Ports of VIPs that are forwarded already: for each VIP and protocol the last port by the first one.
#[derive(Default)]
struct Taken(BTreeMap<(IpAddr, &'static str), BTreeMap<u16, u16>>);

impl Taken {
    /// Takes ports, unless one of them is taken.
    fn take(&mut self, forwarding: &Forwarding) -> bool {
        let Forwarding { vip, protocol, first, last, .. } = forwarding;
        let spans = self.0.entry((*vip, protocol.as_str())).or_default();
        let before = spans.range(..=*last).next_back();
        if before.is_some_and(|(_, end)| end >= first) {
            return false;
        }
        spans.insert(*first, *last);
        true
    }
}

fn put_forwarding(
    sets: &mut Sets,
    forwarding: &Forwarding,
    taken: &mut Taken,
) -> Result<(), &'static str> {
    let Forwarding { vip, guest, first, last, guest_first, .. } = forwarding;
    let is_ipv4 = check_vip(sets, (*vip, *guest))?;
    if first > last || last - first > u16::MAX - guest_first || *first == 0 || *guest_first == 0 {
        return Err("its ports are no ranges of one size");
    }
    if forwarding.allowed.is_some_and(|allowed| allowed.addr().is_ipv4() != is_ipv4) {
        return Err("its VIP and who may use it are of different families");
    }
    if sets.has(&EIP_IN, is_ipv4, &[Part::Address(*vip)]) {
        return Err("its VIP is an EIP's");
    }
    if !taken.take(forwarding) {
        return Err("some of its ports are forwarded already");
    }
    let to = || Some(Part::Address(*guest));
    let protocol = || Part::Word(forwarding.protocol.as_str().to_owned());
    let service = |ports| vec![Part::Address(*vip), protocol(), ports];
    // Both ends have so many ports: see above.
    let ports = || (*first..=*last).zip(*guest_first..);
    if forwarding.allowed.is_none() && last - first < PORTS_EACH {
        for (port, guest_port) in ports() {
            sets.put(&FORWARD, is_ipv4, service(Part::Port(port)), to());
            let guest_port = Some(Part::Port(guest_port));
            sets.put(&FORWARD_PORT, is_ipv4, service(Part::Port(port)), guest_port);
        }
    } else {
        let anywhere = if is_ipv4 { EVERYWHERE4 } else { EVERYWHERE6 };
        let allowed = forwarding.allowed.unwrap_or(anywhere).trunc();
        let from = |ports| [vec![Part::Prefix(allowed)], service(ports)].concat();
        sets.put(&RANGE, is_ipv4, from(Part::Ports(*first, *last)), to());
        for (port, guest_port) in ports().filter(|(port, guest)| port != guest) {
            let guest_port = Some(Part::Port(guest_port));
            sets.put(&RANGE_PORT, is_ipv4, from(Part::Port(port)), guest_port);
        }
    }
    put_pair(sets, (*vip, *guest), forwarding.hides_source);
    Ok(())
}

const EVERYWHERE4: IpNet =
    IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0));
const EVERYWHERE6: IpNet =
    IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 0));

/// Whether a VIP may stand for a guest; the family.
fn check_vip(sets: &Sets, (vip, guest): (IpAddr, IpAddr)) -> Result<bool, &'static str> {
    let is_ipv4 = vip.is_ipv4();
    if guest.is_ipv4() != is_ipv4 {
        return Err("its VIP and its guest are of different families");
    }
    if !sets.has(&OWN, is_ipv4, &[Part::Address(vip)]) {
        return Err("its VIP is on no public NIC");
    }
    Ok(is_ipv4)
}

fn put_pair(sets: &mut Sets, (vip, guest): (IpAddr, IpAddr), hides_source: bool) {
    let key = || vec![Part::Address(vip), Part::Address(guest)];
    sets.put(&PAIRS, vip.is_ipv4(), key(), None);
    if hides_source {
        sets.put(&REPLACED, vip.is_ipv4(), key(), None);
    }
}

/// What is to be put in and what to be taken out, set by set, to make one content the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Elements that go; with those whose value changes.
    pub gone: BTreeMap<String, BTreeSet<Vec<Part>>>,
    /// Elements that come.
    pub new: BTreeMap<String, Elements>,
}

impl Change {
    /// From one content to another.
    #[must_use]
    pub fn between(before: &Sets, after: &Sets) -> Change {
        let (empty, mut change) = (Elements::new(), Change::default());
        let names: BTreeSet<&String> = before.0.keys().chain(after.0.keys()).collect();
        for name in names {
            let old = before.0.get(name).unwrap_or(&empty);
            let new = after.0.get(name).unwrap_or(&empty);
            let gone = old.iter().filter(|(key, value)| new.get(*key) != Some(*value));
            let gone: BTreeSet<_> = gone.map(|(key, _)| key.clone()).collect();
            let come = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
            let come: Elements = come.map(|(key, value)| (key.clone(), value.clone())).collect();
            if !gone.is_empty() {
                change.gone.insert(name.clone(), gone);
            }
            if !come.is_empty() {
                change.new.insert(name.clone(), come);
            }
        }
        change
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.new.is_empty()
    }
}
