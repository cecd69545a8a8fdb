//! The settings that hosts are told of, in one way or another.

use model::{
    resource::config::{GlobalConfig, ResourceConfig},
    setting::{self, FLOW_LOG, FlowLogEvents, Setting},
};

/// All of them: those that guests are told of, what closes NICs, and how long connections rest. Rows name one
/// by its place here.
const SETTINGS: [&Setting; 14] = [
    &setting::DHCP_LEASE_TIME,
    &setting::DHCP_SLAAC_ADDRESSES,
    &setting::DHCP_NETNS_ADDRESSES,
    &setting::METADATA_TOKEN,
    &setting::VENDOR_DATA,
    &setting::WITHOUT_GROUP,
    &setting::TCP_OPENING,
    &setting::TCP_ESTABLISHED,
    &setting::TCP_CLOSING,
    &setting::TCP_CLOSED,
    &setting::OPENING,
    &setting::UDP_ESTABLISHED,
    &setting::ICMP,
    &setting::OTHER,
];

/// The first that guests are told nothing of.
const GUESTS: usize = 5;

/// The value that a setting has, by its place.
pub(crate) type Value = (usize, String);

/// The value that a setting has for all, of those that guests are told of.
pub(crate) fn global(row: &GlobalConfig) -> Option<Value> {
    let place = place(&row.category, &row.name).filter(|place| *place < GUESTS)?;
    Some((place, row.value.clone()))
}

/// The value that a setting has for one resource, likewise.
pub(crate) fn own(row: &ResourceConfig) -> Option<Value> {
    let place = place(&row.category, &row.name).filter(|place| *place < GUESTS)?;
    Some((place, row.value.clone()))
}

/// The value that a setting has for all, of the others.
pub(crate) fn guarding(row: &GlobalConfig) -> Option<Value> {
    let place = place(&row.category, &row.name).filter(|place| *place >= GUESTS)?;
    Some((place, row.value.clone()))
}

/// The value that a setting has for one resource, of the others.
pub(crate) fn own_guarding(row: &ResourceConfig) -> Option<Value> {
    let place = place(&row.category, &row.name).filter(|place| *place >= GUESTS)?;
    Some((place, row.value.clone()))
}

/// Which connections all NICs tell of, if they tell of any.
pub(crate) fn flow_log(row: &GlobalConfig) -> Option<FlowLogEvents> {
    events(&row.category, &row.name, &row.value).filter(|events| *events != FlowLogEvents::None)
}

/// Which connections NICs tell of that one resource is about.
pub(crate) fn own_flow_log(row: &ResourceConfig) -> Option<FlowLogEvents> {
    events(&row.category, &row.name, &row.value)
}

fn events(category: &str, name: &str, value: &str) -> Option<FlowLogEvents> {
    if (category, name) != (FLOW_LOG.category, FLOW_LOG.name) {
        return None;
    }
    FlowLogEvents::ALL.iter().find(|events| events.as_str() == value).copied()
}

/// What a setting is: the value of the resource's own, else that of all.
pub(crate) fn value<'a>(
    setting: &Setting,
    own: impl Iterator<Item = &'a Value>,
    globals: impl IntoIterator<Item = &'a Value>,
) -> Option<&'a str> {
    let at = SETTINGS.iter().position(|known| *known == setting)?;
    let mut all = own.chain(globals).filter(|(of, _)| *of == at).map(|(_, value)| &value[..]);
    all.next()
}

fn place(category: &str, name: &str) -> Option<usize> {
    SETTINGS.iter().position(|known| known.category == category && known.name == name)
}
