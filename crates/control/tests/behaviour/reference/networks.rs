//! L2 and L3 networks, VNIs and ranges.

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
                if (low..=high).any(|vni| self.is_held(Hold::Vni(zone, vni))) {
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
            Call::Attach { l2, cluster } => {
                let of = &self.l2s[&l2];
                let is_wrong = of.zone != self.clusters[&cluster] || of.of.is_some();
                refuse_if(is_wrong, InvalidArgument)
                    .and_then(|()| refuse_if(!self.attached.insert((l2, cluster)), OperationFailed))
            }
            Call::Detach { l2, cluster } => {
                let carried = |nic: &&Nic| self.pool_of(self.l3s[&nic.l3].0) == l2;
                let on = |nic: &Nic| self.host_of(nic).map(|host| self.hosts[&host].0);
                let mut users = self.nics.values().filter(carried);
                let is_used = users.any(|nic| on(nic) == Some(cluster));
                refuse_if(!self.attached.contains(&(l2, cluster)), OperationFailed)
                    .and_then(|()| refuse_if(is_used, InUse))
                    .map(|()| {
                        self.attached.remove(&(l2, cluster));
                    })
            }
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

    fn create_vnis(&mut self, who: Who, id: Uuid, (pool, vnis): (Uuid, (u32, u32))) -> Outcome {
        let of = self.l2s[&pool].clone();
        let mut others = self.vnis.values().filter(|(pool, _)| self.l2s[pool].zone == of.zone);
        let meets = others.any(|(_, (low, high))| *low <= vnis.1 && vnis.0 <= *high);
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
        let is_free = |vni: &u32| !self.is_held(Hold::Vni(zone, *vni));
        let vni = match wanted {
            Some(vni) if !all.contains(&vni) => return Err(InvalidArgument),
            Some(vni) => vni,
            None => all.into_iter().find(is_free).ok_or(VniExhausted)?,
        };
        self.own(who, id, Some("vxlan.num"))?;
        refuse_if(self.is_held(Hold::Vni(zone, vni)), VniExhausted)?;
        self.l2s.insert(id, L2 { zone, of: Some((pool, vni)) });
        Ok(())
    }
}
