//! Services of L3 networks: who may provide what, and the addresses that DHCP has.

use model::{
    Code, Kind, Resource,
    resource::{
        network_service::{NetworkServiceProvider, ProviderType},
        used_ip::{AddressState, UsedIp},
    },
};
use serde_json::{Map, Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, Cloud},
    l3::{bare_l3, by_cidr, shown},
};

fn of(provider: ProviderType, services: &[&str]) -> Value {
    let mut map = Map::new();
    map.insert(provider.provider().to_string(), json!(services));
    Value::Object(map)
}

fn services(l3: &str, wanted: &Value) -> Value {
    json!({"l3NetworkUuid": l3, "networkServices": wanted})
}

fn names(cloud: &Cloud, l3: &str) -> Vec<String> {
    let shown = shown(cloud, Kind::L3Network, l3);
    let services = shown["networkServices"].as_array().unwrap();
    services.iter().map(|s| s["networkServiceType"].as_str().unwrap().to_owned()).collect()
}

const ATTACH: &str = "AttachNetworkServiceToL3Network";
const DETACH: &str = "DetachNetworkServiceFromL3Network";

#[test]
fn a_service_is_there_once_and_of_a_provider_that_has_it() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    assert_eq!(shown(&cloud, Kind::L3Network, &l3).get("notInEffect"), None);
    cloud.call(ATTACH, services(&l3, &of(ProviderType::Flat, &["DHCP", "Eip"]))).unwrap();
    assert_eq!(names(&cloud, &l3), ["DHCP", "Eip"]);
    let missing = shown(&cloud, Kind::L3Network, &l3)["notInEffect"].clone();
    assert_eq!(missing, "networkServices: nobody provides Eip yet");
    let unknown = json!({"00000000000000000000000000000bad": ["DHCP"]});
    let cases = [
        (of(ProviderType::Vrouter, &["DHCP"]), Code::OperationFailed),
        (of(ProviderType::Flat, &["SNAT"]), Code::InvalidArgument),
        (of(ProviderType::Flat, &["Tea"]), Code::InvalidArgument),
        (of(ProviderType::Flat, &[]), Code::InvalidArgument),
        (unknown, Code::NotFound),
        (json!({"vRouter": ["SNAT"]}), Code::NotFound),
        (json!({}), Code::InvalidArgument),
        (json!(["DHCP"]), Code::InvalidArgument),
        (json!("DHCP"), Code::InvalidArgument),
    ];
    for (wanted, code) in cases {
        let (seen, field, text) = cloud.refusal(ATTACH, services(&l3, &wanted));
        assert_eq!((seen, field.as_deref()), (code, Some("networkServices")), "{wanted}: {text}");
    }
}

#[test]
fn services_are_taken_away_by_provider_or_by_name() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    cloud.call(ATTACH, services(&l3, &of(ProviderType::Flat, &["DHCP", "Eip"]))).unwrap();
    // By its type, as ZStack's clients may say it.
    cloud.call(ATTACH, services(&l3, &json!({"vrouter": ["SNAT"]}))).unwrap();
    // Another one provides it.
    cloud.call(DETACH, services(&l3, &of(ProviderType::Vrouter, &["Eip"]))).unwrap();
    assert_eq!(names(&cloud, &l3), ["DHCP", "Eip", "SNAT"]);
    cloud.call(DETACH, services(&l3, &of(ProviderType::Flat, &["Eip"]))).unwrap();
    cloud.call(DETACH, json!({"l3NetworkUuid": l3, "service": "SNAT"})).unwrap();
    cloud.call(DETACH, json!({"l3NetworkUuid": l3, "service": "SNAT"})).unwrap();
    assert_eq!(names(&cloud, &l3), ["DHCP"]);
    let nothing = cloud.refusal(DETACH, json!({"l3NetworkUuid": l3}));
    assert_eq!(nothing.1.as_deref(), Some("networkServices"));
    cloud.call("DeleteL3Network", json!({"uuid": l3})).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::NetworkServiceL3NetworkRef), 0);
}

#[test]
fn providers_are_there_from_the_start_and_made_once() {
    let cloud = Cloud::empty();
    let before = cloud.contents();
    let providers = before.iter().filter_map(NetworkServiceProvider::of).count();
    assert_eq!(providers, ProviderType::ALL.len());
    netloom_control::network_service::create_providers(&cloud.store, model::Timestamp(9)).unwrap();
    assert_eq!(cloud.contents(), before);
    let types = cloud.look(ADMINISTRATOR, "GetNetworkServiceTypes", json!({})).unwrap();
    assert_eq!(types["serviceAndProviderTypes"]["SNAT"], json!(["VirtualRouter", "vrouter"]));
}

fn dhcp(cloud: &Cloud, l3: &str) -> Value {
    let params = json!({"l3NetworkUuid": l3});
    cloud.look(ADMINISTRATOR, "GetL3NetworkDhcpIpAddress", params).unwrap()
}

fn used(cloud: &Cloud) -> Vec<String> {
    let contents = cloud.contents();
    let used = contents.iter().filter_map(UsedIp::of);
    let used = used.filter(|used| used.state() == AddressState::InUse);
    used.map(|used| used.ip.to_string()).collect()
}

#[test]
fn dhcp_may_have_addresses_of_its_own_and_gives_them_up_with_the_service() {
    const CHANGE: &str = "ChangeL3NetworkDhcpIpAddress";
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let mut six = by_cidr(&l3, "fd00::/64");
    six["addressMode"] = json!("Stateful-DHCP");
    cloud.made("AddIpv6RangeByNetworkCidr", six);
    let set = |ip: &str| json!({"l3NetworkUuid": l3, "dhcpServerIp": ip});
    assert_eq!(cloud.refusal(CHANGE, set("10.0.0.10")).0, Code::OperationFailed);
    cloud.call(ATTACH, services(&l3, &of(ProviderType::Flat, &["DHCP"]))).unwrap();
    let taken = dhcp(&cloud, &l3);
    assert!(taken["ip"].is_string() && taken["ip6"].is_null(), "{taken}: one of IPv4 by itself");
    let others = ["10.0.0.10", "10.0.0.11", "10.0.0.12"].into_iter();
    let others: Vec<_> = others.filter(|ip| taken["ip"] != **ip).collect();
    let both = json!({
        "l3NetworkUuid": l3, "dhcpServerIp": others[0], "dhcpv6ServerIp": "fd00::10",
    });
    cloud.call(CHANGE, both.clone()).unwrap();
    cloud.call(CHANGE, both).unwrap();
    assert_eq!(dhcp(&cloud, &l3), json!({"ip": others[0], "ip6": "fd00::10"}));
    cloud.call(CHANGE, set(others[1])).unwrap();
    assert_eq!(dhcp(&cloud, &l3)["ip"], others[1]);
    let taken = json!({"l3NetworkUuid": l3, "ip": others[1]});
    assert_eq!(cloud.refusal("CreateVmNic", taken.clone()).0, Code::IpExhausted);
    for (wrong, code) in [("10.0.0.99", Code::InvalidArgument), ("fd00::9", Code::InvalidArgument)]
    {
        let (seen, field, text) = cloud.refusal(CHANGE, set(wrong));
        assert_eq!((seen, field.as_deref()), (code, Some("dhcpServerIp")), "{text}");
    }
    let range = cloud.contents();
    let range = range.iter().filter_map(model::resource::ip_range::IpRange::of);
    let range = range.into_iter().find(|range| range.ip_version == 4).unwrap().uuid;
    cloud.call("DeleteIpRange", json!({"uuid": range})).unwrap();
    assert_eq!(dhcp(&cloud, &l3), json!({"ip6": "fd00::10"}), "the network is still there");
    cloud.call(DETACH, json!({"l3NetworkUuid": l3, "service": "DHCP"})).unwrap();
    assert_eq!((dhcp(&cloud, &l3), used(&cloud)), (json!({}), Vec::new()));
}

#[test]
fn p07_dhcp_takes_an_address_where_one_can_be_spared_and_works_without() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let small = bare_l3(&cloud, &fixture, json!({}));
    let range = |last: u8| {
        json!({
            "l3NetworkUuid": small, "name": "r", "startIp": "192.168.1.10",
            "endIp": format!("192.168.1.{last}"), "netmask": "255.255.255.0",
        })
    };
    cloud.call(ATTACH, services(&small, &of(ProviderType::Flat, &["DHCP"]))).unwrap();
    assert_eq!(dhcp(&cloud, &small), json!({}), "there is nothing to take");
    let one = cloud.made("AddIpRange", range(10));
    let nic = json!({"l3NetworkUuid": small});
    let taken = cloud.made("CreateVmNic", nic.clone());
    assert_eq!(dhcp(&cloud, &small), json!({}), "the one address is an instance's");
    assert_eq!(cloud.refusal("CreateVmNic", nic).0, Code::IpExhausted);
    cloud.call("DeleteVmNic", json!({"uuid": taken})).unwrap();
    cloud.call("DeleteIpRange", json!({"uuid": one})).unwrap();

    let many = json!({
        "l3NetworkUuid": small, "name": "r", "startIp": "192.168.1.20",
        "endIp": "192.168.1.29", "netmask": "255.255.255.0",
    });
    let many = cloud.made("AddIpRange", many);
    assert!(dhcp(&cloud, &small)["ip"].is_string(), "with the range it can spare one");
    let more = json!({
        "l3NetworkUuid": small, "name": "r", "startIp": "192.168.1.40",
        "endIp": "192.168.1.49", "netmask": "255.255.255.0",
    });
    cloud.made("AddIpRange", more);
    cloud.call("DeleteIpRange", json!({"uuid": many})).unwrap();
    let ip = dhcp(&cloud, &small)["ip"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("192.168.1.4"), "{ip}: it moved to the range that is left");
}

#[test]
fn q06_what_leads_nowhere_without_dhcp_is_said_with_its_remedy() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    cloud.call("AddDnsToL3Network", json!({"l3NetworkUuid": l3, "dns": "8.8.8.8"})).unwrap();
    let route = json!({"l3NetworkUuid": l3, "prefix": "10.9.0.0/16", "nexthop": "10.0.0.1"});
    cloud.call("AddHostRouteToL3Network", route).unwrap();
    let said = || shown(&cloud, Kind::L3Network, &l3).get("notInEffect").cloned();
    let text = said().unwrap().as_str().unwrap().to_owned();
    assert!(text.contains("dns") && text.contains("hostRoute"), "{text}");
    assert!(text.contains("AttachNetworkServiceToL3Network"), "{text}");
    let all = ["DHCP", "Userdata", "DNS", "HostRoute"];
    cloud.call(ATTACH, services(&l3, &of(ProviderType::Flat, &all))).unwrap();
    assert_eq!(said(), None);
    cloud.call(DETACH, json!({"l3NetworkUuid": l3, "service": "DHCP"})).unwrap();
    assert!(said().is_some());
}
