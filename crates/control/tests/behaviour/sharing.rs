//! What accounts see of each other: nothing, until it is shared; then they use it and change nothing.

use model::{
    Code, Error, Id, Kind, Resource,
    resource::{
        account::{ADMIN, Account},
        l3_network::L3Network,
        sharing::SharedResource,
        vm_nic::VmNic,
    },
    shown::Face,
};
use netloom_control::{
    Caller,
    inventory::Observed,
    query::{self, Query, Tells},
};
use serde_json::{Map, Value, json};
use store::Read;

use crate::harness::{ADMINISTRATOR, Cloud, Fixture, request, tenant};

type Inventories = Vec<Map<String, Value>>;

/// Everything of a kind that a caller finds.
fn seen(cloud: &Cloud, caller: Caller, kind: Kind) -> Inventories {
    let face: &'static Face = &kind.def().faces[0];
    let snapshot = cloud.snapshot();
    let query =
        Query { tells: Tells::PageAndTotal, ..Query::new(kind, face, caller.scope().unwrap()) };
    let found = query::run(&query, &Observed::new(&snapshot, &cloud.board)).unwrap();
    let inventories = found.inventories.unwrap();
    assert_eq!(found.total, Some(inventories.len() as u64));
    inventories
}

fn uuids(found: &Inventories) -> Vec<&str> {
    found.iter().map(|one| one["uuid"].as_str().unwrap()).collect()
}

fn send(cloud: &Cloud, caller: Caller, name: &str, params: Value) -> Result<String, Error> {
    let done = cloud.send(caller, vec![request(name, params)])?;
    Ok(done.reply.subject.map(|(_, uuid)| uuid.simple().to_string()).unwrap_or_default())
}

/// A cloud with an administrator's L3 network.
fn with_l3() -> (Cloud, Fixture, String) {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    (cloud, fixture, l3)
}

/// ZStack's L3NetworkShareCase (P70).
#[test]
fn p70_a_shared_network_is_seen_with_its_ranges_until_that_is_revoked() {
    let (cloud, _, l3) = with_l3();
    let (red, blue) = (tenant(&cloud, 7), tenant(&cloud, 8));
    let account = red.account().unwrap();
    assert_eq!(seen(&cloud, red, Kind::L3Network), Inventories::new());
    let share = json!({"resourceUuids": [l3], "accountUuids": [account]});
    cloud.call("ShareResource", share.clone()).unwrap();
    cloud.call("ShareResource", share.clone()).unwrap();
    let networks = seen(&cloud, red, Kind::L3Network);
    assert_eq!(uuids(&networks), [&l3]);
    assert_eq!(networks[0]["ipRanges"].as_array().unwrap().len(), 1);
    assert_eq!(seen(&cloud, red, Kind::IpRange).len(), 1);
    assert_eq!(seen(&cloud, red, Kind::SharedResource).len(), 1, "once, though shared twice");
    for kind in [Kind::L3Network, Kind::IpRange, Kind::SharedResource, Kind::L2Network] {
        assert_eq!(seen(&cloud, blue, kind), Inventories::new(), "{kind:?}");
    }
    cloud.call("RevokeResourceSharing", share).unwrap();
    for kind in [Kind::L3Network, Kind::IpRange, Kind::SharedResource] {
        assert_eq!(seen(&cloud, red, kind), Inventories::new(), "{kind:?}");
    }
}

#[test]
fn what_is_public_is_seen_by_every_account_until_all_sharing_is_revoked() {
    let (cloud, _, l3) = with_l3();
    cloud.call("ShareResource", json!({"resourceUuids": [l3], "toPublic": true})).unwrap();
    let later = tenant(&cloud, 9);
    let account = later.account().unwrap();
    cloud.call("ShareResource", json!({"resourceUuids": [l3], "accountUuids": [account]})).unwrap();
    assert_eq!(uuids(&seen(&cloud, later, Kind::L3Network)), [&l3], "once, though in two ways");
    let shared = seen(&cloud, later, Kind::SharedResource);
    assert_eq!(shared.len(), 2);
    assert!(shared.iter().all(|one| one["resourceType"] == "L3NetworkVO"));
    assert!(
        shared
            .iter()
            .all(|one| one["ownerAccountUuid"]
                == model::resource::account::ADMIN.simple().to_string())
    );
    assert_eq!(seen(&cloud, tenant(&cloud, 10), Kind::L3Network).len(), 1);
    cloud.call("RevokeResourceSharing", json!({"resourceUuids": [l3], "all": true})).unwrap();
    assert_eq!(seen(&cloud, later, Kind::L3Network), Inventories::new());
    assert_eq!(cloud.snapshot().total(Kind::SharedResource), 0);
}

#[test]
fn what_is_shared_is_used_and_not_changed() {
    let (cloud, _, l3) = with_l3();
    let red = tenant(&cloud, 7);
    let range = seen(&cloud, ADMINISTRATOR, Kind::IpRange)[0]["uuid"].clone();
    cloud.call("ShareResource", json!({"resourceUuids": [l3], "toPublic": true})).unwrap();
    let instance =
        send(&cloud, red, "CreateVmInstance", json!({"name": "a", "l3NetworkUuids": [l3]}));
    let instance = instance.unwrap();
    for kind in [Kind::VmInstance, Kind::VmNic, Kind::UsedIp] {
        assert_eq!(seen(&cloud, red, kind).len(), 1, "{kind:?}");
    }
    let before = cloud.contents();
    for (message, params) in [
        ("UpdateL3Network", json!({"uuid": l3, "name": "mine"})),
        ("DeleteL3Network", json!({"uuid": l3})),
        ("UpdateIpRange", json!({"uuid": range, "name": "mine"})),
        ("DeleteIpRange", json!({"uuid": range})),
        ("AddIpRange", crate::harness::range(&l3, "10.0.0.20", "10.0.0.30")),
    ] {
        let error = send(&cloud, red, message, params).unwrap_err();
        assert_eq!(error.code, Code::AccessDenied, "{message}: {error}");
    }
    assert_eq!(cloud.contents(), before);
    cloud.call("RevokeResourceSharing", json!({"resourceUuids": [l3], "all": true})).unwrap();
    assert_eq!(cloud.nics(&instance).len(), 1, "what was made with it stays");
    let error = send(&cloud, red, "CreateVmNic", json!({"l3NetworkUuid": l3})).unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

#[test]
fn on_a_shared_network_tenants_neither_see_nor_are_told_of_each_other() {
    let (cloud, fixture, l3) = with_l3();
    let (red, blue) = (tenant(&cloud, 7), tenant(&cloud, 8));
    let everything = json!({"resourceUuids": [l3, fixture.pool], "toPublic": true});
    cloud.call("ShareResource", everything).unwrap();
    let nic = send(&cloud, red, "CreateVmNic", json!({"l3NetworkUuid": l3, "ip": "10.0.0.11"}));
    let nic = nic.unwrap();
    let used = seen(&cloud, ADMINISTRATOR, Kind::L2Network);
    let vni =
        (100..104).find(|vni| used.iter().all(|one| one.get("vni") != Some(&json!(vni)))).unwrap();
    let network = json!({"name": "red's", "poolUuid": fixture.pool, "vni": vni});
    let network = send(&cloud, red, "CreateL2VxlanNetwork", network).unwrap();
    let taken = json!({"l3NetworkUuid": l3, "ip": "10.0.0.11"});
    let error = send(&cloud, blue, "CreateVmNic", taken).unwrap_err();
    assert_eq!(error.message, "10.0.0.11 is taken");
    let taken = json!({"name": "blue's", "poolUuid": fixture.pool, "vni": vni});
    let error = send(&cloud, blue, "CreateL2VxlanNetwork", taken).unwrap_err();
    assert_eq!(error.message, format!("VNI {vni} is taken"));
    let taken = request("CreateVmNic", json!({"l3NetworkUuid": l3}));
    let uuid = model::id::parse_uuid(&nic);
    let taken = netloom_control::Request { resource_uuid: uuid, ..taken };
    let error = cloud.send(blue, vec![taken]).unwrap_err();
    assert_eq!((error.code, error.message), (Code::UuidTaken, format!("{nic} is taken")));
    let pools = seen(&cloud, blue, Kind::L2Network);
    assert_eq!(uuids(&pools), [&fixture.pool]);
    let of_others = Value::Object(pools[0].clone()).to_string();
    assert!(!of_others.contains(&network), "a list shows what is another's: {of_others}");
    let own = seen(&cloud, red, Kind::L2Network);
    let pool = own.iter().find(|one| one["uuid"] == fixture.pool).unwrap();
    assert_eq!(pool["attachedVxlanNetworkRefs"][0]["uuid"], network);
}

#[test]
fn on_a_shared_l2_network_ranges_of_others_are_not_named() {
    let (cloud, _, l3) = with_l3();
    let l2 = cloud.get::<L3Network>(l3.parse().unwrap()).unwrap().l2_network_uuid;
    cloud.call("ShareResource", json!({"resourceUuids": [l2], "toPublic": true})).unwrap();
    let red = tenant(&cloud, 7);
    let own = send(&cloud, red, "CreateL3Network", json!({"name": "own", "l2NetworkUuid": l2}));
    let own = own.unwrap();
    let taken = crate::harness::range(&own, "10.0.0.12", "10.0.0.20");
    let told = send(&cloud, red, "AddIpRange", taken).unwrap_err().to_string();
    assert!(!told.contains("10.0.0.13") && told.contains("another account's"), "{told}");
    let range = crate::harness::range(&own, "10.0.0.20", "10.0.0.30");
    send(&cloud, red, "AddIpRange", range).unwrap();
    let again = crate::harness::range(&own, "10.0.0.30", "10.0.0.40");
    let told = send(&cloud, red, "AddIpRange", again).unwrap_err().to_string();
    assert!(told.contains("overlaps range"), "its own is named: {told}");
}

#[test]
fn a_resource_changes_its_owner_with_its_parts_as_far_as_quota_allows() {
    let (cloud, _, l3) = with_l3();
    let red = tenant(&cloud, 7);
    let account = red.account().unwrap();
    let give = |uuid: &str| json!({"accountUuid": account, "resourceUuid": uuid});
    let instance = cloud.made("CreateVmInstance", json!({"name": "a", "l3NetworkUuids": [l3]}));
    cloud.call("ChangeResourceOwner", give(&instance)).unwrap();
    for kind in [Kind::VmInstance, Kind::VmNic, Kind::UsedIp] {
        assert_eq!(seen(&cloud, red, kind).len(), 1, "{kind:?}");
    }
    assert_eq!(seen(&cloud, red, Kind::L3Network), Inventories::new(), "it is no part of it");
    let nic = cloud.nics(&instance).remove(0).uuid.to_string();
    let (code, field, text) = cloud.refusal("ChangeResourceOwner", give(&nic));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("resourceUuid")), "{text}");
    let zone = seen(&cloud, ADMINISTRATOR, Kind::Zone)[0]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(cloud.refusal("ChangeResourceOwner", give(&zone)).0, Code::InvalidArgument);
    let none = json!({"identityUuid": account, "name": "l3.num", "value": 0});
    cloud.call("UpdateQuota", none).unwrap();
    assert_eq!(cloud.refusal("ChangeResourceOwner", give(&l3)).0, Code::QuotaExceeded);
    let one = json!({"identityUuid": account, "name": "l3.num", "value": 1});
    cloud.call("UpdateQuota", one).unwrap();
    cloud.call("ChangeResourceOwner", give(&l3)).unwrap();
    send(&cloud, red, "UpdateL3Network", json!({"uuid": l3, "name": "mine"})).unwrap();
    assert_eq!(seen(&cloud, red, Kind::IpRange).len(), 1);
}

#[test]
fn what_an_administrator_adds_to_a_tenants_resource_is_the_tenants() {
    let (cloud, _, l3) = with_l3();
    let red = tenant(&cloud, 7);
    cloud.give(Kind::L3Network, &l3, red.account().unwrap());
    cloud.made("AddIpRange", crate::harness::range(&l3, "10.0.0.20", "10.0.0.30"));
    assert_eq!(seen(&cloud, red, Kind::IpRange).len(), 1, "the one that was added later");
}

#[test]
fn only_networks_are_shared_and_somebody_has_to_be_named() {
    let (cloud, fixture, l3) = with_l3();
    let (code, field, text) =
        cloud.refusal("ShareResource", json!({"resourceUuids": [fixture.zone], "toPublic": true}));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("resourceUuids")), "{text}");
    assert!(text.contains("L2Network, L3Network"), "{text}");
    let (code, field, _) = cloud.refusal("ShareResource", json!({"resourceUuids": [l3]}));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("accountUuids")));
    let nobody = json!({"resourceUuids": ["0123456789abcdef0123456789abcdef"], "toPublic": true});
    assert_eq!(cloud.refusal("ShareResource", nobody).0, Code::NotFound);
    let error = send(&cloud, tenant(&cloud, 7), "ShareResource", json!({"resourceUuids": [l3]}));
    assert_eq!(error.unwrap_err().code, Code::AccessDenied);
}

#[test]
fn a_deleted_account_takes_along_what_it_owns_and_its_shares() {
    let (cloud, _, l3) = with_l3();
    let red = tenant(&cloud, 7);
    let account = red.account().unwrap();
    let share = json!({"resourceUuids": [l3], "accountUuids": [account]});
    cloud.call("ShareResource", share).unwrap();
    let nic = send(&cloud, red, "CreateVmNic", json!({"l3NetworkUuid": l3})).unwrap();
    let quota = json!({"identityUuid": account, "name": "l3.num", "value": 5});
    cloud.call("UpdateQuota", quota).unwrap();
    cloud.call("DeleteAccount", json!({"uuid": account})).unwrap();
    assert_eq!(cloud.get::<Account>(account), None);
    assert_eq!(cloud.get::<VmNic>(nic.parse().unwrap()), None);
    assert!(cloud.get::<L3Network>(l3.parse().unwrap()).is_some());
    for kind in [Kind::SharedResource, Kind::Quota, Kind::UsedIp] {
        assert_eq!(cloud.snapshot().total(kind), 0, "{kind:?}");
    }
    let error = send(&cloud, red, "CreateVmNic", json!({"l3NetworkUuid": l3})).unwrap_err();
    assert_eq!(error.code, Code::InvalidSession, "its open sessions make nothing any more");
    let admin = Id::<Account>::new(model::resource::account::ADMIN);
    assert_eq!(cloud.refusal("DeleteAccount", json!({"uuid": admin})).0, Code::InvalidArgument);
}

#[test]
fn owners_and_quotas_are_told_to_whom_they_concern() {
    let (cloud, _, l3) = with_l3();
    let (red, blue) = (tenant(&cloud, 7), tenant(&cloud, 8));
    let account = red.account().unwrap();
    cloud.give(Kind::L3Network, &l3, account);
    let ask = json!({"resourceUuids": [l3, "0123456789abcdef0123456789abcdef"]});
    let told = |caller| cloud.look(caller, "GetResourceAccount", ask.clone()).unwrap();
    assert_eq!(told(red)["inventories"][&l3]["uuid"], account.to_string());
    assert_eq!(told(red)["inventories"].as_object().unwrap().len(), 1);
    assert_eq!(told(blue), json!({"inventories": {}}));
    let usage = cloud.look(red, "GetAccountQuotaUsage", json!({"uuid": account})).unwrap();
    let l3s = json!({"name": "l3.num", "total": 20, "used": 1});
    assert!(usage["usages"].as_array().unwrap().contains(&l3s), "{usage}");
    let error = cloud.look(blue, "GetAccountQuotaUsage", json!({"uuid": account})).unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let (code, field, text) = cloud
        .refusal("UpdateQuota", json!({"identityUuid": account, "name": "l4.num", "value": 1}));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("name")));
    assert!(text.contains("l3.num"), "{text}");
}

/// An account looks for what is shared with it by index: others' shares cost it nothing.
#[test]
fn many_shares_of_others_are_not_looked_at() {
    let (cloud, _, l3) = with_l3();
    let red = tenant(&cloud, 7);
    cloud.call("ShareResource", json!({"resourceUuids": [l3], "toPublic": true})).unwrap();
    let share = move |tx: &mut store::Tx<model::Record>| {
        for n in 0..2000_u128 {
            let shared = SharedResource {
                uuid: Id::new(uuid::Uuid::from_u128(0x1000 + n)),
                resource: model::AnyId { kind: Kind::L3Network, uuid: uuid::Uuid::from_u128(n) },
                receiver_account_uuid: Some(Id::new(uuid::Uuid::from_u128(0xdead))),
            };
            tx.put(model::Record::new(shared, model::Meta::default())).unwrap();
        }
        Ok(())
    };
    cloud.store.transact(share).unwrap();
    let snapshot = cloud.snapshot();
    let face = &L3Network::DEF.faces[0];
    let query = Query::new(Kind::L3Network, face, red.scope().unwrap());
    let view = Observed::new(&snapshot, &cloud.board);
    assert_eq!(query::run(&query, &view).unwrap().inventories.unwrap().len(), 1);
    assert!(view.looks() < 20, "looked at {}", view.looks());
}

/// Nor does it cost much to find one among many that are shared with it.
#[test]
fn one_of_many_shared_resources_is_found_without_looking_at_the_others() {
    let (cloud, _, l3) = with_l3();
    let red = tenant(&cloud, 7);
    let network = cloud.get::<L3Network>(l3.parse().unwrap()).unwrap();
    let share = move |tx: &mut store::Tx<model::Record>| {
        for n in 0..2000_u128 {
            let l3 = L3Network { uuid: Id::new(uuid::Uuid::from_u128(n)), ..network.clone() };
            let shared = SharedResource {
                uuid: Id::new(uuid::Uuid::from_u128(0x1000 + n)),
                resource: model::AnyId::of(l3.uuid),
                receiver_account_uuid: red.account(),
            };
            tx.put(model::Record::new(l3, model::Meta::default())).unwrap();
            tx.put(model::Record::new(shared, model::Meta::default())).unwrap();
        }
        Ok(())
    };
    cloud.store.transact(share).unwrap();
    let (snapshot, face) = (cloud.snapshot(), &L3Network::DEF.faces[0]);
    let all = Query::new(Kind::L3Network, face, red.scope().unwrap());
    let mut one = all.clone();
    let path = query::Path::read(Kind::L3Network, "q", "uuid").unwrap();
    let wanted = uuid::Uuid::from_u128(77).simple().to_string();
    let is_it = query::Condition::read("q", path, query::Operator::Equal, &[&wanted]).unwrap();
    one.conditions.push(is_it);
    let view = Observed::new(&snapshot, &cloud.board);
    assert_eq!(query::run(&one, &view).unwrap().inventories.unwrap().len(), 1);
    assert!(view.looks() < 20, "looked at {}", view.looks());
    let total = Query { tells: Tells::Total, ..all };
    let view = Observed::new(&snapshot, &cloud.board);
    assert_eq!(query::run(&total, &view).unwrap().total, Some(2000));
}

/// An administrator's offering and image, which are there for others to use.
#[test]
fn offerings_and_images_that_are_shared_are_used_and_not_changed() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let red = tenant(&cloud, 7);
    let l3 = cloud.l3(&fixture, "red");
    let offering = json!({"name": "small", "cpuNum": 2, "memorySize": 1 << 30});
    let offering = cloud.made("CreateInstanceOffering", offering);
    let image = json!({"name": "i", "url": "http://192.0.2.1/i", "format": "qcow2"});
    let image = cloud.made("AddImage", image);
    fixture.hosts.iter().for_each(|host| cloud.acked(host, 0));
    let all = json!({"resourceUuids": [l3], "toPublic": true});
    cloud.call("ShareResource", all).unwrap();
    let vm = json!({
        "name": "vm", "l3NetworkUuids": [l3], "instanceOfferingUuid": offering, "imageUuid": image,
    });
    let error = send(&cloud, red, "CreateVmInstance", vm.clone()).unwrap_err();
    assert_eq!(error.code, Code::NotFound, "{error}");
    let share =
        json!({"resourceUuids": [offering, image], "accountUuids": [red.account().unwrap()]});
    cloud.call("ShareResource", share.clone()).unwrap();
    for (kind, uuid) in [(Kind::InstanceOffering, &offering), (Kind::Image, &image)] {
        assert_eq!(uuids(&seen(&cloud, red, kind)), [uuid]);
    }
    send(&cloud, red, "CreateVmInstance", vm).unwrap();
    let rename = json!({"uuid": image, "name": "mine"});
    let error = send(&cloud, red, "UpdateImage", rename).unwrap_err();
    assert_eq!(error.code, Code::AccessDenied, "{error}");
    cloud.call("RevokeResourceSharing", share).unwrap();
    assert_eq!(seen(&cloud, red, Kind::Image), Inventories::new());
    assert_eq!(seen(&cloud, red, Kind::VmInstance).len(), 1, "what was made of it stays");
}

/// What a query of who owns what finds, how many in all, and how many rows were looked at.
fn refs(cloud: &Cloud, caller: Caller, conditions: &[(&str, &str)]) -> (Inventories, u64) {
    let kind = Kind::AccountResourceRef;
    let mut query = Query::new(kind, &kind.def().faces[0], caller.scope().unwrap());
    query.tells = Tells::PageAndTotal;
    for (field, value) in conditions {
        let path = query::Path::read(kind, "q", field).unwrap();
        let is_it = query::Condition::read("q", path, query::Operator::Equal, &[value]).unwrap();
        query.conditions.push(is_it);
    }
    let snapshot = cloud.snapshot();
    let view = Observed::new(&snapshot, &cloud.board);
    let found = query::run(&query, &view).unwrap();
    let inventories = found.inventories.unwrap();
    assert_eq!(found.total, Some(inventories.len() as u64), "{conditions:?}");
    let counted = Query { tells: Tells::Total, ..query.clone() };
    assert_eq!(query::run(&counted, &view).unwrap().total, found.total, "{conditions:?}");
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = Query { limit: 2, after, tells: Tells::Page, ..query.clone() };
        let page = query::run(&page, &view).unwrap().inventories.unwrap();
        let Some(last) = page.last() else { break };
        after = model::id::parse_uuid(last["uuid"].as_str().unwrap());
        pages.extend(page);
    }
    assert_eq!(pages, inventories, "page by page it is the same: {conditions:?}");
    for start in 0..inventories.len().min(5) {
        let rest = Query { start, tells: Tells::Page, ..query.clone() };
        let rest = query::run(&rest, &view).unwrap().inventories.unwrap();
        assert_eq!(rest, inventories[start..], "{conditions:?} from {start} on");
    }
    let view = Observed::new(&snapshot, &cloud.board);
    query::run(&query, &view).unwrap();
    (inventories, view.looks())
}

/// Every owner stands in one row, whatever the kind of what it owns; an account is told of its own.
#[test]
fn who_owns_what_is_told_of_every_kind_to_whom_it_concerns() {
    let (cloud, _, l3) = with_l3();
    let (red, blue) = (tenant(&cloud, 7), tenant(&cloud, 8));
    let account = red.account().unwrap().to_string();
    cloud.call("ShareResource", json!({"resourceUuids": [l3], "toPublic": true})).unwrap();
    let instance =
        send(&cloud, red, "CreateVmInstance", json!({"name": "a", "l3NetworkUuids": [l3]}));
    let instance = instance.unwrap();
    let nic = cloud.nics(&instance).remove(0).uuid.to_string();
    let shown = |record: &model::Record| record.kind().def().is_shown();
    let mut owned: Vec<_> = cloud.contents().into_iter().filter(shown).collect();
    owned.retain(|record| record.meta.owner.is_some());
    owned.sort_by_key(model::Record::uuid);
    let expected = |of: Option<&str>| -> Vec<(String, String, String)> {
        let owned = owned.iter().map(|record| {
            let owner = record.meta.owner.unwrap().to_string();
            (record.uuid().simple().to_string(), owner, format!("{}VO", record.kind().def().name))
        });
        owned.filter(|(_, owner, _)| of.is_none_or(|of| of == owner)).collect()
    };
    let text = |row: &Map<String, Value>, field: &str| row[field].as_str().unwrap().to_owned();
    let told = |caller: Caller, conditions: &[(&str, &str)]| -> Vec<_> {
        let rows = refs(&cloud, caller, conditions).0;
        rows.iter()
            .map(|row| {
                assert_eq!(row["accountUuid"], row["ownerAccountUuid"]);
                assert_eq!((&row["uuid"], &row["permission"]), (&row["resourceUuid"], &json!(2)));
                (text(row, "resourceUuid"), text(row, "accountUuid"), text(row, "resourceType"))
            })
            .collect()
    };
    let all = expected(None);
    assert_eq!(told(ADMINISTRATOR, &[]), all);
    assert!(
        all.iter().any(|(id, owner, kind)| (id, owner) == (&nic, &account) && kind == "VmNicVO")
    );
    assert!(!all.iter().any(|(id, ..)| *id == account), "nobody owns an account: no row");
    assert_eq!(told(ADMINISTRATOR, &[("accountUuid", &account)]), expected(Some(&account)));
    assert_eq!(told(ADMINISTRATOR, &[("account.name", "tenant 7")]), expected(Some(&account)));
    assert_eq!(told(red, &[]), expected(Some(&account)), "nothing of what is only shared with it");
    assert_eq!(told(blue, &[]), []);
    assert_eq!(told(blue, &[("resourceUuid", &nic)]), []);
    assert_eq!(told(red, &[("resourceUuid", &l3)]), []);
    let of_kind = |kind: &str| all.iter().filter(|row| row.2 == kind).cloned().collect::<Vec<_>>();
    assert_eq!(told(ADMINISTRATOR, &[("resourceType", "L3NetworkVO")]), of_kind("L3NetworkVO"));
    assert_eq!(told(ADMINISTRATOR, &[("resourceType", "AccountVO")]), []);
    assert_eq!(told(ADMINISTRATOR, &[("resourceUuid", &account)]), []);
    let both = [("resourceType", "VmNicVO"), ("accountUuid", account.as_str())];
    assert_eq!(told(red, &both), of_kind("VmNicVO"));
    let shared = |uuid: &str| {
        refs(&cloud, ADMINISTRATOR, &[("resourceUuid", uuid)]).0[0]["isShared"].clone()
    };
    assert_eq!((shared(&l3), shared(&nic)), (json!(true), json!(false)));
}

#[test]
fn who_owns_what_is_found_without_looking_at_what_others_own() {
    let (cloud, _, l3) = with_l3();
    let red = tenant(&cloud, 7);
    let network = cloud.get::<L3Network>(l3.parse().unwrap()).unwrap();
    let put = move |tx: &mut store::Tx<model::Record>| {
        for n in 0..2000_u128 {
            let l3 =
                L3Network { uuid: Id::new(uuid::Uuid::from_u128(0x1000 + n)), ..network.clone() };
            let meta = model::Meta { owner: Some(Id::new(ADMIN)), ..model::Meta::default() };
            tx.put(model::Record::new(l3, meta)).unwrap();
        }
        Ok(())
    };
    cloud.store.transact(put).unwrap();
    let account = red.account().unwrap();
    cloud.give(Kind::L3Network, &l3, account);
    for conditions in [
        &[("accountUuid", &*account.to_string())][..],
        &[("resourceUuid", &*l3)],
        &[("resourceType", "L3NetworkVO"), ("accountUuid", &*account.to_string())],
        &[("resourceType", "IpRangeVO")],
    ] {
        let (found, looks) = refs(&cloud, ADMINISTRATOR, conditions);
        assert!((1..=2).contains(&found.len()), "{conditions:?}: {found:?}");
        assert!(looks < 20, "{conditions:?}: looked at {looks}");
    }
    assert!(refs(&cloud, red, &[]).1 < 20);
}
