//! L2 and L3 networks, VNIs and ranges.

use std::collections::BTreeSet;

use model::Code::*;
use uuid::Uuid;

use super::{Call, Hold, L2, Nic, Outcome, Who, World, refuse_if};

impl World {
    /// L2 and L3 networks, ranges.
    pub(super) fn networks(&mut self, who: Who, call: &Call) -> Option<Outcome> {
        Some(match *call {
            Call::CreatePool { id, zone } => self.own(who, id, Some("vxlan.num")).map(|()| {
                self.l2s.insert(id, L2 { zone, of: None });
            }),
            Call::CreateVnis { id, pool, vnis } => self.create_vnis(who, id, (pool, vnis)),
            Call::DeleteVnis { id } => {
                let (pool, (low, high)) = self.vnis[&id];
                let zone = self.l2s[&pool].zone;
                if (low..=high).any(|vni| self.is_held(Hold::Vni(zone, pool, vni))) {
                    return Some(Err(InUse));
                }
                self.delete(id);
                Ok(())
            }
            Call::CreateL2 { id, pool, vni } => self.create_l2(who, id, (pool, vni)),
            Call::DeleteL2 { id } => {
                self.delete(id);
                Ok(())
            }
            Call::Attach { l2, cluster } => self.attach(l2, cluster),
            Call::Detach { l2, cluster } => self.detach(l2, cluster),
            Call::CreateL3 { id, l2 } => refuse_if(self.l2s[&l2].of.is_none(), InvalidArgument)
                .and_then(|()| self.own(who, id, Some("l3.num")))
                .map(|()| {
                    self.l3s.insert(id, (l2, true));
                }),
            Call::DeleteL3 { id } => {
                self.delete(id);
                Ok(())
            }
            Call::SetL3State { id, enabled } => {
                self.l3s.entry(id).and_modify(|l3| l3.1 = enabled);
                Ok(())
            }
            Call::AddRange { id, l3, ips: (low, high) } => {
                let l2 = self.l3s[&l3].0;
                let mut others = self.ranges.values().filter(|(l3, _)| self.l3s[l3].0 == l2);
                let meets = others.any(|(_, (first, last))| *first <= high && low <= *last);
                let owner = self.owners[&l3];
                refuse_if(low > high || meets, InvalidArgument)
                    .and_then(|()| self.own(who, id, None))
                    .map(|()| {
                        self.owners.insert(id, owner);
                        self.ranges.insert(id, (l3, (low, high)));
                    })
            }
            Call::DeleteRange { id } => {
                self.delete(id);
                Ok(())
            }
            _ => return None,
        })
    }

    fn attach(&mut self, l2: Uuid, cluster: Uuid) -> Outcome {
        let of = &self.l2s[&l2];
        let is_wrong = of.zone != self.clusters[&cluster] || of.of.is_some();
        let there = self.pools_in(cluster);
        refuse_if(is_wrong, InvalidArgument)?;
        refuse_if(!self.attached.insert((l2, cluster)), OperationFailed)?;
        let mut hosts = self.hosts.values().filter(|(at, _)| *at == cluster);
        hosts.try_for_each(|(_, ip)| self.may_end(*ip, l2, &there))
    }

    fn detach(&mut self, l2: Uuid, cluster: Uuid) -> Outcome {
        let carried = |nic: &&Nic| self.pool_of(self.l3s[&nic.l3].0) == l2;
        let on = |nic: &Nic| self.host_of(nic).map(|host| self.hosts[&host].0);
        let mut users = self.nics.values().filter(carried);
        let is_used = users.any(|nic| on(nic) == Some(cluster));
        refuse_if(!self.attached.contains(&(l2, cluster)), OperationFailed)?;
        refuse_if(is_used, InUse)?;
        self.attached.remove(&(l2, cluster));
        let ends = self.hosts.values().filter(|(at, ip)| *at == cluster && ip[0] == 0);
        let mut of = self.l2s.values().filter_map(|it| it.of);
        if of.any(|(pool, _)| pool == l2) {
            self.rests.extend(ends.map(|(_, ip)| Hold::End(*ip, l2)));
        }
        Ok(())
    }

    fn create_vnis(&mut self, who: Who, id: Uuid, (pool, vnis): (Uuid, (u32, u32))) -> Outcome {
        let of = self.l2s[&pool].clone();
        let mut others = self.vnis.values().filter(|(_, it)| it.0 <= vnis.1 && vnis.0 <= it.1);
        let meets = others.any(|(other, _)| *other == pool || self.share_a_vtep(pool, *other));
        refuse_if(vnis.0 > vnis.1 || of.of.is_some() || meets, InvalidArgument)?;
        let owner = self.owners[&pool];
        self.own(who, id, None)?;
        self.owners.insert(id, owner);
        self.vnis.insert(id, (pool, vnis));
        Ok(())
    }

    fn create_l2(&mut self, who: Who, id: Uuid, (pool, wanted): (Uuid, Option<u32>)) -> Outcome {
        let L2 { zone, of } = self.l2s[&pool].clone();
        refuse_if(of.is_some(), InvalidArgument)?;
        let ranges = self.vnis.values().filter(|(of, _)| *of == pool);
        let mut all: Vec<u32> = ranges.flat_map(|(_, (low, high))| *low..=*high).collect();
        all.sort_unstable();
        let is_held = |vni: u32| {
            let rests = |it: &Hold| matches!(it, Hold::Vni(at, _, it) if *at == zone && *it == vni);
            self.is_held(Hold::Vni(zone, pool, vni)) || self.rests.iter().any(rests)
        };
        let vni = match wanted {
            Some(vni) if !all.contains(&vni) => return Err(InvalidArgument),
            Some(vni) => vni,
            None => all.into_iter().find(|vni| !is_held(*vni)).ok_or(VniExhausted)?,
        };
        let is_held = is_held(vni);
        self.own(who, id, Some("vxlan.num"))?;
        refuse_if(is_held, VniExhausted)?;
        self.l2s.insert(id, L2 { zone, of: Some((pool, vni)) });
        Ok(())
    }

    /// Whether a host's tunnels of both pools end at one address.
    fn share_a_vtep(&self, pool: Uuid, other: Uuid) -> bool {
        let ends = self.hosts.values().filter(|(_, ip)| ip[0] == 0);
        let mut clusters = ends.map(|(cluster, _)| *cluster);
        let has = |pool, cluster| self.attached.contains(&(pool, cluster));
        clusters.any(|cluster| has(pool, cluster) && has(other, cluster))
    }

    pub(super) fn pools_in(&self, cluster: Uuid) -> Vec<Uuid> {
        let attached = self.attached.iter().filter(|(_, at)| *at == cluster);
        attached.map(|(pool, _)| *pool).collect()
    }

    /// Whether a host's tunnels of a pool may end at an address, where those of others do.
    pub(super) fn may_end(&self, ip: [u8; 2], pool: Uuid, others: &[Uuid]) -> Outcome {
        let zone = self.l2s[&pool].zone;
        let own: Vec<_> = self.vnis.values().filter(|(of, _)| *of == pool).map(|it| it.1).collect();
        let has = |(low, high): (u32, u32)| own.iter().any(|it| it.0 <= high && low <= it.1);
        let rivals = self
            .vnis
            .values()
            .filter(|(of, vnis)| *of != pool && self.l2s[of].zone == zone && has(*vnis));
        let rivals: BTreeSet<Uuid> = rivals.map(|(of, _)| *of).collect();
        let is_gone = |rest: &Hold| match *rest {
            Hold::Vni(at, of, vni) => at == zone && !self.l2s.contains_key(&of) && has((vni, vni)),
            _ => false,
        };
        if ip[0] != 0 {
            return Ok(());
        }
        refuse_if(self.rests.iter().any(is_gone), InUse)?;
        refuse_if(others.iter().any(|other| rivals.contains(other)), InvalidArgument)?;
        let is_former = |rival: &Uuid| self.rests.contains(&Hold::End(ip, *rival));
        refuse_if(rivals.iter().any(is_former), InUse)
    }
}
