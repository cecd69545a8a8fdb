//! From a record to what the compiler needs of it, and from there to wire objects.
//!
//! Only fields that reach a host are taken, so that a change of any other field ends here.

use std::net::IpAddr;

use model::{
    Id,
    resource::{
        host::Host,
        l2_vxlan_network::L2VxlanNetwork,
        l2_vxlan_pool::L2VxlanNetworkPool,
        vm_instance::{InstanceDriver, VmInstance},
        vm_nic::VmNic,
        vtep::Vtep,
        zone::EnableState,
    },
};
use wire::object::{Driver, Instance, Network, Object, Peer, Port, PortAddress};

/// A host and a pool: where a VTEP is needed, or is.
pub(crate) type Site = (Id<Host>, Id<L2VxlanNetworkPool>);

/// A NIC that is enabled, bound and plugged in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nic {
    pub(crate) uuid: Id<VmNic>,
    pub(crate) host: Id<Host>,
    pub(crate) network: Id<L2VxlanNetwork>,
    number: u32,
    instance: Id<VmInstance>,
    device_id: u32,
    mac: [u8; 6],
    /// Address, prefix length, gateway; sorted.
    addresses: Vec<(IpAddr, u8, IpAddr)>,
    mtu_bytes: u32,
}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Net {
    pub(crate) uuid: Id<L2VxlanNetwork>,
    pub(crate) pool: Id<L2VxlanNetworkPool>,
    number: u32,
    vni: u32,
}

impl Nic {
    /// `None`: no host carries it.
    pub(crate) fn of(nic: &VmNic) -> Option<Self> {
        let mut addresses: Vec<_> =
            nic.used_ips.iter().map(|used| (used.ip, used.prefix_len, used.gateway)).collect();
        addresses.sort_unstable();
        let bound = Self {
            uuid: nic.uuid,
            host: nic.host_uuid?,
            network: nic.l2_network_uuid,
            number: nic.number,
            instance: nic.vm_instance_uuid?,
            device_id: nic.device_id,
            mac: nic.mac.0,
            addresses,
            mtu_bytes: nic.mtu,
        };
        (nic.state == EnableState::Enabled).then_some(bound)
    }

    /// What its own host holds for it.
    pub(crate) fn port(&self) -> Object {
        let address =
            |&(ip, prefix_bits, gateway)| PortAddress { ip, prefix_bits, gateway: Some(gateway) };
        Object::Port(Port {
            uuid: self.uuid.uuid(),
            number: self.number,
            network: self.network.uuid(),
            instance: self.instance.uuid(),
            device_id: self.device_id,
            mac: self.mac,
            addresses: self.addresses.iter().map(address).collect(),
            mtu_bytes: self.mtu_bytes,
        })
    }

    /// What another host holds for it; `vtep` is that of the NIC's host.
    pub(crate) fn peer(&self, vtep: IpAddr) -> Object {
        Object::Peer(Peer {
            uuid: self.uuid.uuid(),
            network: self.network.uuid(),
            mac: self.mac,
            addresses: self.addresses.iter().map(|&(ip, ..)| ip).collect(),
            vtep,
        })
    }
}

impl Net {
    pub(crate) fn of(network: &L2VxlanNetwork) -> Self {
        Self {
            uuid: network.uuid,
            pool: network.pool_uuid,
            number: network.number,
            vni: network.vni,
        }
    }

    /// What a host whose VTEP is `local_vtep` holds for it.
    pub(crate) fn network(&self, local_vtep: IpAddr) -> Object {
        let (uuid, number, vni) = (self.uuid.uuid(), self.number, self.vni);
        Object::Network(Network { uuid, number, vni, local_vtep })
    }
}

/// Where it is, and what tells it from others there.
pub(crate) fn vtep(vtep: &Vtep) -> (Site, (Id<Vtep>, IpAddr)) {
    ((vtep.host_uuid, vtep.pool_uuid), (vtep.uuid, vtep.vtep_ip))
}

/// What the host of an instance holds for it.
pub(crate) fn instance(instance: &VmInstance) -> Object {
    let driver = match instance.driver {
        InstanceDriver::Netns => Driver::Netns,
    };
    Object::Instance(Instance { uuid: instance.uuid.uuid(), name: instance.name.clone(), driver })
}
