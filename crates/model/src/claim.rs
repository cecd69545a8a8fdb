//! Claims: what at most one resource may hold at a time. A resource says what it holds
//! ([`crate::Resource::claims`]); the store refuses a second holder.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Id, Mac,
    resource::{
        account::Account, cluster::Cluster, host::Host, ip_range::IpRange, l2_network::L2Network,
        l3_network::L3Network, port_forwarding::Forwarded, vip::Vip, vm_instance::VmInstance,
        vm_nic::VmNic, vtep::Vtep, zone::Zone,
    },
};

/// Something that at most one resource holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Claim {
    /// An account's name: people log in with it.
    AccountName(String),
    /// A name of one of an account's users.
    UserName(Id<Account>, String),
    /// An account's quota, by its name.
    Quota(Id<Account>, String),
    /// That a resource is shared with an account; nothing: with every account.
    Share(Uuid, Option<Id<Account>>),
    /// A host's address on the management network.
    ManagementIp(IpAddr),
    /// The address of a tunnel end in a pool.
    VtepIp(Id<L2Network>, IpAddr),
    /// A VNI that rests in a zone, as builds before pools had VNIs of their own wrote it.
    Vni(Id<Zone>, u32),
    /// A VNI of a pool, which is in the zone.
    PoolVni(Id<Zone>, Id<L2Network>, u32),
    /// A VNI that rests in a zone, and the pool that had it. It is there to be found: the pool may be
    /// gone, and another one have its VTEPs.
    RestingVni(Id<Zone>, u32, Id<L2Network>),
    /// The address of a tunnel end that left a pool whose networks its host may still have. It is
    /// there to be found.
    FormerVtep(IpAddr, Id<L2Network>, Id<Vtep>),
    /// An interface of a cluster's hosts with a tag, or without one: two networks there would be one.
    Wire(Id<Cluster>, String, Option<u16>),
    /// A MAC on an L2 network.
    Mac(Id<L2Network>, Mac),
    /// An address on an L2 network: all its L3 networks share one broadcast domain.
    Ip(Id<L2Network>, IpAddr),
    /// A prefix that a NIC routes for on an L2 network: its lowest address and its bits.
    Prefix(Id<L2Network>, IpAddr, u8),
    /// A prefix that is one address, which several NICs of an L2 network may have.
    Sharer(Id<L2Network>, IpAddr, Id<VmNic>),
    /// An end of an IP range on an L2 network: there they do not overlap. By its ends a range is found
    /// among the claims.
    RangeEnd(Id<L2Network>, IpAddr),
    /// The gateway of a range on an L2 network, which others may have too. It is there to be found.
    Gateway(Id<L2Network>, IpAddr, Id<IpRange>),
    /// The address of an L3 network's router on an L2 network.
    Router(Id<L2Network>, IpAddr),
    /// That a range is for NICs of an L3 network, with its family. It is there to be found.
    Subnet(Id<L3Network>, u8, Id<IpRange>),
    /// An instance's hostname on an L3 network, in lower case.
    Hostname(Id<L3Network>, String),
    /// An instance on a host. A host that still has it may be found among the claims.
    Running(Id<Host>, Id<VmInstance>),
    /// A NIC without an instance on a host, which may be found among the claims likewise.
    Plugged(Id<Host>, Id<VmNic>),
    /// A device of a host: one NIC is plugged into it.
    Device(Id<Host>, String),
    /// The EIP of a NIC's address of a family.
    Eip(Id<VmNic>, u8),
    /// That a VIP leads to NICs of an L3 network, by this use of it. It is there to be found.
    Peer(Id<Vip>, Id<L3Network>, Uuid),
    /// An end of a range of ports of a VIP, of the protocol with this number: there they do not overlap.
    /// By its ends a range is found among the claims.
    VipPort(Id<Vip>, u8, u16),
    /// Ports of a NIC that a rule leads to, which others may lead to, too. It is there to be found.
    Forwarded(Forwarded),
}

impl Claim {
    /// The first and the last claim that a VIP leads to an L3 network, from this one on.
    #[must_use]
    pub const fn peers(vip: Id<Vip>, from: Id<L3Network>) -> (Self, Self) {
        let (low, high) = (Uuid::nil(), Uuid::max());
        (Self::Peer(vip, from, low), Self::Peer(vip, Id::new(high), high))
    }

    /// The claim that follows in the same sequence; `None` at its end, and for what is no sequence.
    #[must_use]
    pub fn next(&self) -> Option<Self> {
        match self {
            Claim::PoolVni(zone, pool, vni) => {
                Some(Claim::PoolVni(*zone, *pool, vni.checked_add(1)?))
            }
            Claim::Ip(l2, ip) => Some(Claim::Ip(*l2, next_ip(*ip)?)),
            Claim::AccountName(_)
            | Claim::UserName(..)
            | Claim::Quota(..)
            | Claim::Share(..)
            | Claim::ManagementIp(_)
            | Claim::VtepIp(..)
            | Claim::Vni(..)
            | Claim::RestingVni(..)
            | Claim::FormerVtep(..)
            | Claim::Wire(..)
            | Claim::Mac(..)
            | Claim::Prefix(..)
            | Claim::Sharer(..)
            | Claim::RangeEnd(..)
            | Claim::Gateway(..)
            | Claim::Router(..)
            | Claim::Subnet(..)
            | Claim::Hostname(..)
            | Claim::Running(..)
            | Claim::Plugged(..)
            | Claim::Device(..)
            | Claim::Eip(..)
            | Claim::Peer(..)
            | Claim::VipPort(..)
            | Claim::Forwarded(_) => None,
        }
    }

    /// Whether hosts act on it. Then it must not be given to another resource before each host that
    /// knew the former holder has confirmed that it forgot it.
    #[must_use]
    pub const fn rests(&self) -> bool {
        match self {
            Claim::Vni(..)
            | Claim::PoolVni(..)
            | Claim::RestingVni(..)
            | Claim::FormerVtep(..)
            | Claim::Mac(..)
            | Claim::Ip(..)
            | Claim::Prefix(..)
            | Claim::Sharer(..)
            | Claim::Running(..)
            | Claim::Plugged(..) => true,
            Claim::AccountName(_)
            | Claim::UserName(..)
            | Claim::Quota(..)
            | Claim::Share(..)
            | Claim::ManagementIp(_)
            | Claim::VtepIp(..)
            | Claim::Wire(..)
            | Claim::RangeEnd(..)
            | Claim::Gateway(..)
            | Claim::Router(..)
            | Claim::Subnet(..)
            | Claim::Hostname(..)
            // A host does in order what it is told: it lets go of the NIC first.
            | Claim::Device(..)
            // Nothing carries these yet.
            | Claim::Eip(..)
            | Claim::Peer(..)
            | Claim::VipPort(..)
            | Claim::Forwarded(_) => false,
        }
    }

    /// What else rests while this does: a VNI of a pool is given to no other pool of the zone either.
    #[must_use]
    pub const fn resting(&self) -> Option<Self> {
        match self {
            Claim::PoolVni(zone, pool, vni) => Some(Claim::RestingVni(*zone, *vni, *pool)),
            _ => None,
        }
    }

    /// The network in which hosts act on it.
    #[must_use]
    pub const fn network(&self) -> Option<Id<L2Network>> {
        match self {
            Claim::Mac(l2, _)
            | Claim::Ip(l2, _)
            | Claim::Prefix(l2, ..)
            | Claim::Sharer(l2, ..) => Some(*l2),
            Claim::AccountName(_)
            | Claim::UserName(..)
            | Claim::Quota(..)
            | Claim::Share(..)
            | Claim::ManagementIp(_)
            | Claim::VtepIp(..)
            | Claim::Wire(..)
            | Claim::Vni(..)
            | Claim::PoolVni(..)
            | Claim::RestingVni(..)
            | Claim::FormerVtep(..)
            | Claim::RangeEnd(..)
            | Claim::Gateway(..)
            | Claim::Router(..)
            | Claim::Subnet(..)
            | Claim::Hostname(..)
            | Claim::Running(..)
            | Claim::Plugged(..)
            | Claim::Device(..)
            | Claim::Eip(..)
            | Claim::Peer(..)
            | Claim::VipPort(..)
            | Claim::Forwarded(_) => None,
        }
    }
}

fn next_ip(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

impl fmt::Display for Claim {
    /// What is claimed, for an error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::AccountName(name) | Claim::UserName(_, name) => {
                write!(f, "the name \"{name}\"")
            }
            Claim::Quota(_, name) => write!(f, "the quota {name}"),
            Claim::Share(resource, _) => write!(f, "the sharing of {}", resource.simple()),
            Claim::ManagementIp(ip)
            | Claim::VtepIp(_, ip)
            | Claim::FormerVtep(ip, ..)
            | Claim::Ip(_, ip)
            | Claim::RangeEnd(_, ip)
            | Claim::Gateway(_, ip, _)
            | Claim::Sharer(_, ip, _)
            | Claim::Router(_, ip) => write!(f, "{ip}"),
            Claim::Prefix(_, ip, bits) => write!(f, "{ip}/{bits}"),
            Claim::Vni(_, vni) | Claim::PoolVni(_, _, vni) | Claim::RestingVni(_, vni, _) => {
                write!(f, "VNI {vni}")
            }
            Claim::Wire(cluster, interface, None) => {
                write!(f, "{interface} in cluster {cluster}, untagged,")
            }
            Claim::Wire(cluster, interface, Some(vlan)) => {
                write!(f, "VLAN {vlan} of {interface} in cluster {cluster}")
            }
            Claim::Mac(_, mac) => write!(f, "{mac}"),
            Claim::Subnet(l3, version, _) => write!(f, "the IPv{version} subnet of {l3}"),
            Claim::Hostname(_, name) => write!(f, "the hostname \"{name}\""),
            Claim::Running(_, instance) => write!(f, "instance {instance}"),
            Claim::Plugged(_, nic) => write!(f, "NIC {nic}"),
            Claim::Device(host, device) => write!(f, "device {device} of host {host}"),
            Claim::Eip(nic, version) => write!(f, "the IPv{version} address of NIC {nic}"),
            Claim::Peer(vip, l3, _) => write!(f, "the way from VIP {vip} to L3 network {l3}"),
            Claim::VipPort(vip, _, port) => write!(f, "port {port} of VIP {vip}"),
            Claim::Forwarded(ports) => write!(f, "port {} of NIC {}", ports.first, ports.nic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_in_the_order_of_its_claims_and_ends() {
        let l2 = Id::new(Uuid::from_u128(1));
        for (ip, next) in [
            ("10.0.0.255", Some("10.0.1.0")),
            ("255.255.255.255", None),
            ("fd00::ffff", Some("fd00::1:0")),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
        ] {
            let claim = Claim::Ip(l2, ip.parse().unwrap());
            let next = next.map(|next| Claim::Ip(l2, next.parse().unwrap()));
            assert_eq!(claim.next(), next);
            assert!(next.is_none_or(|next| claim < next));
        }
        assert_eq!(Claim::Mac(l2, Mac([0; 6])).next(), None);
    }
}
