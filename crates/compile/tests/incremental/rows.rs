//! Rows of small installations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{
    AnyId, Id, Meta, Record, Resource,
    resource::{
        cluster::HypervisorType,
        config::{GlobalConfig, ResourceConfig},
        dhcp_option::DhcpOption,
        dhcp_server::DhcpServer,
        guest_data::GuestData,
        host::{Host, HostMode},
        host_route::L3NetworkHostRoute,
        ip_range::{AddressMode, IpRange, IpRangeType},
        l2_network::{L2Network, Segment},
        l3_network::{IpAllocatorStrategy, L3Category, L3Network, L3Type},
        network_service::{NetworkServiceL3NetworkRef, NetworkServiceType, ProviderType},
        remote_vtep::{RemoteVtep, RemoteVtepType},
        tag::UserTag,
        used_ip::UsedIp,
        vm_instance::{InstanceDriver, InstanceType, Phase, VmInstance},
        vm_nic::VmNic,
        vtep::{Vtep, VtepType},
        zone::{EnableState, Zone, ZoneType},
    },
    setting::Setting,
};
use uuid::Uuid;

pub(crate) fn id<R>(kind: u8, n: u32) -> Id<R> {
    Id::new(Uuid::from_u128((u128::from(kind) << 64) | u128::from(n)))
}

pub(crate) fn ip(n: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n))
}

pub(crate) fn record_of<R: Resource>(resource: R) -> Record {
    Record::new(resource, Meta::default())
}

pub(crate) fn network(n: u32, pool: u32, vni: u32) -> L2Network {
    on(n, Segment::Vxlan { vni, pool_uuid: id(2, pool) })
}

pub(crate) fn on(n: u32, segment: Segment) -> L2Network {
    L2Network {
        uuid: id(1, n),
        name: format!("net{n}"),
        description: None,
        zone_uuid: id(9, 0),
        physical_interface: Some("eth1".to_owned()),
        segment,
        number: n,
    }
}

pub(crate) fn vtep(n: u32, host: u32, pool: u32, address: u32) -> Vtep {
    Vtep {
        uuid: id(3, n),
        host_uuid: id(4, host),
        vtep_ip: ip(address),
        port: 8472,
        vtep_type: VtepType::KvmHost,
        pool_uuid: id(2, pool),
    }
}

pub(crate) fn host(n: u32, cluster: u32) -> Host {
    Host {
        uuid: id(4, n),
        zone_uuid: id(9, 0),
        cluster_uuid: id(10, cluster),
        name: format!("host{n}"),
        description: None,
        management_ip: ip(n),
        hypervisor_type: HypervisorType::Kvm,
        state: HostMode::Enabled,
        reconnects: 0,
    }
}

pub(crate) fn remote_vtep(cluster: u32, pool: u32, address: u32) -> RemoteVtep {
    RemoteVtep {
        uuid: id(11, cluster * 100 + pool * 10 + address),
        cluster_uuid: id(10, cluster),
        vtep_ip: ip(100 + address),
        port: 8472,
        vtep_type: RemoteVtepType::Remote,
        pool_uuid: id(2, pool),
    }
}

pub(crate) fn instance(n: u32, host: u32, name: &str) -> VmInstance {
    VmInstance {
        uuid: id(5, n),
        name: name.to_owned(),
        description: None,
        zone_uuid: id(9, 0),
        cluster_uuid: Some(id(9, 1)),
        host_uuid: Some(id(4, host)),
        last_host_uuid: None,
        pending_host_uuid: None,
        move_number: 0,
        move_ips: Vec::new(),
        move_jobs: Vec::new(),
        default_l3_network_uuid: Some(id(9, 2)),
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
        hostname: None,
        phase: Phase::Live,
        generation: 0,
        destroyed: None,
    }
}

/// The `which`-th address of a NIC.
pub(crate) fn used(nic: u32, which: u32, last: u32) -> UsedIp {
    UsedIp {
        uuid: id(7, nic * 4 + which),
        ip_range_uuid: id(9, 3),
        l3_network_uuid: id(9, 2),
        l2_network_uuid: id(8, nic),
        ip_version: 4,
        ip: ip(last),
        netmask: None,
        prefix_len: 24,
        gateway: ip(1),
        used_by: AnyId::of(id::<VmNic>(6, nic)),
    }
}

/// A NIC with two addresses.
pub(crate) fn nic_rows(n: u32, network: u32, host: Option<u32>) -> [Record; 3] {
    let (first, second) = (used(n, 0, n + 20), used(n, 1, n + 10));
    [record_of(nic(n, network, host)), record_of(first), record_of(second)]
}

pub(crate) fn nic(n: u32, network: u32, host: Option<u32>) -> VmNic {
    VmNic {
        uuid: id(6, n),
        vm_instance_uuid: host.map(|_| id(5, n)),
        l3_network_uuid: id(9, 2),
        l2_network_uuid: id(1, network),
        host_uuid: host.map(|host| id(4, host)),
        plugged_device: None,
        plugged_host_uuid: None,
        pending_host_uuid: None,
        pending_device: None,
        move_number: 0,
        move_ips: Vec::new(),
        left_host_uuid: None,
        number: n,
        mac: mac_of(n),
        used_ip_uuid: Some(id(7, n * 4)),
        static_ips: Vec::new(),
        more_l3_network_uuids: Vec::new(),
        hostname: None,
        mtu: 1450,
        device_id: 0,
        state: EnableState::Enabled,
        allowed_prefixes: Vec::new(),
    }
}

/// The same NIC, plugged into a device and on its way to another host.
pub(crate) fn moving(nic: VmNic, to: u32) -> VmNic {
    VmNic {
        vm_instance_uuid: None,
        plugged_device: Some("vnet0".to_owned()),
        pending_host_uuid: Some(id(4, to)),
        pending_device: Some("vnet1".to_owned()),
        move_number: 7,
        move_ips: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
        ..nic
    }
}

pub(crate) fn mac_of(n: u32) -> model::Mac {
    let [a, b, c, d] = n.to_be_bytes();
    model::Mac([0xfa, 0x16, a, b, c, d])
}

/// The L3 network of all NICs, unless they say otherwise, is 2.
pub(crate) fn l3(n: u32) -> L3Network {
    L3Network {
        uuid: id(9, n),
        name: format!("l3-{n}"),
        description: None,
        network_type: L3Type::Basic,
        zone_uuid: id(9, 0),
        l2_network_uuid: id(1, 0),
        state: EnableState::Enabled,
        dns_domain: Some("example.org".to_owned()),
        system: false,
        category: L3Category::Private,
        ip_version: 4,
        enable_ipam: true,
        dns: vec![ip(53)],
        mtu: None,
        router_interface_ip: None,
        ip_allocator_strategy: IpAllocatorStrategy::First,
    }
}

/// A service of an L3 network.
pub(crate) fn service(
    l3: u32,
    provider: ProviderType,
    service: NetworkServiceType,
) -> NetworkServiceL3NetworkRef {
    let at = NetworkServiceType::ALL.iter().position(|known| *known == service);
    let at = u32::try_from(at.expect("it is known")).expect("a few");
    NetworkServiceL3NetworkRef {
        uuid: id(12, l3 * 100 + at),
        l3_network_uuid: id(9, l3),
        network_service_provider_uuid: provider.provider(),
        network_service_type: service,
    }
}

/// A range of an L3 network, of IPv6 if it has a mode.
pub(crate) fn range(n: u32, l3: u32, address_mode: Option<AddressMode>) -> IpRange {
    let at = |last: u32| match address_mode {
        None => ip((l3 << 8) + n * 20 + last),
        Some(_) => {
            let host = u128::from((l3 << 8) + n * 20 + last);
            IpAddr::V6(Ipv6Addr::from_bits((0xfd00 << 112) | host))
        }
    };
    let prefix_len = if address_mode.is_some() { 64 } else { 24 };
    let net = ipnet::IpNet::new(at(0), prefix_len).expect("a prefix");
    IpRange {
        uuid: id(13, l3 * 10 + n),
        l3_network_uuid: id(9, l3),
        l2_network_uuid: id(1, l3),
        name: "range".to_owned(),
        description: None,
        start_ip: at(10),
        end_ip: at(19),
        netmask: None,
        gateway: at(1),
        network_cidr: net.trunc(),
        ip_version: if address_mode.is_some() { 6 } else { 4 },
        prefix_len,
        address_mode,
        ip_range_type: IpRangeType::Normal,
    }
}

/// A route that guests of an L3 network are told of.
pub(crate) fn route(l3: u32, n: u32) -> L3NetworkHostRoute {
    L3NetworkHostRoute {
        uuid: id(14, l3 * 10 + n),
        l3_network_uuid: id(9, l3),
        prefix: format!("192.168.{n}.0/24").parse().expect("a prefix"),
        nexthop: ip(9),
    }
}

/// Who has the address of DHCP on an L3 network.
pub(crate) fn dhcp(l3: u32) -> DhcpServer {
    DhcpServer { uuid: id(16, l3), l3_network_uuid: id(9, l3), ip_version: 4 }
}

/// The address of DHCP on an L3 network.
pub(crate) fn dhcp_server(l3: u32, last: u32) -> UsedIp {
    UsedIp {
        uuid: id(15, l3),
        l3_network_uuid: id(9, l3),
        l2_network_uuid: id(15, l3),
        used_by: AnyId::of(id::<DhcpServer>(16, l3)),
        ..used(0, 0, last)
    }
}

/// A setting, of all.
pub(crate) fn setting(setting: &Setting, value: &str) -> GlobalConfig {
    let (category, name) = (setting.category.to_owned(), setting.name.to_owned());
    GlobalConfig { uuid: Id::new(setting.row()), category, name, value: value.to_owned() }
}

/// A setting, of one resource.
pub(crate) fn own_setting<R: Resource>(
    setting: &Setting,
    resource: Id<R>,
    value: &str,
) -> ResourceConfig {
    let (category, name) = (setting.category.to_owned(), setting.name.to_owned());
    ResourceConfig {
        uuid: Id::new(setting.row_of(resource.uuid())),
        resource: AnyId::of(resource),
        category,
        name,
        value: value.to_owned(),
    }
}

/// An option that DHCP tells the guests of an L3 network, or one NIC's.
pub(crate) fn dhcp_option<R: Resource>(resource: Id<R>, code: u16, value: &str) -> DhcpOption {
    DhcpOption {
        uuid: Id::new(Uuid::new_v5(&resource.uuid(), &code.to_be_bytes())),
        resource: AnyId::of(resource),
        code,
        ip_version: 4,
        value: value.to_owned(),
    }
}

/// What the owner of an instance gives it.
pub(crate) fn guest_data(n: u32, user_data: Option<&str>, ssh_key: Option<&str>) -> GuestData {
    GuestData {
        uuid: id(17, n),
        vm_instance_uuid: id(5, n),
        user_data: user_data.map(str::to_owned),
        ssh_key: ssh_key.map(str::to_owned),
    }
}

/// What the owner of an instance says of it.
pub(crate) fn user_tag(n: u32, tag: &str) -> UserTag {
    UserTag { uuid: id(18, n), resource: AnyId::of(id::<VmInstance>(5, n)), tag: tag.to_owned() }
}

/// The zone of everything.
pub(crate) fn zone(name: &str) -> Zone {
    Zone {
        uuid: id(9, 0),
        name: name.to_owned(),
        description: None,
        state: EnableState::Enabled,
        zone_type: ZoneType::Zstack,
        is_default: false,
    }
}
