//! The interfaces of the host that lead into physical networks.

use std::collections::{BTreeMap, BTreeSet};

use hostnet::LinkInfo;
use model::status::HostDevice;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Network, Object, Table},
};

use crate::{kernel::Refusal, plan};

/// An interface that leads into physical networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub ifindex: u32,
    /// Its MAC, which is the host's own there.
    pub mac: [u8; 6],
    /// Whether it is up.
    pub is_up: bool,
    /// The longest packet that it takes, in bytes, without the Ethernet header.
    pub mtu_bytes: u32,
}

/// What has become of each interface that networks name.
pub type Uplinks = BTreeMap<String, Result<Uplink, Refusal>>;

/// The interfaces that the host's networks name.
pub(crate) fn wanted(desired: &Holding) -> BTreeSet<String> {
    physical(desired).map(|(_, interface)| interface.to_owned()).collect()
}

/// What leads into physical networks, as far as it is there.
pub(crate) fn usable(uplinks: &Uplinks) -> BTreeMap<String, Uplink> {
    let usable = uplinks.iter().filter_map(|(name, found)| Some((name, found.as_ref().ok()?)));
    usable.map(|(name, uplink)| (name.clone(), *uplink)).collect()
}

/// Why networks are not in effect, and their ports with them.
pub(crate) fn lacking(desired: &Holding, uplinks: &Uplinks) -> BTreeMap<Uuid, String> {
    let mut lacking = BTreeMap::new();
    for (network, interface) in physical(desired) {
        let reason = match uplinks.get(interface) {
            Some(Ok(uplink)) if uplink.is_up => continue,
            Some(Ok(_)) => format!("its interface {interface} is down: put it up"),
            Some(Err(refusal)) => refusal.to_string(),
            None => format!("its interface {interface} has not been looked for"),
        };
        lacking.insert(network.uuid, reason);
    }
    let ports = plan::ports(desired);
    let ports: Vec<_> = ports
        .filter_map(|port| {
            let reason = lacking.get(&port.network)?;
            Some((port.uuid, format!("its network {}: {reason}", port.network.simple())))
        })
        .collect();
    lacking.extend(ports);
    lacking
}

/// Interfaces that take less than instances may send: what is longer is lost on its way.
pub(crate) fn narrow(desired: &Holding, uplinks: &Uplinks) -> Vec<String> {
    let mut longest: BTreeMap<&str, u32> = BTreeMap::new();
    for port in plan::ports(desired) {
        let network = desired.network(port.network).and_then(Network::uplink);
        if let Some(uplink) = network {
            let bytes = longest.entry(&uplink.interface).or_default();
            *bytes = port.mtu_bytes.max(*bytes);
        }
    }
    let told = longest.into_iter().filter_map(|(name, inside)| {
        let mtu = uplinks.get(name)?.as_ref().ok()?.mtu_bytes;
        (mtu < inside).then(|| {
            format!(
                "interface {name} is too small: its MTU is {mtu} bytes, and instances of physical \
                 networks here send packets of up to {inside}; set the MTU of {name}, and of all \
                 that is on that wire, to {inside}"
            )
        })
    });
    told.collect()
}

/// What the interface is good for.
pub(crate) fn judge(name: &str, link: Option<&LinkInfo>) -> Result<Uplink, Refusal> {
    let refused = |why: String| Err(Refusal(why));
    let Some(link) = link else {
        return refused(format!(
            "the host has no interface {name}: plug it in, or detach the L2 network from the cluster"
        ));
    };
    let device = HostDevice {
        name: name.to_owned(),
        is_ethernet: link.is_ethernet && link.mac != [0; 6],
        is_owned: link.controller.is_some(),
        // One that is down may come up.
        is_up: true,
        ..HostDevice::default()
    };
    if let Some(why) = device.why_no_uplink() {
        return refused(why);
    }
    let (ifindex, mac, mtu_bytes) = (link.index, link.mac, link.mtu_bytes);
    Ok(Uplink { ifindex, mac, is_up: link.is_up, mtu_bytes })
}

fn physical(desired: &Holding) -> impl Iterator<Item = (&Network, &str)> {
    plan::of_table(desired, Table::Network).filter_map(|object| match object {
        Object::Network(network) => Some((network, network.uplink()?.interface.as_str())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, uuid};

    fn link(change: impl FnOnce(&mut LinkInfo)) -> LinkInfo {
        let mut link = LinkInfo {
            index: 5,
            mac: [2, 0, 0, 0, 0, 1],
            is_ethernet: true,
            is_up: true,
            mtu_bytes: 1500,
            ..LinkInfo::default()
        };
        change(&mut link);
        link
    }

    #[test]
    fn an_interface_that_is_something_else_already_is_refused_with_what_to_do() {
        let judged = |change: fn(&mut LinkInfo)| judge("eth1", Some(&link(change)));
        let up = Uplink { ifindex: 5, mac: [2, 0, 0, 0, 0, 1], is_up: true, mtu_bytes: 1500 };
        assert_eq!(judged(|_| {}), Ok(up));
        let told = |judged: Result<Uplink, Refusal>, what: &str| {
            let Refusal(text) = judged.unwrap_err();
            assert!(text.contains("eth1") && text.contains(what), "{text}");
        };
        told(judge("eth1", None), "no interface");
        told(judged(|link| link.is_ethernet = false), "no Ethernet");
        told(judged(|link| link.mac = [0; 6]), "no Ethernet");
        told(judged(|link| link.controller = Some(9)), "nomaster");
    }

    #[test]
    fn ports_say_what_their_network_lacks() {
        let objects = [
            sample::uplink(1),
            sample::instance(sample::INSTANCE),
            sample::port(sample::PORT_A, sample::INSTANCE, sample::NETWORK_A, 5),
        ];
        let desired: Holding = objects.into_iter().collect();
        assert_eq!(wanted(&desired), ["eth1".to_owned()].into());
        let uplink = Uplink { ifindex: 5, mac: [2, 0, 0, 0, 0, 1], is_up: true, mtu_bytes: 1500 };
        let with = |found| lacking(&desired, &[("eth1".to_owned(), found)].into());
        assert_eq!(with(Ok(uplink)), BTreeMap::new());
        let told = with(Ok(Uplink { is_up: false, ..uplink }));
        assert!(told[&uuid(1)].contains("eth1 is down"), "{told:?}");
        assert!(told[&uuid(sample::PORT_A)].contains("eth1 is down"), "{told:?}");
        let small = |mtu_bytes| {
            let uplinks = [("eth1".to_owned(), Ok(Uplink { mtu_bytes, ..uplink }))].into();
            narrow(&desired, &uplinks)
        };
        assert_eq!(small(1450), Vec::<String>::new());
        let [text] = &small(1449)[..] else { panic!() };
        assert!(text.contains("eth1") && text.ends_with("to 1450"), "{text}");
        let told = with(Err(Refusal("gone".to_owned())));
        assert!(told[&uuid(sample::PORT_A)].ends_with(": gone"), "{told:?}");
    }
}
