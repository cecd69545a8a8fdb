//! The policies of the ports: what each asks for, what it has, and what of it is in its entry.
//!
//! What ports ask for is counted apart from what they have. A port whose policy does not fit, or
//! whose groups are not all known, has the rule set that drops everything: it is closed, and never
//! half filtered.

mod sets;

use std::collections::{BTreeMap, BTreeSet};

use dataplane::Tables;
use policy::{Salt, Unfit};
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Member, Object, ObjectKey, Port, Table},
    policy::{Action, Way},
};

use super::most;
use crate::kernel::Room;
pub(super) use sets::Maps;
use sets::{Sets, Spec, group, remove_from, sorted};

/// Entries that are kept for the rule set of closed ports.
pub(super) const CLOSED_CHAPTERS: u32 = 2;
/// The same of nodes.
pub(super) const CLOSED_RANGES: u32 = 1;

/// What of a policy is in the entry of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stance {
    /// Number of the rule set for what is opened towards the port; 0: none.
    pub(crate) ingress: u64,
    /// The same for what the port opens.
    pub(crate) egress: u64,
    /// What there is in them: [`packet::Port::rules`].
    pub(crate) rules: u32,
}

impl Stance {
    /// Its generation: another one decides anew about everything.
    pub(crate) const fn generation(self) -> u32 {
        if self.ingress == 0 && self.egress == 0 {
            return 0;
        }
        let both = self.ingress ^ self.egress.rotate_left(17);
        let generation = ((both ^ both >> 32) & 0xffff_ffff) as u32;
        // 0 is that of ports without a policy.
        if generation == 0 { 1 } else { generation }
    }
}

/// A port that has a policy.
#[derive(Debug)]
struct Filtered {
    /// The groups that it is in.
    groups: Vec<Uuid>,
    specs: [Spec; 2],
    /// The rule sets that it asks for.
    asked: [u64; 2],
    /// Those that it has: these, or the closed one twice.
    has: Option<[u64; 2]>,
    stance: Stance,
    /// Why it is closed, if it is so because of itself.
    closed: Option<String>,
}

/// What ports ask for, what they have, and what the maps must hold for that.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    sets: Sets,
    ports: BTreeMap<Uuid, Filtered>,
    /// Ports by the groups that they are in, known or not.
    in_group: BTreeMap<Uuid, BTreeSet<Uuid>>,
    /// Bits that the entry of every port has.
    tells: u32,
}

impl Policies {
    pub(super) fn new(salt: Salt) -> Self {
        Self { sets: Sets::new(salt), ..Self::default() }
    }

    /// Policies of nobody, which know what was compiled, and what still has the same number.
    pub(super) fn emptied(&mut self, before: &Holding, desired: &Holding) -> Self {
        let (sets, tells) = (self.sets.emptied(before, desired), self.tells);
        Self { sets, tells, ..Self::default() }
    }

    /// Forgets what nobody asks for.
    pub(super) fn prune(&mut self) {
        self.sets.prune();
    }

    /// A NIC is a member. No rule set is there yet that would have to be told of it.
    pub(super) fn add_member(&mut self, member: &Member, maps: &mut Maps<'_>) {
        let _ = self.sets.come(member, maps);
    }

    /// What of its policy is in the entry of a port.
    pub(crate) fn stance(&self, port: Uuid) -> Stance {
        let stance = self.ports.get(&port).map(|port| port.stance).unwrap_or_default();
        Stance { rules: stance.rules | self.tells, ..stance }
    }

    /// Whether all ports tell of their connections.
    pub(super) fn telling(&mut self, is_telling: bool) {
        let all = packet::Port::TELLS_DENIED | packet::Port::TELLS_OPENED;
        self.tells = if is_telling { all } else { 0 };
    }

    /// The identity of whoever is in these groups; `None` if those are none.
    pub(crate) fn identity(&self, groups: &[u32]) -> Option<u64> {
        let groups = sorted(groups);
        (!groups.is_empty()).then(|| policy::identity(self.sets.salt, &groups))
    }

    /// Ports that are closed because of what they ask for, and why.
    pub(super) fn closed(&self) -> impl Iterator<Item = (Uuid, &str)> {
        self.ports.iter().filter_map(|(uuid, port)| Some((*uuid, port.closed.as_deref()?)))
    }

    /// Whether a port is closed because of what it asks for.
    pub(super) fn is_closed(&self, port: Uuid) -> bool {
        self.ports.get(&port).is_some_and(|port| port.closed.is_some())
    }

    /// The ports that are in a group.
    pub(super) fn ports_in(&self, group: Uuid) -> impl Iterator<Item = Uuid> {
        self.in_group.get(&group).into_iter().flatten().copied()
    }

    /// Follows what has changed. All ports that are in a group that changed are among it. Says whether all rule
    /// sets in the maps are whole; else it has to be made anew.
    pub(super) fn follow(
        &mut self,
        changed: &BTreeSet<ObjectKey>,
        (before, desired): (&Holding, &Holding),
        is_there: impl Fn(&Port) -> bool,
        maps: &mut Maps<'_>,
    ) -> bool {
        let mut is_whole = true;
        for key in changed.iter().filter(|key| key.table == Table::Member) {
            if let Some(Object::Member(member)) = desired.get(key) {
                is_whole &= self.sets.come(member, maps).is_ok();
            }
            if let Some(Object::Member(member)) = before.get(key) {
                self.sets.go(member, maps);
            }
        }
        // What goes is let go in the end: it may be what comes.
        let ports = || changed.iter().filter(|key| key.table == Table::Port);
        let gone: Vec<_> = ports().filter_map(|key| self.cease(key.uuid)).collect();
        for key in ports() {
            let Some(Object::Port(port)) = desired.get(key) else { continue };
            if is_there(port) && self.ask(port, desired) {
                is_whole &= self.have(port.uuid, maps).is_ok();
            }
        }
        gone.into_iter().for_each(|port| self.let_go(port, maps));
        is_whole
    }

    /// A port asks for what its policy is; whether it has one.
    pub(super) fn ask(&mut self, port: &Port, desired: &Holding) -> bool {
        let Some(policy) = &port.policy else { return false };
        let missing = policy.groups.iter().find(|uuid| group(desired, **uuid).is_none());
        let mut closed = missing.map(|uuid| {
            let uuid = uuid.simple();
            format!("its security group {uuid} is not known here yet: it is closed till then")
        });
        let specs = match closed {
            Some(_) => closed_specs(),
            None => [(Way::Ingress, policy.ingress), (Way::Egress, policy.egress)]
                .map(|(way, default)| Spec { groups: policy.groups.clone(), way, default }),
        };
        let asked = specs.each_ref().map(|spec| self.sets.number(spec, desired));
        for number in asked {
            if let Some(Err(unfit)) = self.sets.get(number) {
                closed.get_or_insert_with(|| refusal(*unfit));
            }
        }
        let groups = policy.groups.clone();
        for group in &groups {
            self.in_group.entry(*group).or_default().insert(port.uuid);
        }
        let stance = Stance::default();
        let filtered = Filtered { groups, specs, asked, has: None, stance, closed };
        self.ports.insert(port.uuid, filtered);
        true
    }

    /// A port has no policy any more, or is not there. What it leaves behind is to be let go. Nobody
    /// asks for something by what it was then.
    pub(super) fn cease(&mut self, port: Uuid) -> Option<Left> {
        let Filtered { groups, specs, asked, has, .. } = self.ports.remove(&port)?;
        groups.iter().for_each(|group| remove_from(&mut self.in_group, group, &port));
        specs.iter().for_each(|spec| self.sets.unname(spec));
        Some(Left { asked, has })
    }

    pub(super) fn let_go(&mut self, Left { asked, has }: Left, maps: &mut Maps<'_>) {
        has.into_iter().flatten().for_each(|number| self.sets.leave(number, maps));
        asked.into_iter().for_each(|number| self.sets.unask(number));
    }

    /// A port that asked and has nothing gets what it asked for, or is closed.
    ///
    /// # Errors
    /// A rule set cannot be told of all members: the port has nothing, and what it asks for is refused
    /// from now on.
    pub(super) fn have(&mut self, port: Uuid, maps: &mut Maps<'_>) -> Result<(), Unfit> {
        let Some(Filtered { asked, closed, .. }) = self.ports.get(&port) else { return Ok(()) };
        if closed.is_some() {
            self.close(port, maps);
            return Ok(());
        }
        let [ingress, egress] = *asked;
        self.sets.enter(ingress, maps)?;
        if let Err(unfit) = self.sets.enter(egress, maps) {
            self.sets.leave(ingress, maps);
            return Err(unfit);
        }
        self.set_stance(port, [ingress, egress]);
        Ok(())
    }

    /// A port that has nothing is closed: what it asks for is refused.
    pub(super) fn give_up(&mut self, port: Uuid, unfit: Unfit, maps: &mut Maps<'_>) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.closed = Some(refusal(unfit));
        }
        self.close(port, maps);
    }

    /// Lets go of what a port has. It may have something else then.
    pub(super) fn have_not(&mut self, port: Uuid, maps: &mut Maps<'_>) {
        let has = self.ports.get_mut(&port).and_then(|port| port.has.take());
        has.into_iter().flatten().for_each(|number| self.sets.leave(number, maps));
    }

    /// A port that has nothing is closed.
    pub(super) fn close(&mut self, port: Uuid, maps: &mut Maps<'_>) {
        let specs = closed_specs();
        let numbers = specs.each_ref().map(|spec| self.sets.number(spec, &Holding::default()));
        for (spec, number) in specs.iter().zip(numbers) {
            // It names nobody whom it could not be told of.
            let _ = self.sets.enter(number, maps);
            // Who has it need not ask for it.
            self.sets.unname(spec);
            self.sets.unask(number);
        }
        self.set_stance(port, numbers);
    }

    fn set_stance(&mut self, port: Uuid, has: [u64; 2]) {
        let flags = has.map(|number| match self.sets.get(number) {
            Some(Ok(set)) => {
                let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
                flag(set.has_members, packet::Port::HAS_MEMBERS)
                    | flag(set.has_classes, packet::Port::HAS_CLASSES)
                    | flag(set.has_stateless, packet::Port::HAS_STATELESS)
            }
            _ => 0,
        });
        let ([ingress, egress], [of_ingress, of_egress]) = (has, flags);
        let rules = of_ingress | of_egress << packet::Port::EGRESS_SHIFT;
        if let Some(port) = self.ports.get_mut(&port) {
            port.has = Some(has);
            port.stance = Stance { ingress, egress, rules };
        }
    }

    /// Whether a rule that drops, of the rule sets that a port asks for, names one of these groups.
    pub(super) fn refuses(&self, port: Uuid, groups: &BTreeSet<u32>) -> bool {
        let groups: Vec<u32> = groups.iter().copied().collect();
        let asked = self.ports.get(&port).map(|port| port.asked);
        asked.into_iter().flatten().any(|number| match self.sets.get(number) {
            Some(Ok(set)) => set.refuses(&groups),
            _ => false,
        })
    }
}

/// What a port has left behind.
pub(super) struct Left {
    asked: [u64; 2],
    has: Option<[u64; 2]>,
}

fn refusal(unfit: Unfit) -> String {
    format!("it is closed: {unfit}")
}

/// What drops everything.
fn closed_specs() -> [Spec; 2] {
    let closed = |way| Spec { groups: Vec::new(), way, default: Action::Drop };
    [closed(Way::Ingress), closed(Way::Egress)]
}

/// The map that has no room for what rule sets have in it, and its limit.
pub(super) fn full(tables: &Tables, room: &Room) -> Option<(&'static str, u32)> {
    let held = [
        ("classes", tables.classes.len(), packet::MAX_CLASSES),
        ("chapters", tables.chapters.len(), packet::MAX_CHAPTERS),
        ("ranges", tables.ranges.len(), packet::MAX_RANGES),
    ];
    let limited = held.map(|(map, held, entries)| (map, held, most(map, entries, room)));
    let full = limited.into_iter().find(|(_, held, limit)| *held > *limit as usize);
    full.map(|(map, _, limit)| (map, limit))
}
