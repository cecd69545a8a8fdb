//! A call: a message's fields and all that a handler may know besides the store.

use std::{collections::BTreeSet, sync::Arc};

use model::{Id, Kind, Resource, Timestamp, resource::host::Host, status::Board};
use serde_json::{Map, Value};
use uuid::Uuid;

/// One call of a message. Running it twice on the same state gives the same result.
#[derive(Clone, Debug)]
pub struct Call {
    /// The message's fields, in the API's names, path variables included.
    pub params: Map<String, Value>,
    /// ZStack's system tags, such as `staticIp::<l3>::<ip>`.
    pub system_tags: Vec<String>,
    /// The id that the caller wants for what is created.
    pub resource_uuid: Option<Uuid>,
    /// Now.
    pub now: Timestamp,
    /// The source of all randomness of this call.
    pub seed: Uuid,
    /// What hosts have reported.
    pub board: Arc<Board>,
}

/// What a handler did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The resource that the answer shows.
    pub subject: Option<(Kind, Uuid)>,
    /// Hosts whose acknowledgement makes it a success.
    pub hosts: BTreeSet<Id<Host>>,
}

impl Reply {
    /// Nothing to show: ZStack's `{}`.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Shows a resource.
    #[must_use]
    pub fn shows<R: Resource>(id: Id<R>) -> Self {
        Self { subject: Some((R::KIND, id.uuid())), hosts: BTreeSet::new() }
    }

    /// A success only once `host` has acknowledged.
    #[must_use]
    pub fn once_acked_by(mut self, host: Id<Host>) -> Self {
        self.hosts.insert(host);
        self
    }
}
