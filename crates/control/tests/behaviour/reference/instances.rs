//! Instances, their NICs and addresses; and deletion of whatever, with what goes along.

use std::collections::BTreeSet;

use model::Code::*;
use uuid::Uuid;

use super::{Call, Hold, NICS_MAX, Nic, Outcome, Start, View, Vm, Who, World, refuse_if};

/// An L3 network, and the address that is wanted of it.
type Asked = (Uuid, Option<u8>);

/// What may happen to an instance only in some of its states.
#[derive(Clone, Copy)]
enum Event {
    Start,
    Stop,
    Reboot,
    Revive,
    Plug,
}

impl World {
    pub(super) fn instances(&mut self, who: Who, call: &Call, seen: &View) -> Outcome {
        match *call {
            Call::CreateVm { id, ref l3s, host, start } => {
                self.create_vm(who, id, (l3s, host, start), seen)
            }
            Call::StartVm { id, host } => self.start_vm(id, host, seen),
            Call::StopVm { id } => self.takes(id, Event::Stop).map(|()| self.take_off(id)),
            Call::RebootVm { id } => self.takes(id, Event::Reboot),
            Call::DestroyVm { id } => {
                self.take_off(id);
                let nics: Vec<Uuid> = self.nics_of(id).collect();
                nics.into_iter().for_each(|nic| self.free_address(nic));
                self.vms.entry(id).and_modify(|vm| vm.destroyed = true);
                Ok(())
            }
            Call::RecoverVm { id } => self.recover_vm(who, id),
            Call::ExpungeVm { id } => {
                self.takes(id, Event::Revive)?;
                self.delete(id);
                Ok(())
            }
            Call::CreateNic { id, l3, ip } => {
                let nic = Nic { vm: None, l3, device: 0, ip: None, wanted: ip };
                self.make_nic(nic).and_then(|nic| {
                    self.own(who, id, None)?;
                    self.nics.insert(id, nic);
                    Ok(())
                })
            }
            Call::DeleteNic { id } => {
                refuse_if(self.nics[&id].vm.is_some(), InUse)?;
                self.delete(id);
                Ok(())
            }
            Call::PlugNic { vm, nic } => {
                self.takes(vm, Event::Plug)?;
                refuse_if(self.nics[&nic].vm.is_some(), OperationFailed)?;
                self.may_have(vm, self.nics[&nic].l3)?;
                let device = self.free_device(vm);
                let plug = |nic: &mut Nic| (nic.vm, nic.device) = (Some(vm), device);
                self.nics.entry(nic).and_modify(plug);
                Ok(())
            }
            Call::AttachL3 { vm, l3, ip } => self.attach_l3(vm, l3, ip, seen),
            Call::UnplugNic { nic } => {
                let vm = self.nics[&nic].vm.ok_or(OperationFailed)?;
                self.takes(vm, Event::Plug)?;
                self.delete(nic);
                Ok(())
            }
            Call::SetIp { vm, l3, ip } => self.set_ip(vm, l3, ip),
            _ => unreachable!("{call:?} is another's"),
        }
    }

    fn nics_of(&self, vm: Uuid) -> impl Iterator<Item = Uuid> {
        self.nics.iter().filter(move |(_, nic)| nic.vm == Some(vm)).map(|(id, _)| *id)
    }

    fn free_device(&self, vm: Uuid) -> u32 {
        let taken: BTreeSet<u32> = self.nics_of(vm).map(|nic| self.nics[&nic].device).collect();
        (0..).find(|at| !taken.contains(at)).unwrap()
    }

    pub(super) fn host_of(&self, nic: &Nic) -> Option<Uuid> {
        self.vms.get(&nic.vm?)?.host
    }

    /// The pool of a network; of a pool itself.
    pub(super) fn pool_of(&self, l2: Uuid) -> Uuid {
        self.l2s[&l2].of.map_or(l2, |(pool, _)| pool)
    }

    pub(super) fn is_held(&self, hold: Hold) -> bool {
        let has = match hold {
            Hold::Vni(_, pool, vni) => self.l2s.values().any(|l2| l2.of == Some((pool, vni))),
            Hold::End(..) => false,
            Hold::Ip(l2, ip) => {
                self.nics.values().any(|nic| self.l3s[&nic.l3].0 == l2 && nic.ip == Some(ip))
            }
            Hold::Place(host, vm) => self.vms.get(&vm).is_some_and(|vm| vm.host == Some(host)),
        };
        has || self.rests.contains(&hold)
    }

    /// Whether some host may still have an instance that is meant to be on none.
    fn is_kept(&self, id: Uuid) -> bool {
        self.vms[&id].last.is_some_and(|last| self.is_held(Hold::Place(last, id)))
    }

    pub(super) fn state(&self, id: Uuid) -> &'static str {
        let vm = &self.vms[&id];
        match (vm.destroyed, vm.host, self.is_kept(id)) {
            (true, _, true) => "Destroying",
            (true, _, false) => "Destroyed",
            (false, Some(host), _) if self.connected.contains(&host) => "Starting",
            (false, Some(_), _) => "Unknown",
            (false, None, _) if !vm.has_run => "Created",
            (false, None, true) => "Stopping",
            (false, None, false) => "Stopped",
        }
    }

    fn takes(&self, vm: Uuid, event: Event) -> Outcome {
        let states: &[&str] = match event {
            Event::Start => &["Created", "Stopping", "Stopped"],
            Event::Stop => &["Created", "Starting", "Unknown", "Stopping", "Stopped"],
            Event::Reboot => &["Starting"],
            Event::Revive => &["Destroying", "Destroyed"],
            Event::Plug => &["Created", "Starting", "Stopping", "Stopped"],
        };
        refuse_if(!states.contains(&self.state(vm)), OperationFailed)
    }

    /// Whether a host carries an L2 network.
    fn carries(&self, host: Uuid, l2: Uuid) -> bool {
        let (cluster, [net, _]) = self.hosts[&host];
        self.attached.contains(&(self.pool_of(l2), cluster)) && net == 0
    }

    /// The hosts that may get an instance with these networks: those with the fewest instances.
    fn fit(&self, zone: Uuid, l2s: &[Uuid], only: Option<Uuid>) -> Vec<Uuid> {
        let fits = |host: &&Uuid| {
            only.is_none_or(|only| only == **host)
                && self.clusters[&self.hosts[*host].0] == zone
                && self.connected.contains(*host)
                && l2s.iter().all(|l2| self.carries(**host, *l2))
        };
        let load = |host: &Uuid| self.vms.values().filter(|vm| vm.host == Some(*host)).count();
        let fit: Vec<Uuid> = self.hosts.keys().filter(fits).copied().collect();
        let least = fit.iter().map(load).min();
        fit.into_iter().filter(|host| self.is_late || Some(load(host)) == least).collect()
    }

    fn choose(&self, id: Uuid, fit: &[Uuid], seen: &View) -> Result<Uuid, model::Code> {
        let chosen = seen.hosts.get(&id).filter(|host| fit.contains(host));
        chosen.or(fit.first()).copied().ok_or(NoHost)
    }

    fn create_vm(
        &mut self,
        who: Who,
        id: Uuid,
        (l3s, host, start): (&[Asked], Option<Uuid>, Start),
        seen: &View,
    ) -> Outcome {
        let l2s: Vec<Uuid> = l3s.iter().map(|(l3, _)| self.l3s[l3].0).collect();
        let zone = self.l2s[&l2s[0]].zone;
        let different: BTreeSet<Uuid> = l3s.iter().map(|(l3, _)| *l3).collect();
        refuse_if(different.len() < l3s.len(), InvalidArgument)?;
        refuse_if(l2s.iter().any(|l2| self.l2s[l2].zone != zone), InvalidArgument)?;
        let host = match start {
            Start::Instant => Some(self.choose(id, &self.fit(zone, &l2s, host), seen)?),
            Start::JustCreate | Start::Stopped => None,
        };
        self.own(who, id, Some("vm.num"))?;
        let (cluster, has_run) = (host.map(|host| self.hosts[&host].0), start != Start::JustCreate);
        let vm = Vm { zone, cluster, host, last: host, has_run, destroyed: false };
        self.vms.insert(id, vm);
        for (device, (l3, wanted)) in (0..).zip(l3s) {
            let nic = Nic { vm: Some(id), l3: *l3, device, ip: None, wanted: *wanted };
            let nic = self.make_nic(nic)?;
            self.add_nic(id, nic, seen);
        }
        Ok(())
    }

    /// A NIC of an instance gets the id that the product has drawn, and the instance's owner.
    fn add_nic(&mut self, vm: Uuid, nic: Nic, seen: &View) {
        let id = seen.nics.get(&(vm, nic.device)).copied();
        let id = id.unwrap_or(Uuid::from_u128(u128::MAX - u128::from(nic.device)));
        self.owners.insert(id, self.owners[&vm]);
        self.nics.insert(id, nic);
    }

    /// A new NIC gets its address.
    fn make_nic(&self, nic: Nic) -> Result<Nic, model::Code> {
        refuse_if(!self.l3s[&nic.l3].1, OperationFailed)?;
        Ok(Nic { ip: Some(self.address(nic.l3, nic.wanted)?), ..nic })
    }

    /// The wanted address, or the lowest free one.
    fn address(&self, l3: Uuid, wanted: Option<u8>) -> Result<u8, model::Code> {
        let ranges = self.ranges.values().filter(|(of, _)| *of == l3);
        let mut all: Vec<u8> = ranges.flat_map(|(_, (low, high))| *low..=*high).collect();
        all.sort_unstable();
        refuse_if(wanted.is_some_and(|ip| !all.contains(&ip)), InvalidArgument)?;
        let l2 = self.l3s[&l3].0;
        let mut free = all.into_iter().filter(|ip| !self.is_held(Hold::Ip(l2, *ip)));
        free.find(|ip| wanted.is_none_or(|wanted| wanted == *ip)).ok_or(IpExhausted)
    }

    fn start_vm(&mut self, id: Uuid, host: Option<Uuid>, seen: &View) -> Outcome {
        self.takes(id, Event::Start)?;
        let Vm { zone, last, .. } = self.vms[&id];
        let l2s: Vec<Uuid> = self.nics_of(id).map(|nic| self.l3s[&self.nics[&nic].l3].0).collect();
        let last_fits = last.filter(|last| !self.fit(zone, &l2s, Some(*last)).is_empty());
        let host = match (host, last_fits) {
            (None, Some(last)) => last,
            (host, _) => self.choose(id, &self.fit(zone, &l2s, host), seen)?,
        };
        refuse_if(self.is_kept(id) && last != Some(host), InUse)?;
        self.rests.remove(&Hold::Place(host, id));
        let cluster = Some(self.hosts[&host].0);
        let (host, last, has_run) = (Some(host), Some(host), true);
        self.vms.insert(id, Vm { zone, cluster, host, last, has_run, destroyed: false });
        Ok(())
    }

    fn take_off(&mut self, id: Uuid) {
        let host = self.vms.get_mut(&id).unwrap().host.take();
        self.rests.extend(host.map(|host| Hold::Place(host, id)));
    }

    /// Its address rests, where people see it.
    fn free_address(&mut self, nic: Uuid) {
        let Some(ip) = self.nics.get_mut(&nic).unwrap().ip.take() else { return };
        let l3 = self.nics[&nic].l3;
        let l2 = self.l3s[&l3].0;
        self.rests.insert(Hold::Ip(l2, ip));
        self.shown.extend(self.range_with(l3, ip).map(|range| ((l2, ip), range)));
    }

    pub(super) fn range_with(&self, l3: Uuid, ip: u8) -> Option<Uuid> {
        let has = |of: &(Uuid, (u8, u8))| of.0 == l3 && of.1.0 <= ip && ip <= of.1.1;
        self.ranges.iter().find(|(_, range)| has(range)).map(|(id, _)| *id)
    }

    fn recover_vm(&mut self, who: Who, id: Uuid) -> Outcome {
        self.takes(id, Event::Revive)?;
        self.within(who, Some("vm.num"))?;
        let nics: Vec<Uuid> = self.nics_of(id).collect();
        for nic in nics {
            let Nic { l3, wanted, .. } = self.nics[&nic];
            let wanted = wanted.filter(|ip| self.range_with(l3, *ip).is_some());
            let ip = Some(self.address(l3, wanted)?);
            self.nics.entry(nic).and_modify(|nic| nic.ip = ip);
        }
        self.vms.entry(id).and_modify(|vm| (vm.destroyed, vm.has_run) = (false, true));
        Ok(())
    }

    /// Whether an instance can have a NIC in a network.
    fn may_have(&self, vm: Uuid, l3: Uuid) -> Outcome {
        let (l2, enabled) = self.l3s[&l3];
        let at = &self.vms[&vm];
        let mut nics = self.nics_of(vm);
        let is_there = nics.any(|nic| self.nics[&nic].l3 == l3);
        let is_empty = self.ranges.values().all(|(of, _)| *of != l3);
        let pool = self.pool_of(l2);
        let is_carried = match (at.host, at.cluster) {
            (Some(host), _) => self.carries(host, l2),
            (None, Some(cluster)) => self.attached.contains(&(pool, cluster)),
            (None, None) => self.attached.iter().any(|(l2, _)| *l2 == pool),
        };
        let is_full = self.nics_of(vm).count() >= NICS_MAX;
        let is_wrong = is_there || !enabled || is_empty || self.l2s[&l2].zone != at.zone;
        refuse_if(is_wrong || !is_carried || is_full, OperationFailed)
    }

    fn attach_l3(&mut self, vm: Uuid, l3: Uuid, wanted: Option<u8>, seen: &View) -> Outcome {
        self.takes(vm, Event::Plug)?;
        self.may_have(vm, l3)?;
        let nic = Nic { vm: Some(vm), l3, device: self.free_device(vm), ip: None, wanted };
        let nic = self.make_nic(nic).map_err(|code| match (code, wanted) {
            (IpExhausted, Some(_)) => OperationFailed,
            (code, _) => code,
        })?;
        self.add_nic(vm, nic, seen);
        Ok(())
    }

    fn set_ip(&mut self, vm: Uuid, l3: Uuid, ip: u8) -> Outcome {
        self.takes(vm, Event::Plug)?;
        let nic = self.nics_of(vm).find(|nic| self.nics[nic].l3 == l3).ok_or(InvalidArgument)?;
        if self.nics[&nic].ip != Some(ip) {
            self.free_address(nic);
            let given = self.address(l3, Some(ip));
            let taken = |code| if code == IpExhausted { OperationFailed } else { code };
            let given = Some(given.map_err(taken)?);
            self.nics.entry(nic).and_modify(|nic| nic.ip = given);
        }
        self.nics.entry(nic).and_modify(|nic| nic.wanted = Some(ip));
        Ok(())
    }
}
