//! What every store has from the first start on, and what each later start brings up to date.

use model::{Record, Result, Timestamp};
use store::Store;

use crate::{config, network_service};

/// Makes the rows that the platform itself owns and this release knows: a setting each, and the
/// providers of network services.
///
/// # Errors
/// The store's.
pub fn declare(store: &Store<Record>, now: Timestamp) -> Result<()> {
    config::declare(store, now)?;
    network_service::create_providers(store, now)
}
