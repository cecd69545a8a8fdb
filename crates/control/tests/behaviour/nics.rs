//! NICs of instances: plugged in and out, moved, with the addresses, MACs and names they are given.

use std::{collections::BTreeSet, net::IpAddr};

use model::{
    Code, Id, Kind,
    resource::{vm_instance::VmInstance, vm_nic::VmNic, zone::EnableState},
};
use serde_json::{Value, json};

use crate::harness::{ADMINISTRATOR, Cloud, Fixture, range, request, tenant};

/// An instance with one NIC on `l3`.
fn vm(cloud: &Cloud, l3: &str) -> String {
    cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}))
}

/// An L3 network without a range on an L2 network of its own.
fn bare(cloud: &Cloud, fixture: &Fixture) -> String {
    let l2 = json!({"name": "bare-l2", "poolUuid": fixture.pool});
    let l2 = cloud.made("CreateL2VxlanNetwork", l2);
    cloud.made("CreateL3Network", json!({"name": "bare", "l2NetworkUuid": l2}))
}

fn attach(vm: &str, l3: &str) -> Value {
    json!({"vmInstanceUuid": vm, "l3NetworkUuid": l3})
}

fn default_l3(cloud: &Cloud, vm: &str) -> Option<String> {
    let instance = cloud.get(vm.parse::<Id<VmInstance>>().unwrap()).unwrap();
    instance.default_l3_network_uuid.map(|l3| l3.to_string())
}

/// The NIC of an instance on a network.
fn nic_on(cloud: &Cloud, vm: &str, l3: &str) -> VmNic {
    let nics = cloud.nics(vm).into_iter();
    nics.into_iter().find(|nic| nic.l3_network_uuid.to_string() == l3).unwrap()
}

fn ips(cloud: &Cloud, nic: &VmNic) -> Vec<String> {
    cloud.addresses(nic.uuid).into_iter().map(|used| used.ip.to_string()).collect()
}

/// ZStack's AttachL3NetWorkToVmCase (P06).
#[test]
fn p06_a_network_without_a_range_is_attached_once_it_has_one() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), bare(&cloud, &fixture));
    let vm = vm(&cloud, &red);
    let (code, field, text) = cloud.refusal("AttachL3NetworkToVm", attach(&vm, &blue));
    assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("l3NetworkUuid")), "{text}");
    assert!(text.contains("AddIpRange"), "{text}");
    cloud.made("AddIpRange", range(&blue, "10.0.0.10", "10.0.0.20"));
    let done = cloud.run("AttachL3NetworkToVm", attach(&vm, &blue), &[], None).unwrap();
    let nic = nic_on(&cloud, &vm, &blue);
    assert_eq!((nic.device_id, nic.host_uuid), (1, done.hosts.first().copied()), "hot");
    assert!(done.objects.contains(&nic.uuid.uuid()), "success waits for it");
    assert_eq!(default_l3(&cloud, &vm), Some(red), "as it was");
}

/// ZStack's OneIpL3NetworkCase (P07).
#[test]
fn a_network_of_one_address_takes_one_instance_and_of_three_three() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare(&cloud, &fixture);
    cloud.made("AddIpRange", range(&l3, "10.0.0.10", "10.0.0.10"));
    let params = json!({"name": "vm", "l3NetworkUuids": [l3]});
    vm(&cloud, &l3);
    assert_eq!(cloud.refusal("CreateVmInstance", params.clone()).0.as_str(), "L3.1000");
    for one in ["10.0.0.20", "10.0.0.30"] {
        cloud.made("AddIpRange", range(&l3, one, one));
        vm(&cloud, &l3);
        assert_eq!(cloud.refusal("CreateVmInstance", params.clone()).0.as_str(), "L3.1000");
    }
}

#[test]
fn a_network_that_an_instance_cannot_have_is_refused() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    let a = vm(&cloud, &red);
    let refused = |params: Value| cloud.refusal("AttachL3NetworkToVm", params);
    let op = |params: Value, why: &str| {
        let (code, _, text) = refused(params);
        assert_eq!(code, Code::OperationFailed, "{text}");
        assert!(text.contains(why), "{text}");
    };
    op(attach(&a, &red), "already");
    let with = |field: &str, value: &str| {
        let mut params = attach(&a, &blue);
        params[field] = value.into();
        params
    };
    let (code, field, _) = refused(with("staticIp", "10.0.0.99"));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("staticIp")), "no range");
    cloud.made("CreateVmNic", json!({"l3NetworkUuid": blue, "ip": "10.0.0.11"}));
    let (code, field, _) = refused(with("staticIp", "10.0.0.11"));
    assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("staticIp")), "occupied");
    let (code, field, _) = refused(with("customMac", "01:00:00:00:00:01"));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("customMac")));
    let (code, field, text) = refused(with("driverType", "e1000"));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("driverType")), "{text}");

    let system = json!({
        "name": "s", "l2NetworkUuid": cloud.made("CreateL2VxlanNetwork", json!({"name": "s", "poolUuid": fixture.pool})),
        "category": "System", "system": true,
    });
    let system = cloud.made("CreateL3Network", system);
    cloud.made("AddIpRange", range(&system, "10.0.0.10", "10.0.0.20"));
    op(attach(&a, &system), "the platform's own");

    let pool = json!({"name": "q", "zoneUuid": fixture.zone});
    let elsewhere =
        Fixture { pool: cloud.made("CreateL2VxlanNetworkPool", pool), ..fixture.clone() };
    let vnis =
        json!({"name": "r", "startVni": 200, "endVni": 203, "l2NetworkUuid": elsewhere.pool});
    cloud.made("CreateVniRange", vnis);
    let green = cloud.l3(&elsewhere, "green");
    op(attach(&a, &green), "does not have L2 network");
    cloud.call("StopVmInstance", json!({"uuid": a})).unwrap();
    op(attach(&a, &green), "does not have it");
    cloud.call("DestroyVmInstance", json!({"uuid": a})).unwrap();
    op(attach(&a, &blue), "is Destroy");
}

#[test]
fn the_default_route_moves_when_its_nic_goes_and_comes_with_the_first() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    let vm = vm(&cloud, &red);
    cloud.call("AttachL3NetworkToVm", attach(&vm, &blue)).unwrap();
    let detach = |l3: &str| {
        let nic = nic_on(&cloud, &vm, l3).uuid;
        cloud.call("DetachL3NetworkFromVm", json!({"vmNicUuid": nic})).unwrap();
        cloud.call("DetachL3NetworkFromVm", json!({"vmNicUuid": nic})).expect("gone already");
    };
    detach(&red);
    assert_eq!(default_l3(&cloud, &vm).as_ref(), Some(&blue));
    detach(&blue);
    assert_eq!((default_l3(&cloud, &vm), cloud.nics(&vm).len()), (None, 0));
    cloud.give_up_releases();
    cloud.call("AttachL3NetworkToVm", attach(&vm, &red)).unwrap();
    assert_eq!(nic_on(&cloud, &vm, &red).device_id, 0, "the lowest place");
    assert_eq!(default_l3(&cloud, &vm), Some(red));
}

#[test]
fn a_detached_nic_rests_until_its_host_has_let_go() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = vm(&cloud, &l3);
    let nic = cloud.nics(&vm).remove(0);
    let ip = ips(&cloud, &nic).remove(0);
    cloud.call("DetachL3NetworkFromVm", json!({"vmNicUuid": nic.uuid})).unwrap();
    let take = json!({"l3NetworkUuid": l3, "ip": ip});
    assert!(cloud.refusal("CreateVmNic", take.clone()).2.contains("still being released"));
    cloud.give_up_releases();
    cloud.call("CreateVmNic", take).unwrap();
}

#[test]
fn a_nic_that_was_made_before_is_plugged_in() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    let vm = vm(&cloud, &red);
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": blue, "ip": "10.0.0.12"}));
    let plug = json!({"vmNicUuid": nic, "vmInstanceUuid": vm});
    cloud.call("AttachVmNicToVm", plug.clone()).unwrap();
    let there = nic_on(&cloud, &vm, &blue);
    assert_eq!((there.uuid.to_string(), there.device_id), (nic, 1));
    assert_eq!(there.host_uuid, nic_on(&cloud, &vm, &red).host_uuid);
    assert_eq!(ips(&cloud, &there), ["10.0.0.12"]);
    assert_eq!(cloud.refusal("AttachVmNicToVm", plug).0, Code::OperationFailed);
}

#[test]
fn a_nic_that_moves_to_another_network_is_new_to_the_data_plane() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    let vm = vm(&cloud, &red);
    let before = cloud.nics(&vm).remove(0);
    let change = |l3: &str| json!({"vmNicUuid": before.uuid, "destL3NetworkUuid": l3, "staticIp": "10.0.0.13"});
    assert_eq!(cloud.refusal("ChangeVmNicNetwork", change(&red)).0, Code::OperationFailed);
    cloud.call("ChangeVmNicNetwork", change(&blue)).unwrap();
    let after = cloud.nics(&vm).remove(0);
    assert_eq!((after.uuid, after.mac, after.device_id), (before.uuid, before.mac, 0));
    assert_ne!(after.l2_network_uuid, before.l2_network_uuid);
    assert_ne!(after.number, before.number, "its connections of before mean nothing there");
    assert_eq!(ips(&cloud, &after), ["10.0.0.13"]);
    assert_eq!(default_l3(&cloud, &vm), Some(blue));
}

#[test]
fn a_nic_has_one_address_of_each_family_and_of_its_l2_network() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    let vm = vm(&cloud, &red);
    let nic = cloud.nics(&vm).remove(0);
    let six = |l2: &str| {
        let l3 = json!({"name": "six", "l2NetworkUuid": l2, "ipVersion": 6});
        let l3 = cloud.made("CreateL3Network", l3);
        let range = json!({
            "l3NetworkUuid": l3, "name": "six", "startIp": "fd00::10", "endIp": "fd00::1f",
            "gateway": "fd00::1", "prefixLen": 64, "addressMode": "Stateful-DHCP",
        });
        cloud.made("AddIpv6Range", range);
        l3
    };
    let same = six(&nic.l2_network_uuid.to_string());
    let attach = |l3: &str| json!({"vmNicUuid": nic.uuid, "l3NetworkUuid": l3});
    let (_, _, text) = cloud.refusal("AttachL3NetworkToVmNic", attach(&blue));
    assert!(text.contains("is on L2 network"), "{text}");
    cloud.call("AttachL3NetworkToVmNic", attach(&same)).unwrap();
    let addresses = cloud.addresses(nic.uuid);
    assert_eq!(addresses.iter().map(|used| used.ip_version).collect::<Vec<_>>(), [4, 6]);
    let (_, _, text) = cloud.refusal("AttachL3NetworkToVmNic", attach(&same));
    assert!(text.contains("IPv6 address already"), "{text}");
    let set = json!({"vmInstanceUuid": vm, "l3NetworkUuid": same, "ip6": "fd00::1a"});
    cloud.call("SetVmStaticIp", set).unwrap();
    cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    cloud.give_up_releases();
    cloud.call("RecoverVmInstance", json!({"uuid": vm})).unwrap();
    let recovered = cloud.addresses(nic.uuid);
    assert_eq!(recovered.len(), 2);
    assert_eq!(recovered[1].ip.to_string(), "fd00::1a");
}

/// ZStack's test_chg_static_ip_vm (P26).
#[test]
fn p26_a_static_address_takes_the_place_of_the_one_before_and_comes_back() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let a = vm(&cloud, &l3);
    let set = |ip: &str| json!({"vmInstanceUuid": a, "l3NetworkUuid": l3, "ip": ip});
    let nic = || nic_on(&cloud, &a, &l3);
    let before = ips(&cloud, &nic()).remove(0);
    let wanted = if before == "10.0.0.11" { "10.0.0.12" } else { "10.0.0.11" };
    cloud.call("StopVmInstance", json!({"uuid": a})).unwrap();
    cloud.call("SetVmStaticIp", set(wanted)).unwrap();
    assert_eq!(ips(&cloud, &nic()), [wanted]);
    cloud.call("SetVmStaticIp", set(wanted)).expect("it has it");
    cloud.call("StartVmInstance", json!({"uuid": a})).unwrap();
    assert_eq!(ips(&cloud, &nic()), [wanted]);
    cloud.give_up_releases();
    let done = cloud.run("SetVmStaticIp", set(&before), &[], None).unwrap();
    assert!(done.objects.contains(&nic().uuid.uuid()), "hot: success waits for its host");
    assert_eq!(ips(&cloud, &nic()), std::slice::from_ref(&before));

    let wrong = |params: Value, expected: (Code, &str)| {
        let (code, field, text) = cloud.refusal("SetVmStaticIp", params);
        assert_eq!((code, field.as_deref()), (expected.0, Some(expected.1)), "{text}");
    };
    wrong(json!({"vmInstanceUuid": a, "l3NetworkUuid": l3}), (Code::InvalidArgument, "ip"));
    wrong(set("10.0.0.99"), (Code::InvalidArgument, "ip"));
    cloud.give_up_releases();
    cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3, "ip": wanted}));
    wrong(set(wanted), (Code::OperationFailed, "ip"));
    let blue = cloud.l3(&fixture, "blue");
    let other = json!({"vmInstanceUuid": a, "l3NetworkUuid": blue, "ip": wanted});
    wrong(other, (Code::InvalidArgument, "l3NetworkUuid"));

    let recovered = |cloud: &Cloud| {
        cloud.call("DestroyVmInstance", json!({"uuid": a})).unwrap();
        cloud.give_up_releases();
        cloud.call("RecoverVmInstance", json!({"uuid": a})).unwrap();
    };
    recovered(&cloud);
    assert_eq!(ips(&cloud, &nic()), [before]);
    let delete = json!({"vmInstanceUuid": a, "l3NetworkUuid": l3});
    cloud.call("DeleteVmStaticIp", delete).unwrap();
    assert_eq!(nic().static_ips, Vec::<IpAddr>::new());
    recovered(&cloud);
    let (_, field, _) =
        cloud.refusal("DeleteVmStaticIp", json!({"vmInstanceUuid": a, "l3NetworkUuid": blue}));
    assert_eq!(field.as_deref(), Some("l3NetworkUuid"));
}

#[test]
fn a_nics_mac_and_state_change_and_its_model_does_not() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let a = vm(&cloud, &l3);
    let nic = || nic_on(&cloud, &a, &l3);
    let uuid = nic().uuid;
    let mac = |mac: &str| json!({"vmNicUuid": uuid, "mac": mac});
    cloud.call("UpdateVmNicMac", mac("02:00:00:00:00:09")).unwrap();
    assert_eq!(nic().mac.to_string(), "02:00:00:00:00:09");
    assert_eq!(cloud.refusal("UpdateVmNicMac", mac("03:00:00:00:00:09")).0, Code::InvalidArgument);
    cloud.call("ChangeVmNicState", json!({"vmNicUuid": uuid, "state": "disable"})).unwrap();
    assert_eq!(nic().state, EnableState::Disabled);
    cloud.call("ChangeVmNicState", json!({"vmNicUuid": uuid, "state": "enable"})).unwrap();
    assert_eq!(nic().state, EnableState::Enabled);
    let driver =
        |driver: &str| json!({"vmInstanceUuid": a, "vmNicUuid": uuid, "driverType": driver});
    let (code, field, text) = cloud.refusal("UpdateVmNicDriver", driver("virtio"));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("driverType")));
    assert!(text.contains("veth"), "{text}");
    cloud.call("UpdateVmNicDriver", driver("veth")).unwrap();
}

#[test]
fn a_hostname_is_one_instances_on_each_of_its_networks() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    let tag = ["hostname::web-1".to_owned()];
    let params = json!({"name": "a", "l3NetworkUuids": [red]});
    let made = cloud.call_tagged("CreateVmInstance", params.clone(), &tag).unwrap();
    let a = made.subject.unwrap().1.simple().to_string();
    let error = cloud.call_tagged("CreateVmInstance", params, &tag).unwrap_err();
    let told = (error.code, error.field.as_deref());
    assert_eq!(told, (Code::InvalidArgument, Some("systemTags")), "{error}");
    let b = vm(&cloud, &blue);
    let set = |vm: &str, name: &str| json!({"uuid": vm, "hostname": name});
    cloud.call("SetVmHostname", set(&b, "WEB-1")).expect("on another network");
    let (code, field, text) = cloud.refusal("AttachL3NetworkToVm", attach(&b, &red));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("hostname")), "{text}");
    assert_eq!(cloud.refusal("SetVmHostname", set(&b, "-web")).0, Code::InvalidArgument);
    let get = |vm: &str| cloud.look(ADMINISTRATOR, "GetVmHostname", json!({"uuid": vm})).unwrap();
    assert_eq!((get(&a), get(&b)), (json!({"hostname": "web-1"}), json!({"hostname": "WEB-1"})));
    cloud.call("DeleteVmHostname", json!({"uuid": a})).unwrap();
    assert_eq!(get(&a), json!({}));
    cloud.call("AttachL3NetworkToVm", attach(&b, &red)).unwrap();
}

#[test]
fn the_networks_that_are_offered_are_those_that_are_taken() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let names = ["red", "blue", "green"];
    let [red, blue, green] = names.map(|name| cloud.l3(&fixture, name));
    bare(&cloud, &fixture);
    let a = vm(&cloud, &red);
    let offered = |caller, message: &str, params: Value| {
        let answer = cloud.look(caller, message, params).unwrap();
        let found = answer["inventories"].as_array().unwrap().clone();
        found.iter().map(|l3| l3["uuid"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let of_vm = json!({"vmInstanceUuid": a});
    let expected: BTreeSet<String> = [blue.clone(), green.clone()].into();
    assert_eq!(offered(ADMINISTRATOR, "GetVmAttachableL3Network", of_vm.clone()), expected);
    let of_nic = json!({"vmNicUuid": cloud.nics(&a)[0].uuid});
    let message = "GetCandidateL3NetworksForChangeVmNicNetwork";
    assert_eq!(offered(ADMINISTRATOR, message, of_nic), expected);
    for l3 in [&blue, &green] {
        cloud.call("AttachL3NetworkToVm", attach(&a, l3)).unwrap();
    }
    let tenant = tenant(&cloud, 0xa);
    let own = tenant.account().unwrap();
    let refused = cloud.look(tenant, "GetVmAttachableL3Network", of_vm.clone()).unwrap_err();
    assert_eq!(refused.code, Code::NotFound, "somebody else's");
    cloud.give(Kind::VmInstance, &a, own);
    let detach = json!({"vmNicUuid": nic_on(&cloud, &a, &blue).uuid});
    cloud.call("DetachL3NetworkFromVm", detach).unwrap();
    assert_eq!(offered(tenant, "GetVmAttachableL3Network", of_vm.clone()), BTreeSet::new());
    cloud.give(Kind::L3Network, &blue, own);
    assert_eq!(offered(tenant, "GetVmAttachableL3Network", of_vm), [blue].into());
}

#[test]
fn what_an_administrator_gives_an_instance_is_its_owners() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    let tenant = tenant(&cloud, 0xa);
    cloud.give(Kind::L3Network, &red, tenant.account().unwrap());
    let params = json!({"name": "a", "l3NetworkUuids": [red]});
    let done = cloud.send(tenant, vec![request("CreateVmInstance", params)]).unwrap();
    let a = done.reply.subject.unwrap().1.simple().to_string();
    cloud.call("AttachL3NetworkToVm", attach(&a, &blue)).unwrap();
    let nic = nic_on(&cloud, &a, &blue);
    let detach = request("DetachL3NetworkFromVm", json!({"vmNicUuid": nic.uuid}));
    cloud.send(tenant, vec![detach]).unwrap();
    assert_eq!(cloud.nics(&a).len(), 1, "the tenant sees it, so it is gone");
}

#[test]
fn what_is_said_of_the_subnet_of_a_static_address_must_be_so() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let a = vm(&cloud, &l3);
    let set = |more: Value| {
        let mut params = json!({"vmInstanceUuid": a, "l3NetworkUuid": l3, "ip": "10.0.0.12"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let right = json!({"netmask": "255.255.255.0", "gateway": "10.0.0.1"});
    cloud.call("SetVmStaticIp", set(right)).unwrap();
    for (field, value) in [
        ("netmask", "255.255.0.0"),
        ("gateway", "10.0.0.2"),
        ("ipv6Gateway", "fd00::1"),
        ("ipv6Prefix", "64"),
    ] {
        let (code, blamed, text) = cloud.refusal("SetVmStaticIp", set(json!({field: value})));
        assert_eq!((code, blamed.as_deref()), (Code::InvalidArgument, Some(field)), "{text}");
    }
}
