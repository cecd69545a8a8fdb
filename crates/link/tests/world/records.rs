//! Records as `control` would write them. Number n of a kind has a uuid, MAC and address of its own.

use std::net::{IpAddr, Ipv4Addr};

use model::{
    AnyId, Id, Meta, Record, Resource,
    resource::{
        cluster::HypervisorType,
        host::{Host, HostMode},
        l2_network::{L2Network, Segment},
        network_service::{NetworkServiceL3NetworkRef, NetworkServiceType, ProviderType},
        security_group::SecurityGroup,
        security_group_member::VmNicSecurityGroupRef,
        security_group_rule::{RuleAction, RuleProtocol, RuleType, SecurityGroupRule},
        used_ip::UsedIp,
        vm_instance::{InstanceDriver, InstanceType, Phase, VmInstance},
        vm_nic::VmNic,
        vtep::{VXLAN_PORT, Vtep, VtepType},
        zone::EnableState,
    },
};
use uuid::Uuid;

fn record(resource: impl Resource) -> Record {
    Record::new(resource, Meta::default())
}

fn id<R>(kind: u8, number: u32) -> Id<R> {
    Id::new(Uuid::from_u128((u128::from(kind) << 64) | u128::from(number)))
}

pub(crate) fn host_id(number: u32) -> Id<Host> {
    id(4, number)
}

pub(crate) fn instance_uuid(number: u32) -> Uuid {
    id::<VmInstance>(5, number).uuid()
}

pub(crate) fn nic_uuid(number: u32) -> Uuid {
    id::<VmNic>(6, number).uuid()
}

fn ip(net: u8, number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits((u32::from(net) << 24) + number))
}

pub(crate) fn host(number: u32) -> Record {
    record(Host {
        zone_uuid: id(9, 0),
        name: format!("host-{number}"),
        uuid: host_id(number),
        cluster_uuid: id(9, 1),
        description: None,
        management_ip: ip(172, number),
        hypervisor_type: HypervisorType::Kvm,
        state: HostMode::Enabled,
        reconnects: 0,
    })
}

pub(crate) fn vtep(host: u32) -> Record {
    record(Vtep {
        uuid: id(3, host),
        host_uuid: host_id(host),
        vtep_ip: ip(192, host),
        port: VXLAN_PORT,
        vtep_type: VtepType::KvmHost,
        pool_uuid: id(2, 1),
    })
}

pub(crate) fn network(number: u32) -> Record {
    record(L2Network {
        uuid: id(1, number),
        name: format!("net-{number}"),
        description: None,
        zone_uuid: id(9, 0),
        physical_interface: None,
        segment: Segment::Vxlan { vni: 1000 + number, pool_uuid: id(2, 1) },
        number,
    })
}

/// An instance with one NIC in a network.
pub(crate) fn instance(number: u32, host: u32, network: u32) -> [Record; 3] {
    let instance = VmInstance {
        uuid: id(5, number),
        name: format!("vm-{number}"),
        description: None,
        zone_uuid: id(9, 0),
        cluster_uuid: Some(id(9, 1)),
        host_uuid: Some(host_id(host)),
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
    };
    let [a, b, c, d] = number.to_be_bytes();
    let address = UsedIp {
        uuid: id(7, number),
        l2_network_uuid: id(1, network),
        used_by: AnyId::of(id::<VmNic>(6, number)),
        ip_range_uuid: id(9, 3),
        l3_network_uuid: id(9, 2),
        ip_version: 4,
        ip: ip(10, number),
        netmask: None,
        prefix_len: 8,
        gateway: ip(10, 0xff_fffe),
    };
    let nic = VmNic {
        uuid: id(6, number),
        plugged_device: None,
        plugged_host_uuid: None,
        pending_host_uuid: None,
        pending_device: None,
        move_number: 0,
        move_ips: Vec::new(),
        left_host_uuid: None,
        vm_instance_uuid: Some(id(5, number)),
        l3_network_uuid: id(9, 2),
        l2_network_uuid: id(1, network),
        host_uuid: Some(host_id(host)),
        number,
        mac: model::Mac([0xfa, 0x16, a, b, c, d]),
        used_ip_uuid: Some(id(7, number)),
        static_ips: Vec::new(),
        more_l3_network_uuids: Vec::new(),
        hostname: None,
        mtu: 1450,
        device_id: 0,
        state: EnableState::Enabled,
        allowed_prefixes: Vec::new(),
    };
    [record(instance), record(nic), record(address)]
}

pub(crate) fn group_uuid(number: u32) -> Uuid {
    id::<SecurityGroup>(20, number).uuid()
}

/// A group whose members reach each other, a rule of its that says so, and the service of the network.
pub(crate) fn group(number: u32) -> [Record; 3] {
    let service = NetworkServiceL3NetworkRef {
        uuid: id(12, 2),
        l3_network_uuid: id(9, 2),
        network_service_provider_uuid: ProviderType::SecurityGroup.provider(),
        network_service_type: NetworkServiceType::SecurityGroup,
    };
    let group = SecurityGroup {
        uuid: id(20, number),
        name: format!("group-{number}"),
        description: None,
        state: EnableState::Enabled,
        ip_version: 4,
        number,
        is_stateless: false,
        member_query: None,
    };
    [record(group), record(rule(number)), record(service)]
}

/// The rule of a group that lets its members reach each other.
pub(crate) fn rule(group: u32) -> SecurityGroupRule {
    SecurityGroupRule {
        uuid: id(21, group),
        security_group_uuid: id(20, group),
        number: group,
        rule_type: RuleType::Ingress,
        ip_version: 4,
        protocol: RuleProtocol::All,
        state: EnableState::Enabled,
        priority: 0,
        description: None,
        src_ip_range: None,
        dst_ip_range: None,
        dst_port_range: None,
        action: RuleAction::Accept,
        remote_security_group_uuid: Some(id(20, group)),
        remote_address_group_uuid: None,
        icmp_type: None,
        icmp_code: None,
    }
}

/// The same rule, disabled.
pub(crate) fn disabled_rule(group: u32) -> Record {
    record(SecurityGroupRule { state: EnableState::Disabled, ..rule(group) })
}

/// That an instance's NIC is in a group.
pub(crate) fn in_group(nic: u32, group: u32) -> Record {
    record(VmNicSecurityGroupRef {
        uuid: VmNicSecurityGroupRef::id_of(id(6, nic), id(20, group)),
        vm_nic_uuid: id(6, nic),
        security_group_uuid: id(20, group),
        priority: 1,
        is_chosen: true,
        is_found: false,
    })
}
