//! Release: what may not be given out again yet.

use derive::Resource;
use serde::{Deserialize, Serialize};

use super::{host::Host, l2_vxlan_network::L2VxlanNetwork};
use crate::{Id, Timestamp};

/// Claims of a deleted resource that some host may still hold in its data plane. They are given up
/// when each of these hosts has acknowledged the revision, or is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "")]
pub struct Release {
    /// Its id.
    pub uuid: Id<Release>,
    /// The L2 network in which it was in use, which may be gone too.
    pub l2_network_uuid: Id<L2VxlanNetwork>,
    /// The claim keys.
    #[field(hidden)]
    pub claims: Vec<String>,
    /// Hosts that have not acknowledged yet.
    #[field(hidden)]
    pub hosts: Vec<Id<Host>>,
    /// When that was.
    pub create_date: Timestamp,
}
