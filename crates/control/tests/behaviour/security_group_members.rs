//! Who is in which security group, in which order, and what happens to what no rule decides.

use model::{
    Code, Id, Kind,
    resource::{
        account::ADMIN,
        security_group::SecurityGroup,
        security_group_member::{NicPolicy, VmNicSecurityGroupRef, VmNicSecurityPolicy},
        vm_nic::VmNic,
    },
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, Cloud, tenant},
    l3::shown,
    security_groups::{group, guarded, guarded_l3, send},
};

/// The groups of a NIC, in their order.
pub(crate) fn groups(cloud: &Cloud, nic: Id<VmNic>) -> Vec<String> {
    let snapshot = cloud.snapshot();
    let rows = snapshot.referrers(Kind::VmNicSecurityGroupRef, "vmNicUuid", nic.uuid());
    let mut rows: Vec<VmNicSecurityGroupRef> =
        rows.map(|id| cloud.get(Id::new(id)).unwrap()).collect();
    rows.sort_by_key(|row| row.priority);
    assert!(rows.iter().zip(1..).all(|(row, at)| row.priority == at), "{rows:?}");
    let policy = cloud.get(VmNicSecurityPolicy::id_of(nic));
    assert_eq!(policy.is_some(), !rows.is_empty(), "a policy while there are groups");
    rows.into_iter().map(|row| row.security_group_uuid.to_string()).collect()
}

fn nic(cloud: &Cloud, l3: &str) -> Id<VmNic> {
    cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3})).parse().unwrap()
}

fn member(group: &str, nics: &[Id<VmNic>]) -> Value {
    json!({"securityGroupUuid": group, "vmNicUuids": nics})
}

fn refs(nic: Id<VmNic>, groups: &[&str]) -> Value {
    let refs = (1..).zip(groups);
    let refs = refs.map(|(at, group)| json!({"securityGroupUuid": group, "priority": at}));
    json!({"vmNicUuid": nic, "refs": refs.collect::<Vec<_>>()})
}

const ADD: &str = "AddVmNicToSecurityGroup";
const SET: &str = "SetVmNicSecurityGroup";

#[test]
fn a_nic_is_in_groups_in_the_order_that_is_chosen() {
    let (cloud, _, l3) = guarded();
    let [a, b, c] = ["a", "b", "c"].map(|name| group(&cloud, name));
    let nic = nic(&cloud, &l3);
    for group in [&a, &b, &c] {
        cloud.call(ADD, member(group, &[nic])).unwrap();
    }
    assert_eq!(groups(&cloud, nic), [a.clone(), b.clone(), c.clone()]);
    let (code, field, _) = cloud.refusal(ADD, member(&b, &[nic]));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("vmNicUuids")));
    cloud.call("DeleteVmNicFromSecurityGroup", member(&a, &[nic])).unwrap();
    assert_eq!(groups(&cloud, nic), [b.clone(), c.clone()]);
    cloud.call(SET, refs(nic, &[&c, &a, &b])).unwrap();
    assert_eq!(groups(&cloud, nic), [c.clone(), a.clone(), b.clone()]);
    for wrong in [
        json!({"vmNicUuid": nic}),
        json!({"vmNicUuid": nic, "refs": [{"securityGroupUuid": a, "priority": 2}]}),
        json!({"vmNicUuid": nic, "refs": [{"securityGroupUuid": a, "priority": 0}]}),
        json!({"vmNicUuid": nic, "refs": [{"priority": 1}]}),
        refs(nic, &[&a, &a]),
    ] {
        let (code, field, text) = cloud.refusal(SET, wrong);
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("refs")), "{text}");
    }
    let nowhere = refs(nic, &["00000000000000000000000000000bad"]);
    assert_eq!(cloud.refusal(SET, nowhere).0, Code::NotFound);
    cloud.call(SET, refs(nic, &[])).unwrap();
    assert_eq!(groups(&cloud, nic), Vec::<String>::new());
    cloud.call("DeleteVmNicFromSecurityGroup", member(&a, &[nic])).unwrap();
}

#[test]
fn many_nics_are_put_into_a_group_or_none() {
    let (cloud, fixture, l3) = guarded();
    let bare = nic(&cloud, &cloud.l3(&fixture, "bare"));
    let (a, one) = (group(&cloud, "a"), nic(&cloud, &l3));
    let (code, field, text) = cloud.refusal(ADD, member(&a, &[one, bare]));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("vmNicUuids")));
    assert!(text.contains("has no service SecurityGroup"), "{text}");
    let nobody = Id::new(uuid::Uuid::from_u128(0xbad));
    assert_eq!(cloud.refusal(ADD, member(&a, &[one, nobody])).0, Code::NotFound);
    assert_eq!(groups(&cloud, one), Vec::<String>::new());
    let candidates = || {
        let params = json!({"securityGroupUuid": a});
        let found = cloud.look(ADMINISTRATOR, "GetCandidateVmNicForSecurityGroup", params).unwrap();
        let found = found["inventories"].as_array().unwrap().clone();
        found.iter().map(|nic| nic["uuid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(candidates(), [one.to_string()]);
    cloud.call(ADD, member(&a, &[one])).unwrap();
    assert_eq!(candidates(), Vec::<String>::new());
}

/// ZStack's ChangeVmNicSecurityPolicyCase.
#[test]
fn p54_a_nic_in_a_group_has_a_policy_that_changes() {
    const CHANGE: &str = "ChangeVmNicSecurityPolicy";
    let (cloud, _, l3) = guarded();
    let (a, nic) = (group(&cloud, "a"), nic(&cloud, &l3));
    let with = |fields: Value| {
        let mut message = json!({"vmNicUuid": nic});
        message.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        message
    };
    let (code, field, _) = cloud.refusal(CHANGE, with(json!({"ingressPolicy": "ALLOW"})));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("vmNicUuid")));
    cloud.call(ADD, member(&a, &[nic])).unwrap();
    let policy = || {
        let policy = cloud.get(VmNicSecurityPolicy::id_of(nic)).unwrap();
        (policy.ingress_policy, policy.egress_policy)
    };
    assert_eq!(policy(), (NicPolicy::Deny, NicPolicy::Allow));
    assert_eq!(cloud.refusal(CHANGE, with(json!({}))).0, Code::InvalidArgument);
    assert_eq!(cloud.refusal(CHANGE, with(json!({"ingressPolicy": "DROP"}))).0, code);
    for (fields, expected) in [
        (json!({"ingressPolicy": "ALLOW"}), (NicPolicy::Allow, NicPolicy::Allow)),
        (json!({"egressPolicy": "DENY"}), (NicPolicy::Allow, NicPolicy::Deny)),
        (
            json!({"ingressPolicy": "DENY", "egressPolicy": "ALLOW"}),
            (NicPolicy::Deny, NicPolicy::Allow),
        ),
    ] {
        cloud.call(CHANGE, with(fields)).unwrap();
        assert_eq!(policy(), expected);
    }
}

#[test]
fn what_no_rule_decides_is_by_default_what_the_settings_say() {
    let (cloud, _, l3) = guarded();
    let a = group(&cloud, "a");
    for (name, value) in [("ingress", "accept"), ("egress", "acceptUntilRule")] {
        let name = format!("{name}.defaultPolicy");
        let set = json!({"category": "securityGroup", "name": name, "value": value});
        cloud.call("UpdateGlobalConfig", set).unwrap();
    }
    let nic = nic(&cloud, &l3);
    cloud.call(ADD, member(&a, &[nic])).unwrap();
    let policy = cloud.get(VmNicSecurityPolicy::id_of(nic)).unwrap();
    assert_eq!(policy.ingress_policy, NicPolicy::Allow);
    assert_eq!(policy.egress_policy, NicPolicy::AllowUntilRule);
    assert!(policy.egress_policy.allows(false) && !policy.egress_policy.allows(true), "P51");
}

#[test]
fn a_nic_is_born_in_its_groups() {
    let (cloud, _, l3) = guarded();
    let [a, b] = ["a", "b"].map(|name| group(&cloud, name));
    let create = |list: &str, l3: &str| {
        let tags = [format!("l3::{l3}::SecurityGroupUuids::{list}")];
        let params = json!({"name": "vm", "l3NetworkUuids": [l3]});
        cloud.call_tagged("CreateVmInstance", params, &tags)
    };
    let vm = create(&format!("{b},{a}"), &l3).unwrap().subject.unwrap().1;
    let nic = cloud.nics(&vm.simple().to_string())[0].uuid;
    assert_eq!(groups(&cloud, nic), [b.clone(), a.clone()]);
    let shown =
        shown(&cloud, Kind::VmNicSecurityPolicy, &VmNicSecurityPolicy::id_of(nic).to_string());
    assert_eq!(shown["vmNicUuid"], nic.to_string());
    for (list, code) in [
        (format!("{a},{a}"), Code::InvalidArgument),
        (format!("{a},"), Code::InvalidArgument),
        ("x".to_owned(), Code::InvalidArgument),
        ("00000000000000000000000000000bad".to_owned(), Code::NotFound),
    ] {
        let error = create(&list, &l3).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (code, Some("systemTags")), "{list}");
    }
    let vm = vm.simple().to_string();
    cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    assert_eq!(groups(&cloud, nic), [b.clone(), a], "it may be recovered");
    assert_eq!(cloud.refusal("DeleteSecurityGroup", json!({"uuid": b})).0, Code::InUse);
    cloud.call("ExpungeVmInstance", json!({"uuid": vm})).unwrap();
    cloud.call("DeleteSecurityGroup", json!({"uuid": b})).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::VmNicSecurityPolicy), 0);
}

#[test]
fn an_account_may_have_a_default_group_for_nics_without_a_choice() {
    let (cloud, fixture, l3) = guarded();
    let before = nic(&cloud, &l3);
    let set = json!({"category": "securityGroup", "name": "defaultGroup", "resourceUuid":
        Id::<model::resource::account::Account>::new(ADMIN), "value": "Account"});
    cloud.call("UpdateResourceConfig", set).unwrap();
    let default = SecurityGroup::default_of(Id::new(ADMIN)).to_string();
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    assert_eq!(groups(&cloud, cloud.nics(&vm)[0].uuid), [default.clone()]);
    assert_eq!(groups(&cloud, nic(&cloud, &l3)), [default.clone()], "there is one");
    assert_eq!(groups(&cloud, before), Vec::<String>::new());
    let bare = cloud.l3(&fixture, "bare");
    assert_eq!(groups(&cloud, nic(&cloud, &bare)), Vec::<String>::new(), "it has no service");
    let a = group(&cloud, "a");
    let tags = [format!("l3::{l3}::SecurityGroupUuids::{a}")];
    let made = cloud.call_tagged("CreateVmNic", json!({"l3NetworkUuid": l3}), &tags).unwrap();
    assert_eq!(groups(&cloud, Id::new(made.subject.unwrap().1)), [a], "it is chosen");
}

#[test]
fn groups_of_administrators_come_first_and_stay() {
    let (cloud, _, l3) = guarded();
    let red = tenant(&cloud, 7);
    let imposed = group(&cloud, "platform");
    let nic = nic(&cloud, &l3);
    cloud.give(Kind::VmNic, &nic.to_string(), red.account().unwrap());
    let own = send(&cloud, red, "CreateSecurityGroup", json!({"name": "own"})).unwrap();
    send(&cloud, red, ADD, member(&own, &[nic])).unwrap();
    cloud.call(ADD, member(&imposed, &[nic])).unwrap();
    assert_eq!(groups(&cloud, nic), [imposed.clone(), own.clone()]);
    send(&cloud, red, SET, refs(nic, &[])).unwrap();
    assert_eq!(groups(&cloud, nic), [imposed.clone()]);
    let error = send(&cloud, red, SET, refs(nic, &[&imposed])).unwrap_err();
    assert_eq!(error.code, Code::NotFound, "it does not see it");
    send(&cloud, red, SET, refs(nic, &[&own])).unwrap();
    let (code, field, _) = cloud.refusal(SET, refs(nic, &[&own, &imposed]));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("refs")));
    cloud.call(SET, refs(nic, &[&imposed, &own])).unwrap();
    assert_eq!(groups(&cloud, nic), [imposed, own]);
    let blue = tenant(&cloud, 8);
    let theirs = send(&cloud, blue, "CreateSecurityGroup", json!({"name": "b"})).unwrap();
    let error = send(&cloud, ADMINISTRATOR, ADD, member(&theirs, &[nic])).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some("vmNicUuids")));
    let error = send(&cloud, blue, ADD, member(&theirs, &[nic])).unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

#[test]
fn what_is_in_a_group_is_not_given_away() {
    let (cloud, _, l3) = guarded();
    let red = tenant(&cloud, 7).account().unwrap();
    let a = group(&cloud, "a");
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let nic = cloud.nics(&vm)[0].uuid;
    cloud.call(ADD, member(&a, &[nic])).unwrap();
    let give = |uuid: &str| json!({"accountUuid": red, "resourceUuid": uuid});
    for uuid in [&vm, &a] {
        let (code, field, text) = cloud.refusal("ChangeResourceOwner", give(uuid));
        assert_eq!(
            (code, field.as_deref()),
            (Code::InvalidArgument, Some("resourceUuid")),
            "{text}"
        );
    }
    cloud.call(SET, refs(nic, &[])).unwrap();
    cloud.call("ChangeResourceOwner", give(&vm)).unwrap();
    cloud.call("ChangeResourceOwner", give(&a)).unwrap();
    let (snapshot, key) = (cloud.snapshot(), store::Key::Uuid(red.uuid()));
    let theirs = snapshot.find(Kind::SecurityGroupRule, model::record::OWNER, &key);
    assert_eq!(theirs.count(), 4, "a group's rules go with it");
}

#[test]
fn a_nic_in_groups_does_not_go_where_they_have_no_effect() {
    let (cloud, fixture, l3) = guarded();
    let a = group(&cloud, "a");
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let nic = cloud.nics(&vm)[0].uuid;
    cloud.call(ADD, member(&a, &[nic])).unwrap();
    let (bare, blue) = (cloud.l3(&fixture, "bare"), guarded_l3(&cloud, &fixture, "blue"));
    let to = |l3: &str| json!({"vmNicUuid": nic, "destL3NetworkUuid": l3});
    let (code, field, _) = cloud.refusal("ChangeVmNicNetwork", to(&bare));
    assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("destL3NetworkUuid")));
    cloud.call("ChangeVmNicNetwork", to(&blue)).unwrap();
    assert_eq!(groups(&cloud, nic), [a.clone()]);
    let row = VmNicSecurityGroupRef::id_of(nic, a.parse().unwrap()).to_string();
    let of_row = || shown(&cloud, Kind::VmNicSecurityGroupRef, &row);
    assert_eq!(of_row()["vmInstanceUuid"], vm);
    assert_eq!(of_row().get("notInEffect"), None);
    let detach = json!({"l3NetworkUuid": blue, "service": "SecurityGroup"});
    cloud.call("DetachNetworkServiceFromL3Network", detach).unwrap();
    let why = of_row()["notInEffect"].as_str().unwrap().to_owned();
    assert!(why.contains("no service SecurityGroup"), "{why}");
}
