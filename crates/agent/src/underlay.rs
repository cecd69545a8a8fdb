//! Whether the underlay is large enough for what instances here may send through tunnels. Packets
//! that do not fit are cut in pieces or lost, and nobody but the host can tell why.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use dataplane::Tables;
use hostnet::{Netlink, Way};
use model::mtu::{Around, Family};
use serde::Serialize;
use wire::{holding::Holding, object::Port};

use crate::plan;

/// Most peers to which the way is looked up, for each own VTEP: those of one pool mostly share it.
const PEERS_MAX: usize = 16;
/// Most entries of the map of VTEPs that are looked at for that, in each pass.
const ENTRIES_MAX: usize = 1024;

/// The host's own VTEPs, with some of the VTEPs to which tunnels lead from there.
pub type Tunnels = BTreeMap<IpAddr, BTreeSet<IpAddr>>;

/// The ways from own VTEPs.
pub type Ways = BTreeMap<IpAddr, Way>;

/// The longest packet that instances here may send, for each own VTEP.
pub(crate) fn longest(desired: &Holding) -> BTreeMap<IpAddr, Longest> {
    let mut longest: BTreeMap<IpAddr, Longest> = BTreeMap::new();
    let tunnel = |port: &Port| desired.network(port.network)?.tunnel();
    for port in plan::ports(desired) {
        let Some(tunnel) = tunnel(port) else { continue };
        let family = Family::of(tunnel.local_vtep);
        let around = if tunnel.is_gre { Around::gre(family) } else { Around::vxlan(family) };
        let this = Longest { inside: port.mtu_bytes, around };
        let of_vtep = longest.entry(tunnel.local_vtep).or_insert(this);
        if this.needed() > of_vtep.needed() {
            *of_vtep = this;
        }
    }
    longest
}

/// The longest packet that instances here may send from a VTEP, with what is put around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Longest {
    inside: u32,
    around: Around,
}

impl Longest {
    /// With what is around it, in bytes.
    pub(crate) fn needed(self) -> u32 {
        self.around.needed(self.inside)
    }
}

/// The tunnels of these own VTEPs, as far as maps show them.
pub(crate) fn tunnels<'a>(own: impl Iterator<Item = &'a IpAddr>, tables: &Tables) -> Tunnels {
    let mut tunnels: Tunnels = own.map(|vtep| (*vtep, BTreeSet::new())).collect();
    for (key, vtep) in tables.vteps.iter().take(ENTRIES_MAX) {
        let peers = tunnels.get_mut(&IpAddr::from(vtep.local));
        if let Some(peers) = peers.filter(|peers| peers.len() < PEERS_MAX) {
            peers.insert(key.addr.into());
        }
    }
    tunnels
}

/// Asks the kernel for the ways. VTEPs that no device has are left out.
pub(crate) async fn ways(netlink: &Netlink, tunnels: &Tunnels) -> Result<Ways, hostnet::Error> {
    let mut ways = Ways::new();
    for (own, peers) in tunnels {
        let way = netlink.narrowest_way(*own, peers.iter().copied()).await?;
        ways.extend(way.map(|way| (*own, way)));
    }
    Ok(ways)
}

/// All devices by which tunnels leave.
pub(crate) fn devices(ways: &Ways) -> BTreeSet<u32> {
    ways.values().map(|way| way.index).collect()
}

/// The devices through which packets from other VTEPs may come in past the tunnel device: it takes
/// IPv4 and Ethernet. That they come in where answers leave is likely, and where not, they come out
/// of the tunnel device.
pub(crate) fn direct<'a>(ways: impl IntoIterator<Item = (&'a IpAddr, &'a Way)>) -> BTreeSet<u32> {
    let is_direct = |(vtep, way): &(&IpAddr, &Way)| vtep.is_ipv4() && way.is_ethernet;
    ways.into_iter().filter(is_direct).map(|(_, way)| way.index).collect()
}

/// An own VTEP, and what is between it and others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Underlay {
    /// The own VTEP.
    pub vtep: IpAddr,
    /// The device by which packets leave.
    pub device: String,
    /// The longest packet that passes, in bytes.
    pub mtu_bytes: u32,
    /// The longest packet that there may be, in bytes.
    pub needed_bytes: u32,
    /// That this is too little, in words.
    pub trouble: Option<String>,
}

/// Compares what may be sent with the ways that there are.
pub(crate) fn compare(longest: &BTreeMap<IpAddr, Longest>, ways: &Ways) -> Vec<Underlay> {
    let line = |(vtep, way): (&IpAddr, &Way)| {
        let longest = *longest.get(vtep)?;
        let (Longest { inside, around }, family) = (longest, Family::of(*vtep));
        let (vtep, mtu_bytes, needed_bytes) = (*vtep, way.mtu_bytes, longest.needed());
        let trouble = (mtu_bytes < needed_bytes).then(|| {
            let device = &way.device;
            let who = match way.route_to {
                Some(to) => format!("the route to {to} through {device}"),
                None => device.clone(),
            };
            format!(
                "the underlay is too small: {who} has an MTU of {mtu_bytes} bytes, and instances \
                 here send packets of up to {inside} bytes, to which {family} tunnels add {}; set \
                 the MTU of {who}, and of all that is between the hosts, to {needed_bytes}",
                around.bytes()
            )
        });
        Some(Underlay { vtep, device: way.device.clone(), mtu_bytes, needed_bytes, trouble })
    };
    ways.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernel::Ties, ledger::Ledger, sample};

    fn troubles(desired: &Holding, way: Way) -> Vec<String> {
        let ways = [(IpAddr::from([192, 0, 2, 1]), way)].into();
        compare(&longest(desired), &ways).into_iter().filter_map(|line| line.trouble).collect()
    }

    #[test]
    fn an_underlay_that_is_too_small_is_told_with_the_mtu_that_it_must_have() {
        let desired = sample::two_networks();
        let way = |mtu_bytes| {
            let (device, is_ethernet, route_to) = ("eth0".to_owned(), true, None);
            Way { device, index: 2, is_ethernet, mtu_bytes, route_to }
        };
        assert_eq!(troubles(&desired, way(1500)), Vec::<String>::new());
        let told = troubles(&desired, way(1499));
        let [text] = &told[..] else { panic!("{told:?}") };
        assert!(text.contains("eth0 has an MTU of 1499") && text.ends_with("to 1500"), "{text}");
        let to = Some([192, 0, 2, 2].into());
        let [text] = &troubles(&desired, Way { route_to: to, ..way(1400) })[..] else { panic!() };
        assert!(text.contains("the route to 192.0.2.2 through eth0 has an MTU of 1400"), "{text}");
        assert_eq!(troubles(&Holding::default(), way(60)), Vec::<String>::new(), "nobody sends");
    }

    #[test]
    fn tunnels_lead_to_the_peers_that_the_maps_know() {
        let desired = sample::two_networks();
        let own = longest(&desired);
        let ledger = Ledger::of(&desired, &Ties::default());
        let [one, two] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        assert_eq!(tunnels(own.keys(), ledger.tables()), [(one, [two].into())].into());
    }
}
