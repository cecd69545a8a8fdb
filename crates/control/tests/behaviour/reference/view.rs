//! Deletion, with what goes along; and what there is, as callers see it.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::{Hold, View, World};

impl World {
    /// Everything that cannot be without what goes.
    fn goes_with(&self, id: Uuid) -> BTreeSet<Uuid> {
        let mut gone = BTreeSet::from([id]);
        loop {
            let is_gone = |id: &Uuid| gone.contains(id);
            let l2_goes = |l2: &super::L2| {
                is_gone(&l2.zone) || l2.of.as_ref().is_some_and(|(pool, _)| is_gone(pool))
            };
            let nic_goes = |nic: &super::Nic| {
                let range = nic.ip.and_then(|ip| self.range_with(nic.l3, ip));
                is_gone(&nic.l3)
                    || nic.vm.as_ref().is_some_and(is_gone)
                    || range.is_some_and(|it| is_gone(&it))
            };
            let clusters = self.clusters.iter().filter(|(_, zone)| is_gone(zone)).map(|it| it.0);
            let hosts = self.hosts.iter().filter(|(_, (at, _))| is_gone(at)).map(|it| it.0);
            let l2s = self.l2s.iter().filter(|(_, l2)| l2_goes(l2)).map(|it| it.0);
            let vnis = self.vnis.iter().filter(|(_, (pool, _))| is_gone(pool)).map(|it| it.0);
            let l3s = self.l3s.iter().filter(|(_, (l2, _))| is_gone(l2)).map(|it| it.0);
            let ranges = self.ranges.iter().filter(|(_, (l3, _))| is_gone(l3)).map(|it| it.0);
            let vms = self.vms.iter().filter(|(_, vm)| is_gone(&vm.zone)).map(|it| it.0);
            let nics = self.nics.iter().filter(|(_, nic)| nic_goes(nic)).map(|it| it.0);
            let places = clusters.chain(hosts).chain(l2s).chain(vnis);
            let more: Vec<Uuid> =
                places.chain(l3s).chain(ranges).chain(vms).chain(nics).copied().collect();
            let before = gone.len();
            gone.extend(more);
            if gone.len() == before {
                return gone;
            }
        }
    }

    /// Deletes something. What hosts act on rests.
    pub(super) fn delete(&mut self, id: Uuid) {
        let gone = self.goes_with(id);
        let is_gone = |id: &Uuid| gone.contains(id);
        for (_, l2) in self.l2s.iter().filter(|(id, _)| is_gone(id)) {
            self.rests.extend(l2.of.map(|(pool, vni)| Hold::Vni(l2.zone, pool, vni)));
        }
        for (_, nic) in self.nics.iter().filter(|(id, _)| is_gone(id)) {
            let Some(ip) = nic.ip else { continue };
            let l2 = self.l3s[&nic.l3].0;
            self.rests.insert(Hold::Ip(l2, ip));
            self.shown.extend(self.range_with(nic.l3, ip).map(|range| ((l2, ip), range)));
        }
        for (id, vm) in &mut self.vms {
            let host = vm.host.filter(|host| is_gone(host) || is_gone(id));
            self.rests.extend(host.map(|host| Hold::Place(host, *id)));
            vm.host = vm.host.filter(|_| host.is_none());
            vm.cluster = vm.cluster.filter(|cluster| !is_gone(cluster));
        }
        self.shown.retain(|(l2, _), range| !is_gone(l2) && !is_gone(range));
        self.attached.retain(|(l2, cluster)| !is_gone(l2) && !is_gone(cluster));
        self.zones.retain(|id| !is_gone(id));
        self.clusters.retain(|id, _| !is_gone(id));
        self.hosts.retain(|id, _| !is_gone(id));
        self.l2s.retain(|id, _| !is_gone(id));
        self.vnis.retain(|id, _| !is_gone(id));
        self.l3s.retain(|id, _| !is_gone(id));
        self.ranges.retain(|id, _| !is_gone(id));
        self.vms.retain(|id, _| !is_gone(id));
        self.nics.retain(|id, _| !is_gone(id));
        self.owners.retain(|id, _| !is_gone(id));
    }

    /// What callers see.
    pub(crate) fn view(&self) -> View {
        let mut view = View::default();
        view.quotas.extend(self.quotas.iter().map(|(name, value)| ((*name).to_owned(), *value)));
        let mut row = |id: &Uuid, text: String| {
            view.rows.insert(*id, (self.owners.get(id).copied(), text));
        };
        let in_pool = |host: &Uuid, pool: &Uuid| {
            let (cluster, [net, _]) = self.hosts[host];
            net == 0 && self.attached.contains(&(*pool, cluster))
        };
        self.zones.iter().for_each(|id| row(id, "zone".to_owned()));
        for (id, zone) in &self.clusters {
            let attached = self.attached.iter().filter(|(_, cluster)| cluster == id);
            let attached: BTreeSet<Uuid> = attached.map(|(l2, _)| *l2).collect();
            row(id, format!("cluster in {zone} with {attached:?}"));
        }
        for (id, (cluster, _)) in &self.hosts {
            let pools: BTreeSet<&Uuid> = self.l2s.keys().filter(|l2| in_pool(id, l2)).collect();
            row(id, format!("host in {cluster} with {pools:?}"));
        }
        self.l2s.iter().for_each(|(id, l2)| row(id, format!("l2 in {} {:?}", l2.zone, l2.of)));
        self.vnis.iter().for_each(|(id, vnis)| row(id, format!("vnis {vnis:?}")));
        self.l3s.iter().for_each(|(id, l3)| row(id, format!("l3 {l3:?}")));
        self.ranges.iter().for_each(|(id, range)| row(id, format!("range {range:?}")));
        for (id, vm) in &self.vms {
            row(id, format!("vm {} at {:?} of {:?}", self.state(*id), vm.host, vm.cluster));
            view.hosts.extend(vm.host.map(|host| (*id, host)));
        }
        for (id, nic) in &self.nics {
            let text = format!(
                "nic {:?} {:?} {:?} {:?}",
                (nic.vm, nic.l3),
                nic.device,
                self.host_of(nic),
                nic.wanted
            );
            view.rows.insert(*id, (self.owners.get(id).copied(), text));
            view.nics.extend(nic.vm.map(|vm| ((vm, nic.device), *id)));
            view.addresses.extend(nic.ip.map(|ip| ((self.l3s[&nic.l3].0, ip), Some(*id))));
        }
        view.addresses.extend(self.shown.keys().map(|at| (*at, None)));
        view
    }
}
