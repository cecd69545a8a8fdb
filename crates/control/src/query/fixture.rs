//! A cloud to query: two zones, VXLAN networks from one pool, instances with two NICs each.

use std::{collections::BTreeSet, net::IpAddr};

use model::{
    AnyId, Id, Mac, Record, Resource, Timestamp,
    record::Meta,
    resource::{
        account::Account,
        cluster::{Cluster, ClusterType, HypervisorType},
        host::{Host, HostMode},
        ip_range::{IpRange, IpRangeType},
        l2_attachment::L2NetworkClusterRef,
        l2_network::{L2Network, Segment},
        l3_network::{IpAllocatorStrategy, L3Category, L3Network, L3Type},
        used_ip::UsedIp,
        vm_instance::{InstanceDriver, InstanceType, Phase, VmInstance},
        vm_nic::VmNic,
        zone::{EnableState, Zone, ZoneType},
    },
    status::{Board, HostStatus},
};
use store::Store;
use uuid::Uuid;

/// Rows of one transaction.
const ROWS: usize = 5_000;

/// How large the cloud is.
pub(crate) struct Cloud {
    pub(crate) nics: u32,
    pub(crate) nics_per_network: u32,
}

/// The id of the n-th resource of its kind; not in the order of n.
pub(crate) fn id<R: Resource>(n: u32) -> Id<R> {
    let mixed = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let kind = R::KIND as u128 + 1;
    Id::new(Uuid::from_u128((u128::from(mixed) << 64) | (kind << 32) | u128::from(n)))
}

/// Owns what is even, or odd.
pub(crate) fn account(n: u32) -> Id<Account> {
    id(n % 2)
}

/// What the hosts report: only the first is connected, and runs only the first instance.
pub(crate) fn board() -> Board {
    let up = BTreeSet::from([id::<VmInstance>(0).uuid()]);
    let up = up.into_iter().collect();
    let status = HostStatus { connected: true, up, ..HostStatus::default() };
    let mut board = Board::default();
    board.put(id(0), status);
    board
}

impl Cloud {
    /// The address of a NIC; each network has the same ones.
    pub(crate) fn ip(&self, nic: u32) -> IpAddr {
        let at = nic % self.nics_per_network;
        IpAddr::V4((0x0a00_0000 + at + 1).into())
    }

    /// A store with all of it.
    pub(crate) fn store(&self) -> Store<Record> {
        let store = Store::in_memory().unwrap();
        for rows in self.records().chunks(ROWS) {
            let rows = rows.to_vec();
            let put = move |tx: &mut store::Tx<Record>| {
                rows.iter().for_each(|row| tx.put(row.clone()).unwrap());
                Ok(())
            };
            store.transact(put).unwrap();
        }
        store
    }

    fn records(&self) -> Vec<Record> {
        let mut all = frame();
        for n in 0..self.nics.div_ceil(self.nics_per_network) {
            all.extend(network(n));
        }
        for n in 0..self.nics.div_ceil(2) {
            all.push(owned(instance(n), n));
        }
        for n in 0..self.nics {
            let nic = self.nic(n);
            let first = self.used_ip(n, self.ip(n), 4);
            all.extend([owned(nic, n / 2), owned(first, n / 2)]);
        }
        let mut second = self.used_ip(0, "fd00::1".parse().unwrap(), 6);
        second.uuid = id(self.nics);
        all.push(owned(second, 0));
        all
    }

    fn nic(&self, n: u32) -> VmNic {
        let [a, b, c, d] = n.to_be_bytes();
        let network = n / self.nics_per_network;
        VmNic {
            uuid: id(n),
            vm_instance_uuid: Some(id(n / 2)),
            l3_network_uuid: id(network),
            l2_network_uuid: id(network),
            host_uuid: None,
            plugged_device: None,
            plugged_host_uuid: None,
            pending_host_uuid: None,
            move_ips: Vec::new(),
            pending_device: None,
            move_number: 0,
            left_host_uuid: None,
            number: n,
            mac: Mac([0xfa, 0x4c, a, b, c, d]),
            used_ip_uuid: Some(id(n)),
            static_ips: Vec::new(),
            more_l3_network_uuids: Vec::new(),
            hostname: None,
            mtu: 1450,
            device_id: n % 2,
            state: EnableState::Enabled,
            allowed_prefixes: Vec::new(),
        }
    }

    fn used_ip(&self, nic: u32, ip: IpAddr, ip_version: u8) -> UsedIp {
        let network = nic / self.nics_per_network;
        UsedIp {
            uuid: id(nic),
            ip_range_uuid: id(network),
            l3_network_uuid: id(network),
            l2_network_uuid: id(network),
            ip_version,
            ip,
            netmask: None,
            prefix_len: 8,
            gateway: "10.255.255.254".parse().unwrap(),
            used_by: AnyId::of::<VmNic>(id(nic)),
        }
    }
}

fn plain<R: Resource>(resource: R) -> Record {
    let now = Timestamp(1_510_698_057_000);
    Record::new(resource, Meta { owner: None, created: now, changed: now })
}

fn owned<R: Resource>(resource: R, n: u32) -> Record {
    let mut record = plain(resource);
    record.meta.owner = Some(account(n));
    record.meta.created = Timestamp(1_000 * i64::from(n));
    record
}

/// Zones, clusters, hosts, the pool, and a VLAN network.
fn frame() -> Vec<Record> {
    let mut all = Vec::new();
    for n in 0..2 {
        all.push(plain(Zone {
            uuid: id(n),
            name: format!("zone-{n}"),
            description: None,
            state: EnableState::Enabled,
            zone_type: ZoneType::Zstack,
            is_default: false,
        }));
        all.push(plain(Cluster {
            uuid: id(n),
            name: format!("cluster-{n}"),
            description: None,
            state: EnableState::Enabled,
            hypervisor_type: HypervisorType::Kvm,
            zone_uuid: id(n),
            cluster_type: ClusterType::Zstack,
        }));
        all.push(plain(Host {
            zone_uuid: id(n),
            name: format!("host-{n}"),
            uuid: id(n),
            cluster_uuid: id(n),
            description: None,
            management_ip: IpAddr::V4((0xc0a8_0001 + n).into()),
            hypervisor_type: HypervisorType::Kvm,
            state: HostMode::Enabled,
            reconnects: 0,
        }));
    }
    for (n, (name, segment)) in
        [("pool", Segment::VxlanPool), ("vlan", Segment::Vlan { vlan: 5 })].into_iter().enumerate()
    {
        let n = u32::try_from(n).unwrap();
        all.push(plain(l2(POOL + n, name.to_owned(), segment)));
        all.push(plain(L2NetworkClusterRef {
            uuid: id(n),
            cluster_uuid: id(n),
            l2_network_uuid: id(POOL + n),
            vtep_cidr: Some("192.168.0.0/16".parse().unwrap()),
            physical_interface: None,
            vlan: None,
        }));
    }
    all.push(plain(l2(POOL + 2, "gre-pool".to_owned(), Segment::GrePool)));
    let gre = Segment::Gre { vni: 900, pool_uuid: id(POOL + 2) };
    all.push(plain(l2(POOL + 3, "gre".to_owned(), gre)));
    all
}

/// The number of the pool's id.
pub(crate) const POOL: u32 = 1_000_000;

fn l2(n: u32, name: String, segment: Segment) -> L2Network {
    L2Network {
        uuid: id(n),
        name,
        description: None,
        zone_uuid: id(0),
        physical_interface: None,
        segment,
        number: n,
    }
}

fn network(n: u32) -> [Record; 3] {
    let segment = Segment::Vxlan { vni: 100 + n, pool_uuid: id(POOL) };
    let l3 = L3Network {
        uuid: id(n),
        name: format!("l3-{n}"),
        description: None,
        network_type: L3Type::Basic,
        zone_uuid: id(0),
        l2_network_uuid: id(n),
        state: EnableState::Enabled,
        dns_domain: None,
        system: false,
        category: L3Category::Private,
        ip_version: 4,
        enable_ipam: true,
        dns: Vec::new(),
        mtu: None,
        router_interface_ip: None,
        ip_allocator_strategy: IpAllocatorStrategy::Random,
    };
    let range = IpRange {
        uuid: id(n),
        l3_network_uuid: id(n),
        l2_network_uuid: id(n),
        name: format!("range-{n}"),
        description: None,
        start_ip: "10.0.0.1".parse().unwrap(),
        end_ip: "10.255.0.0".parse().unwrap(),
        netmask: None,
        gateway: "10.255.255.254".parse().unwrap(),
        network_cidr: "10.0.0.0/8".parse().unwrap(),
        ip_version: 4,
        prefix_len: 8,
        address_mode: None,
        ip_range_type: IpRangeType::Normal,
    };
    [owned(l2(n, format!("l2-{n}"), segment), n), owned(l3, n), owned(range, n)]
}

fn instance(n: u32) -> VmInstance {
    VmInstance {
        uuid: id(n),
        name: format!("vm-{n}"),
        description: n.is_multiple_of(3).then(|| format!("text {n}")),
        zone_uuid: id(0),
        cluster_uuid: Some(id(0)),
        host_uuid: n.is_multiple_of(4).then(|| id(n % 8 / 4)),
        default_l3_network_uuid: None,
        instance_type: InstanceType::User,
        hypervisor_type: HypervisorType::Kvm,
        driver: InstanceDriver::Netns,
        image_path: None,
        image_format: None,
        is_paused: false,
        instance_offering_uuid: None,
        image_uuid: None,
        cpu_num: None,
        memory_size: None,
        reserved_memory_size: None,
        last_host_uuid: None,
        pending_host_uuid: None,
        move_number: 0,
        move_ips: Vec::new(),
        move_jobs: Vec::new(),
        hostname: None,
        phase: Phase::Live,
        generation: 0,
        destroyed: None,
    }
}
