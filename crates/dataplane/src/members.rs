//! Who gets what is flooded in a network: the map `flood`, which follows from the map of ports.
//!
//! The programs walk a network's ports from 0 on, to the first index that is free. A port that
//! comes gets the last index. The last port takes the index of one that goes, which may cost a
//! frame that is just being flooded a copy, or give it one too many. A port is taken out before it
//! is removed: what is flooded passes the port's egress hook, whoever has the interface by then.

use crate::error::Error;
use crate::pinned::Maps;
use crate::reconcile::Ports;
use packet::{FloodKey, Flooded, Port, PortKey};
use std::collections::BTreeMap;

/// The ports of each network, in the order of their indexes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Members(BTreeMap<u32, Vec<PortKey>>);

impl Members {
    /// What the map says.
    pub(crate) fn read(maps: &Maps) -> Result<Members, Error> {
        let mut members = Members::default();
        for (FloodKey { net, .. }, flooded) in maps.flood.read()? {
            members.0.entry(net).or_default().push(flooded.key);
        }
        Ok(members)
    }

    /// Makes the map say what follows from these ports, if it does not.
    pub(crate) fn mend(maps: &mut Maps, ports: &Ports) -> Result<Members, Error> {
        let held = maps.flood.read()?;
        let members = Members::read(maps)?;
        if held == members.entries(ports) && members.count() == ports.len() {
            return Ok(members);
        }
        let mut members = Members::default();
        for (key, port) in ports {
            members.0.entry(port.net).or_default().push(*key);
        }
        let wanted = members.entries(ports);
        for key in held.keys().filter(|key| !wanted.contains_key(key)) {
            maps.flood.remove(key)?;
        }
        for (key, flooded) in wanted.iter().filter(|(key, flooded)| held.get(key) != Some(flooded))
        {
            maps.flood.insert(key, flooded)?;
        }
        Ok(members)
    }

    /// A port comes, or has changed.
    pub(crate) fn join(&mut self, maps: &mut Maps, key: PortKey, port: &Port) -> Result<(), Error> {
        let of = self.0.entry(port.net).or_default();
        let index = of.iter().position(|member| *member == key).unwrap_or(of.len());
        maps.flood.insert(&at(port.net, index), &flooded(key, port))?;
        if index == of.len() {
            of.push(key);
        }
        Ok(())
    }

    /// A port is about to go.
    pub(crate) fn leave(
        &mut self,
        maps: &mut Maps,
        key: PortKey,
        (net, ports): (u32, &Ports),
    ) -> Result<(), Error> {
        let Some(of) = self.0.get_mut(&net) else { return Ok(()) };
        let Some(index) = of.iter().position(|member| *member == key) else { return Ok(()) };
        of.swap_remove(index);
        if let Some(moved) = of.get(index)
            && let Some(port) = ports.get(moved)
        {
            maps.flood.insert(&at(net, index), &flooded(*moved, port))?;
        }
        maps.flood.remove(&at(net, of.len()))?;
        if of.is_empty() {
            self.0.remove(&net);
        }
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// What the map has to say. A port that is not there leaves a gap.
    fn entries(&self, ports: &Ports) -> BTreeMap<FloodKey, Flooded> {
        let indexed = self.0.iter().flat_map(|(net, of)| {
            of.iter().enumerate().map(move |(index, key)| (at(*net, index), *key))
        });
        let present = indexed.filter_map(|(at, key)| {
            let port = ports.get(&key).filter(|port| port.net == at.net)?;
            Some((at, flooded(key, port)))
        });
        present.collect()
    }
}

fn at(net: u32, index: usize) -> FloodKey {
    // There are fewer ports than that.
    FloodKey { net, index: u32::try_from(index).unwrap_or(u32::MAX) }
}

fn flooded(key: PortKey, port: &Port) -> Flooded {
    Flooded { key, number: port.number, place: port.place() }
}
