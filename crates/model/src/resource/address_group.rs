//! Address group: a list of addresses with a name, which rules of security groups name as their remote.

use derive::Resource;
use serde::{Deserialize, Serialize};

use crate::{Id, spans};

/// Addresses in a group at most.
pub const ADDRESSES_MAX: usize = 1000;

/// A list of addresses with a name, which rules of security groups name as their remote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/address-groups", quota = "addressGroup.num", quota_default = 20, shareable)]
pub struct AddressGroup {
    /// Its id.
    pub uuid: Id<AddressGroup>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Addresses, networks and `first-last`, of both families.
    #[field(max_len = 1000)]
    pub addresses: Vec<String>,
}

impl AddressGroup {
    /// The first and the last address of each item, of one family: 4 or 6.
    #[must_use]
    pub fn spans(&self, ip_version: u8) -> Vec<spans::AddressSpan> {
        let spans = self.addresses.iter().filter_map(|item| spans::address_span(item).ok());
        spans.filter(|(first, _)| spans::version(*first) == ip_version).collect()
    }
}
