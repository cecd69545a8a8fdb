//! What rests after a deletion, and until when.

use std::{net::IpAddr, time::Duration};

use model::{
    Claim, Code, Id, Kind, Meta, Record, Resource, Timestamp, resource::release::Release,
    status::Board,
};
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

/// Tells hosts of what they have to take out.
fn tell(cloud: &mut Cloud, hosts: &[&String]) {
    hosts.iter().for_each(|host| cloud.tell(host));
}

/// Reports that these hosts have applied everything, and waits until `left` releases are left.
pub(crate) async fn acknowledged(cloud: &mut Cloud, hosts: &[&String], left: usize) {
    let (board, reports) = watch::channel(cloud.board.clone());
    let stop = CancellationToken::new();
    let releaser = control::releaser::run(cloud.store.clone(), reports, stop.clone());
    let head = cloud.snapshot().revision();
    let drive = async {
        tokio::task::yield_now().await;
        cloud.board.revision = head;
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
    tell(&mut cloud, &[second]);
    // Only the first host knows this one: its release goes in the pass that must keep the other.
    let blue = cloud.l3(&fixture, "blue");
    let other = cloud.made("CreateVmInstance", vm("d", &blue, first));
    destroy(&cloud, &other);
    tell(&mut cloud, &[first]);

    let again = vm("c", &l3, second);
    let error = cloud.call_tagged("CreateVmInstance", again.clone(), &tags).unwrap_err();
    assert_eq!(error.code, Code::IpExhausted);
    assert!(error.message.contains("still being released"), "{error}");
    // The place of the instance and its address: here the second host was told of both.
    acknowledged(&mut cloud, &[first], 2).await;
    let error = cloud.call_tagged("CreateVmInstance", again.clone(), &tags).unwrap_err();
    assert_eq!(error.code, Code::IpExhausted);
    acknowledged(&mut cloud, &[first, second], 0).await;
    cloud.call_tagged("CreateVmInstance", again, &tags).unwrap();
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
    tell(&mut cloud, &[&fixture.hosts[0]]);
    let again = json!({"name": "m", "poolUuid": fixture.pool, "vni": 101});
    let (code, field, text) = cloud.refusal("CreateL2VxlanNetwork", again.clone());
    assert_eq!((code, field.as_deref()), (Code::VniExhausted, Some("vni")), "{text}");
    assert!(text.contains("still being released"), "{text}");
    acknowledged(&mut cloud, &[&fixture.hosts[0]], 0).await;
    cloud.call("CreateL2VxlanNetwork", again).unwrap();
}

/// Field case F36: a uuid that is used again.
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
    let address = cloud.addresses(nic.uuid)[0].ip;
    destroy(&cloud, &instance);
    cloud.call("ExpungeVmInstance", json!({"uuid": instance})).unwrap();
    let again = json!({"l3NetworkUuid": l3, "ip": address});
    let refused = cloud.run("CreateVmNic", again, &[], Some(nic.uuid.uuid())).unwrap_err();
    assert!(refused.message.contains("still being released"), "{refused}");
}

fn claim(number: u128) -> Claim {
    Claim::Ip(Id::new(Uuid::from_u128(1)), IpAddr::V6(number.into()))
}

#[tokio::test]
async fn however_many_releases_are_due_they_are_given_up() {
    let mut cloud = Cloud::empty();
    let stray = |number: u128| Release {
        uuid: Id::new(Uuid::from_u128(number)),
        objects: vec![Uuid::from_u128(1)],
        claims: vec![claim(number)],
        hosts: Some(Vec::new()),
        create_date: Timestamp(0),
    };
    // More than one transaction may write.
    for start in (0..12_000).step_by(4_000) {
        let put = move |tx: &mut Tx<Record>| {
            for number in start..start + 4_000 {
                tx.put(Record::new(stray(number), Meta::default())).unwrap();
            }
            Ok(())
        };
        cloud.store.transact(put).unwrap();
    }
    acknowledged(&mut cloud, &[], 0).await;
    assert!((0..12_000).all(|number| cloud.snapshot().holder(&claim(number)).is_none()));
}

#[tokio::test]
async fn a_deleted_host_holds_nothing_back() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    deleted_network(&cloud, &fixture);
    cloud.lost(&fixture.hosts[0]);
    tell(&mut cloud, &[&fixture.hosts[0]]);
    let (_board, reports) = watch::channel(cloud.board.clone());
    let stop = CancellationToken::new();
    let releaser = control::releaser::run(cloud.store.clone(), reports, stop.clone());
    let drive = async {
        tokio::task::yield_now().await;
        assert_eq!(cloud.snapshot().list(Kind::Release).count(), 4, "place, address, MAC and VNI");
        let dead = json!({"uuid": fixture.hosts[0], "deleteMode": "Enforcing"});
        cloud.call("DeleteHost", dead).unwrap();
        until_left(&cloud, 0).await;
        stop.cancel();
    };
    tokio::join!(releaser, drive);
}

#[tokio::test]
async fn what_stays_open_gets_its_hosts_written_down_and_a_restarted_server_waits_for_them() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    deleted_network(&cloud, &fixture);
    let [first, second] = &fixture.hosts;
    tell(&mut cloud, &[first]);
    let (board, reports) = watch::channel(cloud.board.clone());
    let stop = CancellationToken::new();
    let releaser = control::releaser::run(cloud.store.clone(), reports, stop.clone());
    let named = async {
        let hosts = |record: &Record| Release::of(record).unwrap().hosts.clone();
        let expected = Some(vec![first.parse().unwrap()]);
        let all = || cloud.snapshot().list(Kind::Release).all(|row| hosts(&row) == expected);
        while !all() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(releaser, named) };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("written down");
    drop(board);
    // The server that starts now was told nothing, and the second host knows nothing of it.
    cloud.board = Board::default();
    acknowledged(&mut cloud, &[second], 4).await;
    acknowledged(&mut cloud, &[first], 0).await;
}
