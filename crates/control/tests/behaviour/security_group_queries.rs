//! Members by a query over tags and accounts: they follow tags, owners and NICs at once.

use std::collections::BTreeSet;

use model::{
    Code, Id, Kind,
    resource::{host::Host, vm_instance::VmInstance, vm_nic::VmNic},
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, request, tenant},
    security_group_members::groups,
    security_groups::{group, guarded, guarded_l3, send},
    servers::race,
};

fn by_query(cloud: &Cloud, query: &str) -> String {
    cloud.made("CreateSecurityGroup", json!({"name": "q", "memberQuery": query}))
}

/// A VM with user tags.
fn vm(cloud: &Cloud, l3: &str, tags: &[&str]) -> (String, Id<VmNic>) {
    let mut create = request("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    create.user_tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let done = cloud.send(ADMINISTRATOR, vec![create]).unwrap();
    let vm = done.reply.subject.unwrap().1.simple().to_string();
    let nic = cloud.nics(&vm)[0].uuid;
    (vm, nic)
}

fn tag(cloud: &Cloud, vm: &str, tag: &str) -> String {
    let params = json!({"resourceType": "VmInstanceVO", "resourceUuid": vm, "tag": tag});
    cloud.made("CreateUserTag", params)
}

/// The host of an instance.
fn host_of(cloud: &Cloud, vm: &str) -> Id<Host> {
    cloud.get::<VmInstance>(vm.parse().unwrap()).unwrap().host_uuid.unwrap()
}

#[test]
fn what_tags_queries_and_settings_change_is_waited_for_wherever_it_counts() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = guarded_l3(&cloud, &fixture, "red");
    let (web_vm, web) = vm(&cloud, &l3, &[]);
    let (db_vm, db) = vm(&cloud, &l3, &[]);
    let (here, there) = (host_of(&cloud, &web_vm), host_of(&cloud, &db_vm));
    assert_ne!(here, there);
    let (webs, databases) = (by_query(&cloud, "role=web"), group(&cloud, "databases"));
    let put = json!({"securityGroupUuid": databases, "vmNicUuids": [db]});
    cloud.call("AddVmNicToSecurityGroup", put).unwrap();
    let rule = json!([{"type": "Ingress", "protocol": "ALL", "remoteSecurityGroupUuid": webs}]);
    cloud
        .call("AddSecurityGroupRule", json!({"securityGroupUuid": databases, "rules": rule}))
        .unwrap();

    let waits = |message: &str, params: Value, nic: Id<VmNic>| {
        let done = cloud.send(ADMINISTRATOR, vec![request(message, params)]).unwrap();
        assert!(done.objects.contains(&nic.uuid()), "{message}: {:?}", done.objects);
        (done.hosts, done.reply.subject)
    };
    let both = BTreeSet::from([here, there]);
    let tagged =
        |vm: &str| json!({"resourceType": "VmInstanceVO", "resourceUuid": vm, "tag": "role=web"});
    let (hosts, made) = waits("CreateUserTag", tagged(&web_vm), web);
    assert_eq!(hosts, both, "the tag says who is let in on the other host");
    assert_eq!(waits("DeleteTag", json!({"uuid": made.unwrap().1}), web).0, both);
    cloud.call("CreateUserTag", tagged(&web_vm)).unwrap();
    let query = |query: &str| json!({"uuid": webs, "memberQuery": query});
    assert_eq!(waits("UpdateSecurityGroup", query("role=other"), web).0, both);
    assert_eq!(waits("UpdateSecurityGroup", query("role=web"), web).0, both);

    let setting =
        json!({"category": "securityGroup", "name": "nic.withoutGroup", "resourceUuid": l3});
    let mut closed = setting.clone();
    closed["value"] = "Closed".into();
    assert_eq!(waits("UpdateResourceConfig", closed, web).0, both);
    assert_eq!(waits("DeleteResourceConfig", setting, web).0, both);
    // Of an instance that is made only now, no host knows anything that is wrong.
    let mut create = request("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    create.user_tags = vec!["role=web".to_owned()];
    assert_eq!(cloud.send(ADMINISTRATOR, vec![create]).unwrap().hosts.len(), 1);
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn members_follow_the_tags_of_instances() {
    let (cloud, _, l3) = guarded();
    let (_, early) = vm(&cloud, &l3, &["role=web", "env=prod"]);
    let web = by_query(&cloud, "role=web AND env!=test");
    assert_eq!(groups(&cloud, early), [web.as_str()], "those that are there");
    let (late_vm, late) = vm(&cloud, &l3, &["role::web"]);
    assert_eq!(groups(&cloud, late), [web.as_str()], "those that come, in ZStack's form, too");
    let test = tag(&cloud, &late_vm, "env=test");
    assert_eq!(groups(&cloud, late), none());
    cloud.call("DeleteTag", json!({"uuid": test})).unwrap();
    assert_eq!(groups(&cloud, late), [web.as_str()]);
    assert_eq!(groups(&cloud, early), [web.as_str()], "nobody else is touched");
    cloud.call("DestroyVmInstance", json!({"uuid": late_vm})).unwrap();
    cloud.call("ExpungeVmInstance", json!({"uuid": late_vm})).unwrap();
    cloud.call("DeleteSecurityGroup", json!({"uuid": web})).unwrap();
    assert_eq!(groups(&cloud, early), none(), "a group by query alone is not in use");
}

#[test]
fn members_follow_the_query() {
    let (cloud, _, l3) = guarded();
    let (_, a) = vm(&cloud, &l3, &["role=a"]);
    let (_, b) = vm(&cloud, &l3, &["role=b"]);
    let id = by_query(&cloud, "role=a");
    let set = |query: Value| {
        cloud.call("UpdateSecurityGroup", json!({"uuid": id, "memberQuery": query})).unwrap();
        [a, b].map(|nic| groups(&cloud, nic).len())
    };
    assert_eq!(set(json!("role=b")), [0, 1]);
    assert_eq!(set(json!("role=b OR role=a")), [1, 1]);
    assert_eq!(set(json!("account=admin")), [1, 1]);
    assert_eq!(set(json!("role=c")), [0, 0]);
    assert_eq!(
        set(json!("tag=role=a").as_str().map_or(json!("role=a"), |_| json!("role=a"))),
        [1, 0]
    );
    assert_eq!(set(Value::Null), [0, 0]);
}

#[test]
fn a_nic_may_be_in_a_group_for_both_reasons_and_leaves_when_none_is_left() {
    let (cloud, _, l3) = guarded();
    let (vm, nic) = vm(&cloud, &l3, &[]);
    let (id, other) = (by_query(&cloud, "role=web"), group(&cloud, "other"));
    let member = |group: &str| json!({"securityGroupUuid": group, "vmNicUuids": [nic]});
    let role = tag(&cloud, &vm, "role=web");
    cloud.call("AddVmNicToSecurityGroup", member(&other)).unwrap();
    assert_eq!(groups(&cloud, nic), [id.as_str(), other.as_str()]);
    let (code, field, _) = cloud.refusal("DeleteVmNicFromSecurityGroup", member(&id));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("vmNicUuids")));
    cloud.call("AddVmNicToSecurityGroup", member(&id)).unwrap();
    cloud.call("DeleteTag", json!({"uuid": role})).unwrap();
    assert_eq!(groups(&cloud, nic), [id.as_str(), other.as_str()], "it was put into it");
    tag(&cloud, &vm, "role=web");
    let refs = json!({"vmNicUuid": nic, "refs": [{"securityGroupUuid": other, "priority": 1}]});
    cloud.call("SetVmNicSecurityGroup", refs).unwrap();
    assert_eq!(groups(&cloud, nic), [other.as_str(), id.as_str()], "the query goes on to find it");
    assert_eq!(
        cloud
            .refusal(
                "ChangeResourceOwner",
                json!({
                    "accountUuid": tenant(&cloud, 7).account().unwrap(), "resourceUuid": id,
                })
            )
            .0,
        Code::InvalidArgument
    );
}

#[test]
fn members_follow_nics_and_owners() {
    let (cloud, fixture, l3) = guarded();
    let red = tenant(&cloud, 7).account().unwrap();
    let (vm, nic) = vm(&cloud, &l3, &["role=web"]);
    let admins = by_query(&cloud, "role=web");
    let reds = by_query(&cloud, "role=web AND account='tenant 7'");
    assert_eq!(groups(&cloud, nic), [admins.as_str()]);
    let second = cloud.l3(&fixture, "blue");
    let attach = json!({"vmInstanceUuid": vm, "l3NetworkUuid": second});
    cloud.call("AttachL3NetworkToVm", attach).unwrap();
    let nics = cloud.nics(&vm);
    let other = nics.iter().find(|one| one.uuid != nic).unwrap().uuid;
    assert_eq!(groups(&cloud, other), [admins.as_str()], "each NIC of the instance");
    let give = json!({"accountUuid": red, "resourceUuid": vm});
    cloud.call("ChangeResourceOwner", give).unwrap();
    assert_eq!(groups(&cloud, nic), [reds.as_str()]);
    let detach = json!({"vmNicUuid": other});
    cloud.call("DetachL3NetworkFromVm", detach).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::VmNicSecurityGroupRef), 1);
}

#[test]
fn an_account_finds_its_own_instances_alone() {
    let (cloud, _, l3) = guarded();
    let (red, blue) = (tenant(&cloud, 7), tenant(&cloud, 8));
    let (vm, nic) = vm(&cloud, &l3, &["role=web"]);
    let give = json!({"accountUuid": blue.account().unwrap(), "resourceUuid": vm});
    cloud.call("ChangeResourceOwner", give).unwrap();
    let make = |caller, query: &str| {
        let params = json!({"name": "q", "memberQuery": query});
        send(&cloud, caller, "CreateSecurityGroup", params)
    };
    make(red, "role=web").unwrap();
    assert_eq!(groups(&cloud, nic), none());
    let of_blue = make(blue, "account='tenant 8' AND role=web").unwrap();
    assert_eq!(groups(&cloud, nic), [of_blue.as_str()]);
    let platform = by_query(&cloud, "account='tenant 8'");
    assert_eq!(
        groups(&cloud, nic),
        [platform.as_str(), of_blue.as_str()],
        "an administrator's comes first"
    );
    let errors = ["account='tenant 8' AND role=web", "account=nobody"]
        .map(|query| make(red, query).unwrap_err());
    for error in errors {
        assert_eq!(
            (error.code, error.field.as_deref()),
            (Code::InvalidArgument, Some("memberQuery"))
        );
    }
}

#[test]
fn a_query_that_is_malformed_or_finds_everything_or_itself_is_refused() {
    let (cloud, _, _): (Cloud, Fixture, String) = guarded();
    for query in [
        "",
        " ",
        "role",
        "role=",
        "role!=web",
        "role=web OR env!=test",
        "group=web",
        "securityGroupUuid=00000000000000000000000000000001",
        "account!=admin",
        "(role=web)",
        "role=web AND",
        "account=00000000000000000000000000000bad",
    ] {
        let params = json!({"name": "q", "memberQuery": query});
        let (code, field, text) = cloud.refusal("CreateSecurityGroup", params);
        assert_eq!(
            (code, field.as_deref()),
            (Code::InvalidArgument, Some("memberQuery")),
            "{text}"
        );
    }
}

#[test]
fn a_nic_is_in_so_many_groups_and_a_tag_does_not_put_it_into_more() {
    let (cloud, _, l3) = guarded();
    let (vm, nic) = vm(&cloud, &l3, &[]);
    for _ in 0..32 {
        by_query(&cloud, "role=web");
    }
    let role = tag(&cloud, &vm, "role=web");
    assert_eq!(groups(&cloud, nic).len(), 32);
    let more = json!({"name": "q", "memberQuery": "role=web"});
    assert_eq!(cloud.refusal("CreateSecurityGroup", more).0, Code::OperationFailed);
    cloud.call("DeleteTag", json!({"uuid": role})).unwrap();
    by_query(&cloud, "role=web");
    let again = json!({"resourceType": "VmInstanceVO", "resourceUuid": vm, "tag": "role=web"});
    let (code, _, text) = cloud.refusal("CreateUserTag", again);
    assert_eq!(code, Code::OperationFailed);
    assert!(text.contains("33 security groups"), "{text}");
}

#[test]
fn two_servers_agree_on_members_and_places_whichever_comes_first() {
    for reverse in [false, true] {
        let (cloud, _, l3) = guarded();
        let (vm, nic) = vm(&cloud, &l3, &[]);
        let create = ("CreateSecurityGroup", json!({"name": "q", "memberQuery": "role=web"}));
        let role = json!({"resourceType": "VmInstanceVO", "resourceUuid": vm, "tag": "role=web"});
        let (a, b) = (create, ("CreateUserTag", role));
        let raced = if reverse { race(&cloud, b, a) } else { race(&cloud, a, b) };
        raced.unwrap();
        assert_eq!(groups(&cloud, nic).len(), 1, "{reverse}");
        let [one, two] = ["one", "two"].map(|name| group(&cloud, name));
        let refs = [&two, &one].into_iter().zip(1..);
        let refs: Vec<_> =
            refs.map(|(group, at)| json!({"securityGroupUuid": group, "priority": at})).collect();
        for id in [&one, &two] {
            let add = json!({"securityGroupUuid": id, "vmNicUuids": [nic]});
            cloud.call("AddVmNicToSecurityGroup", add).unwrap();
        }
        let three = json!({"securityGroupUuid": group(&cloud, "three"), "vmNicUuids": [nic]});
        let join = ("AddVmNicToSecurityGroup", three);
        let set = ("SetVmNicSecurityGroup", json!({"vmNicUuid": nic, "refs": refs}));
        let raced = if reverse { race(&cloud, set, join) } else { race(&cloud, join, set) };
        raced.unwrap();
        let expected = if reverse { 4 } else { 3 };
        assert_eq!(groups(&cloud, nic).len(), expected, "the second one decides");
    }
}
