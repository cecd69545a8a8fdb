//! Prefixes that NICs route for, beside their addresses.
//!
//! On an L2 network one NIC has a prefix, and no prefix has addresses of a range, a gateway or a
//! router there: nobody is to speak as somebody else. A prefix that is one address may be had by
//! several, of which one takes over from the other, such as by VRRP; only those whose owner wants it
//! so have it. Longer ones are moved with two messages. The prefix of all addresses is for whatever else there is, so that it may overlap with anything: in
//! the data plane, addresses of stations and longer prefixes come first.

use ipnet::IpNet;
use model::{
    Code, Error, Kind, Result,
    resource::{nic_settings::SetVmNicAllowedPrefixes, vm_nic::VmNic},
};

use crate::{
    Reply, Txn, neighbours,
    operation::{Operation, job},
    reserved,
};

/// The field that is blamed.
const PREFIXES: &str = "prefixes";

/// Most prefixes of a NIC.
const PREFIXES_MAX: usize = 32;

/// What helps where something rests.
const RESTS: &str = "hosts must confirm first; QueryHost status!=Connected shows who is missing";

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(set)]
}

pub(crate) fn set(txn: &mut Txn<'_>, message: SetVmNicAllowedPrefixes) -> Result<Reply> {
    let nic = txn.get(message.vm_nic_uuid)?;
    let mut prefixes = message.prefixes;
    prefixes.sort_unstable();
    check_many(&prefixes)?;
    if nic.pending().is_some() && !prefixes.is_empty() {
        let rule = format!("NIC {} is being moved, and prefixes do not move yet", nic.uuid);
        fail(rule, "wait until it has moved, or UnbindVmNic")?;
    }
    check_owner(txn, &nic, &prefixes)?;
    // The rules rest on the ranges, routers and prefixes of all networks there.
    txn.fence(nic.l2_network_uuid);
    for net in &prefixes {
        check_form(*net)?;
        check_others(txn, &nic, *net)?;
    }
    txn.update(VmNic { allowed_prefixes: prefixes, ..nic })?;
    Ok(Reply::shows(message.vm_nic_uuid))
}

/// Whether it is that of all addresses.
fn is_all(net: IpNet) -> bool {
    net.prefix_len() == 0
}

fn fail(rule: String, hint: &str) -> Result<()> {
    Err(Error::field(PREFIXES, rule).hint(hint))
}

/// `prefixes` are sorted: what has another one's addresses stands before it.
fn check_many(prefixes: &[IpNet]) -> Result<()> {
    if prefixes.len() > PREFIXES_MAX {
        let rule = format!("{} prefixes are more than {PREFIXES_MAX}", prefixes.len());
        return fail(rule, "a shorter prefix has the addresses of several");
    }
    for (at, net) in prefixes.iter().enumerate() {
        let has = |other: &&IpNet| other.contains(net) && (*other == net || !is_all(**other));
        if let Some(other) = prefixes.iter().take(at).find(has) {
            return fail(format!("{net} is in {other}"), "name each address once");
        }
    }
    Ok(())
}

/// Whoever owns the L3 network decides who speaks in it; only the administrator lets a NIC speak as
/// whoever is elsewhere.
fn check_owner(txn: &Txn<'_>, nic: &VmNic, prefixes: &[IpNet]) -> Result<()> {
    if txn.caller().is_admin() || prefixes.is_empty() {
        return Ok(());
    }
    let refuse = |text: String| {
        let error = Error::new(Code::AccessDenied, text).on_field(PREFIXES);
        Err(error.hint("ask an administrator"))
    };
    let l3 = txn.record(Kind::L3Network, nic.l3_network_uuid.uuid());
    if !l3.is_some_and(|l3| txn.caller().may_change(&l3)) {
        return refuse(format!("L3 network {} is another account's", nic.l3_network_uuid));
    }
    match prefixes.iter().find(|net| is_all(**net)) {
        Some(net) => refuse(format!("{net} is for administrators to set")),
        None => Ok(()),
    }
}

fn check_form(net: IpNet) -> Result<()> {
    if net != net.trunc() {
        let rule = format!("{net} has bits beyond its prefix");
        return fail(rule, &format!("write {}", net.trunc()));
    }
    match reserved::block(net.network(), net.broadcast()).filter(|_| !is_all(net)) {
        Some(block) => {
            let rule = format!("{net} has addresses of {block}, which are no machine's");
            fail(rule, "choose unicast addresses")
        }
        None => Ok(()),
    }
}

/// No prefix has addresses that are, or may become, somebody else's.
fn check_others(txn: &Txn<'_>, nic: &VmNic, net: IpNet) -> Result<()> {
    if is_all(net) {
        return Ok(());
    }
    let (l2, inside) = (nic.l2_network_uuid, (net.network(), net.broadcast()));
    let hint = "all L3 networks on one L2 network share its addresses: choose others";
    let told = |kind: Kind, uuid, text: String| match txn.visible(kind, uuid) {
        Some(_) => text,
        None => format!("{net} has addresses that are another account's"),
    };
    if let Some(range) = neighbours::range_in(&*txn.tx, l2, inside) {
        let (low, high, id) = (range.start_ip, range.end_ip, range.uuid);
        let text = format!("{net} has addresses of range {id} ({low} to {high})");
        return fail(told(Kind::IpRange, id.uuid(), text), hint);
    }
    if let Some(range) = neighbours::gateway_in(&*txn.tx, l2, inside) {
        let text = format!("{net} has {}, the gateway of range {}", range.gateway, range.uuid);
        return fail(told(Kind::IpRange, range.uuid.uuid(), text), hint);
    }
    if let Some((router, l3)) = neighbours::router_in(&*txn.tx, l2, inside) {
        let text = format!("{net} has {router}, the router of L3 network {l3}");
        return fail(told(Kind::L3Network, l3.uuid(), text), hint);
    }
    // All that somebody has now is in a range. What rests may have lost its own.
    if let Some(ip) = neighbours::address_in(&*txn.tx, l2, inside) {
        let text = format!("{net} has {ip}, which is still being released");
        return Err(Error::new(Code::InUse, text).on_field(PREFIXES).hint(RESTS));
    }
    let (read, but) = (&*txn.tx, Some(nic.uuid));
    let found = match net.prefix_len() == net.max_prefix_len() {
        true => neighbours::prefix_in(read, l2, inside, but),
        false => neighbours::routed_in(read, l2, inside, but),
    };
    let Some((other, (kind, uuid))) = found else { return Ok(()) };
    let (text, hint) = match kind {
        Kind::Release => {
            (format!("{net} has addresses of {other}, which is still being released"), RESTS)
        }
        _ => {
            let text = format!("{net} has addresses of {other}, which NIC {} has", uuid.simple());
            (told(kind, uuid, text), "one NIC of an L2 network has a prefix: take it from that one")
        }
    };
    Err(Error::new(Code::InUse, text).on_field(PREFIXES).hint(hint))
}
