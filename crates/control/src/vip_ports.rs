//! Which ports of a VIP are taken, found by claims: as much work for the last of ten thousand as for the
//! first.

use model::{
    Claim, Record, Resource,
    resource::{
        port_forwarding::PortForwardingRule,
        vip::{PortProtocol, Vip, VipUse},
    },
};
use store::Read;

use crate::vip;

/// What a router answers itself at an address of its own, by TCP: ssh, and its server.
const OF_ROUTERS: [u16; 2] = [22, 7272];

/// The first ports from `low` to `high` that are taken: first and last of a range.
pub(crate) fn taken(
    read: &impl Read<Record>,
    vip: &Vip,
    protocol: PortProtocol,
    (low, high): (u16, u16),
) -> Option<(u16, u16)> {
    let mut whole = VipUse::ALL.iter().filter(|it| it.is_exclusive);
    if whole.any(|it| vip::is_used(read, vip.uuid, it.kind)) {
        return (low <= high).then_some((low, u16::MAX));
    }
    let is_own = |port: &&u16| vip.system && protocol == PortProtocol::Tcp && **port >= low;
    let own = OF_ROUTERS.iter().find(is_own).map(|port| (*port, *port));
    let taken = own.into_iter().chain(forwarded(read, vip, protocol, low)).min();
    taken.filter(|(first, _)| *first <= high)
}

/// The ports of the rule with `low`, else of the first one above.
fn forwarded(
    read: &impl Read<Record>,
    vip: &Vip,
    protocol: PortProtocol,
    low: u16,
) -> Option<(u16, u16)> {
    let end = |port| Claim::VipPort(vip.uuid, protocol.number(), port);
    // Ranges do not overlap. So the first end from `low` on is that of the range with it, or the start of
    // the next one.
    let (_, (kind, uuid)) = read.first_held(&end(low), &end(u16::MAX))?;
    let row = read.get(kind, uuid)?;
    let rule = PortForwardingRule::of(&row)?;
    Some((rule.vip_port_start.max(low), rule.vip_port_end))
}
