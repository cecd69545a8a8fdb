//! Routes that instances on an L3 network are told of.

use ipnet::{IpNet, Ipv4Net};
use model::{
    Code, Error, Id, Result,
    resource::{
        host_route::{AddHostRouteToL3Network, L3NetworkHostRoute, RemoveHostRouteFromL3Network},
        l3_network::L3Network,
    },
};
use uuid::Uuid;

use crate::{
    Reply, Txn,
    operation::{Operation, job},
};

/// Most of one L3 network: as many as fit into DHCP's option 121 a few times over (RFC 3442).
const OF_NETWORK_MAX: u64 = 128;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(add), job(remove)]
}

pub(crate) fn add(txn: &mut Txn<'_>, message: AddHostRouteToL3Network) -> Result<Reply> {
    let (l3, prefix) = (message.l3_network_uuid, v4(message.prefix)?);
    if message.nexthop.is_ipv6() {
        let error = Error::field("nexthop", format!("{} is IPv6", message.nexthop));
        return Err(error.hint("host routes are of IPv4"));
    }
    let id = id(l3, prefix);
    if let Some(known) = txn.find(id) {
        let text = format!("L3 network {l3} has a route to {prefix} already, by {}", known.nexthop);
        let hint = "RemoveHostRouteFromL3Network takes it away";
        return Err(Error::new(Code::OperationFailed, text).on_field("prefix").hint(hint));
    }
    if txn.count(L3NetworkHostRoute::L3_NETWORK, l3) >= OF_NETWORK_MAX {
        let text = format!("L3 network {l3} has {OF_NETWORK_MAX} routes, which is the limit");
        let hint = "remove some, or route by the gateway";
        return Err(Error::new(Code::OperationFailed, text).on_field("prefix").hint(hint));
    }
    txn.insert(L3NetworkHostRoute {
        uuid: id,
        l3_network_uuid: l3,
        prefix: IpNet::V4(prefix),
        nexthop: message.nexthop,
    })?;
    Ok(Reply::shows(l3))
}

pub(crate) fn remove(txn: &mut Txn<'_>, message: RemoveHostRouteFromL3Network) -> Result<Reply> {
    let (l3, prefix) = (message.l3_network_uuid, v4(message.prefix)?);
    if txn.find(id(l3, prefix)).is_none() {
        let text = format!("L3 network {l3} has no route to {prefix}");
        let hint = "QueryL3Network shows hostRoute";
        return Err(Error::new(Code::OperationFailed, text).on_field("prefix").hint(hint));
    }
    txn.delete(id(l3, prefix))?;
    Ok(Reply::shows(l3))
}

fn v4(prefix: IpNet) -> Result<Ipv4Net> {
    match prefix {
        IpNet::V4(prefix) if prefix == prefix.trunc() => Ok(prefix),
        IpNet::V4(prefix) => {
            let error = Error::field("prefix", format!("{prefix} is an address, not a network"));
            Err(error.hint(format!("the network is {}", prefix.trunc())))
        }
        IpNet::V6(prefix) => {
            let error = Error::field("prefix", format!("{prefix} is IPv6"));
            Err(error.hint("host routes are of IPv4"))
        }
    }
}

/// Once for each network and prefix.
fn id(l3: Id<L3Network>, prefix: Ipv4Net) -> Id<L3NetworkHostRoute> {
    Id::new(Uuid::new_v5(&l3.uuid(), prefix.to_string().as_bytes()))
}
