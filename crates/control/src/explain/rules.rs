//! The security rules of a NIC in the order in which they are asked, and what closes the list.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    Code, Error, Id, Kind, Record, Resource, Result,
    resource::{
        network_service::{NetworkServiceL3NetworkRef, NetworkServiceType},
        nic_looks::GetVmNicSecurityRules,
        security_group::SecurityGroup,
        security_group_member::{NicPolicy, VmNicSecurityGroupRef, VmNicSecurityPolicy},
        security_group_rule::{RuleType, SecurityGroupRule},
        vm_nic::VmNic,
        zone::EnableState,
    },
    setting::{WITHOUT_GROUP, WithoutGroup},
};
use serde_json::{Map, Value, json};
use store::{Key, Read};

use super::Names;
use crate::{Look, config};

/// Rules that one answer has at most; the groups of a NIC may have more.
const RULES_MAX: u64 = 20_000;

/// The field by which rules know their group.
const GROUP: &str = "securityGroupUuid";

/// A group of a NIC.
struct Asked {
    group: SecurityGroup,
    record: Arc<Record>,
    member: VmNicSecurityGroupRef,
}

pub(super) fn rules(look: &Look<'_>, message: GetVmNicSecurityRules) -> Result<Value> {
    let nic = look.get(message.vm_nic_uuid).map_err(|error| error.on_field("vmNicUuid"))?;
    let groups = groups(look, &nic);
    let count = |asked: &Asked| {
        let key = Key::Uuid(asked.group.uuid.uuid());
        look.snapshot().count(Kind::SecurityGroupRule, GROUP, &key)
    };
    let total: u64 = groups.iter().map(count).sum();
    if total > RULES_MAX {
        let text = format!("the NIC's groups have {total} rules; {RULES_MAX} are told at most");
        let hint = "QuerySecurityGroupRule lists those of one group, page by page";
        return Err(Error::new(Code::OperationFailed, text).hint(hint));
    }
    let names = Names::new(look.snapshot(), look.caller(), (&nic, &[]));
    let shown = groups.iter().map(|asked| group(asked, look, &names));
    Ok(json!({
        "nic": names.of(Kind::VmNic, nic.uuid.uuid()),
        "securityGroups": shown.collect::<Vec<_>>(),
        "ingress": direction(look, (&nic, &groups), RuleType::Ingress, &names),
        "egress": direction(look, (&nic, &groups), RuleType::Egress, &names),
        "notInEffect": not_in_effect(look, &nic),
    }))
}

/// The groups of a NIC in the order in which they are asked.
fn groups(look: &Look<'_>, nic: &VmNic) -> Vec<Asked> {
    let read = look.snapshot();
    let refs = read.referrers(Kind::VmNicSecurityGroupRef, "vmNicUuid", nic.uuid.uuid());
    let refs = refs.filter_map(|id| read.get(Kind::VmNicSecurityGroupRef, id));
    let asked = |row: Arc<Record>| {
        let member = VmNicSecurityGroupRef::of(&row)?.clone();
        let record = read.get(SecurityGroup::KIND, member.security_group_uuid.uuid())?;
        Some(Asked { group: SecurityGroup::of(&record)?.clone(), record, member })
    };
    let mut groups: Vec<Asked> = refs.filter_map(asked).collect();
    groups.sort_by_key(|asked| asked.member.priority);
    groups
}

fn group(asked: &Asked, look: &Look<'_>, names: &Names<'_>) -> Value {
    let Asked { group, member, .. } = asked;
    let mut shown = names.of(SecurityGroup::KIND, group.uuid.uuid());
    shown["priority"] = json!(member.priority);
    shown["isChosen"] = json!(member.is_chosen);
    shown["isFound"] = json!(member.is_found);
    if sees(look, asked) {
        shown["state"] = json!(group.state.as_str());
        shown["isStateless"] = json!(group.is_stateless);
    }
    shown
}

fn sees(look: &Look<'_>, asked: &Asked) -> bool {
    look.caller().sees(look.snapshot(), &asked.record)
}

/// The rules of one direction, and what becomes of what none of them decides.
fn direction(
    look: &Look<'_>,
    (nic, groups): (&VmNic, &[Asked]),
    direction: RuleType,
    names: &Names<'_>,
) -> Value {
    let (mut shown, mut has_rules) = (Vec::new(), false);
    for asked in groups {
        let found = rules_of(look, asked.group.uuid, direction);
        let is_on = asked.group.state == EnableState::Enabled;
        let counts = |rule: &SecurityGroupRule| {
            is_on && rule.state == EnableState::Enabled && !rule.is_default()
        };
        has_rules |= found.values().any(counts);
        if !sees(look, asked) {
            let whose = names.of(SecurityGroup::KIND, asked.group.uuid.uuid());
            let words = format!("rules of {}", whose["words"].as_str().unwrap_or_default());
            shown.push(json!({"securityGroup": whose, "words": words}));
            continue;
        }
        shown.extend(found.values().map(|found| rule(look, (found, asked), names)));
    }
    let mut shown = json!({"rules": shown});
    let closing = closing(look, (nic, !groups.is_empty()), (direction, has_rules));
    closing.into_iter().for_each(|(key, value)| shown[key] = value);
    shown
}

/// The rules of a group, in the order in which they are asked.
fn rules_of(
    look: &Look<'_>,
    group: Id<SecurityGroup>,
    direction: RuleType,
) -> BTreeMap<(u32, Id<SecurityGroupRule>), SecurityGroupRule> {
    let read = look.snapshot();
    let ids = read.referrers(Kind::SecurityGroupRule, GROUP, group.uuid());
    let rules = ids.filter_map(|id| read.get(Kind::SecurityGroupRule, id));
    let rules = rules.filter_map(|row| SecurityGroupRule::of(&row).cloned());
    let rules = rules.filter(|rule| rule.rule_type == direction);
    rules.map(|rule| ((rule.priority, rule.uuid), rule)).collect()
}

fn rule(look: &Look<'_>, (rule, asked): (&SecurityGroupRule, &Asked), names: &Names<'_>) -> Value {
    let mut shown = names.of(Kind::SecurityGroupRule, rule.uuid.uuid());
    shown["securityGroup"] = names.of(SecurityGroup::KIND, asked.group.uuid.uuid());
    let record = look.snapshot().get(Kind::SecurityGroupRule, rule.uuid.uuid());
    if let Some(record) = record {
        let fields = ["securityGroupUuid", "createDate", "lastOpDate"];
        let own = look.show(&record).into_iter().filter(|(key, _)| !fields.contains(&&**key));
        own.for_each(|(key, value)| {
            shown[if key == "type" { "direction".to_owned() } else { key }] = value
        });
    }
    shown["remote"] = remote(look, rule, names);
    shown["passedOver"] = match (asked.group.state, rule.state) {
        (EnableState::Disabled, _) => json!("its group is disabled"),
        (EnableState::Enabled, EnableState::Disabled) => json!("it is disabled"),
        (EnableState::Enabled, EnableState::Enabled) => Value::Null,
    };
    shown
}

/// Who is at the other end, where a rule names a group.
fn remote(look: &Look<'_>, rule: &SecurityGroupRule, names: &Names<'_>) -> Value {
    if let Some(list) = rule.remote_address_group_uuid {
        return names.of(Kind::AddressGroup, list.uuid());
    }
    let Some(group) = rule.remote_security_group_uuid else { return Value::Null };
    let mut shown = names.of(SecurityGroup::KIND, group.uuid());
    let record = look.snapshot().get(SecurityGroup::KIND, group.uuid());
    // How many others are in their groups is theirs to know.
    if record.is_some_and(|record| look.caller().may_change(&record)) {
        let key = Key::Uuid(group.uuid());
        let members = look.snapshot().count(Kind::VmNicSecurityGroupRef, GROUP, &key);
        shown["memberCount"] = json!(members);
    }
    shown
}

/// What becomes of what no rule decides, and by what.
fn closing(
    look: &Look<'_>,
    (nic, is_in_group): (&VmNic, bool),
    (direction, has_rules): (RuleType, bool),
) -> Map<String, Value> {
    let (policy, allows, by) = if is_in_group {
        let row = look
            .snapshot()
            .get(VmNicSecurityPolicy::KIND, VmNicSecurityPolicy::id_of(nic.uuid).uuid());
        let row = row.as_deref().and_then(VmNicSecurityPolicy::of);
        let policy = match direction {
            RuleType::Ingress => row.map_or(NicPolicy::Deny, |row| row.ingress_policy),
            RuleType::Egress => row.map_or(NicPolicy::Allow, |row| row.egress_policy),
        };
        (policy.as_str(), policy.allows(has_rules), "the NIC's policy (ChangeVmNicSecurityPolicy)")
    } else {
        let l3s = l3s(nic).filter(|l3| has_groups(look, *l3));
        let setting = |l3: Id<_>| config::word_for(look.snapshot(), &WITHOUT_GROUP, l3.uuid());
        let closed = l3s.map(setting).any(|word| word == WithoutGroup::Closed.as_str());
        let policy = if closed { NicPolicy::Deny } else { NicPolicy::Allow };
        (policy.as_str(), !closed, "it is in no group: setting securityGroup/nic.withoutGroup")
    };
    let becomes = if allows { "ACCEPT" } else { "DROP" };
    Map::from_iter([
        ("policy".to_owned(), json!(policy)),
        ("elseAction".to_owned(), json!(becomes)),
        ("elseBy".to_owned(), json!(by)),
    ])
}

fn l3s(nic: &VmNic) -> impl Iterator<Item = Id<model::resource::l3_network::L3Network>> {
    [nic.l3_network_uuid].into_iter().chain(nic.more_l3_network_uuids.clone())
}

/// Whether groups count on an L3 network.
fn has_groups(look: &Look<'_>, l3: Id<model::resource::l3_network::L3Network>) -> bool {
    let kind = Kind::NetworkServiceL3NetworkRef;
    let rows = look.snapshot().referrers(kind, "l3NetworkUuid", l3.uuid());
    let rows = rows.filter_map(|id| look.snapshot().get(kind, id));
    let is_it = |row: &Arc<Record>| {
        let service = NetworkServiceL3NetworkRef::of(row).map(|row| row.network_service_type);
        service == Some(NetworkServiceType::SecurityGroup)
    };
    rows.into_iter().any(|row| is_it(&row))
}

/// Why the rules have no effect, or are not what the host goes by.
fn not_in_effect(look: &Look<'_>, nic: &VmNic) -> Option<String> {
    if !l3s(nic).any(|l3| has_groups(look, l3)) {
        let l3 = nic.l3_network_uuid;
        return Some(format!(
            "L3 network {l3} has no service SecurityGroup (AttachNetworkServiceToL3Network)"
        ));
    }
    let Some(host) = nic.host_uuid else {
        return Some("the NIC is on no host: they count from its first packet on".to_owned());
    };
    let status = look.status(host);
    let names = Names::new(look.snapshot(), look.caller(), (nic, &[]));
    let why = status.not_in_effect(host, nic.uuid.uuid());
    why.map(|why| names.text(&why)).or_else(|| {
        let is_pending = status.pending.contains_key(&nic.uuid.uuid());
        is_pending.then(|| "the NIC's host has not confirmed its last change yet".to_owned())
    })
}
