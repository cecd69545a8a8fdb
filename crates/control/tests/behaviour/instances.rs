//! Instances and NICs: what they get, where they run, what rests after them.

use std::net::IpAddr;

use crate::harness::{Cloud, Fixture, range};
use model::{
    Code, Id, Kind,
    resource::{vm_nic::VmNic, vtep::Vtep, zone::EnableState},
};
use serde_json::{Value, json};
use store::Read;

#[test]
fn tenants_may_use_the_same_addresses() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    for (name, l3) in [("red-1", &red), ("blue-1", &blue)] {
        let tags =
            [format!("staticIp::{l3}::10.0.0.11"), format!("customMac::{l3}::fa:00:00:00:00:01")];
        let params = json!({"name": name, "l3NetworkUuids": [l3]});
        let reply = cloud.call_tagged("CreateVmInstance", params, &tags).unwrap();
        let nics = cloud.nics(&reply.subject.unwrap().1.simple().to_string());
        assert_eq!(cloud.addresses(nics[0].uuid)[0].ip, "10.0.0.11".parse::<IpAddr>().unwrap());
        assert_eq!(nics[0].mac.to_string(), "fa:00:00:00:00:01");
    }
}

#[test]
fn a_nic_gets_an_address_of_each_family() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let v6 = json!({
        "l3NetworkUuid": l3, "name": "six", "startIp": "fd00::10", "endIp": "fd00::1f",
        "gateway": "fd00::1", "prefixLen": 64, "addressMode": "Stateful-DHCP",
    });
    cloud.call("AddIpv6Range", v6).unwrap();
    let vm = cloud.made("CreateVmInstance", json!({"name": "a", "l3NetworkUuids": [l3]}));
    let nic = cloud.nics(&vm).remove(0);
    let used = cloud.addresses(nic.uuid);
    let versions: Vec<u8> = used.iter().map(|ip| ip.ip_version).collect();
    assert_eq!(versions, [4, 6]);
    assert_eq!(nic.used_ip_uuid, Some(used[0].uuid), "the network's own family comes first");
}

/// F08: what IPv6 VTEPs need is not there for VMs.
#[test]
fn a_nic_has_the_mtu_that_its_tunnels_leave() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = |l3: &str| {
        let host = &fixture.hosts[0];
        let params = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
        cloud.nics(&cloud.made("CreateVmInstance", params))[0].mtu
    };
    assert_eq!(vm(&l3), 1450);

    let pool = json!({"name": "p6", "zoneUuid": fixture.zone});
    let six = Fixture { pool: cloud.made("CreateL2VxlanNetworkPool", pool), ..fixture.clone() };
    let range = json!({"name": "r", "startVni": 200, "endVni": 203, "l2NetworkUuid": six.pool});
    cloud.made("CreateVniRange", range);
    let l3 = cloud.l3(&six, "six");
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    let nic: VmNic = cloud.get(nic.parse().unwrap()).unwrap();
    assert_eq!(nic.mtu, 1430, "it fits whatever tunnels there will be");
    let tag =
        format!("l2NetworkUuid::{}::clusterUuid::{}::cidr::{{fd99::/64}}", six.pool, six.cluster);
    let attach = json!({"l2NetworkUuid": six.pool, "clusterUuid": six.cluster});
    cloud.call_tagged("AttachL2NetworkToCluster", attach, &[tag]).unwrap();
    let vtep = json!({"hostUuid": six.hosts[0], "poolUuid": six.pool, "vtepIp": "fd99::11"});
    cloud.made("CreateVxlanVtep", vtep);
    assert_eq!(vm(&l3), 1430);

    // A host that is managed by an address inside the CIDR needs no VTEP by hand.
    let host = json!({"name": "h3", "managementIp": "fd99::13", "clusterUuid": six.cluster});
    let host = model::id::parse_uuid(&cloud.made("AddKVMHost", host)).unwrap();
    let vteps: Vec<_> = cloud.snapshot().referrers(Kind::Vtep, "hostUuid", host).collect();
    let vteps = vteps.into_iter().map(|id| cloud.get::<Vtep>(Id::new(id)).unwrap());
    let places: Vec<_> = vteps.map(|vtep| (vtep.pool_uuid.to_string(), vtep.vtep_ip)).collect();
    assert_eq!(places, [(six.pool, "fd99::13".parse().unwrap())]);
}

#[test]
fn placement_spreads_and_says_what_is_missing() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let on = |cloud: &Cloud, name: &str| {
        let params = json!({"name": name, "l3NetworkUuids": [l3]});
        let done = cloud.run("CreateVmInstance", params, &[], None).unwrap();
        done.hosts.into_iter().next().unwrap().to_string()
    };
    let (first, second) = (on(&cloud, "a"), on(&cloud, "b"));
    assert_ne!(first, second, "the host with fewer instances is chosen");
    cloud.lost(&fixture.hosts[0]);
    assert_eq!(on(&cloud, "c"), fixture.hosts[1], "only connected hosts run anything new");
    cloud.lost(&fixture.hosts[1]);
    let params = json!({"name": "d", "l3NetworkUuids": [l3]});
    let (code, _, text) = cloud.refusal("CreateVmInstance", params);
    assert_eq!(code, Code::NoHost);
    assert!(text.contains("h1: is not connected"), "{text}");
    let outside = json!({
        "name": "h3", "managementIp": "172.31.0.1", "clusterUuid": fixture.cluster,
    });
    let outside = cloud.made("AddKVMHost", outside);
    cloud.acked(&outside, 0);
    let params = json!({"name": "d", "l3NetworkUuids": [l3], "hostUuid": outside});
    let (code, _, text) = cloud.refusal("CreateVmInstance", params);
    assert_eq!(code, Code::NoHost);
    assert!(text.contains("h3: has no VTEP in pool") && text.contains("172.31.0.1"), "{text}");
}

#[test]
fn wrong_tags_and_networks_are_refused() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (l3, other) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    let refused = |params: Value, tags: &[String]| {
        cloud.call_tagged("CreateVmInstance", params, tags).unwrap_err().field
    };
    let params = json!({"name": "a", "l3NetworkUuids": [l3]});
    for tag in ["staticIp::L::x", "customMac::L::x"] {
        let field = refused(params.clone(), &[tag.replace('L', &l3)]);
        assert_eq!(field.as_deref(), Some("systemTags"), "{tag}");
    }
    let odd: [&[&str]; 9] = [
        &["customMac::L::01:00:00:00:00:01"],
        &["customMac::L::fa:4c:00:00:ff:ff"],
        &["customMac::L::fa:00:00:00:00:01", "customMac::L::fa:00:00:00:00:02"],
        &["staticIp::L::10.0.0.10", "staticIp::L::10.0.0.11"],
        &["staticIp::L::10.0.0.99"],
        &["staticIp::O::10.0.0.10"],
        &["staticip::L::10.0.0.10"],
        &["colour::red"],
        &["hostname::web_1"],
    ];
    for tags in odd {
        let tag = |tag: &&str| tag.replace('L', &l3).replace('O', &other);
        let field = refused(params.clone(), &tags.iter().map(tag).collect::<Vec<_>>());
        assert_eq!(field.as_deref(), Some("systemTags"), "{tags:?}");
    }
    let zone = cloud.call_tagged("CreateZone", json!({"name": "t"}), &["any::tag".to_owned()]);
    assert_eq!(zone.unwrap_err().field.as_deref(), Some("systemTags"));
    let twice = json!({"name": "a", "l3NetworkUuids": [l3, l3]});
    assert_eq!(refused(twice, &[]).as_deref(), Some("l3NetworkUuids"));
    let two = json!({"name": "a", "l3NetworkUuids": [l3, other]});
    assert_eq!(refused(two, &[]).as_deref(), Some("defaultL3NetworkUuid"));
    assert_eq!(
        refused(json!({"name": "a", "l3NetworkUuids": []}), &[]).as_deref(),
        Some("l3NetworkUuids")
    );
}

#[test]
fn sixteen_networks_are_sixteen_nics_and_a_chosen_mac_blocks_no_later_one() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l2 = json!({"name": "l2", "poolUuid": fixture.pool});
    let l2 = cloud.made("CreateL2VxlanNetwork", l2);
    let l3 = |number: u32| {
        let l3 = json!({"name": format!("l3-{number}"), "l2NetworkUuid": l2});
        let l3 = cloud.made("CreateL3Network", l3);
        let low = 10 + 10 * number;
        let ip = |last: u32| format!("10.0.0.{last}");
        cloud.call("AddIpRange", range(&l3, &ip(low), &ip(low + 5))).unwrap();
        l3
    };
    let l3s: Vec<String> = (0..17).map(l3).collect();
    let with = |name: &str, l3s: &[String]| json!({"name": name, "l3NetworkUuids": l3s, "defaultL3NetworkUuid": l3s[0]});
    let (_, field, _) = cloud.refusal("CreateVmInstance", with("a", &l3s));
    assert_eq!(field.as_deref(), Some("l3NetworkUuids"));
    let vm = cloud.made("CreateVmInstance", with("a", &l3s[..16]));
    assert_eq!(cloud.nics(&vm).len(), 16);
    // A MAC that was drawn before, and is free again, may be chosen.
    let spare = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3s[0]}));
    cloud.call("DeleteVmNic", json!({"uuid": spare})).unwrap();
    cloud.give_up_releases();
    let tags = [format!("customMac::{}::fa:4c:00:00:00:11", l3s[0])];
    cloud.call_tagged("CreateVmInstance", with("b", &l3s[..1]), &tags).unwrap();
    cloud.call("CreateVmNic", json!({"l3NetworkUuid": l3s[0]})).unwrap();
}

#[test]
fn nics_are_what_the_parameters_say() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let [red, blue] = ["red", "blue"].map(|name| cloud.l3(&fixture, name));
    let with = |params: &str| {
        json!({
            "name": "a", "l3NetworkUuids": [red, blue], "defaultL3NetworkUuid": red,
            "vmNicParams": params,
        })
    };
    let asked = json!([{
        "l3NetworkUuid": blue, "ip": "10.0.0.12", "mac": "fa:00:00:00:00:01",
        "driverType": "veth", "state": "disable",
    }]);
    let vm = cloud.made("CreateVmInstance", with(&asked.to_string()));
    let mut nics = cloud.nics(&vm);
    nics.sort_by_key(|nic| nic.device_id);
    let ip = |at: usize| cloud.addresses(nics[at].uuid)[0].ip.to_string();
    assert_eq!(
        (ip(1).as_str(), nics[1].mac.to_string()),
        ("10.0.0.12", "fa:00:00:00:00:01".into())
    );
    assert_eq!((nics[0].state, nics[1].state), (EnableState::Enabled, EnableState::Disabled));
    assert_eq!(nics[1].static_ips.len(), 1, "it was chosen");
    let one = |field: &str, value: &str| json!([{"l3NetworkUuid": blue, field: value}]).to_string();
    for (params, why) in [
        ("{".to_owned(), "the form is"),
        (one("outboundBandwidth", "1"), "unknown field"),
        (one("ip", "10.0.0.99"), "10.0.0.99"),
        (one("ip", "10.0.0"), "IP address"),
        (one("driverType", "e1000"), "e1000"),
        (json!([{"l3NetworkUuid": fixture.pool}]).to_string(), "no network of the instance's"),
        (json!([{"l3NetworkUuid": red}, {"l3NetworkUuid": red}]).to_string(), "two entries"),
    ] {
        let (code, field, text) = cloud.refusal("CreateVmInstance", with(&params));
        assert_eq!(
            (code, field.as_deref()),
            (Code::InvalidArgument, Some("vmNicParams")),
            "{text}"
        );
        assert!(text.contains(why), "{text}");
    }
    let tag = format!("staticIp::{blue}::10.0.0.13");
    let both = cloud.call_tagged("CreateVmInstance", with(&one("ip", "10.0.0.11")), &[tag]);
    assert_eq!(both.unwrap_err().field.as_deref(), Some("vmNicParams"));
}
