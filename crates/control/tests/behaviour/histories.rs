//! Random histories: whatever callers send, in whatever order, some things hold after each message.
//!
//! Messages and their fields come from the declarations, so a new resource takes part by itself.
//! Values come from small sets, so that messages meet: most references lead to what exists, some to
//! another kind or nowhere; addresses and VNIs collide.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use model::{
    Claim, Code, FieldDef, FieldType, Id, Kind, Meta, Plain, Record, Resource, Timestamp,
    declare::{Access, Answer, MessageDef, Method},
    resource::{
        account::Account,
        ip_range::IpRange,
        job::Job,
        l2_network::{L2Network, Segment},
        l2_vxlan::VniRange,
        l3_network::L3Network,
        long_job::{LongJob, LongJobState},
        network_service::ProviderType,
        used_ip::UsedIp,
        vm_instance::{Phase, VmInstance},
        vm_nic::VmNic,
    },
};
use netloom_control::{Caller, Request, operation::Done};
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Map, Value, json};
use store::{Read, Snapshot, Store};
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
            let pools = rows::<L2Network>(snapshot).into_iter();
            let pools = pools.filter(|l2| l2.segment == Segment::VxlanPool).map(|l2| l2.uuid);
            let pools: Vec<_> = pools.collect();
            if pools.is_empty() { Value::Null } else { json!(dice.one_of(&pools)) }
        }
        (Some(kind), _) => reference(kind, snapshot, dice),
        (None, _) if field.nullable && dice.roll(3) == 0 => Value::Null,
        (None, FieldType::List(FieldType::Uuid)) => {
            let kind =
                dice.one_of(&[Kind::L3Network, Kind::L3Network, Kind::L2Network, Kind::Zone]);
            json!([reference(kind, snapshot, dice)])
        }
        (None, FieldType::List(FieldType::Text)) if field.name == "tags" => json!(["hostname::b"]),
        (None, FieldType::List(_)) => json!([]),
        (None, FieldType::Bool) => json!(dice.roll(2) == 1),
        (None, FieldType::Integer) => integer(field, dice),
        (None, FieldType::Cidr) => json!(network(def, dice)),
        (None, FieldType::Ip) => json!(address(def, field.name, dice)),
        (None, FieldType::Text) if !field.one_of.is_empty() => json!(dice.one_of(field.one_of)),
        (None, FieldType::Uuid) => {
            let kind = match def.name {
                "DeleteTag" => dice.one_of(&[Kind::SystemTag, Kind::UserTag]),
                "UpdateResourceConfig" => Kind::Account,
                _ => {
                    dice.one_of(&[Kind::L3Network, Kind::VmInstance, Kind::VmInstance, Kind::VmNic])
                }
            };
            reference(kind, snapshot, dice)
        }
        (None, FieldType::Text) if def.path.contains("-configurations/") => {
            json!(dice.one_of(match field.name {
                "category" => &["identity", "identity", "rest"],
                "name" => &["session.timeout", "session.timeout", "api.timeout"],
                _ => &["60", "3600", "x"],
            }))
        }
        (None, FieldType::Text) if field.name == "resourceType" => {
            json!(dice.one_of(&["VmInstanceVO", "VmInstanceVO", "L3NetworkVO"]))
        }
        (None, FieldType::Text) if field.name == "tag" => {
            json!(dice.one_of(&["hostname::a", "hostname::b", "b"]))
        }
        (None, FieldType::Text) if field.name == "jobName" => {
            json!(dice.one_of(&["APICreateZoneMsg", "CreateZone", "CreateNothing"]))
        }
        (None, FieldType::Text) if field.name == "jobData" => {
            json!(dice.one_of(&[r#"{"name": "z"}"#, r#"{"name": "z"}"#, "{}"]))
        }
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
        (None, _) => json!(dice.one_of(&["a", "b", "a", "b", "a", "b", "a", ""])),
    }
}

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
    let service = dice.one_of(&["DHCP", "DHCP", "DNS", "Eip", "nothing"]);
    json!({provider.provider().to_string(): [service]})
}

fn network(def: &MessageDef, dice: &mut Dice<'_>) -> String {
    match def.name {
        "AddIpv6RangeByNetworkCidr" => dice.one_of(&["fd00::/64", "fd00::/120"]).to_owned(),
        "AddIpRangeByNetworkCidr" => dice.one_of(&["10.0.0.0/24", "10.0.0.0/28"]).to_owned(),
        _ => format!("10.{}.0.0/16", dice.roll(4)),
    }
}

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
    let services = json!({ProviderType::Flat.provider().to_string(): ["DHCP"]});
    let attach = json!({"l3NetworkUuid": l3, "networkServices": services});
    cloud.call("AttachNetworkServiceToL3Network", attach).unwrap();
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    cloud.l3(&fixture, "blue");
    let six =
        json!({"name": "six", "l2NetworkUuid": cloud.nics(&vm)[0].l2_network_uuid, "ipVersion": 6});
    let range = json!({
        "l3NetworkUuid": cloud.made("CreateL3Network", six), "name": "six", "gateway": "fd00::1",
        "startIp": "fd00::10", "endIp": "fd00::1f", "prefixLen": 64, "addressMode": "Stateful-DHCP",
    });
    cloud.made("AddIpv6Range", range);
    give_to_tenant(&cloud, &fixture);
    put_jobs(&cloud, &fixture);
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

/// Whose message it is, and what is done before it.
fn caller(def: &MessageDef, dice: &mut Dice<'_>, cloud: &Cloud) -> Caller {
    let before = dice.roll(16);
    if before == 1 {
        cloud.give_up_releases();
    }
    if before < if def.access == Access::Admin { 15 } else { 12 } {
        return ADMINISTRATOR;
    }
    let source = IpAddr::from([127, 0, 0, 1]);
    Caller::Account { id: TENANT, is_admin: false, session: None, source }
}

/// After so many histories a message that never succeeded is taken for one that cannot.
const HISTORIES_MAX: usize = 2000;

/// Messages that no driver of instances can do yet.
const REFUSED: [&str; 3] = ["PauseVmInstance", "ResumeVmInstance", "MigrateVm"];

/// Everything that has ever been claimed.
type Claimed = BTreeSet<Claim>;

fn rows<R: Resource>(snapshot: &Snapshot<Record>) -> Vec<R> {
    snapshot.list(R::KIND).map(|row| R::of(&row).unwrap().clone()).collect()
}

fn find<R: Resource>(snapshot: &Snapshot<Record>, id: Id<R>) -> R {
    snapshot.get(R::KIND, id.uuid()).as_deref().and_then(R::of).cloned().unwrap()
}

fn all(snapshot: &Snapshot<Record>) -> impl Iterator<Item = Arc<Record>> {
    Kind::ALL.iter().flat_map(|kind| snapshot.list(*kind))
}

/// A claim is held exactly by the row that has it.
fn claims_are_what_rows_have(snapshot: &Snapshot<Record>, claimed: &mut Claimed) {
    let mut held = Claimed::new();
    for row in all(snapshot) {
        for claim in row.claims() {
            assert_eq!(snapshot.holder(&claim), Some((row.kind(), row.uuid())), "{claim:?}");
            assert!(held.insert(claim.clone()), "two rows have {claim:?}");
        }
    }
    claimed.extend(held.iter().cloned());
    for claim in claimed.difference(&held) {
        assert_eq!(snapshot.holder(claim), None, "{claim:?}");
    }
}

/// Every reference is found from what it points at, and nothing else is.
fn references_are_found(snapshot: &Snapshot<Record>) {
    for row in all(snapshot) {
        for (field, value) in row.index() {
            if let Plain::Uuid(to) = value {
                let from = (row.kind(), field, row.uuid());
                assert!(snapshot.pointing(to).any(|found| found == from), "{from:?}");
            }
        }
        for (kind, field, uuid) in snapshot.pointing(row.uuid()) {
            let from = snapshot.get(kind, uuid).unwrap();
            let points = from.index().contains(&(field, Plain::Uuid(row.uuid())));
            assert!(points, "{field} of {from:?}");
        }
    }
}

/// What users see is somebody's.
fn all_is_owned(snapshot: &Snapshot<Record>) {
    let own = |kind: Kind| {
        kind.def().is_shown() && !matches!(kind, Kind::Account | Kind::GlobalConfig | Kind::Audit)
    };
    for row in all(snapshot).filter(|row| own(row.kind())) {
        let owner = row.meta.owner.unwrap_or_else(|| panic!("nobody owns {row:?}"));
        assert!(snapshot.get(Kind::Account, owner.uuid()).is_some(), "{row:?}");
    }
}

/// Addresses lie where they come from, and belong to what uses them.
fn addresses_fit(snapshot: &Snapshot<Record>) {
    for used in rows::<UsedIp>(snapshot) {
        let (range, l3) =
            (find(snapshot, used.ip_range_uuid), find(snapshot, used.l3_network_uuid));
        assert!((range.start_ip..=range.end_ip).contains(&used.ip), "{used:?} {range:?}");
        assert!(range.network_cidr.contains(&used.ip) && used.gateway != used.ip, "{used:?}");
        assert_eq!((range.l3_network_uuid, l3.l2_network_uuid), (l3.uuid, used.l2_network_uuid));
        assert!(snapshot.get(used.used_by.kind, used.used_by.uuid).is_some(), "{used:?}");
    }
    for nic in rows::<VmNic>(snapshot) {
        let instance = nic.vm_instance_uuid.map(|instance| find(snapshot, instance));
        let is_destroyed =
            instance.as_ref().is_some_and(|it: &VmInstance| it.phase == Phase::Destroyed);
        assert_eq!(nic.used_ip_uuid.is_none(), is_destroyed, "{nic:?} {instance:?}");
        if let Some(used) = nic.used_ip_uuid.map(|used| find(snapshot, used)) {
            assert_eq!(used.used_by.id(), Some(nic.uuid));
            assert_eq!(used.l3_network_uuid, nic.l3_network_uuid);
        }
        assert_eq!(nic.host_uuid, instance.and_then(|instance| instance.host_uuid));
    }
}

/// Ranges do not overlap, and what was taken from one lies in one.
fn ranges_fit(snapshot: &Snapshot<Record>) {
    let l2_of =
        |range: &IpRange| find::<L3Network>(snapshot, range.l3_network_uuid).l2_network_uuid;
    let ranges = rows::<IpRange>(snapshot);
    for (at, one) in ranges.iter().enumerate() {
        for other in ranges[at + 1..].iter().filter(|other| l2_of(other) == l2_of(one)) {
            let apart = one.end_ip < other.start_ip || other.end_ip < one.start_ip;
            assert!(apart, "{one:?} {other:?}");
        }
    }
    let vnis = rows::<VniRange>(snapshot);
    for network in rows::<L2Network>(snapshot) {
        let (Some(pool), Some(vni)) = (network.segment.pool(), network.segment.number()) else {
            continue;
        };
        let of_pool = vnis.iter().filter(|range| range.l2_network_uuid == pool);
        let mut of_pool = of_pool.filter(|range| (range.start_vni..=range.end_vni).contains(&vni));
        assert!(of_pool.next().is_some(), "{network:?}");
        assert_eq!(find(snapshot, pool).zone_uuid, network.zone_uuid);
    }
}

/// An instance is on one host, and no other one may still have it.
fn instances_are_on_one_host(snapshot: &Snapshot<Record>) {
    let mut places = BTreeSet::new();
    for claim in all(snapshot).flat_map(|row| row.claims()) {
        if let Claim::Running(_, instance) = claim {
            assert!(places.insert(instance), "{instance} may be on two hosts");
        }
    }
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

/// Gives the names of the messages that were done.
fn live(history: &[(usize, Vec<u8>)]) -> Vec<&'static str> {
    let mut names = Vec::new();
    let (cloud, messages) = (start(), messages());
    let mut claimed = Claimed::new();
    for (message, numbers) in history {
        let mut dice = Dice(numbers.iter());
        let def = messages[*message];
        let caller = caller(def, &mut dice, &cloud);
        let before = cloud.snapshot();
        let request = made_up(def, &before, &mut dice);
        let what = format!("{request:?}");
        // It checks that no reference leads nowhere.
        let result = cloud.send(caller, vec![request]);
        let after = cloud.snapshot();
        match result {
            Ok(done) => {
                hosts_are_told(&before, &after, &done);
                names.push(def.name);
            }
            Err(error) => {
                assert_ne!(error.code, Code::Internal, "{what}: {error}");
                assert_eq!(before.revision(), after.revision(), "{what} is refused, and done");
            }
        }
        claims_are_what_rows_have(&after, &mut claimed);
        references_are_found(&after);
        all_is_owned(&after);
        addresses_fit(&after);
        ranges_fit(&after);
        instances_are_on_one_host(&after);
    }
    let reopened: Store<Record> = Store::open(Box::new(cloud.engine.clone())).unwrap();
    assert!(all(&reopened.snapshot()).eq(all(&cloud.snapshot())), "a restart changes something");
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn some_things_hold_whatever_is_sent(history in histories()) {
        live(&history);
    }
}

/// Or the test above would prove nothing of a message that it never gets through with.
#[test]
fn every_message_succeeds_in_some_history() {
    let mut runner = TestRunner::deterministic();
    let mut done: BTreeMap<&str, u32> = messages().iter().map(|def| (def.name, 0)).collect();
    let mut tries = 0..HISTORIES_MAX;
    let open = |done: &BTreeMap<&str, u32>| {
        done.iter().any(|(message, times)| *times == 0 && !REFUSED.contains(message))
    };
    while open(&done) && tries.next().is_some() {
        let history = histories().new_tree(&mut runner).unwrap().current();
        live(&history).into_iter().for_each(|name| *done.entry(name).or_default() += 1);
    }
    done.retain(|message, times| *times == 0 && !REFUSED.contains(message));
    assert!(done.is_empty(), "never done: {:?}", done.keys());
}
