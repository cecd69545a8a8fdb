//! Random histories.

use model::{
    Kind, Meta, Record, Timestamp,
    resource::{
        ip_range::AddressMode,
        l2_network::Segment,
        l3_network::L3Network,
        network_service::{NetworkServiceType, ProviderType},
        security_group::SecurityGroup,
        security_group_member::NicPolicy,
        security_group_rule::{RuleAction, RuleType, SecurityGroupRule},
        used_ip::UsedIp,
        vm_instance::VmInstance,
        vm_nic::VmNic,
        zone::EnableState,
    },
    setting::{
        DHCP_LEASE_TIME, FLOW_LOG, FlowLogEvents, METADATA_TOKEN, TCP_ESTABLISHED, VENDOR_DATA,
        WITHOUT_GROUP,
    },
};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{group_rows::*, rows::*};

/// One transaction of a random history.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Put(Vec<Record>),
    Delete(Kind, Uuid),
}

pub(crate) fn record() -> impl Strategy<Value = Record> {
    let network = (0..3u32, 0..2u32, 1..9u32).prop_map(|(n, pool, vni)| match vni {
        7 => on(n, Segment::NoVlan),
        8 => on(n, Segment::Vlan { vlan: 5 }),
        _ => network(n, pool, vni),
    });
    let vtep = (0..6u32, 0..4u32, 0..2u32, 0..8u32)
        .prop_map(|(n, host, pool, ip)| vtep(n, host, pool, ip));
    let host = (0..4u32, 0..2u32).prop_map(|(n, cluster)| host(n, cluster));
    let remote = (0..2u32, 0..2u32, 0..3u32)
        .prop_map(|(cluster, pool, address)| remote_vtep(cluster, pool, address));
    let instance =
        (0..4u32, 0..4u32, "[ab]", prop::option::of(2..4u32)).prop_map(|(n, host, name, l3)| {
            VmInstance {
                default_l3_network_uuid: l3.map(|l3| id(9, l3)),
                ..instance(n, host, &name)
            }
        });
    let nic = (0..8u32, 0..3u32, prop::option::of(0..4u32), 0..10u32, 0..5i64).prop_map(
        |(n, net, host, twist, time)| {
            let mut nic = nic(n, net, host);
            match twist {
                0 => nic.state = EnableState::Disabled,
                2 => nic.vm_instance_uuid = None,
                4 => {
                    nic.vm_instance_uuid = None;
                    nic.plugged_device = Some("vnet0".to_owned());
                }
                8 | 9 => nic = moving(nic, (twist + n) % 4),
                5 => nic.plugged_device = Some("vnet0".to_owned()),
                3 => {
                    nic.allowed_prefixes =
                        vec![format!("192.168.{n}.0/24").parse().expect("a prefix")]
                }
                _ => {}
            }
            Record::new(nic, Meta { changed: Timestamp(time), ..Meta::default() })
        },
    );
    let used = (0..8u32, 0..3u32, 0..9u32, 2..4u32).prop_map(|(nic, which, last, l3)| UsedIp {
        l3_network_uuid: id(9, l3),
        ..used(nic, which, last)
    });
    prop_oneof![
        8 => told(),
        14 => guarded_by(),
        2 => network.prop_map(record_of),
        3 => vtep.prop_map(record_of),
        1 => host.prop_map(record_of),
        2 => remote.prop_map(record_of),
        1 => instance.prop_map(record_of),
        6 => nic,
        4 => used.prop_map(record_of),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(record(), 1..4).prop_map(Step::Put),
        1 => record().prop_map(|record| Step::Delete(record.kind(), record.uuid())),
    ]
}

/// What decides what guests are told.
fn told() -> impl Strategy<Value = Record> {
    use NetworkServiceType as Type;
    let l3s = (2..4u32, prop::option::of("[ab]"), 0..2u32, any::<bool>()).prop_map(
        |(n, dns_domain, dns, enable_ipam)| {
            let dns = (0..dns).map(ip).collect();
            L3Network { dns_domain, dns, enable_ipam, ..l3(n) }
        },
    );
    let types = prop::sample::select(vec![Type::Dhcp, Type::Userdata, Type::Dns, Type::Eip]);
    let providers = prop::sample::select(vec![ProviderType::Flat, ProviderType::Vrouter]);
    let services = (2..4u32, providers, types).prop_map(|(l3, by, what)| service(l3, by, what));
    let modes = prop::option::of(prop::sample::select(AddressMode::ALL.to_vec()));
    let ranges = (0..3u32, 2..4u32, modes).prop_map(|(n, l3, mode)| range(n, l3, mode));
    let leases = prop::sample::select(vec!["60", "1", "86400"]);
    let global = leases.clone().prop_map(|value| setting(&DHCP_LEASE_TIME, value));
    let own = (2..4u32, leases)
        .prop_map(|(l3, value)| own_setting(&DHCP_LEASE_TIME, id::<L3Network>(9, l3), value));
    let named = (0..8u32, 0..4u32, prop::option::of("[ab]|a\\.b"))
        .prop_map(|(n, host, name)| VmNic { hostname: name, ..nic(n, 0, Some(host)) });
    let options = (0..2u32, 0..3u16, "[ab]").prop_map(|(n, code, value)| {
        let code = [66, 42, 119][usize::from(code)];
        match n {
            0 => dhcp_option(id::<L3Network>(9, 2), code, &value),
            _ => dhcp_option(id::<VmNic>(6, 1), code, &value),
        }
    });
    let data = (0..4u32, prop::option::of("aGk=|YQ=="), prop::option::of("ssh-rsa [ab]"))
        .prop_map(|(n, data, key)| guest_data(n, data.as_deref(), key.as_deref()));
    let tokens = (0..4u32, "Required|Optional")
        .prop_map(|(n, word)| own_setting(&METADATA_TOKEN, id::<VmInstance>(5, n), &word));
    prop_oneof![
        2 => options.prop_map(record_of),
        2 => data.prop_map(record_of),
        1 => (0..4u32, "[ab]").prop_map(|(n, tag)| record_of(user_tag(n, &tag))),
        1 => "[ab]".prop_map(|name| record_of(zone(&name))),
        1 => "[ab]?".prop_map(|text| record_of(setting(&VENDOR_DATA, &text))),
        1 => tokens.prop_map(record_of),
        2 => l3s.prop_map(record_of),
        4 => services.prop_map(record_of),
        2 => ranges.prop_map(record_of),
        1 => (2..4u32, 0..3u32).prop_map(|(l3, n)| record_of(route(l3, n))),
        1 => (2..4u32, 0..3u32).prop_map(|(l3, last)| record_of(dhcp_server(l3, last))),
        1 => global.prop_map(record_of),
        1 => own.prop_map(record_of),
        1 => named.prop_map(record_of),
    ]
}

/// What guards NICs.
pub(crate) fn guarded_by() -> impl Strategy<Value = Record> {
    let states = || prop::sample::select(EnableState::ALL.to_vec());
    let groups = (0..4u32, states(), any::<bool>())
        .prop_map(|(n, state, is_stateless)| SecurityGroup { state, is_stateless, ..group(n) });
    let remotes = (0..4u32, 0..4u32).prop_map(|(sort, which)| match sort {
        0 => (None, Some(id(24, which % 2))),
        1 => (None, None),
        _ => (Some(id(20, which)), None),
    });
    let types = prop::sample::select(RuleType::ALL.to_vec());
    let actions = prop::sample::select(RuleAction::ALL.to_vec());
    let more = (types, actions, states(), 0..2u8);
    let rules = (0..16u32, 0..4u32, remotes, more).prop_map(|(n, of, remote, more)| {
        let (rule_type, action, state, family) = more;
        SecurityGroupRule {
            rule_type,
            action,
            state,
            ip_version: 4 + family * 2,
            remote_security_group_uuid: remote.0,
            remote_address_group_uuid: remote.1,
            ..rule(n, of)
        }
    });
    let lists = prop::sample::select(vec![
        &["10.1.0.0/16"][..],
        &["fd00::/64"][..],
        &["10.1.0.0/16", "fd00::/64"][..],
        &[][..],
    ]);
    let addresses = (0..2u32, lists).prop_map(|(n, list)| address_group(n, list));
    let refs = (0..8u32, 0..4u32, 1..4u32).prop_map(|(nic, group, at)| in_group(nic, group, at));
    let policies = prop::sample::select(NicPolicy::ALL.to_vec());
    let defaults = (0..8u32, policies.clone(), policies)
        .prop_map(|(nic, ingress, egress)| policy(nic, ingress, egress));
    let words = || prop::sample::select(vec!["Open", "Closed"]);
    let own = (2..4u32, words())
        .prop_map(|(l3, word)| own_setting(&WITHOUT_GROUP, id::<L3Network>(9, l3), word));
    let events = || prop::sample::select(FlowLogEvents::ALL.to_vec()).prop_map(|it| it.as_str());
    let of_l3 = (1..4u32, events())
        .prop_map(|(l3, word)| own_setting(&FLOW_LOG, id::<L3Network>(9, l3), word));
    let of_nic = (0..8u32, events())
        .prop_map(|(nic, word)| own_setting(&FLOW_LOG, id::<VmNic>(6, nic), word));
    let legs = (0..4u32, 0..4u32, 0..3u32, prop::collection::vec(2..4u32, 0..3))
        .prop_map(|(n, instance, net, routes)| leg(n, instance, net, &routes));
    prop_oneof![
        3 => groups.prop_map(record_of),
        6 => rules.prop_map(record_of),
        2 => addresses.prop_map(record_of),
        8 => refs.prop_map(record_of),
        3 => defaults.prop_map(record_of),
        2 => (1..4u32).prop_map(|l3| record_of(guarded(l3))),
        1 => words().prop_map(|word| record_of(setting(&WITHOUT_GROUP, word))),
        1 => own.prop_map(record_of),
        1 => events().prop_map(|word| record_of(setting(&FLOW_LOG, word))),
        1 => of_l3.prop_map(record_of),
        1 => of_nic.prop_map(record_of),
        1 => Just(record_of(setting(&TCP_ESTABLISHED, "60"))),
        1 => legs.prop_map(record_of),
    ]
}
