//! Pools with the same VNIs: no tunnel end is of two of them.

use std::net::IpAddr;

use model::{
    Claim, Code, Id, Kind, Meta, Record, Resource,
    resource::{
        host::Host,
        l2_network::{L2Network, Segment},
        l2_vxlan::{VNI_MAX, VniRange},
        vtep::Vtep,
    },
    status::HostDevice,
};
use netloom_control::doctor::{self, Rule};
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{Cloud, Fixture, range},
    l2::into_cluster,
    releases::acknowledged,
};

const RANGE: &str = "CreateVniRange";
const REMOTE: &str = "CreateVxlanPoolRemoteVtep";

fn pool(cloud: &Cloud, fixture: &Fixture) -> String {
    cloud.made("CreateL2VxlanNetworkPool", json!({"name": "q", "zoneUuid": fixture.zone}))
}

fn vnis(pool: &str, start: u32, end: u32) -> Value {
    json!({"name": "r", "startVni": start, "endVni": end, "l2NetworkUuid": pool})
}

/// Another pool with the VNIs of the fixture's.
fn twin(cloud: &Cloud, fixture: &Fixture) -> String {
    let pool = pool(cloud, fixture);
    cloud.made(RANGE, vnis(&pool, 100, 103));
    pool
}

fn network(pool: &str, vni: Option<u32>) -> Value {
    json!({"name": "n", "poolUuid": pool, "vni": vni})
}

fn vni_of(cloud: &Cloud, network: &str) -> Option<u32> {
    cloud.get::<L2Network>(network.parse().unwrap()).unwrap().segment.number()
}

fn attach(cloud: &Cloud, fixture: &Fixture, pool: &str, cidr: &str) -> Result<(), model::Error> {
    let cluster = &fixture.cluster;
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{{cidr}}}");
    let params = into_cluster(fixture, pool);
    cloud.call_tagged("AttachL2NetworkToCluster", params, &[tag]).map(drop)
}

/// Another cluster, with a host of this management address.
fn elsewhere(cloud: &Cloud, fixture: &Fixture, ip: &str) -> Fixture {
    let cluster = json!({"name": "d", "zoneUuid": fixture.zone, "hypervisorType": "KVM"});
    let cluster = cloud.made("CreateCluster", cluster);
    let host = json!({"name": "h", "managementIp": ip, "clusterUuid": cluster});
    let host = cloud.made("AddKVMHost", host);
    Fixture { cluster, hosts: [host.clone(), host], ..fixture.clone() }
}

fn remote(fixture: &Fixture, pool: &str, ip: &str) -> Value {
    let mut params = into_cluster(fixture, pool);
    params["remoteVtepIp"] = json!(ip);
    params
}

/// Checks that an error names the other pool, the address and what to do.
fn tells(error: &model::Error, field: &str, pool: &str, address: &str) {
    let seen = (error.code, error.field.as_deref());
    assert_eq!(seen, (Code::InvalidArgument, Some(field)), "{error}");
    assert!(error.message.contains(pool) && error.message.contains(address), "{error}");
    let hint = error.hint.as_deref().unwrap_or_default();
    assert!(hint.contains("other VNIs") && hint.contains("CIDR"), "{hint}");
}

fn refused(cloud: &Cloud, name: &str, params: Value) -> model::Error {
    cloud.call(name, params).unwrap_err()
}

fn sound(cloud: &Cloud) {
    let report = doctor::examine(&cloud.snapshot());
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn two_pools_have_the_same_vni_on_vteps_of_their_own() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let twin = twin(&cloud, &fixture);
    let other = elsewhere(&cloud, &fixture, "172.30.1.1");
    attach(&cloud, &other, &twin, "172.30.1.0/24").unwrap();
    for pool in [&fixture.pool, &twin] {
        let given = cloud.made("CreateL2VxlanNetwork", network(pool, None));
        assert_eq!(vni_of(&cloud, &given), Some(100), "the lowest one of each");
        cloud.made("CreateL2VxlanNetwork", network(pool, Some(103)));
        let twice = refused(&cloud, "CreateL2VxlanNetwork", network(pool, Some(103)));
        assert_eq!(twice.code, Code::VniExhausted, "{twice}");
    }
    sound(&cloud);
}

#[test]
fn vnis_reach_from_1_to_16777214_as_zstacks_do() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    assert_eq!(VNI_MAX, (1 << 24) - 2);
    let [one, two] = [pool(&cloud, &fixture), pool(&cloud, &fixture)];
    for (start, end, field) in [(0, 9, "startVni"), (9, VNI_MAX + 1, "endVni")] {
        let error = refused(&cloud, RANGE, vnis(&one, start, end));
        assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some(field)));
    }
    for pool in [&one, &two] {
        cloud.made(RANGE, vnis(pool, 1, VNI_MAX));
        let lowest = cloud.made("CreateL2VxlanNetwork", network(pool, None));
        assert_eq!(vni_of(&cloud, &lowest), Some(1));
        let highest = cloud.made("CreateL2VxlanNetwork", network(pool, Some(VNI_MAX)));
        let segment = cloud.get::<L2Network>(highest.parse().unwrap()).unwrap().segment;
        assert_eq!(segment, Segment::Vxlan { vni: VNI_MAX, pool_uuid: pool.parse().unwrap() });
        for vni in [0, VNI_MAX + 1] {
            let error = refused(&cloud, "CreateL2VxlanNetwork", network(pool, Some(vni)));
            assert_eq!(error.field.as_deref(), Some("vni"), "{error}");
        }
    }
}

#[test]
fn a_pool_is_not_attached_where_a_vtep_would_be_of_two_with_the_same_vnis() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let twin = twin(&cloud, &fixture);
    let error = attach(&cloud, &fixture, &twin, "172.30.0.0/24").unwrap_err();
    tells(&error, "systemTags", &fixture.pool, "172.30.0.");
    // Where it has no VTEP yet it may be; a VTEP set by hand is looked at then.
    attach(&cloud, &fixture, &twin, "172.31.0.0/24").unwrap();
    let by_hand = |ip: &str| json!({"hostUuid": fixture.hosts[0], "poolUuid": twin, "vtepIp": ip});
    let error = refused(&cloud, "CreateVxlanVtep", by_hand("172.30.0.2"));
    tells(&error, "vtepIp", &fixture.pool, "172.30.0.2");
    cloud.made("CreateVxlanVtep", by_hand("172.31.0.1"));
    // A pool with VNIs of its own may share VTEPs.
    let third = pool(&cloud, &fixture);
    cloud.made(RANGE, vnis(&third, 104, 110));
    attach(&cloud, &fixture, &third, "172.30.0.0/24").unwrap();
    sound(&cloud);
}

#[test]
fn a_range_that_overlaps_one_of_a_pool_with_a_common_vtep_is_refused() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let pool = pool(&cloud, &fixture);
    attach(&cloud, &fixture, &pool, "172.30.0.0/30").unwrap();
    for (start, end) in [(103, 110), (1, 100), (101, 101), (1, VNI_MAX)] {
        let error = refused(&cloud, RANGE, vnis(&pool, start, end));
        tells(&error, "startVni", &fixture.pool, "172.30.0.1");
    }
    cloud.made(RANGE, vnis(&pool, 104, 110));
    let back = into_cluster(&fixture, &pool);
    cloud.call("DetachL2NetworkFromCluster", back).unwrap();
    cloud.made(RANGE, vnis(&pool, 1, 103));
    sound(&cloud);
}

#[test]
fn a_remote_vtep_is_of_one_of_the_pools_with_the_same_vnis() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let other = elsewhere(&cloud, &fixture, "172.30.1.1");
    let twin = twin(&cloud, &fixture);
    attach(&cloud, &other, &twin, "172.30.1.0/24").unwrap();
    cloud.call(REMOTE, remote(&fixture, &fixture.pool, "172.30.9.9")).unwrap();
    let error = refused(&cloud, REMOTE, remote(&other, &twin, "172.30.9.9"));
    tells(&error, "remoteVtepIp", &fixture.pool, "172.30.9.9");
    let error = refused(&cloud, REMOTE, remote(&other, &twin, "172.30.0.1"));
    tells(&error, "remoteVtepIp", &fixture.pool, "172.30.0.1");
    let host = json!({"name": "h", "managementIp": "172.30.1.9", "clusterUuid": other.cluster});
    cloud.call(REMOTE, remote(&fixture, &fixture.pool, "172.30.1.9")).unwrap();
    tells(&refused(&cloud, "AddKVMHost", host), "managementIp", &fixture.pool, "172.30.1.9");
    // And a range is looked at with the remote VTEPs of both.
    let third = pool(&cloud, &fixture);
    attach(&cloud, &other, &third, "172.30.3.0/24").unwrap();
    for (ip, whose) in [("172.30.0.2", &fixture.pool), ("172.30.9.9", &fixture.pool)] {
        cloud.call(REMOTE, remote(&other, &third, ip)).unwrap();
        tells(&refused(&cloud, RANGE, vnis(&third, 103, 103)), "startVni", whose, ip);
        let mut gone = remote(&other, &third, ip);
        gone["l2NetworkUuid"] = json!(third);
        cloud.call("DeleteVxlanPoolRemoteVtep", gone).unwrap();
    }
    let by_hand = json!({"hostUuid": other.hosts[0], "poolUuid": third, "vtepIp": "172.30.9.9"});
    cloud.made("CreateVxlanVtep", by_hand);
    let error = refused(&cloud, RANGE, vnis(&third, 103, 103));
    tells(&error, "startVni", &fixture.pool, "172.30.9.9");
    sound(&cloud);
}

/// Has a host say that it has this address besides its management address.
fn says(cloud: &mut Cloud, host: &str, address: &str) {
    let host: Id<Host> = host.parse().unwrap();
    let device = HostDevice {
        name: "eth0".into(),
        mtu_bytes: 1500,
        is_up: true,
        is_ethernet: true,
        is_owned: false,
        addresses: vec![address.parse().unwrap()],
    };
    let mut status = cloud.board.status(host).clone();
    (status.connected, status.devices) = (true, Some([device].into()));
    cloud.board.put(host, status);
}

#[test]
fn an_address_that_an_agent_finds_later_is_checked_when_the_vtep_follows_it() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let twin = twin(&cloud, &fixture);
    let other = elsewhere(&cloud, &fixture, "172.30.5.1");
    attach(&cloud, &other, &twin, "172.30.0.0/16").unwrap();
    let host = &other.hosts[0];
    let vtep = |cloud: &Cloud| {
        let rows = cloud.contents();
        let mut vteps = rows.iter().filter_map(Vtep::of);
        vteps.find(|vtep| vtep.host_uuid.to_string() == *host).map(|vtep| vtep.vtep_ip)
    };
    says(&mut cloud, host, "172.30.0.1");
    let error = refused(&cloud, "ReconnectHost", json!({"uuid": host}));
    tells(&error, "vtepIp", &fixture.pool, "172.30.0.1");
    says(&mut cloud, host, "172.30.5.2");
    cloud.call("ReconnectHost", json!({"uuid": host})).unwrap();
    assert_eq!(vtep(&cloud), Some("172.30.5.2".parse().unwrap()));
}

#[test]
fn pools_that_have_many_vteps_are_compared_by_their_addresses() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let [one, two] = [pool(&cloud, &fixture), pool(&cloud, &fixture)];
    cloud.made(RANGE, vnis(&one, 500, 510));
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    // Rows alone: a pool of so many hosts would take minutes to make.
    let plant = |pool: &str, addresses: &mut dyn Iterator<Item = u32>| {
        let pool: Id<L2Network> = pool.parse().unwrap();
        let addresses: Vec<u32> = addresses.collect();
        for part in addresses.chunks(4_000) {
            let part = part.to_vec();
            let put = move |tx: &mut store::Tx<Record>| {
                for bits in &part {
                    let mut vtep =
                        json!({"uuid": uuid::Uuid::new_v5(&pool.uuid(), &bits.to_be_bytes())});
                    vtep["hostUuid"] = json!(host);
                    vtep["vtepIp"] = json!(IpAddr::from(bits.to_be_bytes()));
                    vtep["port"] = json!(8472);
                    vtep["type"] = json!("KVM_HOST_VXLAN");
                    vtep["poolUuid"] = json!(pool);
                    let vtep: Vtep = serde_json::from_value(vtep).unwrap();
                    tx.put(Record::new(vtep, Meta::default())).unwrap();
                }
                Ok(())
            };
            cloud.store.transact(put).unwrap();
        }
    };
    let base = 0x0a00_0000;
    // One after the other: two looks, however many there are.
    plant(&one, &mut (base..base + 12_000));
    plant(&two, &mut (base + 20_000..base + 32_000));
    let made = cloud.made(RANGE, vnis(&two, 510, 520));
    cloud.call("DeleteVniRange", json!({"uuid": made})).unwrap();
    // The last one of a subnet is the first one of the next.
    plant(&two, &mut std::iter::once(base + 11_999));
    let error = refused(&cloud, RANGE, vnis(&two, 510, 520));
    tells(&error, "startVni", &one, "10.0.46.223");
    // Those that lie between each other are too many to be looked at.
    let three = pool(&cloud, &fixture);
    let four = pool(&cloud, &fixture);
    plant(&three, &mut (0..6_000).map(|n| base + 100_000 + 2 * n));
    plant(&four, &mut (0..6_000).map(|n| base + 100_001 + 2 * n));
    cloud.made(RANGE, vnis(&three, 600, 610));
    let error = refused(&cloud, RANGE, vnis(&four, 610, 620));
    assert!(error.message.contains("over 10000 VTEPs of both"), "{error}");
    cloud.made(RANGE, vnis(&four, 611, 620));
}

/// An instance on the first host, on a network of VNI 101 of the fixture's pool.
fn on_101(cloud: &Cloud, fixture: &Fixture) -> (String, String) {
    let l2 = cloud.made("CreateL2VxlanNetwork", network(&fixture.pool, Some(101)));
    let l3 = cloud.made("CreateL3Network", json!({"name": "n", "l2NetworkUuid": l2}));
    cloud.made("AddIpRange", range(&l3, "10.0.0.10", "10.0.0.13"));
    let vm = json!({"name": "a", "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[0]});
    (cloud.made("CreateVmInstance", vm), l3)
}

#[tokio::test]
async fn a_vni_that_rests_is_given_by_no_pool_even_if_its_own_is_gone() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    on_101(&cloud, &fixture);
    let twin = twin(&cloud, &fixture);
    cloud.call("DeleteL2Network", json!({"uuid": fixture.pool})).unwrap();
    fixture.hosts.iter().for_each(|host| cloud.tell(host));
    let error = refused(&cloud, "CreateL2VxlanNetwork", network(&twin, Some(101)));
    assert_eq!(error.code, Code::VniExhausted);
    assert!(error.message.contains("still being released"), "{error}");
    let given: Vec<_> = (0..3)
        .map(|_| cloud.made("CreateL2VxlanNetwork", network(&twin, None)))
        .map(|it| vni_of(&cloud, &it))
        .collect();
    assert_eq!(given, [Some(100), Some(102), Some(103)]);
    let error = refused(&cloud, "CreateL2VxlanNetwork", network(&twin, None));
    assert_eq!(error.code, Code::VniExhausted, "{error}");
    // A host that still has the network of that VNI is in no other pool with it.
    let error = attach(&cloud, &fixture, &twin, "172.30.0.0/24").unwrap_err();
    assert_eq!(error.code, Code::InUse, "{error}");
    assert!(error.message.contains("VNI 101"), "{error}");
    acknowledged(&mut cloud, &[&fixture.hosts[0], &fixture.hosts[1]], 0).await;
    attach(&cloud, &fixture, &twin, "172.30.0.0/24").unwrap();
    cloud.made("CreateL2VxlanNetwork", network(&twin, Some(101)));
    sound(&cloud);
}

#[tokio::test]
async fn a_host_that_may_have_networks_of_a_pool_it_left_gets_no_vtep_of_its_twin() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let (_, l3) = on_101(&cloud, &fixture);
    let twin = twin(&cloud, &fixture);
    // The instance stays on the host, without a NIC.
    cloud.call("DeleteL3Network", json!({"uuid": l3})).unwrap();
    let back = into_cluster(&fixture, &fixture.pool);
    cloud.call("DetachL2NetworkFromCluster", back).unwrap();
    cloud.tell(&fixture.hosts[0]);
    let error = attach(&cloud, &fixture, &twin, "172.30.0.0/24").unwrap_err();
    let seen = (error.code, error.field.as_deref());
    assert_eq!(seen, (Code::InUse, Some("systemTags")), "{error}");
    assert!(error.message.contains(&fixture.pool), "{error}");
    // The pool itself may come back at once, as before.
    attach(&cloud, &fixture, &fixture.pool, "172.30.0.0/24").unwrap();
    let back = into_cluster(&fixture, &fixture.pool);
    cloud.call("DetachL2NetworkFromCluster", back).unwrap();
    acknowledged(&mut cloud, &[&fixture.hosts[0], &fixture.hosts[1]], 0).await;
    attach(&cloud, &fixture, &twin, "172.30.0.0/24").unwrap();
    sound(&cloud);
}

/// Releases keep what they were made with.
#[test]
fn what_a_build_before_let_rest_in_a_zone_rests() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let zone = &fixture.zone;
    let release = json!({
        "uuid": "00000000000000000000000000000777", "objects": [], "hosts": null, "createDate": 0,
        "claims": [{"vni": [zone, 101]}],
    });
    let release: model::resource::release::Release = serde_json::from_value(release).unwrap();
    assert_eq!(release.claims, [Claim::Vni(zone.parse().unwrap(), 101)]);
    let put = move |tx: &mut store::Tx<Record>| {
        tx.put(Record::new(release.clone(), Meta::default())).unwrap();
        Ok(())
    };
    cloud.store.transact(put).unwrap();
    let error = refused(&cloud, "CreateL2VxlanNetwork", network(&fixture.pool, Some(101)));
    assert!(error.message.contains("still being released"), "{error}");
}

#[test]
fn the_doctor_names_a_vtep_of_two_pools_with_the_same_vnis() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let pool = pool(&cloud, &fixture);
    let made: Id<VniRange> = cloud.made(RANGE, vnis(&pool, 104, 110)).parse().unwrap();
    attach(&cloud, &fixture, &pool, "172.30.0.1/32").unwrap();
    sound(&cloud);
    let record = cloud.snapshot().get(Kind::VniRange, made.uuid()).unwrap();
    let range = VniRange { start_vni: 103, ..VniRange::of(&record).unwrap().clone() };
    let meta = record.meta;
    let put = move |tx: &mut store::Tx<Record>| {
        tx.put(Record::new(range.clone(), meta)).unwrap();
        Ok(())
    };
    cloud.store.transact(put).unwrap();
    let report = doctor::examine(&cloud.snapshot());
    assert_eq!(report.total, 1, "{report:?}");
    assert_eq!(report.findings[0].rule, Rule::Range);
    assert!(report.findings[0].text.contains("172.30.0.1"), "{report:?}");
}
