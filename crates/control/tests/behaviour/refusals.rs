//! What is refused, with which code, field and words; a refusal changes nothing (the harness
//! compares the whole store before and after).

use crate::harness::{Cloud, range};
use model::{Code, Kind};
use serde_json::{Value, json};

/// ZStack and Neutron have no rule about names either.
#[test]
fn names_may_repeat() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let cases = [
        ("CreateZone", json!({"name": "z"})),
        ("CreateCluster", json!({"name": "c", "zoneUuid": fixture.zone, "hypervisorType": "KVM"})),
        (
            "AddKVMHost",
            json!({"name": "h1", "managementIp": "172.30.0.9", "clusterUuid": fixture.cluster}),
        ),
        ("CreateL2VxlanNetworkPool", json!({"name": "p", "zoneUuid": fixture.zone})),
        ("CreateVmInstance", json!({"name": "red", "l3NetworkUuids": [l3]})),
        ("CreateVmInstance", json!({"name": "red", "l3NetworkUuids": [l3]})),
    ];
    for (message, params) in cases {
        cloud.made(message, params);
    }
}

#[test]
fn unknown_uuids_are_named_with_their_field() {
    let (cloud, _) = Cloud::with_two_hosts();
    let nobody = "0123456789abcdef0123456789abcdef";
    let cases = [
        (
            "CreateCluster",
            json!({"name": "x", "zoneUuid": nobody, "hypervisorType": "KVM"}),
            "zoneUuid",
        ),
        ("CreateL2VxlanNetwork", json!({"name": "x", "poolUuid": nobody}), "poolUuid"),
        ("CreateVmNic", json!({"l3NetworkUuid": nobody}), "l3NetworkUuid"),
        ("CreateVmInstance", json!({"name": "x", "l3NetworkUuids": [nobody]}), "l3NetworkUuids"),
    ];
    for (message, params, expected) in cases {
        let (code, field, text) = cloud.refusal(message, params);
        assert_eq!((code, field.as_deref()), (Code::NotFound, Some(expected)), "{text}");
    }
}

/// Also what is deleted twice (field case F36).
#[test]
fn deleting_what_is_gone_succeeds() {
    let cloud = Cloud::empty();
    let nobody = json!({"uuid": "0123456789abcdef0123456789abcdef"});
    for message in
        ["DeleteZone", "DeleteHost", "DeleteL2Network", "DeleteL3Network", "DestroyVmInstance"]
    {
        cloud.call(message, nobody.clone()).unwrap();
    }
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let instance = cloud.made("CreateVmInstance", json!({"name": "a", "l3NetworkUuids": [l3]}));
    let nic = cloud.nics(&instance).remove(0).uuid.to_string();
    let cases = [("DeleteVmNic", &nic, "plugged into")];
    for (message, uuid, by) in cases {
        let (code, _, text) = cloud.refusal(message, json!({"uuid": uuid}));
        assert_eq!(code, Code::InUse, "{text}");
        assert!(text.contains(by), "{text}");
    }
}

#[test]
fn vnis_are_unique_and_inside_a_range_of_the_pool() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let network =
        |name: &str, vni: Value| json!({"name": name, "poolUuid": fixture.pool, "vni": vni});
    cloud.call("CreateL2VxlanNetwork", network("a", json!(101))).unwrap();
    let (code, field, text) = cloud.refusal("CreateL2VxlanNetwork", network("b", json!(101)));
    assert_eq!((code, field.as_deref()), (Code::VniExhausted, Some("vni")), "{text}");
    let (code, field, _) = cloud.refusal("CreateL2VxlanNetwork", network("b", json!(104)));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("vni")));
    for name in ["b", "c", "d"] {
        cloud.call("CreateL2VxlanNetwork", network(name, Value::Null)).unwrap();
    }
    let (code, field, _) = cloud.refusal("CreateL2VxlanNetwork", network("e", Value::Null));
    assert_eq!((code, field.as_deref()), (Code::VniExhausted, Some("poolUuid")));
    let other =
        cloud.made("CreateL2VxlanNetworkPool", json!({"name": "q", "zoneUuid": fixture.zone}));
    let overlap =
        json!({"name": "s", "startVni": 103, "endVni": 110, "l2NetworkUuid": fixture.pool});
    assert_eq!(cloud.refusal("CreateVniRange", overlap).1.as_deref(), Some("startVni"));
    let backwards = json!({"name": "s", "startVni": 9, "endVni": 8, "l2NetworkUuid": other});
    assert_eq!(cloud.refusal("CreateVniRange", backwards).1.as_deref(), Some("endVni"));
}

/// Field case F33, with `field_cases::ranges_may_reach_to_the_edges_of_their_subnets`.
#[test]
fn ranges_keep_zstacks_rules() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let with = |field: &str, value: &str| {
        let mut params = range(&l3, "10.0.0.20", "10.0.0.30");
        params[field] = value.into();
        params
    };
    let cases = [
        (with("endIp", "10.0.0.19"), "endIp"),
        (with("endIp", "10.0.1.1"), "endIp"),
        (with("startIp", "10.0.0.12"), "startIp"),
        (with("startIp", "10.0.0.0"), "startIp"),
        (with("endIp", "10.0.0.255"), "endIp"),
        (with("gateway", "10.0.0.25"), "gateway"),
        (with("gateway", "10.0.1.1"), "gateway"),
        (with("gateway", "10.0.0.2"), "gateway"),
        (with("netmask", "255.255.255.255"), "netmask"),
        (with("netmask", "255.0.255.0"), "netmask"),
        (with("startIp", "fd00::1"), "startIp"),
        (with("startIp", "224.0.0.1"), "startIp"),
    ];
    for (params, expected) in cases {
        let (code, field, text) = cloud.refusal("AddIpRange", params.clone());
        assert_eq!(
            (code, field.as_deref()),
            (Code::InvalidArgument, Some(expected)),
            "{params} {text}"
        );
    }
    cloud.call("AddIpRange", range(&l3, "10.0.0.20", "10.0.0.30")).unwrap();
}

/// Field case F31, by one client; by many at once in `field_cases`.
#[test]
fn a_full_range_and_a_taken_address_are_refused() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let nic = |ip: Value| json!({"l3NetworkUuid": l3, "ip": ip});
    cloud.call("CreateVmNic", nic(json!("10.0.0.11"))).unwrap();
    let (code, field, _) = cloud.refusal("CreateVmNic", nic(json!("10.0.0.11")));
    assert_eq!((code, field.as_deref()), (Code::IpExhausted, Some("ip")));
    let (code, field, _) = cloud.refusal("CreateVmNic", nic(json!("10.0.0.14")));
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("ip")));
    for _ in 0..3 {
        cloud.call("CreateVmNic", nic(Value::Null)).unwrap();
    }
    let (code, field, text) = cloud.refusal("CreateVmNic", nic(Value::Null));
    assert_eq!((code, field.as_deref()), (Code::IpExhausted, Some("l3NetworkUuid")), "{text}");
}

#[test]
fn a_pool_is_attached_once_with_its_network_named() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let attach = json!({"l2NetworkUuid": fixture.pool, "clusterUuid": fixture.cluster});
    let twice = cloud.call("AttachL2NetworkToCluster", attach).unwrap_err();
    assert_eq!(twice.code, Code::OperationFailed);
    let cluster = cloud.made(
        "CreateCluster",
        json!({"name": "d", "zoneUuid": fixture.zone, "hypervisorType": "KVM"}),
    );
    let attach = json!({"l2NetworkUuid": fixture.pool, "clusterUuid": cluster});
    let tag = |cidr: &str| {
        format!("l2NetworkUuid::{}::clusterUuid::{cluster}::cidr::{cidr}", fixture.pool)
    };
    for tags in [
        vec![],
        vec![tag("{nonsense}")],
        vec![tag("10.0.0.0/8")],
        vec![tag("{10.0.0.0/8}"), tag("{11.0.0.0/8}")],
    ] {
        let error = cloud.call_tagged("AttachL2NetworkToCluster", attach.clone(), &tags);
        assert_eq!(error.unwrap_err().field.as_deref(), Some("systemTags"), "{tags:?}");
    }
    cloud.call_tagged("AttachL2NetworkToCluster", attach, &[tag("{10.0.0.0/8}")]).unwrap();
}

/// Field case F36.
#[test]
fn a_uuid_names_one_resource_of_whatever_kind() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let params = json!({"name": "n", "poolUuid": fixture.pool});
    let taken = model::id::parse_uuid(&fixture.pool);
    let error = cloud.run("CreateL2VxlanNetwork", params, &[], taken).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Code::UuidTaken, Some("resourceUuid")));
    assert!(error.message.contains("a L2Network"), "{error}");
}

/// Field case F33.
#[test]
fn ranges_at_the_edges_of_the_address_space_are_refused() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let v4 = [
        ("0.0.0.0", "0.0.0.9", "255.255.255.0", "0.0.0.1", "startIp"),
        ("0.0.0.2", "0.0.0.9", "255.255.255.0", "0.0.0.1", "startIp"),
        ("255.255.255.1", "255.255.255.255", "255.255.255.0", "255.255.255.2", "startIp"),
        ("126.0.0.1", "128.0.0.9", "128.0.0.0", "1.0.0.1", "endIp"),
        ("10.0.0.2", "10.0.0.9", "0.0.0.0", "10.0.0.1", "netmask"),
        ("10.9.0.1", "10.9.0.2", "255.255.255.252", "10.9.0.1", "gateway"),
        ("10.9.0.1", "10.9.0.1", "255.255.255.254", "10.9.0.0", "netmask"),
    ];
    for (start, end, netmask, gateway, field) in v4 {
        let params = json!({
            "l3NetworkUuid": l3, "name": "edge", "startIp": start, "endIp": end,
            "netmask": netmask, "gateway": gateway,
        });
        let (_, seen, text) = cloud.refusal("AddIpRange", params);
        assert_eq!(seen.as_deref(), Some(field), "{start} to {end}: {text}");
    }
    let v6 = [
        ("::", "::9", "::1", 64, "startIp"),
        ("::ffff:10.0.0.10", "::ffff:10.0.0.13", "::ffff:10.0.0.1", 120, "endIp"),
        ("::fffe:0:2", "::1:0:0:9", "::fffe:0:1", 64, "startIp"),
        ("fe7f::2", "fec0::2", "fe00::9", 8, "endIp"),
        ("fd00::2", "fd00::9", "fe80::1", 64, "gateway"),
        ("ffff::2", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff::1", 8, "startIp"),
        ("10.0.0.2", "fd00::9", "fd00::1", 64, "startIp"),
        ("fd00::2", "fd00::9", "fd00::1", 127, "prefixLen"),
    ];
    for (start, end, gateway, prefix, field) in v6 {
        let params = json!({
            "l3NetworkUuid": l3, "name": "edge", "startIp": start, "endIp": end,
            "gateway": gateway, "prefixLen": prefix, "addressMode": "Stateful-DHCP",
        });
        let (_, seen, text) = cloud.refusal("AddIpv6Range", params);
        assert_eq!(seen.as_deref(), Some(field), "{start} to {end}: {text}");
    }
}

#[test]
fn a_range_gives_out_no_gateway_of_another_one_on_its_l2() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l2 = cloud.made("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": fixture.pool}));
    let l3 = |name: &str| cloud.made("CreateL3Network", json!({"name": name, "l2NetworkUuid": l2}));
    let with = |l3: &str, start: &str, end: &str, gateway: &str| {
        let mut params = range(l3, start, end);
        params["gateway"] = gateway.into();
        params
    };
    let (a, b) = (l3("a"), l3("b"));
    cloud.call("AddIpRange", with(&a, "10.0.0.10", "10.0.0.20", "10.0.0.1")).unwrap();
    let cases = [
        (with(&b, "10.0.0.1", "10.0.0.9", "10.0.0.30"), "startIp"),
        (with(&b, "10.0.0.30", "10.0.0.40", "10.0.0.15"), "gateway"),
    ];
    for (params, field) in cases {
        let (_, seen, text) = cloud.refusal("AddIpRange", params);
        assert_eq!(seen.as_deref(), Some(field), "{text}");
    }
    cloud.call("AddIpRange", with(&b, "10.0.0.30", "10.0.0.40", "10.0.0.1")).unwrap();
}

#[test]
fn a_vtep_is_only_where_its_pool_is_attached() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let pool = json!({"name": "q", "zoneUuid": fixture.zone});
    let pool = cloud.made("CreateL2VxlanNetworkPool", pool);
    let vtep = json!({"hostUuid": fixture.hosts[0], "poolUuid": pool});
    let (_, field, text) = cloud.refusal("CreateVxlanVtep", vtep);
    assert_eq!(field.as_deref(), Some("poolUuid"), "{text}");
}

#[test]
fn a_management_address_belongs_to_one_host() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let host = |ip: &str| json!({"name": ip, "managementIp": ip, "clusterUuid": fixture.cluster});
    for ip in ["172.30.0.1", "0.0.0.0", "127.0.0.1", "255.255.255.255", "ff02::1", "::1"] {
        let (_, field, text) = cloud.refusal("AddKVMHost", host(ip));
        assert_eq!(field.as_deref(), Some("managementIp"), "{text}");
    }
    cloud.call("DeleteHost", json!({"uuid": fixture.hosts[0]})).unwrap();
    cloud.call("AddKVMHost", host("172.30.0.1")).unwrap();
}

#[test]
fn a_hosts_addresses_are_its_own_and_reachable() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let [first, _] = &fixture.hosts;
    let host = |ip: &str| json!({"name": "h3", "managementIp": ip, "clusterUuid": fixture.cluster});
    let vtep = |ip: &str| json!({"hostUuid": first, "poolUuid": fixture.pool, "vtepIp": ip});
    let own = cloud.children(Kind::Vtep, "hostUuid", first);
    let own = model::id::parse_uuid(own["uuid"].as_str().unwrap()).unwrap();
    let forget = move |tx: &mut store::Tx<model::Record>| {
        tx.delete(Kind::Vtep, own);
        Ok(())
    };
    cloud.store.transact(forget).unwrap();
    // The mapped ones are taken in their IPv4 form: by the first host, and by the second's VTEP.
    for ip in ["::ffff:172.30.0.1", "::ffff:172.30.0.2", "169.254.0.1", "250.0.0.1", "fe80::1"] {
        let (code, field, text) = cloud.refusal("AddKVMHost", host(ip));
        let expected = (Code::InvalidArgument, Some("managementIp"));
        assert_eq!((code, field.as_deref()), expected, "{text}");
        let (code, field, text) = cloud.refusal("CreateVxlanVtep", vtep(ip));
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("vtepIp")), "{text}");
    }
    cloud.call("CreateVxlanVtep", vtep("172.30.0.9")).unwrap();
    let (_, field, text) = cloud.refusal("AddKVMHost", host("172.30.0.9"));
    assert_eq!(field.as_deref(), Some("managementIp"), "{text}");
}

#[test]
fn the_tunnels_of_a_pool_are_of_one_family() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let other = json!({"name": "d", "zoneUuid": fixture.zone, "hypervisorType": "KVM"});
    let other = cloud.made("CreateCluster", other);
    let host = json!({"name": "h3", "managementIp": "fd00::3", "clusterUuid": fixture.cluster});
    let host = cloud.made("AddKVMHost", host);
    let vtep = json!({"hostUuid": host, "poolUuid": fixture.pool});
    let (_, field, text) = cloud.refusal("CreateVxlanVtep", vtep);
    assert_eq!(field.as_deref(), Some("vtepIp"), "{text}");
    let attach = json!({"l2NetworkUuid": fixture.pool, "clusterUuid": other});
    let tag = |cidr: &str| {
        [format!("l2NetworkUuid::{}::clusterUuid::{other}::cidr::{{{cidr}}}", fixture.pool)]
    };
    let mixed = cloud.call_tagged("AttachL2NetworkToCluster", attach.clone(), &tag("fd00::/64"));
    assert_eq!(mixed.unwrap_err().field.as_deref(), Some("systemTags"));
    cloud.call_tagged("AttachL2NetworkToCluster", attach, &tag("10.0.0.0/8")).unwrap();
}

#[test]
fn what_zstacks_clients_send_is_taken_and_what_cannot_be_done_is_refused() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let l2 = cloud.made("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": fixture.pool}));
    let offering = json!({"name": "o", "cpuNum": 1, "memorySize": 1});
    let offering = cloud.made("CreateInstanceOffering", offering);
    let image = json!({"name": "i", "url": "http://192.0.2.1/i", "format": "raw"});
    let image = cloud.made("AddImage", image);
    // A message, its fields, what ZStack's clients add and what is refused of it.
    let cases = [
        (
            "CreateCluster",
            json!({"zoneUuid": fixture.zone, "hypervisorType": "KVM"}),
            json!({"type": "zstack", "architecture": "aarch64"}),
            json!({"type": "baremetal", "architecture": "z80"}),
        ),
        (
            "CreateL2VxlanNetworkPool",
            json!({"zoneUuid": fixture.zone}),
            json!({"type": "VxlanNetworkPool", "vSwitchType": "LinuxBridge", "isolated": false}),
            json!({"type": "L2VlanNetwork", "vSwitchType": "OvsDpdk", "isolated": true}),
        ),
        (
            "CreateL2VxlanNetwork",
            json!({"poolUuid": fixture.pool}),
            json!({
                "type": "VxlanNetwork", "vSwitchType": "LinuxBridge", "isolated": false,
                "physicalInterface": "eth0",
            }),
            json!({"type": "L2VlanNetwork", "vSwitchType": "MacVlan", "isolated": true}),
        ),
        (
            "CreateL3Network",
            json!({"l2NetworkUuid": l2}),
            json!({"type": "L3BasicNetwork", "system": false, "enableIPAM": true}),
            json!({"type": "L3VpcNetwork", "system": true, "enableIPAM": false}),
        ),
        (
            "AddIpRange",
            range(&l3, "10.0.0.20", "10.0.0.30"),
            json!({"ipRangeType": "Normal"}),
            json!({"ipRangeType": "AddressPool"}),
        ),
        (
            "CreateVmInstance",
            json!({"l3NetworkUuids": [l3]}),
            json!({
                "type": "UserVm", "strategy": "InstantStart", "instanceOfferingUuid": offering,
                "imageUuid": image, "cpuNum": 2, "memorySize": 8_589_934_592_u64,
            }),
            json!({"type": "ApplianceVm", "strategy": "Later", "imageUuid": "debian"}),
        ),
    ];
    for (message, mut params, taken, refused) in cases {
        params["name"] = "zstack".into();
        for (field, value) in refused.as_object().unwrap() {
            let mut params = params.clone();
            params[field] = value.clone();
            let (code, seen, text) = cloud.refusal(message, params);
            assert_eq!((code, seen.as_ref()), (Code::InvalidArgument, Some(field)), "{text}");
        }
        params.as_object_mut().unwrap().extend(taken.as_object().unwrap().clone());
        cloud.made(message, params);
    }
    let system = json!({"name": "s", "l2NetworkUuid": l2, "category": "System", "system": true});
    cloud.made("CreateL3Network", system);
}
