//! The messages that put NICs into security groups, and that say what happens to what no rule decides.

use std::collections::BTreeSet;

use model::{
    Error, Id, Kind, Result,
    resource::{
        network_service::{NetworkServiceL3NetworkRef, NetworkServiceType},
        security_group::SecurityGroup,
        security_group_member::{
            AddVmNicToSecurityGroup, ChangeVmNicSecurityPolicy, DeleteVmNicFromSecurityGroup,
            GetCandidateVmNicForSecurityGroup, GroupRank, SetVmNicSecurityGroup,
            VmNicSecurityGroupRef, VmNicSecurityPolicy,
        },
        vm_nic::VmNic,
    },
    shown::LIST_MAX,
};
use serde_json::{Value, json};
use store::{Key, Read};

use crate::{
    Look, Reply, Txn,
    memberships::{self, Membership},
    operation::{Operation, job, look, shared_only},
    security_group,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(add), job(delete), job(set), job(change_policy), look(candidates)]
}

fn add(txn: &mut Txn<'_>, message: AddVmNicToSecurityGroup) -> Result<Reply> {
    const FIELD: &str = "vmNicUuids";
    let group = message.security_group_uuid;
    for id in message.vm_nic_uuids {
        let nic = txn.get(id)?;
        may_change(txn, id).map_err(|error| error.on_field(FIELD))?;
        let mut members = memberships::of(txn, id);
        let there = members.iter_mut().find(|member| member.group == group);
        match there {
            Some(member) if member.is_chosen => {
                let error = Error::field(FIELD, format!("NIC {id} is in group {group} already"));
                return Err(error.hint("QueryVmNicInSecurityGroup lists those that are"));
            }
            Some(member) => member.is_chosen = true,
            None => members.push(Membership::chosen(group)),
        }
        memberships::check(txn, &nic, group).map_err(|error| error.on_field(FIELD))?;
        memberships::set(txn, id, &members)?;
        security_group::waits_for_namers(txn, id, group);
    }
    Ok(Reply::shows(group))
}

/// A NIC that is shared as a part of something else may be used, and not be changed.
pub(crate) fn may_change(txn: &Txn<'_>, nic: Id<VmNic>) -> Result<()> {
    let record = txn.record(Kind::VmNic, nic.uuid());
    match record.is_some_and(|record| txn.caller().may_change(&record)) {
        true => Ok(()),
        false => Err(shared_only(Kind::VmNic, nic.uuid())),
    }
}

/// One that is not in the group is out already.
fn delete(txn: &mut Txn<'_>, message: DeleteVmNicFromSecurityGroup) -> Result<Reply> {
    let group = message.security_group_uuid;
    for nic in message.vm_nic_uuids.into_iter().map(Id::<VmNic>::new) {
        match txn.find(VmNicSecurityGroupRef::id_of(nic, group)) {
            Some(row) if row.is_chosen => {
                security_group::leave(txn, row.vm_nic_uuid, group)?;
                security_group::waits_for_namers(txn, row.vm_nic_uuid, group);
            }
            Some(row) => {
                let nic = row.vm_nic_uuid;
                let rule =
                    format!("NIC {nic} is in group {group} by the group's memberQuery alone");
                let hint = "take the tag off the instance, or change the query";
                return Err(Error::field("vmNicUuids", rule).hint(hint));
            }
            None => {}
        }
    }
    Ok(Reply::shows(group))
}

fn set(txn: &mut Txn<'_>, message: SetVmNicSecurityGroup) -> Result<Reply> {
    let nic = txn.get(message.vm_nic_uuid)?;
    let Some(refs) = message.refs else {
        return Err(wrong("is required".to_owned()));
    };
    let wanted = in_order(&refs)?;
    let before = memberships::of(txn, nic.uuid);
    let was = |group| before.iter().find(|member| member.group == group).copied();
    let is_admin = txn.caller().is_admin();
    let mut after: Vec<Membership> = Vec::new();
    for group in wanted {
        if txn.visible(Kind::SecurityGroup, group.uuid()).is_none() {
            return Err(Error::not_found("SecurityGroup", group).on_field("refs"));
        }
        let is_found = was(group).is_some_and(|member| member.is_found);
        if !is_found && !was(group).is_some_and(|member| member.is_chosen) {
            memberships::check(txn, &nic, group).map_err(|error| error.on_field("refs"))?;
        }
        after.push(Membership { group, is_chosen: true, is_found });
    }
    if is_admin {
        check_order(txn, &nic, &after)?;
    }
    // What its owner does not decide stays: that of administrators, and that of queries.
    for member in &before {
        if after.iter().any(|it| it.group == member.group) {
            continue;
        }
        let is_kept =
            member.is_chosen && !is_admin && memberships::is_imposed(txn, nic.uuid, member.group);
        if is_kept || member.is_found {
            after.push(Membership { is_chosen: is_kept, ..*member });
        }
    }
    memberships::set(txn, nic.uuid, &after)?;
    let groups = |list: &[Membership]| list.iter().map(|member| member.group).collect();
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (groups(&before), groups(&after));
    for group in was.symmetric_difference(&is) {
        security_group::waits_for_namers(txn, nic.uuid, *group);
    }
    Ok(Reply::shows(nic.uuid))
}

fn wrong(rule: String) -> Error {
    let hint = "the form is [{\"securityGroupUuid\": \"..\", \"priority\": 1}], priorities from 1 without gaps";
    Error::field("refs", rule).hint(hint)
}

/// The groups that a message names, in the order of their priorities.
fn in_order(refs: &[Value]) -> Result<Vec<Id<SecurityGroup>>> {
    let read = |(at, entry): (usize, &Value)| {
        serde_json::from_value(entry.clone()).map_err(|cause| wrong(format!("entry {at}: {cause}")))
    };
    let mut ranks = refs.iter().enumerate().map(read).collect::<Result<Vec<GroupRank>>>()?;
    ranks.sort_by_key(|rank| rank.priority);
    let mut groups = BTreeSet::new();
    for (expected, rank) in (1..).zip(&ranks) {
        if rank.priority != expected {
            return Err(wrong(format!("has priority {} where {expected} follows", rank.priority)));
        }
        if !groups.insert(rank.security_group_uuid) {
            return Err(wrong(format!("names group {} twice", rank.security_group_uuid)));
        }
    }
    Ok(ranks.into_iter().map(|rank| rank.security_group_uuid).collect())
}

/// Groups of administrators are asked before those of the NIC's owner, as in ZStack.
fn check_order(txn: &Txn<'_>, nic: &VmNic, wanted: &[Membership]) -> Result<()> {
    let is_imposed = |member: &Membership| memberships::is_imposed(txn, nic.uuid, member.group);
    let own = wanted.iter().position(|member| !is_imposed(member));
    let late = own.and_then(|own| wanted[own..].iter().find(|member| is_imposed(member)));
    late.map_or(Ok(()), |member| {
        let rule =
            format!("group {} is an administrator's, behind the account's own", member.group);
        Err(wrong(rule))
    })
}

fn change_policy(txn: &mut Txn<'_>, message: ChangeVmNicSecurityPolicy) -> Result<Reply> {
    if message.ingress_policy.is_none() && message.egress_policy.is_none() {
        let error = Error::field("ingressPolicy", "or egressPolicy is required");
        return Err(error.hint("name what is to change"));
    }
    let Some(policy) = txn.find(VmNicSecurityPolicy::id_of(message.vm_nic_uuid)) else {
        let rule = format!("NIC {} is in no security group", message.vm_nic_uuid);
        return Err(
            Error::field("vmNicUuid", rule).hint("AddVmNicToSecurityGroup puts it into one")
        );
    };
    let id = policy.uuid;
    txn.update(VmNicSecurityPolicy {
        ingress_policy: message.ingress_policy.unwrap_or(policy.ingress_policy),
        egress_policy: message.egress_policy.unwrap_or(policy.egress_policy),
        ..policy
    })?;
    Ok(Reply::shows(id))
}

/// The first of those that the caller sees, by L3 network.
fn candidates(look: &Look<'_>, message: GetCandidateVmNicForSecurityGroup) -> Result<Value> {
    let (group, snapshot) = (look.get(message.security_group_uuid)?.uuid, look.snapshot());
    let service = Key::Text(NetworkServiceType::SecurityGroup.as_str().into());
    let rows = snapshot.find(Kind::NetworkServiceL3NetworkRef, "networkServiceType", &service);
    let l3s = rows.filter_map(|id| {
        let row = snapshot.get(Kind::NetworkServiceL3NetworkRef, id)?;
        model::Resource::of(&row).map(|of: &NetworkServiceL3NetworkRef| of.l3_network_uuid)
    });
    let nics = l3s.flat_map(|l3| look.child_ids(VmNic::L3_NETWORK, l3));
    let is_member = |nic: Id<VmNic>| {
        let row = VmNicSecurityGroupRef::id_of(nic, group).uuid();
        snapshot.get(Kind::VmNicSecurityGroupRef, row).is_some()
    };
    let others = nics.filter(|nic| !is_member(*nic));
    let seen = others.filter_map(|nic| look.visible(Kind::VmNic, nic.uuid()));
    let mine = seen.filter(|record| look.caller().may_change(record));
    let shown: Vec<_> = mine.take(LIST_MAX).map(|record| look.show(&record)).collect();
    Ok(json!({"inventories": shown}))
}
