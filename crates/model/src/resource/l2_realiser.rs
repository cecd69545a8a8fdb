//! L2 realisers: services out of process, such as an SDN controller or what configures switches, that
//! bring L2 networks to where instances need them; and what each of them is to realise.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    cluster::Cluster,
    host::Host,
    l2_network::{L2Network, L2Type},
};
use crate::{Id, Message, MessageDef, Timestamp, Update, words};

/// A service that is called over HTTP before an L2 network is in a cluster, and before the first NIC
/// on it is on a host; and after the last one, and when the network is taken out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l2-networks/realisers", messages)]
pub struct L2Realiser {
    /// Its id.
    pub uuid: Id<L2Realiser>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Where it is called.
    pub url: String,
    /// It realises networks of this type; of every one if absent.
    #[serde(rename = "type")]
    pub l2_type: Option<L2Type>,
    /// It realises networks on this interface of hosts; on every one if absent.
    pub physical_interface: Option<String>,
    /// It realises this network alone.
    #[field(on_delete = "keep")]
    pub l2_network_uuid: Option<Id<L2Network>>,
    /// With what calls are signed.
    #[field(hidden)]
    pub secret: String,
}

impl L2Realiser {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateL2Realiser::DEF, &UpdateL2Realiser::DEF, &DeleteL2Realiser::DEF];

    /// Whether it realises a network.
    #[must_use]
    pub fn realises(&self, l2: &L2Network) -> bool {
        self.l2_type.is_none_or(|of| of == l2.segment.of_type())
            && self.l2_network_uuid.is_none_or(|one| one == l2.uuid)
            && (self.physical_interface.is_none()
                || self.physical_interface == l2.physical_interface)
    }
}

words! {
    /// Of which of its two moments something is.
    Moment {
        /// A network is in a cluster.
        Attached = "Attached",
        /// NICs on a network are on a host, or one is about to be.
        InUse = "InUse",
    }
}

words! {
    /// How far something is realised.
    RealisationState {
        /// The realiser is to be asked. Ends in `Realised` or `Refused`; in `Releasing` if nobody
        /// needs it any more.
        Realising = "Realising",
        /// It has said so. Ends in `Releasing`; in `Refused` if it says no to a change.
        Realised = "Realised",
        /// It has said no; it is asked again later. Ends as `Realising` does.
        Refused = "Refused",
        /// It is to take it away. The row goes then. Ends in `Realising` if it is needed again.
        Releasing = "Releasing",
    }
}

/// What a realiser is to realise: a network in a cluster, or on a host. Made before it is needed, gone
/// once the realiser has taken it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/l2-networks/realisations")]
pub struct L2Realisation {
    /// Its id, derived from realiser, network and place.
    pub uuid: Id<L2Realisation>,
    /// Who realises it.
    #[field(on_delete = "cascade")]
    pub realiser_uuid: Id<L2Realiser>,
    /// The network, or the pool.
    #[field(on_delete = "keep")]
    pub l2_network_uuid: Id<L2Network>,
    /// Of which moment it is.
    pub moment: Moment,
    /// The cluster.
    #[field(on_delete = "keep")]
    pub cluster_uuid: Id<Cluster>,
    /// The host, where NICs are on it.
    #[field(on_delete = "keep")]
    pub in_use_on_host_uuid: Option<Id<Host>>,
    /// How far it is.
    #[field(index)]
    pub state: RealisationState,
    /// Why it is not further, as the last try has shown.
    pub error: Option<String>,
    /// Until when a call waits for it, though nothing is there yet.
    #[field(hidden)]
    pub asked_until: Timestamp,
    /// SHA-256 of what the realiser has last said yes to, hex.
    #[field(hidden)]
    pub told_sha256: Option<String>,
    /// What it was last told of the network, as JSON: known when the network is gone.
    #[field(hidden)]
    pub about: Option<String>,
}

impl L2Realisation {
    /// A network in a cluster, or on a host of it; not realised.
    #[must_use]
    pub fn new(
        realiser: Id<L2Realiser>,
        l2: Id<L2Network>,
        (cluster, host): (Id<Cluster>, Option<Id<Host>>),
    ) -> Self {
        Self {
            uuid: Self::id_of(realiser, l2, (cluster, host)),
            realiser_uuid: realiser,
            l2_network_uuid: l2,
            moment: host.map_or(Moment::Attached, |_| Moment::InUse),
            cluster_uuid: cluster,
            in_use_on_host_uuid: host,
            state: RealisationState::Realising,
            error: None,
            asked_until: Timestamp(0),
            told_sha256: None,
            about: None,
        }
    }

    /// The id of what a realiser is to realise of a network in a cluster, or on a host of it.
    #[must_use]
    pub fn id_of(
        realiser: Id<L2Realiser>,
        l2: Id<L2Network>,
        (cluster, host): (Id<Cluster>, Option<Id<Host>>),
    ) -> Id<Self> {
        let place = host.map_or(cluster.uuid(), Id::uuid);
        let name = [*l2.uuid().as_bytes(), *place.as_bytes()].concat();
        Id::new(Uuid::new_v5(&realiser.uuid(), &name))
    }
}

/// Registers a realiser. It is told of what is there already, and asked before what comes: then
/// `AttachL2NetworkToCluster`, and what puts the first NIC on a network on a host, is done only once it
/// has answered with a 2xx status. docs/realisers.md has what it is sent.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/l2-networks/realisers", creates = "L2Realiser", access = "admin")]
pub struct CreateL2Realiser {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Where it is called: an `http` URL.
    #[field(max_len = 1024)]
    pub url: String,
    /// It realises networks of this type; of every one if absent.
    #[serde(rename = "type")]
    pub l2_type: Option<L2Type>,
    /// It realises networks on this interface of hosts; on every one if absent.
    #[field(max_len = 1024)]
    pub physical_interface: Option<String>,
    /// It realises this network alone.
    pub l2_network_uuid: Option<Id<L2Network>>,
    /// With what calls are signed (HMAC-SHA256 of the body), 16 characters at least.
    #[field(secret)]
    pub secret: String,
}

/// Changes a realiser.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/l2-networks/realisers/{uuid}/actions",
    action = "updateL2Realiser",
    access = "admin"
)]
pub struct UpdateL2Realiser {
    /// The realiser.
    pub uuid: Id<L2Realiser>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// Another place.
    #[field(max_len = 1024)]
    pub url: Option<String>,
    /// Another secret, 16 characters at least.
    #[field(secret)]
    pub secret: Option<String>,
}

/// Deletes a realiser: it is told nothing more, and nothing waits for it. What it has realised stays as
/// it is.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/l2-networks/realisers/{uuid}", access = "admin")]
pub struct DeleteL2Realiser {
    /// The realiser.
    pub uuid: Id<L2Realiser>,
}
