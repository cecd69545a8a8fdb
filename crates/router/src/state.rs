//! What a router is to be. It is complete: what was there before and is not in it goes away.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use model::Mac;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A router, as its host wants it. On the wire it is JSON, in camelCase; a field that is not known is
/// refused, as both ends are of one release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Desired {
    /// The router that it is for.
    pub router: Uuid,
    /// Later ones have higher numbers.
    pub generation: u64,
    /// Its NICs. A device with none of their MACs is left alone and let nothing through.
    pub nics: Vec<Nic>,
    /// Gateways of the default routes, one of each family at most, each on a network of a NIC.
    pub gateways: Vec<IpAddr>,
    /// Who may open connections to the outside without an address of its own there.
    pub source_nats: Vec<SourceNat>,
    /// Elastic addresses.
    pub eips: Vec<Eip>,
    /// Forwarded ports.
    pub forwardings: Vec<Forwarding>,
}

/// What a NIC is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The router's agent listens there, and its host speaks to it.
    Management,
    /// The outside.
    Public,
    /// Instances.
    Guest,
}

/// A NIC of the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Nic {
    /// By which it is found among the devices.
    pub mac: Mac,
    /// What it is for; several things where networks coincide.
    pub roles: BTreeSet<Role>,
    /// Its own addresses, each with the prefix of its network.
    pub addresses: Vec<IpNet>,
    /// Further addresses that it answers for (VIPs).
    pub vips: BTreeSet<IpAddr>,
    /// Its MTU, in bytes.
    pub mtu_bytes: u32,
}

/// Instances that share a public address for what they open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceNat {
    /// The NIC by which they come.
    pub nic: Mac,
    /// Their addresses.
    pub guests: IpNet,
    /// The public address, of a public NIC.
    pub to: IpAddr,
}

/// A public address that stands for an instance, both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Eip {
    /// Of the EIP.
    pub uuid: Uuid,
    /// The public address.
    pub vip: IpAddr,
    /// The instance's address.
    pub guest: IpAddr,
    /// What comes in by it has the router's own address as its source then: the instance needs no route
    /// back.
    pub hides_source: bool,
}

/// Which protocol's ports are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// Its word in nftables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Ports of a public address that stand for as many of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forwarding {
    /// Of the rule.
    pub uuid: Uuid,
    /// The public address.
    pub vip: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The first port there.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// The instance's address.
    pub guest: IpAddr,
    /// The first port there.
    pub guest_first: u16,
    /// From where it may be used; from anywhere if absent.
    pub allowed: Option<IpNet>,
    /// As [`Eip::hides_source`].
    pub hides_source: bool,
}
