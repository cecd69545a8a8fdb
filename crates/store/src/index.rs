//! What rows are found by: one map from field and value to the ids of the rows that have it.
//!
//! Built for a hundred thousand rows with half a dozen entries each. Field names are numbered once,
//! values are packed, and a value that one row has (an address, a name) costs one entry of 48
//! bytes. Sets grow out of that entry: a few ids in an array, many in a tree. Each knows its size,
//! so that counting needs no walk.

use std::{collections::BTreeMap, sync::Arc};

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

/// A value by which rows are found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A reference to another row.
    Uuid(Uuid),
    /// A number.
    Number(i64),
    /// An address; an IPv4 address in its IPv6 mapped form.
    Ip(u128),
    /// A MAC address.
    Mac([u8; 6]),
    /// A name, a state.
    Text(Arc<str>),
}

/// Finds rows of tables `K`.
#[derive(Clone, Debug)]
pub(crate) struct Index<K> {
    fields: Arc<Fields<K>>,
    bags: OrdMap<IndexKey, Bag>,
}

/// The numbers of fields. A number says nothing about order, and differs between two states.
#[derive(Clone, Debug)]
struct Fields<K> {
    numbers: BTreeMap<(K, &'static str), u16>,
    names: Vec<(K, &'static str)>,
}

/// A value and the number of its field. A [`Key`] with a field would be twice as large, because of
/// the alignment of its numbers. The value is first, so that all fields that point at one row are
/// neighbours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum IndexKey {
    Fixed { bytes: [u8; 16], shape: Shape, field: u16 },
    Text { text: Arc<str>, field: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Uuid,
    Number,
    Ip,
    Mac,
}

/// Ids in ascending order, never none.
#[derive(Clone, Debug)]
enum Bag {
    One(Uuid),
    Few(Arc<[Uuid]>),
    Many(OrdSet<Uuid>),
}

/// Most ids in an array: each change copies it, and a tree's node has room for so many anyway.
const FEW_MAX: usize = 16;
/// A tree that has shrunk to this becomes an array. Far below the limit, lest one id that comes and
/// goes rebuilds the set each time.
const FEW_AGAIN: usize = 8;

impl<K: Copy + Ord> Index<K> {
    pub(crate) fn new() -> Self {
        let fields = Fields { numbers: BTreeMap::new(), names: Vec::new() };
        Self { fields: Arc::new(fields), bags: OrdMap::new() }
    }

    /// Replaces what a row was found by with what it is found by.
    pub(crate) fn replace(
        &mut self,
        (kind, id): (K, Uuid),
        mut old: Vec<(&'static str, Key)>,
        mut new: Vec<(&'static str, Key)>,
    ) {
        for entries in [&mut old, &mut new] {
            entries.sort_unstable();
            entries.dedup();
        }
        for (field, key) in old.iter().filter(|entry| new.binary_search(entry).is_err()) {
            self.remove(kind, field, key, id);
        }
        for (field, key) in new.iter().filter(|entry| old.binary_search(entry).is_err()) {
            self.insert(kind, field, key, id);
        }
    }

    /// The ids of the rows of table `kind` whose `field` has this value.
    pub(crate) fn find<'a>(
        &'a self,
        kind: K,
        field: &str,
        key: &Key,
    ) -> impl Iterator<Item = Uuid> + use<'a, K> {
        self.bag(kind, field, key).into_iter().flat_map(Bag::iter)
    }

    /// How many [`find`](Self::find) would give.
    pub(crate) fn count(&self, kind: K, field: &str, key: &Key) -> usize {
        self.bag(kind, field, key).map_or(0, Bag::len)
    }

    /// Every row that points at `to`, by table, field and id.
    pub(crate) fn pointing(&self, to: Uuid) -> impl Iterator<Item = (K, &'static str, Uuid)> {
        let place = |field| IndexKey::new(&Key::Uuid(to), field);
        let found = self.bags.range(place(0)..=place(u16::MAX));
        let mut found: Vec<((K, &'static str), &Bag)> = found
            .map(|(place, bag)| (self.fields.names[usize::from(place.field())], bag))
            .collect();
        found.sort_unstable_by_key(|(field, _)| *field);
        found
            .into_iter()
            .flat_map(|((kind, field), bag)| bag.iter().map(move |id| (kind, field, id)))
    }

    fn bag(&self, kind: K, field: &str, key: &Key) -> Option<&Bag> {
        let numbers: &BTreeMap<(K, &str), u16> = &self.fields.numbers;
        let number = numbers.get(&(kind, field))?;
        self.bags.get(&IndexKey::new(key, *number))
    }

    fn insert(&mut self, kind: K, field: &'static str, key: &Key, id: Uuid) {
        let place = IndexKey::new(key, self.number(kind, field));
        // Most values have one row: for those, this is the only way down the tree.
        if let Some(mut bag) = self.bags.insert(place.clone(), Bag::One(id)) {
            bag.insert(id);
            self.bags.insert(place, bag);
        }
    }

    fn remove(&mut self, kind: K, field: &'static str, key: &Key, id: Uuid) {
        let place = IndexKey::new(key, self.number(kind, field));
        if self.bags.get_mut(&place).is_some_and(|bag| bag.remove(id) == Left::Nothing) {
            self.bags.remove(&place);
        }
    }

    fn number(&mut self, kind: K, field: &'static str) -> u16 {
        if let Some(number) = self.fields.numbers.get(&(kind, field)) {
            return *number;
        }
        let fields = Arc::make_mut(&mut self.fields);
        let number = u16::try_from(fields.names.len()).expect("a program has fewer fields");
        fields.names.push((kind, field));
        fields.numbers.insert((kind, field), number);
        number
    }
}

impl IndexKey {
    fn new(key: &Key, field: u16) -> Self {
        let fixed = |shape, number: u128| {
            let bytes = number.to_be_bytes();
            IndexKey::Fixed { bytes, shape, field }
        };
        match key {
            Key::Uuid(id) => fixed(Shape::Uuid, id.as_u128()),
            Key::Number(n) => fixed(Shape::Number, u64::from_be_bytes(n.to_be_bytes()).into()),
            Key::Ip(ip) => fixed(Shape::Ip, *ip),
            Key::Mac([a, b, c, d, e, f]) => {
                fixed(Shape::Mac, u64::from_be_bytes([0, 0, *a, *b, *c, *d, *e, *f]).into())
            }
            Key::Text(text) => IndexKey::Text { text: Arc::clone(text), field },
        }
    }

    fn field(&self) -> u16 {
        match self {
            IndexKey::Fixed { field, .. } | IndexKey::Text { field, .. } => *field,
        }
    }
}

/// What an id has left behind in its [`Bag`].
#[derive(PartialEq, Eq)]
enum Left {
    Nothing,
    Something,
}

impl Bag {
    fn len(&self) -> usize {
        match self {
            Bag::One(_) => 1,
            Bag::Few(ids) => ids.len(),
            Bag::Many(ids) => ids.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Uuid> {
        let (array, tree) = match self {
            Bag::One(id) => (std::slice::from_ref(id), None),
            Bag::Few(ids) => (&**ids, None),
            Bag::Many(ids) => (&[][..], Some(ids)),
        };
        array.iter().copied().chain(tree.into_iter().flat_map(|ids| ids.iter().copied()))
    }

    fn insert(&mut self, id: Uuid) {
        if let Bag::Many(ids) = self {
            ids.insert(id);
            return;
        }
        let mut ids: Vec<Uuid> = self.iter().collect();
        if let Err(at) = ids.binary_search(&id) {
            ids.insert(at, id);
            *self = Bag::from_sorted(ids);
        }
    }

    fn remove(&mut self, id: Uuid) -> Left {
        let ids: Vec<Uuid> = match *self {
            Bag::Many(ref mut ids) => {
                ids.remove(&id);
                if ids.len() > FEW_AGAIN {
                    return Left::Something;
                }
                ids.iter().copied().collect()
            }
            ref few => few.iter().filter(|other| *other != id).collect(),
        };
        if ids.is_empty() {
            return Left::Nothing;
        }
        *self = Bag::from_sorted(ids);
        Left::Something
    }

    fn from_sorted(ids: Vec<Uuid>) -> Self {
        match ids[..] {
            [id] => Bag::One(id),
            _ if ids.len() <= FEW_MAX => Bag::Few(ids.into()),
            _ => Bag::Many(ids.into_iter().collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_is_as_lean_as_it_says() {
        assert_eq!(size_of::<(IndexKey, Bag)>(), 48);
    }

    fn key() -> impl Strategy<Value = Key> {
        let id = (0..3u128).prop_map(|n| Key::Uuid(Uuid::from_u128(n)));
        let mac = (0..2u8).prop_map(|n| Key::Mac([0, 0, 0, 0, 0, n]));
        let text = (0..2u8).prop_map(|n| Key::Text(n.to_string().into()));
        let number = (-1..2i64).prop_map(Key::Number);
        prop_oneof![id, number, (0..3u128).prop_map(Key::Ip), mac, text]
    }

    fn entries() -> impl Strategy<Value = Vec<(&'static str, Key)>> {
        let field = prop_oneof![Just("a"), Just("b")];
        prop::collection::vec((field, key()), 0..4)
    }

    proptest! {
        /// Few values and many rows, so that sets pass through all their forms, both ways.
        #[test]
        fn whatever_rows_change_the_index_is_what_a_search_of_all_finds(
            steps in prop::collection::vec((0..2u8, 0..60u128, entries()), 0..300),
        ) {
            let (mut index, mut rows) = (Index::new(), BTreeMap::new());
            for (kind, id, new) in steps {
                let id = Uuid::from_u128(id);
                let old = rows.insert((kind, id), new.clone()).unwrap_or_default();
                index.replace((kind, id), old, new);
            }
            let of = |k: u8, f: &str, key: &Key| -> Vec<Uuid> {
                let has = |row: &Vec<(&str, Key)>| row.iter().any(|(g, v)| *g == f && v == key);
                let found = rows.iter().filter(|((kind, _), row)| *kind == k && has(row));
                found.map(|((_, id), _)| *id).collect()
            };
            let keys: BTreeSet<Key> = rows.values().flatten().map(|(_, key)| key.clone()).collect();
            for key in &keys {
                for (kind, field) in [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (1, "c")] {
                    let expected = of(kind, field, key);
                    prop_assert_eq!(index.count(kind, field, key), expected.len());
                    prop_assert_eq!(index.find(kind, field, key).collect::<Vec<_>>(), expected);
                }
            }
            for to in (0..3).map(Uuid::from_u128) {
                let fields = [(0, "a"), (0, "b"), (1, "a"), (1, "b")].into_iter();
                let expected = fields.flat_map(|(kind, field)| {
                    of(kind, field, &Key::Uuid(to)).into_iter().map(move |id| (kind, field, id))
                });
                prop_assert!(index.pointing(to).eq(expected));
            }
            for ((kind, id), row) in rows {
                index.replace((kind, id), row, Vec::new());
            }
            prop_assert!(index.bags.is_empty());
        }
    }
}
