//! Address group: a list of addresses with a name, which rules of security groups name as their remote.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use crate::{Id, Message, MessageDef, Update, spans};

/// Addresses in a group at most.
pub const ADDRESSES_MAX: usize = 1000;

/// A list of addresses with a name, which rules of security groups name as their remote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(
    path = "/address-groups",
    quota = "addressGroup.num",
    quota_default = 20,
    shareable,
    messages
)]
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
    const MESSAGES: &'static [&'static MessageDef] = &[
        &CreateAddressGroup::DEF,
        &UpdateAddressGroup::DEF,
        &DeleteAddressGroup::DEF,
        &AddAddressesToAddressGroup::DEF,
        &RemoveAddressesFromAddressGroup::DEF,
    ];

    /// The first and the last address of each item, of one family: 4 or 6.
    #[must_use]
    pub fn spans(&self, ip_version: u8) -> Vec<spans::AddressSpan> {
        let spans = self.addresses.iter().filter_map(|item| spans::address_span(item).ok());
        spans.filter(|(first, _)| spans::version(*first) == ip_version).collect()
    }
}

/// Makes an address group. It has what Neutron's has: a name and addresses, of both families.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/address-groups", creates = "AddressGroup")]
pub struct CreateAddressGroup {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Addresses, networks and `first-last`, such as `10.0.0.0/8`; none if absent.
    #[serde(default)]
    #[field(max_len = 1000)]
    pub addresses: Vec<String>,
}

/// Changes an address group: its name, or all its addresses.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/address-groups/{uuid}/actions", action = "updateAddressGroup")]
pub struct UpdateAddressGroup {
    /// The group.
    pub uuid: Id<AddressGroup>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// All its addresses from now on.
    #[field(max_len = 1000)]
    pub addresses: Option<Vec<String>>,
}

/// Deletes an address group that no rule names.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/address-groups/{uuid}")]
pub struct DeleteAddressGroup {
    /// The group.
    pub uuid: Id<AddressGroup>,
}

/// Adds addresses to an address group.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/address-groups/{uuid}/actions", action = "addAddressesToAddressGroup")]
pub struct AddAddressesToAddressGroup {
    /// The group.
    pub uuid: Id<AddressGroup>,
    /// Addresses, networks and `first-last`. What is there already stays.
    #[field(required, max_len = 1000)]
    pub addresses: Vec<String>,
}

/// Takes addresses out of an address group.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/address-groups/{uuid}/actions", action = "removeAddressesFromAddressGroup")]
pub struct RemoveAddressesFromAddressGroup {
    /// The group.
    pub uuid: Id<AddressGroup>,
    /// Items of it, as it has them. What is not there is gone already.
    #[field(required, max_len = 1000)]
    pub addresses: Vec<String>,
}
