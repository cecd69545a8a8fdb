//! L3 networks: what they are for, what their instances are told, their ranges.

use std::net::IpAddr;

use model::{
    Code, Kind, Resource,
    resource::{
        ip_range::IpRange,
        l3_network::{IpAllocatorStrategy, L3Network},
        vm_nic::VmNic,
    },
};
use serde_json::{Map, Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, range},
    l2::{into_cluster, no_vlan, vlan},
};

pub(crate) fn shown(cloud: &Cloud, kind: Kind, uuid: &str) -> Map<String, Value> {
    let snapshot = cloud.snapshot();
    let record = snapshot.get(kind, uuid.parse().unwrap()).unwrap();
    let observed = netloom_control::inventory::Observed::new(&snapshot, &cloud.board);
    netloom_control::inventory::show(&record, &observed)
}

/// An L3 network without addresses on a VXLAN of its own.
pub(crate) fn bare_l3(cloud: &Cloud, fixture: &Fixture, more: Value) -> String {
    let l2 = cloud.made("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": fixture.pool}));
    let mut params = json!({"name": "l3", "l2NetworkUuid": l2});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    cloud.made("CreateL3Network", params)
}

/// The fields that add a network's addresses.
pub(crate) fn by_cidr(l3: &str, cidr: &str) -> Value {
    json!({"name": "r", "l3NetworkUuid": l3, "networkCidr": cidr})
}

fn with(mut params: Value, field: &str, value: impl Into<Value>) -> Value {
    params[field] = value.into();
    params
}

fn ranges(cloud: &Cloud) -> Vec<IpRange> {
    let mut ranges: Vec<_> = cloud.contents().iter().filter_map(IpRange::of).cloned().collect();
    ranges.sort_by_key(|range| range.start_ip);
    ranges
}

#[test]
fn a_disabled_l3_network_takes_no_nics_until_it_is_enabled() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let change = |event: &str| {
        cloud.call("ChangeL3NetworkState", json!({"uuid": l3, "stateEvent": event})).unwrap();
    };
    change("disable");
    let (code, _, text) = cloud.refusal("CreateVmNic", json!({"l3NetworkUuid": l3}));
    assert_eq!(code, Code::OperationFailed, "{text}");
    change("enable");
    cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
}

#[test]
fn a_domain_must_be_one() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({"dnsDomain": "a-1.example.org"}));
    for wrong in ["", "a b", "-a.org", "a..b", "example.1", &"a".repeat(64), "ex_ample.org"] {
        let params = json!({"uuid": l3, "dnsDomain": wrong});
        let (code, field, text) = cloud.refusal("UpdateL3Network", params);
        let seen = (code, field.as_deref());
        assert_eq!(seen, (Code::InvalidArgument, Some("dnsDomain")), "{text}");
    }
}

#[test]
fn name_servers_keep_their_order_and_what_is_not_told_yet_is_said() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({}));
    assert_eq!(shown(&cloud, Kind::L3Network, &l3).get("notInEffect"), None);
    for dns in ["8.8.8.8", "1.1.1.1", "2001:db8::53"] {
        cloud.call("AddDnsToL3Network", json!({"l3NetworkUuid": l3, "dns": dns})).unwrap();
    }
    let gone = json!({"l3NetworkUuid": l3, "dns": "8.8.8.8"});
    cloud.call("RemoveDnsFromL3Network", gone).unwrap();
    let now = shown(&cloud, Kind::L3Network, &l3);
    assert_eq!(now["dns"], json!(["1.1.1.1", "2001:db8::53"]));
    assert!(now["notInEffect"].as_str().unwrap().contains("dns"));
}

#[test]
fn an_mtu_counts_for_nics_that_are_made_after_it() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let nic = || {
        let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
        cloud.get::<VmNic>(nic.parse().unwrap()).unwrap()
    };
    let seen = || {
        let params = json!({"l3NetworkUuid": l3});
        cloud.look(ADMINISTRATOR, "GetL3NetworkMtu", params).unwrap()["mtu"].clone()
    };
    let before = nic();
    assert_eq!((before.mtu, seen()), (1450, json!(1450)));
    cloud.call("SetL3NetworkMtu", json!({"l3NetworkUuid": l3, "mtu": 1200})).unwrap();
    assert_eq!((nic().mtu, seen()), (1200, json!(1200)));
    assert_eq!(cloud.get(before.uuid).unwrap().mtu, 1450);
    let six = with(by_cidr(&l3, "fd00::/64"), "addressMode", "SLAAC");
    let (_, field, text) = cloud.refusal("AddIpv6RangeByNetworkCidr", six.clone());
    assert_eq!(field.as_deref(), Some("l3NetworkUuid"), "{text}");
    cloud.call("SetL3NetworkMtu", json!({"l3NetworkUuid": l3, "mtu": 1280})).unwrap();
    cloud.call("AddIpv6RangeByNetworkCidr", six).unwrap();
    let low = cloud.refusal("SetL3NetworkMtu", json!({"l3NetworkUuid": l3, "mtu": 1279}));
    assert_eq!(low.1.as_deref(), Some("mtu"));
}

#[test]
fn a_vlan_carries_no_more_than_the_untagged_network_around_it() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (tagged, plain) = (vlan(&cloud, &fixture, 10), no_vlan(&cloud, &fixture, "eth0"));
    for l2 in [&tagged, &plain] {
        cloud.call("AttachL2NetworkToCluster", into_cluster(&fixture, l2)).unwrap();
    }
    let l3 = |l2: &str| cloud.made("CreateL3Network", json!({"name": "l3", "l2NetworkUuid": l2}));
    let (inner, outer) = (l3(&tagged), l3(&plain));
    let mtu = |l3: &str, mtu: u32| json!({"l3NetworkUuid": l3, "mtu": mtu});
    let (code, field, text) = cloud.refusal("SetL3NetworkMtu", mtu(&inner, 9000));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("mtu")), "{text}");
    cloud.call("SetL3NetworkMtu", mtu(&outer, 9000)).unwrap();
    cloud.call("SetL3NetworkMtu", mtu(&inner, 9000)).unwrap();
}

#[test]
fn a_routers_address_is_in_the_subnet_and_in_no_range() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let set = |ip: &str| json!({"l3NetworkUuid": l3, "routerInterfaceIp": ip});
    let seen = || {
        let params = json!({"l3NetworkUuid": l3});
        let answer = cloud.look(ADMINISTRATOR, "GetL3NetworkRouterInterfaceIp", params).unwrap();
        answer["routerInterfaceIp"].clone()
    };
    assert_eq!(seen(), json!("10.0.0.1"), "the gateway");
    for wrong in ["10.0.0.12", "10.0.1.1", "10.0.0.0", "10.0.0.255", "fd00::1"] {
        let (_, field, text) = cloud.refusal("SetL3NetworkRouterInterfaceIp", set(wrong));
        assert_eq!(field.as_deref(), Some("routerInterfaceIp"), "{text}");
    }
    cloud.call("SetL3NetworkRouterInterfaceIp", set("10.0.0.30")).unwrap();
    assert_eq!(seen(), json!("10.0.0.30"));
    let (_, field, text) = cloud.refusal("AddIpRange", range(&l3, "10.0.0.25", "10.0.0.35"));
    assert_eq!(field.as_deref(), Some("startIp"), "{text}");
    assert!(text.contains("the router of"), "{text}");
    cloud.call("DeleteIpRange", cloud.children(Kind::IpRange, "l3NetworkUuid", &l3)).unwrap();
    let kept = cloud.get::<L3Network>(l3.parse().unwrap()).unwrap();
    assert_eq!(kept.router_interface_ip, None, "its subnet is gone");
}

#[test]
fn a_pool_is_public_for_vips_alone_and_needs_a_range_beside_it() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({}));
    let pool = with(by_cidr(&l3, "203.0.113.0/29"), "ipRangeType", "AddressPool");
    let (_, field, text) = cloud.refusal("AddIpRangeByNetworkCidr", pool.clone());
    assert_eq!(field.as_deref(), Some("ipRangeType"), "{text}");
    cloud.call("UpdateL3Network", json!({"uuid": l3, "category": "Public"})).unwrap();
    let normal = cloud.made("AddIpRange", range(&l3, "10.0.0.10", "10.0.0.10"));
    cloud.call("AddIpRangeByNetworkCidr", pool).unwrap();
    let added = ranges(&cloud).pop().unwrap();
    let ends = [added.start_ip, added.end_ip, added.gateway].map(|ip| ip.to_string());
    assert_eq!(ends, ["203.0.113.1", "203.0.113.6", "203.0.113.1"]);
    cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    let (code, ..) = cloud.refusal("CreateVmNic", json!({"l3NetworkUuid": l3}));
    assert_eq!(code, Code::IpExhausted, "a NIC gets no address of a pool");
    let of_pool = json!({"l3NetworkUuid": l3, "ip": "203.0.113.2"});
    assert_eq!(cloud.refusal("CreateVmNic", of_pool).1.as_deref(), Some("ip"));
    let private = json!({"uuid": l3, "category": "Private"});
    assert_eq!(cloud.refusal("UpdateL3Network", private).1.as_deref(), Some("category"));
    let (code, field, text) = cloud.refusal("DeleteIpRange", json!({"uuid": normal}));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("uuid")), "{text}");
    cloud.call("DeleteIpRange", json!({"uuid": added.uuid})).unwrap();
    cloud.call("DeleteIpRange", json!({"uuid": normal})).unwrap();
}

#[test]
fn ipv6_networks_have_one_mode_and_pools_none() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({"ipVersion": 6}));
    let mode = |cidr: &str, mode: &str| with(by_cidr(&l3, cidr), "addressMode", mode);
    let cases = [
        (mode("fd00::/80", "SLAAC"), "addressMode"),
        (mode("fd00::/80", "Stateless-DHCP"), "addressMode"),
        (mode("fd00::/127", "Stateful-DHCP"), "networkCidr"),
        (mode("10.0.0.0/24", "Stateful-DHCP"), "networkCidr"),
        (mode("ff00::/64", "Stateful-DHCP"), "endIp"),
        (with(mode("fd00::/64", "SLAAC"), "ipRangeType", "AddressPool"), "ipRangeType"),
    ];
    for (params, expected) in cases {
        let (code, field, text) = cloud.refusal("AddIpv6RangeByNetworkCidr", params);
        let fits = field.as_deref() == Some(expected) || expected == "endIp";
        assert!(code == Code::InvalidArgument && fits, "{expected}: {field:?} {text}");
    }
    let half = |start: &str, end: &str, mode: &str| {
        json!({
            "l3NetworkUuid": l3, "name": "six", "startIp": start, "endIp": end,
            "gateway": "fd00::1", "prefixLen": 64, "addressMode": mode,
        })
    };
    cloud.call("AddIpv6Range", half("fd00::10", "fd00::1f", "Stateful-DHCP")).unwrap();
    let other = cloud.refusal("AddIpv6Range", half("fd00::20", "fd00::2f", "SLAAC"));
    assert_eq!(other.1.as_deref(), Some("addressMode"), "{}", other.2);
}

#[test]
fn a_whole_ipv6_network_has_its_first_address_as_gateway() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({"ipVersion": 6}));
    let params = with(by_cidr(&l3, "fd00:0:0:1::77/64"), "addressMode", "Stateful-DHCP");
    cloud.call("AddIpv6RangeByNetworkCidr", params).unwrap();
    let added = ranges(&cloud).remove(0);
    let seen = [added.gateway, added.start_ip, added.end_ip].map(|ip| ip.to_string());
    assert_eq!(seen, ["fd00:0:0:1::1", "fd00:0:0:1::2", "fd00::1:ffff:ffff:ffff:ffff"]);
    assert_eq!(added.network_cidr.to_string(), "fd00:0:0:1::/64");
}

#[test]
fn reserved_ranges_lie_in_a_subnet_and_apart() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let reserve =
        |start: &str, end: &str| json!({"l3NetworkUuid": l3, "startIp": start, "endIp": end});
    cloud.made("AddReservedIpRange", reserve("10.0.0.12", "10.0.0.20"));
    let cases = [
        (reserve("10.0.0.9", "10.0.0.8"), "endIp"),
        (reserve("10.0.0.8", "fd00::1"), "endIp"),
        (reserve("10.0.0.8", "10.0.1.8"), "endIp"),
        (reserve("10.0.0.20", "10.0.0.21"), "startIp"),
        (reserve("fd00::1", "fd00::2"), "startIp"),
    ];
    for (params, expected) in cases {
        let (code, field, text) = cloud.refusal("AddReservedIpRange", params);
        let seen = (code, field.as_deref());
        assert_eq!(seen, (Code::InvalidArgument, Some(expected)), "{text}");
    }
    let listed = shown(&cloud, Kind::L3Network, &l3);
    assert_eq!(listed["reservedIpRanges"][0]["endIp"], "10.0.0.20");
    assert_eq!(listed["ipAllocatorStrategy"], IpAllocatorStrategy::Random.as_str());
}

#[test]
fn an_address_that_is_used_is_not_deleted_and_one_that_is_gone_is() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": red}));
    let nic = cloud.get::<VmNic>(nic.parse().unwrap()).unwrap();
    let used = nic.used_ip_uuid.unwrap();
    let delete = |l3: &str| json!({"l3NetworkUuid": l3, "usedIpUuids": [used]});
    let (code, field, text) = cloud.refusal("DeleteIpAddress", delete(&red));
    assert_eq!((code, field.as_deref()), (Code::InUse, Some("usedIpUuids")));
    assert!(text.contains(&nic.uuid.to_string()), "{text}");
    assert_eq!(cloud.refusal("DeleteIpAddress", delete(&blue)).0, Code::InvalidArgument);
    assert_eq!(shown(&cloud, Kind::UsedIp, &used.to_string())["state"], "InUse");
    cloud.call("DeleteVmNic", json!({"uuid": nic.uuid})).unwrap();
    let rests = shown(&cloud, Kind::UsedIp, &used.to_string());
    assert_eq!((&rests["state"], rests.get("vmNicUuid")), (&json!("ReleasePending"), None));
    let (code, _, text) = cloud.refusal("DeleteIpAddress", delete(&red));
    assert_eq!(code, Code::InUse);
    assert!(text.contains("have not let"), "{text}");
    cloud.give_up_releases();
    cloud.call("DeleteIpAddress", delete(&red)).unwrap();
}

#[test]
fn an_instance_that_makes_its_own_address_has_that_one() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({"ipVersion": 6}));
    let params = with(by_cidr(&l3, "fd00::/64"), "addressMode", "SLAAC");
    cloud.call("AddIpv6RangeByNetworkCidr", params).unwrap();
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3]});
    let tags = [format!("customMac::{l3}::02:00:00:00:00:01")];
    let reply = cloud.call_tagged("CreateVmInstance", vm, &tags).unwrap();
    let nic = cloud.nics(&reply.subject.unwrap().1.simple().to_string()).remove(0);
    let own: IpAddr = "fd00::ff:fe00:1".parse().unwrap();
    assert_eq!(cloud.addresses(nic.uuid)[0].ip, own);
    let (_, field, text) =
        cloud.refusal("CreateVmNic", json!({"l3NetworkUuid": l3, "ip": "fd00::99"}));
    assert_eq!(field.as_deref(), Some("ip"));
    assert!(text.contains("of their MACs") || text.contains("make their own"), "{text}");
}

#[test]
fn an_address_that_is_made_of_a_mac_changes_with_it_and_by_nothing_else() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({"ipVersion": 6}));
    let params = with(by_cidr(&l3, "fd00::/64"), "addressMode", "SLAAC");
    cloud.call("AddIpv6RangeByNetworkCidr", params).unwrap();
    let reply = cloud.call("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let vm = reply.unwrap().subject.unwrap().1.simple().to_string();
    let nic = cloud.nics(&vm).remove(0).uuid;
    let set = |ip6: &str| json!({"vmInstanceUuid": vm, "l3NetworkUuid": l3, "ip6": ip6});
    let (_, field, text) = cloud.refusal("SetVmStaticIp", set("fd00::99"));
    assert!(field.as_deref() == Some("ip") && text.contains("makes itself"), "{text}");
    // The second time it is wanted, and stays so.
    for (mac, own) in
        [("02:00:00:00:00:08", "fd00::ff:fe00:8"), ("02:00:00:00:00:09", "fd00::ff:fe00:9")]
    {
        cloud.call("UpdateVmNicMac", json!({"vmNicUuid": nic, "mac": mac})).unwrap();
        let own: IpAddr = own.parse().unwrap();
        let (addresses, after) = (cloud.addresses(nic), cloud.nics(&vm).remove(0));
        assert_eq!(addresses.iter().map(|used| used.ip).collect::<Vec<_>>(), [own]);
        assert_eq!(after.used_ip_uuid, Some(addresses[0].uuid));
        cloud.call("SetVmStaticIp", set(&own.to_string())).unwrap();
        assert_eq!(cloud.nics(&vm).remove(0).static_ips, [own]);
    }
}
