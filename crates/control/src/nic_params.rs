//! `vmNicParams`: what the NICs of a new instance are to be like, as ZStack has it: a list in JSON in a
//! text, with an entry for an L3 network.

use std::net::IpAddr;

use crate::{Txn, nic_plug, vm_instance};
use model::{
    Error, Mac, Result,
    resource::{
        l3_network::L3Network,
        nic_plug::NicParam,
        zone::{EnableEvent, EnableState},
    },
};

/// What a NIC is to be like, by tags and parameters.
pub(crate) struct Asked {
    /// The addresses, one of each family at most.
    pub(crate) addresses: Vec<IpAddr>,
    /// The MAC.
    pub(crate) mac: Option<Mac>,
    /// Whether it passes traffic.
    pub(crate) state: EnableState,
    /// The field of the message that is to blame for an address or a MAC.
    pub(crate) field: &'static str,
}

const FIELD: &str = "vmNicParams";

/// What each NIC of a new instance is to be like, in the order of its networks.
pub(crate) fn of_networks(
    txn: &Txn<'_>,
    l3s: &[L3Network],
    params: Option<&str>,
) -> Result<Vec<Asked>> {
    let entries = read(params)?;
    for (at, entry) in entries.iter().enumerate() {
        let id = entry.l3_network_uuid;
        if !l3s.iter().any(|l3| Some(l3.uuid) == id) {
            return Err(wrong("an entry is for no network of the instance's".into()));
        }
        if entries[..at].iter().any(|other| other.l3_network_uuid == id) {
            return Err(wrong("two entries are for one network".into()));
        }
    }
    let of = |l3: &L3Network| entries.iter().find(|entry| entry.l3_network_uuid == Some(l3.uuid));
    l3s.iter().map(|l3| asked(txn, l3, of(l3))).collect()
}

fn read(params: Option<&str>) -> Result<Vec<NicParam>> {
    let Some(text) = params.filter(|text| !text.trim().is_empty()) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|cause| wrong(cause.to_string()))
}

fn wrong(rule: String) -> Error {
    let form = r#"[{"l3NetworkUuid":"...","ip":"10.0.0.5","mac":"...","state":"enable"}]"#;
    Error::field(FIELD, rule).hint(format!("the form is {form}"))
}

fn asked(txn: &Txn<'_>, l3: &L3Network, entry: Option<&NicParam>) -> Result<Asked> {
    let (mut addresses, mut mac) =
        (vm_instance::static_ips(txn, l3)?, vm_instance::custom_mac(txn, l3)?);
    let Some(entry) = entry else {
        return Ok(Asked { addresses, mac, state: EnableState::Enabled, field: "systemTags" });
    };
    nic_plug::check_driver(entry.driver_type.as_deref()).map_err(|error| error.on_field(FIELD))?;
    if let Some(ip) = entry.ip {
        if let Some(other) = addresses.iter().find(|other| other.is_ipv4() == ip.is_ipv4()) {
            return Err(wrong(format!("a tag asks for {other} and not for {ip}")));
        }
        addresses.push(ip);
    }
    if let Some(wanted) = entry.mac {
        if let Some(other) = mac.filter(|other| *other != wanted) {
            return Err(wrong(format!("a tag asks for {other} and not for {wanted}")));
        }
        mac = Some(wanted);
    }
    let state = match entry.state {
        None | Some(EnableEvent::Enable) => EnableState::Enabled,
        Some(EnableEvent::Disable) => EnableState::Disabled,
    };
    Ok(Asked { addresses, mac, state, field: FIELD })
}
