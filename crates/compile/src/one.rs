//! What hosts hold about one NIC or one L3 network, looked up row by row: for whoever asks about it, and
//! for the reference.

use std::{collections::BTreeSet, sync::Arc};

use model::{
    Id, Kind, Record, Resource,
    resource::{
        config::GlobalConfig, dhcp_option::DhcpOption, l3_network::L3Network, used_ip::UsedIp,
        vm_instance::VmInstance, vm_nic::VmNic,
    },
};
use store::Read;
use uuid::Uuid;
use wire::object::{Object, Port, Subnet};

use crate::{
    lan::{self, Brief, L3, Lan},
    objects::{self, Nic, Of},
    settings,
};

/// What the guest behind a NIC is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The NIC.
    pub port: Port,
    /// The L3 networks of its addresses of whose guests hosts take care.
    pub subnets: Vec<Subnet>,
}

/// What the guest behind a NIC is told, or will be once the NIC is on a host. `None`: nothing, as the NIC is
/// disabled or plugged in nowhere.
pub fn guest(read: &impl Read<Record>, row: &VmNic) -> Option<Guest> {
    let globals = globals(read);
    let host_uuid = row.host_uuid.or(Some(Id::new(Uuid::nil())));
    let row = VmNic { host_uuid, ..row.clone() };
    let lan = |l3| lan(read, l3, &globals);
    let nic = nic(read, &row, |l3| lan(l3).map(|lan| lan.brief()))?;
    let subnets = nic.lans().filter_map(|l3| match Object::clone(&lan(l3)?.subnet) {
        Object::Subnet(subnet) => Some(subnet),
        _ => None,
    });
    Some(Guest { port: nic.port(None), subnets: subnets.collect() })
}

/// A NIC that some host carries, with its addresses and all that it is told.
pub(crate) fn nic(
    read: &impl Read<Record>,
    row: &VmNic,
    lan: impl Fn(Id<L3Network>) -> Option<Brief>,
) -> Option<Arc<Nic>> {
    let nic = Nic::of(row)?;
    let mut of = BTreeSet::new();
    for used in referring::<UsedIp>(read, UsedIp::USED_BY, row.uuid.uuid()) {
        let Some((_, address)) = objects::address(&used) else { continue };
        of.extend(lan(address.l3).map(Of::Lan));
        of.insert(Of::Address(address));
    }
    let options = referring::<DhcpOption>(read, "resourceUuid", row.uuid.uuid());
    of.extend(options.filter_map(|row| objects::option(&row)).map(|(_, of)| of));
    let instance = nic.instance.and_then(|it| read.get(Kind::VmInstance, it.uuid()));
    let default = instance.as_deref().and_then(VmInstance::of).and_then(objects::default_l3);
    let nic = nic.with(&of.into_iter().collect::<Vec<_>>());
    Some(Arc::new(nic).routed(default.map(|(_, l3)| l3)))
}

/// An L3 network of whose guests hosts take care.
pub(crate) fn lan(
    read: &impl Read<Record>,
    id: Id<L3Network>,
    globals: &[settings::Value],
) -> Option<Lan> {
    let row = read.get(Kind::L3Network, id.uuid())?;
    let l3 = L3::of(L3Network::of(&row)?);
    let fields = |kind: Kind| match kind {
        Kind::ResourceConfig | Kind::DhcpOption => "resourceUuid",
        _ => "l3NetworkUuid",
    };
    let servers = read.referrers(Kind::DhcpServer, "l3NetworkUuid", id.uuid());
    let servers = servers.flat_map(|it| {
        read.referrers(Kind::UsedIp, UsedIp::USED_BY, it).map(|row| (Kind::UsedIp, row))
    });
    let rows = lan::KINDS
        .into_iter()
        .flat_map(|kind| read.referrers(kind, fields(kind), id.uuid()).map(move |row| (kind, row)));
    let rows = rows.chain(servers).filter_map(|(kind, row)| read.get(kind, row));
    let facts = rows.filter_map(|row| lan::fact(&row)).filter(|(of, _)| *of == id);
    let facts: BTreeSet<_> = facts.map(|(_, fact)| fact).collect();
    Lan::of(&l3, &facts.into_iter().collect::<Vec<_>>(), globals)
}

/// What settings are for all.
pub(crate) fn globals(read: &impl Read<Record>) -> Vec<settings::Value> {
    let rows = read.list(Kind::GlobalConfig);
    let values = rows.filter_map(|row| GlobalConfig::of(&row).and_then(settings::global));
    values.collect::<BTreeSet<_>>().into_iter().collect()
}

fn referring<R: Resource + Clone>(
    read: &impl Read<Record>,
    field: &str,
    to: Uuid,
) -> impl Iterator<Item = R> {
    let rows = read.referrers(R::KIND, field, to).filter_map(|id| read.get(R::KIND, id));
    let rows: Vec<R> = rows.filter_map(|row| R::of(&row).cloned()).collect();
    rows.into_iter()
}
