//! The operators that the compiler is made of. A relation is a multiset; what flows is its change,
//! a list of entries that come (weight 1) and go (weight -1). Each operator turns changes of its
//! inputs into the change of its output, keeps only the indexes that it needs for that, and counts
//! its work: the entries that it has read and made.
//!
//! The algebra is that of Z-sets: McSherry et al., "Differential dataflow", CIDR 2013; Budiu et
//! al., "DBSP", VLDB 2023. There is no time, no recursion and no sharing between operators here.

use std::collections::{BTreeMap, BTreeSet};

/// Entries with how often each one comes (> 0) or goes (< 0).
pub(crate) type Delta<T> = Vec<(T, i64)>;

/// The same change without entries that come and go alike.
pub(crate) fn settle<T: Ord>(delta: impl IntoIterator<Item = (T, i64)>) -> Delta<T> {
    let mut all: Delta<T> = delta.into_iter().collect();
    all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    all.dedup_by(|(entry, weight), (kept, sum)| {
        let same = entry == kept;
        *sum += if same { *weight } else { 0 };
        same
    });
    all.retain(|(_, weight)| *weight != 0);
    all
}

/// *Map* and *filter*: needs no index, since it looks at one entry at a time.
pub(crate) fn map<T, U>(delta: &Delta<T>, of: impl Fn(&T) -> Option<U>) -> Delta<U> {
    delta.iter().filter_map(|(entry, weight)| Some((of(entry)?, *weight))).collect()
}

/// *Flat map*: several entries for each.
pub(crate) fn each<T, U, I: IntoIterator<Item = U>>(
    delta: &Delta<T>,
    of: impl Fn(&T) -> I,
) -> Delta<U> {
    let all = |(entry, weight): &(T, i64)| (of(entry).into_iter().collect::<Vec<_>>(), *weight);
    let made = delta.iter().map(all);
    made.flat_map(|(made, weight)| made.into_iter().map(move |entry| (entry, weight))).collect()
}

/// *Keyed join*: every pair of a left and a right entry that have the same key.
#[derive(Debug)]
pub(crate) struct Join<K, A, B> {
    left: Index<K, A>,
    right: Index<K, B>,
    pub(crate) work: u64,
}

impl<K: Ord + Clone, A: Ord + Clone, B: Ord + Clone> Join<K, A, B> {
    pub(crate) fn new() -> Self {
        Self { left: Index::new(), right: Index::new(), work: 0 }
    }

    /// The new left entries meet the old right, the new right ones the new left: each pair once.
    pub(crate) fn step(&mut self, left: Delta<(K, A)>, right: Delta<(K, B)>) -> Delta<(K, A, B)> {
        self.work += count(&left) + count(&right);
        let mut pairs = Vec::new();
        for ((key, a), weight) in &left {
            let met = self.right.of(key);
            pairs.extend(met.map(|(b, n)| ((key.clone(), a.clone(), b.clone()), weight * n)));
        }
        self.left.add(left);
        for ((key, b), weight) in &right {
            let met = self.left.of(key);
            pairs.extend(met.map(|(a, n)| ((key.clone(), a.clone(), b.clone()), weight * n)));
        }
        self.right.add(right);
        self.work += count(&pairs);
        settle(pairs)
    }
}

/// *Group*: the least value of each key. With `()` as value: each key once, however often it
/// comes.
#[derive(Debug)]
pub(crate) struct Group<K, V> {
    groups: Index<K, V>,
    pub(crate) work: u64,
}

impl<K: Ord + Clone, V: Ord + Clone> Group<K, V> {
    pub(crate) fn new() -> Self {
        Self { groups: Index::new(), work: 0 }
    }

    pub(crate) fn step(&mut self, delta: Delta<(K, V)>) -> Delta<(K, V)> {
        let mut before: BTreeMap<K, Option<V>> = BTreeMap::new();
        for ((key, _), _) in &delta {
            before.entry(key.clone()).or_insert_with(|| self.groups.least(key));
        }
        self.work += count(&delta);
        self.groups.add(delta);
        let mut change = Vec::new();
        for (key, old) in before {
            let new = self.groups.least(&key);
            if old != new {
                change.extend(old.map(|value| ((key.clone(), value), -1)));
                change.extend(new.map(|value| ((key, value), 1)));
            }
        }
        self.work += count(&change);
        change
    }
}

/// *Gather*: each left entry with all the right values of its key, sorted; none is fine too.
#[derive(Debug)]
pub(crate) struct Gather<K, A, V> {
    left: Index<K, A>,
    right: Index<K, V>,
    pub(crate) work: u64,
}

impl<K: Ord + Clone, A: Ord + Clone, V: Ord + Clone> Gather<K, A, V> {
    pub(crate) fn new() -> Self {
        Self { left: Index::new(), right: Index::new(), work: 0 }
    }

    pub(crate) fn step(&mut self, left: Delta<(K, A)>, right: Delta<(K, V)>) -> Delta<(A, Vec<V>)> {
        let keys = left.iter().map(|((key, _), _)| key);
        let keys: BTreeSet<K> =
            keys.chain(right.iter().map(|((key, _), _)| key)).cloned().collect();
        self.work += count(&left) + count(&right);
        let mut change: Delta<(A, Vec<V>)> = Vec::new();
        for key in &keys {
            change.extend(self.gathered(key).into_iter().map(|(entry, n)| (entry, -n)));
        }
        self.left.add(left);
        self.right.add(right);
        for key in &keys {
            change.extend(self.gathered(key));
        }
        self.work += count(&change);
        settle(change)
    }

    fn gathered(&self, key: &K) -> Delta<(A, Vec<V>)> {
        let values: Vec<V> = self.right.of(key).map(|(value, _)| value.clone()).collect();
        self.left.of(key).map(|(entry, n)| ((entry.clone(), values.clone()), n)).collect()
    }
}

/// A multiset of values for each key.
#[derive(Debug)]
pub(crate) struct Index<K, V>(BTreeMap<K, BTreeMap<V, i64>>);

impl<K: Ord, V: Ord + Clone> Index<K, V> {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(crate) fn of(&self, key: &K) -> impl Iterator<Item = (&V, i64)> {
        self.0.get(key).into_iter().flatten().map(|(value, weight)| (value, *weight))
    }

    pub(crate) fn least(&self, key: &K) -> Option<V> {
        self.0.get(key)?.keys().next().cloned()
    }

    pub(crate) fn add(&mut self, delta: Delta<(K, V)>) {
        for ((key, value), weight) in delta {
            let mut values = match self.0.entry(key) {
                std::collections::btree_map::Entry::Occupied(values) => values,
                std::collections::btree_map::Entry::Vacant(none) => {
                    none.insert_entry(BTreeMap::new())
                }
            };
            let sum = values.get_mut().entry(value.clone()).or_default();
            *sum += weight;
            if *sum == 0 {
                values.get_mut().remove(&value);
            }
            if values.get().is_empty() {
                values.remove();
            }
        }
    }
}

pub(crate) fn count<T>(delta: &Delta<T>) -> u64 {
    u64::try_from(delta.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_makes_each_pair_once_even_when_both_sides_change_together() {
        let mut join = Join::new();
        let made = join.step(vec![((1, 'a'), 1)], vec![((1, 'x'), 1), ((2, 'y'), 1)]);
        assert_eq!(made, [((1, 'a', 'x'), 1)]);
        let made =
            join.step(vec![((1, 'a'), -1), ((1, 'b'), 1)], vec![((1, 'x'), -1), ((1, 'z'), 1)]);
        assert_eq!(made, [((1, 'a', 'x'), -1), ((1, 'b', 'z'), 1)]);
        assert_eq!(join.step(vec![((1, 'b'), -1)], vec![]), [((1, 'b', 'z'), -1)]);
        assert!(join.left.0.is_empty(), "nothing is kept of what is gone");
    }

    #[test]
    fn a_group_tells_only_when_its_least_value_changes() {
        let mut group = Group::new();
        assert_eq!(group.step(vec![(('k', 2), 1), (('k', 3), 1)]), [(('k', 2), 1)]);
        assert_eq!(group.step(vec![(('k', 4), 1)]), []);
        assert_eq!(group.step(vec![(('k', 2), -1)]), [(('k', 2), -1), (('k', 3), 1)]);
        assert_eq!(group.step(vec![(('k', 3), -1), (('k', 4), -1)]), [(('k', 3), -1)]);
        assert!(group.groups.0.is_empty());
    }

    #[test]
    fn a_gathered_entry_has_all_its_values_and_none_is_fine() {
        let mut gather = Gather::new();
        let none: Vec<i32> = Vec::new();
        assert_eq!(gather.step(vec![((1, 'a'), 1)], vec![((2, 7), 1)]), [(('a', none.clone()), 1)]);
        let change = gather.step(vec![], vec![((1, 9), 1), ((1, 8), 1)]);
        assert_eq!(change, [(('a', none), -1), (('a', vec![8, 9]), 1)]);
        assert_eq!(gather.step(vec![], vec![((2, 7), -1)]), []);
        assert_eq!(gather.step(vec![((1, 'a'), -1)], vec![]), [(('a', vec![8, 9]), -1)]);
    }

    #[test]
    fn a_map_keeps_weights_and_drops_what_the_filter_refuses() {
        let odd = map(&vec![(1, 1), (2, 1), (3, -1)], |n| (n % 2 == 1).then_some(n * 10));
        assert_eq!(odd, [(10, 1), (30, -1)]);
    }
}
