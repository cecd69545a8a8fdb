//! What queries find, however it is found, and what they may cost.

use std::collections::BTreeSet;

use model::{Code, Kind, Record, resource::vm_nic::VmNic, status::Board};
use serde_json::{Map, Value, json};
use store::{Read, Snapshot};
use uuid::Uuid;

use super::{
    fixture::{Cloud, POOL, account, board, id},
    search::Search,
    *,
};

/// Large enough that plans use what they find by indexes.
const CLOUD: Cloud = Cloud { nics: 400, nics_per_network: 100 };

fn all(kind: Kind) -> Query {
    Query::new(kind, &kind.def().faces[0], Scope::Everything)
}

fn when(mut query: Query, path: &str, operator: Operator, values: &[&str]) -> Query {
    let path = Path::read(query.kind, "q", path).unwrap();
    query.conditions.push(Condition::read("q", path, operator, values).unwrap());
    query
}

fn equal(kind: Kind, path: &str, value: &str) -> Query {
    when(all(kind), path, Operator::Equal, &[value])
}

fn ask(query: &Query, snapshot: &Snapshot<Record>) -> Found {
    run(query, &Observed::new(snapshot, &board())).unwrap()
}

fn page(query: &Query, snapshot: &Snapshot<Record>) -> Vec<Map<String, Value>> {
    ask(query, snapshot).inventories.unwrap()
}

/// One field of everything that is found.
fn values(query: &Query, field: &str, snapshot: &Snapshot<Record>) -> BTreeSet<String> {
    let found = page(query, snapshot).into_iter();
    found.map(|one| one[field].as_str().unwrap().to_owned()).collect()
}

fn texts(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn a_nic_is_found_by_its_first_address_and_by_any_on_a_path() {
    let snapshot = CLOUD.store().snapshot();
    let found = values(&equal(Kind::VmNic, "ip", "10.0.0.1"), "uuid", &snapshot);
    let expected = [0, 100, 200, 300].map(|n| id::<VmNic>(n).to_string());
    assert_eq!(found, expected.into());
    assert_eq!(page(&equal(Kind::VmNic, "ip", "fd00::1"), &snapshot), []);
    let found = values(&equal(Kind::VmNic, "usedIps.ip", "FD00:0::1"), "uuid", &snapshot);
    assert_eq!(found, [id::<VmNic>(0).to_string()].into());
}

/// Field case F32, for whoever asks.
#[test]
fn values_are_found_in_every_spelling() {
    let snapshot = CLOUD.store().snapshot();
    let uuid = id::<VmNic>(7).uuid();
    for (field, value) in [
        ("mac", "FA:4C:00:00:00:07".to_owned()),
        ("mac", "fa-4c-00-00-00-07".to_owned()),
        ("uuid", uuid.hyphenated().to_string()),
        ("uuid", uuid.simple().to_string().to_uppercase()),
    ] {
        let found = values(&equal(Kind::VmNic, field, &value), "mac", &snapshot);
        assert_eq!(found, texts(&["fa:4c:00:00:00:07"]), "{value}");
    }
}

#[test]
fn relations_lead_down_up_and_on() {
    let snapshot = CLOUD.store().snapshot();
    let names = |query: &Query| values(query, "name", &snapshot);
    let found = names(&equal(Kind::VmInstance, "vmNics.ip", "10.0.0.1"));
    assert_eq!(found, texts(&["vm-0", "vm-50", "vm-100", "vm-150"]));
    let query = when(found_in("l3-1"), "vmNics.ip", Operator::Equal, &["10.0.0.1"]);
    assert_eq!(names(&query), texts(&["vm-50"]));
    let found = names(&equal(Kind::L3Network, "vmNic.vmInstance.name", "vm-50"));
    assert_eq!(found, texts(&["l3-1"]));
    let found = names(&equal(Kind::Zone, "vmInstance.name", "vm-50"));
    assert_eq!(found, texts(&["zone-0"]));
    let found = names(&equal(Kind::L2Network, "cluster.name", "cluster-1"));
    assert_eq!(found, texts(&["vlan"]));
    let found = names(&equal(Kind::Cluster, "l2Network.name", "pool"));
    assert_eq!(found, texts(&["cluster-0"]));
}

#[test]
fn of_those_with_the_same_value_the_first_one_is_found() {
    let snapshot = CLOUD.store().snapshot();
    let grouped = |by: &str, direction: Option<Direction>| {
        let sort = direction.map(|to| Sort::by(Kind::VmNic, "sort", "mac", to).unwrap());
        let by = Some(inventory::single(Kind::VmNic, "groupBy", by).unwrap());
        Query { group_by: by, sort, tells: Tells::PageAndTotal, ..all(Kind::VmNic) }
    };
    let found = ask(&grouped("l3NetworkUuid", None), &snapshot);
    let networks: BTreeSet<String> =
        page(&all(Kind::L3Network), &snapshot).iter().map(|l3| l3["uuid"].to_string()).collect();
    let seen = found.inventories.unwrap();
    let seen: Vec<String> = seen.iter().map(|nic| nic["l3NetworkUuid"].to_string()).collect();
    assert_eq!((found.total, seen.len()), (Some(4), 4));
    assert!(seen.iter().all(|network| networks.contains(network)));
    for (direction, macs) in [
        (Direction::Ascending, ["fa:4c:00:00:00:00", "fa:4c:00:00:00:64"]),
        (Direction::Descending, ["fa:4c:00:00:01:8f", "fa:4c:00:00:01:2b"]),
    ] {
        let query = Query { limit: 2, ..grouped("l3NetworkUuid", Some(direction)) };
        let found = ask(&query, &snapshot);
        let shown = found.inventories.unwrap();
        assert_eq!(shown.iter().map(|nic| &nic["mac"]).collect::<Vec<_>>(), macs);
        assert_eq!(found.total, Some(4), "the page is cut, not the number of groups");
    }
    let counted = Query { tells: Tells::Total, ..grouped("l3NetworkUuid", None) };
    assert_eq!(ask(&counted, &snapshot), Found { inventories: None, total: Some(4) });
}

/// Instances in a network.
fn found_in(l3: &str) -> Query {
    equal(Kind::VmInstance, "vmNics.l3Network.name", l3)
}

#[test]
fn a_relation_meets_what_any_related_resource_meets() {
    let snapshot = CLOUD.store().snapshot();
    let vm = |query: Query| when(query, "name", Operator::Equal, &["vm-0"]);
    let query = when(all(Kind::VmInstance), "vmNics.ip", Operator::NotEqual, &["10.0.0.1"]);
    assert_eq!(page(&vm(query), &snapshot).len(), 1, "its other NIC has another address");
    let query = when(all(Kind::Host), "vmInstance.name", Operator::IsNull, &[]);
    assert_eq!(page(&query, &snapshot), [], "no related resource, or all have one");
}

type Conditions = &'static [(&'static str, Operator, &'static [&'static str])];

/// Queries over everything: fields, computed fields, relations both ways, with and without index.
const QUERIES: &[(Kind, Conditions)] = &[
    (Kind::VmNic, &[]),
    (Kind::VmNic, &[("ip", Operator::In, &["10.0.0.1", "10.0.0.2", "fd00::1"])]),
    (Kind::VmNic, &[("ip", Operator::Less, &["10.0.0.3"])]),
    (Kind::VmNic, &[("mac", Operator::Like, &["FA:4C:00:00:00:0_"])]),
    (Kind::VmNic, &[("vmInstance.name", Operator::Equal, &["vm-3"])]),
    (Kind::VmNic, &[("vmInstance.state", Operator::Equal, &["Running"])]),
    (Kind::VmNic, &[("vmInstance.host.name", Operator::Equal, &["host-1"])]),
    (Kind::VmNic, &[("l3Network.l2Network.vni", Operator::GreaterOrEqual, &["102"])]),
    (
        Kind::VmNic,
        &[
            ("l3Network.name", Operator::Equal, &["l3-1"]),
            ("vmInstance.zone.name", Operator::Like, &["zone%"]),
            ("deviceId", Operator::Equal, &["1"]),
        ],
    ),
    (Kind::VmInstance, &[("description", Operator::IsNull, &[])]),
    (Kind::VmInstance, &[("description", Operator::NotLike, &["%9"])]),
    (Kind::VmInstance, &[("state", Operator::NotIn, &["Stopped", "Running"])]),
    (Kind::VmInstance, &[("vmNics.ip", Operator::NotEqual, &["10.0.0.1"])]),
    (Kind::VmInstance, &[("zone.name", Operator::Equal, &["zone-0"])]),
    (Kind::VmInstance, &[("zone.name", Operator::Equal, &["zone-1"])]),
    (Kind::VmInstance, &[("cluster.l2Network.name", Operator::Equal, &["pool"])]),
    (Kind::VmInstance, &[("createDate", Operator::Greater, &["1970-01-01 00:01:00"])]),
    (Kind::UsedIp, &[("vmNic.vmInstance.name", Operator::Equal, &["vm-0"])]),
    (
        Kind::UsedIp,
        &[("ip", Operator::Equal, &["10.0.0.5"]), ("ipVersion", Operator::Equal, &["4"])],
    ),
    (Kind::L2Network, &[("attachedClusterUuids", Operator::NotNull, &[])]),
    (Kind::L2Network, &[("cluster.zone.name", Operator::Equal, &["zone-0"])]),
    (Kind::L2Network, &[("virtualNetworkId", Operator::In, &["5", "101"])]),
    (Kind::L3Network, &[("vmNic.ip", Operator::Equal, &["10.0.0.7"])]),
];

#[test]
fn every_plan_finds_what_looking_at_everything_finds() {
    let (snapshot, board) = (CLOUD.store().snapshot(), board());
    let mut nothing = 0;
    for scope in [Scope::Everything, Scope::SeenBy(account(0)), Scope::SeenBy(account(1))] {
        for (kind, conditions) in QUERIES {
            let mut query = Query { scope, limit: LIMIT_MAX, ..all(*kind) };
            query.tells = Tells::PageAndTotal;
            query.fields = Some(vec![inventory::entry(*kind, "fields", "uuid").unwrap()]);
            for (path, operator, values) in *conditions {
                query = when(query, path, *operator, values);
            }
            let view = Observed::new(&snapshot, &board);
            let search = Search { kind: *kind, scope, view: &view, looks_max: LOOKS_MAX };
            let meets = |record: &Record| {
                let one =
                    |c: &Condition| search.meets(record, &c.path.steps, (c.path.end, &c.test));
                scope.includes(&snapshot, record)
                    && query.conditions.iter().all(|c| one(c).unwrap())
            };
            let expected: Vec<Uuid> =
                snapshot.list(*kind).filter(|r| meets(r)).map(|r| r.uuid()).collect();
            let found = ask(&query, &snapshot);
            assert_eq!(found.total, Some(expected.len() as u64), "{conditions:?}");
            nothing += usize::from(scope == Scope::Everything && expected.is_empty());
            let uuids = found.inventories.unwrap().into_iter().map(|one| one["uuid"].clone());
            let expected: Vec<Value> =
                expected.into_iter().map(|id| id.simple().to_string().into()).collect();
            assert_eq!(uuids.collect::<Vec<_>>(), expected, "{kind:?} {conditions:?}");
            query.tells = Tells::Total;
            assert_eq!(ask(&query, &snapshot).total, found.total, "{conditions:?}");
        }
    }
    assert_eq!(nothing, 1, "all but the one about the empty zone find something");
}

#[test]
fn an_account_sees_its_own_and_looks_through_nobody_elses() {
    let snapshot = CLOUD.store().snapshot();
    let mine = |query: Query| Query { scope: Scope::SeenBy(account(1)), ..query };
    let total = |query: Query| ask(&Query { tells: Tells::Total, ..query }, &snapshot).total;
    assert_eq!(total(all(Kind::VmInstance)), Some(200));
    assert_eq!(total(mine(all(Kind::VmInstance))), Some(100));
    assert_eq!(total(mine(equal(Kind::VmInstance, "name", "vm-0"))), Some(0));
    assert_eq!(total(mine(equal(Kind::VmInstance, "zone.name", "zone-0"))), Some(0), "nor a zone");
    let network_of = |vm| mine(equal(Kind::L3Network, "vmNic.vmInstance.name", vm));
    assert_eq!(total(network_of("vm-51")), Some(1));
    assert_eq!(total(network_of("vm-50")), Some(0), "another account's NIC is not there");
}

#[test]
fn a_face_shows_its_type_alone() {
    let snapshot = CLOUD.store().snapshot();
    for face in Kind::L2Network.def().faces {
        let query = Query {
            tells: Tells::PageAndTotal,
            ..Query::new(Kind::L2Network, face, Scope::Everything)
        };
        let found = ask(&query, &snapshot);
        let expected = match face.name {
            "L2Network" => 8,
            "L2VxlanNetwork" => 4,
            _ => 1,
        };
        assert_eq!(found.total, Some(expected), "{}", face.name);
        let shown = found.inventories.unwrap();
        assert_eq!(shown.len() as u64, expected);
        let fits = |one: &Map<String, Value>| face.only.is_none_or(|(field, is)| one[field] == is);
        assert!(shown.iter().all(fits));
    }
}

#[test]
fn pages_make_up_the_whole_in_every_order() {
    let snapshot = CLOUD.store().snapshot();
    let by = |name: &str, direction| Some(Sort::by(Kind::VmNic, "sort", name, direction).unwrap());
    let unordered = page(&all(Kind::VmNic), &snapshot);
    assert_eq!(unordered.len(), 400);
    for sort in [
        None,
        by("ip", Direction::Ascending),
        by("deviceId", Direction::Descending),
        by("createDate", Direction::Descending),
        by("gateway", Direction::Ascending),
    ] {
        for narrow in [None, Some("Enabled")] {
            let mut query = Query { sort, ..all(Kind::VmNic) };
            if let Some(state) = narrow {
                query = when(query, "state", Operator::Equal, &[state]);
            }
            let whole = page(&query, &snapshot);
            let mut pages = Vec::new();
            for start in (0..450).step_by(70) {
                let query = Query { start, limit: 70, ..query.clone() };
                pages.extend(page(&query, &snapshot));
            }
            assert_eq!(pages, whole);
            assert_eq!(whole.len(), unordered.len());
        }
    }
    let query = Query { sort: by("deviceId", Direction::Descending), limit: 2, ..all(Kind::VmNic) };
    let first = page(&query, &snapshot);
    assert_eq!((&first[0]["deviceId"], &first[1]["deviceId"]), (&json!(1), &json!(1)));
    assert!(first[0]["uuid"].as_str() < first[1]["uuid"].as_str());
    Sort::by(Kind::VmInstance, "sort", "vmNics", Direction::Ascending).unwrap_err();
    Sort::by(Kind::L2Network, "sort", "attachedClusterUuids", Direction::Ascending).unwrap_err();
}

#[test]
fn what_costs_too_much_is_refused_with_what_costs_less() {
    let snapshot = CLOUD.store().snapshot();
    let board = Board::default();
    let view = || Observed::new(&snapshot, &board);
    let error = run(&Query { limit: LIMIT_MAX + 1, ..all(Kind::VmNic) }, &view()).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some("limit")));
    let few = Bounds { looks: 300, shown: SHOWN_MAX };
    let scan = when(all(Kind::VmNic), "deviceId", Operator::Equal, &["7"]);
    let error = page::run(&scan, &view(), few).unwrap_err();
    assert_eq!(error.code, Code::OperationFailed);
    let hint = error.hint.unwrap();
    for field in ["ip", "l3NetworkUuid", "mac", "uuid", "vmInstanceUuid"] {
        assert!(hint.contains(field), "{hint}");
    }
    let related = when(all(Kind::Zone), "vmInstance.vmNics.deviceId", Operator::Equal, &["7"]);
    page::run(&related, &view(), few).unwrap_err();
    page::run(&all(Kind::VmInstance), &view(), few).unwrap_err();
    page::run(&Query { limit: 10, ..all(Kind::VmInstance) }, &view(), few).unwrap();
    let small = Bounds { looks: LOOKS_MAX, shown: 300 };
    let error = page::run(&all(Kind::VmInstance), &view(), small).unwrap_err();
    assert!(error.hint.is_some_and(|hint| hint.contains("limit")));
    page::run(&Query { limit: 10, ..all(Kind::VmInstance) }, &view(), small).unwrap();
}

#[test]
fn a_long_list_is_cut_and_says_so() {
    let cloud = Cloud { nics: 1_001, nics_per_network: 1 };
    let snapshot = cloud.store().snapshot();
    let pool = id::<model::resource::l2_network::L2Network>(POOL).to_string();
    let shown = &page(&equal(Kind::L2Network, "uuid", &pool), &snapshot)[0];
    assert_eq!(shown["attachedVxlanNetworkRefs"].as_array().unwrap().len(), 1_000);
    assert_eq!(shown[inventory::TRUNCATED], json!(["attachedVxlanNetworkRefs"]));
    assert_eq!(shown["attachedVniRanges"], json!([]));
    assert_eq!(shown["attachedCidrs"].as_object().unwrap().len(), 1);
}

#[test]
fn an_inventory_shows_what_is_declared_and_no_more() {
    let snapshot = CLOUD.store().snapshot();
    let shown = &page(&equal(Kind::VmInstance, "name", "vm-0"), &snapshot)[0];
    assert_eq!(shown["state"], "Running");
    assert_eq!(shown["createDate"], "Jan 1, 1970 12:00:00 AM");
    assert!(!shown.contains_key("phase") && !shown.contains_key("defaultL3NetworkUuid"));
    let nics = shown["vmNics"].as_array().unwrap();
    assert_eq!((&nics[0]["deviceId"], &nics[1]["deviceId"]), (&json!(0), &json!(1)));
    assert_eq!(nics[0]["ip"], "10.0.0.1");
    let families: Vec<&Value> =
        nics[0]["usedIps"].as_array().unwrap().iter().map(|ip| &ip["ipVersion"]).collect();
    assert_eq!(families, [&json!(4), &json!(6)]);
    assert_eq!(nics[0]["usedIps"][0]["vmNicUuid"], id::<VmNic>(0).to_string());
    for kind in Kind::ALL.iter().filter(|kind| kind.def().is_shown()) {
        let hidden = kind.def().columns().filter(|column| column.hidden);
        let hidden: BTreeSet<&str> = hidden.map(|column| column.field.name).collect();
        for one in page(&all(*kind), &snapshot) {
            assert!(one.keys().all(|name| !hidden.contains(name.as_str())), "{one:?}");
            assert!(one.values().all(|value| !value.is_null()));
        }
    }
}

#[test]
fn only_the_chosen_fields_are_computed() {
    let snapshot = CLOUD.store().snapshot();
    let mut query = all(Kind::VmInstance);
    let board = board();
    let view = Observed::new(&snapshot, &board);
    query.fields = Some(vec![inventory::entry(Kind::VmInstance, "fields", "name").unwrap()]);
    let found = run(&query, &view).unwrap().inventories.unwrap();
    assert_eq!(found[0].keys().collect::<Vec<_>>(), ["name"]);
    assert_eq!(view.looks(), 200, "one look at each, none at NICs");
    let error = inventory::entry(Kind::VmInstance, "fields", "colour").unwrap_err();
    assert!(error.hint.unwrap().contains("vmNics"));
}
