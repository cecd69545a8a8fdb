//! ZStack's own cases of L3 networks, by their numbers in our list of them.

use model::{
    Code, Resource,
    resource::{ip_range::IpRange, l3_network::L3Network, vm_nic::VmNic},
};
use serde_json::{Value, json};

use crate::{
    harness::{ADMINISTRATOR, Cloud},
    l3::{bare_l3, by_cidr},
};

fn ends(cloud: &Cloud) -> Vec<[String; 3]> {
    let contents = cloud.contents();
    let mut ranges: Vec<&IpRange> = contents.iter().filter_map(IpRange::of).collect();
    ranges.sort_by_key(|range| range.start_ip);
    let ends = |range: &&IpRange| [range.start_ip, range.end_ip, range.gateway];
    ranges.iter().map(ends).map(|ends| ends.map(|ip| ip.to_string())).collect()
}

#[test]
fn p02_a_gateway_in_the_middle_makes_two_ranges() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({}));
    let mut params = by_cidr(&l3, "192.168.214.0/24");
    params["gateway"] = json!("192.168.214.100");
    let reply = cloud.call("AddIpRangeByNetworkCidr", params).unwrap();
    let gateway = "192.168.214.100";
    let expected = [
        ["192.168.214.1", "192.168.214.99", gateway],
        ["192.168.214.101", "192.168.214.254", gateway],
    ];
    assert_eq!(ends(&cloud), expected);
    let first = reply.subject.unwrap().1.simple().to_string();
    let first = cloud.get::<IpRange>(first.parse().unwrap()).unwrap();
    assert_eq!(first.start_ip.to_string(), "192.168.214.1");
    let second = cloud.get::<IpRange>(model::Id::new(reply.also.unwrap())).unwrap();
    assert_eq!(second.start_ip.to_string(), "192.168.214.101");
}

#[test]
fn p02_without_a_gateway_the_first_address_is_it() {
    for (cidr, gateway, expected) in [
        ("192.168.214.7/24", None, ["192.168.214.2", "192.168.214.254", "192.168.214.1"]),
        ("10.0.0.0/24", Some("10.0.0.254"), ["10.0.0.1", "10.0.0.253", "10.0.0.254"]),
        ("10.0.0.0/30", None, ["10.0.0.2", "10.0.0.2", "10.0.0.1"]),
    ] {
        let (cloud, fixture) = Cloud::with_two_hosts();
        let l3 = bare_l3(&cloud, &fixture, json!({}));
        let mut params = by_cidr(&l3, cidr);
        params["gateway"] = gateway.into();
        let reply = cloud.call("AddIpRangeByNetworkCidr", params).unwrap();
        assert_eq!((ends(&cloud), reply.also), (vec![expected.map(str::to_owned)], None));
    }
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({}));
    for (cidr, gateway, field) in [
        ("10.0.0.0/31", None, "networkCidr"),
        ("10.0.0.0/32", None, "networkCidr"),
        ("fd00::/64", None, "networkCidr"),
        ("10.0.0.0/24", Some("10.0.1.1"), "gateway"),
        ("10.0.0.0/24", Some("10.0.0.255"), "gateway"),
    ] {
        let mut params = by_cidr(&l3, cidr);
        params["gateway"] = gateway.into();
        let refusal = cloud.refusal("AddIpRangeByNetworkCidr", params);
        assert_eq!(refusal.1.as_deref(), Some(field), "{}", refusal.2);
    }
}

fn range(l3: &str, [start, end, gateway]: [&str; 3]) -> Value {
    json!({
        "l3NetworkUuid": l3, "name": "r", "startIp": start, "endIp": end,
        "netmask": "255.255.255.0", "gateway": gateway,
    })
}

#[test]
fn p03_ranges_of_one_l2_network_are_apart_and_one_l3_network_has_one_subnet() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let one = bare_l3(&cloud, &fixture, json!({}));
    let l2 = cloud.get::<L3Network>(one.parse().unwrap()).unwrap().l2_network_uuid;
    let beside = cloud.made("CreateL3Network", json!({"name": "b", "l2NetworkUuid": l2}));
    let elsewhere = bare_l3(&cloud, &fixture, json!({}));
    let first = ["192.168.1.10", "192.168.1.20", "192.168.1.1"];
    cloud.made("AddIpRange", range(&one, first));
    let overlap = ["192.168.1.20", "192.168.1.30", "192.168.1.1"];
    cloud.made("AddIpRange", range(&elsewhere, overlap));
    let cases = [
        (&beside, overlap),
        (&one, ["192.168.2.10", "192.168.2.20", "192.168.2.1"]),
        (&one, ["192.168.1.30", "192.168.1.40", "192.168.1.2"]),
        (&one, ["192.168.1.0", "192.168.1.5", "192.168.1.9"]),
        (&one, ["192.168.1.200", "192.168.1.255", "192.168.1.1"]),
        (&beside, ["224.0.0.10", "224.0.0.20", "224.0.0.1"]),
        (&beside, ["240.0.0.10", "240.0.0.20", "240.0.0.1"]),
        (&beside, ["169.254.1.1", "169.254.1.20", "169.254.1.254"]),
        (&beside, ["169.254.254.1", "169.254.254.255", "169.254.254.254"]),
    ];
    for (l3, ends) in cases {
        let (code, _, text) = cloud.refusal("AddIpRange", range(l3, ends));
        assert_eq!(code, Code::InvalidArgument, "{ends:?}: {text}");
    }
}

#[test]
fn p04_why_an_address_is_not_available() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let check = |cloud: &Cloud, ip: &str| {
        let params = json!({"l3NetworkUuid": l3, "ip": ip});
        cloud.look(ADMINISTRATOR, "CheckIpAvailability", params).unwrap()
    };
    let no = |reason: &str| json!({"available": false, "reason": reason});
    let on_host = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[0]});
    let tags = [format!("staticIp::{l3}::10.0.0.11")];
    let vm = cloud.call_tagged("CreateVmInstance", on_host, &tags).unwrap().subject.unwrap().1;
    let reserved = json!({"l3NetworkUuid": l3, "startIp": "10.0.0.13", "endIp": "10.0.0.20"});
    cloud.made("AddReservedIpRange", reserved);
    assert_eq!(check(&cloud, "10.0.0.1"), no("GATEWAY"));
    assert_eq!(check(&cloud, "10.0.0.99"), no("NO_IN_RANGE"));
    assert_eq!(check(&cloud, "fd00::1"), no("NO_IN_RANGE"));
    assert_eq!(check(&cloud, "10.0.0.11"), no("USED"));
    assert_eq!(check(&cloud, "10.0.0.13"), no("RESERVED"));
    assert_eq!(check(&cloud, "10.0.0.12"), json!({"available": true}));
    cloud.call("DestroyVmInstance", json!({"uuid": vm.simple().to_string()})).unwrap();
    assert_eq!(check(&cloud, "10.0.0.11"), no("RELEASE_PENDING"));
    cloud.give_up_releases();
    assert_eq!(check(&cloud, "10.0.0.11"), json!({"available": true}));
    cloud.board.revision += 1;
    let outside = json!({"l3NetworkUuid": l3, "ip": "10.0.0.99", "ipRangeCheck": false});
    let seen = cloud.look(ADMINISTRATOR, "CheckIpAvailability", outside).unwrap();
    assert_eq!(seen, json!({"available": true}));
    let arp = json!({"l3NetworkUuid": l3, "ip": "10.0.0.12", "arpCheck": true});
    let error = cloud.look(ADMINISTRATOR, "CheckIpAvailability", arp).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("arpCheck"));
}

#[test]
fn p05_system_networks_have_a_category_of_their_own() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let tenant = bare_l3(&cloud, &fixture, json!({}));
    let l2 = cloud.get::<L3Network>(tenant.parse().unwrap()).unwrap().l2_network_uuid;
    for (system, category) in [(true, "Private"), (true, "Public"), (false, "System")] {
        let params = json!({
            "name": "l3", "l2NetworkUuid": l2, "system": system, "category": category,
        });
        assert_eq!(cloud.refusal("CreateL3Network", params).1.as_deref(), Some("system"));
    }
    for wrong in [
        json!({"uuid": tenant, "system": true}),
        json!({"uuid": tenant, "category": "System"}),
        json!({"uuid": tenant, "category": "Public", "system": true}),
        json!({"uuid": tenant, "category": "System", "system": false}),
    ] {
        let (code, field, text) = cloud.refusal("UpdateL3Network", wrong);
        let seen = (code, field.as_deref());
        assert_eq!(seen, (Code::InvalidArgument, Some("system")), "{text}");
    }
    let both = json!({"uuid": tenant, "category": "System", "system": true});
    cloud.call("UpdateL3Network", both).unwrap();
    cloud.call("UpdateL3Network", json!({"uuid": tenant, "name": "n"})).unwrap();
    let alone = json!({"uuid": tenant, "category": "Private"});
    assert_eq!(cloud.refusal("UpdateL3Network", alone).0, Code::InvalidArgument);
}

#[test]
fn p09_name_servers_and_host_routes_are_there_once() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({}));
    let dns = json!({"l3NetworkUuid": l3, "dns": "8.8.8.8"});
    cloud.call("RemoveDnsFromL3Network", dns.clone()).unwrap();
    cloud.call("AddDnsToL3Network", dns.clone()).unwrap();
    assert_eq!(cloud.refusal("AddDnsToL3Network", dns.clone()).0, Code::OperationFailed);
    cloud.call("RemoveDnsFromL3Network", dns).unwrap();
    let no_address = json!({"l3NetworkUuid": l3, "dns": "dns.example.org"});
    assert_eq!(cloud.refusal("AddDnsToL3Network", no_address).0, Code::InvalidArgument);

    let route = |prefix: &str, nexthop: &str| json!({"l3NetworkUuid": l3, "prefix": prefix, "nexthop": nexthop});
    let gone = json!({"l3NetworkUuid": l3, "prefix": "10.1.0.0/16"});
    let refusal = cloud.refusal("RemoveHostRouteFromL3Network", gone.clone());
    assert_eq!(refusal.0, Code::OperationFailed);
    for (prefix, nexthop, field) in [
        ("10.1.0.0", "10.0.0.1", "prefix"),
        ("10.1.0.5/16", "10.0.0.1", "prefix"),
        ("fd00::/64", "10.0.0.1", "prefix"),
        ("10.1.0.0/16", "fd00::1", "nexthop"),
        ("10.1.0.0/16", "gateway", "nexthop"),
    ] {
        let refusal = cloud.refusal("AddHostRouteToL3Network", route(prefix, nexthop));
        let seen = (refusal.0, refusal.1.as_deref());
        assert_eq!(seen, (Code::InvalidArgument, Some(field)), "{}", refusal.2);
    }
    cloud.call("AddHostRouteToL3Network", route("10.1.0.0/16", "10.0.0.1")).unwrap();
    let twice = cloud.refusal("AddHostRouteToL3Network", route("10.1.0.0/16", "10.0.0.2"));
    assert_eq!((twice.0, twice.1.as_deref()), (Code::OperationFailed, Some("prefix")));
    cloud.call("RemoveHostRouteFromL3Network", gone).unwrap();
}

/// P06's and P07's part that needs no traffic: addresses run out, and more ranges give more.
#[test]
fn p07_each_address_is_given_once() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({}));
    let nic = json!({"l3NetworkUuid": l3});
    assert_eq!(cloud.refusal("CreateVmNic", nic.clone()).0, Code::IpExhausted);
    for address in ["192.168.1.10", "192.168.1.20", "192.168.1.30"] {
        cloud.made("AddIpRange", range(&l3, [address, address, "192.168.1.1"]));
    }
    let mut given: Vec<String> = (0..3)
        .map(|_| {
            let nic = cloud.made("CreateVmNic", nic.clone());
            let nic = cloud.get::<VmNic>(nic.parse().unwrap()).unwrap();
            cloud.addresses(nic.uuid)[0].ip.to_string()
        })
        .collect();
    given.sort_unstable();
    assert_eq!(given, ["192.168.1.10", "192.168.1.20", "192.168.1.30"]);
    assert_eq!(cloud.refusal("CreateVmNic", nic).0, Code::IpExhausted);
}
