//! Calls messages on an in-memory store, as a door would.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::{
    Code, Error, Id, Kind, Meta, Plain, Record, Resource, Timestamp,
    record::OWNER,
    resource::{
        account::{ADMIN, Account, AccountType},
        host::Host,
        release::Release,
        used_ip::UsedIp,
        vm_nic::VmNic,
    },
    status::{Board, HostStatus, Pending},
};
use netloom_control::{
    self as control, Caller, Gate, Operations, Reply, Request,
    command::Surroundings,
    operation::Done,
    webhook::{self, NotSent, Post},
};
use serde_json::{Value, json};
use store::{Memory, Read, Snapshot, Store};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A store with the operations over it.
pub(crate) struct Cloud {
    /// The store.
    pub(crate) store: Store<Record>,
    /// What the store keeps it in.
    pub(crate) engine: Memory,
    /// What hosts report.
    pub(crate) board: Board,
    /// What can be called.
    pub(crate) operations: Arc<Operations>,
    /// How often handlers have decided: more than once for a call, if its state was too old.
    pub(crate) decisions: Arc<AtomicUsize>,
}

impl Cloud {
    /// An empty one.
    pub(crate) fn empty() -> Self {
        Self::on(Memory::new())
    }

    /// An empty one that several servers may share.
    pub(crate) fn shared() -> Self {
        Self::on(Memory::new().following_every(Duration::from_millis(5)))
    }

    /// A server on this engine.
    fn on(engine: Memory) -> Self {
        let store = Store::open(Box::new(engine.clone())).unwrap();
        control::account::create_admin(&store, "hash", Timestamp(0)).unwrap();
        control::platform::declare(&store, Timestamp(0)).unwrap();
        Self { engine, ..Self::over(store) }
    }

    /// A server on this store, whatever keeps it.
    pub(crate) fn over(store: Store<Record>) -> Self {
        let (engine, board) = (Memory::new(), Board::default());
        Self { store, engine, board, operations: Arc::default(), decisions: Arc::default() }
    }

    /// Another server on the same engine, which knows what is in it now.
    pub(crate) fn second_server(&self) -> Self {
        Self { board: self.board.clone(), ..Self::on(self.engine.clone()) }
    }

    /// A zone with one cluster of two hosts, a pool of the VNIs 100 to 103 attached to it.
    pub(crate) fn with_two_hosts() -> (Self, Fixture) {
        let mut cloud = Self::empty();
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
        hosts.iter().for_each(|host| cloud.acked(host, 0));
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
        result.map(|done| done.reply)
    }

    /// Calls a message with all that a call may have, whatever others do meanwhile.
    pub(crate) fn run(
        &self,
        name: &str,
        params: Value,
        tags: &[String],
        resource_uuid: Option<Uuid>,
    ) -> Result<Done, Error> {
        let request =
            Request { resource_uuid, system_tags: tags.to_vec(), ..request(name, params) };
        self.send(ADMINISTRATOR, vec![request])
    }

    /// What a message that only looks answers to a caller.
    pub(crate) fn look(&self, caller: Caller, name: &str, params: Value) -> Result<Value, Error> {
        let command = self.operations.command(caller, vec![request(name, params)])?;
        let (snapshot, board) = (self.snapshot(), self.board.clone());
        let observed = control::inventory::Observed::new(&snapshot, &board);
        control::operation::look_at(&command, &observed, Timestamp(1_000))
    }

    /// What a caller wants done, in one transaction.
    pub(crate) fn send(&self, caller: Caller, requests: Vec<Request>) -> Result<Done, Error> {
        let command = self.operations.command(caller, requests)?;
        let board = self.board.clone();
        let surroundings = Surroundings { now: Timestamp(1_000), seed: Uuid::new_v4(), board };
        let decisions = Arc::clone(&self.decisions);
        let done = self.store.transact(move |tx| {
            decisions.fetch_add(1, Ordering::Relaxed);
            control::operation::run(&command, tx, &surroundings)
        });
        assert_eq!(self.dangling(), Vec::<String>::new());
        done.map(|committed| committed.value)
    }

    /// References that lead nowhere.
    pub(crate) fn dangling(&self) -> Vec<String> {
        let snapshot = self.store.snapshot();
        let exists = |uuid| Kind::ALL.iter().any(|kind| snapshot.get(*kind, uuid).is_some());
        let rows = Kind::ALL.iter().flat_map(|kind| snapshot.list(*kind));
        let mut found = Vec::new();
        for record in rows {
            for (field, value) in record.index() {
                match value {
                    Plain::Uuid(uuid) if field != OWNER && !exists(uuid) => {
                        found.push(format!("{field} of {record:?}"));
                    }
                    _ => {}
                }
            }
        }
        found
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

    /// Everything that is in the store.
    pub(crate) fn contents(&self) -> Vec<Record> {
        let snapshot = self.store.snapshot();
        let records = |kind: &Kind| snapshot.list(*kind).map(|r| (*r).clone()).collect::<Vec<_>>();
        Kind::ALL.iter().flat_map(records).collect()
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
        ids.into_iter().map(|id| self.get(Id::new(id)).unwrap()).collect()
    }

    /// The addresses of a NIC, IPv4 first.
    pub(crate) fn addresses(&self, nic: Id<VmNic>) -> Vec<UsedIp> {
        let snapshot = self.snapshot();
        let ids: Vec<Uuid> =
            snapshot.referrers(Kind::UsedIp, UsedIp::USED_BY, nic.uuid()).collect();
        let mut used: Vec<UsedIp> =
            ids.into_iter().map(|id| self.get(Id::new(id)).unwrap()).collect();
        used.sort_by_key(|used| used.ip);
        used
    }

    /// A resource, if there is one.
    pub(crate) fn get<R: Resource>(&self, id: Id<R>) -> Option<R> {
        self.snapshot().get(R::KIND, id.uuid()).as_deref().and_then(R::of).cloned()
    }

    /// Makes a resource somebody else's.
    pub(crate) fn give(&self, kind: Kind, uuid: &str, owner: Id<Account>) {
        let uuid = model::id::parse_uuid(uuid).unwrap();
        let give = move |tx: &mut store::Tx<Record>| {
            let mut record = (*tx.get(kind, uuid).unwrap()).clone();
            record.meta.owner = Some(owner);
            tx.put(record).unwrap();
            Ok(())
        };
        self.store.transact(give).unwrap();
    }

    /// Every host has let go of what was deleted.
    pub(crate) fn give_up_releases(&self) {
        let give_up = |tx: &mut store::Tx<Record>| {
            let open: Vec<Uuid> = tx.list(Kind::Release).map(|release| release.uuid()).collect();
            open.into_iter().for_each(|release| control::releaser::forget(tx, release));
            Ok(())
        };
        self.store.transact(give_up).unwrap();
    }

    /// Reports that a host is disconnected.
    pub(crate) fn lost(&mut self, host: &str) {
        let host: Id<Host> = host.parse().unwrap();
        self.board.put(host, HostStatus { heard: 1, ..HostStatus::default() });
    }

    /// Reports that a host is connected and has applied everything up to `revision`.
    pub(crate) fn acked(&mut self, host: &str, revision: u64) {
        confirm(&mut self.board, host.parse().unwrap());
        self.board.revision = revision;
    }

    /// Tells a host of what it has to take out for the releases that are open now.
    pub(crate) fn tell(&mut self, host: &str) {
        let snapshot = self.snapshot();
        let (host, revision): (Id<Host>, u64) = (host.parse().unwrap(), snapshot.revision());
        let mut status = self.board.status(host).clone();
        for record in snapshot.list(Kind::Release) {
            for object in &Release::of(&record).unwrap().objects {
                status.pending.insert(*object, Pending { since: revision, last: revision });
            }
        }
        self.board.put(host, status);
        self.board.revision = revision;
    }
}

/// Reports that a host is connected, and that all is as it was told.
pub(crate) fn confirm(board: &mut Board, host: Id<Host>) {
    let heard = board.status(host).heard + 1;
    let status = HostStatus { connected: true, confirmed: true, heard, ..HostStatus::default() };
    board.put(host, status);
}

/// What `with_two_hosts` made.
#[derive(Clone)]
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

/// Who may do everything.
pub(crate) const ADMINISTRATOR: Caller = Caller::Account {
    id: Id::<Account>::new(ADMIN),
    is_admin: true,
    session: None,
    source: IpAddr::V4(Ipv4Addr::LOCALHOST),
};

/// An account that is no administrator.
pub(crate) fn tenant(cloud: &Cloud, number: u128) -> Caller {
    let id = Id::<Account>::new(Uuid::from_u128(number));
    let account = Account {
        uuid: id,
        name: format!("tenant {number}"),
        account_type: AccountType::Normal,
        password_hash: String::new(),
        description: None,
    };
    let meta = Meta { owner: None, created: Timestamp(0), changed: Timestamp(0) };
    let put = move |tx: &mut store::Tx<Record>| {
        tx.put(Record::new(account.clone(), meta)).unwrap();
        Ok(())
    };
    cloud.store.transact(put).unwrap();
    Caller::Account { id, is_admin: false, session: None, source: ADMINISTRATOR.source() }
}

/// A message without tags.
pub(crate) fn request(message: &str, params: Value) -> Request {
    let Value::Object(params) = params else { panic!("params are an object") };
    Request { message: message.to_owned(), params, ..Request::default() }
}

/// Far more than anything in these tests takes.
pub(crate) async fn limit<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("in time")
}

/// Takes what is sent to webhooks.
pub(crate) trait Receiver: Send + Sync + 'static {
    /// Takes one, or not.
    fn take(&self, post: &Post) -> Result<(), NotSent>;
}

/// Sends what is due to webhooks while `work` goes on.
pub(crate) async fn while_sending<T>(
    gate: &Arc<Gate>,
    receiver: &Arc<impl Receiver>,
    work: impl Future<Output = T>,
) -> T {
    let (stop, taking) = (CancellationToken::new(), Arc::clone(receiver));
    let sends = Arc::new(move |post: &Post| taking.take(post));
    let work = async {
        let done = work.await;
        stop.cancel();
        done
    };
    limit(async { tokio::join!(webhook::run(Arc::clone(gate), stop.clone(), sends), work) }).await.1
}
