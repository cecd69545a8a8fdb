//! L2 networks of every type: names, deletion, and which hosts can carry one. What is particular to
//! VXLAN and GRE is in [`crate::l2_vxlan`] and [`crate::l2_gre`].

use model::{
    Error, Id, Record, Result,
    mtu::{self, Around, Family},
    resource::{
        host::Host,
        l2_attachment::L2NetworkClusterRef,
        l2_network::{
            DeleteL2Network, GetL2NetworkTypes, GetVSwitchTypes, L2Network, L2Type, Segment,
            UpdateL2Network, VSwitchType,
        },
        zone::Zone,
    },
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    Look, Reply, Txn, l2_attachment,
    operation::{Operation, job, look},
    realiser, vtep,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(update), job(delete), look(types), look(switch_types)]
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateL2Network) -> Result<Reply> {
    let mut l2 = txn.get(message.uuid)?;
    l2.name = message.name.unwrap_or(l2.name);
    message.description.apply(&mut l2.description);
    txn.update(l2)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteL2Network) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

#[expect(clippy::unnecessary_wraps, reason = "all that look may refuse")]
fn types(_look: &Look<'_>, _message: GetL2NetworkTypes) -> Result<Value> {
    let names: Vec<_> = L2Type::ALL.iter().map(|it| it.as_str()).collect();
    Ok(json!({"types": names}))
}

#[expect(clippy::unnecessary_wraps, reason = "all that look may refuse")]
fn switch_types(_look: &Look<'_>, _message: GetVSwitchTypes) -> Result<Value> {
    let names: Vec<_> = VSwitchType::ALL.iter().map(|it| it.as_str()).collect();
    Ok(json!({"types": names}))
}

/// MTU of a network's ports, in bytes. As long as nobody knows of which family the tunnels will be,
/// the one that fits through both.
pub(crate) fn mtu_bytes(read: &impl Read<Record>, segment: &Segment) -> u32 {
    let around = match segment.tunnel() {
        None => Around::NOTHING,
        // Those are IPv4 alone.
        Some(_) if segment.is_gre() => Around::gre(Family::Ipv4),
        Some((_, pool)) => Around::vxlan(vtep::family(read, pool).unwrap_or(Family::Ipv6)),
    };
    around.inside(mtu::UNDERLAY)
}

/// What a message asks for of a new network, of whatever type.
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) zone: Id<Zone>,
    pub(crate) physical_interface: Option<String>,
    pub(crate) isolated: Option<bool>,
}

/// Makes a network.
pub(crate) fn make(txn: &mut Txn<'_>, asked: Asked, segment: Segment) -> Result<Reply> {
    not_isolated(asked.isolated)?;
    let network = L2Network {
        uuid: txn.new_id(),
        name: asked.name,
        description: asked.description,
        zone_uuid: asked.zone,
        physical_interface: asked.physical_interface,
        segment,
        number: txn.number("network")?,
    };
    txn.insert(network).map(Reply::shows)
}

/// Refuses `isolated=true`: ports of one network can reach each other, and nothing prevents that
/// yet.
fn not_isolated(isolated: Option<bool>) -> Result<()> {
    match isolated {
        Some(true) => {
            let error = Error::field("isolated", "ports cannot be kept apart yet");
            Err(error.hint("give false, or leave it out"))
        }
        Some(false) | None => Ok(()),
    }
}

/// What keeps a host from carrying an L2 network, and what to do about it. This rule is written
/// here only; placement and views of a host use it.
pub(crate) fn why_not(txn: &Txn<'_>, host: &Host, l2: &L2Network) -> Option<String> {
    let attached = l2.attached();
    let cluster = host.cluster_uuid;
    let presence: Option<L2NetworkClusterRef> = txn.find(l2_attachment::ref_id(attached, cluster));
    if presence.is_none() {
        return Some(format!(
            "its cluster {cluster} does not have L2 network {attached}: AttachL2NetworkToCluster \
             brings it there"
        ));
    }
    realiser::why_host_cannot(txn, host, l2)
}

/// What keeps a host from leading into a physical network by its interface, as far as the host has
/// said what interfaces it has.
pub(crate) fn why_no_uplink(txn: &Txn<'_>, host: &Host, l2: &L2Network) -> Option<String> {
    let devices = txn.status(host.uuid).devices.as_ref()?;
    let interface = l2.physical_interface.as_deref()?;
    match devices.iter().find(|device| device.name == interface) {
        Some(device) => device.why_no_uplink(),
        None => Some(format!(
            "has no interface {interface}: plug it in, or name another one in the L2 network"
        )),
    }
}
