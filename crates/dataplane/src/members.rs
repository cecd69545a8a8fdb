//! Who gets what is flooded in a network: the maps `flood` and `afar`, which follow from the ports
//! and from the VTEPs.
//!
//! The programs walk a network's members from 0 on, to the first index that is free. A member that
//! comes gets the last index. The last one takes the index of one that goes, which may cost a
//! frame that is just being flooded a copy, or give it one too many. A port is taken out before it
//! is removed: what is flooded passes the port's egress hook, whoever has the interface by then.

use crate::error::Error;
use crate::pinned::{Maps, PinnedMap};
use aya::Pod;
use packet::{Afar, FloodKey, Flooded, Plain, Port, PortKey, Vtep, VtepKey};
use std::collections::BTreeMap;

/// The key of something that gets what is flooded.
pub(crate) trait Member: Copy + Ord {
    /// What the map says of it that the list follows from.
    type Of;
    /// What the list says of it.
    type Listed: Plain<Bytes: Pod> + PartialEq;

    /// The list.
    fn list(maps: &Maps) -> &PinnedMap<FloodKey, Self::Listed>;
    /// The list, to write.
    fn list_mut(maps: &mut Maps) -> &mut PinnedMap<FloodKey, Self::Listed>;
    /// Its network.
    fn net(of: &Self::Of) -> u32;
    /// Its entry in the list.
    fn listed(self, of: &Self::Of) -> Self::Listed;
    /// Whose entry it is.
    fn named(listed: &Self::Listed) -> Self;
}

impl Member for PortKey {
    type Of = Port;
    type Listed = Flooded;

    fn list(maps: &Maps) -> &PinnedMap<FloodKey, Flooded> {
        &maps.flood
    }

    fn list_mut(maps: &mut Maps) -> &mut PinnedMap<FloodKey, Flooded> {
        &mut maps.flood
    }

    fn net(of: &Port) -> u32 {
        of.net
    }

    fn listed(self, of: &Port) -> Flooded {
        Flooded { key: self, number: of.number, place: of.place() }
    }

    fn named(listed: &Flooded) -> PortKey {
        listed.key
    }
}

impl Member for VtepKey {
    type Of = Vtep;
    type Listed = Afar;

    fn list(maps: &Maps) -> &PinnedMap<FloodKey, Afar> {
        &maps.afar
    }

    fn list_mut(maps: &mut Maps) -> &mut PinnedMap<FloodKey, Afar> {
        &mut maps.afar
    }

    fn net(of: &Vtep) -> u32 {
        of.net
    }

    fn listed(self, of: &Vtep) -> Afar {
        Afar { vtep: self.addr, local: of.local, vni: self.vni, is_foreign: of.is_foreign }
    }

    fn named(listed: &Afar) -> VtepKey {
        VtepKey { vni: listed.vni, addr: listed.vtep }
    }
}

/// The members of each network, in the order of their indexes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Members<M>(BTreeMap<u32, Vec<M>>);

impl<M: Member> Members<M> {
    /// What the list says.
    pub(crate) fn read(maps: &Maps) -> Result<Self, Error> {
        let mut members = Self(BTreeMap::new());
        for (FloodKey { net, .. }, listed) in M::list(maps).read()? {
            members.0.entry(net).or_default().push(M::named(&listed));
        }
        Ok(members)
    }

    /// Makes the list say what follows from these, if it does not.
    pub(crate) fn mend(maps: &mut Maps, all: &BTreeMap<M, M::Of>) -> Result<Self, Error> {
        let held = M::list(maps).read()?;
        let members = Self::read(maps)?;
        if held == members.entries(all) && members.count() == all.len() {
            return Ok(members);
        }
        let mut members = Self(BTreeMap::new());
        for (key, of) in all {
            members.0.entry(M::net(of)).or_default().push(*key);
        }
        let wanted = members.entries(all);
        let list = M::list_mut(maps);
        for key in held.keys().filter(|key| !wanted.contains_key(key)) {
            list.remove(key)?;
        }
        for (key, listed) in wanted.iter().filter(|(key, listed)| held.get(key) != Some(listed)) {
            list.insert(key, listed)?;
        }
        Ok(members)
    }

    /// One comes, or has changed.
    pub(crate) fn join(&mut self, maps: &mut Maps, key: M, is: &M::Of) -> Result<(), Error> {
        let net = M::net(is);
        let of = self.0.entry(net).or_default();
        let index = of.iter().position(|member| *member == key).unwrap_or(of.len());
        M::list_mut(maps).insert(&at(net, index), &key.listed(is))?;
        if index == of.len() {
            of.push(key);
        }
        Ok(())
    }

    /// One is about to go.
    pub(crate) fn leave(
        &mut self,
        maps: &mut Maps,
        key: M,
        (net, all): (u32, &BTreeMap<M, M::Of>),
    ) -> Result<(), Error> {
        let Some(of) = self.0.get_mut(&net) else { return Ok(()) };
        let Some(index) = of.iter().position(|member| *member == key) else { return Ok(()) };
        of.swap_remove(index);
        if let Some(moved) = of.get(index)
            && let Some(is) = all.get(moved)
        {
            M::list_mut(maps).insert(&at(net, index), &moved.listed(is))?;
        }
        M::list_mut(maps).remove(&at(net, of.len()))?;
        if of.is_empty() {
            self.0.remove(&net);
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// What the list has to say. One that is not there leaves a gap.
    fn entries(&self, all: &BTreeMap<M, M::Of>) -> BTreeMap<FloodKey, M::Listed> {
        let indexed = self.0.iter().flat_map(|(net, of)| {
            of.iter().enumerate().map(move |(index, key)| (at(*net, index), *key))
        });
        let present = indexed.filter_map(|(at, key)| {
            let is = all.get(&key).filter(|is| M::net(is) == at.net)?;
            Some((at, key.listed(is)))
        });
        present.collect()
    }
}

fn at(net: u32, index: usize) -> FloodKey {
    // There are fewer members than that.
    FloodKey { net, index: u32::try_from(index).unwrap_or(u32::MAX) }
}
