//! What histories send about security groups, and what holds of them.

use std::collections::BTreeMap;

use model::{
    Id, Kind, Record,
    declare::MessageDef,
    member_query::{MemberQuery, said},
    resource::{
        security_group::SecurityGroup,
        security_group_member::{VmNicSecurityGroupRef, VmNicSecurityPolicy},
        security_group_rule::{RuleType, SecurityGroupRule},
        tag::UserTag,
        vm_nic::VmNic,
    },
};
use serde_json::{Value, json};
use store::{Read, Snapshot};

use super::{ADDRESSES, Dice, reference, rows};
use crate::harness::Cloud;

/// A group with a NIC and some rules, and one that finds instances by their tags.
pub(super) fn put(cloud: &Cloud, nic: Id<VmNic>) {
    let group = cloud.made("CreateSecurityGroup", json!({"name": "g"}));
    let rules: Vec<_> = (1..4)
        .map(
            |port| json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": format!("{port}")}),
        )
        .collect();
    let add = json!({"securityGroupUuid": group, "rules": rules});
    cloud.call("AddSecurityGroupRule", add).unwrap();
    let add = json!({"securityGroupUuid": group, "vmNicUuids": [nic]});
    cloud.call("AddVmNicToSecurityGroup", add).unwrap();
    let found = json!({"name": "f", "memberQuery": "role=web"});
    cloud.made("CreateSecurityGroup", found);
}

/// Rules, their places, and the places of groups.
pub(super) fn entries(def: &MessageDef, snapshot: &Snapshot<Record>, dice: &mut Dice<'_>) -> Value {
    match def.name {
        "AddSecurityGroupRule" => {
            let rule = |dice: &mut Dice<'_>| match dice.roll(3) {
                0 => json!({"type": dice.one_of(&["Ingress", "Egress"]), "protocol": "TCP",
                    "dstPortRange": format!("{}", 1 + dice.roll(9))}),
                1 => json!({"type": "Ingress", "protocol": "ALL",
                    "srcIpRange": dice.one_of(&ADDRESSES), "action": "DROP"}),
                _ => json!({"type": "Egress", "protocol": "ICMP",
                    "remoteSecurityGroupUuid": reference(Kind::SecurityGroup, snapshot, dice)}),
            };
            (0..=dice.roll(3)).map(|_| rule(dice)).collect()
        }
        "UpdateSecurityGroupRulePriority" => {
            let rules = rows::<SecurityGroupRule>(snapshot).into_iter();
            let mut rules: Vec<_> = rules
                .filter(|rule| rule.rule_type == RuleType::Ingress && !rule.is_default())
                .map(|rule| (rule.security_group_uuid, rule.uuid))
                .collect();
            let of = rules.last().map(|(group, _)| *group);
            rules.retain(|(group, _)| Some(*group) == of);
            let ranks = (1..).zip(rules);
            ranks.map(|(at, (_, rule))| json!({"ruleUuid": rule, "priority": at})).collect()
        }
        _ => {
            let groups = (0..dice.roll(3)).map(|_| reference(Kind::SecurityGroup, snapshot, dice));
            let groups: Vec<_> = groups.collect();
            let ranks = (1..).zip(groups);
            ranks.map(|(at, group)| json!({"securityGroupUuid": group, "priority": at})).collect()
        }
    }
}

/// Priorities have no gaps, a NIC has a policy while it is in a group, and queries find whom they say.
pub(super) fn are_in_order(snapshot: &Snapshot<Record>) {
    let mut places: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for rule in rows::<SecurityGroupRule>(snapshot) {
        let of = (rule.security_group_uuid, rule.rule_type);
        places.entry(of).or_default().push(rule.priority);
    }
    for (of, places) in &mut places {
        places.sort_unstable();
        let expected = [0, 0].into_iter().chain(1..).take(places.len());
        assert_eq!(*places, expected.collect::<Vec<_>>(), "{of:?}");
    }
    let mut members: BTreeMap<_, Vec<VmNicSecurityGroupRef>> = BTreeMap::new();
    for row in rows::<VmNicSecurityGroupRef>(snapshot) {
        members.entry(row.vm_nic_uuid).or_default().push(row);
    }
    for rows in members.values_mut() {
        rows.sort_by_key(|row| row.priority);
        assert!(rows.iter().zip(1..).all(|(row, at)| row.priority == at), "{rows:?}");
        assert!(rows.iter().all(|row| row.is_chosen || row.is_found), "{rows:?}");
    }
    let mut policies: Vec<_> =
        rows::<VmNicSecurityPolicy>(snapshot).into_iter().map(|row| row.vm_nic_uuid).collect();
    policies.sort_unstable();
    assert_eq!(policies, members.keys().copied().collect::<Vec<_>>());
    queries_find_whom_they_say(snapshot, &members);
}

/// By looking at everything, as no handler does.
fn queries_find_whom_they_say(
    snapshot: &Snapshot<Record>,
    members: &BTreeMap<Id<VmNic>, Vec<VmNicSecurityGroupRef>>,
) {
    let owner = |kind, uuid| snapshot.get(kind, uuid).and_then(|record| record.meta.owner);
    let tags = rows::<UserTag>(snapshot);
    for group in rows::<SecurityGroup>(snapshot) {
        let query = group.member_query.as_ref().map(|text| text.parse::<MemberQuery>().unwrap());
        for nic in rows::<VmNic>(snapshot) {
            let of_nic = members.get(&nic.uuid).map_or(&[][..], |rows| rows);
            let is_found = |row: &&VmNicSecurityGroupRef| row.security_group_uuid == group.uuid;
            let is_found = of_nic.iter().find(is_found).is_some_and(|row| row.is_found);
            let finds = nic.vm_instance_uuid.zip(query.as_ref()).is_some_and(|(vm, query)| {
                let tags = tags.iter().filter(|tag| tag.resource.uuid == vm.uuid());
                let tags = tags.map(|tag| said(&tag.tag)).collect();
                let of_group = owner(Kind::SecurityGroup, group.uuid.uuid()).unwrap();
                owner(Kind::VmInstance, vm.uuid())
                    .is_some_and(|account| query.finds(of_group, account, &tags))
            });
            assert_eq!(is_found, finds, "{group:?} {nic:?}");
        }
    }
}
