//! Random histories: whatever callers send, in whatever order, some things hold after each message.
//!
//! Messages and their fields come from the declarations, so a new resource takes part by itself.
//! Values come from small sets, so that messages meet: most references lead to what exists, some to
//! another kind or nowhere; addresses and VNIs collide.

mod groups;
mod publics;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use model::{
    Claim, Code, FieldDef, FieldType, Id, Kind, Meta, Record, Resource, Timestamp,
    declare::{Access, Answer, MessageDef, Method},
    resource::{
        account::Account,
        ip_range::IpRange,
        job::Job,
        l2_network::{L2Network, Segment},
        l3_network::L3Network,
        long_job::{LongJob, LongJobState},
        network_service::ProviderType,
        tag::SystemTag,
        vm_instance::VmInstance,
        vm_nic::VmNic,
    },
};
use netloom_control::{Caller, Request, doctor, operation::Done};
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Map, Value, json};
use store::{Read, Snapshot, Store, engine::memory::Fault};
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, Cloud, Fixture};

/// An account with an L2 network of its own and nothing else.
const TENANT: Id<Account> = Id::new(Uuid::from_u128(0xa));

/// The numbers by which a message is made up.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    /// One of `0..sides`; when the numbers are used up, 0.
    fn roll(&mut self, sides: usize) -> usize {
        self.0.next().map_or(0, |number| usize::from(*number) % sides)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len())]
    }
}

/// The messages that are jobs, what makes something more often: a history is to grow.
fn messages() -> Vec<&'static MessageDef> {
    let jobs = model::resource::messages().filter(|def| def.answer == Answer::Job);
    let often = |def: &MessageDef| if def.method == Method::Post { 5 } else { 1 };
    jobs.flat_map(|def| std::iter::repeat_n(def, often(def))).collect()
}

/// A message that may be right or wrong.
fn made_up(def: &MessageDef, snapshot: &Snapshot<Record>, dice: &mut Dice<'_>) -> Request {
    let mut params = Map::new();
    for field in def.fields {
        if field.required || is_needed(def, field) || dice.roll(4) == 1 {
            params.insert(field.name.to_owned(), value(def, field, snapshot, dice));
        }
    }
    let system_tags = tags(def, &params, dice);
    let user_tags = match def.creates {
        Some(_) if dice.roll(8) == 1 => vec!["a".to_owned()],
        _ => Vec::new(),
    };
    let message = def.name.to_owned();
    Request { message, params, system_tags, user_tags, ..Request::default() }
}

/// A secret that is not to be guessed.
fn signs(def: &MessageDef, field: &FieldDef) -> bool {
    def.name.contains("L2Realiser") && field.name == "secret"
}

/// Only with it the message can be right.
fn is_needed(def: &MessageDef, field: &FieldDef) -> bool {
    const NEEDED: [(&str, &str); 3] = [
        ("SetVmStaticIp", "ip"),
        ("ChangeL3NetworkDhcpIpAddress", "dhcpServerIp"),
        ("CreateVxlanVtep", "vtepIp"),
    ];
    NEEDED.contains(&(def.name, field.name))
}

fn value(
    def: &MessageDef,
    field: &FieldDef,
    snapshot: &Snapshot<Record>,
    dice: &mut Dice<'_>,
) -> Value {
    match (field.refs, field.kind) {
        (Some(kind), FieldType::List(_)) => {
            (0..=dice.roll(5) / 3).map(|_| reference(kind, snapshot, dice)).collect()
        }
        (Some(Kind::L2Network), _) if of_pools(def, field) && dice.roll(8) > 0 => {
            pool(def, snapshot, dice)
        }
        (Some(kind), _) => reference(kind, snapshot, dice),
        (None, _) if field.nullable && dice.roll(3) == 0 => Value::Null,
        (None, FieldType::List(item)) => list(def, (field, *item), snapshot, dice),
        (None, FieldType::Bool) => json!(dice.roll(2) == 1),
        (None, FieldType::Integer) => integer(field, dice),
        (None, FieldType::Cidr) => json!(network(def, dice)),
        (None, FieldType::Ip) => json!(address(def, field.name, dice)),
        (None, FieldType::Text) if !field.one_of.is_empty() => json!(dice.one_of(field.one_of)),
        (None, FieldType::Uuid) => {
            let kind = match def.name {
                "DeleteTag" => dice.one_of(&[Kind::SystemTag, Kind::UserTag]),
                "UpdateResourceConfig" => dice.one_of(&[Kind::Account, Kind::VmInstance]),
                _ => {
                    dice.one_of(&[Kind::L3Network, Kind::VmInstance, Kind::VmInstance, Kind::VmNic])
                }
            };
            reference(kind, snapshot, dice)
        }
        (None, FieldType::Text) if def.path.contains("-configurations/") => {
            json!(dice.one_of(match field.name {
                "category" => &["identity", "identity", "rest", "vm", "vm"],
                "name" => &["session.timeout", "session.timeout", "api.timeout", "deletionPolicy"],
                _ => &["60", "3600", "x", "Direct", "Never"],
            }))
        }
        (None, FieldType::Text) if field.name == "resourceType" => {
            json!(dice.one_of(&["VmInstanceVO", "VmInstanceVO", "L3NetworkVO"]))
        }
        (None, FieldType::Text) if field.name == "tag" => {
            json!(dice.one_of(&["hostname::a", "hostname::b", "b", "role=web", "role=web"]))
        }
        (None, FieldType::Text) if field.name == "jobName" => {
            json!(dice.one_of(&["APICreateZoneMsg", "CreateZone", "CreateNothing"]))
        }
        (None, FieldType::Text) if field.name == "jobData" => {
            json!(dice.one_of(&[r#"{"name": "z"}"#, r#"{"name": "z"}"#, "{}"]))
        }
        (None, FieldType::Text) if signs(def, field) => json!("0123456789abcdef"),
        (None, FieldType::Text) if field.name == "url" => {
            json!(dice.one_of(&["http://192.0.2.1/", "http://192.0.2.1/", "a"]))
        }
        (None, FieldType::Text) if def.name == "UpdateQuota" => {
            json!(dice.one_of(&["l3.num", "vm.num", "vxlan.num", "all.num"]))
        }
        (None, FieldType::Object) => services(dice),
        (None, FieldType::Mac) => json!(format!("02:00:00:00:00:0{}", dice.roll(4))),
        (None, FieldType::Text) if field.name == "driverType" => {
            json!(dice.one_of(&["veth", "e1000"]))
        }
        (None, _) => for_guests(field, dice),
    }
}

/// A list of what is no reference.
fn list(
    def: &MessageDef,
    (field, item): (&FieldDef, FieldType),
    snapshot: &Snapshot<Record>,
    dice: &mut Dice<'_>,
) -> Value {
    match (item, field.name) {
        (FieldType::Uuid, "ruleUuids") => {
            (0..=dice.roll(2)).map(|_| reference(Kind::SecurityGroupRule, snapshot, dice)).collect()
        }
        (FieldType::Uuid, "vmNicUuids") => json!([reference(Kind::VmNic, snapshot, dice)]),
        (FieldType::Uuid, _) => {
            let kind =
                dice.one_of(&[Kind::L3Network, Kind::L3Network, Kind::L2Network, Kind::Zone]);
            json!([reference(kind, snapshot, dice)])
        }
        (FieldType::Text, "tags") => json!(["hostname::b"]),
        (FieldType::Text, "addresses") => {
            (0..=dice.roll(2)).map(|_| dice.one_of(&ADDRESSES)).collect()
        }
        (_, "rules" | "refs") => groups::entries(def, snapshot, dice),
        (FieldType::Cidr, _) => (0..dice.roll(4)).map(|_| dice.one_of(&PREFIXES)).collect(),
        (_, "options") => for_guests(field, dice),
        _ => json!([]),
    }
}

/// One of the pools that a message is about.
fn pool(def: &MessageDef, snapshot: &Snapshot<Record>, dice: &mut Dice<'_>) -> Value {
    let pools = rows::<L2Network>(snapshot).into_iter();
    let fits = |l2: &L2Network| match def.name {
        "CreateL2GreNetwork" => matches!(l2.segment, Segment::GrePool),
        _ => l2.segment.is_pool(),
    };
    let pools = pools.filter(fits).map(|l2| l2.uuid);
    let pools: Vec<_> = pools.collect();
    if pools.is_empty() { Value::Null } else { json!(dice.one_of(&pools)) }
}

/// What instances are told; of anything else a word.
fn for_guests(field: &FieldDef, dice: &mut Dice<'_>) -> Value {
    match field.name {
        "memberQuery" => {
            json!(dice.one_of(&["role=web", "role=web AND tag=b", "account=admin", "a"]))
        }
        "protocol" => json!(dice.one_of(&["TCP", "ICMP", "ALL", "132"])),
        "dstPortRange" => json!(dice.one_of(&["22", "80-90", ""])),
        "srcIpRange" | "dstIpRange" => json!(dice.one_of(&ADDRESSES)),
        "userdata" => json!(dice.one_of(&["aGk=", "a"])),
        "SshKey" => json!(dice.one_of(&["ssh-rsa AAAA", "ssh-rsa AAAA a", "tea"])),
        "options" => {
            let codes = ["66", "ntp-server", "3"];
            let option = |code| json!({"name": code, "value": "10.0.0.5"});
            (0..dice.roll(3)).map(|_| option(dice.one_of(&codes))).collect()
        }
        _ => json!(dice.one_of(&["a", "b", "a", "b", "a", "b", "a", ""])),
    }
}

/// Addresses, networks and spans; the last says two things.
const ADDRESSES: [&str; 5] =
    ["10.0.0.10", "10.0.0.0/24", "10.0.0.1-10.0.0.9", "fd00::/64", "10.0.0.1/8"];

/// Only pools are right there.
fn of_pools(def: &MessageDef, field: &FieldDef) -> bool {
    let of_pools = ["CreateVniRange", "AttachL2NetworkToCluster", "CreateVxlanPoolRemoteVtep"];
    field.name == "poolUuid" || of_pools.contains(&def.name)
}

/// Mostly one of the kind, sometimes of another one, or of nothing.
fn reference(kind: Kind, snapshot: &Snapshot<Record>, dice: &mut Dice<'_>) -> Value {
    let kind = if dice.roll(16) == 1 { dice.one_of(Kind::ALL) } else { kind };
    let ids: Vec<Uuid> = snapshot.ids(kind).collect();
    let id = match dice.roll(20) {
        19 => Uuid::from_u128(0xbad),
        number if ids.is_empty() => Uuid::from_u128(number as u128),
        _ => dice.one_of(&ids),
    };
    json!(id.simple().to_string())
}

fn integer(field: &FieldDef, dice: &mut Dice<'_>) -> Value {
    match field.name {
        "startVni" | "vni" => json!(96 + dice.roll(16)),
        "endVni" => json!(100 + dice.roll(20)),
        "mtu" => json!(1276 + dice.roll(16)),
        "prefixLen" => json!(dice.one_of(&[64, 64, 120, 0])),
        "ipVersion" => json!(4 + dice.roll(3)),
        "priority" => json!(dice.one_of(&[1, 1, 2, -1, 0])),
        "port" | "vipPortStart" | "vipPortEnd" | "privatePortStart" | "privatePortEnd" => {
            json!(dice.roll(12))
        }
        _ => json!(dice.roll(8)),
    }
}

fn address(def: &MessageDef, field: &str, dice: &mut Dice<'_>) -> String {
    let last = dice.roll(24);
    match field {
        "managementIp" | "vtepIp" | "remoteVtepIp" => {
            format!("172.30.{}.{}", dice.roll(2), last % 8)
        }
        "dhcpServerIp" => own_family(def, 10 + last % 4),
        "dhcpv6ServerIp" => format!("fd00::{last:x}"),
        "requiredIp" => format!("198.51.100.{}", 10 + last % 6),
        "netmask" => dice.one_of(&NETMASKS).to_owned(),
        "gateway" if dice.roll(4) > 0 => own_family(def, 1),
        "ip" | "staticIp" if dice.roll(4) > 0 => format!("10.0.0.{}", 10 + last % 4),
        "endIp" => own_family(def, last + 4),
        _ if dice.roll(16) == 1 => "224.0.0.1".to_owned(),
        _ => own_family(def, last),
    }
}

fn services(dice: &mut Dice<'_>) -> Value {
    let provider = dice.one_of(ProviderType::ALL);
    let service = dice.one_of(&["DHCP", "DHCP", "Userdata", "DNS", "Eip", "nothing"]);
    json!({provider.provider().to_string(): [service]})
}

fn network(def: &MessageDef, dice: &mut Dice<'_>) -> String {
    match def.name {
        "AddIpv6RangeByNetworkCidr" => dice.one_of(&["fd00::/64", "fd00::/120"]).to_owned(),
        "AddIpRangeByNetworkCidr" => dice.one_of(&["10.0.0.0/24", "10.0.0.0/28"]).to_owned(),
        _ => format!("10.{}.0.0/16", dice.roll(4)),
    }
}

/// Some have others in them, and some addresses of ranges.
const PREFIXES: [&str; 7] = [
    "10.1.0.0/16",
    "10.1.0.0/24",
    "10.0.0.16/28",
    "10.0.0.0/24",
    "0.0.0.0/0",
    "fd00::10/124",
    "::/0",
];

const NETMASKS: [&str; 4] = ["255.255.255.0", "255.255.255.0", "255.255.255.240", "0.0.0.0"];

fn own_family(def: &MessageDef, last: usize) -> String {
    if def.name == "AddIpv6Range" { format!("fd00::{last:x}") } else { format!("10.0.0.{last}") }
}

fn tags(def: &MessageDef, params: &Map<String, Value>, dice: &mut Dice<'_>) -> Vec<String> {
    let text = |field: &str| params.get(field).and_then(Value::as_str).unwrap_or_default();
    let mut tags = Vec::new();
    if def.name == "AttachL2NetworkToCluster" {
        let (l2, cluster) = (text("l2NetworkUuid"), text("clusterUuid"));
        let cidr = dice.one_of(&["172.30.0.0/24", "172.30.0.0/16", "10.9.9.0/24"]);
        tags.push(format!("l2NetworkUuid::{l2}::clusterUuid::{cluster}::cidr::{{{cidr}}}"));
    }
    let l3s = params.get("l3NetworkUuids").and_then(Value::as_array);
    for l3 in l3s.into_iter().flatten().filter_map(Value::as_str) {
        match dice.roll(8) {
            1 => tags.push(format!("staticIp::{l3}::10.0.0.{}", dice.roll(24))),
            2 => tags.push(format!("customMac::{l3}::02:00:00:00:00:0{}", dice.roll(4))),
            _ => {}
        }
    }
    tags
}

/// Two hosts, a pool, networks of both owners: without them most histories would never get going.
fn start() -> Cloud {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let services = json!({
        ProviderType::Flat.provider().to_string(): ["DHCP"],
        ProviderType::Vrouter.provider().to_string(): ["Eip", "PortForwarding"],
        ProviderType::SecurityGroup.provider().to_string(): ["SecurityGroup"],
    });
    let attach = json!({"l3NetworkUuid": l3, "networkServices": services});
    cloud.call("AttachNetworkServiceToL3Network", attach).unwrap();
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": cloud.l3(&fixture, "blue")}));
    let plug = json!({"vmNicUuid": nic, "hostUuid": fixture.hosts[0], "device": "c"});
    cloud.call("PlugVmNic", plug).unwrap();
    let six =
        json!({"name": "six", "l2NetworkUuid": cloud.nics(&vm)[0].l2_network_uuid, "ipVersion": 6});
    let range = json!({
        "l3NetworkUuid": cloud.made("CreateL3Network", six), "name": "six", "gateway": "fd00::1",
        "startIp": "fd00::10", "endIp": "fd00::1f", "prefixLen": 64, "addressMode": "Stateful-DHCP",
    });
    cloud.made("AddIpv6Range", range);
    let keys = cloud.made("CreateL2GreNetworkPool", json!({"name": "g", "zoneUuid": fixture.zone}));
    let range = json!({"name": "g", "startVni": 100, "endVni": 110, "l2NetworkUuid": keys});
    cloud.made("CreateVniRange", range);
    give_to_tenant(&cloud, &fixture);
    put_jobs(&cloud, &fixture);
    groups::put(&cloud, cloud.nics(&vm)[0].uuid);
    publics::put(&cloud, &fixture, &l3);
    cloud
}

/// Jobs that wait for a host, and a long job that is over: no handler makes those.
fn put_jobs(cloud: &Cloud, fixture: &Fixture) {
    let submit = json!({"jobName": "CreateZone", "jobData": r#"{"name": "z"}"#});
    let id: Id<LongJob> = cloud.made("SubmitLongJob", submit).parse().unwrap();
    let over = LongJob { state: LongJobState::Succeeded, ..cloud.get(id).unwrap() };
    let waiting = Job {
        hosts: vec![fixture.hosts[0].parse().unwrap()],
        deadline: Timestamp(i64::MAX),
        ..crate::jobs::over(1)
    };
    let owner = ADMINISTRATOR.account();
    let put = move |tx: &mut store::Tx<Record>| {
        let meta = Meta { owner, ..Meta::default() };
        tx.put(Record::new(over.clone(), meta)).unwrap();
        for number in 1..9 {
            let uuid = Id::new(Uuid::from_u128(number));
            tx.put(Record::new(Job { uuid, ..waiting.clone() }, meta)).unwrap();
        }
        Ok(())
    };
    cloud.store.transact(put).unwrap();
}

fn give_to_tenant(cloud: &Cloud, fixture: &Fixture) {
    let l2 = cloud.made("CreateL2VxlanNetwork", json!({"name": "t", "poolUuid": fixture.pool}));
    crate::harness::tenant(cloud, 0xa);
    cloud.give(Kind::L2Network, &l2, TENANT);
}

/// Whose message it is.
fn caller(def: &MessageDef, dice: &mut Dice<'_>) -> Caller {
    if dice.roll(16) < if def.access == Access::Admin { 15 } else { 12 } {
        return ADMINISTRATOR;
    }
    let source = IpAddr::from([127, 0, 0, 1]);
    Caller::Account { id: TENANT, is_admin: false, session: None, source }
}

/// After so many histories a message that never succeeded is taken for one that cannot.
const HISTORIES_MAX: usize = 500;

/// Messages that no driver of instances can do yet.
const REFUSED: [&str; 3] = ["PauseVmInstance", "ResumeVmInstance", "MigrateVm"];

fn rows<R: Resource>(snapshot: &Snapshot<Record>) -> Vec<R> {
    snapshot.list(R::KIND).map(|row| R::of(&row).unwrap().clone()).collect()
}

fn all(snapshot: &Snapshot<Record>) -> impl Iterator<Item = Arc<Record>> {
    Kind::ALL.iter().flat_map(|kind| snapshot.list(*kind))
}

/// The tags of an instance say what its fields say.
fn tags_say_what_fields_say(snapshot: &Snapshot<Record>) {
    let of_field = |tag: &str| tag.starts_with("hostname::") || tag.starts_with("staticIp::");
    let tags = rows::<SystemTag>(snapshot).into_iter().filter(|row| of_field(&row.tag));
    let mut tags: Vec<_> = tags.map(|row| (row.resource.uuid, row.tag)).collect();
    let mut fields = Vec::new();
    for instance in rows::<VmInstance>(snapshot) {
        let id = instance.uuid.uuid();
        fields.extend(instance.hostname.map(|name| (id, format!("hostname::{name}"))));
    }
    let ranges = rows::<IpRange>(snapshot);
    for nic in rows::<VmNic>(snapshot) {
        let (Some(instance), ips) = (nic.vm_instance_uuid, &nic.static_ips) else { continue };
        for ip in ips {
            // That of the network which has it, of several ones.
            let has = |l3: &Id<L3Network>| {
                let mut of_l3 = ranges.iter().filter(|range| range.l3_network_uuid == *l3);
                of_l3.any(|range| (range.start_ip..=range.end_ip).contains(ip))
            };
            let mut l3s = nic.more_l3_network_uuids.iter().filter(|l3| has(l3));
            let l3 = l3s.next().unwrap_or(&nic.l3_network_uuid);
            let tag = format!("staticIp::{l3}::{}", ip.to_string().replace(':', "--"));
            fields.push((instance.uuid(), tag));
        }
    }
    tags.sort();
    fields.sort();
    assert_eq!(tags, fields);
}

/// What hosts act on is given up only by way of a release, and they are told of what changes.
fn hosts_are_told(before: &Snapshot<Record>, after: &Snapshot<Record>, done: &Done) {
    for row in all(before) {
        for claim in row.claims().into_iter().filter(Claim::rests) {
            assert!(after.holder(&claim).is_some(), "{claim:?} is free at once");
        }
    }
    let changed = |row: &Arc<Record>, other: &Snapshot<Record>| {
        other.get(row.kind(), row.uuid()).as_ref() != Some(row)
    };
    let gone = all(before).filter(|row| changed(row, after));
    let come = all(after).filter(|row| changed(row, before));
    for row in gone.chain(come) {
        assert!(row.home().is_none_or(|home| done.hosts.contains(&home)), "{row:?}");
    }
}

/// Messages, each by its place in the list of all and the numbers that it is made up of.
fn histories() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    vec((0..messages().len(), vec(any::<u8>(), 0..48)), 1..64)
}

/// Sends a made-up message, and checks what came of it. `None`: it was refused.
fn send(cloud: &Cloud, def: &'static MessageDef, dice: &mut Dice<'_>) -> Option<Done> {
    let caller = caller(def, dice);
    let request = made_up(def, &cloud.snapshot(), dice);
    let what = format!("{request:?}");
    // It checks that no reference leads nowhere.
    match cloud.send(caller, vec![request]) {
        Ok(done) => Some(done),
        Err(error) => {
            assert_ne!(error.code, Code::Internal, "{what}: {error}");
            None
        }
    }
}

/// Sometimes all hosts have let go of what was deleted, unless the engine fails just then.
fn give_up_some(cloud: &Cloud, dice: &mut Dice<'_>) {
    if dice.roll(16) != 1 {
        return;
    }
    let give_up = |tx: &mut store::Tx<Record>| {
        let open: Vec<Uuid> = tx.list(Kind::Release).map(|release| release.uuid()).collect();
        open.into_iter().for_each(|release| netloom_control::releaser::forget(tx, release));
        Ok(())
    };
    if let Err(error) = cloud.store.transact(give_up) {
        assert_eq!(error.code, Code::StoreUnavailable, "{error}");
    }
}

/// Nothing leaks, whatever was done.
fn is_sound(cloud: &Cloud, what: &str) {
    let report = doctor::examine(&cloud.snapshot());
    assert!(report.is_sound(), "after {what}: {:?}", report.findings);
    tags_say_what_fields_say(&cloud.snapshot());
    groups::are_in_order(&cloud.snapshot());
    publics::go_together(&cloud.snapshot());
}

fn same(one: &Snapshot<Record>, other: &Snapshot<Record>) {
    assert!(all(one).eq(all(other)), "they have different rows");
    assert_eq!(one.revision(), other.revision());
}

/// One server, which is told everything.
fn live(history: &[(usize, Vec<u8>)]) {
    let (cloud, messages) = (start(), messages());
    for (message, numbers) in history {
        let (def, mut dice) = (messages[*message], Dice(numbers.iter()));
        give_up_some(&cloud, &mut dice);
        let before = cloud.snapshot();
        match send(&cloud, def, &mut dice) {
            Some(done) => hosts_are_told(&before, &cloud.snapshot(), &done),
            None => assert_eq!(before.revision(), cloud.snapshot().revision(), "refused, and done"),
        }
        is_sound(&cloud, def.name);
    }
    let reopened: Store<Record> = Store::open(Box::new(cloud.engine.clone())).unwrap();
    same(&reopened.snapshot(), &cloud.snapshot());
}

/// Two servers on one engine. Neither may have seen what the other one did last; either may crash
/// and come back, and a commit may be one of which nobody knows whether it happened.
fn live_apart(history: &[(usize, Vec<u8>)]) {
    let (first, messages) = (start(), messages());
    let engine = first.engine.clone();
    let mut clouds = [first.second_server(), first];
    for (message, numbers) in history {
        let (def, mut dice) = (messages[*message], Dice(numbers.iter()));
        let at = dice.roll(2);
        match dice.roll(12) {
            1 => clouds[at] = clouds[1 - at].second_server(),
            2 => engine.inject(Fault::FailBefore),
            3 => engine.inject(Fault::FailAfter),
            4 => engine.inject(Fault::Conflict),
            5..8 => engine.delay_log(),
            _ => engine.show_log(),
        }
        give_up_some(&clouds[at], &mut dice);
        drop(send(&clouds[at], def, &mut dice));
        is_sound(&clouds[at], def.name);
    }
    engine.show_log();
    for cloud in &clouds {
        cloud.store.follow().unwrap();
    }
    let reopened: Store<Record> = Store::open(Box::new(engine)).unwrap();
    for cloud in &clouds {
        is_sound(cloud, "all");
        same(&reopened.snapshot(), &cloud.snapshot());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn some_things_hold_whatever_is_sent(history in histories()) {
        live(&history);
    }

    #[test]
    fn they_hold_for_two_servers_that_crash_and_see_each_other_late(history in histories()) {
        live_apart(&history);
    }
}

/// Or the tests above would prove nothing of a message that they never get through with. What was
/// not done yet is tried more often, among others that make what it needs.
#[test]
fn every_message_succeeds_in_some_history() {
    let mut runner = TestRunner::deterministic();
    let all = messages();
    let names = all.iter().map(|def| def.name).filter(|name| !REFUSED.contains(name));
    let mut open: BTreeSet<&str> = names.collect();
    for _ in 0..HISTORIES_MAX {
        if open.is_empty() {
            return;
        }
        let history = histories().new_tree(&mut runner).unwrap().current();
        let cloud = start();
        for (step, (message, numbers)) in history.iter().enumerate() {
            let wanted = open.iter().nth(message % open.len().max(1));
            let wanted = wanted.filter(|_| step % 2 == 1);
            let wanted = wanted.and_then(|name| all.iter().find(|def| def.name == *name));
            let def = wanted.unwrap_or(&all[*message]);
            let mut dice = Dice(numbers.iter());
            give_up_some(&cloud, &mut dice);
            if send(&cloud, def, &mut dice).is_some() {
                open.remove(def.name);
            }
        }
    }
    assert!(open.is_empty(), "never done: {open:?}");
}
