//! L2 network: one broadcast domain, or the pool that VXLAN or GRE networks are made from. One resource
//! with several faces, as ZStack has a query for each type.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    l2_gre::{CreateL2GreNetwork, CreateL2GreNetworkPool},
    l2_physical::{ChangeL2NetworkVlanId, CreateL2NoVlanNetwork, CreateL2VlanNetwork},
    l2_vxlan::{CreateL2VxlanNetwork, CreateL2VxlanNetworkPool},
    tag::TagForm,
    zone::Zone,
};
use crate::{
    Claim, FieldDef, FieldType, Id, Kind, Message, MessageDef, Plain, Record, Relation, Resource,
    Update,
    declare::Column,
    relation::OnDelete,
    resource::{cluster::Cluster, l2_attachment::L2NetworkClusterRef},
    shown::{Child, Derived, Face, LIST_MAX, Shown, View},
    words,
};

words! {
    /// What joins the ports on a host.
    VSwitchType {
        /// ZStack's default; netloom's data plane stands in for it.
        Bridge = "LinuxBridge",
    }
}

/// A broadcast domain, or a pool of VNIs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(
    faces,
    also,
    children,
    derived,
    aliases,
    claims,
    shareable,
    tags,
    quota = "vxlan.num",
    quota_default = 8,
    messages
)]
pub struct L2Network {
    /// Its id.
    pub uuid: Id<L2Network>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Its zone.
    #[field(on_delete = "cascade")]
    pub zone_uuid: Id<Zone>,
    /// The interface that carries it; of a pool, for people.
    pub physical_interface: Option<String>,
    /// What carries its frames.
    #[field(flatten)]
    #[serde(flatten)]
    pub segment: Segment,
    /// Its number in the data plane; never reused.
    #[field(hidden)]
    pub number: u32,
}

/// What carries the frames of an L2 network. Written as ZStack does: `type`, and the type's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum Segment {
    /// The physical network itself, untagged.
    #[serde(rename = "L2NoVlanNetwork")]
    NoVlan,
    /// The physical network with an IEEE 802.1Q tag.
    #[serde(rename = "L2VlanNetwork")]
    Vlan {
        /// The tag: 1 to 4094.
        vlan: u16,
    },
    /// Tunnels between hosts (RFC 7348).
    #[serde(rename = "VxlanNetwork")]
    Vxlan {
        /// VXLAN network identifier, 24 bits.
        vni: u32,
        /// The pool that it was made from.
        pool_uuid: Id<L2Network>,
    },
    /// None: other networks are made from it.
    #[serde(rename = "VxlanNetworkPool")]
    VxlanPool,
    /// Tunnels between hosts in GRE (RFC 2784).
    #[serde(rename = "GreNetwork")]
    Gre {
        /// The key of its frames (RFC 2890), 24 bits.
        vni: u32,
        /// The pool that it was made from.
        pool_uuid: Id<L2Network>,
    },
    /// None: networks in GRE are made from it.
    #[serde(rename = "GreNetworkPool")]
    GrePool,
}

words! {
    /// The type of an L2 network.
    L2Type {
        /// Untagged.
        NoVlan = "L2NoVlanNetwork",
        /// Tagged.
        Vlan = "L2VlanNetwork",
        /// Tunnelled.
        Vxlan = "VxlanNetwork",
        /// A pool.
        VxlanPool = "VxlanNetworkPool",
        /// Tunnelled in GRE.
        Gre = "GreNetwork",
        /// A pool of such.
        GrePool = "GreNetworkPool",
    }
}

/// The types from which networks behind tunnels are made.
const POOLS: &[&str] = &[L2Type::VxlanPool.as_str(), L2Type::GrePool.as_str()];

impl Segment {
    /// The word for it.
    #[must_use]
    pub const fn of_type(&self) -> L2Type {
        match self {
            Segment::NoVlan => L2Type::NoVlan,
            Segment::Vlan { .. } => L2Type::Vlan,
            Segment::Vxlan { .. } => L2Type::Vxlan,
            Segment::VxlanPool => L2Type::VxlanPool,
            Segment::Gre { .. } => L2Type::Gre,
            Segment::GrePool => L2Type::GrePool,
        }
    }

    /// Its tag or VNI.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.vlan().map(u32::from).or_else(|| self.tunnel().map(|(vni, _)| vni))
    }

    /// The VNI and the pool of a network behind tunnels.
    #[must_use]
    pub const fn tunnel(&self) -> Option<(u32, Id<L2Network>)> {
        match self {
            Segment::Vxlan { vni, pool_uuid } | Segment::Gre { vni, pool_uuid } => {
                Some((*vni, *pool_uuid))
            }
            Segment::NoVlan | Segment::Vlan { .. } | Segment::VxlanPool | Segment::GrePool => None,
        }
    }

    /// Whether networks behind tunnels are made from it.
    #[must_use]
    pub const fn is_pool(&self) -> bool {
        matches!(self, Segment::VxlanPool | Segment::GrePool)
    }

    /// Whether its frames, or those of networks that are made from it, are in GRE.
    #[must_use]
    pub const fn is_gre(&self) -> bool {
        matches!(self, Segment::Gre { .. } | Segment::GrePool)
    }

    /// The tag of a VLAN.
    #[must_use]
    pub const fn vlan(&self) -> Option<u16> {
        match self {
            Segment::Vlan { vlan } => Some(*vlan),
            Segment::NoVlan | Segment::Vxlan { .. } | Segment::VxlanPool => None,
            Segment::Gre { .. } | Segment::GrePool => None,
        }
    }

    /// The pool that it was made from.
    #[must_use]
    pub const fn pool(&self) -> Option<Id<L2Network>> {
        match self.tunnel() {
            Some((_, pool)) => Some(pool),
            None => None,
        }
    }
}

impl L2Network {
    const TAGS: &'static [TagForm] = &[TagForm {
        form: "l2NetworkUuid::{l2NetworkUuid}::clusterUuid::{clusterUuid}::cidr::{{cidr}}",
        at_any_time: false,
        of_field: false,
        doc: "Where the VTEPs of a pool are in a cluster, when it is attached.",
    }];

    const MESSAGES: &'static [&'static MessageDef] = &[
        &CreateL2NoVlanNetwork::DEF,
        &CreateL2VlanNetwork::DEF,
        &ChangeL2NetworkVlanId::DEF,
        &CreateL2VxlanNetworkPool::DEF,
        &CreateL2VxlanNetwork::DEF,
        &CreateL2GreNetworkPool::DEF,
        &CreateL2GreNetwork::DEF,
        &UpdateL2Network::DEF,
        &DeleteL2Network::DEF,
        &GetL2NetworkTypes::DEF,
        &GetVSwitchTypes::DEF,
    ];

    /// The pool that a VXLAN or GRE network was made from.
    pub const POOL: Relation<Self, Self> = Relation::new("poolUuid");

    /// What is attached to clusters for this network: itself, or the pool that it was made from.
    #[must_use]
    pub fn attached(&self) -> Id<L2Network> {
        self.segment.pool().unwrap_or(self.uuid)
    }

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        match self.segment.tunnel() {
            Some((vni, pool)) => vec![Claim::PoolVni(self.zone_uuid, pool, vni)],
            None => Vec::new(),
        }
    }

    const FACES: &'static [Face] = &[
        Face { name: "L2Network", path: "/l2-networks", only: None },
        Face {
            name: "L2VlanNetwork",
            path: "/l2-networks/vlan",
            only: Some(("type", L2Type::Vlan.as_str())),
        },
        Face {
            name: "L2VxlanNetwork",
            path: "/l2-networks/vxlan",
            only: Some(("type", L2Type::Vxlan.as_str())),
        },
        Face {
            name: "L2VxlanNetworkPool",
            path: "/l2-networks/vxlan-pool",
            only: Some(("type", L2Type::VxlanPool.as_str())),
        },
        Face {
            name: "L2GreNetwork",
            path: "/l2-networks/gre",
            only: Some(("type", L2Type::Gre.as_str())),
        },
        Face {
            name: "L2GreNetworkPool",
            path: "/l2-networks/gre-pool",
            only: Some(("type", L2Type::GrePool.as_str())),
        },
    ];

    const ALSO: &'static [Column] = &[
        Column::computed(FieldDef::of::<L2Type>("type", "What carries its frames."), |record| {
            read(record, |l2| Plain::word(l2.segment.of_type().as_str()))
        })
        .indexed(),
        Column::computed(
            FieldDef::of::<Option<u32>>("vlan", "The tag of a VLAN network."),
            |record| {
                read(record, |l2| match l2.segment {
                    Segment::Vlan { vlan } => Plain::Integer(vlan.into()),
                    _ => Plain::Null,
                })
            },
        )
        .indexed(),
        Column::computed(
            FieldDef::of::<Option<u32>>(
                "vni",
                "The VXLAN network identifier (RFC 7348), or the key of GRE (RFC 2890).",
            ),
            |record| {
                read(record, |l2| {
                    let vni = l2.segment.tunnel().map(|(vni, _)| vni);
                    vni.map_or(Plain::Null, |vni| Plain::Integer(vni.into()))
                })
            },
        )
        .indexed(),
        Column::computed(
            FieldDef::of::<Option<Id<L2Network>>>(
                "poolUuid",
                "The pool of a VXLAN or GRE network.",
            ),
            |record| {
                read(record, |l2| {
                    l2.segment.pool().map_or(Plain::Null, |pool| Plain::Uuid(pool.uuid()))
                })
            },
        )
        .on_delete(OnDelete::Cascade),
    ];

    const CHILDREN: &'static [Child] = &[
        Self::of_pool("attachedVtepRefs", Kind::Vtep, "poolUuid", Shown::Fields),
        Self::of_pool("remoteVteps", Kind::RemoteVtep, "poolUuid", Shown::Fields),
        Self::of_pool("attachedVxlanNetworkRefs", Kind::L2Network, "poolUuid", Shown::Fields),
        Self::of_pool("attachedVniRanges", Kind::VniRange, "l2NetworkUuid", Shown::Fields),
        Child::unseen("l3Network", Kind::L3Network, "l2NetworkUuid"),
        Child::unseen("clusterRef", Kind::L2NetworkClusterRef, "l2NetworkUuid"),
    ];

    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("cluster", "attachedCluster"),
        ("l2VxlanNetwork", "attachedVxlanNetworkRefs"),
        ("remotevtep", "remoteVteps"),
        ("vniRange", "attachedVniRanges"),
        ("vtep", "attachedVtepRefs"),
        ("vxlanPool", "pool"),
    ];

    const fn of_pool(name: &'static str, kind: Kind, by: &'static str, shown: Shown) -> Child {
        Child { name, kind, by, order: None, shown, only: POOLS }
    }

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<Option<u32>>("virtualNetworkId", "Its tag or VNI."),
            read: |record, _| {
                let number = L2Network::of(record).and_then(|l2| l2.segment.number());
                number.map_or(Plain::Null, |number| Plain::Integer(number.into()))
            },
            found_by: &["vlan", "vni"],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Vec<Id<Cluster>>>(
                "attachedClusterUuids",
                "The clusters in which it is; a VXLAN or GRE network is where its pool is.",
            ),
            read: |record, view| {
                let refs = attachments(record, view);
                Plain::List(refs.iter().map(|r| Plain::Uuid(r.cluster_uuid.uuid())).collect())
            },
            found_by: &["clusterRef.clusterUuid", "pool.clusterRef.clusterUuid"],
            only: &[],
        },
        Derived {
            field: FieldDef {
                kind: FieldType::Object,
                ..FieldDef::of::<serde_json::Value>(
                    "attachedCidrs",
                    "The network of the VTEPs in each cluster.",
                )
            },
            read: |record, view| {
                let refs = attachments(record, view);
                let cidr = |r: &L2NetworkClusterRef| {
                    Some((r.cluster_uuid.to_string(), r.vtep_cidr?.to_string().into()))
                };
                Plain::Object(serde_json::Value::Object(refs.iter().filter_map(cidr).collect()))
            },
            found_by: &[],
            only: POOLS,
        },
    ];
}

fn read<'a>(record: &'a Record, of: impl FnOnce(&'a L2Network) -> Plain<'a>) -> Plain<'a> {
    L2Network::of(record).map_or(Plain::Null, of)
}

/// A network's presences in clusters.
fn attachments(record: &Record, view: &dyn View) -> Vec<L2NetworkClusterRef> {
    let Some(l2) = L2Network::of(record) else { return Vec::new() };
    let attached = l2.attached().uuid();
    let field = L2NetworkClusterRef::L2_NETWORK.field;
    let refs = view.pointing(Kind::L2NetworkClusterRef, field, attached, LIST_MAX);
    let mut refs: Vec<_> =
        refs.iter().filter_map(|r| L2NetworkClusterRef::of(r).cloned()).collect();
    refs.sort_by_key(|r| r.cluster_uuid);
    refs
}

/// Renames an L2 network or a pool.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/l2-networks/{uuid}/actions", action = "updateL2Network")]
pub struct UpdateL2Network {
    /// The network or pool.
    pub uuid: Id<L2Network>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Deletes an L2 network with its L3 networks, their ranges and NICs; a pool with all its
/// networks. Instances stay.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/l2-networks/{uuid}")]
pub struct DeleteL2Network {
    /// The network or pool.
    pub uuid: Id<L2Network>,
}

/// Lists the types of L2 networks.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/l2-networks/types", answer = "now")]
pub struct GetL2NetworkTypes {}

/// Lists what can join the ports on a host.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/l2-networks/vSwitchTypes", answer = "now")]
pub struct GetVSwitchTypes {}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_network_is_written_as_zstack_does() {
        let pool = Id::new(Uuid::from_u128(2));
        let mut l2 = L2Network {
            uuid: Id::new(Uuid::from_u128(1)),
            name: "n".into(),
            description: None,
            zone_uuid: Id::new(Uuid::from_u128(3)),
            physical_interface: None,
            segment: Segment::Vxlan { vni: 7, pool_uuid: pool },
            number: 9,
        };
        let gre = Segment::Gre { vni: 8, pool_uuid: pool };
        let others = [Segment::NoVlan, Segment::Vlan { vlan: 5 }, Segment::VxlanPool, gre];
        for segment in [l2.segment, Segment::GrePool].into_iter().chain(others) {
            l2.segment = segment;
            let json = serde_json::to_value(&l2).unwrap();
            assert_eq!(json["type"], segment.of_type().as_str());
            assert_eq!(serde_json::from_value::<L2Network>(json).unwrap(), l2);
        }
        l2.segment = Segment::Vxlan { vni: 7, pool_uuid: pool };
        let json = serde_json::to_value(&l2).unwrap();
        assert_eq!((&json["vni"], &json["poolUuid"]), (&json!(7), &json!(pool)));
    }
}
