//! Texts that callers write, for property tests and fuzzing: whatever they write, nothing panics,
//! and a refusal blames the caller.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use damage::Target;
use model::{
    Code, Error, Id, Record, Result, Timestamp,
    resource::account::ADMIN,
    status::{Board, HostStatus},
};
use serde_json::{Map, Value, json};
use store::{Store, Tx};
use uuid::Uuid;

use crate::{
    Caller, Command, Operations, Request, command::Surroundings, inventory::Observed, operation,
};

/// All of them.
pub const TARGETS: &[Target] = &[ZQL, SYSTEM_TAGS];

/// A text in ZStack's query language.
pub const ZQL: Target = Target {
    name: "control_zql",
    read: |bytes| WORLD.ask(&String::from_utf8_lossy(bytes)).map_err(check).is_ok(),
    samples: || STATEMENTS.map(|text| text.as_bytes().to_vec()).to_vec(),
};

/// A message's name and its system tags, a line each.
pub const SYSTEM_TAGS: Target = Target {
    name: "control_system_tags",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split('\n');
        let about = lines.next().and_then(|name| TAGGED.iter().find(|(about, _)| *about == name));
        let Some((name, fields)) = about else { return false };
        let (fields, tags) = fields(lines.map(str::to_owned).collect());
        WORLD.send(name, fields, tags).map_err(check).is_ok()
    },
    samples: tagged,
};

const STATEMENTS: [&str; 8] = [
    "query vminstance where name = 'vm' or (name = \"vm-2\" and name != 'vm-2')",
    "query vmnic.ip where vmInstance.zone.name like 'z%' order by ip desc limit 10 offset 1",
    "query l3network.name where uuid not in (query vmnic.l3NetworkUuid where ip is not null)",
    "count vmnic; query distinct(vmnic.l3NetworkUuid); count vmnic group by l3NetworkUuid;",
    "query vminstance.name return with (total) order by name limit 1 named as 'page'",
    "sum vminstance.cpuNum by zoneUuid",
    "query zone where __systemTag__ = 'a::b' and createDate > '2017-11-14 22:20:57'",
    "query l2network where vni in (1, 2, 3) and name not like '%9' and description is null",
];

/// The fields of a message, and the tags beside them.
type Fields = fn(Vec<String>) -> (Value, Vec<String>);

/// Messages that read system tags.
const TAGGED: [(&str, Fields); 4] = [
    ("CreateVmInstance", |tags| {
        (json!({"name": "vm-2", "l3NetworkUuids": [id(L3)], "hostUuid": id(HOST)}), tags)
    }),
    ("AttachL3NetworkToVm", |tags| {
        (json!({"l3NetworkUuid": id(OTHER_L3), "vmInstanceUuid": id(INSTANCE)}), tags)
    }),
    ("AttachL2NetworkToCluster", |tags| {
        (json!({"l2NetworkUuid": id(OTHER_POOL), "clusterUuid": id(CLUSTER)}), tags)
    }),
    ("CreateSystemTags", |tags| {
        let of =
            json!({"resourceType": "VmInstanceVO", "resourceUuid": id(INSTANCE), "tags": tags});
        (of, Vec::new())
    }),
];

fn tagged() -> Vec<Vec<u8>> {
    let (l3, other) = (id(L3), id(OTHER_L3));
    let all = [
        format!(
            "CreateVmInstance\nstaticIp::{l3}::10.0.0.12\nhostname::vm-2\n\
             customMac::{l3}::02:00:00:00:00:07"
        ),
        format!("AttachL3NetworkToVm\nstaticIp::{other}::10.0.0.13"),
        format!("AttachL2NetworkToCluster\n{}", cidr(OTHER_POOL)),
        "CreateSystemTags\nhostname::vm-1".to_owned(),
    ];
    all.map(String::into_bytes).to_vec()
}

/// A refusal is the caller's fault, and says so.
fn check(error: Error) {
    let is_ours = matches!(error.code, Code::Internal | Code::StoreUnavailable);
    assert!(!is_ours, "{error}");
}

/// One of each resource that tags are about. Nothing that is sent to it stays.
struct World {
    store: Store<Record>,
    operations: Operations,
}

/// Targets are called by nobody who could pass it in.
static WORLD: LazyLock<World> =
    LazyLock::new(|| World::new().unwrap_or_else(|error| panic!("the world is refused: {error}")));

const ZONE: u128 = 1;
const CLUSTER: u128 = 2;
const HOST: u128 = 3;
const POOL: u128 = 4;
const L2: u128 = 5;
const L3: u128 = 6;
const INSTANCE: u128 = 7;
const OTHER_POOL: u128 = 8;
const OTHER_L2: u128 = 9;
const OTHER_L3: u128 = 10;

fn id(number: u128) -> String {
    Uuid::from_u128(number).simple().to_string()
}

/// Ten addresses.
fn range(l3: u128) -> Value {
    json!({"name": "r", "l3NetworkUuid": id(l3), "startIp": "10.0.0.10", "endIp": "10.0.0.19",
        "netmask": "255.255.255.0", "gateway": "10.0.0.1"})
}

/// The tag that attaches a pool to the cluster.
fn cidr(pool: u128) -> String {
    let (pool, cluster) = (id(pool), id(CLUSTER));
    format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.30.0.0/24}}")
}

/// What an undone message would have been refused for.
const UNDONE: &str = "undone";

impl World {
    fn new() -> Result<Self> {
        let store = Store::in_memory()?;
        crate::account::create_admin(&store, "none", Timestamp(0))?;
        crate::platform::declare(&store, Timestamp(0))?;
        let this = Self { store, operations: Operations::default() };
        let (zone, cluster, pool) = (id(ZONE), id(CLUSTER), id(POOL));
        let host = json!({"name": "h", "managementIp": "172.30.0.1", "clusterUuid": cluster});
        let cluster = json!({"name": "c", "zoneUuid": zone, "hypervisorType": "KVM"});
        let new_pool = json!({"name": "p", "zoneUuid": zone});
        let vnis = json!({"name": "v", "startVni": 1, "endVni": 9, "l2NetworkUuid": pool});
        let l2 = json!({"name": "n", "poolUuid": pool});
        let attach = json!({"l2NetworkUuid": pool, "clusterUuid": id(CLUSTER)});
        let instance = json!({"name": "vm-1", "l3NetworkUuids": [id(L3)], "hostUuid": id(HOST)});
        let own = format!("staticIp::{}::10.0.0.19", id(L3));
        let all = [
            ("CreateZone", ZONE, json!({"name": "z"}), vec![]),
            ("CreateCluster", CLUSTER, cluster, vec![]),
            ("AddKVMHost", HOST, host, vec![]),
            ("CreateL2VxlanNetworkPool", POOL, new_pool.clone(), vec![]),
            ("CreateL2VxlanNetworkPool", OTHER_POOL, new_pool, vec![]),
            ("CreateVniRange", 11, vnis, vec![]),
            ("AttachL2NetworkToCluster", 0, attach, vec![cidr(POOL)]),
            ("CreateL2VxlanNetwork", L2, l2.clone(), vec![]),
            ("CreateL3Network", L3, json!({"name": "n", "l2NetworkUuid": id(L2)}), vec![]),
            ("AddIpRange", 12, range(L3), vec![]),
            ("CreateL2VxlanNetwork", OTHER_L2, l2, vec![]),
            (
                "CreateL3Network",
                OTHER_L3,
                json!({"name": "o", "l2NetworkUuid": id(OTHER_L2)}),
                vec![],
            ),
            ("AddIpRange", 13, range(OTHER_L3), vec![]),
            // An address that no sample asks for.
            ("CreateVmInstance", INSTANCE, instance, vec![own]),
        ];
        for (name, uuid, fields, tags) in all {
            let uuid = Some(uuid).filter(|uuid| *uuid != 0);
            let command = this.command(name, uuid, fields, tags)?;
            this.store.transact(move |tx| operation::run(&command, tx, &surroundings()))?;
        }
        Ok(this)
    }

    fn command(
        &self,
        name: &str,
        uuid: Option<u128>,
        fields: Value,
        system_tags: Vec<String>,
    ) -> Result<Command> {
        let params = match fields {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        let resource_uuid = uuid.map(Uuid::from_u128);
        let message = name.to_owned();
        let request = Request { message, params, system_tags, resource_uuid, ..Request::default() };
        self.operations.command(ADMINISTRATOR, vec![request])
    }

    fn ask(&self, zql: &str) -> Result<Value> {
        let command = self.command("ZQLQuery", None, json!({"zql": zql}), Vec::new())?;
        let (snapshot, board) = (self.store.snapshot(), Board::default());
        operation::look_at(&command, &Observed::new(&snapshot, &board), Timestamp(0))
    }

    /// Whether a message would be done.
    fn send(&self, name: &str, fields: Value, tags: Vec<String>) -> Result<()> {
        let command = self.command(name, None, fields, tags)?;
        let done = self.store.transact(move |tx: &mut Tx<Record>| {
            operation::run(&command, tx, &surroundings())?;
            Err::<(), _>(Error::new(Code::Internal, UNDONE))
        });
        match done {
            Err(error) if error.message == UNDONE => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}

const ADMINISTRATOR: Caller = Caller::Account {
    id: Id::new(ADMIN),
    is_admin: true,
    session: None,
    source: IpAddr::V4(Ipv4Addr::LOCALHOST),
};

/// The host is connected, and has nothing left to do.
fn surroundings() -> Surroundings {
    let mut board = Board::default();
    board.revision = u64::MAX;
    let is = HostStatus { connected: true, confirmed: true, agrees: true, ..HostStatus::default() };
    board.put(Id::new(Uuid::from_u128(HOST)), HostStatus { heard: 1, ..is });
    Surroundings { now: Timestamp(0), seed: Uuid::new_v4(), board }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_bytes_make_a_parser_panic() {
        damage::check(super::TARGETS);
    }
}
