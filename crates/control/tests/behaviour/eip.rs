//! EIPs: where they may lead to, and what becomes of them when that changes.

use model::{
    Code, Id, Kind,
    resource::{eip::Eip, network_service::ProviderType},
};
use serde_json::{Value, json};

use crate::{
    harness::{ADMINISTRATOR, tenant},
    l3::{bare_l3, by_cidr},
    security_groups::send,
    vip::{World, red},
};

const ATTACH: &str = "AttachEip";

fn eip(world: &World) -> String {
    world.cloud.made("CreateEip", json!({"name": "eip", "vipUuid": world.vip()}))
}

fn attach(eip: &str, nic: &str) -> Value {
    json!({"eipUuid": eip, "vmNicUuid": nic})
}

fn nic_of(world: &World, eip: &str) -> Option<String> {
    let eip: Id<Eip> = eip.parse().unwrap();
    world.cloud.get(eip).unwrap().vm_nic_uuid.map(|nic| nic.to_string())
}

#[test]
fn an_eip_is_made_with_a_nic_or_without() {
    let world = World::new();
    let (vip, (_, nic)) = (world.vip(), world.vm());
    let bare = eip(&world);
    assert_eq!(nic_of(&world, &bare), None);
    let shown = world.shown(Kind::Eip, &bare);
    assert_eq!((shown.get("guestIp"), shown.get("notInEffect")), (None, None));
    let create = json!({"name": "eip", "description": "d", "vipUuid": vip, "vmNicUuid": nic});
    let eip = world.cloud.made("CreateEip", create);
    let (shown, of_vip) = (world.shown(Kind::Eip, &eip), world.shown(Kind::Vip, &vip));
    let guest_ip = world.shown(Kind::VmNic, &nic)["ip"].clone();
    let expected = json!({
        "uuid": eip, "name": "eip", "description": "d", "vipUuid": vip, "vmNicUuid": nic,
        "state": "Enabled", "vipIp": of_vip["ip"], "guestIp": guest_ip,
        "notInEffect": format!("nobody provides Eip to L3 network {} yet", world.guest),
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(shown.get(field), Some(value), "{field}");
    }
    assert_eq!(shown.get("guestL3NetworkUuid"), None);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(world.found(Kind::Eip, "vipIp", &text(&of_vip["ip"])), [eip.as_str()]);
    assert_eq!(world.found(Kind::Eip, "guestIp", &text(&guest_ip)), [eip.as_str()]);
    assert_eq!(world.found(Kind::VmNic, "eip.uuid", &eip), [nic]);
    assert_eq!(world.found(Kind::Vip, "eip.uuid", &eip), [vip.as_str()]);
    assert_eq!(world.found(Kind::Vip, "peerL3NetworkUuids", &world.guest), [vip]);
}

/// ZStack's VirtualRouterEipCase, as far as the API shows it.
#[test]
fn p33_a_vip_tells_of_its_eip_until_that_is_gone() {
    let world = World::new();
    let (vip, (_, nic)) = (world.vip(), world.vm());
    let eip = world.cloud.made("CreateEip", json!({"name": "eip", "vipUuid": vip}));
    let refs = json!([{"uuid": eip, "serviceType": "Eip", "vipUuid": vip}]);
    let check = |provider: Option<&str>, peers: Value| {
        let shown = world.shown(Kind::Vip, &vip);
        assert_eq!(shown.get("serviceProvider").and_then(Value::as_str), provider);
        assert_eq!(shown["peerL3NetworkUuids"], peers);
        assert_eq!((&shown["servicesRefs"], &shown["useFor"]), (&refs, &json!("Eip")));
        let not_yet = format!("nobody provides Eip to L3 network {} yet", world.guest);
        let why = shown.get("notInEffect").and_then(Value::as_str);
        assert_eq!(why, provider.map(|_| not_yet.as_str()));
    };
    check(None, json!([]));
    world.cloud.call(ATTACH, attach(&eip, &nic)).unwrap();
    check(Some("vrouter"), json!([world.guest]));
    world.cloud.call("DetachEip", json!({"uuid": eip})).unwrap();
    check(None, json!([]));
    world.cloud.call("DeleteEip", json!({"uuid": eip})).unwrap();
    let shown = world.shown(Kind::Vip, &vip);
    assert_eq!((shown.get("useFor"), &shown["servicesRefs"]), (None, &json!([])));
}

#[test]
fn p34_an_eip_of_a_stopped_instance_is_detached_right_after_it_was_attached() {
    let world = World::new();
    let ((vm, nic), eip) = (world.vm(), eip(&world));
    world.cloud.call("StopVmInstance", json!({"uuid": vm})).unwrap();
    world.cloud.call(ATTACH, attach(&eip, &nic)).unwrap();
    assert_eq!(nic_of(&world, &eip), Some(nic));
    world.cloud.call("DetachEip", json!({"uuid": eip})).unwrap();
    assert_eq!(nic_of(&world, &eip), None);
}

#[test]
fn an_eip_has_its_vip_alone() {
    let world = World::new();
    let vip = world.vip();
    let create = json!({"name": "eip", "vipUuid": vip});
    let eip = world.cloud.made("CreateEip", create.clone());
    world.refused("CreateEip", create.clone(), Code::OperationFailed, "vipUuid");
    let rule = json!({"name": "r", "vipUuid": vip, "vipPortStart": 80, "protocolType": "TCP"});
    let forward = "CreatePortForwardingRule";
    world.refused(forward, rule.clone(), Code::InvalidArgument, "vipUuid");
    world.cloud.call("DeleteEip", json!({"uuid": eip})).unwrap();
    world.cloud.made(forward, rule);
    let text = world.refused("CreateEip", create, Code::OperationFailed, "vipUuid");
    assert!(text.contains("is used for PortForwarding"), "{text}");
    let nowhere = json!({"name": "e", "vipUuid": "00000000000000000000000000000bad"});
    world.refused("CreateEip", nowhere, Code::NotFound, "vipUuid");
}

/// The same rules when it is made and when it is attached.
fn check_nic(world: &World, nic: &str, code: Code) {
    let vip = world.vip();
    let create = json!({"name": "eip", "vipUuid": vip, "vmNicUuid": nic});
    let text = world.refused("CreateEip", create, code, "vmNicUuid");
    let eip = world.cloud.made("CreateEip", json!({"name": "eip", "vipUuid": vip}));
    assert_eq!(world.refused(ATTACH, attach(&eip, nic), code, "vmNicUuid"), text);
    world.cloud.call("DeleteVip", json!({"uuid": vip})).unwrap();
    world.cloud.give_up_releases();
}

#[test]
fn a_nic_that_an_eip_does_not_lead_to() {
    let world = World::new();
    let (_, on_public) = world.vm_on(&[&world.public]);
    check_nic(&world, &on_public, Code::InvalidArgument);
    let (_, beside_public) = world.vm_on(&[&world.guest, &world.public]);
    check_nic(&world, &beside_public, Code::InvalidArgument);
    let bare = bare_l3(&world.cloud, &world.fixture, json!({}));
    world.cloud.made("AddIpRange", crate::harness::range(&bare, "10.0.0.10", "10.0.0.13"));
    let (_, without_service) = world.vm_on(&[&bare]);
    check_nic(&world, &without_service, Code::OperationFailed);
    world.serve(&bare, ProviderType::Flat, &["Eip"]);
    let flat = json!({"name": "e", "vipUuid": world.vip(), "vmNicUuid": without_service});
    let flat = world.cloud.made("CreateEip", flat);
    let of_vip = world.shown(Kind::Eip, &flat)["vipUuid"].as_str().unwrap().to_owned();
    assert_eq!(world.shown(Kind::Vip, &of_vip)["serviceProvider"], "Flat", "whoever provides it");
    check_nic(&world, &without_service, Code::OperationFailed);
    let nowhere = json!({"name": "e", "vipUuid": world.vip(),
        "vmNicUuid": "00000000000000000000000000000bad"});
    world.refused("CreateEip", nowhere, Code::NotFound, "vmNicUuid");
}

#[test]
fn a_vip_in_the_subnet_of_the_nic_is_not_carried_there() {
    let world = World::new();
    let inside = bare_l3(&world.cloud, &world.fixture, json!({}));
    world.cloud.made("AddIpRangeByNetworkCidr", by_cidr(&inside, "198.51.100.0/25"));
    world.serve(&inside, ProviderType::Vrouter, &["Eip"]);
    let (_, nic) = world.vm_on(&[&inside]);
    check_nic(&world, &nic, Code::OperationFailed);
}

#[test]
fn a_vip_and_the_address_of_its_nic_are_of_one_family() {
    let world = World::new();
    let six = |l3: &str, net: &str| {
        json!({"l3NetworkUuid": l3, "name": "six", "startIp": format!("{net}::10"),
            "endIp": format!("{net}::ff"), "gateway": format!("{net}::1"), "prefixLen": 64,
            "addressMode": "Stateful-DHCP"})
    };
    let (_, four) = world.vm();
    world.cloud.made("AddIpv6Range", six(&world.public, "2001:db8:1"));
    world.cloud.made("AddIpv6Range", six(&world.guest, "2001:db8:2"));
    let (_, both) = world.vm();
    let vip = json!({"name": "v", "l3NetworkUuid": world.public, "ipVersion": 6});
    let vip = world.cloud.made("CreateVip", vip);
    let create = |nic: &str, used: Option<&Value>| json!({"name": "e", "vipUuid": vip, "vmNicUuid": nic, "usedIpUuid": used});
    world.refused("CreateEip", create(&four, None), Code::OperationFailed, "vmNicUuid");
    let addresses: Vec<_> = world.cloud.addresses(both.parse().unwrap());
    let [of_four, of_six] = [&addresses[0], &addresses[1]].map(|used| json!(used.uuid));
    let wrong = create(&both, Some(&of_four));
    world.refused("CreateEip", wrong, Code::OperationFailed, "usedIpUuid");
    let theirs = create(&four, Some(&of_six));
    world.refused("CreateEip", theirs, Code::InvalidArgument, "usedIpUuid");
    let nobodys = json!({"name": "e", "vipUuid": vip, "usedIpUuid": of_six});
    world.refused("CreateEip", nobodys, Code::InvalidArgument, "usedIpUuid");
    let of_six_eip = world.cloud.made("CreateEip", create(&both, Some(&of_six)));
    assert_eq!(world.shown(Kind::Eip, &of_six_eip)["guestIp"], json!(addresses[1].ip));
    let of_four_eip = eip(&world);
    world.cloud.call(ATTACH, attach(&of_four_eip, &both)).unwrap();
    assert_eq!(world.shown(Kind::Eip, &of_four_eip)["guestIp"], json!(addresses[0].ip));
    let rule = json!({"name": "r", "vipUuid": vip, "vipPortStart": 80, "protocolType": "TCP"});
    let forward = "CreatePortForwardingRule";
    world.refused(forward, rule, Code::InvalidArgument, "vipUuid");
}

#[test]
fn an_eip_is_attached_once_and_while_it_is_enabled() {
    let world = World::new();
    let ((_, nic), (_, other), eip) = (world.vm(), world.vm(), eip(&world));
    let detach = json!({"uuid": eip});
    world.refused("DetachEip", detach.clone(), Code::OperationFailed, "uuid");
    let state = |event: &str| {
        let change = json!({"uuid": eip, "stateEvent": event});
        world.cloud.call("ChangeEipState", change).unwrap();
    };
    state("disable");
    world.refused(ATTACH, attach(&eip, &nic), Code::OperationFailed, "eipUuid");
    state("enable");
    world.cloud.call(ATTACH, attach(&eip, &nic)).unwrap();
    for nic in [&nic, &other] {
        world.refused(ATTACH, attach(&eip, nic), Code::OperationFailed, "eipUuid");
    }
    state("disable");
    assert_eq!(nic_of(&world, &eip), Some(nic.clone()), "where it is, it stays");
    world.cloud.call("DetachEip", detach).unwrap();
    state("enable");
    let vip = world.shown(Kind::Eip, &eip)["vipUuid"].clone();
    let disable = json!({"uuid": vip, "stateEvent": "disable"});
    world.cloud.call("ChangeVipState", disable).unwrap();
    world.refused(ATTACH, attach(&eip, &nic), Code::OperationFailed, "eipUuid");
    let rename = json!({"uuid": eip, "name": "other", "description": "d"});
    world.cloud.call("UpdateEip", rename).unwrap();
    assert_eq!(world.shown(Kind::Eip, &eip)["name"], "other");
}

#[test]
fn an_eip_stays_with_a_stopped_instance_and_leaves_a_destroyed_one() {
    let world = World::new();
    let ((vm, nic), eip) = (world.vm(), eip(&world));
    world.cloud.call(ATTACH, attach(&eip, &nic)).unwrap();
    let act = |message: &str| world.cloud.call(message, json!({"uuid": vm})).unwrap();
    act("StopVmInstance");
    assert_eq!(nic_of(&world, &eip), Some(nic.clone()));
    act("StartVmInstance");
    act("DestroyVmInstance");
    assert_eq!(nic_of(&world, &eip), None);
    let text = world.refused(ATTACH, attach(&eip, &nic), Code::OperationFailed, "vmNicUuid");
    assert!(text.contains("is destroyed"), "{text}");
    world.cloud.give_up_releases();
    act("RecoverVmInstance");
    assert_eq!(nic_of(&world, &eip), None, "nobody knows whether it is wanted there again");
    world.cloud.call(ATTACH, attach(&eip, &nic)).unwrap();
    let detach = json!({"vmNicUuid": nic});
    world.cloud.call("DetachL3NetworkFromVm", detach).unwrap();
    assert_eq!(nic_of(&world, &eip), None, "the NIC is gone");
    let vip = world.shown(Kind::Eip, &eip)["vipUuid"].as_str().unwrap().to_owned();
    assert_eq!(world.shown(Kind::Vip, &vip)["peerL3NetworkUuids"], json!([]));
}

#[test]
fn a_nic_with_an_eip_keeps_its_network_and_its_owner() {
    let world = World::new();
    let ((vm, nic), eip) = (world.vm(), eip(&world));
    world.cloud.call(ATTACH, attach(&eip, &nic)).unwrap();
    let blue = world.cloud.l3(&world.fixture, "blue");
    let change = json!({"vmNicUuid": nic, "destL3NetworkUuid": blue});
    world.refused("ChangeVmNicNetwork", change.clone(), Code::OperationFailed, "vmNicUuid");
    let red = tenant(&world.cloud, 7).account();
    let give = |uuid: &str| json!({"accountUuid": red, "resourceUuid": uuid});
    for uuid in [&vm, &eip] {
        world.refused("ChangeResourceOwner", give(uuid), Code::InvalidArgument, "resourceUuid");
    }
    world.cloud.call("DetachEip", json!({"uuid": eip})).unwrap();
    world.cloud.call("ChangeVmNicNetwork", change).unwrap();
    world.cloud.call("ChangeResourceOwner", give(&vm)).unwrap();
    world.cloud.call("ChangeResourceOwner", give(&eip)).unwrap();
}

#[test]
fn an_eip_follows_the_address_of_its_nic() {
    let world = World::new();
    let ((vm, nic), eip) = (world.vm(), eip(&world));
    world.cloud.call(ATTACH, attach(&eip, &nic)).unwrap();
    world.cloud.call("StopVmInstance", json!({"uuid": vm})).unwrap();
    let before = world.shown(Kind::Eip, &eip)["guestIp"].clone();
    let ip = ["10.0.0.12", "10.0.0.13"].into_iter().find(|ip| before != *ip).unwrap();
    let set = json!({"vmInstanceUuid": vm, "l3NetworkUuid": world.guest, "ip": ip});
    world.cloud.call("SetVmStaticIp", set).unwrap();
    assert_eq!(world.shown(Kind::Eip, &eip)["guestIp"], json!(ip));
    let detach = json!({"l3NetworkUuid": world.guest, "service": "Eip"});
    world.cloud.call("DetachNetworkServiceFromL3Network", detach).unwrap();
    let why = world.shown(Kind::Eip, &eip)["notInEffect"].as_str().unwrap().to_owned();
    assert!(why.contains("has no service Eip"), "{why}");
}

fn uuids(answer: &Value) -> Vec<String> {
    let found = answer["inventories"].as_array().unwrap().iter();
    let mut found: Vec<_> = found.map(|it| it["uuid"].as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

#[test]
fn what_could_be_attached_is_listed() {
    let world = World::new();
    let ((vm, nic), (_, taken)) = (world.vm(), world.vm());
    let free = world.cloud.made("CreateVmNic", json!({"l3NetworkUuid": world.guest}));
    world.vm_on(&[&world.public]);
    let (one, two) = (eip(&world), eip(&world));
    world.cloud.call(ATTACH, attach(&two, &taken)).unwrap();
    let nics = |params: Value| {
        world.cloud.look(ADMINISTRATOR, "GetEipAttachableVmNics", params).map(|it| uuids(&it))
    };
    assert_eq!(nics(json!({"eipUuid": one})).unwrap(), [nic.as_str()]);
    let mut both = [nic.clone(), free.clone()];
    both.sort();
    assert_eq!(nics(json!({"eipUuid": one, "attachedToVm": false})).unwrap(), both);
    let vip = world.shown(Kind::Eip, &one)["vipUuid"].clone();
    let none: [String; 0] = [];
    for (more, expected) in [
        (json!({}), vec![nic.clone()]),
        (json!({"vmUuid": vm}), vec![nic.clone()]),
        (json!({"vmName": "vm"}), vec![nic.clone()]),
        (json!({"vmName": "other"}), vec![]),
        (json!({"networkServiceProvider": "vrouter"}), vec![nic.clone()]),
        (json!({"networkServiceProvider": "Flat"}), vec![]),
    ] {
        let mut params = json!({"vipUuid": vip});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(nics(params).unwrap(), expected, "{more}");
    }
    let error = nics(json!({})).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some("eipUuid")));
    let eips = |nic: &str, more: Value| {
        let mut params = json!({"vmNicUuid": nic});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.cloud.look(ADMINISTRATOR, "GetVmNicAttachableEips", params).map(|it| uuids(&it))
    };
    assert_eq!(eips(&nic, json!({})).unwrap(), [one.as_str()]);
    assert_eq!(eips(&nic, json!({"ipVersion": 4})).unwrap(), [one.as_str()]);
    assert_eq!(eips(&nic, json!({"ipVersion": 6})).unwrap(), none);
    assert_eq!(eips(&taken, json!({})).unwrap(), none, "it has one");
    assert_eq!(eips(&free, json!({})).unwrap_err().code, Code::OperationFailed);
    let disable = json!({"uuid": one, "stateEvent": "disable"});
    world.cloud.call("ChangeEipState", disable).unwrap();
    assert_eq!(eips(&nic, json!({})).unwrap(), none);
    assert_eq!(nics(json!({"eipUuid": one})).unwrap_err().code, Code::OperationFailed);
}

#[test]
fn an_account_attaches_its_own_to_its_own() {
    let world = World::new();
    let (red, (vm, nic)) = (red(&world), world.vm());
    let as_red = |name: &str, params: Value| send(&world.cloud, red, name, params);
    let vip = json!({"name": "v", "l3NetworkUuid": world.public});
    let vip = as_red("CreateVip", vip).unwrap();
    let theirs = as_red("CreateEip", json!({"name": "e", "vipUuid": vip})).unwrap();
    assert_eq!(as_red(ATTACH, attach(&theirs, &nic)).unwrap_err().code, Code::NotFound);
    let ours = eip(&world);
    let error = as_red("DetachEip", json!({"uuid": ours}));
    assert_eq!(error.unwrap(), "", "what it does not see is gone already");
    assert_eq!(
        as_red("UpdateEip", json!({"uuid": ours, "name": "x"})).unwrap_err().code,
        Code::NotFound
    );
    let give = json!({"accountUuid": red.account(), "resourceUuid": vm});
    let list = |name: &str, params: Value| uuids(&world.cloud.look(red, name, params).unwrap());
    let nics = || list("GetEipAttachableVmNics", json!({"eipUuid": theirs}));
    assert_eq!(nics(), Vec::<String>::new(), "those of others are not its to choose");
    world.cloud.call("ChangeResourceOwner", give).unwrap();
    assert_eq!(nics(), [nic.as_str()]);
    let eips = list("GetVmNicAttachableEips", json!({"vmNicUuid": nic}));
    assert_eq!(eips, [theirs.as_str()]);
    as_red(ATTACH, attach(&theirs, &nic)).unwrap();
}
