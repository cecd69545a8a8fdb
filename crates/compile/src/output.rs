//! The last operator: from objects that come and go on hosts to what changes for each of them.

use std::collections::BTreeMap;

use model::{Id, resource::host::Host};
use wire::{object::ObjectKey, shared::Shared};

use crate::{HostDelta, operators::Delta};

/// An object of one key that comes or goes, each with how often.
type Entries = Vec<(Shared, i64)>;

/// What changes for each host. An object that has another content goes and comes, so nothing that
/// was there before must be known.
pub(crate) fn by_host(delta: Delta<(Id<Host>, Shared)>) -> BTreeMap<Id<Host>, HostDelta> {
    let mut touched: BTreeMap<Id<Host>, BTreeMap<ObjectKey, Entries>> = BTreeMap::new();
    for ((host, object), weight) in delta {
        let entries = touched.entry(host).or_default().entry(object.key()).or_default();
        match entries.iter_mut().find(|(other, _)| *other == object) {
            Some((_, total)) => *total += weight,
            None => entries.push((object, weight)),
        }
    }
    let changes = touched.into_iter().map(|(host, keys)| (host, host_delta(keys)));
    changes.filter(|(_, delta)| *delta != HostDelta::default()).collect()
}

fn host_delta(keys: BTreeMap<ObjectKey, Entries>) -> HostDelta {
    let mut delta = HostDelta::default();
    for (key, entries) in keys {
        let goes = entries.iter().any(|(_, total)| *total < 0);
        match entries.into_iter().find(|(_, total)| *total > 0) {
            Some((object, _)) => delta.upserts.push(object),
            None if goes => delta.removes.push(key),
            None => {}
        }
    }
    delta.removes.reverse();
    delta
}
