//! Tags: what netloom takes, what people write, what is found by them, and where they go.

use model::{
    Code, Kind,
    resource::tag::{SystemTag, UserTag},
};
use netloom_control::{
    Caller, Request,
    inventory::Observed,
    query::{self, Condition, Operator, Path, Query},
};
use serde_json::json;
use store::Read;

use crate::harness::{ADMINISTRATOR, Cloud, request, tenant};

/// A VM in an L3 network.
fn with_vm() -> (Cloud, String, String) {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let tags = [format!("staticIp::{l3}::10.0.0.10")];
    let params = json!({"name": "vm", "l3NetworkUuids": [l3]});
    let reply = cloud.call_tagged("CreateVmInstance", params, &tags).unwrap();
    let vm = reply.subject.unwrap().1.simple().to_string();
    (cloud, l3, vm)
}

/// The names of the zones that a condition on tags finds.
fn found(cloud: &Cloud, name: &str, operator: Operator, values: &[&str]) -> Vec<String> {
    let mut query =
        Query::new(Kind::Zone, &Kind::Zone.def().faces[0], ADMINISTRATOR.scope().unwrap());
    let path = Path::read(Kind::Zone, "q", name).unwrap();
    query.conditions.push(Condition::read("q", path, operator, values).unwrap());
    let snapshot = cloud.snapshot();
    let found = query::run(&query, &Observed::new(&snapshot, &cloud.board)).unwrap();
    let found = found.inventories.unwrap().into_iter();
    let mut names: Vec<_> = found.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn zone(cloud: &Cloud, name: &str, tags: &[&str]) -> String {
    let user_tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let request = Request { user_tags, ..request("CreateZone", json!({"name": name})) };
    let done = cloud.send(ADMINISTRATOR, vec![request]).unwrap();
    done.reply.subject.unwrap().1.simple().to_string()
}

#[test]
fn resources_are_found_by_the_tags_that_they_were_made_with() {
    let cloud = Cloud::empty();
    for (name, tags) in [("a", &["web", "blue"][..]), ("b", &["web"]), ("c", &[])] {
        zone(&cloud, name, tags);
    }
    let cases: [(Operator, &[&str], &[&str]); 8] = [
        (Operator::Equal, &["web"], &["a", "b"]),
        (Operator::Equal, &["blue"], &["a"]),
        (Operator::NotEqual, &["blue"], &["b", "c"]),
        (Operator::In, &["blue", "red"], &["a"]),
        (Operator::NotIn, &["web", "red"], &["c"]),
        (Operator::Like, &["w%"], &["a", "b"]),
        (Operator::IsNull, &[], &["c"]),
        (Operator::NotNull, &[], &["a", "b"]),
    ];
    for (operator, values, expected) in cases {
        assert_eq!(found(&cloud, "__userTag__", operator, values), expected, "{operator:?}");
    }
    assert_eq!(found(&cloud, "__systemTag__", Operator::NotNull, &[]), Vec::<String>::new());
}

#[test]
fn a_tag_is_put_on_once_changed_taken_off_and_gone_with_its_resource() {
    let (cloud, _, vm) = with_vm();
    let tag = |tag: &str| json!({"resourceType": "VmInstanceVO", "resourceUuid": vm, "tag": tag});
    let system = cloud.made("CreateSystemTag", tag("hostname::web-1"));
    assert_eq!(cloud.made("CreateSystemTag", tag("hostname::web-1")), system, "there is one");
    cloud.call("UpdateSystemTag", json!({"uuid": system, "tag": "hostname::web-2"})).unwrap();
    let row = cloud.get::<SystemTag>(system.parse().unwrap()).unwrap();
    assert_eq!((row.tag.as_str(), row.inherent), ("hostname::web-2", false));
    let user = cloud.made("CreateUserTag", tag("anything at all"));
    cloud.call("DeleteTag", json!({"uuid": system})).unwrap();
    assert_eq!(cloud.get::<SystemTag>(system.parse().unwrap()), None);
    assert!(cloud.get::<UserTag>(user.parse().unwrap()).is_some());
    cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    assert!(cloud.get::<UserTag>(user.parse().unwrap()).is_some(), "it can be recovered");
    cloud.call("ExpungeVmInstance", json!({"uuid": vm})).unwrap();
    assert_eq!(cloud.get::<UserTag>(user.parse().unwrap()), None);
    cloud.call("DeleteTag", json!({"uuid": user})).unwrap();
}

#[test]
fn a_system_tag_that_a_resource_does_not_know_is_refused_with_those_that_it_knows() {
    let (cloud, l3, vm) = with_vm();
    let tag = |kind: &str, uuid: &str, tag: &str| json!({"resourceType": kind, "resourceUuid": uuid, "tag": tag});
    for (params, field, hint) in [
        (tag("VmInstanceVO", &vm, "colour::red"), "tag", "hostname::{hostname}"),
        (tag("VmInstanceVO", &vm, "hostname::-a"), "tag", "hyphens"),
        (tag("VmInstanceVO", &vm, &format!("staticIp::{l3}::10.0.0.9")), "tag", "when it is made"),
        (tag("L3NetworkVO", &l3, "colour::red"), "tag", "user tag"),
        (tag("L3NetworkVO", &vm, "hostname::a"), "resourceType", "VmInstanceVO"),
    ] {
        let (code, seen, text) = cloud.refusal("CreateSystemTag", params);
        assert_eq!((code, seen.as_deref()), (Code::InvalidArgument, Some(field)), "{text}");
        assert!(text.contains(hint), "{text}");
    }
    let odd = cloud.call_tagged(
        "CreateVmInstance",
        json!({"name": "a", "l3NetworkUuids": [l3]}),
        &["colour::red".to_owned()],
    );
    let error = odd.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("systemTags"));
    assert!(error.hint.unwrap().contains("staticIp::{l3NetworkUuid}::{ip}"));
}

#[test]
fn what_an_instance_was_made_with_is_kept_as_it_was_asked_for() {
    let (cloud, l3, _) = with_vm();
    let tags = [format!("staticIp::{l3}::10.0.0.12"), "hostname::web".to_owned()];
    let params = json!({"name": "a", "l3NetworkUuids": [l3]});
    let reply = cloud.call_tagged("CreateVmInstance", params, &tags).unwrap();
    let (_, vm) = reply.subject.unwrap();
    let snapshot = cloud.snapshot();
    let rows = snapshot.referrers(Kind::SystemTag, "resourceUuid", vm);
    let rows: Vec<_> = rows.map(|id| snapshot.get(Kind::SystemTag, id).unwrap()).collect();
    let mut kept: Vec<_> = rows
        .iter()
        .map(|row| model::Resource::of(row.as_ref()).cloned().unwrap())
        .map(|tag: SystemTag| (tag.tag, tag.inherent, tag.uuid.to_string()))
        .collect();
    kept.sort();
    assert_eq!((kept[0].0.as_str(), kept[0].1), ("hostname::web", false));
    assert_eq!((&kept[1].0, kept[1].1), (&tags[0], true));
    let (code, _, text) = cloud.refusal("DeleteTag", json!({"uuid": kept[1].2}));
    assert_eq!(code, Code::InvalidArgument, "{text}");
}

/// The texts of an instance's system tags, and their uuids.
fn tags_of(cloud: &Cloud, vm: &str) -> Vec<(String, String)> {
    let snapshot = cloud.snapshot();
    let vm = model::id::parse_uuid(vm).unwrap();
    let rows = snapshot.referrers(Kind::SystemTag, "resourceUuid", vm);
    let tags = rows.map(|id| cloud.get::<SystemTag>(model::Id::new(id)).unwrap());
    let mut tags: Vec<_> = tags.map(|row| (row.tag, row.uuid.to_string())).collect();
    tags.sort();
    tags
}

fn texts_of(cloud: &Cloud, vm: &str) -> Vec<String> {
    tags_of(cloud, vm).into_iter().map(|(text, _)| text).collect()
}

/// The names of the instances that have a system tag.
fn tagged(cloud: &Cloud, tag: &str) -> usize {
    let kind = Kind::VmInstance;
    let mut query = Query::new(kind, &kind.def().faces[0], ADMINISTRATOR.scope().unwrap());
    let path = Path::read(kind, "q", "__systemTag__").unwrap();
    query.conditions.push(Condition::read("q", path, Operator::Equal, &[tag]).unwrap());
    let snapshot = cloud.snapshot();
    let found = query::run(&query, &Observed::new(&snapshot, &cloud.board)).unwrap();
    found.inventories.unwrap().len()
}

#[test]
fn a_hostname_is_one_whether_a_tag_or_a_message_sets_it() {
    let (cloud, l3, vm) = with_vm();
    let tag = |tag: &str| json!({"resourceType": "VmInstanceVO", "resourceUuid": vm, "tag": tag});
    let name = |cloud: &Cloud| {
        let told = cloud.look(ADMINISTRATOR, "GetVmHostname", json!({"uuid": vm})).unwrap();
        told["hostname"].as_str().map(str::to_owned)
    };
    let row = cloud.made("CreateSystemTag", tag("hostname::web-1"));
    assert_eq!(name(&cloud).as_deref(), Some("web-1"));
    cloud.call("SetVmHostname", json!({"uuid": vm, "hostname": "web-2"})).unwrap();
    let hostname = ("hostname::web-2".to_owned(), row.clone());
    assert!(tags_of(&cloud, &vm).contains(&hostname), "the row is the same, and follows");
    assert_eq!((tagged(&cloud, "hostname::web-1"), tagged(&cloud, "hostname::web-2")), (0, 1));
    cloud.call("UpdateSystemTag", json!({"uuid": row, "tag": "hostname::web-3"})).unwrap();
    assert_eq!(name(&cloud).as_deref(), Some("web-3"));
    let (code, field, text) = cloud.refusal("CreateSystemTag", tag("hostname::web-4"));
    assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("tag")), "{text}");
    // Another one on the same network cannot have the name by a tag either.
    let other = cloud.made("CreateVmInstance", json!({"name": "b", "l3NetworkUuids": [l3]}));
    let mut taken = tag("hostname::WEB-3");
    taken["resourceUuid"] = other.into();
    let (_, field, text) = cloud.refusal("CreateSystemTag", taken);
    assert_eq!(field.as_deref(), Some("tag"), "{text}");
    cloud.call("DeleteTag", json!({"uuid": row})).unwrap();
    assert_eq!((name(&cloud), tagged(&cloud, "hostname::web-3")), (None, 0));
    cloud.call("SetVmHostname", json!({"uuid": vm, "hostname": "web-5"})).unwrap();
    assert_eq!(tagged(&cloud, "hostname::web-5"), 1);
    cloud.call("DeleteVmHostname", json!({"uuid": vm})).unwrap();
    assert_eq!(texts_of(&cloud, &vm), [format!("staticIp::{l3}::10.0.0.10")]);
}

#[test]
fn a_static_address_is_one_whether_a_tag_or_a_message_sets_it() {
    let (cloud, l3, vm) = with_vm();
    let before = tags_of(&cloud, &vm);
    let set = |ip: &str| json!({"vmInstanceUuid": vm, "l3NetworkUuid": l3, "ip": ip});
    cloud.call("SetVmStaticIp", set("10.0.0.12")).unwrap();
    let tag = format!("staticIp::{l3}::10.0.0.12");
    assert_eq!(tags_of(&cloud, &vm), [(tag.clone(), before[0].1.clone())]);
    assert_eq!((tagged(&cloud, &tag), tagged(&cloud, &before[0].0)), (1, 0));
    let (_, _, text) = cloud.refusal("DeleteTag", json!({"uuid": before[0].1}));
    assert!(text.contains("DeleteVmStaticIp"), "{text}");
    cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    assert_eq!(tagged(&cloud, &tag), 1, "it gets the address again when it is recovered");
    cloud.give_up_releases();
    cloud.call("RecoverVmInstance", json!({"uuid": vm})).unwrap();
    let no_more = json!({"vmInstanceUuid": vm, "l3NetworkUuid": l3});
    cloud.call("DeleteVmStaticIp", no_more).unwrap();
    assert_eq!(tags_of(&cloud, &vm), []);
    cloud.call("SetVmStaticIp", set("10.0.0.13")).unwrap();
    assert_eq!(texts_of(&cloud, &vm), [format!("staticIp::{l3}::10.0.0.13")]);
    cloud.call("DeleteL3Network", json!({"uuid": l3})).unwrap();
    assert_eq!(tags_of(&cloud, &vm), [], "its NIC went with the network");
}

#[test]
fn tags_are_as_many_and_as_visible_as_a_resource_can_bear() {
    let (cloud, l3, _) = with_vm();
    let red = tenant(&cloud, 7);
    let tag =
        |n: u32| json!({"resourceType": "L3NetworkVO", "resourceUuid": l3, "tag": format!("{n}")});
    for n in 0..100 {
        cloud.call("CreateUserTag", tag(n)).unwrap();
    }
    assert_eq!(cloud.refusal("CreateUserTag", tag(100)).0, Code::OperationFailed);
    let send = |caller: Caller| cloud.send(caller, vec![request("CreateUserTag", tag(101))]);
    assert_eq!(send(red).unwrap_err().code, Code::NotFound);
    cloud.call("ShareResource", json!({"resourceUuids": [l3], "toPublic": true})).unwrap();
    assert_eq!(send(red).unwrap_err().code, Code::AccessDenied);
    let wrong = json!({"resourceType": "L3NetworkVO", "resourceUuid": l3, "tag": "a\u{200b}"});
    assert_eq!(cloud.refusal("CreateUserTag", wrong).1.as_deref(), Some("tag"));
    let user_tags = vec!["a".to_owned()];
    let update = request("UpdateL3Network", json!({"uuid": l3}));
    let error = cloud.send(ADMINISTRATOR, vec![Request { user_tags, ..update }]).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("userTags"), "nothing would keep them");
}
