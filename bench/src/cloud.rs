//! A cloud of any size in this process, made by the API's own messages: no REST, no agents, hosts
//! that are reported to be connected and to have confirmed everything.

use std::net::{IpAddr, Ipv4Addr};

use control::{Caller, Operations, Request, command::Surroundings, operation};
use model::{
    Id, Kind, Record, Timestamp,
    resource::{account::ADMIN, host::Host},
    status::{Board, HostStatus},
};
use serde_json::{Value, json};
use store::{Engine, Read, Store, Tx};
use uuid::Uuid;

use crate::{Failure, loom::params};

/// Ports of each host.
const PORTS_PER_HOST: u32 = 50;
/// Messages of one transaction while a cloud is made.
const BATCH: usize = 500;
/// Networks beside the others, with one NIC each, whose addresses are all the same.
const ALIKE: u32 = 100;
/// That address.
pub(crate) const ALIKE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 10);
/// Hosts have the addresses after this one.
const HOSTS_BASE: u32 = u32::from_be_bytes([172, 16, 0, 0]);
/// Networks of the usual size have the subnets of 256 addresses from here on.
const NETWORKS_BASE: u32 = u32::from_be_bytes([10, 0, 0, 0]);
/// Ports that fit a subnet of 256 addresses, with room for what is measured.
const SMALL_NETWORK: u32 = 100;

/// How large a cloud is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Hosts, with 50 ports each.
    pub(crate) hosts: u32,
    /// Ports of each network, on as many hosts as possible.
    pub(crate) ports_per_network: u32,
}

impl Shape {
    /// Ports of all hosts.
    pub(crate) const fn ports(self) -> u32 {
        self.hosts * PORTS_PER_HOST
    }

    /// Networks with ports.
    pub(crate) const fn networks(self) -> u32 {
        self.ports() / self.ports_per_network
    }

    /// The host of a network's n-th port. Those from 50 on, in networks of 50, are on hosts that
    /// the network was not on before, if there are as many.
    const fn host(self, network: u32, port: u32) -> u32 {
        let (turn, at) = (port / self.ports_per_network, port % self.ports_per_network);
        let stride = self.hosts / self.ports_per_network;
        let stride = if stride == 0 { 1 } else { stride };
        (network + at * stride + turn) % self.hosts
    }

    /// The subnet of a network: its first address and its prefix length.
    const fn subnet(self, network: u32) -> (u32, u8) {
        match self.ports_per_network <= SMALL_NETWORK {
            true => (NETWORKS_BASE + network * 256, 24),
            false => (NETWORKS_BASE + (network << 20), 12),
        }
    }
}

/// A cloud.
pub(crate) struct Cloud {
    /// Where it is kept.
    pub(crate) store: Store<Record>,
    /// What its hosts report.
    pub(crate) board: Board,
    /// How large it is.
    pub(crate) shape: Shape,
    /// The pool of its networks.
    pub(crate) pool: Uuid,
    /// Its L3 networks with ports.
    pub(crate) l3s: Vec<Uuid>,
    /// Its hosts.
    pub(crate) hosts: Vec<Uuid>,
    operations: Operations,
}

impl Cloud {
    /// One without hosts or networks yet.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn new(engine: Box<dyn Engine>, shape: Shape) -> Result<Self, Failure> {
        let store = Store::open(engine)?;
        control::account::create_admin(&store, "none", Timestamp(0))?;
        let new = |n: u32| (0..n).map(|_| Uuid::new_v4()).collect();
        Ok(Self {
            store,
            board: Board::default(),
            pool: Uuid::new_v4(),
            l3s: new(shape.networks()),
            hosts: new(shape.hosts),
            shape,
            operations: Operations::default(),
        })
    }

    /// Makes everything that its shape says.
    ///
    /// # Errors
    /// A message was refused.
    pub(crate) fn fill(&mut self) -> Result<(), Failure> {
        self.make_hosts()?;
        let mut networks = Vec::new();
        for (n, l3) in (0..).zip(&self.l3s) {
            let (base, prefix) = self.shape.subnet(n);
            networks.extend(self.network(*l3, (base, prefix)));
        }
        self.run_all(networks)?;
        self.make_alike()?;
        let ports = self.shape.ports_per_network;
        let all = (0..self.shape.networks()).flat_map(|n| (0..ports).map(move |port| (n, port)));
        let instances = all.map(|(n, port)| self.instance(Uuid::new_v4(), n, port)).collect();
        self.run_all(instances)
    }

    /// The message that makes an instance with a port in a network, by the number of either.
    pub(crate) fn instance(&self, uuid: Uuid, network: u32, port: u32) -> Request {
        let host = self.hosts[at(self.shape.host(network, port))].simple().to_string();
        let l3 = self.l3s[at(network)].simple().to_string();
        let name = format!("vm-{network}-{port}");
        let fields = json!({"name": name, "l3NetworkUuids": [l3], "hostUuid": host});
        made("CreateVmInstance", uuid, fields)
    }

    /// Runs messages in one transaction, and waits until they are committed.
    ///
    /// # Errors
    /// A message was refused.
    pub(crate) fn run(&self, requests: Vec<Request>) -> Result<(), Failure> {
        let command = self.operations.command(ADMINISTRATOR, requests)?;
        let surroundings =
            Surroundings { now: Timestamp(0), seed: Uuid::new_v4(), board: self.board.clone() };
        let run = move |tx: &mut Tx<Record>| operation::run(&command, tx, &surroundings);
        self.store.transact(run)?;
        Ok(())
    }

    /// Gives up what destroyed NICs still hold, as if every host had confirmed.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) fn release(&self) -> Result<(), Failure> {
        self.store.transact(|tx| {
            let open: Vec<Uuid> = tx.list(Kind::Release).map(|release| release.uuid()).collect();
            open.into_iter().for_each(|release| tx.delete(Kind::Release, release));
            Ok(())
        })?;
        Ok(())
    }

    /// Runs messages in transactions of a bearable size.
    ///
    /// # Errors
    /// A message was refused.
    pub(crate) fn run_all(&self, mut requests: Vec<Request>) -> Result<(), Failure> {
        while !requests.is_empty() {
            let rest = requests.split_off(requests.len().min(BATCH));
            self.run(std::mem::replace(&mut requests, rest))?;
        }
        Ok(())
    }

    /// A zone with one cluster of hosts and a pool that is attached to it.
    fn make_hosts(&mut self) -> Result<(), Failure> {
        let (zone, cluster) = (Uuid::new_v4(), Uuid::new_v4());
        let [zone_text, cluster_text] = [zone, cluster].map(|id| id.simple().to_string());
        let pool = self.pool.simple().to_string();
        let fields = json!({"name": "c", "zoneUuid": zone_text, "hypervisorType": "KVM"});
        let mut frame = vec![
            made("CreateZone", zone, json!({"name": "z"})),
            made("CreateCluster", cluster, fields),
        ];
        for (n, host) in (1..).zip(&self.hosts) {
            let ip = Ipv4Addr::from_bits(HOSTS_BASE + n);
            let fields = json!({"name": format!("h{n}"), "managementIp": ip,
                "clusterUuid": cluster_text});
            frame.push(made("AddKVMHost", *host, fields));
        }
        let fields = json!({"name": "p", "zoneUuid": zone_text});
        frame.push(made("CreateL2VxlanNetworkPool", self.pool, fields));
        let fields =
            json!({"name": "v", "startVni": 1, "endVni": 1_000_000, "l2NetworkUuid": pool});
        frame.push(made("CreateVniRange", Uuid::new_v4(), fields));
        self.run_all(frame)?;
        let tag =
            format!("l2NetworkUuid::{pool}::clusterUuid::{cluster_text}::cidr::{{172.16.0.0/12}}");
        let fields = json!({"l2NetworkUuid": pool, "clusterUuid": cluster_text});
        let attach = request("AttachL2NetworkToCluster", fields);
        self.run(vec![Request { system_tags: vec![tag], ..attach }])?;
        for host in &self.hosts {
            let status = HostStatus {
                connected: true,
                confirmed: true,
                agrees: true,
                heard: 1,
                ..HostStatus::default()
            };
            self.board.put(Id::<Host>::new(*host), status);
        }
        self.board.revision = u64::MAX;
        Ok(())
    }

    /// The messages that make an L3 network in an L2 network of its own.
    fn network(&self, l3: Uuid, (base, prefix): (u32, u8)) -> [Request; 3] {
        let l2 = Uuid::new_v4();
        let name = l3.simple().to_string();
        let pool = self.pool.simple().to_string();
        let ip = |host| Ipv4Addr::from_bits(base + host);
        let netmask = Ipv4Addr::from_bits(u32::MAX << (32 - u32::from(prefix)));
        let end = Ipv4Addr::from_bits((base | !netmask.to_bits()) - 1);
        let fields = json!({"name": name, "l2NetworkUuid": l2.simple().to_string()});
        let range = json!({"name": "r", "l3NetworkUuid": name, "startIp": ip(10), "endIp": end,
            "netmask": netmask, "gateway": ip(1)});
        [
            made("CreateL2VxlanNetwork", l2, json!({"name": name, "poolUuid": pool})),
            made("CreateL3Network", l3, fields),
            made("AddIpRange", Uuid::new_v4(), range),
        ]
    }

    /// Networks with the same subnet, each with one NIC that is plugged in nowhere.
    fn make_alike(&self) -> Result<(), Failure> {
        let base = u32::from_be_bytes([192, 168, 0, 0]);
        let mut all = Vec::new();
        for _ in 0..ALIKE {
            let l3 = Uuid::new_v4();
            all.extend(self.network(l3, (base, 24)));
            let fields = json!({"l3NetworkUuid": l3.simple().to_string(), "ip": ALIKE_IP});
            all.push(request("CreateVmNic", fields));
        }
        self.run_all(all)
    }
}

/// Who may do everything.
pub(crate) const ADMINISTRATOR: Caller = Caller::Account {
    id: Id::new(ADMIN),
    is_admin: true,
    session: None,
    source: IpAddr::V4(Ipv4Addr::LOCALHOST),
};

/// A message.
pub(crate) fn request(message: &str, fields: Value) -> Request {
    Request { message: message.to_owned(), params: params(fields), ..Request::default() }
}

/// A message that makes something with this uuid.
pub(crate) fn made(message: &str, uuid: Uuid, fields: Value) -> Request {
    Request { resource_uuid: Some(uuid), ..request(message, fields) }
}

/// A number as an index.
fn at(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_host_has_its_ports_and_one_more_port_is_on_a_new_host() {
        for (hosts, ports_per_network) in [(20, 50), (100, 50), (500, 50), (10, 500)] {
            let shape = Shape { hosts, ports_per_network };
            let mut on: BTreeMap<u32, u32> = BTreeMap::new();
            for network in 0..shape.networks() {
                for port in 0..ports_per_network {
                    *on.entry(shape.host(network, port)).or_default() += 1;
                }
            }
            assert!(on.values().all(|ports| *ports == PORTS_PER_HOST), "{shape:?}: {on:?}");
        }
        let shape = Shape { hosts: 500, ports_per_network: 50 };
        let new = shape.host(7, 50);
        assert!((0..50).all(|port| shape.host(7, port) != new));
    }

    #[test]
    fn a_cloud_is_as_large_as_its_shape() {
        let shape = Shape { hosts: 4, ports_per_network: 50 };
        let mut cloud = Cloud::new(Box::new(store::Memory::new()), shape).unwrap();
        cloud.fill().unwrap();
        let snapshot = cloud.store.snapshot();
        assert_eq!(snapshot.total(Kind::VmInstance), 200);
        assert_eq!(snapshot.total(Kind::VmNic), 200 + u64::from(ALIKE));
        cloud.run(vec![cloud.instance(Uuid::new_v4(), 3, 50)]).unwrap();
        cloud.release().unwrap();
    }
}
