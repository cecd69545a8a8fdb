//! Port forwarding: rules made, attached to NICs and detached. Which NICs they may lead to is in
//! [`crate::vip_guests`], which ports of a VIP are free in [`crate::vip_ports`].

use ipnet::IpNet;
use model::{
    Claim, Code, Error, Id, Record, Resource, Result,
    resource::{
        network_service::NetworkServiceType,
        port_forwarding::{
            AttachPortForwardingRule, ChangePortForwardingRuleState, CreatePortForwardingRule,
            DeletePortForwardingRule, DetachPortForwardingRule, Forwarded,
            GetPortForwardingAttachableVmNics, PortForwardingRule, UpdatePortForwardingRule,
        },
        vip::{PortProtocol, Vip},
        vm_nic::VmNic,
        zone::EnableState,
    },
};
use serde_json::{Value, json};
use store::Read;
use uuid::Uuid;

use crate::{
    Look, Reply, Txn,
    operation::{Operation, job, look},
    security_group_member::may_change,
    vip,
    vip_guests::{self, Way, refused},
    vip_ports,
};

const SERVICE: NetworkServiceType = NetworkServiceType::PortForwarding;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(create),
        job(update),
        job(delete),
        job(change_state),
        job(attach),
        job(detach),
        look(nics),
    ]
}

fn create(txn: &mut Txn<'_>, message: CreatePortForwardingRule) -> Result<Reply> {
    let way = Way::of(&*txn.tx, SERVICE, message.vip_uuid)?;
    if way.address.ip_version != 4 {
        let rule = format!("VIP {} is of IPv6, and rules are of IPv4", way.vip.uuid);
        let hint = "IPv6 needs no translation; an EIP carries a VIP of it";
        return Err(Error::field("vipUuid", rule).hint(hint));
    }
    let [vip_ports, private_ports] = ranges(&message)?;
    let allowed_cidr = message.allowed_cidr.map(allowed).transpose()?;
    vip::check_use(txn, &way.vip, SERVICE, Code::InvalidArgument)?;
    let mut rule = PortForwardingRule {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        vip_uuid: way.vip.uuid,
        vip_port_start: vip_ports.0,
        vip_port_end: vip_ports.1,
        private_port_start: private_ports.0,
        private_port_end: private_ports.1,
        protocol_type: message.protocol_type,
        allowed_cidr,
        vm_nic_uuid: None,
        guest_l3_network_uuid: None,
        state: EnableState::Enabled,
    };
    check_ports(txn, &way.vip, &rule)?;
    if let Some(nic) = message.vm_nic_uuid {
        lead(txn, &way, &mut rule, nic)?;
    }
    txn.insert(rule).map(Reply::shows)
}

/// The ports of the VIP and those of the NIC: first and last.
fn ranges(message: &CreatePortForwardingRule) -> Result<[(u16, u16); 2]> {
    let in_order = |one: u16, other: u16| (one.min(other), one.max(other));
    let end = message.vip_port_end.unwrap_or(message.vip_port_start);
    let of_vip = in_order(message.vip_port_start, end);
    let of_nic = match (message.private_port_start, message.private_port_end) {
        (None, None) => of_vip,
        (Some(one), None) | (None, Some(one)) => (one, one),
        (Some(start), Some(end)) => in_order(start, end),
    };
    if of_vip.1 - of_vip.0 != of_nic.1 - of_nic.0 {
        let ports = |(first, last): (u16, u16)| format!("{first} to {last}");
        let (of_vip, of_nic) = (ports(of_vip), ports(of_nic));
        let rule = format!("{of_nic} are not as many ports as {of_vip} of the VIP");
        let hint = "leave both privatePortStart and privatePortEnd out for the same ports";
        return Err(Error::field("privatePortEnd", rule).hint(hint));
    }
    Ok([of_vip, of_nic])
}

fn allowed(cidr: IpNet) -> Result<IpNet> {
    if cidr.addr().is_ipv6() {
        let error = Error::field("allowedCidr", format!("{cidr} is IPv6, and rules are of IPv4"));
        return Err(error.hint("give a network such as 192.0.2.0/24"));
    }
    Ok(cidr.trunc())
}

/// Rules of one protocol have ports of their own on a VIP. What else they share is in the claims.
fn check_ports(txn: &Txn<'_>, vip: &Vip, rule: &PortForwardingRule) -> Result<()> {
    let wanted = (rule.vip_port_start, rule.vip_port_end);
    let taken = vip_ports::taken(&*txn.tx, vip, rule.protocol_type, wanted);
    taken.map_or(Ok(()), |(first, last)| {
        let (name, vip) = (rule.protocol_type.as_str(), vip.uuid);
        let rule = format!("ports {first} to {last} of {name} are taken on VIP {vip}");
        let hint = "GetVipAvailablePort lists free ones, QueryPortForwardingRule who has them";
        Err(Error::field("vipPortStart", rule).hint(hint))
    })
}

fn update(txn: &mut Txn<'_>, message: UpdatePortForwardingRule) -> Result<Reply> {
    let mut rule = txn.get(message.uuid)?;
    rule.name = message.name.unwrap_or(rule.name);
    message.description.apply(&mut rule.description);
    txn.update(rule)?;
    Ok(Reply::shows(message.uuid))
}

fn delete(txn: &mut Txn<'_>, message: DeletePortForwardingRule) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

fn change_state(txn: &mut Txn<'_>, message: ChangePortForwardingRuleState) -> Result<Reply> {
    let rule = txn.get(message.uuid)?;
    let state = rule.state.next(message.state_event);
    txn.update(PortForwardingRule { state, ..rule })?;
    Ok(Reply::shows(message.uuid))
}

fn attach(txn: &mut Txn<'_>, message: AttachPortForwardingRule) -> Result<Reply> {
    let mut rule = txn.get(message.rule_uuid)?;
    check_enabled(&rule)?;
    if let Some(nic) = rule.vm_nic_uuid {
        let text = format!("rule {} is attached to NIC {nic}", rule.uuid);
        let error = Error::new(Code::OperationFailed, text).on_field("ruleUuid");
        return Err(error.hint("DetachPortForwardingRule takes it off"));
    }
    let way = Way::of(&*txn.tx, SERVICE, rule.vip_uuid)?;
    way.check_enabled("ruleUuid")?;
    lead(txn, &way, &mut rule, message.vm_nic_uuid)?;
    txn.update(rule)?;
    Ok(Reply::shows(message.rule_uuid))
}

fn check_enabled(rule: &PortForwardingRule) -> Result<()> {
    match rule.state {
        EnableState::Enabled => Ok(()),
        EnableState::Disabled => {
            let text = format!("rule {} is disabled", rule.uuid);
            let error = Error::new(Code::OperationFailed, text).on_field("ruleUuid");
            Err(error.hint("ChangePortForwardingRuleState enables it"))
        }
    }
}

/// Makes a rule lead to a NIC, if it may.
fn lead(txn: &mut Txn<'_>, way: &Way, rule: &mut PortForwardingRule, nic: Id<VmNic>) -> Result<()> {
    let nic = txn.get(nic)?;
    may_change(txn, nic.uuid).map_err(|error| error.on_field("vmNicUuid"))?;
    let guest = way.guest(&*txn.tx, &nic)?;
    check_nic(&*txn.tx, rule, &nic)?;
    vip_guests::fence(txn, &nic);
    rule.vm_nic_uuid = Some(nic.uuid);
    rule.guest_l3_network_uuid = Some(guest.l3_network_uuid);
    Ok(())
}

/// What else leads to the NIC, and to its instance, must go together with a rule.
fn check_nic(read: &impl Read<Record>, rule: &PortForwardingRule, nic: &VmNic) -> Result<()> {
    check_one_vip(read, rule, nic)?;
    let is_restricted = rule.allowed_cidr.is_some();
    if is_restricted && vip_guests::has_eip(read, nic.uuid) {
        let text = format!("NIC {} has an EIP, which is for everybody", nic.uuid);
        return Err(refused(text, "leave allowedCidr out, or DetachEip first"));
    }
    let overlaps = |restricted| overlapping(read, rule, nic.uuid, restricted);
    // Who may use a port must be one thing. Rules for everybody may lead to the same port.
    let other = overlaps(true).or_else(|| is_restricted.then(|| overlaps(false)).flatten());
    other.map_or(Ok(()), |other| {
        let (first, last) = (rule.private_port_start, rule.private_port_end);
        let (id, name) = (nic.uuid, rule.protocol_type.as_str());
        let text = format!(
            "rule {other} leads to some of the {name} ports {first} to {last} of NIC {id}, and one \
             of both has allowedCidr"
        );
        Err(refused(text, "choose other ports of the NIC, or delete that rule"))
    })
}

/// Refuses that a NIC with rules comes to an instance whose NICs have rules of another VIP.
pub(crate) fn check_joins(txn: &Txn<'_>, nic: &VmNic, nics: &[VmNic]) -> Result<()> {
    let Some(vip) = vip_of(&*txn.tx, nic.uuid) else { return Ok(()) };
    one_vip(&*txn.tx, vip, nics)
}

fn check_one_vip(read: &impl Read<Record>, rule: &PortForwardingRule, nic: &VmNic) -> Result<()> {
    match nic.vm_instance_uuid {
        Some(instance) => one_vip(read, rule.vip_uuid, &vip_guests::nics_of(read, instance)),
        None => one_vip(read, rule.vip_uuid, std::slice::from_ref(nic)),
    }
}

fn one_vip(read: &impl Read<Record>, vip: Id<Vip>, nics: &[VmNic]) -> Result<()> {
    let others = nics.iter().filter_map(|nic| Some((nic.uuid, vip_of(read, nic.uuid)?)));
    let other = others.into_iter().find(|(_, of_nic)| *of_nic != vip);
    other.map_or(Ok(()), |(nic, other)| {
        let text = format!("NIC {nic} of the instance has rules of VIP {other}");
        Err(refused(text, "all rules of an instance are of one VIP: make this one of that VIP"))
    })
}

/// The VIP of a NIC's rules: all of them have one, so that any of them tells.
fn vip_of(read: &impl Read<Record>, nic: Id<VmNic>) -> Option<Id<Vip>> {
    let field = PortForwardingRule::VM_NIC.field;
    let id = read.referrers(PortForwardingRule::KIND, field, nic.uuid()).next()?;
    let row = read.get(PortForwardingRule::KIND, id)?;
    PortForwardingRule::of(&row).map(|rule| rule.vip_uuid)
}

/// A rule for a NIC's ports that overlap those of this one: one that is restricted, or one that is not.
/// The work grows with how many sizes of ranges there are, not with how many rules.
fn overlapping(
    read: &impl Read<Record>,
    rule: &PortForwardingRule,
    nic: Id<VmNic>,
    is_restricted: bool,
) -> Option<Id<PortForwardingRule>> {
    let (first, last) = (rule.private_port_start, rule.private_port_end);
    let own = Forwarded { is_restricted, ..rule.forwarded(nic) };
    let at = |more, first, id| Forwarded { more, first, rule: Id::new(id), ..own.clone() };
    let end = Claim::Forwarded(at(u16::MAX, u16::MAX, Uuid::max()));
    let mut more = 0_u16;
    loop {
        // Of ranges of one size those overlap that begin up to their length before this one.
        let from = Claim::Forwarded(at(more, first.saturating_sub(more), Uuid::nil()));
        let (Claim::Forwarded(found), _) = read.first_held(&from, &end)? else {
            return None;
        };
        if found.more == more && found.first <= last {
            return Some(found.rule);
        }
        more = if found.more == more { more.checked_add(1)? } else { found.more };
    }
}

fn detach(txn: &mut Txn<'_>, message: DetachPortForwardingRule) -> Result<Reply> {
    let rule = txn.get(message.uuid)?;
    if rule.vm_nic_uuid.is_none() {
        let text = format!("rule {} is attached to no NIC", rule.uuid);
        let error = Error::new(Code::OperationFailed, text).on_field("uuid");
        return Err(error.hint("AttachPortForwardingRule attaches it"));
    }
    txn.update(PortForwardingRule { vm_nic_uuid: None, guest_l3_network_uuid: None, ..rule })?;
    Ok(Reply::shows(message.uuid))
}

/// As in ZStack, of a rule that is attached there are none.
fn nics(look: &Look<'_>, message: GetPortForwardingAttachableVmNics) -> Result<Value> {
    let (rule, snapshot) = (look.get(message.rule_uuid)?, look.snapshot());
    check_enabled(&rule)?;
    if rule.vm_nic_uuid.is_some() {
        return Ok(json!({"inventories": []}));
    }
    let way = Way::of(snapshot, SERVICE, rule.vip_uuid)?;
    let fits = |nic: &VmNic| {
        nic.vm_instance_uuid.is_some()
            && way.guest(snapshot, nic).is_ok()
            && check_nic(snapshot, &rule, nic).is_ok()
    };
    Ok(json!({"inventories": vip_guests::candidates(look, SERVICE, fits)}))
}

/// Deletes the rules of a VIP in steps: there may be more than one deletion takes.
pub(crate) fn delete_of_vip(txn: &mut Txn<'_>, vip: Id<Vip>) -> Result<()> {
    let rules = txn.child_ids(PortForwardingRule::VIP, vip);
    rules.chunks(RULES_AT_ONCE).try_for_each(|some| txn.delete_all(some.to_vec()))
}

/// Rules that are deleted at once: fewer than one deletion takes.
const RULES_AT_ONCE: usize = 2000;

/// Whether some rule to a NIC is not for everybody.
pub(crate) fn is_restricted(read: &impl Read<Record>, nic: Id<VmNic>) -> bool {
    let protocols = PortProtocol::ALL.iter().map(|it| it.number());
    protocols.into_iter().any(|protocol| {
        let at = |number: u16, id| {
            Claim::Forwarded(Forwarded {
                nic,
                protocol,
                is_restricted: true,
                more: number,
                first: number,
                rule: Id::new(id),
            })
        };
        read.first_held(&at(0, Uuid::nil()), &at(u16::MAX, Uuid::max())).is_some()
    })
}
