//! The settings that hosts are told of, in one way or another.

use model::{
    resource::config::{GlobalConfig, ResourceConfig},
    setting::{self, Setting},
};

/// All of them. Rows name one by its place here.
const SETTINGS: [&Setting; 5] = [
    &setting::DHCP_LEASE_TIME,
    &setting::DHCP_SLAAC_ADDRESSES,
    &setting::DHCP_NETNS_ADDRESSES,
    &setting::METADATA_TOKEN,
    &setting::VENDOR_DATA,
];

/// The value that a setting has, by its place.
pub(crate) type Value = (usize, String);

/// The value that a setting has for all.
pub(crate) fn global(row: &GlobalConfig) -> Option<Value> {
    Some((place(&row.category, &row.name)?, row.value.clone()))
}

/// The value that a setting has for one resource.
pub(crate) fn own(row: &ResourceConfig) -> Option<Value> {
    Some((place(&row.category, &row.name)?, row.value.clone()))
}

/// What a setting is: the value of the resource's own, else that of all.
pub(crate) fn value<'a>(
    setting: &Setting,
    own: impl Iterator<Item = &'a Value>,
    globals: &'a [Value],
) -> Option<&'a str> {
    let at = SETTINGS.iter().position(|known| *known == setting)?;
    let mut all = own.chain(globals).filter(|(of, _)| *of == at).map(|(_, value)| &value[..]);
    all.next()
}

fn place(category: &str, name: &str) -> Option<usize> {
    SETTINGS.iter().position(|known| known.category == category && known.name == name)
}
