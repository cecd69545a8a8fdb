//! Which area of the map `learned` each network with foreign VTEPs has. What another network has
//! left in an area is of that network, and counts as free.

use crate::error::Error;
use crate::pinned::Maps;
use crate::tables::Edits;
use packet::{LEARNED_PER_NET, LEARNING_NETS, Learned, Net};
use std::collections::BTreeMap;

/// The areas that networks have, by the networks' numbers.
#[derive(Debug, Default)]
pub(crate) struct Areas(BTreeMap<u32, u16>);

impl Areas {
    /// What the map of networks says.
    pub(crate) fn of(nets: &BTreeMap<u32, Net>) -> Areas {
        let have = nets.iter().filter(|(_, net)| net.area != 0);
        Areas(have.map(|(number, net)| (*number, net.area)).collect())
    }

    /// Gives the networks to write that need an area the one that they have already, or a free one.
    /// If none is free, the network learns nothing.
    pub(crate) fn give(&mut self, edits: &mut Edits) {
        for (number, wanted) in &mut edits.nets {
            match wanted {
                Some(net) if net.flags & Net::FOREIGN != 0 => {
                    let area = self.0.get(number).copied().or_else(|| self.free());
                    if let Some(area) = area {
                        self.0.insert(*number, area);
                        *net = net.learning_in(area);
                    }
                }
                _ => {
                    self.0.remove(number);
                }
            }
        }
    }

    fn free(&self) -> Option<u16> {
        (1..=LEARNING_NETS).find(|area| !self.0.values().any(|taken| taken == area))
    }
}

/// What networks have learned.
pub(crate) fn learned(maps: &Maps) -> Result<Vec<Learned>, Error> {
    let mut found = Vec::new();
    for (number, net) in maps.nets.read()? {
        let Some(area) = net.area.checked_sub(1).filter(|area| *area < LEARNING_NETS) else {
            continue;
        };
        let first = u32::from(area) * LEARNED_PER_NET;
        for slot in first..first + LEARNED_PER_NET {
            let learned = maps.learned.get(slot)?;
            found.extend((learned.net == number).then_some(learned));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::Tables;

    #[test]
    fn each_network_with_foreign_vteps_has_an_area_of_its_own_while_there_are_any() {
        let mut areas = Areas::default();
        let write = |areas: &mut Areas, nets: &[(u32, Net)]| {
            let desired = Tables { nets: nets.iter().copied().collect(), ..Tables::default() };
            let mut edits = Tables::default().edits_to(&desired);
            areas.give(&mut edits);
            edits.nets.into_values().map(|net| net.unwrap().area).collect::<Vec<_>>()
        };
        let open = Net::open().with_foreign_vteps();
        assert_eq!(write(&mut areas, &[(5, open), (6, Net::closed()), (7, open)]), [1, 0, 2]);
        assert_eq!(
            write(&mut areas, &[(5, Net::closed()), (8, open)]),
            [0, 1],
            "5 gave its own up"
        );
        assert_eq!(write(&mut areas, &[(7, open)]), [2], "it keeps it");
        let many: Vec<_> = (100..200).map(|number| (number, open)).collect();
        let given = write(&mut areas, &many);
        assert_eq!(given.iter().filter(|area| **area != 0).count(), usize::from(LEARNING_NETS) - 2);
        let nets = BTreeMap::from([(7, open.learning_in(2)), (6, Net::closed())]);
        assert_eq!(write(&mut Areas::of(&nets), &[(8, open)]), [1], "as the map says");
    }
}
