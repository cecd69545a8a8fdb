//! What rests after a deletion, and until when.

use std::{collections::BTreeSet, time::Duration};

use model::{Code, Id, Kind, Record, Timestamp, resource::release::Release};
use netloom_control as control;
use serde_json::{Value, json};
use store::{Read, Tx};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{Cloud, Fixture};

fn vm(name: &str, l3: &str, host: &str) -> Value {
    json!({"name": name, "l3NetworkUuids": [l3], "hostUuid": host})
}

fn destroy(cloud: &Cloud, vm: &str) {
    cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
}

/// Reports that these hosts have applied everything, and waits until `left` releases are left.
async fn acknowledged(cloud: &mut Cloud, hosts: &[&String], left: usize) {
    let (board, reports) = watch::channel(cloud.board.clone());
    let stop = CancellationToken::new();
    let releaser = control::releaser::run(cloud.store.clone(), reports, stop.clone());
    let head = cloud.snapshot().revision();
    let drive = async {
        tokio::task::yield_now().await;
        hosts.iter().for_each(|host| cloud.acked(host, head));
        board.send_replace(cloud.board.clone());
        until_left(cloud, left).await;
        stop.cancel();
    };
    tokio::join!(releaser, drive);
}

async fn until_left(cloud: &Cloud, left: usize) {
    let reached = async {
        while cloud.snapshot().list(Kind::Release).count() != left {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("released");
}

#[tokio::test]
async fn an_address_rests_until_every_host_has_let_go_of_it() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let [first, second] = &fixture.hosts;
    let tags = [format!("staticIp::{l3}::10.0.0.11")];
    let made = cloud.call_tagged("CreateVmInstance", vm("a", &l3, first), &tags).unwrap();
    cloud.call("CreateVmInstance", vm("b", &l3, second)).unwrap();
    destroy(&cloud, &made.subject.unwrap().1.simple().to_string());
    // Only the first host knows this one: its release goes in the pass that must keep the other.
    let blue = cloud.l3(&fixture, "blue");
    let other = cloud.made("CreateVmInstance", vm("d", &blue, first));
    destroy(&cloud, &other);

    let again = vm("c", &l3, second);
    let error = cloud.call_tagged("CreateVmInstance", again.clone(), &tags).unwrap_err();
    assert_eq!(error.code, Code::IpExhausted);
    assert!(error.message.contains("still being released"), "{error}");
    acknowledged(&mut cloud, &[first], 1).await;
    let error = cloud.call_tagged("CreateVmInstance", again.clone(), &tags).unwrap_err();
    assert_eq!(error.code, Code::IpExhausted);
    acknowledged(&mut cloud, &[first, second], 0).await;
    cloud.call_tagged("CreateVmInstance", again, &tags).unwrap();
}

#[test]
fn a_host_that_is_still_leaving_a_network_holds_later_releases_too() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let [first, second] = &fixture.hosts;
    let stays = cloud.made("CreateVmInstance", vm("a", &l3, first));
    let leaves = cloud.made("CreateVmInstance", vm("b", &l3, second));
    destroy(&cloud, &leaves);
    destroy(&cloud, &stays);
    let snapshot = cloud.snapshot();
    for release in snapshot.list(Kind::Release) {
        let Record::Release(release) = &*release else { panic!("{release:?}") };
        let hosts: BTreeSet<String> = release.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, fixture.hosts.iter().cloned().collect());
    }
}

/// A network of VNI 101 whose only instance was on the first host, and that is deleted since.
fn deleted_network(cloud: &Cloud, fixture: &Fixture) -> Uuid {
    let network = json!({"name": "n", "poolUuid": fixture.pool, "vni": 101});
    let l2 = cloud.made("CreateL2VxlanNetwork", network);
    let l3 = cloud.made("CreateL3Network", json!({"name": "n", "l2NetworkUuid": l2}));
    let range = crate::harness::range(&l3, "10.0.0.10", "10.0.0.13");
    cloud.call("AddIpRange", range).unwrap();
    let instance = cloud.made("CreateVmInstance", vm("a", &l3, &fixture.hosts[0]));
    destroy(cloud, &instance);
    cloud.call("DeleteL3Network", json!({"uuid": l3})).unwrap();
    cloud.call("DeleteL2Network", json!({"uuid": l2})).unwrap();
    model::id::parse_uuid(&l2).unwrap()
}

#[tokio::test]
async fn a_vni_rests_until_every_host_has_let_go_of_its_network() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    deleted_network(&cloud, &fixture);
    let again = json!({"name": "m", "poolUuid": fixture.pool, "vni": 101});
    let (code, field, text) = cloud.refusal("CreateL2VxlanNetwork", again.clone());
    assert_eq!((code, field.as_deref()), (Code::VniExhausted, Some("vni")), "{text}");
    assert!(text.contains("still being released"), "{text}");
    acknowledged(&mut cloud, &[&fixture.hosts[0]], 0).await;
    cloud.call("CreateL2VxlanNetwork", again).unwrap();
}

#[tokio::test]
async fn what_rests_is_not_given_to_a_namesake_of_the_deleted_either() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let gone = deleted_network(&cloud, &fixture);
    let again = |vni: u32| json!({"name": "m", "poolUuid": fixture.pool, "vni": vni});
    let refused = cloud.run("CreateL2VxlanNetwork", again(101), &[], Some(gone)).unwrap_err();
    assert!(refused.message.contains("still being released"), "{refused}");
    // With another VNI it may live; the old one becomes free nevertheless, the new one does not.
    cloud.run("CreateL2VxlanNetwork", again(102), &[], Some(gone)).unwrap();
    acknowledged(&mut cloud, &[&fixture.hosts[0]], 0).await;
    let other = |vni: u32| json!({"name": "o", "poolUuid": fixture.pool, "vni": vni});
    let (code, _, text) = cloud.refusal("CreateL2VxlanNetwork", other(102));
    assert_eq!(code, Code::VniExhausted, "{text}");
    cloud.call("CreateL2VxlanNetwork", other(101)).unwrap();
}

#[test]
fn an_address_that_rests_is_not_given_to_a_namesake_of_its_nic() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let instance = cloud.made("CreateVmInstance", vm("a", &l3, &fixture.hosts[0]));
    let nic = cloud.nics(&instance).remove(0);
    destroy(&cloud, &instance);
    let again = json!({"l3NetworkUuid": l3, "ip": nic.used_ips[0].ip});
    let refused = cloud.run("CreateVmNic", again, &[], Some(nic.uuid.uuid())).unwrap_err();
    assert!(refused.message.contains("still being released"), "{refused}");
}

#[tokio::test]
async fn a_claim_that_somebody_alive_holds_is_not_given_up() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let network = json!({"name": "n", "poolUuid": fixture.pool, "vni": 101});
    cloud.made("CreateL2VxlanNetwork", network);
    let claim = format!("vni/{}/{:06x}", fixture.zone, 101);
    let owner = cloud.snapshot().claim_owner(&claim).expect("held");
    let stray = Release {
        uuid: Id::new(Uuid::from_u128(1)),
        l2_network_uuid: Id::new(owner),
        claims: vec![claim.clone()],
        hosts: Vec::new(),
        create_date: Timestamp(0),
    };
    let put = move |tx: &mut Tx<Record>| {
        tx.put(Record::Release(stray.clone()));
        Ok(())
    };
    cloud.store.transact(put).unwrap();
    acknowledged(&mut cloud, &[], 0).await;
    assert_eq!(cloud.snapshot().claim_owner(&claim), Some(owner));
}

#[tokio::test]
async fn however_many_releases_are_due_they_are_given_up() {
    let mut cloud = Cloud::empty();
    let stray = |number: u128| Release {
        uuid: Id::new(Uuid::from_u128(number)),
        l2_network_uuid: Id::new(Uuid::from_u128(1)),
        claims: vec![format!("ip/{number}")],
        hosts: Vec::new(),
        create_date: Timestamp(0),
    };
    // More than one transaction may write.
    for start in (0..12_000).step_by(4_000) {
        let put = move |tx: &mut Tx<Record>| {
            for number in start..start + 4_000 {
                tx.claim(&format!("ip/{number}"), Uuid::from_u128(2)).unwrap();
                tx.put(Record::Release(stray(number)));
            }
            Ok(())
        };
        cloud.store.transact(put).unwrap();
    }
    acknowledged(&mut cloud, &[], 0).await;
    assert_eq!(cloud.snapshot().claims_with_prefix("ip/").count(), 0);
}

#[tokio::test]
async fn a_deleted_host_holds_nothing_back() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    deleted_network(&cloud, &fixture);
    let (_board, reports) = watch::channel(cloud.board.clone());
    let stop = CancellationToken::new();
    let releaser = control::releaser::run(cloud.store.clone(), reports, stop.clone());
    let drive = async {
        tokio::task::yield_now().await;
        assert_eq!(cloud.snapshot().list(Kind::Release).count(), 2, "address and VNI");
        cloud.call("DeleteHost", json!({"uuid": fixture.hosts[0]})).unwrap();
        until_left(&cloud, 0).await;
        stop.cancel();
    };
    tokio::join!(releaser, drive);
}
