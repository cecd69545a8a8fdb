//! The rule sets that ports ask for: each is compiled once, and in the maps once for all that have it.
//!
//! The chapters of a rule set about NICs in groups follow the members that the host knows: there is
//! one for each set of groups that some NIC is in and of which the rule set names one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dataplane::{Edits, Tables};
use packet::{Chapter, ChapterKey, ClassKey, Node};
use policy::{RuleSet, Said, Salt, Unfit};
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Member, Object, ObjectKey, SecurityGroup, Table},
    policy::{Action, Way},
};

/// The numbers of the groups that a NIC is in, sorted.
pub(super) type Groups = Arc<[u32]>;

/// What a port asks for, one way. What it is follows from the groups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spec {
    pub(super) groups: Vec<Uuid>,
    pub(super) way: Way,
    pub(super) default: Action,
}

/// A rule set that ports ask for.
struct Set {
    compiled: Result<RuleSet, Unfit>,
    /// Ports that ask for it, once for each way.
    asked: usize,
    /// Ports that have it. Its entries are in the maps as long as there is one.
    used: usize,
    /// The chapters about identities.
    about: BTreeMap<Groups, BTreeMap<ChapterKey, Chapter>>,
}

/// Rule sets, and the members that they are told of.
#[derive(Default)]
pub(super) struct Sets {
    pub(super) salt: Salt,
    /// The number of what is asked for, and by how many.
    numbers: BTreeMap<Spec, (u64, usize)>,
    sets: BTreeMap<u64, Set>,
    /// How many NICs are in exactly these groups.
    members: BTreeMap<Groups, usize>,
    /// Those by each of the groups.
    having: BTreeMap<u32, BTreeSet<Groups>>,
    /// Rule sets in the maps, by the groups that they name.
    naming: BTreeMap<u32, BTreeSet<u64>>,
    /// How many chapters and nodes lead to a node.
    leading: BTreeMap<u64, usize>,
}

/// The maps that rule sets are in, and what was there before.
pub(in crate::ledger) struct Maps<'a> {
    pub(in crate::ledger) tables: &'a mut Tables,
    pub(in crate::ledger) noted: &'a mut Edits,
}

impl Maps<'_> {
    fn put_class(&mut self, key: ClassKey, class: Option<u32>) {
        put(&mut self.tables.classes, &mut self.noted.classes, key, class);
    }

    fn put_chapter(&mut self, key: ChapterKey, chapter: Option<Chapter>) {
        put(&mut self.tables.chapters, &mut self.noted.chapters, key, chapter);
    }

    fn put_node(&mut self, key: u64, node: Option<Node>) {
        put(&mut self.tables.ranges, &mut self.noted.ranges, key, node);
    }
}

fn put<K: Ord + Copy, V: Copy>(
    held: &mut BTreeMap<K, V>,
    noted: &mut BTreeMap<K, Option<V>>,
    key: K,
    value: Option<V>,
) {
    let before = match value {
        Some(value) => held.insert(key, value),
        None => held.remove(&key),
    };
    noted.entry(key).or_insert(before);
}

impl Sets {
    pub(super) fn new(salt: Salt) -> Self {
        Self { salt, ..Self::default() }
    }

    /// A rule set that somebody asks for, or why nobody gets it.
    pub(super) fn get(&self, number: u64) -> Option<&Result<RuleSet, Unfit>> {
        self.sets.get(&number).map(|set| &set.compiled)
    }

    /// A NIC is a member.
    ///
    /// # Errors
    /// A rule set in the maps cannot be told of it: all is to be made anew, without that one.
    pub(super) fn come(&mut self, member: &Member, maps: &mut Maps<'_>) -> Result<(), Unfit> {
        let groups = sorted(&member.groups);
        if groups.is_empty() {
            return Ok(());
        }
        if let Some(count) = self.members.get_mut(&groups) {
            *count += 1;
            return Ok(());
        }
        self.members.insert(Arc::clone(&groups), 1);
        for group in groups.iter() {
            self.having.entry(*group).or_default().insert(Arc::clone(&groups));
        }
        for number in self.naming(&groups) {
            if let Err(unfit) = self.tell(number, &groups, maps) {
                self.refuse(number, unfit);
                return Err(unfit);
            }
        }
        Ok(())
    }

    /// It is none any more.
    pub(super) fn go(&mut self, member: &Member, maps: &mut Maps<'_>) {
        let groups = sorted(&member.groups);
        let Some(count) = self.members.get_mut(&groups) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.members.remove(&groups);
        for group in groups.iter() {
            remove_from(&mut self.having, group, &groups);
        }
        for number in self.naming(&groups) {
            let about = self.sets.get_mut(&number).and_then(|set| set.about.remove(&groups));
            for (key, chapter) in about.unwrap_or_default() {
                self.forget_chapter(key, &chapter, maps);
            }
        }
    }

    /// Rule sets in the maps that name one of these groups.
    fn naming(&self, groups: &[u32]) -> BTreeSet<u64> {
        groups.iter().filter_map(|group| self.naming.get(group)).flatten().copied().collect()
    }

    /// The number of what is asked for, which is compiled then.
    pub(super) fn number(&mut self, spec: &Spec, desired: &Holding) -> u64 {
        let groups: Vec<_> = spec.groups.iter().filter_map(|uuid| group(desired, *uuid)).collect();
        let said = Said { groups: &groups, way: spec.way, default: spec.default };
        let salt = self.salt;
        let known = self.numbers.entry(spec.clone()).or_insert_with(|| (said.number(salt), 0));
        known.1 += 1;
        let number = known.0;
        let set = self.sets.entry(number).or_insert_with(|| Set {
            compiled: RuleSet::compile(&said, salt),
            asked: 0,
            used: 0,
            about: BTreeMap::new(),
        });
        set.asked += 1;
        number
    }

    pub(super) fn unname(&mut self, spec: &Spec) {
        if let Some((_, count)) = self.numbers.get_mut(spec) {
            *count -= 1;
            if *count == 0 {
                self.numbers.remove(spec);
            }
        }
    }

    pub(super) fn unask(&mut self, number: u64) {
        if let Some(set) = self.sets.get_mut(&number) {
            set.asked -= 1;
            if (set.asked, set.used) == (0, 0) {
                self.sets.remove(&number);
            }
        }
    }

    /// One more port has a rule set, which is in the maps then.
    pub(super) fn enter(&mut self, number: u64, maps: &mut Maps<'_>) -> Result<(), Unfit> {
        let Some(set) = self.sets.get_mut(&number) else { return Ok(()) };
        let compiled = match &set.compiled {
            Ok(compiled) => compiled,
            Err(unfit) => return Err(*unfit),
        };
        set.used += 1;
        if set.used > 1 {
            return Ok(());
        }
        for (key, class) in &compiled.classes {
            maps.put_class(*key, Some(*class));
        }
        for (key, chapter) in &compiled.chapters {
            maps.put_chapter(*key, Some(*chapter));
            roots(chapter).for_each(|root| lead(&mut self.leading, compiled, root, maps));
        }
        let names: Vec<u32> = compiled.names().collect();
        let mut members = BTreeSet::new();
        for group in &names {
            members.extend(self.having.get(group).into_iter().flatten().cloned());
            self.naming.entry(*group).or_default().insert(number);
        }
        for groups in members {
            if let Err(unfit) = self.tell(number, &groups, maps) {
                self.leave(number, maps);
                self.refuse(number, unfit);
                return Err(unfit);
            }
        }
        Ok(())
    }

    /// One port less has a rule set, which leaves the maps with the last one.
    pub(super) fn leave(&mut self, number: u64, maps: &mut Maps<'_>) {
        let Some(set) = self.sets.get_mut(&number) else { return };
        set.used -= 1;
        if set.used > 0 {
            return;
        }
        let mut chapters = Vec::new();
        for about in std::mem::take(&mut set.about).into_values() {
            chapters.extend(about);
        }
        if let Ok(compiled) = &set.compiled {
            chapters.extend(compiled.chapters.iter().map(|(key, chapter)| (*key, *chapter)));
            compiled.classes.keys().for_each(|key| maps.put_class(*key, None));
            compiled.names().for_each(|group| remove_from(&mut self.naming, &group, &number));
        }
        if set.asked == 0 {
            self.sets.remove(&number);
        }
        for (key, chapter) in chapters {
            self.forget_chapter(key, &chapter, maps);
        }
    }

    /// What a rule set in the maps says about NICs in these groups is there, too.
    fn tell(&mut self, number: u64, groups: &Groups, maps: &mut Maps<'_>) -> Result<(), Unfit> {
        let Some(set) = self.sets.get_mut(&number) else { return Ok(()) };
        let Ok(compiled) = &mut set.compiled else { return Ok(()) };
        let about = compiled.about(groups)?;
        for (key, chapter) in &about {
            maps.put_chapter(*key, Some(*chapter));
            roots(chapter).for_each(|root| lead(&mut self.leading, compiled, root, maps));
        }
        set.about.insert(Arc::clone(groups), about);
        Ok(())
    }

    fn forget_chapter(&mut self, key: ChapterKey, chapter: &Chapter, maps: &mut Maps<'_>) {
        maps.put_chapter(key, None);
        roots(chapter).for_each(|root| mislead(&mut self.leading, root, maps));
    }

    /// Nobody gets this rule set any more.
    fn refuse(&mut self, number: u64, unfit: Unfit) {
        if let Some(set) = self.sets.get_mut(&number) {
            set.compiled = Err(unfit);
        }
    }

    /// Rule sets that nobody asks for, which know what was compiled, and what still has the same number.
    pub(super) fn emptied(&mut self, before: &Holding, desired: &Holding) -> Self {
        let mut new = Self::new(self.salt);
        let sets = std::mem::take(&mut self.sets).into_iter();
        new.sets = sets
            .map(|(number, Set { compiled, .. })| {
                (number, Set { compiled, asked: 0, used: 0, about: BTreeMap::new() })
            })
            .collect();
        let is_same = |uuid: &Uuid| {
            let key = group_key(*uuid);
            before.objects().get(&key) == desired.objects().get(&key)
        };
        let numbers = std::mem::take(&mut self.numbers).into_iter();
        let same = numbers.filter(|(spec, _)| spec.groups.iter().all(is_same));
        new.numbers = same.map(|(spec, (number, _))| (spec, (number, 0))).collect();
        new
    }

    /// Forgets what nobody asks for.
    pub(super) fn prune(&mut self) {
        self.numbers.retain(|_, (_, count)| *count > 0);
        self.sets.retain(|_, set| (set.asked, set.used) != (0, 0));
    }
}

impl std::fmt::Debug for Sets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sets").field("numbers", &self.numbers).finish_non_exhaustive()
    }
}

/// One more leads to a node, which is there then with all below it.
fn lead(leading: &mut BTreeMap<u64, usize>, set: &RuleSet, key: u64, maps: &mut Maps<'_>) {
    let count = leading.entry(key).or_default();
    *count += 1;
    if *count > 1 {
        return;
    }
    let Some(node) = set.node(key) else { return };
    maps.put_node(key, Some(*node));
    RuleSet::below(key, node).for_each(|below| lead(leading, set, below, maps));
}

/// One less leads to it.
fn mislead(leading: &mut BTreeMap<u64, usize>, key: u64, maps: &mut Maps<'_>) {
    let Some(count) = leading.get_mut(&key) else { return };
    *count -= 1;
    if *count > 0 {
        return;
    }
    leading.remove(&key);
    let Some(node) = maps.tables.ranges.get(&key).copied() else { return };
    maps.put_node(key, None);
    RuleSet::below(key, &node).for_each(|below| mislead(leading, below, maps));
}

/// The trees of a chapter.
fn roots(chapter: &Chapter) -> impl Iterator<Item = u64> + use<> {
    let Chapter { tcp, udp, icmp, other } = *chapter;
    [tcp, udp, icmp, other].into_iter().filter(|root| *root != 0)
}

pub(super) fn remove_from<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

pub(super) fn sorted(groups: &[u32]) -> Groups {
    groups.iter().copied().collect::<BTreeSet<u32>>().into_iter().collect()
}

const fn group_key(uuid: Uuid) -> ObjectKey {
    ObjectKey { table: Table::SecurityGroup, uuid }
}

pub(super) fn group(desired: &Holding, uuid: Uuid) -> Option<&SecurityGroup> {
    match desired.get(&group_key(uuid)) {
        Some(Object::SecurityGroup(group)) => Some(group),
        _ => None,
    }
}
