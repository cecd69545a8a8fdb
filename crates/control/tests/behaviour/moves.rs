//! NICs without an instance that move from one host to another.

use std::time::Duration;

use model::{
    Claim, Code, Id, Kind, Timestamp,
    resource::{host::Host, vm_nic::VmNic},
    status::HostStatus,
};
use netloom_control::{self as control, steady::Steady};
use serde_json::{Value, json};
use store::Read;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, request, tenant},
    releases::acknowledged,
};

fn at(nic: &str, host: &str, device: &str) -> Value {
    json!({"vmNicUuid": nic, "hostUuid": host, "device": device})
}

fn to(nic: &str, host: &str) -> Value {
    json!({"vmNicUuid": nic, "hostUuid": host})
}

fn of(nic: &str) -> Value {
    json!({"vmNicUuid": nic})
}

/// A NIC that is plugged in on the first host, and its network.
fn plugged() -> (Cloud, Fixture, String, String) {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    cloud.call("PlugVmNic", at(&nic, &fixture.hosts[0], "vnet0")).unwrap();
    (cloud, fixture, nic, l3)
}

fn get(cloud: &Cloud, nic: &str) -> VmNic {
    cloud.get(nic.parse::<Id<VmNic>>().unwrap()).unwrap()
}

/// Where a NIC is and where it moves to, as callers see it.
fn shown(cloud: &Cloud, nic: &str) -> [Value; 4] {
    let snapshot = cloud.snapshot();
    let record = snapshot.get(Kind::VmNic, model::id::parse_uuid(nic).unwrap()).unwrap();
    let observed = control::inventory::Observed::new(&snapshot, &cloud.board);
    let shown = control::inventory::show(&record, &observed);
    ["hostUuid", "device", "pendingHostUuid", "pendingDevice"]
        .map(|field| shown.get(field).cloned().unwrap_or_default())
}

/// The server follows the board until the NIC is where it moved to, or until it has looked at it
/// again after it looked once: nothing happens then.
async fn followed(cloud: &Cloud, nic: &str, moves: bool) {
    let (board, reports) = watch::channel(cloud.board.clone());
    let (stop, clock) = (CancellationToken::new(), Steady::new(|| Timestamp(7)));
    let mover = control::mover::run(cloud.store.clone(), reports, clock, stop.clone());
    let drive = async {
        let waits = || get(cloud, nic).pending().is_some();
        if moves {
            let moved = async {
                while waits() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), moved).await.expect("it has moved");
        } else {
            tokio::task::yield_now().await;
            board.send_replace(cloud.board.clone());
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    tokio::join!(mover, drive);
}

fn arrives(cloud: &mut Cloud, host: &str, number: u32) {
    let host: Id<Host> = host.parse().unwrap();
    let arrived = [number].into_iter().collect();
    let status = HostStatus { arrived, ..cloud.board.status(host).clone() };
    cloud.board.put(host, status);
}

#[tokio::test]
async fn a_nic_is_bound_elsewhere_and_is_there_once_its_host_says_so() {
    let (mut cloud, fixture, nic, _) = plugged();
    let [first, second] = &fixture.hosts;
    let addresses = cloud.addresses(get(&cloud, &nic).uuid);
    let done = cloud.run("BindVmNic", at(&nic, second, "vnet7"), &[], None).unwrap();
    assert_eq!(done.hosts.len(), 2, "both hosts have to prepare for it");
    assert!(done.objects.contains(&model::id::parse_uuid(&nic).unwrap()), "success waits for it");
    let both = [json!(first), json!("vnet0"), json!(second), json!("vnet7")];
    assert_eq!(shown(&cloud, &nic), both);
    cloud.call("BindVmNic", at(&nic, second, "vnet7")).expect("it is bound already");
    assert_eq!(shown(&cloud, &nic), both);

    let number = get(&cloud, &nic).move_number;
    arrives(&mut cloud, second, number + 1);
    followed(&cloud, &nic, false).await;
    assert_eq!(shown(&cloud, &nic), both, "that was another move");
    arrives(&mut cloud, first, number);
    followed(&cloud, &nic, false).await;
    assert_eq!(shown(&cloud, &nic), both, "a host speaks only for moves to itself");
    arrives(&mut cloud, second, number);
    followed(&cloud, &nic, true).await;
    assert_eq!(shown(&cloud, &nic), [json!(second), json!("vnet7"), Value::Null, Value::Null]);
    assert_eq!(cloud.addresses(get(&cloud, &nic).uuid), addresses, "it keeps its address");
    cloud.call("ActivateVmNicBinding", to(&nic, second)).expect("it is there already");
}

#[tokio::test]
async fn a_host_that_a_nic_has_left_keeps_its_claim_until_it_has_let_go() {
    let (mut cloud, fixture, nic, l3) = plugged();
    let [first, second] = fixture.hosts.clone();
    cloud.call("BindVmNic", at(&nic, &second, "vnet7")).unwrap();
    cloud.call("ActivateVmNicBinding", to(&nic, &second)).unwrap();
    cloud.tell(&first);
    let place = Claim::Plugged(first.parse().unwrap(), nic.parse().unwrap());
    let holder = |cloud: &Cloud| cloud.snapshot().holder(&place).map(|(kind, _)| kind);
    assert_eq!(holder(&cloud), Some(Kind::Release));
    cloud.call("UnplugVmNic", of(&nic)).unwrap();
    cloud.tell(&second);
    let vm = cloud.l3(&fixture, "blue");
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [vm]}));
    let attach = json!({"vmInstanceUuid": vm, "vmNicUuid": nic});
    assert_eq!(cloud.refusal("AttachVmNicToVm", attach.clone()).0, Code::InUse);
    acknowledged(&mut cloud, &[&second], 2).await;
    assert_eq!(cloud.refusal("AttachVmNicToVm", attach).0, Code::InUse, "the first one has it");
    acknowledged(&mut cloud, &[&first], 0).await;
    assert_eq!(holder(&cloud), None);
    cloud.call("PlugVmNic", at(&nic, &second, "vnet7")).unwrap();

    // Of a network that goes while a NIC moves, both hosts must let go.
    cloud.call("BindVmNic", at(&nic, &first, "vnet0")).unwrap();
    cloud.call("DeleteL3Network", json!({"uuid": l3})).unwrap();
    [&first, &second].iter().for_each(|host| cloud.tell(host));
    let left = cloud.snapshot().list(Kind::Release).count();
    assert!(left > 0);
    acknowledged(&mut cloud, &[&second], left).await;
    assert_eq!(holder(&cloud), Some(Kind::Release), "the one it was to move to is one of them");
    acknowledged(&mut cloud, &[&first], 0).await;
}

#[test]
fn a_move_is_given_up_and_begun_again() {
    let (mut cloud, fixture, nic, _) = plugged();
    let [first, second] = fixture.hosts.clone();
    let stays = [json!(first), json!("vnet0"), Value::Null, Value::Null];
    cloud.call("UnbindVmNic", of(&nic)).expect("it is not being moved");
    cloud.call("BindVmNic", at(&nic, &second, "vnet7")).unwrap();
    let number = get(&cloud, &nic).move_number;
    let done = cloud.run("UnbindVmNic", of(&nic), &[], None).unwrap();
    assert_eq!(done.hosts.len(), 2, "both have to know");
    assert_eq!(shown(&cloud, &nic), stays);
    cloud.tell(&second);
    cloud.call("BindVmNic", at(&nic, &second, "vnet8")).expect("to the one that still may have it");
    assert!(get(&cloud, &nic).move_number > number, "another move");
    cloud.call("UnplugVmNic", of(&nic)).unwrap();
    assert_eq!(shown(&cloud, &nic), [const { Value::Null }; 4], "out of both");
    assert_eq!(cloud.refusal("ActivateVmNicBinding", to(&nic, &second)).0, Code::OperationFailed);
}

#[test]
fn what_cannot_move_is_refused_with_the_remedy() {
    let (mut cloud, fixture, nic, l3) = plugged();
    let [first, second] = fixture.hosts.clone();
    let says = |cloud: &Cloud, message: &str, params: Value, field: &str, what: &str| {
        let (code, blamed, text) = cloud.refusal(message, params);
        assert_eq!(blamed.as_deref().unwrap_or_default(), field, "{text}");
        assert!(text.contains(what), "{text}");
        code
    };
    says(&cloud, "PlugVmNic", at(&nic, &second, "vnet7"), "vmNicUuid", "BindVmNic");
    says(&cloud, "BindVmNic", at(&nic, &first, "vnet7"), "hostUuid", "another host");
    says(&cloud, "BindVmNic", at(&nic, &second, "a b"), "device", "white space");
    says(&cloud, "ActivateVmNicBinding", to(&nic, &second), "vmNicUuid", "BindVmNic");
    let other = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    says(&cloud, "BindVmNic", at(&other, &second, "vnet7"), "vmNicUuid", "PlugVmNic");
    cloud.call("PlugVmNic", at(&other, &second, "vnet7")).unwrap();
    let code = says(&cloud, "BindVmNic", at(&nic, &second, "vnet7"), "device", "UnplugVmNic");
    assert_eq!(code, Code::InUse, "the device has another NIC");
    let routes = json!({"vmNicUuid": nic, "prefixes": ["192.168.0.0/24"]});
    cloud.call("SetVmNicAllowedPrefixes", routes.clone()).unwrap();
    says(&cloud, "BindVmNic", at(&nic, &second, "vnet8"), "vmNicUuid", "prefixes");
    cloud.call("SetVmNicAllowedPrefixes", json!({"vmNicUuid": nic, "prefixes": []})).unwrap();
    cloud.lost(&second);
    says(&cloud, "BindVmNic", at(&nic, &second, "vnet8"), "hostUuid", "start its agent");
    cloud.acked(&second, 0);

    cloud.call("BindVmNic", at(&nic, &second, "vnet8")).unwrap();
    says(&cloud, "SetVmNicAllowedPrefixes", routes, "prefixes", "UnbindVmNic");
    says(&cloud, "BindVmNic", at(&nic, &second, "vnet9"), "vmNicUuid", "UnbindVmNic");
    says(&cloud, "ActivateVmNicBinding", to(&nic, &first), "hostUuid", "UnbindVmNic");
    let code = says(&cloud, "PlugVmNic", at(&other, &second, "vnet8"), "vmNicUuid", "UnplugVmNic");
    assert_eq!(code, Code::OperationFailed);
    cloud.call("UnplugVmNic", of(&other)).unwrap();
    let (code, _, text) = cloud.refusal("DeleteHost", json!({"uuid": second}));
    assert!(code == Code::InUse && text.contains("UnplugVmNic"), "{text}");
    let detach = json!({"l2NetworkUuid": fixture.pool, "clusterUuid": fixture.cluster});
    assert_eq!(cloud.refusal("DetachL2NetworkFromCluster", detach).0, Code::InUse);
    assert_eq!(cloud.refusal("DeleteVmNic", json!({"uuid": nic})).0, Code::InUse);
}

#[test]
fn a_nic_in_a_physical_network_does_not_move() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let [first, second] = &fixture.hosts;
    let flat = json!({"name": "flat", "zoneUuid": fixture.zone, "physicalInterface": "eth1"});
    let l2 = cloud.made("CreateL2NoVlanNetwork", flat);
    let l3 = json!({"name": "flat", "l2NetworkUuid": l2});
    let l3 = cloud.made("CreateL3Network", l3);
    cloud.call("AddIpRange", crate::harness::range(&l3, "10.0.0.2", "10.0.0.99")).unwrap();
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    // As if it had been plugged in there: no host here has the interface.
    let nic = VmNic {
        host_uuid: Some(first.parse().unwrap()),
        plugged_device: Some("vnet0".to_owned()),
        ..get(&cloud, &nic)
    };
    let id = nic.uuid;
    let put = move |tx: &mut store::Tx<model::Record>| {
        let meta = model::Meta::default();
        let row = model::Record::new(nic.clone(), meta);
        tx.put(row).map_err(|taken| model::Error::new(Code::Internal, taken.claim.to_string()))
    };
    cloud.store.transact(put).unwrap();
    let nic = id.to_string();
    let (code, field, text) = cloud.refusal("BindVmNic", at(&nic, second, "vnet7"));
    assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("vmNicUuid")), "{text}");
    assert!(text.contains("physical") && text.contains("UnplugVmNic"), "{text}");
}

#[test]
fn a_nic_does_not_move_where_foreign_vteps_are() {
    let (cloud, fixture, nic, _) = plugged();
    let foreign = json!({
        "l2NetworkUuid": fixture.pool, "clusterUuid": fixture.cluster, "remoteVtepIp": "172.30.0.77",
    });
    cloud.call("CreateVxlanPoolRemoteVtep", foreign).unwrap();
    let (code, field, text) = cloud.refusal("BindVmNic", at(&nic, &fixture.hosts[1], "vnet7"));
    assert_eq!((code, field.as_deref()), (Code::OperationFailed, Some("vmNicUuid")), "{text}");
    assert!(text.contains("no hosts") && text.contains("UnplugVmNic"), "{text}");
}

#[test]
fn a_nic_outlives_either_host_of_its_move() {
    let (mut cloud, fixture, nic, _) = plugged();
    let [first, second] = fixture.hosts.clone();
    let dead = |host: &str| json!({"uuid": host, "deleteMode": "Enforcing"});
    cloud.call("BindVmNic", at(&nic, &second, "vnet7")).unwrap();
    cloud.lost(&first);
    cloud.call("DeleteHost", dead(&first)).unwrap();
    assert_eq!(shown(&cloud, &nic)[0], Value::Null);
    assert_eq!(cloud.refusal("DeleteVmNic", json!({"uuid": nic})).0, Code::InUse, "it has a place");
    cloud.call("ActivateVmNicBinding", to(&nic, &second)).unwrap();
    assert_eq!(shown(&cloud, &nic), [json!(second), json!("vnet7"), Value::Null, Value::Null]);

    let (mut cloud, fixture, nic, _) = plugged();
    let [first, second] = fixture.hosts.clone();
    cloud.call("BindVmNic", at(&nic, &second, "vnet7")).unwrap();
    cloud.lost(&second);
    cloud.call("DeleteHost", dead(&second)).unwrap();
    assert_eq!(shown(&cloud, &nic), [json!(first), json!("vnet0"), Value::Null, Value::Null]);
    cloud.call("UnplugVmNic", of(&nic)).unwrap();
}

#[test]
fn moves_are_the_administrators() {
    let (cloud, fixture, nic, _) = plugged();
    let caller = tenant(&cloud, 7);
    cloud.give(Kind::VmNic, &nic, caller.account().unwrap());
    let second = &fixture.hosts[1];
    let bind = at(&nic, second, "vnet7");
    let refused = |message: &str, params: Value| {
        let error = cloud.send(caller, vec![request(message, params)]).unwrap_err();
        assert_eq!(error.code, Code::AccessDenied, "{error}");
    };
    refused("BindVmNic", bind.clone());
    cloud.send(ADMINISTRATOR, vec![request("BindVmNic", bind)]).unwrap();
    refused("UnbindVmNic", of(&nic));
    refused("ActivateVmNicBinding", to(&nic, second));
}
