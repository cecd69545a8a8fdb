//! Networks in GRE, and their pools. Their VNIs are ranges as those of VXLAN, see [`crate::l2_vxlan`], and
//! what shares no VTEP there shares none here: a VNI and a sender are one network, whatever the frames are in.

use model::{
    Error, Result,
    resource::{
        l2_gre::{CreateL2GreNetwork, CreateL2GreNetworkPool},
        l2_network::Segment,
    },
};

use crate::{
    Reply, Txn,
    l2_network::{self, Asked},
    l2_vxlan,
    operation::{Operation, job},
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create_pool), job(create)]
}

pub(crate) fn create_pool(txn: &mut Txn<'_>, message: CreateL2GreNetworkPool) -> Result<Reply> {
    let asked = Asked {
        name: message.name,
        description: message.description,
        zone: message.zone_uuid,
        physical_interface: message.physical_interface,
        isolated: None,
    };
    l2_network::make(txn, asked, Segment::GrePool)
}

pub(crate) fn create(txn: &mut Txn<'_>, message: CreateL2GreNetwork) -> Result<Reply> {
    let pool = l2_vxlan::pool(txn, "poolUuid", message.pool_uuid)?;
    if !pool.segment.is_gre() {
        let error = Error::field("poolUuid", format!("{} is a pool of VXLAN networks", pool.uuid));
        return Err(error.hint("CreateL2VxlanNetwork makes a network from it"));
    }
    let asked = Asked {
        name: message.name,
        description: message.description,
        zone: pool.zone_uuid,
        physical_interface: None,
        isolated: None,
    };
    l2_vxlan::make_from(txn, &pool, asked, message.vni)
}
