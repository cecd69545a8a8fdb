//! Networks in GRE, which are to pools, VNIs and VTEPs what those of VXLAN are; and the UDP port of VXLAN.

use model::{
    Code, Id, Kind, Resource,
    resource::{l2_network::L2Network, remote_vtep::RemoteVtep, vm_nic::VmNic, vtep::Vtep},
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{Cloud, Fixture, range},
    l2::into_cluster,
};

fn gre_pool(cloud: &Cloud, fixture: &Fixture, (start, end): (u32, u32)) -> String {
    let pool = cloud.made("CreateL2GreNetworkPool", json!({"name": "g", "zoneUuid": fixture.zone}));
    let range = json!({"name": "r", "startVni": start, "endVni": end, "l2NetworkUuid": pool});
    cloud.made("CreateVniRange", range);
    pool
}

fn attach(cloud: &Cloud, fixture: &Fixture, pool: &str, cidr: &str) -> Result<(), model::Error> {
    let cluster = &fixture.cluster;
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{{cidr}}}");
    let params = into_cluster(fixture, pool);
    cloud.call_tagged("AttachL2NetworkToCluster", params, &[tag]).map(drop)
}

fn refused(cloud: &Cloud, name: &str, params: Value) -> (Option<String>, String) {
    let error = cloud.call(name, params).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument, "{error}");
    (error.field.clone(), format!("{error} {}", error.hint.clone().unwrap_or_default()))
}

fn ports(cloud: &Cloud) -> Vec<u16> {
    let snapshot = cloud.snapshot();
    let vteps = snapshot.list(Kind::Vtep).map(|row| Vtep::of(&row).unwrap().port);
    let remote = snapshot.list(Kind::RemoteVtep).map(|row| RemoteVtep::of(&row).unwrap().port);
    vteps.chain(remote).collect()
}

#[test]
fn a_network_in_gre_has_a_key_of_its_pool_and_what_gre_leaves_of_the_mtu() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let pool = gre_pool(&cloud, &fixture, (500, 501));
    attach(&cloud, &fixture, &pool, "172.30.0.0/24").unwrap();
    let given = |vni: Option<u32>| json!({"name": "n", "poolUuid": pool, "vni": vni});
    let l2 = cloud.made("CreateL2GreNetwork", given(None));
    let id: Id<L2Network> = l2.parse().unwrap();
    let network = cloud.get(id).unwrap();
    assert!(network.segment.is_gre() && network.segment.number() == Some(500), "{network:?}");
    let (field, text) = refused(&cloud, "CreateL2GreNetwork", given(Some(502)));
    assert_eq!(field.as_deref(), Some("vni"), "{text}");
    let l3 = cloud.made("CreateL3Network", json!({"name": "n", "l2NetworkUuid": l2}));
    cloud.made("AddIpRange", range(&l3, "10.0.0.10", "10.0.0.13"));
    let vm = json!({"name": "a", "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[0]});
    cloud.made("CreateVmInstance", vm);
    let nic = cloud.snapshot().list(Kind::VmNic).next().unwrap();
    assert_eq!(VmNic::of(&nic).unwrap().mtu, 1458);
    // GRE has no port; the fixture's VTEPs are of VXLAN.
    let ports = ports(&cloud);
    assert!(ports.iter().filter(|port| **port == 0).count() == 2, "{ports:?}");
}

#[test]
fn a_pool_makes_networks_of_its_own_type_alone() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let gre = gre_pool(&cloud, &fixture, (500, 501));
    let of = |pool: &str| json!({"name": "n", "poolUuid": pool});
    for (message, pool, other) in [
        ("CreateL2VxlanNetwork", &gre, "CreateL2GreNetwork"),
        ("CreateL2GreNetwork", &fixture.pool, "CreateL2VxlanNetwork"),
    ] {
        let (field, text) = refused(&cloud, message, of(pool));
        assert_eq!(field.as_deref(), Some("poolUuid"));
        assert!(text.contains(other), "{text}");
    }
    let (_, text) = refused(&cloud, "CreateL3Network", json!({"name": "n", "l2NetworkUuid": gre}));
    assert!(text.contains("CreateL2GreNetwork"), "{text}");
}

/// One rule for both types: a VNI and a VTEP are one network, whatever is around its frames.
#[test]
fn a_key_is_no_vni_of_another_pool_on_the_same_vteps() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    for other in [gre_pool(&cloud, &fixture, (100, 103)), gre_pool(&cloud, &fixture, (100, 103))] {
        let error = attach(&cloud, &fixture, &other, "172.30.0.0/24").unwrap_err();
        assert_eq!(error.field.as_deref(), Some("systemTags"), "{error}");
        assert!(error.message.contains(&fixture.pool), "{error}");
        // On other hosts it is nobody's affair.
        let cluster = json!({"name": "d", "zoneUuid": fixture.zone, "hypervisorType": "KVM"});
        let cluster = cloud.made("CreateCluster", cluster);
        let third = cloud.snapshot().total(Kind::Host);
        let ip = format!("172.30.9.{third}");
        cloud.made("AddKVMHost", json!({"name": "h", "managementIp": ip, "clusterUuid": cluster}));
        let there = Fixture { cluster, ..fixture.clone() };
        attach(&cloud, &there, &other, &format!("{ip}/32")).unwrap();
    }
}

#[test]
fn tunnels_in_gre_are_ipv4() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let pool = gre_pool(&cloud, &fixture, (500, 501));
    let error = attach(&cloud, &fixture, &pool, "fd99::/64").unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some("systemTags")));
    assert!(error.message.contains("are IPv4"), "{error}");
    attach(&cloud, &fixture, &pool, "172.30.0.0/24").unwrap();
    let mut remote = into_cluster(&fixture, &pool);
    remote["remoteVtepIp"] = json!("fd99::1");
    let (field, text) = refused(&cloud, "CreateVxlanPoolRemoteVtep", remote);
    assert_eq!(field.as_deref(), Some("remoteVtepIp"), "{text}");
}

#[test]
fn a_change_of_the_port_is_one_of_all_tunnel_ends_in_vxlan() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let gre = gre_pool(&cloud, &fixture, (500, 501));
    attach(&cloud, &fixture, &gre, "172.30.0.0/24").unwrap();
    let mut remote = into_cluster(&fixture, &fixture.pool);
    remote["remoteVtepIp"] = json!("172.30.0.200");
    cloud.call("CreateVxlanPoolRemoteVtep", remote.clone()).unwrap();
    let is_all = |wanted: u16| {
        let mut ports = ports(&cloud);
        ports.sort_unstable();
        assert_eq!(ports[..2], [0, 0], "{ports:?}");
        assert!(ports.len() >= 5 && ports[2..].iter().all(|port| *port == wanted), "{ports:?}");
    };
    is_all(8472);
    let set = |value: &str| json!({"category": "vxlan", "name": "port", "value": value});
    cloud.call("UpdateGlobalConfig", set("4789")).unwrap();
    is_all(4789);
    remote["remoteVtepIp"] = json!("172.30.0.201");
    cloud.call("CreateVxlanPoolRemoteVtep", remote).unwrap();
    is_all(4789);
    for odd in ["0", "65536", "vxlan"] {
        refused(&cloud, "UpdateGlobalConfig", set(odd));
    }
    cloud.call("ResetGlobalConfig", json!({})).unwrap();
    is_all(8472);
}
