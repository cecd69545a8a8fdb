//! What holds for the prefixes that NICs route for.
//!
//! That two holders have one prefix, the rule for claims tells. That of all addresses may meet
//! anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use model::{
    Claim, Id, Kind, Record, Resource,
    resource::{ip_range::IpRange, l2_network::L2Network, release::Release},
};
use store::{Read, Snapshot};
use uuid::Uuid;

use super::{
    Report, Rule,
    rows::{claimed, the},
};

type Holder = (Kind, Uuid);

/// A place in a network.
type Place = (Id<L2Network>, IpAddr);

/// What has addresses beside prefixes: what is claimed as one address, and ranges, by their start.
#[derive(Default)]
struct Others {
    addresses: BTreeMap<Place, (&'static str, Holder)>,
    ranges: BTreeMap<Place, (IpAddr, Id<IpRange>)>,
}

/// Prefixes are apart from each other and from all else that has addresses on their network, and
/// those that rest are waited for.
pub(super) fn prefixes(snapshot: &Snapshot<Record>, report: &mut Report) {
    let (mut found, mut others) = (BTreeSet::new(), Others::default());
    for (claim, holder) in claimed(snapshot) {
        let (place, word) = match claim {
            Claim::Prefix(l2, ip, bits) => {
                found.insert((l2, ip, bits, holder));
                continue;
            }
            Claim::Sharer(l2, ip, _) => {
                found.insert((l2, ip, IpNet::from(ip).prefix_len(), holder));
                continue;
            }
            Claim::Ip(l2, ip) => ((l2, ip), "address"),
            Claim::Gateway(l2, ip, _) => ((l2, ip), "gateway"),
            Claim::Router(l2, ip) => ((l2, ip), "router"),
            _ => continue,
        };
        others.addresses.insert(place, (word, holder));
    }
    for row in snapshot.list(Kind::IpRange) {
        let Some(range) = IpRange::of(&row) else { continue };
        let place = (range.l2_network_uuid, range.start_ip);
        others.ranges.insert(place, (range.end_ip, range.uuid));
    }
    // The shorter one of two that overlap comes before the other.
    let mut last: Option<(Id<L2Network>, IpNet, Holder)> = None;
    for (l2, ip, bits, holder) in found {
        let mut tell = |text: String| report.add(Rule::Prefix, holder, text);
        let Some(net) = IpNet::new(ip, bits).ok().filter(|net| net.trunc() == *net) else {
            tell(format!("{ip}/{bits} is no prefix"));
            continue;
        };
        if !is_waited_for(snapshot, l2, holder) {
            tell(format!("{net} rests, and nobody waits for network {l2}"));
        }
        if bits == 0 {
            continue;
        }
        // One address may be had by several.
        let is_around = |wide: &IpNet| wide.contains(&net) && *wide != net;
        let around = last.filter(|(of, wide, _)| *of == l2 && is_around(wide));
        match around {
            Some((_, wide, other)) => tell(format!("{net} is in {wide} of {}", the(other))),
            None => last = Some((l2, net, holder)),
        }
        if let Some(text) = others.meets(l2, net) {
            tell(format!("{net} has {text}"));
        }
    }
}

impl Others {
    /// What has an address of a prefix.
    fn meets(&self, l2: Id<L2Network>, net: IpNet) -> Option<String> {
        let (low, high) = (net.network(), net.broadcast());
        if let Some(((_, ip), (word, other))) = self.addresses.range((l2, low)..=(l2, high)).next()
        {
            return Some(format!("{ip}, the {word} of {}", the(*other)));
        }
        // Ranges do not overlap, or another rule tells. So only the last one that begins before the
        // prefix ends can reach into it.
        let before = self.ranges.range(..=(l2, high)).next_back();
        let ((_, start), (end, range)) = before.filter(|((of, _), _)| *of == l2)?;
        let meets = *end >= low;
        meets.then(|| format!("addresses of range {range} ({start} to {end})"))
    }
}

/// Of a NIC's prefixes nobody need let go; what rests ends when the hosts that have its network have
/// let go.
fn is_waited_for(snapshot: &Snapshot<Record>, l2: Id<L2Network>, (kind, uuid): Holder) -> bool {
    let row = snapshot.get(kind, uuid);
    let release = row.as_deref().and_then(Release::of);
    release.is_none_or(|release| release.objects.contains(&l2.uuid()))
}
