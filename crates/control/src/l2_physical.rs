//! L2 networks that are physical ones, with or without a tag.

use model::{
    Code, Error, Result,
    resource::{
        host::Host,
        l2_attachment::L2NetworkClusterRef,
        l2_network::{L2Network, Segment},
        l2_physical::{
            ChangeL2NetworkVlanId, CreateL2NoVlanNetwork, CreateL2VlanNetwork, PhysicalType,
        },
    },
};

use crate::{
    Reply, Txn,
    l2_network::{self, Asked},
    operation::{Operation, job},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create_no_vlan), job(create_vlan), job(change_vlan)]
}

pub(crate) fn create_no_vlan(txn: &mut Txn<'_>, message: CreateL2NoVlanNetwork) -> Result<Reply> {
    let asked = Asked {
        name: message.name,
        description: message.description,
        zone: message.zone_uuid,
        physical_interface: Some(message.physical_interface),
        isolated: message.isolated,
    };
    l2_network::make(txn, asked, Segment::NoVlan)
}

pub(crate) fn create_vlan(txn: &mut Txn<'_>, message: CreateL2VlanNetwork) -> Result<Reply> {
    let asked = Asked {
        name: message.name,
        description: message.description,
        zone: message.zone_uuid,
        physical_interface: Some(message.physical_interface),
        isolated: message.isolated,
    };
    l2_network::make(txn, asked, Segment::Vlan { vlan: message.vlan })
}

/// As in ZStack, no host may be away: it would go on in the former VLAN.
pub(crate) fn change_vlan(txn: &mut Txn<'_>, message: ChangeL2NetworkVlanId) -> Result<Reply> {
    let mut l2 = txn.get(message.uuid)?;
    l2.segment = next(&l2, &message)?;
    for attached in txn.children(L2NetworkClusterRef::L2_NETWORK, l2.uuid) {
        let hosts = txn.child_ids(Host::CLUSTER, attached.cluster_uuid);
        if let Some(away) = hosts.into_iter().find(|host| !txn.status(*host).connected) {
            let text = format!("host {away} of cluster {} is not connected", attached.cluster_uuid);
            let hint = "start its agent, delete the host, or detach the network from the cluster";
            return Err(Error::new(Code::OperationFailed, text).on_field("uuid").hint(hint));
        }
        txn.fence(attached.cluster_uuid);
        txn.update(L2NetworkClusterRef { vlan: l2.segment.vlan(), ..attached })
            .map_err(|error| error.on_field("vlan"))?;
    }
    txn.update(l2)?;
    Ok(Reply::shows(message.uuid))
}

/// What the network becomes.
fn next(l2: &L2Network, message: &ChangeL2NetworkVlanId) -> Result<Segment> {
    let now = match l2.segment {
        Segment::NoVlan => PhysicalType::NoVlan,
        Segment::Vlan { .. } => PhysicalType::Vlan,
        Segment::Vxlan { .. } | Segment::VxlanPool | Segment::Gre { .. } | Segment::GrePool => {
            let text = format!("{} is a {}", l2.uuid, l2.segment.of_type().as_str());
            let hint = "name an L2NoVlanNetwork or an L2VlanNetwork";
            return Err(Error::field("uuid", text).hint(hint));
        }
    };
    match (message.network_type.unwrap_or(now), message.vlan) {
        (PhysicalType::Vlan, Some(vlan)) => Ok(Segment::Vlan { vlan }),
        (PhysicalType::NoVlan, None) => Ok(Segment::NoVlan),
        (PhysicalType::Vlan, None) => {
            Err(Error::field("vlan", "is required of an L2VlanNetwork").hint("give 1 to 4094"))
        }
        (PhysicalType::NoVlan, Some(_)) => {
            let error = Error::field("vlan", "an L2NoVlanNetwork has none");
            Err(error.hint("leave it out, or give type=L2VlanNetwork"))
        }
    }
}
