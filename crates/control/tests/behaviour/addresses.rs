//! Which addresses NICs get, and what is known of those that are free.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use model::{
    AnyId, Code, Id, Kind, Resource,
    resource::{account::Account, used_ip::UsedIp, vm_nic::VmNic},
};
use netloom_control::Caller;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, range},
    l3::{bare_l3, by_cidr},
};

fn nic(cloud: &Cloud, l3: &str) -> VmNic {
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    cloud.get(nic.parse().unwrap()).unwrap()
}

/// The last number of the address that a new NIC gets.
fn given(cloud: &Cloud, l3: &str) -> u8 {
    match cloud.addresses(nic(cloud, l3).uuid)[0].ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

fn give_up(cloud: &Cloud, last: u8) {
    let used = cloud.contents();
    let used = used.iter().filter_map(UsedIp::of);
    let used = used.into_iter().find(|used| used.ip == IpAddr::from([10, 0, 0, last])).unwrap();
    cloud.call("DeleteVmNic", json!({"uuid": used.used_by.uuid.simple().to_string()})).unwrap();
    cloud.give_up_releases();
}

fn with_strategy(strategy: &str) -> (Cloud, String) {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({"ipAllocatorStrategy": strategy}));
    // Given in the wrong order on purpose.
    cloud.made("AddIpRange", range(&l3, "10.0.0.20", "10.0.0.21"));
    cloud.made("AddIpRange", range(&l3, "10.0.0.10", "10.0.0.11"));
    (cloud, l3)
}

#[test]
fn the_lowest_free_address_is_given() {
    let (cloud, l3) = with_strategy("FirstAvailableIpAllocatorStrategy");
    assert_eq!([given(&cloud, &l3), given(&cloud, &l3), given(&cloud, &l3)], [10, 11, 20]);
    give_up(&cloud, 10);
    assert_eq!(given(&cloud, &l3), 10);
}

#[test]
fn freed_addresses_come_last() {
    let (cloud, l3) = with_strategy("AscDelayRecycleIpAllocatorStrategy");
    assert_eq!([given(&cloud, &l3), given(&cloud, &l3)], [10, 11]);
    give_up(&cloud, 10);
    assert_eq!([given(&cloud, &l3), given(&cloud, &l3), given(&cloud, &l3)], [20, 21, 10]);
    let (code, ..) = cloud.refusal("CreateVmNic", json!({"l3NetworkUuid": l3}));
    assert_eq!(code, Code::IpExhausted);
    cloud.call("DeleteL3Network", json!({"uuid": l3})).unwrap();
}

#[test]
fn a_reserved_address_is_given_to_nobody_and_who_has_it_keeps_it() {
    let (cloud, l3) = with_strategy("RandomIpAllocatorStrategy");
    let has = json!({"l3NetworkUuid": l3, "ip": "10.0.0.20"});
    cloud.made("CreateVmNic", has);
    let reserved = json!({"l3NetworkUuid": l3, "startIp": "10.0.0.11", "endIp": "10.0.0.20"});
    let reserved = cloud.made("AddReservedIpRange", reserved);
    let mut seen = [given(&cloud, &l3), given(&cloud, &l3)];
    seen.sort_unstable();
    assert_eq!(seen, [10, 21]);
    let (code, ..) = cloud.refusal("CreateVmNic", json!({"l3NetworkUuid": l3}));
    assert_eq!(code, Code::IpExhausted);
    let wanted = json!({"l3NetworkUuid": l3, "ip": "10.0.0.11"});
    let (code, field, text) = cloud.refusal("CreateVmNic", wanted.clone());
    assert_eq!((code, field.as_deref()), (Code::IpExhausted, Some("ip")), "{text}");
    cloud.call("DeleteReservedIpRange", json!({"uuid": reserved})).unwrap();
    cloud.made("CreateVmNic", wanted);
}

fn free(cloud: &Cloud, params: Value) -> Vec<String> {
    let answer = cloud.look(ADMINISTRATOR, "GetFreeIp", params).unwrap();
    let free = answer["inventories"].as_array().unwrap();
    free.iter().map(|free| free["ip"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn free_addresses_are_listed_in_their_order_without_what_is_reserved_or_held() {
    let (cloud, l3) = with_strategy("FirstAvailableIpAllocatorStrategy");
    let all = json!({"l3NetworkUuid": l3});
    assert_eq!(free(&cloud, all.clone()), ["10.0.0.10", "10.0.0.11", "10.0.0.20", "10.0.0.21"]);
    given(&cloud, &l3);
    let reserved = json!({"l3NetworkUuid": l3, "startIp": "10.0.0.20", "endIp": "10.0.0.20"});
    cloud.made("AddReservedIpRange", reserved);
    assert_eq!(free(&cloud, all), ["10.0.0.11", "10.0.0.21"]);
    let later = json!({"l3NetworkUuid": l3, "start": "10.0.0.12", "limit": 1});
    assert_eq!(free(&cloud, later), ["10.0.0.21"]);
    let ranges = cloud.contents();
    let of_range = ranges.iter().filter_map(model::resource::ip_range::IpRange::of);
    let first = of_range.min_by_key(|range| range.start_ip).unwrap().uuid;
    assert_eq!(free(&cloud, json!({"ipRangeUuid": first})), ["10.0.0.11"]);
    for (params, field) in [
        (json!({}), "l3NetworkUuid"),
        (json!({"l3NetworkUuid": l3, "limit": 0}), "limit"),
        (json!({"l3NetworkUuid": l3, "start": "fd00::1"}), "start"),
    ] {
        let error = cloud.look(ADMINISTRATOR, "GetFreeIp", params).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field), "{error}");
    }
}

/// As if it were a small one: nothing walks it.
#[test]
fn a_network_of_64_bits_is_answered_for_at_once() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({"ipVersion": 6}));
    let mut whole = by_cidr(&l3, "fd00::/64");
    whole["addressMode"] = json!("Stateful-DHCP");
    cloud.made("AddIpv6RangeByNetworkCidr", whole);
    let reserved = json!({
        "l3NetworkUuid": l3, "startIp": "fd00::2", "endIp": "fd00::7fff:ffff:ffff:ffff",
    });
    cloud.made("AddReservedIpRange", reserved);
    let began = Instant::now();
    let params = json!({"l3NetworkUuid": l3, "limit": 2});
    assert_eq!(free(&cloud, params), ["fd00::8000:0:0:0", "fd00::8000:0:0:1"]);
    nic(&cloud, &l3);
    let counted = capacity(&cloud, json!({"l3NetworkUuids": [l3]}));
    assert_eq!(counted["totalCapacity"], json!(i64::MAX));
    assert_eq!(counted["usedIpAddressNumber"], json!(1));
    assert!(began.elapsed() < Duration::from_secs(5), "it was walked");
}

fn capacity(cloud: &Cloud, params: Value) -> Value {
    cloud.look(ADMINISTRATOR, "GetIpAddressCapacity", params).unwrap()
}

#[test]
fn capacity_counts_each_address_once() {
    let (cloud, l3) = with_strategy("FirstAvailableIpAllocatorStrategy");
    let both = json!({"l3NetworkUuids": [l3], "all": true});
    let counts = |total: u32, free: u32, used: u32| {
        json!({
            "totalCapacity": total, "availableCapacity": free, "usedIpAddressNumber": used,
        })
    };
    assert_eq!(capacity(&cloud, both.clone()), counts(4, 4, 0));
    given(&cloud, &l3);
    let second = nic(&cloud, &l3);
    // One of the two is used, the other is free.
    let reserved = json!({"l3NetworkUuid": l3, "startIp": "10.0.0.11", "endIp": "10.0.0.20"});
    cloud.made("AddReservedIpRange", reserved);
    assert_eq!(capacity(&cloud, both), counts(4, 1, 2));
    cloud.call("DeleteVmNic", json!({"uuid": second.uuid})).unwrap();
    let all = json!({"all": true});
    cloud.give_up_releases();
    assert_eq!(capacity(&cloud, all), counts(4, 1, 1));
    let error = cloud.look(ADMINISTRATOR, "GetIpAddressCapacity", json!({})).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some("all")));
}

#[test]
fn what_hosts_have_not_let_go_is_not_available() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    let free = |cloud: &Cloud| {
        let params = json!({"l3NetworkUuids": [l3]});
        capacity(cloud, params)["availableCapacity"].clone()
    };
    assert_eq!(free(&cloud), json!(3));
    let params = json!({"l3NetworkUuid": l3, "replyWithCount": true});
    let seen = cloud.look(ADMINISTRATOR, "GetL3NetworkIpStatistic", params).unwrap();
    assert_eq!(
        (&seen["total"], &seen["ipStatistics"][0]["state"]),
        (&json!(1), &json!("ReleasePending"))
    );
    cloud.give_up_releases();
    assert_eq!(free(&cloud), json!(4));
}

#[test]
fn an_address_that_rests_goes_with_its_range_and_stays_taken() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let tags = [format!("staticIp::{l3}::10.0.0.11")];
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3]});
    let vm = cloud.call_tagged("CreateVmInstance", vm, &tags).unwrap().subject.unwrap().1;
    cloud.call("DestroyVmInstance", json!({"uuid": vm.simple().to_string()})).unwrap();
    cloud.call("DeleteIpRange", cloud.children(Kind::IpRange, "l3NetworkUuid", &l3)).unwrap();
    assert_eq!(cloud.contents().iter().filter_map(UsedIp::of).count(), 0);
    cloud.made("AddIpRange", range(&l3, "10.0.0.10", "10.0.0.12"));
    let wanted = json!({"l3NetworkUuid": l3, "ip": "10.0.0.11"});
    assert_eq!(cloud.refusal("CreateVmNic", wanted.clone()).0, Code::IpExhausted);
    cloud.give_up_releases();
    cloud.made("CreateVmNic", wanted);
}

#[test]
fn a_statistic_shows_who_has_an_address_page_by_page() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = cloud.made("CreateVmInstance", json!({"name": "web", "l3NetworkUuids": [l3]}));
    for _ in 0..2 {
        nic(&cloud, &l3);
    }
    let page = |more: Value| {
        let mut params = json!({"l3NetworkUuid": l3, "replyWithCount": true});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        cloud.look(ADMINISTRATOR, "GetL3NetworkIpStatistic", params).unwrap()
    };
    let ips = |answer: &Value| -> Vec<IpAddr> {
        let rows = answer["ipStatistics"].as_array().unwrap();
        rows.iter().map(|row| row["ip"].as_str().unwrap().parse().unwrap()).collect()
    };
    let all = page(json!({}));
    assert_eq!((ips(&all).len(), &all["total"]), (3, &json!(3)));
    assert!(ips(&all).is_sorted());
    let last = page(json!({"sortDirection": "DESC", "limit": 1}));
    assert_eq!(ips(&last), ips(&all)[2..]);
    assert_eq!(ips(&page(json!({"start": 1, "limit": 1}))), ips(&all)[1..2]);
    assert_eq!(ips(&page(json!({"resourceType": "VIP"}))), Vec::<IpAddr>::new());
    let address = cloud.addresses(cloud.nics(&vm)[0].uuid)[0].ip;
    let one = page(json!({"ip": address, "resourceType": "VM"}));
    let row = &one["ipStatistics"][0];
    assert_eq!((&row["vmInstanceName"], &row["vmInstanceUuid"]), (&json!("web"), &json!(vm)));
}

#[test]
fn somebody_elses_network_is_not_answered_for() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let id: Id<Account> = Id::new(uuid::Uuid::from_u128(0xa));
    let source = IpAddr::from([127, 0, 0, 1]);
    let stranger = Caller::Account { id, is_admin: false, session: None, source };
    let asked = [
        ("GetFreeIp", json!({"l3NetworkUuid": l3})),
        ("CheckIpAvailability", json!({"l3NetworkUuid": l3, "ip": "10.0.0.10"})),
        ("GetIpAddressCapacity", json!({"l3NetworkUuids": [l3]})),
        ("GetL3NetworkIpStatistic", json!({"l3NetworkUuid": l3})),
        ("GetL3NetworkMtu", json!({"l3NetworkUuid": l3})),
    ];
    for (message, params) in asked {
        let error = cloud.look(stranger, message, params).unwrap_err();
        assert_eq!(error.code, Code::NotFound, "{message}");
    }
    let all = cloud.look(stranger, "GetIpAddressCapacity", json!({"all": true})).unwrap();
    assert_eq!(all["totalCapacity"], json!(0));
}

/// What is given is used by whom it was given to, and the other way round.
fn nothing_leaks(cloud: &Cloud) -> usize {
    let contents = cloud.contents();
    let used: Vec<&UsedIp> = contents.iter().filter_map(UsedIp::of).collect();
    let nics: BTreeMap<Id<VmNic>, &VmNic> =
        contents.iter().filter_map(VmNic::of).map(|nic| (nic.uuid, nic)).collect();
    let places: BTreeSet<_> = used.iter().map(|used| (used.l2_network_uuid, used.ip)).collect();
    assert_eq!(places.len(), used.len(), "an address was given twice");
    for used in &used {
        assert_eq!(used.used_by.kind, Kind::VmNic);
        assert!(nics.contains_key(&Id::new(used.used_by.uuid)), "{used:?}");
    }
    for nic in nics.values() {
        let first = used.iter().find(|used| Some(used.uuid) == nic.used_ip_uuid).unwrap();
        assert_eq!(first.used_by, AnyId::of(nic.uuid));
    }
    used.len()
}

fn crowded(strategy: &str) -> (Cloud, Fixture, String) {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = bare_l3(&cloud, &fixture, json!({"ipAllocatorStrategy": strategy}));
    for (start, end) in [("10.0.0.10", "10.0.0.39"), ("10.0.0.60", "10.0.0.79")] {
        cloud.made("AddIpRange", range(&l3, start, end));
    }
    let mut six = by_cidr(&l3, "fd00::/122");
    six["addressMode"] = json!("Stateful-DHCP");
    cloud.made("AddIpv6RangeByNetworkCidr", six);
    let reserved = json!({"l3NetworkUuid": l3, "startIp": "10.0.0.30", "endIp": "10.0.0.64"});
    cloud.made("AddReservedIpRange", reserved);
    (cloud, fixture, l3)
}

/// 20 and 15 addresses are not reserved, and there are more of IPv6.
const ROOM: usize = 35;

/// Thousands of allocations and deletions, in whatever order, for each strategy.
#[test]
fn no_address_is_given_twice_and_none_is_lost() {
    let strategies = model::resource::l3_network::IpAllocatorStrategy::ALL;
    for strategy in strategies {
        let (cloud, _, l3) = crowded(strategy.as_str());
        let (mut nics, mut numbers) = (Vec::new(), 1_u64);
        for round in 0..800 {
            numbers = numbers.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let roll = usize::try_from(numbers >> 33).unwrap();
            if roll % 5 < 2 && !nics.is_empty() {
                let gone: Id<VmNic> = nics.swap_remove(roll % nics.len());
                cloud.run("DeleteVmNic", json!({"uuid": gone}), &[], None).unwrap();
                cloud.give_up_releases();
            } else {
                let params = json!({"l3NetworkUuid": l3});
                match cloud.run("CreateVmNic", params, &[], None) {
                    Ok(done) => nics.push(Id::new(done.reply.subject.unwrap().1)),
                    Err(error) => {
                        assert_eq!((error.code, nics.len()), (Code::IpExhausted, ROOM));
                    }
                }
            }
            if round % 100 == 99 {
                assert_eq!(nothing_leaks(&cloud), 2 * nics.len());
            }
        }
        nics.iter().for_each(|nic| {
            cloud.run("DeleteVmNic", json!({"uuid": nic}), &[], None).unwrap();
        });
        cloud.give_up_releases();
        assert_eq!(nothing_leaks(&cloud), 0);
        for _ in 0..ROOM {
            nic(&cloud, &l3);
        }
        assert_eq!(nothing_leaks(&cloud), 2 * ROOM, "each address can be given again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// What is said to be free is what is given.
    #[test]
    fn what_is_listed_as_free_is_what_can_be_given(taken in proptest::collection::btree_set(10_u8..80, 0..20)) {
        let (cloud, _, l3) = crowded("FirstAvailableIpAllocatorStrategy");
        for last in taken {
            let params = json!({"l3NetworkUuid": l3, "ip": format!("10.0.0.{last}")});
            // It may be reserved or in no range.
            let _ = cloud.run("CreateVmNic", params, &[], None);
        }
        let listed = free(&cloud, json!({"l3NetworkUuid": l3, "limit": 1000}));
        let mut expected = Vec::new();
        while let Ok(done) = cloud.run("CreateVmNic", json!({"l3NetworkUuid": l3}), &[], None) {
            let nic: Id<VmNic> = Id::new(done.reply.subject.unwrap().1);
            expected.push(cloud.addresses(nic)[0].ip.to_string());
        }
        prop_assert_eq!(listed, expected);
    }
}
