//! A database with everything in it that this release can write: [`crate::databases`] keeps one of
//! each release. Messages make most of it, so that rows agree with each other; a kind of which they
//! make none gets a row with a value in every field.
//!
//! Time and randomness are fixed, so that two runs write the same rows.

use std::{path::Path, time::Duration};

use model::{
    Error, FieldDef, FieldType, Id, Kind, Meta, Record, Resource, Result, Timestamp,
    resource::{
        account::{ADMIN, Account, AccountType},
        host::HostCredential,
        installation::{INSTALLATION, Installation, Start},
        job::Job,
        l2_network::{L2Network, Segment},
    },
    status::Board,
};
use netloom_control::{self as control, Operations, Request, command::Surroundings};
use serde_json::{Map, Value, json, value::RawValue};
use store::{Read, Snapshot, Sqlite, Store, Tx};
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, confirm, range, request};

/// When all this happens: in November 2023.
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// Longer than an idle store takes to move its log into its tables. A database has both: what was
/// written before is in the tables, what comes after only in the log.
const MOVED: Duration = Duration::from_secs(2);

/// A store that is being filled.
struct Filling {
    store: Store<Record>,
    operations: Operations,
    board: Board,
    calls: u128,
}

/// What later steps refer to.
struct Made {
    zone: String,
    host: String,
    l3: String,
    vm: String,
    nic: String,
}

/// Writes the database.
pub(crate) async fn write(path: &Path) {
    let store = Store::open(Box::new(Sqlite::open(path).unwrap())).unwrap();
    let (mut filling, made) = fill(store);
    tokio::time::sleep(MOVED).await;
    filling.changes(&made);
}

/// A store in memory with something of every kind.
pub(crate) fn of_every_kind() -> Store<Record> {
    fill(Store::in_memory().unwrap()).0.store
}

fn fill(store: Store<Record>) -> (Filling, Made) {
    control::account::create_admin(&store, "$argon2id$none", NOW).unwrap();
    control::platform::declare(&store, NOW).unwrap();
    let (operations, board) = (Operations::default(), Board::default());
    let mut filling = Filling { store, operations, board, calls: 0 };
    let made = filling.networks();
    filling.what_no_message_makes(&made);
    filling.what_accounts_have(&made);
    filling.every_other_kind();
    (filling, made)
}

impl Filling {
    /// A message, as an administrator sends it; gives the uuid of what it shows.
    fn call(&mut self, name: &str, params: Value, tags: &[&str]) -> String {
        self.calls += 1;
        let system_tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let request = Request { system_tags, ..request(name, params) };
        let command = self.operations.command(ADMINISTRATOR, vec![request]).unwrap();
        let (seed, board) = (Uuid::from_u128(self.calls), self.board.clone());
        let surroundings = Surroundings { now: NOW, seed, board };
        let run = move |tx: &mut Tx<Record>| control::operation::run(&command, tx, &surroundings);
        let done = self.store.transact(run).unwrap_or_else(|error| panic!("{name}: {error}"));
        done.value.reply.subject.map(|(_, uuid)| uuid.simple().to_string()).unwrap_or_default()
    }

    /// A row that no message makes.
    fn put<R: Resource>(&self, resource: R, owner: Option<Id<Account>>) {
        self.put_record(Record::new(resource, Meta { owner, created: NOW, changed: NOW }));
    }

    fn put_record(&self, record: Record) {
        let put = move |tx: &mut Tx<Record>| -> Result<()> {
            tx.put(record.clone()).map_err(|taken| Error::field("claim", taken.to_string()))
        };
        self.store.transact(put).unwrap();
    }

    /// Both address families, optional fields given and left out.
    fn networks(&mut self) -> Made {
        let zone = json!({"name": "zone", "description": "with a text", "isDefault": true});
        let zone = self.call("CreateZone", zone, &[]);
        let cluster = json!({"name": "cluster", "zoneUuid": zone, "hypervisorType": "KVM"});
        let cluster = self.call("CreateCluster", cluster, &[]);
        let pool = json!({"name": "pool", "zoneUuid": zone, "physicalInterface": "eth0"});
        let pool = self.call("CreateL2VxlanNetworkPool", pool, &[]);
        let vnis = json!({"name": "vnis", "startVni": 100, "endVni": 199, "l2NetworkUuid": pool});
        self.call("CreateVniRange", vnis, &[]);
        let attach = json!({"l2NetworkUuid": pool, "clusterUuid": cluster});
        let cidr = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{192.0.2.0/24}}");
        self.call("AttachL2NetworkToCluster", attach, &[&cidr]);
        let host = json!({"name": "host", "managementIp": "192.0.2.11", "clusterUuid": cluster});
        let host = self.call("AddKVMHost", host, &[]);
        confirm(&mut self.board, host.parse().unwrap());
        let l2 = json!({"name": "l2", "poolUuid": pool, "vni": 150});
        let l2 = self.call("CreateL2VxlanNetwork", l2, &[]);
        let l3 = json!({"name": "l3", "l2NetworkUuid": l2, "dnsDomain": "example.org"});
        let l3 = self.call("CreateL3Network", l3, &[]);
        self.call("AddIpRange", range(&l3, "10.0.0.10", "10.0.0.99"), &[]);
        let six = json!({
            "l3NetworkUuid": l3, "name": "six", "startIp": "2001:db8::10", "endIp": "2001:db8::ff",
            "gateway": "2001:db8::1", "prefixLen": 64, "addressMode": "Stateful-DHCP",
        });
        self.call("AddIpv6Range", six, &[]);
        let vm = json!({"name": "vm", "l3NetworkUuids": [l3]});
        let vm = self.call("CreateVmInstance", vm, &[]);
        let spare = self.call("CreateVmNic", json!({"l3NetworkUuid": l3}), &[]);
        self.call("DeleteVmNic", json!({"uuid": spare}), &[]);
        let nic = self.call("CreateVmNic", json!({"l3NetworkUuid": l3, "ip": "10.0.0.50"}), &[]);
        Made { zone, host, l3, vm, nic }
    }

    /// What sessions, agents and jobs write, and networks of other types.
    fn what_no_message_makes(&self, made: &Made) {
        let host: Uuid = made.host.parse().unwrap();
        let tenant = Account {
            uuid: Id::new(Uuid::from_u128(0xa)),
            name: "tenant".into(),
            account_type: AccountType::Normal,
            password_hash: "$argon2id$none".into(),
            description: Some("with a text".into()),
        };
        for (number, segment) in [(1001, Segment::NoVlan), (1002, Segment::Vlan { vlan: 7 })] {
            let l2 = L2Network {
                uuid: Id::new(Uuid::from_u128(number.into())),
                name: format!("l2-{number}"),
                description: None,
                zone_uuid: made.zone.parse().unwrap(),
                physical_interface: Some("eth1".into()),
                segment,
                number,
            };
            self.put(l2, Some(tenant.uuid));
        }
        self.put(tenant, None);
        let credential = HostCredential {
            uuid: Id::new(host),
            host_uuid: Id::new(host),
            certificate_sha256: Some("0".repeat(64)),
            certificate_issued: Some(NOW),
            renewed_sha256: Some("4".repeat(64)),
            token_sha256: Some("1".repeat(64)),
            token_key_sha256: Some("2".repeat(64)),
            token_expires: NOW.plus_seconds(3600),
        };
        self.put(credential, None);
        let (uuid, authority_sha256) = (Id::new(INSTALLATION), "3".repeat(64));
        let starts = vec![Start { lineage: Uuid::from_u128(0xc), revision: 1 }];
        self.put(Installation { uuid, authority_sha256, starts }, None);
        let job = Job {
            uuid: Id::new(Uuid::from_u128(0xb)),
            message: "CreateVmInstance".into(),
            subject_kind: Some(Kind::VmInstance),
            subject_uuid: Some(made.vm.parse().unwrap()),
            subject_also: None,
            hosts: vec![Id::new(host)],
            objects: vec![made.vm.parse().unwrap()],
            done: true,
            messages: Vec::new(),
            canceled: None,
            failed: Some("no other host can take it".to_owned()),
            uuid_chosen: true,
            create_date: NOW,
            deadline: NOW.plus_seconds(60),
        };
        self.put(job, Some(Id::new(ADMIN)));
    }

    /// What is the tenant's, and what it is allowed.
    fn what_accounts_have(&mut self, made: &Made) {
        let (tenant, l3) = (Uuid::from_u128(0xa).simple().to_string(), &made.l3);
        let share = json!({"resourceUuids": [l3], "accountUuids": [tenant], "toPublic": true});
        self.call("ShareResource", share, &[]);
        let quota = json!({"identityUuid": tenant, "name": "l3.num", "value": 7});
        self.call("UpdateQuota", quota, &[]);
        let longer = json!({
            "category": "identity", "name": "session.timeout", "resourceUuid": tenant,
            "value": "86400",
        });
        self.call("UpdateResourceConfig", longer, &[]);
        let options = json!([{"name": "tftp-server", "value": "10.0.0.5"}]);
        let options = json!({"l3NetworkUuid": l3, "options": options});
        self.call("SetL3NetworkDhcpOptions", options, &[]);
        self.call("SetVmUserdata", json!({"uuid": made.vm, "userdata": "aGk="}), &[]);
        for (message, tag) in [("CreateSystemTag", "hostname::web"), ("CreateUserTag", "web")] {
            let tag = json!({"resourceType": "VmInstanceVO", "resourceUuid": made.vm, "tag": tag});
            self.call(message, tag, &[]);
        }
        self.security_groups(made);
        self.vips(made);
    }

    /// An EIP and rules on NICs, and some on none.
    fn vips(&mut self, made: &Made) {
        let services = json!({"vrouter": ["Eip", "PortForwarding"]});
        let services = json!({"l3NetworkUuid": made.l3, "networkServices": services});
        self.call("AttachNetworkServiceToL3Network", services, &[]);
        let l2 = json!({"name": "public", "zoneUuid": made.zone, "physicalInterface": "eth2"});
        let l2 = self.call("CreateL2NoVlanNetwork", l2, &[]);
        let l3 = json!({"name": "public", "l2NetworkUuid": l2, "category": "Public"});
        let l3 = self.call("CreateL3Network", l3, &[]);
        let addresses = json!({
            "l3NetworkUuid": l3, "name": "public", "startIp": "198.51.100.10",
            "endIp": "198.51.100.99", "netmask": "255.255.255.0", "gateway": "198.51.100.1",
        });
        self.call("AddIpRange", addresses, &[]);
        for nic in [Some(&made.nic), None] {
            let vip = json!({"name": "vip", "description": "a", "l3NetworkUuid": l3});
            let vip = self.call("CreateVip", vip, &[]);
            let eip = json!({"name": "eip", "description": "a", "vipUuid": vip, "vmNicUuid": nic});
            self.call("CreateEip", eip, &[]);
        }
        let vip = json!({"name": "vip", "l3NetworkUuid": l3, "requiredIp": "198.51.100.42"});
        let vip = self.call("CreateVip", vip, &[]);
        let rule = json!({"name": "web", "description": "a", "vipUuid": vip, "vipPortStart": 80,
            "vipPortEnd": 89, "protocolType": "TCP", "vmNicUuid": made.nic});
        self.call("CreatePortForwardingRule", rule, &[]);
        let rule = json!({"name": "names", "vipUuid": vip, "vipPortStart": 53,
            "protocolType": "UDP", "allowedCidr": "192.0.2.0/24"});
        self.call("CreatePortForwardingRule", rule, &[]);
    }

    /// Groups with members by hand and by query, and rules with each form of a remote.
    fn security_groups(&mut self, made: &Made) {
        let services = json!({"SecurityGroup": ["SecurityGroup"]});
        let services = json!({"l3NetworkUuid": made.l3, "networkServices": services});
        self.call("AttachNetworkServiceToL3Network", services, &[]);
        let list = json!({"name": "offices", "addresses": ["192.0.2.0/24", "2001:db8::1"]});
        let list = self.call("CreateAddressGroup", list, &[]);
        let found = json!({"name": "found", "description": "a", "memberQuery": "tag=web"});
        let found = self.call("CreateSecurityGroup", found, &[]);
        let group = json!({"name": "chosen", "ipVersion": 6, "isStateless": true});
        let group = self.call("CreateSecurityGroup", group, &[]);
        let rules = json!([
            {"type": "Ingress", "protocol": "TCP", "ipVersion": 4, "dstPortRange": "22,80-90",
                "srcIpRange": "10.0.0.0/8,10.1.2.3-10.1.2.9", "description": "a"},
            {"type": "Ingress", "protocol": "ICMP", "icmpType": 128, "icmpCode": 0,
                "remoteSecurityGroupUuid": found},
            {"type": "Egress", "protocol": "132", "remoteAddressGroupUuid": list, "action": "DROP"},
        ]);
        let rules = json!({"securityGroupUuid": group, "rules": rules});
        self.call("AddSecurityGroupRule", rules, &[]);
        let members = json!({"securityGroupUuid": group, "vmNicUuids": [made.nic]});
        self.call("AddVmNicToSecurityGroup", members, &[]);
    }

    /// A row of each kind that is not there yet, made of its declaration.
    fn every_other_kind(&self) {
        for (number, kind) in (0xd00..).zip(Kind::ALL) {
            let snapshot = self.store.snapshot();
            // Who owns what is made of other rows, and never stored.
            if snapshot.total(*kind) > 0 || *kind == Kind::AccountResourceRef {
                continue;
            }
            let own = kind.def().own.iter().map(|column| &column.field);
            let body: Map<String, Value> =
                own.map(|field| (field.name.to_owned(), value(field, number, &snapshot))).collect();
            let meta = json!({"owner": Id::<Account>::new(ADMIN), "created": NOW, "changed": NOW});
            let version = kind.def().version();
            let row = json!({"kind": kind, "version": version, "meta": meta, "body": body});
            let row =
                serde_json::from_value(row).and_then(|row: Box<RawValue>| Record::decode(&row));
            let row = row.unwrap_or_else(|error| {
                panic!("{kind:?}: {error}; make one in `what_no_message_makes`")
            });
            self.put_record(row);
        }
    }

    /// Over what is in the tables by now: a row that changes, rows that go, rows that come.
    fn changes(&mut self, made: &Made) {
        self.call("UpdateHost", json!({"uuid": made.host, "description": "changed"}), &[]);
        self.call("DeleteVmNic", json!({"uuid": made.nic}), &[]);
        self.call("CreateVmNic", json!({"l3NetworkUuid": made.l3}), &[]);
    }
}

/// A value for a field: of a reference, what there is already; of the row's own uuid, `number`.
fn value(field: &FieldDef, number: u128, snapshot: &Snapshot<Record>) -> Value {
    if let Some(kind) = field.refs
        && field.name != "uuid"
    {
        return match (snapshot.list(kind).next(), field.kind) {
            (Some(row), FieldType::List(_)) => json!([row.uuid().simple().to_string()]),
            (Some(row), _) => json!(row.uuid().simple().to_string()),
            (None, FieldType::List(_)) => json!([]),
            (None, _) => Value::Null,
        };
    }
    let word = field.one_of.first();
    let one = |kind: &FieldType| match kind {
        FieldType::Text => json!(word.unwrap_or(&"text")),
        FieldType::Bool => json!(true),
        FieldType::Integer => json!(field.range.map_or(1, |(low, _)| low)),
        FieldType::Uuid => json!(Uuid::from_u128(number).simple().to_string()),
        FieldType::Ip => json!("192.0.2.1"),
        FieldType::Cidr => json!("192.0.2.0/24"),
        FieldType::Mac => json!("fa:00:00:00:00:01"),
        FieldType::Time => json!(NOW),
        FieldType::List(_) | FieldType::Object => json!({}),
    };
    match field.kind {
        FieldType::List(item) => json!([one(item)]),
        kind => one(&kind),
    }
}
