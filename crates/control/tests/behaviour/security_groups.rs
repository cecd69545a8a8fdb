//! Security groups and their rules: what is made, in which order it is, and what is refused.

use model::{
    Code, Error, Kind, Resource,
    resource::{
        network_service::ProviderType,
        security_group::SecurityGroup,
        security_group_rule::{Remote, RuleAction, RuleProtocol, RuleType, SecurityGroupRule},
    },
};
use netloom_control::{
    Caller,
    inventory::Observed,
    query::{self, Condition, Operator, Path, Query},
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, request, tenant},
    l3::shown,
};

/// A cloud with an L3 network that has the service.
pub(crate) fn guarded() -> (Cloud, Fixture, String) {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = guarded_l3(&cloud, &fixture, "red");
    (cloud, fixture, l3)
}

/// An L3 network that has the service.
pub(crate) fn guarded_l3(cloud: &Cloud, fixture: &Fixture, name: &str) -> String {
    let l3 = cloud.l3(fixture, name);
    let services = json!({ProviderType::SecurityGroup.provider().to_string(): ["SecurityGroup"]});
    let attach = json!({"l3NetworkUuid": l3, "networkServices": services});
    cloud.call("AttachNetworkServiceToL3Network", attach).unwrap();
    l3
}

/// A group.
pub(crate) fn group(cloud: &Cloud, name: &str) -> String {
    cloud.made("CreateSecurityGroup", json!({"name": name}))
}

/// A message of a caller; gives the uuid of what it shows.
pub(crate) fn send(
    cloud: &Cloud,
    caller: Caller,
    name: &str,
    params: Value,
) -> Result<String, Error> {
    let before = cloud.contents();
    let done = cloud.send(caller, vec![request(name, params)]);
    if done.is_err() {
        assert_eq!(before, cloud.contents(), "a refused call changed something");
    }
    Ok(done?.reply.subject.map(|(_, uuid)| uuid.simple().to_string()).unwrap_or_default())
}

/// The rules of a group, by type and priority.
fn rules(cloud: &Cloud, group: &str) -> Vec<SecurityGroupRule> {
    let snapshot = cloud.snapshot();
    let group = model::id::parse_uuid(group).unwrap();
    let ids = snapshot.referrers(Kind::SecurityGroupRule, "securityGroupUuid", group);
    let mut rules: Vec<SecurityGroupRule> =
        ids.map(|id| cloud.get(model::Id::new(id)).unwrap()).collect();
    rules.sort_by_key(|rule| (rule.rule_type, rule.priority, rule.number));
    rules
}

/// What tells the rules of a type apart, in their order, the default rules aside.
fn order(cloud: &Cloud, group: &str, rule_type: RuleType) -> Vec<(u32, String)> {
    let rules = rules(cloud, group).into_iter();
    let rules = rules.filter(|rule| rule.rule_type == rule_type && !rule.is_default());
    rules.map(|rule| (rule.priority, rule.dst_port_range.unwrap_or_default())).collect()
}

fn tcp(port: &str) -> Value {
    json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": port})
}

/// Adds rules at a place.
fn add(cloud: &Cloud, group: &str, rules: &[Value], priority: i64) {
    let add = json!({"securityGroupUuid": group, "rules": rules, "priority": priority});
    cloud.call("AddSecurityGroupRule", add).unwrap();
}

#[test]
fn a_group_begins_with_rules_by_which_its_members_reach_each_other() {
    let cloud = Cloud::empty();
    let id = group(&cloud, "web");
    let rules = rules(&cloud, &id);
    let own = Remote::Group(id.parse().unwrap());
    assert_eq!(rules.len(), 4);
    for rule in &rules {
        assert_eq!((rule.remote(), rule.action), (own.clone(), RuleAction::Accept));
        assert_eq!((rule.protocol, rule.priority), (RuleProtocol::All, 0));
    }
    let families: Vec<_> = rules.iter().map(|rule| (rule.rule_type, rule.ip_version)).collect();
    let (ingress, egress) = (RuleType::Ingress, RuleType::Egress);
    assert_eq!(families, [(ingress, 4), (ingress, 6), (egress, 4), (egress, 6)]);
    let numbers: Vec<_> = rules.iter().map(|rule| rule.number).collect();
    let shown = shown(&cloud, Kind::SecurityGroup, &id);
    assert_eq!(shown["rules"].as_array().unwrap().len(), 4);
    assert_eq!((&shown["state"], &shown["ipVersion"]), (&json!("Enabled"), &json!(4)));
    cloud.call("DeleteSecurityGroup", json!({"uuid": id})).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::SecurityGroupRule), 0);
    let next = self::rules(&cloud, &group(&cloud, "web"));
    assert!(next.iter().all(|rule| !numbers.contains(&rule.number)), "numbers are used once");
}

/// ZStack's DeleteSecurityGroupRuleCase.
#[test]
fn p53_rules_that_go_leave_no_gap() {
    let cloud = Cloud::empty();
    let id = group(&cloud, "web");
    for port in ["5", "4", "3", "2", "1"] {
        add(&cloud, &id, &[tcp(port)], 1);
    }
    let expected = |ports: &[&str]| -> Vec<(u32, String)> {
        (1..).zip(ports).map(|(at, port)| (at, (*port).to_owned())).collect()
    };
    assert_eq!(order(&cloud, &id, RuleType::Ingress), expected(&["1", "2", "3", "4", "5"]));
    let all = rules(&cloud, &id);
    let of = |port: &str| {
        let rule = all.iter().find(|rule| rule.dst_port_range.as_deref() == Some(port));
        rule.unwrap().uuid.to_string()
    };
    let gone = json!({"ruleUuids": [of("1"), of("4"), "00000000000000000000000000000bad"]});
    cloud.call("DeleteSecurityGroupRule", gone.clone()).unwrap();
    assert_eq!(order(&cloud, &id, RuleType::Ingress), expected(&["2", "3", "5"]));
    cloud.call("DeleteSecurityGroupRule", gone).unwrap();
    assert_eq!(order(&cloud, &id, RuleType::Ingress), expected(&["2", "3", "5"]));
}

#[test]
fn rules_are_added_at_a_place_of_their_type_and_move_to_another() {
    let cloud = Cloud::empty();
    let id = group(&cloud, "web");
    let out = |port: &str| json!({"type": "Egress", "protocol": "TCP", "dstPortRange": port});
    add(&cloud, &id, &[tcp("1"), out("8"), tcp("2"), out("9")], -1);
    add(&cloud, &id, &[tcp("3"), tcp("4")], 2);
    let ports = |rule_type| -> Vec<String> {
        let order = order(&cloud, &id, rule_type);
        assert!(order.iter().zip(1..).all(|((priority, _), at)| *priority == at), "{order:?}");
        order.into_iter().map(|(_, port)| port).collect()
    };
    assert_eq!(ports(RuleType::Ingress), ["1", "3", "4", "2"]);
    assert_eq!(ports(RuleType::Egress), ["8", "9"]);
    let by_port = |port: &str| {
        let all = rules(&cloud, &id);
        let rule = all.iter().find(|rule| rule.dst_port_range.as_deref() == Some(port));
        rule.unwrap().uuid.to_string()
    };
    for (port, place, expected) in [
        ("1", 3, ["3", "4", "1", "2"]),
        ("2", 1, ["2", "3", "4", "1"]),
        ("2", -1, ["3", "4", "1", "2"]),
        ("4", 2, ["3", "4", "1", "2"]),
    ] {
        let change = json!({"uuid": by_port(port), "priority": place});
        cloud.call("ChangeSecurityGroupRule", change).unwrap();
        assert_eq!(ports(RuleType::Ingress), expected, "{port} to {place}");
    }
    let ranks: Vec<_> = (1..)
        .zip(["2", "1", "4", "3"])
        .map(|(at, port)| json!({"ruleUuid": by_port(port), "priority": at}))
        .collect();
    let mut update = json!({"securityGroupUuid": id, "type": "Ingress", "rules": ranks});
    cloud.call("UpdateSecurityGroupRulePriority", update.clone()).unwrap();
    assert_eq!(ports(RuleType::Ingress), ["2", "1", "4", "3"]);
    update["rules"].as_array_mut().unwrap().pop();
    let missing = cloud.refusal("UpdateSecurityGroupRulePriority", update.clone());
    assert_eq!((missing.0, missing.1.as_deref()), (Code::InvalidArgument, Some("rules")));
    update["rules"] = json!([ranks[0], ranks[1], ranks[2], ranks[2]]);
    assert_eq!(cloud.refusal("UpdateSecurityGroupRulePriority", update).0, Code::InvalidArgument);
    let change = |place: i64| json!({"uuid": by_port("1"), "priority": place});
    for place in [0, 5] {
        let (code, field, _) = cloud.refusal("ChangeSecurityGroupRule", change(place));
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("priority")), "{place}");
    }
}

#[test]
fn what_is_wrong_with_a_rule_is_told_and_nothing_is_added() {
    let cloud = Cloud::empty();
    let id = group(&cloud, "web");
    let other = group(&cloud, "other");
    add(&cloud, &id, &[tcp("80,443")], -1);
    let nobody = "00000000000000000000000000000bad";
    for (rules, code) in [
        (json!([tcp("22"), tcp("90-80")]), Code::InvalidArgument),
        (
            json!([{"type": "Ingress", "protocol": "ICMP", "dstPortRange": "8"}]),
            Code::InvalidArgument,
        ),
        (
            json!([{"type": "Ingress", "protocol": "ALL", "srcIpRange": "10.0.0.1/8"}]),
            Code::InvalidArgument,
        ),
        (
            json!([{"type": "Ingress", "protocol": "ALL", "srcIpRange": "10.0.0.9-10.0.0.1"}]),
            Code::InvalidArgument,
        ),
        (json!([tcp("22"), tcp("22")]), Code::InvalidArgument),
        (json!([tcp("443,80")]), Code::InvalidArgument),
        (json!([{"type": "Ingress", "protocol": "TCP"}]), Code::InvalidArgument),
        (json!([{"protocol": "ALL"}]), Code::InvalidArgument),
        (json!([]), Code::InvalidArgument),
        (json!(["tcp"]), Code::InvalidArgument),
        (
            json!([{"type": "Ingress", "protocol": "ALL", "remoteSecurityGroupUuid": nobody}]),
            Code::NotFound,
        ),
        (
            json!([{"type": "Ingress", "protocol": "ALL", "remoteAddressGroupUuid": nobody}]),
            Code::NotFound,
        ),
    ] {
        let params = json!({"securityGroupUuid": id, "rules": rules});
        let (seen, field, text) = cloud.refusal("AddSecurityGroupRule", params);
        assert_eq!((seen, field.as_deref()), (code, Some("rules")), "{rules}: {text}");
    }
    for (priority, is_right) in [(0, false), (-2, false), (3, false), (2, true)] {
        let params = json!({"securityGroupUuid": id, "rules": [tcp("22")], "priority": priority});
        let added = cloud.call("AddSecurityGroupRule", params);
        let field = added.as_ref().err().and_then(|error| error.field.clone());
        assert_eq!(added.is_ok(), is_right, "{priority}");
        assert!(is_right || field.as_deref() == Some("priority"), "{priority}: {field:?}");
    }
    let first = rules(&cloud, &id)[0].uuid;
    let (theirs, mine) = (rules(&cloud, &other), rules(&cloud, &id));
    add(&cloud, &other, &[tcp("1")], -1);
    let of = |rule: &SecurityGroupRule| rule.uuid.to_string();
    let added = |id: &str| of(rules(&cloud, id).iter().find(|rule| !rule.is_default()).unwrap());
    for rules in [json!([first]), json!([added(&id), added(&other)])] {
        let (code, field, _) =
            cloud.refusal("DeleteSecurityGroupRule", json!({"ruleUuids": rules}));
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("ruleUuids")));
    }
    let state = |rule: &SecurityGroupRule, state: &str| json!({"securityGroupUuid": id, "ruleUuids": [rule.uuid], "state": state});
    for (rule, to) in [(&theirs[0], "Disabled"), (&mine[0], "Enabled")] {
        let (code, field, _) = cloud.refusal("ChangeSecurityGroupRuleState", state(rule, to));
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("ruleUuids")));
    }
    cloud.call("ChangeSecurityGroupRuleState", state(&mine[0], "Disabled")).unwrap();
}

#[test]
fn a_default_rule_keeps_its_meaning_and_a_rule_that_changes_stays_whole() {
    let cloud = Cloud::empty();
    let (id, other) = (group(&cloud, "web"), group(&cloud, "other"));
    let default = rules(&cloud, &id)[0].uuid;
    let change = |fields: Value| {
        let mut message = json!({"uuid": default});
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        cloud.call("ChangeSecurityGroupRule", message)
    };
    change(json!({"description": "a", "state": "Disabled"})).unwrap();
    for fields in [json!({"action": "DROP"}), json!({"priority": 1}), json!({"srcIpRange": null})] {
        assert_eq!(change(fields.clone()).unwrap_err().code, Code::InvalidArgument, "{fields}");
    }
    add(&cloud, &id, &[tcp("80"), tcp("81")], -1);
    let of = |at: u32| {
        let all = rules(&cloud, &id).into_iter();
        let mut ingress = all.filter(|rule| rule.rule_type == RuleType::Ingress);
        ingress.find(|rule| rule.priority == at).unwrap()
    };
    let change = |fields: Value| {
        let mut message = json!({"uuid": of(1).uuid});
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        cloud.call("ChangeSecurityGroupRule", message).map(|_| of(1)).map_err(|error| error.code)
    };
    let number = of(1).number;
    let rule = change(json!({"srcIpRange": "10.0.0.0/8", "action": "DROP"})).unwrap();
    assert_eq!((rule.action, rule.src_ip_range.as_deref()), (RuleAction::Drop, Some("10.0.0.0/8")));
    let rule = change(json!({"remoteSecurityGroupUuid": other})).unwrap();
    assert_eq!(rule.remote(), Remote::Group(other.parse().unwrap()));
    let rule = change(json!({"srcIpRange": "10.0.0.1"})).unwrap();
    assert_eq!(rule.remote_security_group_uuid, None, "a rule has one remote");
    let rule = change(json!({"protocol": "ICMP", "icmpType": 8})).unwrap();
    assert_eq!((rule.ports(), rule.dst_port_range), (vec![(0x800, 0x8ff)], None));
    assert_eq!(change(json!({"protocol": "TCP"})), Err(Code::InvalidArgument), "without ports");
    let same =
        json!({"protocol": "TCP", "dstPortRange": "81", "srcIpRange": null, "action": "ACCEPT"});
    assert_eq!(change(same), Err(Code::InvalidArgument), "there is such a rule");
    assert_eq!(of(1).number, number, "it is the same rule for hosts");
}

#[test]
fn every_rule_is_added_once_for_each_remote_group_of_the_message() {
    let cloud = Cloud::empty();
    let [id, a, b] = ["web", "a", "b"].map(|name| group(&cloud, name));
    let add = |rules: Value, remotes: &[&String]| {
        let params = json!({"securityGroupUuid": id, "rules": rules,
            "remoteSecurityGroupUuids": remotes});
        cloud.call("AddSecurityGroupRule", params)
    };
    let old = json!({"type": "Ingress", "protocol": "TCP", "startPort": 22, "endPort": 22,
        "allowedCidr": "0.0.0.0/0"});
    add(json!([old, tcp("80")]), &[&a, &b]).unwrap();
    let ports: Vec<_> = order(&cloud, &id, RuleType::Ingress).into_iter().map(|it| it.1).collect();
    assert_eq!(ports, ["22", "80", "22", "80"]);
    let remote = json!({"type": "Ingress", "protocol": "ALL", "remoteSecurityGroupUuid": a});
    for (rules, remotes) in [
        (json!([remote]), &[&b][..]),
        (json!([tcp("1")]), &[&a, &a]),
        (json!([{"type": "Ingress", "protocol": "ALL", "srcIpRange": "10.0.0.1"}]), &[&a]),
    ] {
        assert_eq!(add(rules, remotes).unwrap_err().code, Code::InvalidArgument);
    }
}

#[test]
fn ten_thousand_rules_are_added_or_none_and_go_with_their_group() {
    let cloud = Cloud::empty();
    let id = group(&cloud, "web");
    let many =
        |count: u32| -> Vec<Value> { (1..=count).map(|port| tcp(&port.to_string())).collect() };
    let params = |rules: Vec<Value>| json!({"securityGroupUuid": id, "rules": rules});
    let (code, field, text) = cloud.refusal("AddSecurityGroupRule", params(many(101)));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("rules")), "{text}");
    cloud.call("AddSecurityGroupRule", params(many(100))).unwrap();
    assert_eq!(cloud.refusal("AddSecurityGroupRule", params(vec![tcp("200")])).0, code);
    cloud.call("DeleteSecurityGroup", json!({"uuid": id})).unwrap();
    let limit = json!({"category": "securityGroup", "name": "rules.num.limit", "value": "10000"});
    cloud.call("UpdateGlobalConfig", limit).unwrap();
    let id = group(&cloud, "web");
    let params = |rules: Vec<Value>| json!({"securityGroupUuid": id, "rules": rules});
    let mut wrong = many(10_000);
    wrong[9_999] = tcp("1");
    let (code, _, text) = cloud.refusal("AddSecurityGroupRule", params(wrong));
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("entry 9999"), "{text}");
    cloud.call("AddSecurityGroupRule", params(many(10_000))).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::SecurityGroupRule), 10_004);
    assert_eq!(cloud.refusal("AddSecurityGroupRule", params(vec![tcp("20000")])).0, code);
    cloud.call("DeleteSecurityGroup", json!({"uuid": id})).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::SecurityGroupRule), 0);
}

#[test]
fn a_group_in_use_is_not_deleted() {
    let (cloud, _, l3) = guarded();
    let [id, other] = ["web", "other"].map(|name| group(&cloud, name));
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    let member = json!({"securityGroupUuid": id, "vmNicUuids": [nic]});
    cloud.call("AddVmNicToSecurityGroup", member.clone()).unwrap();
    let delete = json!({"uuid": id});
    assert_eq!(cloud.refusal("DeleteSecurityGroup", delete.clone()).0, Code::InUse);
    cloud.call("DeleteVmNicFromSecurityGroup", member).unwrap();
    let remote = json!({"type": "Ingress", "protocol": "ALL", "remoteSecurityGroupUuid": id});
    add(&cloud, &other, &[remote], -1);
    let (code, _, text) = cloud.refusal("DeleteSecurityGroup", delete.clone());
    assert_eq!(code, Code::InUse);
    assert!(text.contains("rule "), "{text}");
    let rule = rules(&cloud, &other).into_iter().find(|rule| !rule.is_default()).unwrap();
    cloud.call("DeleteSecurityGroupRule", json!({"ruleUuids": [rule.uuid]})).unwrap();
    cloud.call("DeleteSecurityGroup", delete.clone()).unwrap();
    cloud.call("DeleteSecurityGroup", delete).unwrap();
}

#[test]
fn address_groups_are_lists_that_rules_name() {
    let cloud = Cloud::empty();
    let made =
        json!({"name": "offices", "addresses": ["192.0.2.0/24", "FD00::1", "10.0.0.1-10.0.0.9"]});
    let list = cloud.made("CreateAddressGroup", made);
    let id = group(&cloud, "web");
    let rule = json!({"type": "Ingress", "protocol": "132", "remoteAddressGroupUuid": list});
    add(&cloud, &id, &[rule], -1);
    let rule = rules(&cloud, &id).into_iter().find(|rule| !rule.is_default()).unwrap();
    assert_eq!(rule.remote(), Remote::AddressGroup(list.parse().unwrap()));
    assert_eq!(rule.protocol_number(), Some(132));
    let addresses = |message: &str, addresses: &[&str]| {
        cloud.call(message, json!({"uuid": list, "addresses": addresses}))
    };
    addresses("AddAddressesToAddressGroup", &["192.0.2.0/24", "198.51.100.1"]).unwrap();
    addresses("RemoveAddressesFromAddressGroup", &["fd00::1", "203.0.113.1"]).unwrap();
    let row: model::resource::address_group::AddressGroup =
        cloud.get(list.parse().unwrap()).unwrap();
    assert_eq!(row.addresses, ["192.0.2.0/24", "10.0.0.1-10.0.0.9", "198.51.100.1"]);
    assert_eq!((row.spans(4).len(), row.spans(6).len()), (3, 0));
    for (message, wrong) in [
        ("UpdateAddressGroup", &["10.0.0.1", "10.0.0.1/32"][..]),
        ("UpdateAddressGroup", &["10.0.0.1/8"]),
        ("AddAddressesToAddressGroup", &["x"]),
    ] {
        let error = addresses(message, wrong).unwrap_err();
        assert_eq!(
            (error.code, error.field.as_deref()),
            (Code::InvalidArgument, Some("addresses"))
        );
    }
    assert_eq!(cloud.refusal("DeleteAddressGroup", json!({"uuid": list})).0, Code::InUse);
    cloud.call("DeleteSecurityGroupRule", json!({"ruleUuids": [rule.uuid]})).unwrap();
    cloud.call("DeleteAddressGroup", json!({"uuid": list})).unwrap();
}

#[test]
fn a_rule_is_validated_with_zstacks_codes() {
    let cloud = Cloud::empty();
    let id = group(&cloud, "web");
    add(&cloud, &id, &[tcp("22")], -1);
    let validate = |fields: Value| {
        let mut message = json!({"securityGroupUuid": id, "type": "Ingress", "protocol": "TCP"});
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        cloud.look(ADMINISTRATOR, "ValidateSecurityGroupRule", message).unwrap()
    };
    let right = validate(json!({"dstPortRange": "22,80"}));
    assert_eq!(right, json!({"available": true, "code": "SG.2000"}));
    for (fields, code) in [
        (json!({"startPort": 22, "endPort": 22}), "SG.1002"),
        (
            json!({"dstPortRange": "22", "srcIpRange": "1.1.1.1", "allowedCidr": "1.1.1.0/24"}),
            "SG.1003",
        ),
        (json!({"dstPortRange": "22", "dstIpRange": "1.1.1.1"}), "SG.1004"),
        (json!({"startPort": 400, "endPort": 300}), "SG.1005"),
        (json!({"dstPortRange": "22", "allowedCidr": "333.168.1.0/24"}), "SG.1006"),
    ] {
        let seen = validate(fields.clone());
        assert_eq!((&seen["available"], &seen["code"]), (&json!(false), &json!(code)), "{fields}");
        assert!(seen["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    }
}

#[test]
fn another_accounts_group_is_not_there_until_it_is_shared_and_then_a_remote_alone() {
    let cloud = Cloud::empty();
    let (red, blue) = (tenant(&cloud, 7), tenant(&cloud, 8));
    let make = |caller, name: &str| {
        send(&cloud, caller, "CreateSecurityGroup", json!({"name": name})).unwrap()
    };
    let (of_red, of_blue) = (make(red, "red"), make(blue, "blue"));
    let rule = json!({"type": "Ingress", "protocol": "ALL", "remoteSecurityGroupUuid": of_red});
    let add = json!({"securityGroupUuid": of_blue, "rules": [rule]});
    let error = send(&cloud, blue, "AddSecurityGroupRule", add.clone()).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::NotFound, Some("rules")));
    let share = json!({"resourceUuids": [of_red], "accountUuids": [blue.account().unwrap()]});
    cloud.call("ShareResource", share).unwrap();
    send(&cloud, blue, "AddSecurityGroupRule", add).unwrap();
    let own = json!({"securityGroupUuid": of_red, "rules": [tcp("22")]});
    let error = send(&cloud, blue, "AddSecurityGroupRule", own).unwrap_err();
    assert_eq!(error.code, Code::AccessDenied, "it may be used, and not be changed");
    let theirs = rules(&cloud, &of_red)[0].uuid;
    let disable = json!({"securityGroupUuid": of_red, "ruleUuids": [theirs], "state": "Disabled"});
    let error = send(&cloud, blue, "ChangeSecurityGroupRuleState", disable).unwrap_err();
    assert_eq!(error.code, Code::AccessDenied);
    let error = send(&cloud, red, "DeleteSecurityGroup", json!({"uuid": of_red})).unwrap_err();
    assert_eq!(error.code, Code::InUse);
    assert!(!error.to_string().contains(&of_blue), "{error}");
}

#[test]
fn an_account_has_as_many_groups_as_its_quota_allows() {
    let cloud = Cloud::empty();
    let red = tenant(&cloud, 7);
    let quota = SecurityGroup::DEF.quota.unwrap();
    assert_eq!((quota.name, quota.default), ("securityGroup.num", 20));
    let make = || send(&cloud, red, "CreateSecurityGroup", json!({"name": "web"}));
    (0..20).for_each(|_| drop(make().unwrap()));
    assert_eq!(make().unwrap_err().code, Code::QuotaExceeded);
}

#[test]
fn a_group_is_attached_to_an_l3_network_once_and_leaves_it_with_the_nics() {
    let (cloud, fixture, l3) = guarded();
    let bare = cloud.l3(&fixture, "bare");
    let id = group(&cloud, "web");
    let on = |l3: &str| json!({"securityGroupUuid": id, "l3NetworkUuid": l3});
    let attached = || shown(&cloud, Kind::SecurityGroup, &id)["attachedL3NetworkUuids"].clone();
    let (code, field, _) = cloud.refusal("AttachSecurityGroupToL3Network", on(&bare));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("l3NetworkUuid")));
    assert_eq!(cloud.refusal("DetachSecurityGroupFromL3Network", on(&l3)).0, Code::OperationFailed);
    cloud.call("AttachSecurityGroupToL3Network", on(&l3)).unwrap();
    assert_eq!(attached(), json!([l3]));
    assert_eq!(cloud.refusal("AttachSecurityGroupToL3Network", on(&l3)).0, Code::OperationFailed);
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    let member = json!({"securityGroupUuid": id, "vmNicUuids": [nic]});
    cloud.call("AddVmNicToSecurityGroup", member.clone()).unwrap();
    cloud.call("DetachSecurityGroupFromL3Network", on(&l3)).unwrap();
    assert_eq!(attached(), json!([]));
    assert_eq!(cloud.snapshot().total(Kind::VmNicSecurityGroupRef), 0);
    cloud.call("AddVmNicToSecurityGroup", member).unwrap();
    assert_eq!(attached(), json!([l3]), "by itself");
}

#[test]
fn a_group_that_is_disabled_keeps_its_members_and_rules() {
    let (cloud, _, l3) = guarded();
    let id = group(&cloud, "web");
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    let member = json!({"securityGroupUuid": id, "vmNicUuids": [nic]});
    cloud.call("AddVmNicToSecurityGroup", member).unwrap();
    let change = json!({"uuid": id, "stateEvent": "disable"});
    cloud.call("ChangeSecurityGroupState", change).unwrap();
    assert_eq!(shown(&cloud, Kind::SecurityGroup, &id)["state"], "Disabled");
    assert_eq!(cloud.snapshot().total(Kind::VmNicSecurityGroupRef), 1);
    let update = json!({"uuid": id, "name": "new", "description": null});
    cloud.call("UpdateSecurityGroup", update).unwrap();
    assert_eq!(shown(&cloud, Kind::SecurityGroup, &id)["name"], "new");
}

/// How many rows of a kind a condition finds.
fn found(cloud: &Cloud, kind: Kind, path: &str, value: &str) -> usize {
    let mut query = Query::new(kind, &kind.def().faces[0], ADMINISTRATOR.scope().unwrap());
    let path = Path::read(kind, "q", path).unwrap();
    query.conditions.push(Condition::read("q", path, Operator::Equal, &[value]).unwrap());
    let snapshot = cloud.snapshot();
    let found = query::run(&query, &Observed::new(&snapshot, &cloud.board)).unwrap();
    found.inventories.unwrap().len()
}

#[test]
fn groups_are_found_by_what_they_are_for() {
    let (cloud, _, l3) = guarded();
    let (id, _) = (group(&cloud, "web"), group(&cloud, "other"));
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let nic = cloud.nics(&vm)[0].uuid;
    let member = json!({"securityGroupUuid": id, "vmNicUuids": [nic]});
    cloud.call("AddVmNicToSecurityGroup", member).unwrap();
    let nic = nic.to_string();
    let (groups, members) = (Kind::SecurityGroup, Kind::VmNicSecurityGroupRef);
    for (kind, path, value) in [
        (groups, "vmNic.uuid", &nic),
        (groups, "l3Network.uuid", &l3),
        (groups, "attachedL3NetworkUuids", &l3),
        (members, "vmInstanceUuid", &vm),
        (members, "securityGroup.uuid", &id),
        (Kind::VmNicSecurityPolicy, "vmNicUuid", &nic),
    ] {
        assert_eq!(found(&cloud, kind, path, value), 1, "{path}");
    }
    assert_eq!(found(&cloud, Kind::SecurityGroupRule, "securityGroup.name", "web"), 4);
}
