//! What to do on the host: desired objects against what is there. Pure.
//!
//! The order for an instance: what must go goes first, device down before anything else; then its
//! devices, their programs, the port in the maps, and at last a device goes up. A program is never
//! taken off a device that netloom made: it goes with it. One that cannot be removed stays guarded, and without its
//! port in the maps the guard lets nothing pass.
//!
//! An instance that must go is cut off first, which takes a millisecond: its ports leave the maps
//! and its devices go down. That is what is acknowledged. To delete them keeps the kernel's network
//! lock for two grace periods of RCU each, and waits until nothing else is to be done.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use compute::{InstanceSpec, Journey, Machine, NicSpec};
use model::resource::vtep::VXLAN_PORT;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{ImageFormat, Instance, Object, ObjectKey, Port, PortAddress, Table},
    told::GuestAddresses,
};

use crate::{
    external,
    kernel::{Observed, ObservedNic, Plug},
};

/// What is wrong with the objects themselves, by uuid, and what can be worked with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The instances, with the ports that can be plugged in.
    pub instances: BTreeMap<Uuid, InstanceSpec>,
    /// The ports that are to be plugged into devices that something else makes.
    pub external: BTreeMap<Uuid, external::Wanted>,
    /// Objects that cannot be applied, with the reason.
    pub unusable: BTreeMap<Uuid, String>,
}

/// What must be there.
#[must_use]
pub fn wanted(desired: &Holding) -> Wanted {
    let mut wanted = Wanted::default();
    let mut ports = Vec::new();
    for object in of_table(desired, Table::Instance).chain(of_table(desired, Table::Port)) {
        match object {
            Object::Instance(instance) => {
                wanted.instances.insert(instance.uuid, spec(instance));
            }
            Object::Port(port) => ports.push(port),
            // The others concern the maps only.
            _ => {}
        }
    }
    ports.sort_by_key(|port| (port.device_id, port.uuid));
    for port in ports {
        if let Err(reason) = wanted.plug(port, desired) {
            wanted.unusable.insert(port.uuid, reason);
        }
    }
    wanted
}

impl Wanted {
    /// Plugs a port into its instance or device, or says why that cannot be.
    fn plug(&mut self, port: &Port, desired: &Holding) -> Result<(), String> {
        let instance = match port.instance {
            Some(uuid) => {
                let found = self.instances.get_mut(&uuid);
                Some(found.ok_or_else(|| lacking("instance", uuid))?)
            }
            None => None,
        };
        desired.network(port.network).ok_or_else(|| lacking("network", port.network))?;
        match (instance, &port.device) {
            (Some(instance), _) => instance.nics.push(nic(port, desired)),
            (None, Some(device)) => {
                let is_same = |other: &external::Wanted| other.device == *device;
                if let Some((other, _)) = self.external.iter().find(|(_, other)| is_same(other)) {
                    return Err(format!("NIC {} is plugged into {device}", other.simple()));
                }
                let (device, mtu_bytes) = (device.clone(), port.mtu_bytes);
                self.external.insert(port.uuid, external::Wanted { device, mtu_bytes });
            }
            // The codec lets none through.
            (None, None) => return Err("it is plugged into nothing".to_owned()),
        }
        Ok(())
    }
}

/// The VTEPs at which the tunnels of this host's networks are to end.
pub fn vteps(desired: &Holding) -> BTreeSet<IpAddr> {
    let networks = of_table(desired, Table::Network).filter_map(|object| match object {
        Object::Network(network) => network.tunnel(),
        _ => None,
    });
    networks.map(|tunnel| tunnel.local_vtep).collect()
}

/// The ports that need the host's tunnel device, each with the VTEP that its tunnels end at here.
pub fn tunneled(desired: &Holding) -> impl Iterator<Item = (Uuid, IpAddr)> {
    let vtep = |port: &Port| Some(desired.network(port.network)?.tunnel()?.local_vtep);
    of_table(desired, Table::Port).filter_map(move |object| match object {
        Object::Port(port) => Some((port.uuid, vtep(port)?)),
        _ => None,
    })
}

/// The UDP port of VXLAN here, if a network is in it. Networks that do not agree are on their way to another one.
pub fn vxlan_port(desired: &Holding) -> Option<u16> {
    let networks = of_table(desired, Table::Network).filter_map(|object| match object {
        Object::Network(network) => network.tunnel().filter(|tunnel| !tunnel.is_gre),
        _ => None,
    });
    let ports: BTreeSet<u16> = networks.map(|tunnel| tunnel.port.unwrap_or(VXLAN_PORT)).collect();
    ports.last().copied()
}

/// The ports in GRE, each with the VTEP that its tunnels end at here.
pub fn in_gre(desired: &Holding) -> impl Iterator<Item = (Uuid, IpAddr)> {
    let tunnel = |port: &Port| desired.network(port.network)?.tunnel();
    of_table(desired, Table::Port).filter_map(move |object| match object {
        Object::Port(port) => {
            let tunnel = tunnel(port).filter(|tunnel| tunnel.is_gre)?;
            Some((port.uuid, tunnel.local_vtep))
        }
        _ => None,
    })
}

/// The VTEPs at which tunnels in GRE end here.
pub fn gre_vteps(desired: &Holding) -> BTreeSet<IpAddr> {
    let networks = of_table(desired, Table::Network).filter_map(|object| match object {
        Object::Network(network) => network.tunnel().filter(|tunnel| tunnel.is_gre),
        _ => None,
    });
    networks.map(|tunnel| tunnel.local_vtep).collect()
}

/// The objects of a table. Those of the others are not looked at: they may be very many.
pub(crate) fn of_table(desired: &Holding, table: Table) -> impl Iterator<Item = &Object> {
    let [first, last] = [Uuid::nil(), Uuid::max()].map(|uuid| ObjectKey { table, uuid });
    desired.objects().range(first..=last).map(|(_, object)| &**object)
}

/// All ports.
pub(crate) fn ports(desired: &Holding) -> impl Iterator<Item = &Port> {
    of_table(desired, Table::Port).filter_map(|object| match object {
        Object::Port(port) => Some(port),
        _ => None,
    })
}

/// Why something is not in effect.
pub(crate) fn lacking(what: &str, uuid: Uuid) -> String {
    format!("its {what} {} is not on this host", uuid.simple())
}

/// An instance, as yet without NICs.
fn spec(instance: &Instance) -> InstanceSpec {
    let machine = instance.machine.as_ref().map(|machine| Machine {
        cpus: machine.cpus,
        memory_mib: machine.memory_mib,
        image: machine.image.clone(),
        format: match machine.format {
            ImageFormat::Raw => compute::ImageFormat::Raw,
            ImageFormat::Qcow2 => compute::ImageFormat::Qcow2,
            ImageFormat::Kernel => compute::ImageFormat::Kernel,
        },
    });
    InstanceSpec {
        uuid: instance.uuid,
        name: instance.name.clone(),
        generation: instance.generation,
        machine,
        is_paused: instance.machine.as_ref().is_some_and(|machine| machine.is_paused),
        journey: match (&instance.goes, &instance.comes) {
            (Some(_), _) => Journey::Goes,
            (None, Some(_)) => Journey::Comes,
            (None, None) => Journey::Stays,
        },
        nics: Vec::new(),
    }
}

/// What its guest learns by itself is not given to it: its addresses of L3 networks with DHCP.
fn nic(port: &Port, desired: &Holding) -> NicSpec {
    let guest = port.told.as_ref().map(|told| told.addresses.unwrap_or(GuestAddresses::Asked));
    let has_dhcp = |subnet| desired.subnet(subnet).is_some_and(|subnet| subnet.dhcp.is_some());
    let is_given = |address: &&PortAddress| match guest {
        None | Some(GuestAddresses::Injected) => true,
        Some(GuestAddresses::Asked | GuestAddresses::Left) => !address.subnet.is_some_and(has_dhcp),
    };
    let (given, own): (Vec<_>, Vec<_>) = port.addresses.iter().partition(is_given);
    let asks_for = match guest {
        Some(GuestAddresses::Asked) => own.iter().map(|address| address.ip).collect(),
        _ => Vec::new(),
    };
    let gateways: BTreeSet<_> = given.iter().filter_map(|address| address.gateway).collect();
    NicSpec {
        uuid: port.uuid,
        device: format!("eth{}", port.device_id),
        mac: port.mac,
        mtu_bytes: port.mtu_bytes,
        addresses: given.iter().map(|address| (address.ip, address.prefix_bits)).collect(),
        asks_for,
        gateways: gateways.into_iter().collect(),
    }
}

/// What has to be done about instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// By instance.
    pub instances: BTreeMap<Uuid, Step>,
    /// Instances that are cut off, to be removed when there is time, and their interfaces.
    pub remains: BTreeMap<Uuid, BTreeSet<u32>>,
    /// Guarded interfaces that no instance has, to be deleted. A guest can bring that about, by
    /// moving its end of the cable elsewhere.
    pub discard: BTreeSet<u32>,
}

/// What has to be done about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It must go, and these NICs are up.
    Cut(Vec<Uuid>),
    /// It is to be removed, with the interfaces of its NICs, after these NICs are down.
    Remove {
        /// NICs that are up.
        down: Vec<Uuid>,
        /// All its interfaces.
        interfaces: BTreeSet<u32>,
    },
    /// It is to be made or changed, and its NICs guarded, after these NICs are down: they must go,
    /// or somebody has taken their programs off.
    Prepare {
        /// NICs that are up.
        down: Vec<Uuid>,
        /// How it should be.
        spec: InstanceSpec,
    },
    /// These NICs are to go up, once the maps know them.
    Raise(Vec<Uuid>),
}

/// What has to be done about instances. `prepared` are those that were made like this already,
/// since the start of the agent; the driver leaves alone what is right in the others. `leaving` are
/// those that were cut off: one that is wanted again is made anew.
#[must_use]
pub fn steps(
    wanted: &Wanted,
    observed: &Observed,
    prepared: &BTreeMap<Uuid, InstanceSpec>,
    leaving: &BTreeSet<Uuid>,
) -> Steps {
    let mut steps = Steps::default();
    let mut known = &observed.spares | &observed.borrowed;
    for (instance, nics) in &observed.instances {
        let interfaces: BTreeSet<_> = nics.values().map(|nic| nic.ifindex).collect();
        known.extend(&interfaces);
        let up = nics.iter().filter(|(_, seen)| seen.up);
        let up: Vec<_> = up.map(|(nic, _)| *nic).collect();
        match (wanted.instances.contains_key(instance), leaving.contains(instance)) {
            (true, false) => {}
            (true, true) => {
                steps.instances.insert(*instance, Step::Remove { down: up, interfaces });
            }
            (false, _) if up.is_empty() => _ = steps.remains.insert(*instance, interfaces),
            (false, _) => _ = steps.instances.insert(*instance, Step::Cut(up)),
        }
    }
    steps.discard = observed.attached.difference(&known).copied().collect();
    let none = BTreeMap::new();
    for (uuid, spec) in wanted.instances.iter().filter(|(uuid, _)| !leaving.contains(uuid)) {
        let nics = observed.instances.get(uuid);
        let seen = nics.unwrap_or(&none);
        let stays = |nic: &Uuid| spec.nics.iter().any(|wanted| wanted.uuid == *nic);
        let guarded = |nic: &ObservedNic| observed.attached.contains(&nic.ifindex);
        let complete = nics.is_some()
            && seen.len() == spec.nics.len()
            && seen.iter().all(|(nic, seen)| stays(nic) && guarded(seen));
        if !complete || prepared.get(uuid) != Some(spec) {
            let down = seen.iter().filter(|(nic, seen)| seen.up && !(stays(nic) && guarded(seen)));
            let down = down.map(|(nic, _)| *nic).collect();
            steps.instances.insert(*uuid, Step::Prepare { down, spec: spec.clone() });
        } else if spec.journey != Journey::Comes && seen.values().any(|nic| !nic.up) {
            // Those of a machine that comes go up when it runs here.
            let down = seen.iter().filter(|(_, seen)| !seen.up);
            let nics = down.map(|(nic, _)| *nic).collect();
            steps.instances.insert(*uuid, Step::Raise(nics));
        }
    }
    steps
}

/// What the wanted ports are plugged into that are there and guarded.
#[must_use]
pub fn guarded(wanted: &Wanted, observed: &Observed) -> BTreeMap<Uuid, Plug> {
    let mut guarded = BTreeMap::new();
    for (instance, spec) in &wanted.instances {
        let Some(nics) = observed.instances.get(instance) else { continue };
        for nic in &spec.nics {
            if let Some(seen) = nics.get(&nic.uuid)
                && observed.attached.contains(&seen.ifindex)
            {
                guarded.insert(nic.uuid, seen.plug());
            }
        }
    }
    guarded
}

/// The instances that run and the ports that are up and guarded, of those that are wanted.
#[must_use]
pub fn up(wanted: &Wanted, observed: &Observed) -> BTreeSet<Uuid> {
    let mut up = BTreeSet::new();
    for (instance, spec) in &wanted.instances {
        let Some(nics) = observed.instances.get(instance) else { continue };
        up.insert(*instance);
        for nic in &spec.nics {
            if nics.get(&nic.uuid).is_some_and(|n| n.up && observed.attached.contains(&n.ifindex)) {
                up.insert(nic.uuid);
            }
        }
    }
    up
}

/// The instances that are there, are not wanted and have no NIC that is up.
pub fn cut(wanted: &Wanted, observed: &Observed) -> impl Iterator<Item = Uuid> {
    let instances = observed.instances.iter();
    let cut = instances.filter(|(uuid, nics)| is_cut(wanted, **uuid, nics));
    cut.map(|(uuid, _)| *uuid)
}

fn is_cut(wanted: &Wanted, instance: Uuid, nics: &BTreeMap<Uuid, ObservedNic>) -> bool {
    !wanted.instances.contains_key(&instance) && nics.values().all(|seen| !seen.up)
}

/// The instances and NICs that are there and are not wanted, and are not cut off.
pub fn surplus(wanted: &Wanted, observed: &Observed) -> impl Iterator<Item = Uuid> {
    let instances = observed.instances.iter();
    let instances = instances.filter(|(uuid, nics)| !is_cut(wanted, **uuid, nics));
    instances.flat_map(move |(instance, nics)| {
        let spec = wanted.instances.get(instance);
        let is_wanted =
            move |nic: &Uuid| spec.is_some_and(|s| s.nics.iter().any(|n| n.uuid == *nic));
        let gone = nics.keys().copied().filter(move |nic| !is_wanted(nic));
        gone.chain(spec.is_none().then_some(*instance))
    })
}

#[cfg(test)]
mod tests {
    use compute::FarEnd;

    use super::*;
    use crate::{
        kernel::ObservedNic,
        sample::{self, uuid},
    };

    const NOBODY: BTreeSet<Uuid> = BTreeSet::new();

    /// NICs of an instance: uuid, interface, whether it is up.
    type Nics<'a> = &'a [(u128, u32, bool)];

    fn observed(instances: &[(u128, Nics<'_>)], attached: &[u32]) -> Observed {
        let nic = |(nic, ifindex, up): &(u128, u32, bool)| {
            (uuid(*nic), ObservedNic { ifindex: *ifindex, up: *up, far_end: FarEnd::Elsewhere })
        };
        let instances = instances.iter();
        let instances = instances.map(|(at, nics)| (uuid(*at), nics.iter().map(nic).collect()));
        let attached = attached.iter().copied().collect();
        Observed { instances: instances.collect(), attached, ..Observed::default() }
    }

    /// What goes down before the instance of the sample is prepared.
    fn down(steps: &Steps) -> Vec<Uuid> {
        match &steps.instances[&uuid(sample::INSTANCE)] {
            Step::Prepare { down, .. } => down.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn prepared(wanted: &Wanted) -> BTreeMap<Uuid, InstanceSpec> {
        wanted.instances.clone()
    }

    #[test]
    fn nothing_is_to_be_done_when_all_is_right() {
        let wanted = wanted(&sample::two_networks());
        let nics: Nics<'_> = &[(sample::PORT_A, 7, true), (sample::PORT_B, 9, true)];
        let observed = observed(&[(sample::INSTANCE, nics)], &[7, 9]);
        assert_eq!(steps(&wanted, &observed, &prepared(&wanted), &NOBODY), Steps::default());
        let all = [sample::INSTANCE, sample::PORT_A, sample::PORT_B].map(uuid);
        assert_eq!(up(&wanted, &observed), all.into());
    }

    #[test]
    fn an_empty_host_prepares_everything() {
        let wanted = wanted(&sample::two_networks());
        let steps = steps(&wanted, &Observed::default(), &BTreeMap::new(), &NOBODY);
        let spec = wanted.instances[&uuid(sample::INSTANCE)].clone();
        let names: Vec<_> = spec.nics.iter().map(|nic| nic.device.as_str()).collect();
        assert_eq!(names, ["eth0", "eth1"]);
        let prepare = Step::Prepare { down: Vec::new(), spec };
        assert_eq!(steps.instances, [(uuid(sample::INSTANCE), prepare)].into());
        assert_eq!(steps.discard, BTreeSet::new());
    }

    #[test]
    fn a_restarted_agent_asks_the_driver_once_more() {
        let wanted = wanted(&sample::two_networks());
        let nics: Nics<'_> = &[(sample::PORT_A, 7, true), (sample::PORT_B, 9, true)];
        let observed = observed(&[(sample::INSTANCE, nics)], &[7, 9]);
        let steps = steps(&wanted, &observed, &BTreeMap::new(), &NOBODY);
        let spec = wanted.instances[&uuid(sample::INSTANCE)].clone();
        let prepare = Step::Prepare { down: Vec::new(), spec };
        assert_eq!(steps.instances, [(uuid(sample::INSTANCE), prepare)].into());
    }

    #[test]
    fn a_stray_instance_is_cut_off_at_once_and_removed_when_there_is_time() {
        let steps = |nics| {
            let observed = observed(&[(50, nics)], &[3, 4]);
            let steps = steps(&Wanted::default(), &observed, &BTreeMap::new(), &NOBODY);
            let surplus: Vec<_> = surplus(&Wanted::default(), &observed).collect();
            assert_eq!(steps.discard, BTreeSet::new(), "the driver removes them in its own order");
            (steps, surplus)
        };
        let (before, surplus) = steps(&[(51, 3, true), (52, 4, false)]);
        assert_eq!(before.instances, [(uuid(50), Step::Cut(vec![uuid(51)]))].into());
        assert_eq!((before.remains, surplus.len()), (BTreeMap::new(), 3));
        let (after, surplus) = steps(&[(51, 3, false), (52, 4, false)]);
        assert_eq!(after.remains, [(uuid(50), [3, 4].into())].into());
        assert_eq!((after.instances, surplus), (BTreeMap::new(), Vec::new()));
    }

    #[test]
    fn an_instance_that_is_wanted_again_is_removed_before_it_is_made() {
        let wanted = wanted(&sample::two_networks());
        let nics: Nics<'_> = &[(sample::PORT_A, 7, false), (sample::PORT_B, 9, false)];
        let observed = observed(&[(sample::INSTANCE, nics)], &[7, 9]);
        let leaving = [uuid(sample::INSTANCE)].into();
        let steps = steps(&wanted, &observed, &BTreeMap::new(), &leaving);
        let remove = Step::Remove { down: Vec::new(), interfaces: [7, 9].into() };
        assert_eq!(steps.instances, [(uuid(sample::INSTANCE), remove)].into());
    }

    #[test]
    fn what_is_kept_ready_is_no_stray() {
        let spares = [5].into();
        let observed = Observed { attached: [5, 6].into(), spares, ..Observed::default() };
        let steps = steps(&Wanted::default(), &observed, &BTreeMap::new(), &NOBODY);
        assert_eq!(steps.discard, [6].into());
    }

    #[test]
    fn a_surplus_nic_goes_down_and_the_driver_removes_it() {
        let wanted = wanted(&sample::two_networks());
        let nics: Nics<'_> = &[(sample::PORT_A, 7, true), (sample::PORT_B, 9, true), (77, 8, true)];
        let observed = observed(&[(sample::INSTANCE, nics)], &[7, 8, 9]);
        let steps = steps(&wanted, &observed, &prepared(&wanted), &NOBODY);
        assert_eq!(down(&steps), [uuid(77)]);
    }

    #[test]
    fn a_guarded_device_that_no_instance_has_is_deleted_and_its_nic_made_anew() {
        let wanted = wanted(&sample::two_networks());
        let nics: Nics<'_> = &[(sample::PORT_A, 7, true)];
        let observed = observed(&[(sample::INSTANCE, nics)], &[7, 12]);
        let steps = steps(&wanted, &observed, &prepared(&wanted), &NOBODY);
        assert_eq!(steps.discard, [12].into());
        assert!(down(&steps).is_empty(), "the driver makes it anew");
    }

    #[test]
    fn an_unguarded_port_is_neither_rendered_nor_up() {
        let wanted = wanted(&sample::two_networks());
        let nics: Nics<'_> = &[(sample::PORT_A, 7, true), (sample::PORT_B, 9, true)];
        let observed = observed(&[(sample::INSTANCE, nics)], &[9]);
        assert_eq!(
            guarded(&wanted, &observed),
            BTreeMap::from([(uuid(sample::PORT_B), sample::plug(9))])
        );
        assert!(!up(&wanted, &observed).contains(&uuid(sample::PORT_A)));
        let steps = steps(&wanted, &observed, &prepared(&wanted), &NOBODY);
        assert_eq!(down(&steps), [uuid(sample::PORT_A)], "it goes down before it is guarded anew");
    }

    #[test]
    fn a_port_that_is_guarded_and_down_goes_up() {
        let wanted = wanted(&sample::two_networks());
        let nics: Nics<'_> = &[(sample::PORT_A, 7, true), (sample::PORT_B, 9, false)];
        let observed = observed(&[(sample::INSTANCE, nics)], &[7, 9]);
        let steps = steps(&wanted, &observed, &prepared(&wanted), &NOBODY);
        let raise = Step::Raise(vec![uuid(sample::PORT_B)]);
        assert_eq!(steps.instances, [(uuid(sample::INSTANCE), raise)].into());
    }

    #[test]
    fn ports_without_their_network_are_told() {
        let mut desired = sample::two_networks();
        let keys: Vec<_> = desired.objects().keys().copied().collect();
        keys.iter()
            .filter(|key| key.uuid == uuid(sample::NETWORK_A))
            .for_each(|k| desired.remove(k));
        let reasons = wanted(&desired).unusable;
        let keys: Vec<_> = reasons.keys().copied().collect();
        assert_eq!(keys, [sample::PORT_A].map(uuid));
        assert!(reasons.values().all(|reason| reason.starts_with("its network")));
    }
}
