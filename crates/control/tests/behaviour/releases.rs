//! What rests after a deletion, and until when.

use std::{collections::BTreeSet, time::Duration};

use model::{Code, Kind, Record};
use netloom_control as control;
use serde_json::{Value, json};
use store::Read;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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

    let again = vm("c", &l3, second);
    let error = cloud.call_tagged("CreateVmInstance", again.clone(), &tags).unwrap_err();
    assert_eq!(error.code, Code::IpExhausted);
    assert!(error.message.contains("still being released"), "{error}");
    acknowledged(&mut cloud, &[first], 1).await;
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
fn deleted_network(cloud: &Cloud, fixture: &Fixture) {
    let network = json!({"name": "n", "poolUuid": fixture.pool, "vni": 101});
    let l2 = cloud.made("CreateL2VxlanNetwork", network);
    let l3 = cloud.made("CreateL3Network", json!({"name": "n", "l2NetworkUuid": l2}));
    let range = crate::harness::range(&l3, "10.0.0.10", "10.0.0.13");
    cloud.call("AddIpRange", range).unwrap();
    let instance = cloud.made("CreateVmInstance", vm("a", &l3, &fixture.hosts[0]));
    destroy(cloud, &instance);
    cloud.call("DeleteL3Network", json!({"uuid": l3})).unwrap();
    cloud.call("DeleteL2Network", json!({"uuid": l2})).unwrap();
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
