//! Addresses of an L3 network that are not given out.

use std::net::IpAddr;

use model::{
    Code, Error, Result,
    resource::{
        ip_range::IpRange,
        reserved_ip_range::{AddReservedIpRange, DeleteReservedIpRange, ReservedIpRange},
    },
};

use crate::{
    Reply, Txn,
    operation::{Operation, job},
};

/// Most of one L3 network: each allocation there sorts them.
const OF_NETWORK_MAX: u64 = 256;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(add), job(delete)]
}

pub(crate) fn add(txn: &mut Txn<'_>, message: AddReservedIpRange) -> Result<Reply> {
    let (l3, start, end) = (message.l3_network_uuid, message.start_ip, message.end_ip);
    if start.is_ipv4() != end.is_ipv4() {
        let error = Error::field("endIp", format!("{start} and {end} are of two families"));
        return Err(error.hint("reserve the addresses of each family by themselves"));
    }
    if start > end {
        let error = Error::field("endIp", format!("{end} is below startIp {start}"));
        return Err(error.hint("give the lower one first"));
    }
    check_inside(txn, &message, [("startIp", start), ("endIp", end)])?;
    for other in txn.children(ReservedIpRange::L3_NETWORK, l3) {
        if other.start_ip <= end && start <= other.end_ip {
            let (low, high) = (other.start_ip, other.end_ip);
            let text = format!("overlaps reserved range {} ({low} to {high})", other.uuid);
            return Err(Error::field("startIp", text).hint("choose other addresses"));
        }
    }
    if txn.count(ReservedIpRange::L3_NETWORK, l3) >= OF_NETWORK_MAX {
        let text = format!("L3 network {l3} has {OF_NETWORK_MAX} of them, which is the limit");
        let hint = "reserve longer ranges";
        return Err(Error::new(Code::OperationFailed, text).on_field("l3NetworkUuid").hint(hint));
    }
    let range = ReservedIpRange {
        uuid: txn.new_id(),
        l3_network_uuid: l3,
        start_ip: start,
        end_ip: end,
        ip_version: if start.is_ipv4() { 4 } else { 6 },
    };
    txn.insert(range).map(Reply::shows)
}

/// Both ends must be in the subnet of some range.
fn check_inside(
    txn: &Txn<'_>,
    message: &AddReservedIpRange,
    ends: [(&str, IpAddr); 2],
) -> Result<()> {
    let ranges = txn.children(IpRange::L3_NETWORK, message.l3_network_uuid);
    for (field, ip) in ends {
        if !ranges.iter().any(|range| range.network_cidr.contains(&ip)) {
            let text = format!("{ip} is in no subnet of L3 network {}", message.l3_network_uuid);
            return Err(Error::field(field, text).hint("QueryIpRange shows networkCidr"));
        }
    }
    Ok(())
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteReservedIpRange) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}
