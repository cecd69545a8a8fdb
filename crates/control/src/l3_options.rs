//! What instances of an L3 network are told beside their addresses: name servers, MTU, the router.

use model::{
    Claim, Code, Error, Id, Result, mtu,
    resource::{
        ip_range::IpRange,
        l2_attachment::L2NetworkClusterRef,
        l2_network::{L2Network, Segment},
        l3_network::L3Network,
        l3_options::{
            AddDnsToL3Network, GetL3NetworkMtu, GetL3NetworkRouterInterfaceIp,
            RemoveDnsFromL3Network, SetL3NetworkMtu, SetL3NetworkRouterInterfaceIp,
        },
    },
};
use serde_json::{Value, json};

use crate::{
    Look, Reply, Txn, ip_range, l3_network, neighbours,
    operation::{Operation, job, look},
};

/// Most name servers of one L3 network; resolvers ask three of them (resolv.conf(5)).
const DNS_MAX: usize = 16;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(add_dns), job(remove_dns), job(set_mtu), look(mtu), job(set_router), look(router)]
}

pub(crate) fn add_dns(txn: &mut Txn<'_>, message: AddDnsToL3Network) -> Result<Reply> {
    let mut l3 = txn.get(message.l3_network_uuid)?;
    let fail = |text: String, hint: &str| {
        Err(Error::new(Code::OperationFailed, text).on_field("dns").hint(hint))
    };
    if l3.dns.contains(&message.dns) {
        let text = format!("L3 network {} has name server {} already", l3.uuid, message.dns);
        return fail(text, "QueryL3Network shows dns");
    }
    if l3.dns.len() >= DNS_MAX {
        let text = format!("L3 network {} has {DNS_MAX} name servers, the limit", l3.uuid);
        return fail(text, "RemoveDnsFromL3Network takes one away");
    }
    l3.dns.push(message.dns);
    txn.update(l3)?;
    Ok(Reply::shows(message.l3_network_uuid))
}

/// As in ZStack, what is not there is gone already.
pub(crate) fn remove_dns(txn: &mut Txn<'_>, message: RemoveDnsFromL3Network) -> Result<Reply> {
    let mut l3 = txn.get(message.l3_network_uuid)?;
    if l3.dns.contains(&message.dns) {
        l3.dns.retain(|dns| *dns != message.dns);
        txn.update(l3)?;
    }
    Ok(Reply::shows(message.l3_network_uuid))
}

/// NICs keep the MTU with which their instances were set up.
pub(crate) fn set_mtu(txn: &mut Txn<'_>, message: SetL3NetworkMtu) -> Result<Reply> {
    let mut l3 = txn.get(message.l3_network_uuid)?;
    // The rule rests on the ranges of the network.
    txn.fence(l3.uuid);
    let ranges = txn.children(IpRange::L3_NETWORK, l3.uuid);
    if message.mtu < ip_range::IPV6_MTU_MIN && ranges.iter().any(|range| range.ip_version == 6) {
        let least = ip_range::IPV6_MTU_MIN;
        let error = Error::field("mtu", format!("{} is too little for IPv6", message.mtu));
        return Err(error.hint(format!("give {least} or more, or delete the IPv6 ranges")));
    }
    let l2 = txn.get(l3.l2_network_uuid)?;
    if let Some(most) = around_vlan(txn, &l2)
        && message.mtu > most
    {
        let rule = format!("{} is more than the untagged network carries: {most}", message.mtu);
        let hint = "SetL3NetworkMtu of an L3 network on the L2NoVlanNetwork of the same interface \
                    comes first";
        return Err(Error::field("mtu", rule).hint(hint));
    }
    l3.mtu = Some(message.mtu);
    txn.update(l3)?;
    Ok(Reply::shows(message.l3_network_uuid))
}

/// What the untagged networks carry of which a VLAN is part, in the clusters where it is.
fn around_vlan(txn: &Txn<'_>, l2: &L2Network) -> Option<u32> {
    let (Segment::Vlan { .. }, Some(interface)) = (&l2.segment, &l2.physical_interface) else {
        return None;
    };
    let of_cluster = |attached: L2NetworkClusterRef| {
        let wire = Claim::Wire(attached.cluster_uuid, interface.clone(), None);
        let (_, (_, holder)) = txn.first_held(&wire, &wire)?;
        let untagged: L2NetworkClusterRef = txn.find(Id::new(holder))?;
        let l3s = txn.children(L3Network::L2_NETWORK, untagged.l2_network_uuid);
        l3s.into_iter().filter_map(|l3| l3.mtu).max()
    };
    let attached = txn.children(L2NetworkClusterRef::L2_NETWORK, l2.uuid).into_iter();
    let carried = attached.map(|attached| of_cluster(attached).unwrap_or(mtu::UNDERLAY));
    Some(carried.min().unwrap_or(mtu::UNDERLAY))
}

fn mtu(look: &Look<'_>, message: GetL3NetworkMtu) -> Result<Value> {
    let l3 = look.get(message.l3_network_uuid)?;
    Ok(json!({"mtu": l3_network::mtu_bytes(look.snapshot(), &l3)}))
}

pub(crate) fn set_router(
    txn: &mut Txn<'_>,
    message: SetL3NetworkRouterInterfaceIp,
) -> Result<Reply> {
    let (mut l3, ip) = (txn.get(message.l3_network_uuid)?, message.router_interface_ip);
    let fail = |rule: String, hint: &str| Err(Error::field("routerInterfaceIp", rule).hint(hint));
    if ip.is_ipv6() {
        return fail(format!("{ip} is IPv6"), "give an IPv4 address");
    }
    // The rule rests on the ranges and routers of all L3 networks there.
    txn.fence(l3.l2_network_uuid);
    let Some(own) = neighbours::subnet_of(&*txn.tx, l3.uuid, 4) else {
        let rule = format!("L3 network {} has no IPv4 range", l3.uuid);
        return fail(rule, "AddIpRange adds one");
    };
    let cidr = own.network_cidr;
    if !cidr.contains(&ip) || ip == cidr.network() || ip == cidr.broadcast() {
        return fail(format!("{ip} is no host's address of {cidr}"), "choose one of the subnet");
    }
    let (l2, here) = (l3.l2_network_uuid, (ip, ip));
    let router = neighbours::router_in(&*txn.tx, l2, here);
    if let Some((_, other)) = router.filter(|(_, other)| *other != l3.uuid) {
        let rule = format!("{ip} is the router of L3 network {other}");
        return fail(rule, "both are on one L2 network: choose another address");
    }
    if let Some(range) = neighbours::range_in(&*txn.tx, l2, here) {
        let (low, high) = (range.start_ip, range.end_ip);
        let rule = format!("{ip} is in range {} ({low} to {high})", range.uuid);
        return fail(rule, "choose an address outside of all ranges");
    }
    if let Some((net, _)) = neighbours::routed_in(&*txn.tx, l2, here, None) {
        let rule = format!("{ip} is in {net}, which a NIC routes for");
        return fail(rule, "choose another address, or SetVmNicAllowedPrefixes");
    }
    l3.router_interface_ip = Some(ip);
    txn.update(l3)?;
    Ok(Reply::shows(message.l3_network_uuid))
}

fn router(look: &Look<'_>, message: GetL3NetworkRouterInterfaceIp) -> Result<Value> {
    let l3 = look.get(message.l3_network_uuid)?;
    let gateway = neighbours::subnet_of(look.snapshot(), l3.uuid, 4).map(|range| range.gateway);
    match l3.router_interface_ip.or(gateway) {
        Some(ip) => Ok(json!({"routerInterfaceIp": ip})),
        None => {
            let rule = format!("L3 network {} has no IPv4 range", l3.uuid);
            Err(Error::field("l3NetworkUuid", rule).hint("AddIpRange adds one"))
        }
    }
}
