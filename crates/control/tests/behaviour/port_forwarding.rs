//! Port forwarding: which rules go together on a VIP, on a NIC and for an instance.

use std::collections::BTreeMap;

use model::{
    Code, Id, Kind,
    resource::{network_service::ProviderType, port_forwarding::PortForwardingRule},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, range},
    l3::bare_l3,
    vip::World,
};

const CREATE: &str = "CreatePortForwardingRule";
const ATTACH: &str = "AttachPortForwardingRule";

/// A rule for one TCP port, with more fields.
fn rule(vip: &str, port: u16, more: Value) -> Value {
    let mut rule =
        json!({"name": "r", "vipUuid": vip, "vipPortStart": port, "protocolType": "TCP"});
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rule
}

fn attach(rule: &str, nic: &str) -> Value {
    json!({"ruleUuid": rule, "vmNicUuid": nic})
}

fn row(world: &World, rule: &str) -> PortForwardingRule {
    let id: Id<PortForwardingRule> = rule.parse().unwrap();
    world.cloud.get(id).unwrap()
}

fn nic_of(world: &World, rule: &str) -> Option<String> {
    row(world, rule).vm_nic_uuid.map(|nic| nic.to_string())
}

#[test]
fn a_rule_is_shown_with_where_it_leads() {
    let world = World::new();
    let (vip, (_, nic)) = (world.vip(), world.vm());
    let more = json!({"vmNicUuid": nic, "description": "d", "allowedCidr": "192.0.2.7/24",
        "privatePortStart": 8080});
    let made = world.cloud.made(CREATE, rule(&vip, 80, more));
    let (shown, of_vip) =
        (world.shown(Kind::PortForwardingRule, &made), world.shown(Kind::Vip, &vip));
    let guest_ip = world.shown(Kind::VmNic, &nic)["ip"].clone();
    let expected = json!({
        "uuid": made, "name": "r", "description": "d", "vipUuid": vip, "vipIp": of_vip["ip"],
        "guestIp": guest_ip, "vipPortStart": 80, "vipPortEnd": 80, "privatePortStart": 8080,
        "privatePortEnd": 8080, "vmNicUuid": nic, "protocolType": "TCP", "state": "Enabled",
        "allowedCidr": "192.0.2.0/24",
        "notInEffect": format!("nobody provides PortForwarding to L3 network {} yet", world.guest),
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(shown.get(field), Some(value), "{field}");
    }
    assert_eq!(of_vip["useFor"], "PortForwarding");
    assert_eq!(of_vip["serviceProvider"], "vrouter");
    assert_eq!(of_vip["peerL3NetworkUuids"], json!([world.guest]));
    let refs = json!([{"uuid": made, "serviceType": "PortForwarding", "vipUuid": vip}]);
    assert_eq!(of_vip["servicesRefs"], refs);
    let guest_ip = guest_ip.as_str().unwrap();
    assert_eq!(world.found(Kind::PortForwardingRule, "guestIp", guest_ip), [made.as_str()]);
    let vip_ip = of_vip["ip"].as_str().unwrap();
    assert_eq!(world.found(Kind::PortForwardingRule, "vipIp", vip_ip), [made.as_str()]);
    assert_eq!(world.found(Kind::Vip, "portForwarding.uuid", &made), [vip.as_str()]);
    assert_eq!(world.found(Kind::Vip, "peerL3NetworkUuids", &world.guest), [vip]);
    assert_eq!(world.found(Kind::VmNic, "portForwarding.uuid", &made), [nic]);
}

#[test]
fn ports_that_are_left_out_follow_from_the_others_and_swapped_ones_are_turned() {
    let world = World::new();
    let vip = world.vip();
    let cases = [
        (80, json!({}), [80, 80, 80, 80]),
        (100, json!({"vipPortEnd": 110}), [100, 110, 100, 110]),
        (120, json!({"privatePortStart": 8080}), [120, 120, 8080, 8080]),
        (121, json!({"privatePortEnd": 8080}), [121, 121, 8080, 8080]),
        (140, json!({"vipPortEnd": 130}), [130, 140, 130, 140]),
        (
            150,
            json!({"vipPortEnd": 151, "privatePortStart": 9, "privatePortEnd": 8}),
            [150, 151, 8, 9],
        ),
        (65535, json!({"vipPortEnd": 65000}), [65000, 65535, 65000, 65535]),
        (1, json!({"privatePortStart": 65535}), [1, 1, 65535, 65535]),
    ];
    for (port, more, expected) in cases {
        let made = row(&world, &world.cloud.made(CREATE, rule(&vip, port, more.clone())));
        let ports = [
            made.vip_port_start,
            made.vip_port_end,
            made.private_port_start,
            made.private_port_end,
        ];
        assert_eq!(ports, expected, "{port} {more}");
    }
    for (more, field) in [
        (json!({"vipPortEnd": 310, "privatePortStart": 80}), "privatePortEnd"),
        (json!({"privatePortStart": 80, "privatePortEnd": 81}), "privatePortEnd"),
        (json!({"vipPortEnd": 65536}), "vipPortEnd"),
        (json!({"vipPortStart": 0}), "vipPortStart"),
        (json!({"privatePortStart": 0}), "privatePortStart"),
        (json!({"protocolType": "ICMP"}), "protocolType"),
        (json!({"allowedCidr": "2001:db8::/64"}), "allowedCidr"),
        (json!({"allowedCidr": "everybody"}), "allowedCidr"),
    ] {
        world.refused(CREATE, rule(&vip, 300, more), Code::InvalidArgument, field);
    }
}

#[test]
fn rules_of_a_protocol_have_ports_of_their_own_on_a_vip() {
    let world = World::new();
    let (vip, other) = (world.vip(), world.vip());
    world.cloud.made(CREATE, rule(&vip, 100, json!({"vipPortEnd": 110})));
    for (start, end) in [(100, 100), (110, 110), (105, 106), (90, 100), (110, 120), (90, 120)] {
        let message = rule(&vip, start, json!({"vipPortEnd": end}));
        world.refused(CREATE, message, Code::InvalidArgument, "vipPortStart");
    }
    for (start, end) in [(90, 99), (111, 120)] {
        world.cloud.made(CREATE, rule(&vip, start, json!({"vipPortEnd": end})));
    }
    let udp = json!({"vipPortEnd": 110, "protocolType": "UDP"});
    world.cloud.made(CREATE, rule(&vip, 100, udp));
    world.cloud.made(CREATE, rule(&other, 100, json!({"vipPortEnd": 110})));
}

/// The same rules when it is made and when it is attached.
fn check_nic(world: &World, vip: &str, nic: &str, code: Code) -> String {
    let text = world.refused(CREATE, rule(vip, 999, json!({"vmNicUuid": nic})), code, "vmNicUuid");
    let made = world.cloud.made(CREATE, rule(vip, 999, json!({})));
    assert_eq!(world.refused(ATTACH, attach(&made, nic), code, "vmNicUuid"), text);
    world.cloud.call("DeletePortForwardingRule", json!({"uuid": made})).unwrap();
    text
}

#[test]
fn a_nic_that_a_rule_does_not_lead_to() {
    let world = World::new();
    let vip = world.vip();
    let (_, on_public) = world.vm_on(&[&world.public]);
    check_nic(&world, &vip, &on_public, Code::InvalidArgument);
    let flat = bare_l3(&world.cloud, &world.fixture, json!({}));
    world.cloud.made("AddIpRange", range(&flat, "10.0.0.10", "10.0.0.13"));
    world.serve(&flat, ProviderType::Flat, &["Eip"]);
    let (_, nic) = world.vm_on(&[&flat]);
    let text = check_nic(&world, &vip, &nic, Code::OperationFailed);
    assert!(text.contains("has no service PortForwarding"), "{text}");
    let nowhere = rule(&vip, 1, json!({"vmNicUuid": "00000000000000000000000000000bad"}));
    world.refused(CREATE, nowhere, Code::NotFound, "vmNicUuid");
    let (vm, gone) = world.vm();
    world.cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    check_nic(&world, &vip, &gone, Code::OperationFailed);
}

#[test]
fn one_provider_carries_what_a_vip_leads_to() {
    let world = World::new();
    let other = bare_l3(&world.cloud, &world.fixture, json!({}));
    world.cloud.made("AddIpRange", range(&other, "10.0.0.10", "10.0.0.13"));
    world.serve(&other, ProviderType::VirtualRouter, &["PortForwarding"]);
    let (vip, (_, nic), (_, theirs)) = (world.vip(), world.vm(), world.vm_on(&[&other]));
    let first = world.cloud.made(CREATE, rule(&vip, 80, json!({"vmNicUuid": nic})));
    let text = check_nic(&world, &vip, &theirs, Code::OperationFailed);
    assert!(text.contains("is carried by vrouter"), "{text}");
    world.cloud.call("DetachPortForwardingRule", json!({"uuid": first})).unwrap();
    world.cloud.made(CREATE, rule(&vip, 81, json!({"vmNicUuid": theirs})));
    assert_eq!(world.shown(Kind::Vip, &vip)["serviceProvider"], "VirtualRouter");
}

#[test]
fn the_rules_of_an_instance_are_of_one_vip() {
    let world = World::new();
    let second = bare_l3(&world.cloud, &world.fixture, json!({}));
    world.cloud.made("AddIpRange", range(&second, "10.0.0.10", "10.0.0.13"));
    world.serve(&second, ProviderType::Vrouter, &["PortForwarding"]);
    let (vm, _) = world.vm_on(&[&world.guest, &second]);
    let mut nics = world.cloud.nics(&vm);
    nics.sort_by_key(|nic| nic.device_id);
    let [one, two] = [&nics[0], &nics[1]].map(|nic| nic.uuid.to_string());
    let (vip, other) = (world.vip(), world.vip());
    let first = world.cloud.made(CREATE, rule(&vip, 80, json!({"vmNicUuid": one})));
    for nic in [&one, &two] {
        let text = check_nic(&world, &other, nic, Code::OperationFailed);
        assert!(text.contains(&vip), "{text}");
    }
    world.cloud.made(CREATE, rule(&vip, 81, json!({"vmNicUuid": two})));
    let (_, another) = world.vm();
    world.cloud.made(CREATE, rule(&other, 82, json!({"vmNicUuid": another})));
    assert_eq!(nic_of(&world, &first), Some(one));
    let mut peers = [world.guest.clone(), second];
    peers.sort();
    assert_eq!(world.shown(Kind::Vip, &vip)["peerL3NetworkUuids"], json!(peers));
}

/// ZStack's AttachPortForwardingToVnicWithEipCase and VirtualRouterPortforwardingAndEipCase. That an
/// instance is paused changes nothing here: no state of an instance does but that it is destroyed.
#[test]
fn p43_a_rule_for_some_and_an_eip_exclude_each_other() {
    let world = World::new();
    let (vip, (_, nic)) = (world.vip(), world.vm());
    let some = json!({"allowedCidr": "192.0.2.0/24"});
    let made = world.cloud.made(CREATE, rule(&vip, 80, some.clone()));
    let eip = world.cloud.made("CreateEip", json!({"name": "e", "vipUuid": world.vip()}));
    let to_nic = json!({"eipUuid": eip, "vmNicUuid": nic});
    world.cloud.call("AttachEip", to_nic.clone()).unwrap();
    world.refused(ATTACH, attach(&made, &nic), Code::OperationFailed, "vmNicUuid");
    let at_once = json!({"allowedCidr": "192.0.2.0/24", "vmNicUuid": nic});
    let at_once = rule(&vip, 81, at_once);
    world.refused(CREATE, at_once, Code::OperationFailed, "vmNicUuid");
    world.cloud.made(CREATE, rule(&vip, 82, json!({"vmNicUuid": nic})));
    world.cloud.call("DetachEip", json!({"uuid": eip})).unwrap();
    world.cloud.call(ATTACH, attach(&made, &nic)).unwrap();
    world.refused("AttachEip", to_nic.clone(), Code::OperationFailed, "vmNicUuid");
    let at_once = json!({"name": "e", "vipUuid": world.vip(), "vmNicUuid": nic});
    world.refused("CreateEip", at_once, Code::OperationFailed, "vmNicUuid");
    world.cloud.call("DetachPortForwardingRule", json!({"uuid": made})).unwrap();
    world.cloud.call("AttachEip", to_nic).unwrap();
}

#[test]
fn a_port_of_a_nic_is_for_everybody_or_for_some() {
    let world = World::new();
    let (vip, (_, nic)) = (world.vip(), world.vm());
    let to = |port: u16, end: u16, more: &Value| {
        let mut fields = json!({"vmNicUuid": nic, "privatePortStart": 8000 + port,
            "privatePortEnd": 8000 + port + (end - port), "vipPortEnd": end});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    };
    let (all, some) = (json!({}), json!({"allowedCidr": "192.0.2.0/24"}));
    world.cloud.made(CREATE, rule(&vip, 10, to(10, 19, &all)));
    world.cloud.made(CREATE, rule(&vip, 30, to(30, 39, &some)));
    let at = |port: u16, private: u16, more: &Value| {
        let mut fields = json!({"vmNicUuid": nic, "privatePortStart": private});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule(&vip, port, fields)
    };
    world.cloud.made(CREATE, at(100, 8010, &all));
    for (private, more) in [(8019, &some), (8030, &all), (8039, &some)] {
        let message = at(101, private, more);
        world.refused(CREATE, message, Code::OperationFailed, "vmNicUuid");
    }
    world.cloud.made(CREATE, at(102, 8020, &some));
    let udp = json!({"protocolType": "UDP"});
    world.cloud.made(CREATE, at(103, 8030, &udp));
}

#[test]
fn a_rule_is_attached_once_and_while_it_is_enabled() {
    let world = World::new();
    let (vip, (_, nic)) = (world.vip(), world.vm());
    let made = world.cloud.made(CREATE, rule(&vip, 80, json!({})));
    let (uuid, detach) = (json!({"uuid": made}), "DetachPortForwardingRule");
    world.refused(detach, uuid.clone(), Code::OperationFailed, "uuid");
    let state = |event: &str| {
        let change = json!({"uuid": made, "stateEvent": event});
        world.cloud.call("ChangePortForwardingRuleState", change).unwrap();
    };
    state("disable");
    world.refused(ATTACH, attach(&made, &nic), Code::OperationFailed, "ruleUuid");
    state("enable");
    world.cloud.call(ATTACH, attach(&made, &nic)).unwrap();
    world.refused(ATTACH, attach(&made, &nic), Code::OperationFailed, "ruleUuid");
    world.cloud.call(detach, uuid).unwrap();
    let disable = json!({"uuid": vip, "stateEvent": "disable"});
    world.cloud.call("ChangeVipState", disable).unwrap();
    world.refused(ATTACH, attach(&made, &nic), Code::OperationFailed, "ruleUuid");
    let rename = json!({"uuid": made, "name": "other", "description": "d"});
    world.cloud.call("UpdatePortForwardingRule", rename).unwrap();
    assert_eq!(row(&world, &made).name, "other");
}

/// P42, as far as the API shows it.
#[test]
fn a_rule_stays_with_a_stopped_instance_and_leaves_a_destroyed_one() {
    let world = World::new();
    let (vip, (vm, nic)) = (world.vip(), world.vm());
    let made = world.cloud.made(CREATE, rule(&vip, 80, json!({"vmNicUuid": nic})));
    world.cloud.call("StopVmInstance", json!({"uuid": vm})).unwrap();
    assert_eq!(nic_of(&world, &made), Some(nic.clone()));
    world.cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    assert_eq!(nic_of(&world, &made), None);
    world.cloud.give_up_releases();
    world.cloud.call("RecoverVmInstance", json!({"uuid": vm})).unwrap();
    world.cloud.call(ATTACH, attach(&made, &nic)).unwrap();
    let blue = world.cloud.l3(&world.fixture, "blue");
    let change = json!({"vmNicUuid": nic, "destL3NetworkUuid": blue});
    world.refused("ChangeVmNicNetwork", change, Code::OperationFailed, "vmNicUuid");
    world.cloud.call("DeletePortForwardingRule", json!({"uuid": made})).unwrap();
    world.cloud.call("DeleteVip", json!({"uuid": vip})).unwrap();
}

#[test]
fn a_vip_is_deleted_with_more_rules_than_one_deletion_takes() {
    let world = World::new();
    let vip = world.vip();
    let calls: Vec<_> = (1..=3100_u16)
        .map(|port| crate::harness::request(CREATE, rule(&vip, port, json!({}))))
        .collect();
    for some in calls.chunks(1000) {
        world.cloud.send(ADMINISTRATOR, some.to_vec()).unwrap();
    }
    assert_eq!(world.cloud.snapshot().total(Kind::PortForwardingRule), 3100);
    world.cloud.call("DeleteVip", json!({"uuid": vip})).unwrap();
    assert_eq!(world.cloud.snapshot().total(Kind::PortForwardingRule), 0);
}

#[test]
fn the_nics_that_a_rule_could_be_attached_to_are_listed() {
    let world = World::new();
    let (vip, (_, nic), (_, theirs)) = (world.vip(), world.vm(), world.vm());
    world.cloud.made(CREATE, rule(&world.vip(), 80, json!({"vmNicUuid": theirs})));
    world.cloud.made("CreateVmNic", json!({"l3NetworkUuid": world.guest}));
    let made = world.cloud.made(CREATE, rule(&vip, 80, json!({})));
    let candidates = || {
        let ask = json!({"ruleUuid": made});
        let answer = world.cloud.look(ADMINISTRATOR, "GetPortForwardingAttachableVmNics", ask);
        answer.map(|answer| {
            let found = answer["inventories"].as_array().unwrap().clone();
            found.iter().map(|it| it["uuid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        })
    };
    assert_eq!(candidates().unwrap(), [nic.as_str()], "the other one has rules of another VIP");
    world.cloud.call(ATTACH, attach(&made, &nic)).unwrap();
    assert_eq!(candidates().unwrap(), Vec::<String>::new());
    let disable = json!({"uuid": made, "stateEvent": "disable"});
    world.cloud.call("ChangePortForwardingRuleState", disable).unwrap();
    assert_eq!(candidates().unwrap_err().code, Code::OperationFailed);
}

/// A rule of one NIC, as a test makes it up: ports of VIP and NIC, how many, and whether it is for some.
type MadeUp = (u16, u16, u16, bool);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Compared with looking at each rule that there is.
    #[test]
    fn rules_are_refused_where_they_overlap_and_nowhere_else(
        made in proptest::collection::vec((1_u16..60, 1_u16..60, 0_u16..12, any::<bool>()), 1..40),
    ) {
        let world = World::new();
        let (vip, (_, nic)) = (world.vip(), world.vm());
        let mut there: BTreeMap<String, MadeUp> = BTreeMap::new();
        let meet = |a: u16, b: u16, (more, other): (u16, u16)| a <= b + other && b <= a + more;
        for (at, (of_vip, of_nic, more, some)) in made.into_iter().enumerate() {
            if at % 5 == 4 && let Some((gone, _)) = there.pop_first() {
                world.cloud.call("DeletePortForwardingRule", json!({"uuid": gone})).unwrap();
            }
            let clashes = there.values().any(|(vip, nic, other, theirs)| {
                meet(of_vip, *vip, (more, *other))
                    || (some || *theirs) && meet(of_nic, *nic, (more, *other))
            });
            let mut fields = json!({"vmNicUuid": nic, "vipPortEnd": of_vip + more,
                "privatePortStart": of_nic, "privatePortEnd": of_nic + more});
            if some {
                fields["allowedCidr"] = json!("192.0.2.0/24");
            }
            let answer = world.cloud.call(CREATE, rule(&vip, of_vip, fields));
            prop_assert_eq!(answer.is_err(), clashes, "{:?}", answer);
            if let Ok(reply) = answer {
                let uuid = reply.subject.unwrap().1.simple().to_string();
                there.insert(uuid, (of_vip, of_nic, more, some));
            }
        }
    }
}
