//! Rules of security groups: added at a place, moved, changed, deleted. Of each type they have the
//! priorities 1 to n without gaps, behind the default rules, whose priority is 0.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Error, Id, Kind, Resource, Result, Update,
    resource::{
        address_group::AddressGroup,
        security_group::SecurityGroup,
        security_group_rule::{
            AddSecurityGroupRule, ChangeSecurityGroupRule, ChangeSecurityGroupRuleState,
            DeleteSecurityGroupRule, RuleAction, RuleParam, RuleProtocol, RuleRank, RuleType,
            SecurityGroupRule, UpdateSecurityGroupRulePriority, ValidateSecurityGroupRule,
        },
        zone::EnableState,
    },
    setting::GROUP_RULES_MAX,
};
use serde_json::{Value, json};
use store::Read;
use uuid::Uuid;

use crate::{
    Look, Reply, Txn, config,
    operation::{Operation, job, look, shared_only},
    rule_fields::{self, DUPLICATE, Fault, Meaning, Place},
    security_group::waits_for_members,
};

/// What ZStack says of a rule that could be added.
const AVAILABLE: &str = "SG.2000";

/// Rules that are deleted at once: fewer than one deletion takes.
const RULES_AT_ONCE: usize = 2000;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(add),
        job(delete),
        job(change),
        job(change_state),
        job(update_priority),
        look(validate),
    ]
}

/// The rules with which a group begins: its members reach each other.
pub(crate) fn insert_defaults(txn: &mut Txn<'_>, group: Id<SecurityGroup>) -> Result<()> {
    for rule_type in RuleType::ALL {
        for ip_version in [4, 6] {
            let number = txn.number("securityGroupRule")?;
            txn.insert(SecurityGroupRule {
                uuid: Id::new(txn.random_uuid()),
                security_group_uuid: group,
                number,
                rule_type: *rule_type,
                ip_version,
                protocol: RuleProtocol::All,
                state: EnableState::Enabled,
                priority: 0,
                description: Some("default rule".to_owned()),
                src_ip_range: None,
                dst_ip_range: None,
                dst_port_range: None,
                action: RuleAction::Accept,
                remote_security_group_uuid: Some(group),
                remote_address_group_uuid: None,
                icmp_type: None,
                icmp_code: None,
            })?;
        }
    }
    Ok(())
}

fn add(txn: &mut Txn<'_>, message: AddSecurityGroupRule) -> Result<Reply> {
    let group = txn.get(message.security_group_uuid)?;
    let wanted = message.rules.iter().enumerate().map(|(at, entry)| rule_fields::read(at, entry));
    let wanted = wanted.collect::<Result<Vec<_>>>()?;
    let wanted = with_remotes(wanted, &message.remote_security_group_uuids)?;
    check_remotes(txn, &wanted)?;
    let before = txn.children(SecurityGroupRule::SECURITY_GROUP, group.uuid);
    let first = places(txn, &before, &wanted, message.priority.unwrap_or(-1))?;
    let mut meanings: BTreeMap<Meaning, Option<Id<SecurityGroupRule>>> =
        before.iter().map(|rule| (Meaning::of(rule), Some(rule.uuid))).collect();
    let mut next = first;
    let mut rules = Vec::with_capacity(wanted.len());
    for (at, wanted) in wanted.into_iter().enumerate() {
        let priority = &mut next[of_type(wanted.rule_type)];
        let (uuid, number) = (Id::new(txn.random_uuid()), txn.number("securityGroupRule")?);
        let place = Place { uuid, group: group.uuid, number, priority: *priority };
        let rule = rule_fields::rule(wanted, group.ip_version, place);
        let rule = rule.map_err(|fault| fault.of_list("rules", at))?;
        if let Some(other) = meanings.insert(Meaning::of(&rule), None) {
            return Err(twice(other).of_list("rules", at));
        }
        *priority += 1;
        rules.push(rule);
    }
    for rule in before {
        let (first, next) = (first[of_type(rule.rule_type)], next[of_type(rule.rule_type)]);
        if rule.priority >= first && !rule.is_default() && next > first {
            let priority = rule.priority + (next - first);
            txn.update(SecurityGroupRule { priority, ..rule })?;
        }
    }
    for rule in rules {
        txn.insert(rule)?;
    }
    waits_for_members(txn, group.uuid);
    Ok(Reply::shows(group.uuid))
}

/// Each rule once for each remote group of the message, if it names some.
fn with_remotes(wanted: Vec<RuleParam>, remotes: &[Id<SecurityGroup>]) -> Result<Vec<RuleParam>> {
    const FIELD: &str = "remoteSecurityGroupUuids";
    if remotes.is_empty() {
        return Ok(wanted);
    }
    if (1..remotes.len()).any(|at| remotes[..at].contains(&remotes[at])) {
        return Err(Error::field(FIELD, "names a group twice").hint("name each once"));
    }
    if wanted.iter().any(|rule| rule.remote_security_group_uuid.is_some()) {
        let error = Error::field(FIELD, "and remoteSecurityGroupUuid of a rule are both there");
        return Err(error.hint("name remote groups in one place"));
    }
    let of = |remote: &Id<SecurityGroup>| {
        let remote = *remote;
        let with = move |rule: &RuleParam| RuleParam {
            remote_security_group_uuid: Some(remote),
            ..rule.clone()
        };
        wanted.iter().map(with).collect::<Vec<_>>()
    };
    Ok(remotes.iter().flat_map(of).collect())
}

/// What rules name must be the caller's to see.
fn check_remotes(txn: &Txn<'_>, wanted: &[RuleParam]) -> Result<()> {
    let groups: BTreeSet<_> = wanted.iter().filter_map(|r| r.remote_security_group_uuid).collect();
    let lists: BTreeSet<_> = wanted.iter().filter_map(|r| r.remote_address_group_uuid).collect();
    let groups = groups.into_iter().map(|id| (SecurityGroup::KIND, id.uuid()));
    let lists = lists.into_iter().map(|id| (AddressGroup::KIND, id.uuid()));
    for (kind, uuid) in groups.chain(lists) {
        if txn.visible(kind, uuid).is_none() {
            return Err(Error::not_found(kind.def().name, uuid.simple()).on_field("rules"));
        }
    }
    Ok(())
}

/// The place in an array with one item for each type.
const fn of_type(rule_type: RuleType) -> usize {
    match rule_type {
        RuleType::Ingress => 0,
        RuleType::Egress => 1,
    }
}

/// How many rules there are of each type, the default rules aside.
fn counts<'a>(types: impl Iterator<Item = &'a RuleType>) -> [usize; 2] {
    let mut counts = [0, 0];
    types.for_each(|rule_type| counts[of_type(*rule_type)] += 1);
    counts
}

/// The priority of the first new rule of each type.
fn places(
    txn: &Txn<'_>,
    before: &[SecurityGroupRule],
    wanted: &[RuleParam],
    priority: i64,
) -> Result<[u32; 2]> {
    let max = usize::try_from(config::number(&*txn.tx, &GROUP_RULES_MAX)).unwrap_or_default();
    let there = counts(before.iter().filter(|r| !r.is_default()).map(|rule| &rule.rule_type));
    let come = counts(wanted.iter().map(|rule| &rule.rule_type));
    let mut first = [1, 1];
    for rule_type in RuleType::ALL {
        let (there, come) = (there[of_type(*rule_type)], come[of_type(*rule_type)]);
        if there + come > max && come > 0 {
            return Err(rule_fields::too_many(*rule_type, there + come, max));
        }
        let last = u32::try_from(there).unwrap_or(u32::MAX).saturating_add(1);
        first[of_type(*rule_type)] = match u32::try_from(priority) {
            Err(_) => last,
            Ok(0) => return Err(of_default()),
            Ok(place) if place > last && come > 0 => {
                let name = rule_type.as_str();
                let rule = format!("{place} would leave a gap: the group has {there} {name} rules");
                return Err(Error::field("priority", rule).hint("leave it out to add them last"));
            }
            Ok(place) => place,
        };
    }
    Ok(first)
}

fn of_default() -> Error {
    let error = Error::field("priority", "0 is that of the default rules");
    error.hint("1 is asked first behind them, -1 is the last")
}

fn twice(other: Option<Id<SecurityGroupRule>>) -> Fault {
    let rule = match other {
        Some(other) => format!("rule {other} says the same"),
        None => "a rule before it says the same".to_owned(),
    };
    Fault::new(DUPLICATE, "rule", rule)
}

/// One that is not there is gone already.
fn delete(txn: &mut Txn<'_>, message: DeleteSecurityGroupRule) -> Result<Reply> {
    const FIELD: &str = "ruleUuids";
    let mut gone: BTreeMap<Id<SecurityGroupRule>, SecurityGroupRule> = BTreeMap::new();
    for uuid in message.rule_uuids {
        let Some(record) = txn.visible(Kind::SecurityGroupRule, uuid) else { continue };
        if !txn.caller().may_change(&record) {
            return Err(shared_only(Kind::SecurityGroupRule, uuid).on_field(FIELD));
        }
        let Some(rule) = SecurityGroupRule::of(&record) else { continue };
        if rule.is_default() {
            let error = Error::field(FIELD, format!("rule {} is a default rule", rule.uuid));
            return Err(error.hint("ChangeSecurityGroupRule with state=Disabled turns it off"));
        }
        gone.insert(rule.uuid, rule.clone());
    }
    let groups: BTreeSet<_> = gone.values().map(|rule| rule.security_group_uuid).collect();
    let mut groups = groups.into_iter();
    match (groups.next(), groups.next()) {
        (None, _) => Ok(Reply::nothing()),
        (Some(_), Some(_)) => {
            let error = Error::field(FIELD, "are of several security groups");
            Err(error.hint("delete those of one group at a time"))
        }
        (Some(group), None) => {
            let ids: Vec<_> = gone.keys().copied().collect();
            for some in ids.chunks(RULES_AT_ONCE) {
                txn.delete_all(some.to_vec())?;
            }
            close_gaps(txn, group)?;
            waits_for_members(txn, group);
            Ok(Reply::shows(group))
        }
    }
}

/// Gives the rules of a group the priorities 1 to n of each type, in the order in which they are.
fn close_gaps(txn: &mut Txn<'_>, group: Id<SecurityGroup>) -> Result<()> {
    let mut rules = txn.children(SecurityGroupRule::SECURITY_GROUP, group);
    rules.retain(|rule| !rule.is_default());
    rules.sort_by_key(|rule| rule.priority);
    let mut next = [1, 1];
    for rule in rules {
        let place = &mut next[of_type(rule.rule_type)];
        let priority = *place;
        *place += 1;
        if rule.priority != priority {
            txn.update(SecurityGroupRule { priority, ..rule })?;
        }
    }
    Ok(())
}

fn change(txn: &mut Txn<'_>, message: ChangeSecurityGroupRule) -> Result<Reply> {
    let rule = txn.get(message.uuid)?;
    let group = txn.get(rule.security_group_uuid)?;
    if rule.is_default() && changes_meaning(&message) {
        let text = format!("{} is a default rule", rule.uuid);
        return Err(Error::field("uuid", text).hint("its description and its state change alone"));
    }
    let place =
        Place { uuid: rule.uuid, group: group.uuid, number: rule.number, priority: rule.priority };
    let priority = message.priority;
    let wanted = changed(rule_fields::of_rule(&rule), message);
    let after = rule_fields::rule(wanted, group.ip_version, place).map_err(Fault::of_field)?;
    // That no rule says the same, and its place, rest on all rules of the group.
    txn.fence(group.uuid);
    let rules = txn.children(SecurityGroupRule::SECURITY_GROUP, group.uuid);
    let meaning = Meaning::of(&after);
    let same =
        |other: &&SecurityGroupRule| other.uuid != after.uuid && Meaning::of(other) == meaning;
    if let Some(other) = rules.iter().find(same) {
        return Err(twice(Some(other.uuid)).of_field());
    }
    let after = match priority {
        Some(place) => SecurityGroupRule { priority: moved(txn, &rules, &after, place)?, ..after },
        None => after,
    };
    txn.update(after)?;
    waits_for_members(txn, group.uuid);
    Ok(Reply::shows(place.uuid))
}

/// Whether a message changes what a default rule keeps.
fn changes_meaning(message: &ChangeSecurityGroupRule) -> bool {
    message.remote_security_group_uuid != Update::Keep
        || message.remote_address_group_uuid != Update::Keep
        || message.action.is_some()
        || message.priority.is_some()
        || message.protocol.is_some()
        || message.src_ip_range != Update::Keep
        || message.dst_ip_range != Update::Keep
        || message.dst_port_range != Update::Keep
        || message.icmp_type != Update::Keep
        || message.icmp_code != Update::Keep
}

/// What a message makes of a rule. A remote takes the place of the one before; what another protocol
/// does not have is gone unless the message names it.
fn changed(mut wanted: RuleParam, message: ChangeSecurityGroupRule) -> RuleParam {
    let names_remote = matches!(message.remote_security_group_uuid, Update::Set(_))
        || matches!(message.remote_address_group_uuid, Update::Set(_))
        || matches!(&message.src_ip_range, Update::Set(list) if !list.is_empty())
        || matches!(&message.dst_ip_range, Update::Set(list) if !list.is_empty());
    if names_remote {
        wanted.remote_security_group_uuid = None;
        wanted.remote_address_group_uuid = None;
        wanted.src_ip_range = None;
        wanted.dst_ip_range = None;
    }
    if let Some(protocol) = message.protocol {
        let read = protocol.parse().unwrap_or(RuleProtocol::All);
        let read: RuleProtocol = read;
        let read = read.named(wanted.ip_version.unwrap_or(4));
        if !read.has_ports() {
            wanted.dst_port_range = None;
        }
        if read != RuleProtocol::Icmp {
            (wanted.icmp_type, wanted.icmp_code) = (None, None);
        }
        wanted.protocol = protocol;
    }
    message.description.apply(&mut wanted.description);
    message.remote_security_group_uuid.apply(&mut wanted.remote_security_group_uuid);
    message.remote_address_group_uuid.apply(&mut wanted.remote_address_group_uuid);
    message.src_ip_range.apply(&mut wanted.src_ip_range);
    message.dst_ip_range.apply(&mut wanted.dst_ip_range);
    message.dst_port_range.apply(&mut wanted.dst_port_range);
    message.icmp_type.apply(&mut wanted.icmp_type);
    message.icmp_code.apply(&mut wanted.icmp_code);
    wanted.action = message.action.or(wanted.action);
    wanted.state = message.state.or(wanted.state);
    wanted
}

/// Makes room for a rule at another place; gives the priority that it gets.
fn moved(
    txn: &mut Txn<'_>,
    rules: &[SecurityGroupRule],
    rule: &SecurityGroupRule,
    place: i64,
) -> Result<u32> {
    let of_type =
        |other: &&SecurityGroupRule| other.rule_type == rule.rule_type && !other.is_default();
    let last = u32::try_from(rules.iter().filter(of_type).count()).unwrap_or(u32::MAX);
    let to = match u32::try_from(place) {
        Ok(0) => return Err(of_default()),
        Ok(place) if place > last => {
            let rule = format!("{place} is behind the last place, {last}");
            return Err(Error::field("priority", rule).hint("-1 is the last place"));
        }
        Ok(place) => place,
        Err(_) => last,
    };
    let from = rule.priority;
    for other in rules.iter().filter(of_type).filter(|other| other.uuid != rule.uuid) {
        let priority = match other.priority {
            at if from < at && at <= to => at - 1,
            at if to <= at && at < from => at + 1,
            _ => continue,
        };
        txn.update(SecurityGroupRule { priority, ..other.clone() })?;
    }
    Ok(to)
}

fn change_state(txn: &mut Txn<'_>, message: ChangeSecurityGroupRuleState) -> Result<Reply> {
    const FIELD: &str = "ruleUuids";
    let group = message.security_group_uuid;
    let mut changed = Vec::new();
    for uuid in message.rule_uuids {
        let rule: Option<SecurityGroupRule> = txn.find(Id::new(uuid));
        let Some(rule) = rule.filter(|rule| rule.security_group_uuid == group) else {
            return Err(not_of(group, uuid, FIELD));
        };
        if rule.state != message.state {
            changed.push(SecurityGroupRule { state: message.state, ..rule });
        }
    }
    if changed.is_empty() {
        let rule = format!("are {} already", message.state.as_str());
        return Err(Error::field(FIELD, rule).hint("QuerySecurityGroupRule shows state"));
    }
    changed.into_iter().try_for_each(|rule| txn.update(rule))?;
    waits_for_members(txn, group);
    Ok(Reply::shows(group))
}

fn not_of(group: Id<SecurityGroup>, uuid: Uuid, field: &str) -> Error {
    let error = Error::field(field, format!("{} is no rule of group {group}", uuid.simple()));
    error.hint("QuerySecurityGroupRule securityGroupUuid=<group> lists them")
}

fn update_priority(txn: &mut Txn<'_>, message: UpdateSecurityGroupRulePriority) -> Result<Reply> {
    const FIELD: &str = "rules";
    const FORM: &str =
        "the form is [{\"ruleUuid\": \"..\", \"priority\": 1}], with every rule of the type";
    let wrong = |rule: String| Error::field(FIELD, rule).hint(FORM);
    let group = message.security_group_uuid;
    let read = |(at, entry): (usize, &Value)| {
        serde_json::from_value(entry.clone()).map_err(|cause| wrong(format!("entry {at}: {cause}")))
    };
    let ranks = message.rules.iter().enumerate().map(read).collect::<Result<Vec<RuleRank>>>()?;
    txn.fence(group);
    let mut rules: BTreeMap<_, _> = txn
        .children(SecurityGroupRule::SECURITY_GROUP, group)
        .into_iter()
        .filter(|rule| rule.rule_type == message.rule_type && !rule.is_default())
        .map(|rule| (rule.uuid, rule))
        .collect();
    if ranks.len() != rules.len() {
        let (given, name) = (ranks.len(), message.rule_type.as_str());
        return Err(wrong(format!("has {given}, and the group {} {name} rules", rules.len())));
    }
    let mut taken = BTreeSet::new();
    for RuleRank { rule_uuid, priority } in ranks {
        if priority == 0 || usize::try_from(priority).is_ok_and(|at| at > message.rules.len()) {
            return Err(wrong(format!("{priority} is not within 1 to {}", message.rules.len())));
        }
        if !taken.insert(priority) {
            return Err(wrong(format!("gives priority {priority} to two rules")));
        }
        let Some(rule) = rules.remove(&rule_uuid) else {
            return Err(not_of(group, rule_uuid.uuid(), FIELD));
        };
        if rule.priority != priority {
            txn.update(SecurityGroupRule { priority, ..rule })?;
        }
    }
    waits_for_members(txn, group);
    Ok(Reply::shows(group))
}

fn validate(look: &Look<'_>, message: ValidateSecurityGroupRule) -> Result<Value> {
    let group = look.get(message.security_group_uuid)?;
    let place = Place { uuid: Id::new(Uuid::nil()), group: group.uuid, number: 0, priority: 1 };
    let fault = match rule_fields::rule(rule_fields::of_message(message), group.ip_version, place) {
        Err(fault) => Some(fault),
        Ok(rule) => {
            let meaning = Meaning::of(&rule);
            let is_same = |id: Id<SecurityGroupRule>| {
                let record = look.snapshot().get(Kind::SecurityGroupRule, id.uuid());
                let other = record.as_deref().and_then(SecurityGroupRule::of);
                other.is_some_and(|other| Meaning::of(other) == meaning)
            };
            let mut rules = look.child_ids(SecurityGroupRule::SECURITY_GROUP, group.uuid);
            rules.find(|id| is_same(*id)).map(|other| twice(Some(other)))
        }
    };
    Ok(match fault {
        Some(fault) => json!({"available": false, "code": fault.code, "reason": fault.reason()}),
        None => json!({"available": true, "code": AVAILABLE}),
    })
}
