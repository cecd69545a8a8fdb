//! The last operator: objects per host, and how they change.

use std::{collections::BTreeMap, sync::Arc};

use model::{Id, resource::host::Host};
use wire::object::{Object, ObjectKey};

use crate::{HostDelta, HostObjects, operators::Delta};

/// What every host must hold.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) hosts: BTreeMap<Id<Host>, HostObjects>,
    pub(crate) work: u64,
}

impl Output {
    /// Takes objects in and out. At most one object of a key remains: its records have one value.
    pub(crate) fn step(
        &mut self,
        delta: Delta<(Id<Host>, Arc<Object>)>,
    ) -> BTreeMap<Id<Host>, HostDelta> {
        let mut touched: BTreeMap<(Id<Host>, ObjectKey), Delta<Arc<Object>>> = BTreeMap::new();
        for ((host, object), weight) in delta {
            self.work += 1;
            touched.entry((host, object.key())).or_default().push((object, weight));
        }
        let mut deltas: BTreeMap<Id<Host>, HostDelta> = BTreeMap::new();
        for ((host, key), entries) in touched {
            let objects = self.hosts.entry(host).or_default();
            let before = objects.get(&key);
            let after = settled(before, entries);
            match after {
                Some(after) if before != Some(&after) => {
                    objects.insert(key, after.clone());
                    deltas.entry(host).or_default().upserts.push(after);
                }
                None if before.is_some() => {
                    objects.remove(&key);
                    deltas.entry(host).or_default().removes.push(key);
                }
                Some(_) | None => {}
            }
            if objects.is_empty() {
                self.hosts.remove(&host);
            }
        }
        deltas.values_mut().for_each(|delta| delta.removes.reverse());
        deltas
    }

    /// How to get from this to `next`.
    pub(crate) fn difference(&self, next: &Output) -> BTreeMap<Id<Host>, HostDelta> {
        let none = HostObjects::new();
        let mut deltas = BTreeMap::new();
        for host in self.hosts.keys().chain(next.hosts.keys()) {
            let before = self.hosts.get(host).unwrap_or(&none);
            let after = next.hosts.get(host).unwrap_or(&none);
            let changed =
                |(key, _): &(&ObjectKey, &Arc<Object>)| before.get(*key) != after.get(*key);
            let upserts: Vec<Arc<Object>> =
                after.iter().filter(changed).map(|(_, object)| Arc::clone(object)).collect();
            let gone = before.keys().filter(|key| !after.contains_key(*key));
            let mut removes: Vec<ObjectKey> = gone.copied().collect();
            removes.reverse();
            if !upserts.is_empty() || !removes.is_empty() {
                deltas.insert(*host, HostDelta { upserts, removes });
            }
        }
        deltas
    }
}

/// What is left of `before` and `entries`.
fn settled(before: Option<&Arc<Object>>, entries: Delta<Arc<Object>>) -> Option<Arc<Object>> {
    let mut sum: Delta<Arc<Object>> =
        before.map(|object| (Arc::clone(object), 1)).into_iter().collect();
    for (object, weight) in entries {
        match sum.iter_mut().find(|(other, _)| *other == object) {
            Some((_, total)) => *total += weight,
            None => sum.push((object, weight)),
        }
    }
    sum.into_iter().find(|(_, total)| *total > 0).map(|(object, _)| object)
}
