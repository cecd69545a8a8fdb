//! NICs without an instance, plugged into devices of hosts that something else makes.

use model::{
    Claim, Code, Id, Kind,
    resource::{host::Host, vm_nic::VmNic},
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, request, tenant},
    releases::acknowledged,
};

fn plug(nic: &str, host: &str, device: &str) -> Value {
    json!({"vmNicUuid": nic, "hostUuid": host, "device": device})
}

fn unplug(nic: &str) -> Value {
    json!({"vmNicUuid": nic})
}

/// A NIC on a network of its own.
fn nic(cloud: &Cloud, fixture: &Fixture) -> (String, String) {
    let l3 = cloud.l3(fixture, "red");
    (cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3})), l3)
}

/// An instance with a NIC on another network.
fn vm(cloud: &Cloud, fixture: &Fixture) -> String {
    let l3 = cloud.l3(fixture, "blue");
    cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}))
}

fn get(cloud: &Cloud, nic: &str) -> VmNic {
    cloud.get(nic.parse::<Id<VmNic>>().unwrap()).unwrap()
}

/// Some fields of a NIC as callers see them.
fn shown(cloud: &Cloud, nic: &str) -> [Value; 3] {
    let snapshot = cloud.snapshot();
    let record = snapshot.get(Kind::VmNic, model::id::parse_uuid(nic).unwrap()).unwrap();
    let observed = netloom_control::inventory::Observed::new(&snapshot, &cloud.board);
    let shown = netloom_control::inventory::show(&record, &observed);
    ["hostUuid", "device", "driverType"].map(|field| shown.get(field).cloned().unwrap_or_default())
}

#[test]
fn a_nic_is_plugged_into_a_device_and_out_and_keeps_its_address() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (nic, _) = nic(&cloud, &fixture);
    let host = &fixture.hosts[0];
    assert_eq!(shown(&cloud, &nic), [Value::Null, Value::Null, json!("veth")]);
    let done = cloud.run("PlugVmNic", plug(&nic, host, "vnet0"), &[], None).unwrap();
    assert_eq!(
        done.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        std::slice::from_ref(host)
    );
    assert!(done.objects.contains(&model::id::parse_uuid(&nic).unwrap()), "success waits for it");
    assert_eq!(shown(&cloud, &nic), [json!(host), json!("vnet0"), json!("external")]);
    let before = cloud.addresses(get(&cloud, &nic).uuid);
    assert_eq!(before.len(), 1);
    cloud.call("PlugVmNic", plug(&nic, host, "vnet0")).expect("it is there already");
    let done = cloud.run("UnplugVmNic", unplug(&nic), &[], None).unwrap();
    assert_eq!(done.hosts.len(), 1, "its host gives the device back first");
    assert_eq!(shown(&cloud, &nic), [Value::Null, Value::Null, json!("veth")]);
    assert_eq!(cloud.addresses(get(&cloud, &nic).uuid), before);
    cloud.call("UnplugVmNic", unplug(&nic)).expect("it is out already");
    cloud.call("PlugVmNic", plug(&nic, host, "vnet1")).expect("in again, where it was");
    assert_eq!(shown(&cloud, &nic)[1], json!("vnet1"));
}

#[test]
fn what_is_no_name_of_a_device_is_refused() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (nic, _) = nic(&cloud, &fixture);
    let host = &fixture.hosts[0];
    for name in [
        "",
        "sixteen-bytes-it",
        "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}",
        "a/b",
        "a b",
        "a\tb",
        "a:b",
        ".",
        "..",
        "lo",
    ] {
        let (code, field, text) = cloud.refusal("PlugVmNic", plug(&nic, host, name));
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("device")), "{text}");
    }
    for name in ["a", "fifteen-bytes-x", "eth0.5", "@"] {
        cloud.call("PlugVmNic", plug(&nic, host, name)).unwrap();
        cloud.call("UnplugVmNic", unplug(&nic)).unwrap();
    }
}

#[test]
fn a_nic_is_in_one_place_and_a_device_has_one_nic() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (nic, l3) = nic(&cloud, &fixture);
    let [first, second] = &fixture.hosts;
    cloud.call("PlugVmNic", plug(&nic, first, "vnet0")).unwrap();
    let says = |message: &str, params: Value, field: &str, what: &str| {
        let (code, blamed, text) = cloud.refusal(message, params);
        assert_eq!(blamed.as_deref().unwrap_or_default(), field, "{text}");
        assert!(text.contains(what), "{text}");
        code
    };
    says("PlugVmNic", plug(&nic, first, "vnet1"), "vmNicUuid", "UnplugVmNic");
    says("PlugVmNic", plug(&nic, second, "vnet0"), "vmNicUuid", "UnplugVmNic");
    let other = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    let code = says("PlugVmNic", plug(&other, first, "vnet0"), "device", "UnplugVmNic");
    assert_eq!(code, Code::InUse);
    cloud.call("PlugVmNic", plug(&other, second, "vnet0")).expect("of another host");
    let vm = vm(&cloud, &fixture);
    let attach = json!({"vmInstanceUuid": vm, "vmNicUuid": nic});
    says("AttachVmNicToVm", attach.clone(), "vmNicUuid", "UnplugVmNic");
    says("DetachL3NetworkFromVm", unplug(&nic), "vmNicUuid", "UnplugVmNic");
    assert_eq!(says("DeleteVmNic", json!({"uuid": nic}), "", "UnplugVmNic"), Code::InUse);
    let disable = json!({"vmNicUuid": nic, "state": "disable"});
    says("ChangeVmNicState", disable.clone(), "state", "UnplugVmNic");

    cloud.call("UnplugVmNic", unplug(&nic)).unwrap();
    cloud.give_up_releases();
    cloud.call("ChangeVmNicState", disable).unwrap();
    says("PlugVmNic", plug(&nic, first, "vnet0"), "vmNicUuid", "ChangeVmNicState");
    cloud.call("ChangeVmNicState", json!({"vmNicUuid": nic, "state": "enable"})).unwrap();
    cloud.call("AttachVmNicToVm", attach).unwrap();
    says("PlugVmNic", plug(&nic, first, "vnet0"), "vmNicUuid", "DetachL3NetworkFromVm");
    says("UnplugVmNic", unplug(&nic), "vmNicUuid", "DetachL3NetworkFromVm");
}

#[test]
fn only_a_host_that_can_carry_the_network_is_taken() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let (nic, _) = nic(&cloud, &fixture);
    let host = fixture.hosts[0].clone();
    let says = |cloud: &Cloud, host: &str, what: &str| {
        let (code, field, text) = cloud.refusal("PlugVmNic", plug(&nic, host, "vnet0"));
        assert_eq!((code, field.as_deref()), (Code::NoHost, Some("hostUuid")), "{text}");
        assert!(text.contains(what), "{text}");
    };
    let change = |event: &str| json!({"uuid": host, "stateEvent": event});
    cloud.call("ChangeHostState", change("disable")).unwrap();
    says(&cloud, &host, "ChangeHostState");
    cloud.call("ChangeHostState", change("enable")).unwrap();
    cloud.lost(&host);
    says(&cloud, &host, "start its agent");
    let cluster = json!({"name": "far", "zoneUuid": fixture.zone, "hypervisorType": "KVM"});
    let cluster = cloud.made("CreateCluster", cluster);
    let far = json!({"name": "far", "managementIp": "172.30.9.9", "clusterUuid": cluster});
    let far = cloud.made("AddKVMHost", far);
    cloud.acked(&far, 0);
    says(&cloud, &far, "AttachL2NetworkToCluster");
}

#[tokio::test]
async fn a_nic_goes_elsewhere_only_once_its_host_has_let_go() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let (nic, _) = nic(&cloud, &fixture);
    let [first, second] = &fixture.hosts;
    cloud.call("PlugVmNic", plug(&nic, first, "vnet0")).unwrap();
    cloud.call("UnplugVmNic", unplug(&nic)).unwrap();
    cloud.tell(first);
    let there = plug(&nic, second, "vnet0");
    let (code, field, text) = cloud.refusal("PlugVmNic", there.clone());
    assert_eq!((code, field.as_deref()), (Code::InUse, Some("vmNicUuid")), "{text}");
    assert!(text.contains("h1") && text.contains("has not confirmed"), "{text}");
    let vm = vm(&cloud, &fixture);
    let attach = json!({"vmInstanceUuid": vm, "vmNicUuid": nic});
    assert_eq!(cloud.refusal("AttachVmNicToVm", attach).0, Code::InUse);
    let gone = cloud.refusal("DeleteHost", json!({"uuid": first}));
    assert!(gone.2.contains("has not confirmed to have let go"), "{gone:?}");
    cloud.lost(first);
    assert!(cloud.refusal("PlugVmNic", there.clone()).2.contains("which is away"));
    acknowledged(&mut cloud, &[first], 0).await;
    cloud.call("PlugVmNic", there).unwrap();
    assert_eq!(shown(&cloud, &nic)[0], json!(second));
}

#[test]
fn a_host_with_a_plugged_nic_is_kept_unless_it_is_dead() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let (nic, l3) = nic(&cloud, &fixture);
    let host = fixture.hosts[0].clone();
    cloud.call("PlugVmNic", plug(&nic, &host, "vnet0")).unwrap();
    let maintain = json!({"uuid": host, "stateEvent": "maintain"});
    let (code, _, text) = cloud.refusal("ChangeHostState", maintain.clone());
    assert!(code == Code::InUse && text.contains("UnplugVmNic"), "{text}");
    let (code, _, text) = cloud.refusal("DeleteHost", json!({"uuid": host}));
    assert!(code == Code::InUse && text.contains("UnplugVmNic"), "{text}");
    let l2 = get(&cloud, &nic).l2_network_uuid;
    let detach = json!({"l2NetworkUuid": fixture.pool, "clusterUuid": fixture.cluster});
    let (code, _, text) = cloud.refusal("DetachL2NetworkFromCluster", detach);
    assert!(code == Code::InUse && text.contains("UnplugVmNic"), "{l2}: {text}");

    cloud.lost(&host);
    cloud.call("DeleteHost", json!({"uuid": host, "deleteMode": "Enforcing"})).unwrap();
    assert_eq!(shown(&cloud, &nic), [Value::Null, Value::Null, json!("veth")]);
    assert_eq!(cloud.addresses(get(&cloud, &nic).uuid).len(), 1, "it keeps its address");
    cloud.give_up_releases();
    cloud.call("PlugVmNic", plug(&nic, &fixture.hosts[1], "vnet0")).unwrap();

    cloud.call("DeleteL3Network", json!({"uuid": l3})).unwrap();
    assert!(cloud.get(nic.parse::<Id<VmNic>>().unwrap()).is_none(), "it goes with its network");
    let second: Id<Host> = fixture.hosts[1].parse().unwrap();
    let place = Claim::Plugged(second, nic.parse().unwrap());
    let holder = cloud.snapshot().holder(&place).map(|(kind, _)| kind);
    assert_eq!(holder, Some(Kind::Release), "until its host has let go");
}

#[test]
fn hosts_and_their_devices_are_the_administrators() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (nic, _) = nic(&cloud, &fixture);
    let caller = tenant(&cloud, 7);
    cloud.give(Kind::VmNic, &nic, caller.account().unwrap());
    let params = plug(&nic, &fixture.hosts[0], "vnet0");
    let refused = |message: &str, params: Value| {
        let error = cloud.send(caller, vec![request(message, params)]).unwrap_err();
        assert_eq!(error.code, Code::AccessDenied, "{error}");
    };
    refused("PlugVmNic", params.clone());
    cloud.send(ADMINISTRATOR, vec![request("PlugVmNic", params)]).unwrap();
    refused("UnplugVmNic", unplug(&nic));
}
