//! Calls messages on an in-memory store, as a door would.

use std::collections::BTreeMap;

use model::{
    Code, Error, Id, Kind, Record, Timestamp,
    resource::{host::Host, vm_nic::VmNic},
    status::{Board, HostStatus},
};
use netloom_control::{self as control, Call, Reply, operation::Operation};
use serde_json::{Value, json};
use store::{Memory, Read, Snapshot, Store};
use uuid::Uuid;

/// A store with the operations over it.
pub(crate) struct Cloud {
    /// The store.
    pub(crate) store: Store<Record>,
    /// What the store keeps it in.
    pub(crate) engine: Memory,
    /// What hosts report.
    pub(crate) board: Board,
    operations: BTreeMap<&'static str, std::sync::Arc<Operation>>,
}

impl Cloud {
    /// An empty one.
    pub(crate) fn empty() -> Self {
        Self::on(Memory::new())
    }

    /// A server on this engine.
    fn on(engine: Memory) -> Self {
        let operations = control::operation::all().into_iter().map(|o| (o.def.name, o.into()));
        let store = Store::open(Box::new(engine.clone())).unwrap();
        Self { store, engine, board: Board::default(), operations: operations.collect() }
    }

    /// Another server on the same engine, which knows what is in it now.
    pub(crate) fn second_server(&self) -> Self {
        Self::on(self.engine.clone())
    }

    /// A zone with one cluster of two hosts, a pool of the VNIs 100 to 103 attached to it.
    pub(crate) fn with_two_hosts() -> (Self, Fixture) {
        let cloud = Self::empty();
        let zone = cloud.made("CreateZone", json!({"name": "z"}));
        let cluster = cloud
            .made("CreateCluster", json!({"name": "c", "zoneUuid": zone, "hypervisorType": "KVM"}));
        let host = |name: &str, ip: &str| {
            cloud.made(
                "AddKVMHost",
                json!({"name": name, "managementIp": ip, "clusterUuid": cluster}),
            )
        };
        let hosts = [host("h1", "172.30.0.1"), host("h2", "172.30.0.2")];
        let pool = cloud.made("CreateL2VxlanNetworkPool", json!({"name": "p", "zoneUuid": zone}));
        let range = json!({"name": "r", "startVni": 100, "endVni": 103, "l2NetworkUuid": pool});
        cloud.made("CreateVniRange", range);
        let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.30.0.0/24}}");
        let attach = json!({"l2NetworkUuid": pool, "clusterUuid": cluster});
        cloud.call_tagged("AttachL2NetworkToCluster", attach, &[tag]).unwrap();
        (cloud, Fixture { zone, cluster, hosts, pool })
    }

    /// An L3 network of its own L2 network, with the addresses `.10` to `.13` of 10.0.0.0/24.
    pub(crate) fn l3(&self, fixture: &Fixture, name: &str) -> String {
        let l2 = json!({"name": format!("{name}-l2"), "poolUuid": fixture.pool});
        let l2 = self.made("CreateL2VxlanNetwork", l2);
        let l3 = self.made("CreateL3Network", json!({"name": name, "l2NetworkUuid": l2}));
        self.made("AddIpRange", range(&l3, "10.0.0.10", "10.0.0.13"));
        l3
    }

    /// Calls a message.
    pub(crate) fn call(&self, name: &str, params: Value) -> Result<Reply, Error> {
        self.call_tagged(name, params, &[])
    }

    /// Calls a message with system tags.
    pub(crate) fn call_tagged(
        &self,
        name: &str,
        params: Value,
        tags: &[String],
    ) -> Result<Reply, Error> {
        let before = self.contents();
        let result = self.run(name, params, tags, None);
        if result.is_err() {
            assert_eq!(before, self.contents(), "a refused call changed something");
        }
        result
    }

    /// Calls a message with all that a call may have, whatever others do meanwhile.
    pub(crate) fn run(
        &self,
        name: &str,
        params: Value,
        tags: &[String],
        resource_uuid: Option<Uuid>,
    ) -> Result<Reply, Error> {
        let Value::Object(params) = params else { panic!("params are an object") };
        let operation = self.operations[name].clone();
        control::validate::check(operation.def, &params)?;
        let call = Call {
            params,
            system_tags: tags.to_vec(),
            resource_uuid,
            now: Timestamp(1_000),
            seed: Uuid::new_v4(),
            board: self.board.clone().into(),
        };
        self.store.transact(move |tx| operation.run(tx, &call)).map(|committed| committed.value)
    }

    /// The uuid of what a message made.
    pub(crate) fn made(&self, name: &str, params: Value) -> String {
        let reply = self.call(name, params).unwrap_or_else(|error| panic!("{name}: {error}"));
        reply.subject.unwrap().1.simple().to_string()
    }

    /// The code, field and whole text of a refusal.
    pub(crate) fn refusal(&self, name: &str, params: Value) -> (Code, Option<String>, String) {
        let error = self.call(name, params).expect_err("should be refused");
        (error.code, error.field.clone(), error.to_string())
    }

    /// Everything that is in the store, claims too.
    pub(crate) fn contents(&self) -> (Vec<Record>, Vec<(String, Uuid)>) {
        let snapshot = self.store.snapshot();
        let records = |kind: &Kind| snapshot.list(*kind).map(|r| (*r).clone()).collect::<Vec<_>>();
        let records = Kind::ALL.iter().flat_map(records).collect();
        (records, snapshot.claims_with_prefix("").collect())
    }

    /// The state now.
    pub(crate) fn snapshot(&self) -> Snapshot<Record> {
        self.store.snapshot()
    }

    /// The fields that name the only resource of `kind` whose `field` points at `parent`.
    pub(crate) fn children(&self, kind: Kind, field: &str, parent: &str) -> Value {
        let parent = model::id::parse_uuid(parent).unwrap();
        let found: Vec<Uuid> = self.snapshot().referrers(kind, field, parent).collect();
        json!({"uuid": found[0].simple().to_string()})
    }

    /// The NICs of an instance.
    pub(crate) fn nics(&self, instance: &str) -> Vec<VmNic> {
        let instance = model::id::parse_uuid(instance).unwrap();
        let snapshot = self.snapshot();
        let ids: Vec<Uuid> = snapshot.referrers(Kind::VmNic, "vmInstanceUuid", instance).collect();
        let nic = |id| match &*snapshot.get(Kind::VmNic, id).unwrap() {
            Record::VmNic(nic) => nic.clone(),
            other => panic!("{other:?}"),
        };
        ids.into_iter().map(nic).collect()
    }

    /// Reports that a host is connected and has applied everything up to `revision`.
    pub(crate) fn acked(&mut self, host: &str, revision: u64) {
        let host: Id<Host> = host.parse().unwrap();
        let status = HostStatus { connected: true, acked_revision: revision, ..Default::default() };
        self.board.hosts.insert(host, status);
    }
}

/// What `with_two_hosts` made.
pub(crate) struct Fixture {
    /// The zone.
    pub(crate) zone: String,
    /// The cluster.
    pub(crate) cluster: String,
    /// Its hosts.
    pub(crate) hosts: [String; 2],
    /// The pool.
    pub(crate) pool: String,
}

/// The fields of an `AddIpRange` in 10.0.0.0/24.
pub(crate) fn range(l3: &str, start: &str, end: &str) -> Value {
    json!({
        "l3NetworkUuid": l3, "name": format!("{start}-{end}"), "startIp": start, "endIp": end,
        "netmask": "255.255.255.0", "gateway": "10.0.0.1",
    })
}
