//! What a session has to send, as a copy that shares everything with the feed: messages are cut
//! from it by whoever sends them, one at a time.

use std::{collections::BTreeMap, sync::Arc};

use compile::HostDelta;
use imbl::OrdMap;
use uuid::Uuid;
use wire::{
    PROTOCOL,
    digest::TableDigests,
    message::{ServerMessage, Welcome},
    object::ObjectKey,
    parts,
    shared::Shared,
};

use super::history::Entry;

/// What a session has to send.
pub(crate) struct Outgoing {
    /// The store's lineage, if nothing was sent before.
    pub(super) welcome: Option<Uuid>,
    pub(super) revision: u64,
    /// Of what the host is to hold then.
    pub(super) digests: TableDigests,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// Everything.
    Snapshot(OrdMap<ObjectKey, Shared>),
    /// These changes, in this order.
    Changes(Vec<Arc<Entry>>),
}

impl Outgoing {
    /// Whether it is everything that the host must hold.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self.content, Content::Snapshot(_))
    }

    /// Its messages, each of which is cut when it is asked for.
    pub(crate) fn messages(self) -> Box<dyn Iterator<Item = ServerMessage> + Send> {
        let Self { welcome, revision, digests, content } = self;
        let welcome = welcome.map(|lineage| {
            let server_version = env!("CARGO_PKG_VERSION").to_owned();
            ServerMessage::Welcome(Welcome { protocol: PROTOCOL, server_version, lineage })
        });
        match content {
            Content::Snapshot(objects) => {
                let objects = objects.into_iter().map(|(_, object)| object);
                Box::new(welcome.into_iter().chain(parts::snapshot(revision, objects, digests)))
            }
            Content::Changes(changes) => {
                let HostDelta { upserts, removes } = whole(&changes);
                let parts = parts::delta(revision, upserts, removes, digests);
                Box::new(welcome.into_iter().chain(parts))
            }
        }
    }
}

/// Changes as one.
fn whole(changes: &[Arc<Entry>]) -> HostDelta {
    let mut last: BTreeMap<ObjectKey, Option<&Shared>> = BTreeMap::new();
    for entry in changes {
        last.extend(entry.delta.removes.iter().map(|key| (*key, None)));
        last.extend(entry.delta.upserts.iter().map(|object| (object.key(), Some(object))));
    }
    let mut whole = HostDelta::default();
    for (key, object) in last {
        match object {
            Some(object) => whole.upserts.push(object.clone()),
            None => whole.removes.push(key),
        }
    }
    whole
}
