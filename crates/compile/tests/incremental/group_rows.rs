//! Rows of security groups.

use model::{
    AnyId, Id, Record,
    resource::{
        address_group::AddressGroup,
        l3_network::{L3Category, L3Network},
        network_service::{NetworkServiceL3NetworkRef, NetworkServiceType, ProviderType},
        security_group::SecurityGroup,
        security_group_member::{NicPolicy, VmNicSecurityGroupRef, VmNicSecurityPolicy},
        security_group_rule::{RuleAction, RuleProtocol, RuleType, SecurityGroupRule},
        used_ip::UsedIp,
        vm_nic::VmNic,
        zone::EnableState,
    },
};

use crate::rows::*;

/// Group n has number n + 100.
pub(crate) fn group(n: u32) -> SecurityGroup {
    SecurityGroup {
        uuid: id(20, n),
        name: format!("group{n}"),
        description: None,
        state: EnableState::Enabled,
        ip_version: 4,
        number: n + 100,
        is_stateless: false,
        member_query: None,
    }
}

/// A rule that lets TCP in from everybody, at place n % 10. Its number is n + 1000.
pub(crate) fn rule(n: u32, of: u32) -> SecurityGroupRule {
    SecurityGroupRule {
        uuid: id(21, n),
        security_group_uuid: id(20, of),
        number: n + 1000,
        rule_type: RuleType::Ingress,
        ip_version: 4,
        protocol: RuleProtocol::Tcp,
        state: EnableState::Enabled,
        priority: n % 10,
        description: None,
        src_ip_range: None,
        dst_ip_range: None,
        dst_port_range: None,
        action: RuleAction::Accept,
        remote_security_group_uuid: None,
        remote_address_group_uuid: None,
        icmp_type: None,
        icmp_code: None,
    }
}

/// The same about the members of a group.
pub(crate) fn rule_about(n: u32, of: u32, group: u32) -> SecurityGroupRule {
    SecurityGroupRule { remote_security_group_uuid: Some(id(20, group)), ..rule(n, of) }
}

/// The same about a group of addresses.
pub(crate) fn rule_about_addresses(n: u32, of: u32, group: u32) -> SecurityGroupRule {
    SecurityGroupRule { remote_address_group_uuid: Some(id(24, group)), ..rule(n, of) }
}

pub(crate) fn address_group(n: u32, addresses: &[&str]) -> AddressGroup {
    AddressGroup {
        uuid: id(24, n),
        name: format!("addresses{n}"),
        description: None,
        addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
    }
}

/// That a NIC is in a group, at a place.
pub(crate) fn in_group(nic: u32, group: u32, priority: u32) -> VmNicSecurityGroupRef {
    VmNicSecurityGroupRef {
        uuid: VmNicSecurityGroupRef::id_of(id(6, nic), id(20, group)),
        vm_nic_uuid: id(6, nic),
        security_group_uuid: id(20, group),
        priority,
        is_chosen: true,
        is_found: false,
    }
}

pub(crate) fn policy(nic: u32, ingress: NicPolicy, egress: NicPolicy) -> VmNicSecurityPolicy {
    VmNicSecurityPolicy {
        uuid: VmNicSecurityPolicy::id_of(id(6, nic)),
        vm_nic_uuid: id(6, nic),
        ingress_policy: ingress,
        egress_policy: egress,
    }
}

/// The service of security groups.
pub(crate) fn guarded(l3: u32) -> NetworkServiceL3NetworkRef {
    service(l3, ProviderType::SecurityGroup, NetworkServiceType::SecurityGroup)
}

/// An L3 network of the same number as its L2 network.
pub(crate) fn l3_on(n: u32, category: L3Category) -> L3Network {
    L3Network { l2_network_uuid: id(1, n), category, ..l3(n) }
}

/// Addresses 10.0.n.10 to 10.0.n.19, where n is `of`, of that L3 network.
pub(crate) fn range_on(n: u32, of: u32) -> Record {
    let like = range(0, of, None);
    record_of(model::resource::ip_range::IpRange {
        uuid: id(13, n * 10),
        l3_network_uuid: id(9, n),
        l2_network_uuid: id(1, n),
        ..like
    })
}

/// A NIC on an L3 network of its own number's L2 network, with an address there.
pub(crate) fn nic_on(n: u32, net: u32, host: u32) -> Vec<Record> {
    let used = UsedIp {
        l2_network_uuid: id(1, net),
        l3_network_uuid: id(9, net),
        used_by: AnyId::of(id::<VmNic>(6, n)),
        ..used(n, 0, (net << 8) + n)
    };
    let nic = VmNic { l3_network_uuid: id(9, net), ..nic(n, net, Some(host)) };
    vec![record_of(nic), record_of(used)]
}

/// A NIC of an instance that routes for 10.0.x.0/24 of some x.
pub(crate) fn leg(n: u32, instance: u32, net: u32, routes: &[u32]) -> VmNic {
    let prefix = |of: &u32| format!("10.0.{of}.0/24").parse().expect("a prefix");
    VmNic {
        l3_network_uuid: id(9, net),
        vm_instance_uuid: Some(Id::new(id::<VmNic>(5, instance).uuid())),
        allowed_prefixes: routes.iter().map(prefix).collect(),
        ..nic(n, net, None)
    }
}
