//! Who is in which security group. Somebody puts a NIC into a group, or the group's query finds the NIC's
//! instance by its tags and owner; a row says which of both is the case.
//!
//! After each message the rows are made to say what queries find, for the instances whose tags, owner or
//! NICs changed, and for those alone. Their groups are found by an index ([`Anchor`]): no change of a tag
//! looks at all groups, and no change of a query at all instances.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AnyId, Code, Error, Id, Kind, Record, Resource, Result,
    member_query::{self, Anchor, MemberQuery},
    record::OWNER,
    resource::{
        account::{Account, AccountType},
        address_group::AddressGroup,
        l3_network::L3Network,
        network_service::NetworkServiceType,
        security_group::{SecurityGroup, SecurityGroupL3NetworkRef},
        security_group_member::{NicPolicy, VmNicSecurityGroupRef, VmNicSecurityPolicy},
        security_group_rule::SecurityGroupRule,
        tag::UserTag,
        vm_instance::VmInstance,
        vm_nic::VmNic,
    },
    setting::{DEFAULT_GROUP, DefaultGroup, DefaultPolicy, EGRESS_POLICY, INGRESS_POLICY, Setting},
};
use store::{Key, Read};
use uuid::Uuid;

use crate::{Txn, config, network_service, security_group};

/// Groups of a NIC at most.
pub(crate) const GROUPS_MAX: usize = 32;

/// Most members that come and go by one change of a query, so that a transaction stays small.
const MEMBERS_AT_ONCE: usize = 3000;

/// Most instances that are looked at for one change of a query.
const LOOKED_AT_MAX: usize = 10_000;

/// That a NIC is to be in a group, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) group: Id<SecurityGroup>,
    pub(crate) is_chosen: bool,
    pub(crate) is_found: bool,
}

impl Membership {
    /// Because somebody says so.
    pub(crate) const fn chosen(group: Id<SecurityGroup>) -> Self {
        Self { group, is_chosen: true, is_found: false }
    }
}

/// The instance or NIC whose groups may be others now that a row is another one, or is gone.
pub(crate) fn affected(before: Option<&Record>, after: &Record) -> Option<AnyId> {
    if let Some(tag) = UserTag::of(after) {
        return (tag.resource.kind == Kind::VmInstance).then_some(tag.resource);
    }
    let owner_is_other = before.is_some_and(|before| before.meta.owner != after.meta.owner);
    match (VmInstance::of(after), VmNic::of(after)) {
        (Some(instance), _) => owner_is_other.then(|| AnyId::of(instance.uuid)),
        (_, Some(nic)) => {
            let was = before.and_then(VmNic::of).map(|nic| nic.vm_instance_uuid);
            (was != Some(nic.vm_instance_uuid)).then(|| AnyId::of(nic.uuid))
        }
        _ => None,
    }
}

/// The groups of a NIC, in the order in which they are asked.
pub(crate) fn of(txn: &Txn<'_>, nic: Id<VmNic>) -> Vec<Membership> {
    let mut rows = txn.children(VmNicSecurityGroupRef::VM_NIC, nic);
    rows.sort_by_key(|row| row.priority);
    let read = |row: VmNicSecurityGroupRef| Membership {
        group: row.security_group_uuid,
        is_chosen: row.is_chosen,
        is_found: row.is_found,
    };
    rows.into_iter().map(read).collect()
}

/// Puts a NIC into these groups, in this order, and out of all others. Those of administrators are asked
/// before its owner's own.
pub(crate) fn set(txn: &mut Txn<'_>, nic: Id<VmNic>, wanted: &[Membership]) -> Result<()> {
    if wanted.len() > GROUPS_MAX {
        let text = format!("NIC {nic} would be in {} security groups", wanted.len());
        let hint = format!("a NIC is in {GROUPS_MAX} at most, also by queries for members");
        return Err(Error::new(Code::OperationFailed, text).hint(hint));
    }
    // The order rests on all groups of the NIC.
    txn.fence(nic);
    let (mut order, own): (Vec<Membership>, Vec<Membership>) =
        wanted.iter().copied().partition(|member| is_imposed(txn, nic, member.group));
    order.extend(own);
    let mut rows: BTreeMap<_, _> = txn
        .children(VmNicSecurityGroupRef::VM_NIC, nic)
        .into_iter()
        .map(|row| (row.uuid, row))
        .collect();
    for (priority, member) in (1..).zip(order.iter()) {
        let row = VmNicSecurityGroupRef {
            uuid: VmNicSecurityGroupRef::id_of(nic, member.group),
            vm_nic_uuid: nic,
            security_group_uuid: member.group,
            priority,
            is_chosen: member.is_chosen,
            is_found: member.is_found,
        };
        match rows.remove(&row.uuid) {
            Some(before) if before == row => {}
            Some(_) => txn.update(row)?,
            None => {
                txn.insert(row)?;
                attach(txn, nic, member.group)?;
            }
        }
    }
    txn.delete_all(rows.into_keys().collect())?;
    keep_policy(txn, nic, !order.is_empty())
}

/// A NIC has a policy while it is in a group.
fn keep_policy(txn: &mut Txn<'_>, nic: Id<VmNic>, is_member: bool) -> Result<()> {
    let uuid = VmNicSecurityPolicy::id_of(nic);
    match (is_member, txn.find(uuid)) {
        (true, None) => {
            let ingress_policy = default_policy(txn, &INGRESS_POLICY);
            let egress_policy = default_policy(txn, &EGRESS_POLICY);
            let policy =
                VmNicSecurityPolicy { uuid, vm_nic_uuid: nic, ingress_policy, egress_policy };
            txn.insert(policy).map(drop)
        }
        (false, Some(policy)) => txn.delete(policy.uuid),
        (true, Some(_)) | (false, None) => Ok(()),
    }
}

fn default_policy(txn: &Txn<'_>, setting: &Setting) -> NicPolicy {
    let word = config::word(&*txn.tx, setting);
    match DefaultPolicy::ALL.iter().find(|policy| policy.as_str() == word) {
        Some(DefaultPolicy::Accept) => NicPolicy::Allow,
        Some(DefaultPolicy::AcceptUntilRule) => NicPolicy::AllowUntilRule,
        Some(DefaultPolicy::Drop) | None => NicPolicy::Deny,
    }
}

/// Notes that a group is for the L3 networks of a NIC: those of its own owner, lest it tells of others'.
fn attach(txn: &mut Txn<'_>, nic: Id<VmNic>, group: Id<SecurityGroup>) -> Result<()> {
    let nic = txn.get(nic)?;
    if owner(txn, AnyId::of(nic.uuid)) != owner(txn, AnyId::of(group)) {
        return Ok(());
    }
    for l3 in networks(&nic) {
        let uuid = SecurityGroupL3NetworkRef::id_of(group, l3);
        if network_service::has(txn, l3, NetworkServiceType::SecurityGroup)
            && txn.find(uuid).is_none()
        {
            let attached =
                SecurityGroupL3NetworkRef { uuid, security_group_uuid: group, l3_network_uuid: l3 };
            txn.insert(attached)?;
        }
    }
    Ok(())
}

fn networks(nic: &VmNic) -> impl Iterator<Item = Id<L3Network>> {
    [nic.l3_network_uuid].into_iter().chain(nic.more_l3_network_uuids.iter().copied())
}

/// The owner of a resource.
pub(crate) fn owner(txn: &Txn<'_>, id: AnyId) -> Option<Id<Account>> {
    txn.record(id.kind, id.uuid).and_then(|record| record.meta.owner)
}

/// Whether a group is an administrator's, and the NIC somebody else's.
pub(crate) fn is_imposed(txn: &Txn<'_>, nic: Id<VmNic>, group: Id<SecurityGroup>) -> bool {
    let (of_nic, of_group) = (owner(txn, AnyId::of(nic)), owner(txn, AnyId::of(group)));
    of_nic != of_group && of_group.is_some_and(|account| is_administrator(txn, account))
}

fn is_administrator(txn: &Txn<'_>, account: Id<Account>) -> bool {
    txn.find(account).is_some_and(|account| account.account_type == AccountType::Admin)
}

/// Whether a NIC may be put into a group: by whoever owns both; by an administrator also into groups of
/// administrators, which its owner cannot change then.
///
/// # Errors
/// [`Code::InvalidArgument`], blaming no field.
pub(crate) fn check(txn: &Txn<'_>, nic: &VmNic, group: Id<SecurityGroup>) -> Result<()> {
    let wrong = |text: String, hint: &str| Err(Error::new(Code::InvalidArgument, text).hint(hint));
    let (of_nic, of_group) = (owner(txn, AnyId::of(nic.uuid)), owner(txn, AnyId::of(group)));
    let by_administrator = [of_nic, of_group].into_iter().flatten();
    let by_administrator = txn.caller().is_admin()
        && by_administrator.into_iter().any(|account| is_administrator(txn, account));
    if of_nic != of_group && !by_administrator {
        let text = format!("security group {group} is not of the account of NIC {}", nic.uuid);
        return wrong(text, "a NIC is in groups of its own account; rules may name shared ones");
    }
    if !networks(nic).any(|l3| network_service::has(txn, l3, NetworkServiceType::SecurityGroup)) {
        let l3 = nic.l3_network_uuid;
        let text = format!("L3 network {l3} of NIC {} has no service SecurityGroup", nic.uuid);
        return wrong(text, "AttachNetworkServiceToL3Network adds it");
    }
    Ok(())
}

/// Whether a NIC that was put into groups may go to an L3 network: there they must have an effect.
pub(crate) fn check_network(txn: &Txn<'_>, nic: &VmNic, l3: &L3Network) -> Result<()> {
    let is_chosen = of(txn, nic.uuid).iter().any(|member| member.is_chosen);
    if !is_chosen || network_service::has(txn, l3.uuid, NetworkServiceType::SecurityGroup) {
        return Ok(());
    }
    let text =
        format!("NIC {} is in security groups, which L3 network {} has not", nic.uuid, l3.uuid);
    let hint = "AttachNetworkServiceToL3Network adds the service SecurityGroup; \
                SetVmNicSecurityGroup with refs=[] takes the NIC out of them";
    Err(Error::new(Code::OperationFailed, text).on_field("destL3NetworkUuid").hint(hint))
}

/// Puts a new NIC into the groups that its call chooses by a tag, else into its account's default group,
/// if accounts have one. It is in them before anybody knows of it.
pub(crate) fn born(txn: &mut Txn<'_>, id: Id<VmNic>, l3: &L3Network) -> Result<()> {
    let mut groups = Vec::new();
    for list in txn.tags(&format!("l3::{}::SecurityGroupUuids::", l3.uuid)) {
        for text in list.split(',').map(str::trim) {
            groups.push(chosen_by_tag(txn, text, &groups)?);
        }
    }
    let nic = txn.get(id)?;
    for group in &groups {
        check(txn, &nic, *group).map_err(|error| error.on_field("systemTags"))?;
    }
    if groups.is_empty() {
        groups.extend(default_group(txn, &nic)?);
    }
    let groups: Vec<_> = groups.into_iter().map(Membership::chosen).collect();
    match groups.is_empty() {
        true => Ok(()),
        false => set(txn, id, &groups),
    }
}

fn chosen_by_tag(
    txn: &Txn<'_>,
    text: &str,
    before: &[Id<SecurityGroup>],
) -> Result<Id<SecurityGroup>> {
    const FORM: &str = "the form is l3::<l3 uuid>::SecurityGroupUuids::<uuid>,<uuid>";
    let wrong = |rule: String| Error::field("systemTags", rule).hint(FORM);
    let uuid =
        model::id::parse_uuid(text).ok_or_else(|| wrong(format!("\"{text}\" is no uuid")))?;
    if txn.visible(Kind::SecurityGroup, uuid).is_none() {
        let error = Error::not_found(SecurityGroup::DEF.name, uuid.simple());
        return Err(error.on_field("systemTags"));
    }
    match before.contains(&Id::new(uuid)) {
        true => Err(wrong(format!("name security group {} twice", uuid.simple()))),
        false => Ok(Id::new(uuid)),
    }
}

/// The default group of a NIC's owner, if accounts have one and it would have an effect. It is made when
/// it is needed first.
fn default_group(txn: &mut Txn<'_>, nic: &VmNic) -> Result<Option<Id<SecurityGroup>>> {
    let Some(account) = owner(txn, AnyId::of(nic.uuid)) else { return Ok(None) };
    let word = config::word_for(&*txn.tx, &DEFAULT_GROUP, account.uuid());
    let has_service =
        network_service::has(txn, nic.l3_network_uuid, NetworkServiceType::SecurityGroup);
    match word == DefaultGroup::Account.as_str() && has_service {
        true => security_group::default_of(txn, account).map(Some),
        false => Ok(None),
    }
}

/// Makes the rows say what queries find, for what was touched.
pub(crate) fn follow(txn: &mut Txn<'_>) -> Result<()> {
    let mut by_instance: BTreeMap<Option<Id<VmInstance>>, BTreeSet<Id<VmNic>>> = BTreeMap::new();
    // Nobody knows them yet, so nothing that a peer's host has of them is wrong.
    let mut fresh = BTreeSet::new();
    for touched in txn.take_regrouped() {
        if let Some(instance) = touched.id::<VmInstance>() {
            let nics = txn.child_ids(VmNic::VM_INSTANCE, instance);
            by_instance.entry(Some(instance)).or_default().extend(nics);
        }
        if let Some(nic) = touched.id().and_then(|id| txn.find::<VmNic>(id)) {
            by_instance.entry(nic.vm_instance_uuid).or_default().insert(nic.uuid);
            fresh.insert(nic.uuid);
        }
    }
    for (instance, nics) in by_instance {
        let found = match instance {
            Some(instance) => groups_that_find(txn, instance),
            None => BTreeSet::new(),
        };
        for nic in nics {
            let changed = find(txn, nic, |group| found.contains(&group), &found)?;
            for group in changed.into_iter().filter(|_| !fresh.contains(&nic)) {
                security_group::waits_for_namers(txn, nic, group);
            }
        }
    }
    Ok(())
}

/// Makes the rows of a NIC say of each group whether its query finds the NIC's instance; `more` are
/// groups that do, of which there may be no row. Gives the groups that it has joined or left.
fn find(
    txn: &mut Txn<'_>,
    nic: Id<VmNic>,
    finds: impl Fn(Id<SecurityGroup>) -> bool,
    more: &BTreeSet<Id<SecurityGroup>>,
) -> Result<BTreeSet<Id<SecurityGroup>>> {
    let before = of(txn, nic);
    let mut after: Vec<_> = before
        .iter()
        .map(|member| Membership { is_found: finds(member.group), ..*member })
        .filter(|member| member.is_chosen || member.is_found)
        .collect();
    let come = more.iter().filter(|group| before.iter().all(|member| member.group != **group));
    after.extend(come.map(|group| Membership { group: *group, is_chosen: false, is_found: true }));
    if before != after {
        set(txn, nic, &after)?;
    }
    let groups = |list: &[Membership]| list.iter().map(|member| member.group).collect();
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (groups(&before), groups(&after));
    Ok(was.symmetric_difference(&is).copied().collect())
}

/// The groups whose queries find an instance.
fn groups_that_find(txn: &mut Txn<'_>, instance: Id<VmInstance>) -> BTreeSet<Id<SecurityGroup>> {
    let Some(account) = owner(txn, AnyId::of(instance)) else { return BTreeSet::new() };
    // The decision rests on the queries about this account.
    fence(txn, account);
    let tags = tags(txn, instance);
    let keys = tags.iter().map(|tag| Some(tag.clone())).chain([None]);
    let keys: Vec<_> = keys.map(|tag| Key::Text(Anchor { account, tag }.key().into())).collect();
    let under = |key| txn.tx.find(Kind::SecurityGroup, SecurityGroup::ANCHORS, key);
    let groups: BTreeSet<Uuid> = keys.iter().flat_map(under).collect();
    let finds = |uuid: &Uuid| {
        let record = txn.record(Kind::SecurityGroup, *uuid)?;
        let query = SecurityGroup::of(&record)?.member_query.as_ref()?.parse::<MemberQuery>();
        query.ok()?.finds(record.meta.owner?, account, &tags).then_some(Id::new(*uuid))
    };
    groups.iter().filter_map(finds).collect()
}

/// What the user tags of an instance say.
fn tags(txn: &Txn<'_>, instance: Id<VmInstance>) -> BTreeSet<String> {
    let found = txn.tx.referrers(Kind::UserTag, "resourceUuid", instance.uuid());
    let tags = found.filter_map(|uuid| txn.find::<UserTag>(Id::new(uuid)));
    tags.map(|tag| member_query::said(&tag.tag)).collect()
}

fn fence(txn: &mut Txn<'_>, account: Id<Account>) {
    txn.fence_uuid(Uuid::new_v5(&account.uuid(), b"queries for members"));
}

/// Makes the members of a group those that its query finds, beside the chosen ones.
pub(crate) fn refind(txn: &mut Txn<'_>, group: Id<SecurityGroup>) -> Result<()> {
    let wanted = match owner(txn, AnyId::of(group)).zip(txn.get(group)?.member_query) {
        Some((owner, query)) => {
            let query: MemberQuery = query.parse().map_err(|rule: String| wrong(&rule))?;
            members_found(txn, owner, &query)?
        }
        None => BTreeSet::new(),
    };
    let key = Key::Uuid(group.uuid());
    let rows = txn.tx.find(Kind::VmNicSecurityGroupRef, VmNicSecurityGroupRef::FOUND_BY, &key);
    let rows = rows.filter_map(|id| txn.find::<VmNicSecurityGroupRef>(Id::new(id)));
    let before: BTreeSet<_> = rows.map(|row| row.vm_nic_uuid).collect();
    let changed: Vec<_> = wanted.symmetric_difference(&before).copied().collect();
    if changed.len() > MEMBERS_AT_ONCE {
        return Err(too_many(format!("{} NICs would come or go at once", changed.len())));
    }
    let namers = security_group::namers(txn, group);
    for nic in changed {
        let is_wanted = wanted.contains(&nic);
        let more = is_wanted.then_some(group).into_iter().collect();
        let kept: BTreeSet<_> =
            of(txn, nic).iter().filter(|it| it.is_found).map(|it| it.group).collect();
        let finds = |other| if other == group { is_wanted } else { kept.contains(&other) };
        if find(txn, nic, finds, &more)?.contains(&group) {
            txn.waits_for_object(nic.uuid(), namers.clone());
        }
    }
    Ok(())
}

/// The NICs of the instances that a query finds.
fn members_found(
    txn: &mut Txn<'_>,
    owner: Id<Account>,
    query: &MemberQuery,
) -> Result<BTreeSet<Id<VmNic>>> {
    let (mut instances, mut nics) = (BTreeSet::new(), BTreeSet::new());
    for anchor in query.anchors(owner) {
        fence(txn, anchor.account);
        instances.extend(anchored(txn, &anchor).take(LOOKED_AT_MAX + 1));
        if instances.len() > LOOKED_AT_MAX {
            return Err(too_many(format!("it is about more than {LOOKED_AT_MAX} instances")));
        }
    }
    for instance in instances {
        let Some(account) = self::owner(txn, AnyId::of(instance)) else { continue };
        if query.finds(owner, account, &tags(txn, instance)) {
            nics.extend(txn.child_ids(VmNic::VM_INSTANCE, instance));
        }
    }
    Ok(nics)
}

/// The instances that have what an anchor names.
fn anchored<'a>(
    txn: &'a Txn<'_>,
    anchor: &Anchor,
) -> Box<dyn Iterator<Item = Id<VmInstance>> + 'a> {
    let found = |kind, field, key: &Key| txn.tx.find(kind, field, key).collect::<Vec<_>>();
    match anchor.tag {
        Some(_) => {
            let key = Key::Text(anchor.key().into());
            let tags = found(Kind::UserTag, UserTag::ANCHOR, &key).into_iter();
            let instance = |tag| txn.find::<UserTag>(Id::new(tag))?.resource.id();
            Box::new(tags.filter_map(instance))
        }
        None => {
            let key = Key::Uuid(anchor.account.uuid());
            Box::new(found(Kind::VmInstance, OWNER, &key).into_iter().map(Id::new))
        }
    }
}

/// The refusal of a query for members.
pub(crate) fn wrong(rule: &str) -> Error {
    let hint = "the form is role=web AND env!=test AND account=shop OR tag='a word', where role=web is \
                the user tag role=web or role::web of an instance, and tag=.. any other";
    Error::field("memberQuery", rule).hint(hint)
}

fn too_many(what: String) -> Error {
    let text = format!("the query changes too much: {what}");
    let hint = format!(
        "{MEMBERS_AT_ONCE} at once at most: tag instances step by step, or ask for more conditions"
    );
    Error::new(Code::OperationFailed, text).on_field("memberQuery").hint(hint)
}

/// Whether a resource may get another owner: groups and what is in them stay together.
pub(crate) fn check_given(txn: &Txn<'_>, record: &Record) -> Result<()> {
    let refuse = |text: String, hint: &str| Err(Error::field("resourceUuid", text).hint(hint));
    let nics = match (VmInstance::of(record), VmNic::of(record)) {
        (Some(instance), _) => txn.child_ids(VmNic::VM_INSTANCE, instance.uuid),
        (_, Some(nic)) => vec![nic.uuid],
        _ => Vec::new(),
    };
    for nic in nics {
        if let Some(member) = of(txn, nic).iter().find(|member| member.is_chosen) {
            let text = format!("NIC {nic} is in security group {}", member.group);
            return refuse(text, "SetVmNicSecurityGroup with refs=[] takes it out of all");
        }
    }
    if let Some(group) = SecurityGroup::of(record) {
        let id = group.uuid;
        if group.member_query.is_some() || txn.count(VmNicSecurityGroupRef::SECURITY_GROUP, id) > 0
        {
            let text = format!("security group {id} has members, or a query for them");
            return refuse(text, "take them out first, and send memberQuery=null");
        }
        let rules = txn.children(SecurityGroupRule::REMOTE_SECURITY_GROUP, id);
        if let Some(rule) = rules.iter().find(|rule| rule.security_group_uuid != id) {
            let text = format!("security group {id} is the remote of rule {}", rule.uuid);
            return refuse(text, "delete that rule first");
        }
        let others = |rule: &SecurityGroupRule| {
            let group = rule.remote_security_group_uuid.filter(|remote| *remote != id);
            group.is_some() || rule.remote_address_group_uuid.is_some()
        };
        let rules = txn.children(SecurityGroupRule::SECURITY_GROUP, id);
        if let Some(rule) = rules.into_iter().find(others) {
            let text = format!("rule {} of security group {id} names another group", rule.uuid);
            return refuse(text, "delete that rule first");
        }
    }
    match AddressGroup::of(record) {
        Some(group) if txn.count(SecurityGroupRule::REMOTE_ADDRESS_GROUP, group.uuid) > 0 => {
            let text = format!("address group {} is the remote of rules", group.uuid);
            refuse(text, "delete those rules first")
        }
        _ => Ok(()),
    }
}
