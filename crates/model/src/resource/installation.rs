//! Installation: what the database knows of the files beside it.

use derive::Resource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Id;

/// The uuid of the one [`Installation`]: there is no other.
pub const INSTALLATION: Uuid = Uuid::from_u128(1);

/// What the database knows of the files beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
pub struct Installation {
    /// Its id: [`INSTALLATION`].
    pub uuid: Id<Installation>,
    /// SHA-256 of the certificate of the authority to which hosts are bound, hex.
    #[field(hidden)]
    pub authority_sha256: String,
}
