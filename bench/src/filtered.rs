//! netloom's VMs in security groups: real objects, through server and agent.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use client::Client;
use hostnet::Namespace;
use serde_json::{Value, json};

use crate::{
    Failure,
    loom::{HOST, Loom, params, text},
    rivals::{LAST, Size, other},
    serve::{COUNT, SINK},
    traffic::Pair,
};

/// Clients that make NICs, at once.
const CLIENTS: usize = 32;
/// NICs in one call that puts them into a group.
const AT_ONCE: usize = 1_000;

/// An L3 network of its own with security groups and a quarter of a million addresses.
pub(crate) struct Filtered<'a> {
    loom: &'a Loom,
    l3: String,
}

/// A VM of it.
pub(crate) struct Vm {
    /// Its NIC.
    pub(crate) nic: String,
    /// Its address.
    pub(crate) ip: Ipv4Addr,
    /// Its namespace.
    pub(crate) namespace: Namespace,
}

impl<'a> Filtered<'a> {
    /// Makes it.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) fn new(loom: &'a Loom) -> Result<Self, Failure> {
        let most =
            json!({"category": "securityGroup", "name": "rules.num.limit", "value": "10000"});
        loom.made("UpdateGlobalConfig", most, &[])?;
        let pool = loom.uuid("/l2-networks/vxlan-pool", "pool")?;
        let l2 = json!({"name": "filtered", "poolUuid": pool});
        let l2 = text(&loom.made("CreateL2VxlanNetwork", l2, &[])?, "uuid")?;
        let l3 = json!({"name": "filtered-l3", "l2NetworkUuid": l2, "category": "Private"});
        let l3 = text(&loom.made("CreateL3Network", l3, &[])?, "uuid")?;
        let range = json!({"name": "range", "l3NetworkUuid": l3, "startIp": "10.128.0.2",
            "endIp": "10.131.255.254", "netmask": "255.252.0.0", "gateway": "10.128.0.1"});
        loom.made("AddIpRange", range, &[])?;
        let services = json!({"SecurityGroup": ["SecurityGroup"]});
        let services = json!({"l3NetworkUuid": l3, "networkServices": services});
        loom.made("AttachNetworkServiceToL3Network", services, &[])?;
        Ok(Self { loom, l3 })
    }

    /// Two VMs of one host in no group.
    pub(crate) fn open(&self) -> Result<Pair, Failure> {
        let (client, server) = (self.vm("open-1", HOST)?, self.vm("open-2", HOST)?);
        Pair::new("netloom-0", (client.namespace, server.namespace), server.ip)
    }

    /// Two VMs of one host, the second of which has these rules.
    pub(crate) fn pair(&self, size: Size) -> Result<Pair, Failure> {
        let name = |part: &str| format!("{part}-{}", size.rules);
        let members = self.group(&name("members"))?;
        let rules = self.group(&name("rules"))?;
        self.rules(&rules, rules_of(size, &members))?;
        let (client, server) = (self.vm(&name("client"), HOST)?, self.vm(&name("server"), HOST)?);
        self.join(&rules, &[server.nic])?;
        self.join(&members, &[client.nic])?;
        let others = self.nics(size.members - 1)?;
        for some in others.chunks(AT_ONCE) {
            self.join(&members, some)?;
        }
        Pair::new(
            &format!("netloom-{}", size.rules),
            (client.namespace, server.namespace),
            server.ip,
        )
    }

    /// A VM on a host.
    pub(crate) fn vm(&self, name: &str, host: &str) -> Result<Vm, Failure> {
        let host = self.loom.uuid("/hosts", host)?;
        let wanted = json!({"name": name, "l3NetworkUuids": [self.l3], "hostUuid": host});
        let made = self.loom.made("CreateVmInstance", wanted, &[])?;
        let nic = &made["vmNics"][0];
        let (nic, ip) = (text(nic, "uuid")?, text(nic, "ip")?.parse()?);
        Ok(Vm { nic, ip, namespace: self.loom.vm(name)? })
    }

    /// A group of which members may not even open connections to each other.
    pub(crate) fn group(&self, name: &str) -> Result<String, Failure> {
        let group = self.loom.made("CreateSecurityGroup", json!({"name": name}), &[])?;
        let rules = group["rules"].as_array().ok_or("a group without rules of its own")?;
        let uuids: Vec<&Value> = rules.iter().map(|rule| &rule["uuid"]).collect();
        let uuid = text(&group, "uuid")?;
        let off = json!({"securityGroupUuid": uuid, "ruleUuids": uuids, "state": "Disabled"});
        self.loom.made("ChangeSecurityGroupRuleState", off, &[])?;
        Ok(uuid)
    }

    /// Adds rules to a group; the group then.
    pub(crate) fn rules(&self, group: &str, rules: Vec<Value>) -> Result<Value, Failure> {
        let wanted = json!({"securityGroupUuid": group, "rules": rules});
        self.loom.made("AddSecurityGroupRule", wanted, &[])
    }

    /// Puts NICs into a group.
    pub(crate) fn join(&self, group: &str, nics: &[String]) -> Result<(), Failure> {
        let wanted = json!({"securityGroupUuid": group, "vmNicUuids": nics});
        self.loom.made("AddVmNicToSecurityGroup", wanted, &[])?;
        Ok(())
    }

    /// So many VMs on a host, made by several clients at once: NICs and addresses.
    pub(crate) fn vms(
        &self,
        host: &str,
        names: &str,
        count: u32,
    ) -> Result<Vec<(String, Ipv4Addr)>, Failure> {
        let host = self.loom.uuid("/hosts", host)?;
        self.many(count, |client, at| {
            let name = format!("{names}-{at}");
            let wanted = json!({"name": name, "l3NetworkUuids": [self.l3], "hostUuid": host});
            let made = client.call("CreateVmInstance", params(wanted), &[])?;
            let nic = &made["inventory"]["vmNics"][0];
            Ok((text(nic, "uuid")?, text(nic, "ip")?.parse()?))
        })
    }

    /// NICs that are plugged in nowhere, made by several clients at once.
    fn nics(&self, count: u32) -> Result<Vec<String>, Failure> {
        self.many(count, |client, _| {
            let nic = params(json!({"l3NetworkUuid": self.l3}));
            text(&client.call("CreateVmNic", nic, &[])?["inventory"], "uuid")
        })
    }

    /// Makes so many of something, with several clients at once.
    fn many<T: Send>(
        &self,
        count: u32,
        make: impl Fn(&Client, u32) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, Failure> {
        let left = AtomicU32::new(count);
        let work = |client: &Client| -> Result<Vec<T>, String> {
            let mut made = Vec::new();
            let less = |left: u32| left.checked_sub(1);
            while let Ok(at) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
                made.push(make(client, at).map_err(|error| error.to_string())?);
            }
            Ok(made)
        };
        let clients: Result<Vec<_>, _> = (0..CLIENTS).map(|_| self.loom.another_client()).collect();
        let clients = clients?;
        let made: Result<Vec<_>, String> = thread::scope(|scope| {
            let threads: Vec<_> =
                clients.iter().map(|client| scope.spawn(|| work(client))).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            ended.map(|made| made.unwrap_or_else(|_| Err("a client panicked".to_owned()))).collect()
        });
        Ok(made?.into_iter().flatten().collect())
    }
}

/// As [`crate::rivals`] has them.
fn rules_of(size: Size, members: &str) -> Vec<Value> {
    let rule = |(ip, port): (Ipv4Addr, u32)| {
        json!({"type": "Ingress", "protocol": "TCP", "srcIpRange": ip.to_string(),
            "dstPortRange": port.to_string()})
    };
    let mut rules: Vec<Value> = (LAST..size.rules).map(other).map(rule).collect();
    for (protocol, ports) in [("TCP", format!("{SINK}-{COUNT}")), ("UDP", COUNT.to_string())] {
        rules.push(json!({"type": "Ingress", "protocol": protocol, "dstPortRange": ports,
            "remoteSecurityGroupUuid": members}));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_rules_as_are_wanted() {
        assert_eq!(rules_of(Size { rules: 10, members: 3 }, "group").len(), 10);
    }
}
