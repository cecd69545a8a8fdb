//! Security groups: made, changed, deleted, and for which L3 networks they are. Who is in them is in
//! [`crate::memberships`], their rules in [`crate::security_group_rule`].

use std::collections::BTreeSet;

use model::{
    Claim, Code, Error, Id, Kind, Result, Update,
    member_query::MemberQuery,
    resource::{
        account::Account,
        host::Host,
        l3_network::L3Network,
        network_service::NetworkServiceType,
        security_group::{
            AttachSecurityGroupToL3Network, ChangeSecurityGroupState, CreateSecurityGroup,
            DeleteSecurityGroup, DetachSecurityGroupFromL3Network, SecurityGroup,
            SecurityGroupL3NetworkRef, UpdateSecurityGroup,
        },
        security_group_member::VmNicSecurityGroupRef,
        security_group_rule::SecurityGroupRule,
        vm_nic::VmNic,
        zone::EnableState,
    },
};
use store::{Key, Read};

use crate::{
    Reply, Txn, memberships, network_service,
    operation::{Operation, job},
    security_group_rule,
};

/// Rules that are deleted at once: fewer than one deletion takes.
const RULES_AT_ONCE: usize = 2000;

/// Of a group with more members than this it is not looked up on which hosts they are, and of one that more
/// rules name not by whom.
const LOOKED_UP: u64 = 1000;

/// Members that leave by one message at most.
const LEAVE_MAX: usize = 3000;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(update), job(delete), job(change_state), job(attach), job(detach)]
}

fn create(txn: &mut Txn<'_>, message: CreateSecurityGroup) -> Result<Reply> {
    let ip_version = message.ip_version.unwrap_or(4);
    if ip_version == 5 {
        let error = Error::field("ipVersion", "5 is neither 4 nor 6");
        return Err(error.hint("4 or 6: the family of rules that name none"));
    }
    let member_query = message.member_query.map(|text| query(txn, &text)).transpose()?;
    let has_query = member_query.is_some();
    let number = txn.number("securityGroup")?;
    let id = txn.insert(SecurityGroup {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        state: EnableState::Enabled,
        ip_version,
        number,
        is_stateless: message.is_stateless.unwrap_or_default(),
        member_query,
    })?;
    security_group_rule::insert_defaults(txn, id)?;
    if has_query {
        memberships::refind(txn, id)?;
    }
    Ok(Reply::shows(id))
}

/// The default group of an account, which is made when there is none.
pub(crate) fn default_of(txn: &mut Txn<'_>, account: Id<Account>) -> Result<Id<SecurityGroup>> {
    let id = SecurityGroup::default_of(account);
    if txn.find(id).is_some() {
        return Ok(id);
    }
    let group = SecurityGroup {
        uuid: id,
        name: "default".to_owned(),
        description: Some("for NICs that are made with no choice of groups".to_owned()),
        state: EnableState::Enabled,
        ip_version: 4,
        number: txn.number("securityGroup")?,
        is_stateless: false,
        member_query: None,
    };
    txn.insert_for(account, group)?;
    security_group_rule::insert_defaults(txn, id)?;
    Ok(id)
}

/// A query as it is kept: with the ids of its accounts, of which a normal caller may name its own.
fn query(txn: &Txn<'_>, text: &str) -> Result<String> {
    let query: MemberQuery = text.parse().map_err(|rule: String| memberships::wrong(&rule))?;
    let known = |name: &str| {
        let (kind, uuid) = txn.tx.holder(&Claim::AccountName(name.to_owned()))?;
        (kind == Kind::Account).then_some(Id::new(uuid))
    };
    let unknown = |what: &str| {
        memberships::wrong(&format!("asks for account {what}, of which you may not know"))
    };
    let query = query.resolved(known).map_err(|name| unknown(&name))?;
    let other = query.accounts().into_iter().find(|account| {
        let is_own = txn.caller().account() == Some(*account);
        !is_own && (!txn.caller().is_admin() || txn.find(*account).is_none())
    });
    match other {
        Some(account) => Err(unknown(&account.to_string())),
        None => Ok(query.to_string()),
    }
}

fn update(txn: &mut Txn<'_>, message: UpdateSecurityGroup) -> Result<Reply> {
    let mut group = txn.get(message.uuid)?;
    group.name = message.name.unwrap_or(group.name);
    message.description.apply(&mut group.description);
    let before = group.member_query.clone();
    match message.member_query {
        Update::Keep => {}
        Update::Clear => group.member_query = None,
        Update::Set(text) => group.member_query = Some(query(txn, &text)?),
    }
    let is_other = group.member_query != before;
    txn.update(group)?;
    if is_other {
        memberships::refind(txn, message.uuid)?;
    }
    Ok(Reply::shows(message.uuid))
}

/// Who is a member by its query leaves, and its rules go in steps: there may be more than one deletion
/// takes.
fn delete(txn: &mut Txn<'_>, message: DeleteSecurityGroup) -> Result<Reply> {
    let mut group = txn.get(message.uuid)?;
    refuse_in_use(txn, &group)?;
    if group.member_query.is_some() {
        group.member_query = None;
        txn.update(group)?;
        memberships::refind(txn, message.uuid)?;
    }
    let rules = txn.child_ids(SecurityGroupRule::SECURITY_GROUP, message.uuid);
    for some in rules.chunks(RULES_AT_ONCE) {
        txn.delete_all(some.to_vec())?;
    }
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

/// Told before anything is done, with what keeps it.
fn refuse_in_use(txn: &Txn<'_>, group: &SecurityGroup) -> Result<()> {
    let refuse = |text: String, hint: &str| Err(Error::new(Code::InUse, text).hint(hint));
    let id = group.uuid;
    let members = txn.count(VmNicSecurityGroupRef::SECURITY_GROUP, id);
    let key = Key::Uuid(id.uuid());
    let kind = Kind::VmNicSecurityGroupRef;
    if members > txn.tx.count(kind, VmNicSecurityGroupRef::FOUND_BY, &key) {
        let text = format!("NICs have been put into security group {id}");
        return refuse(text, "QueryVmNicInSecurityGroup lists them, also of destroyed instances");
    }
    let rows = txn.tx.find(kind, VmNicSecurityGroupRef::FOUND_BY, &key);
    let rows = rows.filter_map(|row| txn.find::<VmNicSecurityGroupRef>(Id::new(row)));
    if let Some(row) = rows.into_iter().find(|row| row.is_chosen) {
        let text = format!("NIC {} has been put into security group {id}", row.vm_nic_uuid);
        return refuse(text, "DeleteVmNicFromSecurityGroup takes it out");
    }
    let rules = txn.children(SecurityGroupRule::REMOTE_SECURITY_GROUP, id);
    match rules.iter().find(|rule| rule.security_group_uuid != id) {
        Some(rule) if txn.visible(Kind::SecurityGroupRule, rule.uuid.uuid()).is_some() => {
            let group = rule.security_group_uuid;
            let text = format!("rule {} of security group {group} names {id}", rule.uuid);
            refuse(text, "delete that rule first")
        }
        Some(_) => refuse(format!("a rule of another account names {id}"), "ask an administrator"),
        None => Ok(()),
    }
}

fn change_state(txn: &mut Txn<'_>, message: ChangeSecurityGroupState) -> Result<Reply> {
    let group = txn.get(message.uuid)?;
    let state = group.state.next(message.state_event);
    txn.update(SecurityGroup { state, ..group })?;
    waits_for_members(txn, message.uuid);
    Ok(Reply::shows(message.uuid))
}

/// Success waits until the hosts of a group's members have what changed of it.
pub(crate) fn waits_for_members(txn: &mut Txn<'_>, group: Id<SecurityGroup>) {
    let hosts = hosts_of_members(txn, group);
    if !hosts.is_empty() {
        txn.waits_for_object(group.uuid(), hosts);
    }
}

/// Success waits until a NIC is a member of a group, or is none any more, for all whose rules name it.
pub(crate) fn waits_for_namers(txn: &mut Txn<'_>, nic: Id<VmNic>, group: Id<SecurityGroup>) {
    let hosts = namers(txn, group);
    txn.waits_for_object(nic.uuid(), hosts);
}

/// The hosts of members of groups whose rules name a group.
pub(crate) fn namers(txn: &Txn<'_>, group: Id<SecurityGroup>) -> BTreeSet<Id<Host>> {
    if txn.count(SecurityGroupRule::REMOTE_SECURITY_GROUP, group) > LOOKED_UP {
        return every_host(txn);
    }
    let rules = txn.children(SecurityGroupRule::REMOTE_SECURITY_GROUP, group);
    let groups: BTreeSet<_> = rules.into_iter().map(|rule| rule.security_group_uuid).collect();
    groups.into_iter().flat_map(|group| hosts_of_members(txn, group)).collect()
}

/// Success waits until the hosts of an L3 network's NICs have what is said of those in no group. Where
/// there are many NICs, it does not: the job would have to name each.
pub(crate) fn waits_for_ungrouped(txn: &mut Txn<'_>, l3: Id<L3Network>) {
    if txn.count(VmNic::L3_NETWORK, l3) > LOOKED_UP {
        return;
    }
    for nic in txn.children(VmNic::L3_NETWORK, l3) {
        let hosts = nic.host_uuid.into_iter().chain(nic.moves_to()).collect();
        txn.waits_for_object(nic.uuid.uuid(), hosts);
    }
}

/// The hosts of a group's members. Where there are many, it is every host: one that does not have the group
/// has nothing to confirm.
fn hosts_of_members(txn: &Txn<'_>, group: Id<SecurityGroup>) -> BTreeSet<Id<Host>> {
    if txn.count(VmNicSecurityGroupRef::SECURITY_GROUP, group) > LOOKED_UP {
        return every_host(txn);
    }
    let rows = txn.children(VmNicSecurityGroupRef::SECURITY_GROUP, group).into_iter();
    let nics = rows.filter_map(|row| txn.find(row.vm_nic_uuid));
    nics.flat_map(|nic| nic.host_uuid.into_iter().chain(nic.moves_to())).collect()
}

fn every_host(txn: &Txn<'_>) -> BTreeSet<Id<Host>> {
    txn.tx.list(Kind::Host).map(|host| Id::new(host.uuid())).collect()
}

fn attach(txn: &mut Txn<'_>, message: AttachSecurityGroupToL3Network) -> Result<Reply> {
    let (group, l3) = (message.security_group_uuid, message.l3_network_uuid);
    let uuid = SecurityGroupL3NetworkRef::id_of(group, l3);
    if txn.find(uuid).is_some() {
        let text = format!("security group {group} is attached to L3 network {l3} already");
        let error = Error::new(Code::OperationFailed, text).on_field("l3NetworkUuid");
        return Err(error.hint("QuerySecurityGroup shows attachedL3NetworkUuids"));
    }
    if !network_service::has(txn, l3, NetworkServiceType::SecurityGroup) {
        let error = Error::field("l3NetworkUuid", format!("{l3} has no service SecurityGroup"));
        return Err(error.hint("AttachNetworkServiceToL3Network adds it"));
    }
    txn.insert(SecurityGroupL3NetworkRef {
        uuid,
        security_group_uuid: group,
        l3_network_uuid: l3,
    })?;
    Ok(Reply::shows(group))
}

fn detach(txn: &mut Txn<'_>, message: DetachSecurityGroupFromL3Network) -> Result<Reply> {
    let (group, l3) = (message.security_group_uuid, message.l3_network_uuid);
    let uuid = SecurityGroupL3NetworkRef::id_of(group, l3);
    if txn.find(uuid).is_none() {
        let text = format!("security group {group} is not attached to L3 network {l3}");
        let error = Error::new(Code::OperationFailed, text).on_field("l3NetworkUuid");
        return Err(error.hint("QuerySecurityGroup shows attachedL3NetworkUuids"));
    }
    let members = members_on(txn, group, l3);
    if members.len() > LEAVE_MAX {
        let text = format!("{} NICs of {l3} are in security group {group}", members.len());
        let hint = "take them out in steps: DeleteVmNicFromSecurityGroup";
        return Err(Error::new(Code::OperationFailed, text).hint(hint));
    }
    for nic in members {
        leave(txn, nic, group)?;
    }
    txn.delete(uuid)?;
    Ok(Reply::shows(group))
}

/// The NICs of an L3 network that were put into a group: those of the shorter list that are in the other.
fn members_on(txn: &Txn<'_>, group: Id<SecurityGroup>, l3: Id<L3Network>) -> Vec<Id<VmNic>> {
    let of_group = txn.count(VmNicSecurityGroupRef::SECURITY_GROUP, group);
    let nics: Vec<Id<VmNic>> = match of_group <= txn.count(VmNic::L3_NETWORK, l3) {
        true => {
            let rows = txn.children(VmNicSecurityGroupRef::SECURITY_GROUP, group).into_iter();
            let nics = rows.filter_map(|row| txn.find(row.vm_nic_uuid));
            nics.filter(|nic| nic.l3_network_uuid == l3).map(|nic| nic.uuid).collect()
        }
        false => txn.child_ids(VmNic::L3_NETWORK, l3),
    };
    let is_chosen = |nic: &Id<VmNic>| {
        let row = txn.find(VmNicSecurityGroupRef::id_of(*nic, group));
        row.is_some_and(|row| row.is_chosen)
    };
    nics.into_iter().filter(is_chosen).collect()
}

/// Takes a NIC out of a group into which it was put; the group's query may keep it there.
pub(crate) fn leave(txn: &mut Txn<'_>, nic: Id<VmNic>, group: Id<SecurityGroup>) -> Result<()> {
    let mut members = memberships::of(txn, nic);
    for member in members.iter_mut().filter(|member| member.group == group) {
        member.is_chosen = false;
    }
    members.retain(|member| member.is_chosen || member.is_found);
    memberships::set(txn, nic, &members)
}
