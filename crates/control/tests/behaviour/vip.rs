//! VIPs: their addresses, their ports, and who may use them.

use model::{
    Code, Kind, Record, Resource,
    resource::{network_service::ProviderType, used_ip::AddressState, vip::Vip},
};
use netloom_control::{Caller, inventory::Observed, query};
use serde_json::{Map, Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, Cloud, Fixture, tenant},
    l3::{bare_l3, shown},
    security_groups::send,
};

/// A public network, and one of guests to which a router would provide EIPs and forwarded ports.
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) fixture: Fixture,
    /// 198.51.100.10 to .15.
    pub(crate) public: String,
    /// 10.0.0.10 to .13.
    pub(crate) guest: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let (cloud, fixture) = Cloud::with_two_hosts();
        let public = bare_l3(&cloud, &fixture, json!({"category": "Public"}));
        cloud.made("AddIpRange", addresses(&public, 10, 15));
        let guest = cloud.l3(&fixture, "red");
        let world = Self { cloud, fixture, public, guest };
        world.serve(&world.guest, ProviderType::Vrouter, &["Eip", "PortForwarding"]);
        world
    }

    /// A network gets services.
    pub(crate) fn serve(&self, l3: &str, by: ProviderType, services: &[&str]) {
        let services = json!({by.provider().to_string(): services});
        let attach = json!({"l3NetworkUuid": l3, "networkServices": services});
        self.cloud.call("AttachNetworkServiceToL3Network", attach).unwrap();
    }

    pub(crate) fn vip(&self) -> String {
        self.cloud.made("CreateVip", json!({"name": "vip", "l3NetworkUuid": self.public}))
    }

    /// An instance on the network of guests, and its NIC.
    pub(crate) fn vm(&self) -> (String, String) {
        self.vm_on(&[&self.guest])
    }

    pub(crate) fn vm_on(&self, l3s: &[&str]) -> (String, String) {
        let vm = json!({"name": "vm", "l3NetworkUuids": l3s, "defaultL3NetworkUuid": l3s[0]});
        let vm = self.cloud.made("CreateVmInstance", vm);
        let mut nics = self.cloud.nics(&vm);
        nics.sort_by_key(|nic| nic.device_id);
        (vm, nics[0].uuid.to_string())
    }

    pub(crate) fn shown(&self, kind: Kind, uuid: &str) -> Map<String, Value> {
        shown(&self.cloud, kind, uuid)
    }

    /// The code and the field of a refusal, with its text.
    pub(crate) fn refused(&self, name: &str, params: Value, code: Code, field: &str) -> String {
        let (seen, on, text) = self.cloud.refusal(name, params.clone());
        assert_eq!((seen, on.as_deref()), (code, Some(field)), "{name} {params}: {text}");
        text
    }

    /// Makes a VIP a router's own, as no message does.
    pub(crate) fn make_system(&self, vip: &str) {
        let uuid = model::id::parse_uuid(vip).unwrap();
        let put = move |tx: &mut store::Tx<Record>| {
            let row = tx.get(Kind::Vip, uuid).unwrap();
            let vip = Vip { system: true, ..Vip::of(&row).unwrap().clone() };
            tx.put(Record::new(vip, row.meta)).unwrap();
            Ok(())
        };
        self.cloud.store.transact(put).unwrap();
    }

    /// The uuids that a query finds.
    pub(crate) fn found(&self, kind: Kind, field: &str, value: &str) -> Vec<String> {
        let path = query::Path::read(kind, "q", field).unwrap();
        let is_it = query::Condition::read("q", path, query::Operator::Equal, &[value]).unwrap();
        let face = &kind.def().faces[0];
        let mut query = query::Query::new(kind, face, ADMINISTRATOR.scope().unwrap());
        query.conditions.push(is_it);
        let snapshot = self.cloud.snapshot();
        let found = query::run(&query, &Observed::new(&snapshot, &self.cloud.board)).unwrap();
        let uuid = |row: &Map<String, Value>| row["uuid"].as_str().unwrap().to_owned();
        let mut found: Vec<_> = found.inventories.unwrap().iter().map(uuid).collect();
        found.sort();
        found
    }
}

/// The fields of a range in 198.51.100.0/24.
fn addresses(l3: &str, first: u8, last: u8) -> Value {
    json!({
        "l3NetworkUuid": l3, "name": "public", "startIp": format!("198.51.100.{first}"),
        "endIp": format!("198.51.100.{last}"), "netmask": "255.255.255.0",
        "gateway": "198.51.100.1",
    })
}

fn create(l3: &str, more: Value) -> Value {
    let mut params = json!({"name": "vip", "l3NetworkUuid": l3});
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

const CREATE: &str = "CreateVip";

#[test]
fn a_vip_has_an_address_that_nobody_else_can_take() {
    let world = World::new();
    let ip = json!({"requiredIp": "198.51.100.12", "description": "d"});
    let vip = world.cloud.made(CREATE, create(&world.public, ip));
    let row: Vip = world.cloud.get(vip.parse().unwrap()).unwrap();
    let shown = world.shown(Kind::Vip, &vip);
    let range = world.cloud.children(Kind::IpRange, "l3NetworkUuid", &world.public);
    let expected = json!({
        "uuid": vip, "name": "vip", "description": "d", "ip": "198.51.100.12",
        "netmask": "255.255.255.0", "prefixLen": 24, "gateway": "198.51.100.1",
        "l3NetworkUuid": world.public, "usedIpUuid": row.used_ip_uuid, "state": "Enabled",
        "ipRangeUuid": range["uuid"], "system": false, "servicesRefs": [],
        "peerL3NetworkUuids": [],
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(shown.get(field), Some(value), "{field}");
    }
    for field in ["useFor", "serviceProvider", "notInEffect"] {
        assert_eq!(shown.get(field), None, "{field}");
    }
    let nic = json!({"l3NetworkUuid": world.public, "ip": "198.51.100.12"});
    world.refused("CreateVmNic", nic, Code::IpExhausted, "ip");
    let again = create(&world.public, json!({"requiredIp": "198.51.100.12"}));
    world.refused(CREATE, again, Code::OperationFailed, "requiredIp");
    let nic = json!({"l3NetworkUuid": world.public, "ip": "198.51.100.13"});
    world.cloud.made("CreateVmNic", nic);
    let of_nic = create(&world.public, json!({"requiredIp": "198.51.100.13"}));
    world.refused(CREATE, of_nic, Code::OperationFailed, "requiredIp");
    assert_eq!(world.found(Kind::Vip, "ip", "198.51.100.12"), [vip.as_str()]);
    assert_eq!(world.found(Kind::Vip, "usedIp.ip", "198.51.100.12"), [vip.as_str()]);
    let of_range = world.found(Kind::Vip, "ipRangeUuid", range["uuid"].as_str().unwrap());
    assert_eq!(of_range, [vip.as_str()]);
    let delete = json!({"l3NetworkUuid": world.public, "usedIpUuids": [row.used_ip_uuid]});
    assert_eq!(world.cloud.refusal("DeleteIpAddress", delete).0, Code::InUse);
}

#[test]
fn what_a_vip_asks_for_must_be_there() {
    let world = World::new();
    let (guest, public) = (&world.guest, &world.public);
    let other = world.cloud.children(Kind::IpRange, "l3NetworkUuid", guest)["uuid"].clone();
    let reserve = json!({"l3NetworkUuid": public, "startIp": "198.51.100.15",
        "endIp": "198.51.100.15"});
    world.cloud.made("AddReservedIpRange", reserve);
    let wrong = Code::InvalidArgument;
    for (more, code, field) in [
        (json!({"requiredIp": "198.51.100.9"}), Code::IpExhausted, "requiredIp"),
        (json!({"requiredIp": "198.51.100.15"}), Code::IpExhausted, "requiredIp"),
        (json!({"requiredIp": "2001:db8::1"}), wrong, "requiredIp"),
        (json!({"requiredIp": "198.51.100.10", "ipVersion": 6}), wrong, "requiredIp"),
        (json!({"ipVersion": 6}), wrong, "ipVersion"),
        (json!({"ipVersion": 5}), wrong, "ipVersion"),
        (json!({"ipVersion": 7}), wrong, "ipVersion"),
        (json!({"ipRangeUuid": other}), wrong, "ipRangeUuid"),
        (json!({"ipRangeUuid": "00000000000000000000000000000bad"}), Code::NotFound, "ipRangeUuid"),
        (json!({"allocatorStrategy": "BestIpAllocatorStrategy"}), wrong, "allocatorStrategy"),
    ] {
        world.refused(CREATE, create(public, more), code, field);
    }
    let nowhere = create("00000000000000000000000000000bad", json!({}));
    world.refused(CREATE, nowhere, Code::NotFound, "l3NetworkUuid");
    let disable = json!({"uuid": public, "stateEvent": "disable"});
    world.cloud.call("ChangeL3NetworkState", disable).unwrap();
    world.refused(CREATE, create(public, json!({})), Code::OperationFailed, "l3NetworkUuid");
}

#[test]
fn a_vip_takes_of_pools_first_and_as_its_strategy_says() {
    let world = World::new();
    let first = json!({"allocatorStrategy": "FirstAvailableIpAllocatorStrategy"});
    let ip = |more: &Value| {
        let vip = world.cloud.made(CREATE, create(&world.public, more.clone()));
        world.shown(Kind::Vip, &vip)["ip"].as_str().unwrap().to_owned()
    };
    assert_eq!(ip(&first), "198.51.100.10");
    assert_eq!(ip(&first), "198.51.100.11");
    let pool = json!({
        "l3NetworkUuid": world.public, "name": "pool", "startIp": "203.0.113.1",
        "endIp": "203.0.113.2", "netmask": "255.255.255.0", "ipRangeType": "AddressPool",
    });
    let pool = world.cloud.made("AddIpRange", pool);
    assert_eq!(ip(&json!({"requiredIp": "198.51.100.13"})), "198.51.100.13");
    assert_eq!(ip(&first), "203.0.113.1", "also the address that stands for a gateway");
    assert_eq!(ip(&json!({"ipRangeUuid": pool})), "203.0.113.2");
    let text = world.refused(
        CREATE,
        create(&world.public, json!({"ipRangeUuid": pool})),
        Code::IpExhausted,
        "l3NetworkUuid",
    );
    assert!(text.contains("no free IPv4 address"), "{text}");
    assert_eq!(ip(&first), "198.51.100.12", "when the pools are used up");
    let report = netloom_control::doctor::examine(&world.cloud.snapshot());
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn a_vip_of_ipv6_is_possible_where_there_is_a_range() {
    let world = World::new();
    let six = json!({
        "l3NetworkUuid": world.public, "name": "six", "startIp": "2001:db8::10",
        "endIp": "2001:db8::ff", "gateway": "2001:db8::1", "prefixLen": 64,
        "addressMode": "Stateful-DHCP",
    });
    let range = world.cloud.made("AddIpv6Range", six);
    let version = |more: Value| {
        let vip = world.cloud.made(CREATE, create(&world.public, more));
        let ip = world.shown(Kind::Vip, &vip)["ip"].as_str().unwrap().to_owned();
        if ip.contains(':') { 6 } else { 4 }
    };
    assert_eq!(version(json!({})), 4, "of a network with both");
    assert_eq!(version(json!({"ipVersion": 6})), 6);
    assert_eq!(version(json!({"ipRangeUuid": range})), 6);
    assert_eq!(version(json!({"requiredIp": "2001:db8::42"})), 6);
}

#[test]
fn the_address_of_a_deleted_vip_rests_and_is_given_back() {
    let world = World::new();
    let ip = json!({"requiredIp": "198.51.100.12"});
    let vip = world.cloud.made(CREATE, create(&world.public, ip.clone()));
    let row: Vip = world.cloud.get(vip.parse().unwrap()).unwrap();
    world.cloud.call("DeleteVip", json!({"uuid": vip})).unwrap();
    world.cloud.call("DeleteVip", json!({"uuid": vip})).unwrap();
    let state = world.cloud.get(row.used_ip_uuid).unwrap().state();
    assert_eq!(state, AddressState::ReleasePending);
    let again = create(&world.public, ip.clone());
    world.refused(CREATE, again.clone(), Code::OperationFailed, "requiredIp");
    world.cloud.give_up_releases();
    assert_eq!(world.cloud.get(row.used_ip_uuid), None);
    world.cloud.made(CREATE, again);
}

#[test]
fn vips_go_with_their_network_and_their_range() {
    for (message, kind) in [("DeleteL3Network", Kind::L3Network), ("DeleteIpRange", Kind::IpRange)]
    {
        let world = World::new();
        let eip = json!({"name": "e", "vipUuid": world.vip()});
        world.cloud.made("CreateEip", eip);
        let rule = json!({"name": "r", "vipUuid": world.vip(), "vipPortStart": 80,
            "protocolType": "TCP"});
        world.cloud.made("CreatePortForwardingRule", rule);
        let uuid = match kind {
            Kind::IpRange => {
                world.cloud.children(kind, "l3NetworkUuid", &world.public)["uuid"].clone()
            }
            _ => json!(world.public),
        };
        world.cloud.call(message, json!({"uuid": uuid})).unwrap();
        for kind in [Kind::Vip, Kind::Eip, Kind::PortForwardingRule, Kind::UsedIp] {
            assert_eq!(world.cloud.snapshot().total(kind), 0, "{message}: {kind:?}");
        }
    }
}

#[test]
fn a_routers_own_vip_is_not_deleted_and_keeps_some_ports() {
    let world = World::new();
    let vip = world.vip();
    world.make_system(&vip);
    world.refused("DeleteVip", json!({"uuid": vip}), Code::InvalidArgument, "uuid");
    let eip = json!({"name": "e", "vipUuid": vip});
    world.refused("CreateEip", eip, Code::OperationFailed, "vipUuid");
    let rule = |port: u16, protocol: &str| json!({"name": "r", "vipUuid": vip, "vipPortStart": port, "protocolType": protocol});
    for port in [22, 7272] {
        let message = rule(port, "TCP");
        world.refused(RULE, message, Code::InvalidArgument, "vipPortStart");
    }
    world.cloud.made(RULE, rule(22, "UDP"));
    world.cloud.made(RULE, rule(23, "TCP"));
    assert_eq!(used(&world, &vip, "TCP"), ["22-23", "7272"]);
    assert_eq!(used(&world, &vip, "UDP"), ["22"]);
}

const RULE: &str = "CreatePortForwardingRule";

fn look(world: &World, name: &str, params: Value) -> Value {
    world.cloud.look(ADMINISTRATOR, name, params).unwrap()
}

fn used(world: &World, vip: &str, protocol: &str) -> Vec<String> {
    let answer = look(world, "GetVipUsedPorts", json!({"uuid": vip, "protocol": protocol}));
    let [one] = answer["inventories"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    assert_eq!((&one["uuid"], &one["protocol"]), (&json!(vip), &json!(protocol)));
    let ports = one["usedPorts"].as_array().unwrap().iter();
    ports.map(|range| range.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_ports_of_a_vip_are_told() {
    let world = World::new();
    let vip = world.vip();
    let rule = |first: u16, last: u16| {
        let rule = json!({"name": "r", "vipUuid": vip, "vipPortStart": first, "vipPortEnd": last,
            "protocolType": "TCP"});
        world.cloud.made(RULE, rule);
    };
    assert_eq!(used(&world, &vip, "TCP"), Vec::<String>::new());
    rule(2, 9);
    rule(10, 10);
    rule(12, 20);
    rule(65000, 65535);
    assert_eq!(used(&world, &vip, "TCP"), ["2-10", "12-20", "65000-65535"]);
    assert_eq!(used(&world, &vip, "UDP"), Vec::<String>::new());
    let is_free = |port: u16, protocol: &str| {
        let params = json!({"vipUuid": vip, "port": port, "protocolType": protocol});
        look(&world, "CheckVipPortAvailability", params)["available"].as_bool().unwrap()
    };
    let tcp =
        [(1, true), (2, false), (5, false), (10, false), (11, true), (21, true), (65535, false)];
    for (port, free) in tcp {
        assert_eq!(is_free(port, "TCP"), free, "{port}");
        assert!(is_free(port, "UDP"), "{port}");
    }
    let free = |vip: &str| {
        let params = json!({"vipUuid": vip, "protocolType": "TCP"});
        let answer = look(&world, "GetVipAvailablePort", params);
        let ports = answer["availablePort"].as_array().unwrap().iter();
        ports.map(|port| port.as_u64().unwrap()).collect::<Vec<_>>()
    };
    let listed = free(&vip);
    assert_eq!((listed[..3].to_vec(), listed.len()), (vec![1, 11, 21], 1000));
    let whole = world.vip();
    world.cloud.made("CreateEip", json!({"name": "e", "vipUuid": whole}));
    assert_eq!(used(&world, &whole, "UDP"), ["1-65535"]);
    assert_eq!(free(&whole), Vec::<u64>::new());
    for (field, value) in
        [("port", json!(0)), ("port", json!(65536)), ("protocolType", json!("ICMP"))]
    {
        let mut params = json!({"vipUuid": vip, "port": 1, "protocolType": "TCP"});
        params[field] = value;
        let error =
            world.cloud.look(ADMINISTRATOR, "CheckVipPortAvailability", params).unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (Code::InvalidArgument, Some(field)));
    }
}

/// A tenant that may use the public network.
pub(crate) fn red(world: &World) -> Caller {
    let red = tenant(&world.cloud, 7);
    let share = json!({"resourceUuids": [world.public], "accountUuids": [red.account()]});
    world.cloud.call("ShareResource", share).unwrap();
    red
}

#[test]
fn an_account_has_as_many_vips_as_its_quota_says() {
    let quota = |kind: Kind| kind.def().quota.map(|quota| (quota.name, quota.default));
    assert_eq!(quota(Kind::Vip), Some(("vip.num", 20)));
    assert_eq!(quota(Kind::Eip), Some(("eip.num", 20)));
    assert_eq!(quota(Kind::PortForwardingRule), Some(("portForwarding.num", 20)));
    let world = World::new();
    let red = red(&world);
    let limit = json!({"identityUuid": red.account(), "name": "vip.num", "value": 1});
    world.cloud.call("UpdateQuota", limit).unwrap();
    let params = create(&world.public, json!({}));
    let vip = send(&world.cloud, red, CREATE, params.clone()).unwrap();
    let row: Vip = world.cloud.get(vip.parse().unwrap()).unwrap();
    let used = world.cloud.snapshot().get(Kind::UsedIp, row.used_ip_uuid.uuid()).unwrap();
    assert_eq!(used.meta.owner, red.account(), "its address is its owner's");
    let error = send(&world.cloud, red, CREATE, params).unwrap_err();
    assert_eq!(error.code, Code::QuotaExceeded);
}

#[test]
fn a_shared_vip_is_used_and_not_changed() {
    let world = World::new();
    let (red, vip) = (red(&world), world.vip());
    let eip = json!({"name": "e", "vipUuid": vip});
    let as_red = |name: &str, params: &Value| send(&world.cloud, red, name, params.clone());
    assert_eq!(as_red("CreateEip", &eip).unwrap_err().code, Code::NotFound);
    let share = json!({"resourceUuids": [vip], "accountUuids": [red.account()]});
    world.cloud.call("ShareResource", share).unwrap();
    for (name, params) in [
        ("UpdateVip", json!({"uuid": vip, "name": "x"})),
        ("ChangeVipState", json!({"uuid": vip, "stateEvent": "disable"})),
        ("DeleteVip", json!({"uuid": vip})),
    ] {
        assert_eq!(as_red(name, &params).unwrap_err().code, Code::AccessDenied, "{name}");
    }
    let eip = as_red("CreateEip", &eip).unwrap();
    let row = world.cloud.snapshot().get(Kind::Eip, eip.parse().unwrap()).unwrap();
    assert_eq!(row.meta.owner, red.account());
    let give = json!({"accountUuid": red.account(), "resourceUuid": vip});
    world.refused("ChangeResourceOwner", give.clone(), Code::InvalidArgument, "resourceUuid");
    as_red("DeleteEip", &json!({"uuid": eip})).unwrap();
    world.cloud.call("ChangeResourceOwner", give).unwrap();
}

#[test]
fn a_vip_is_renamed_disabled_and_tagged() {
    let world = World::new();
    let vip = world.vip();
    let rename = json!({"uuid": vip, "name": "other", "description": "text"});
    world.cloud.call("UpdateVip", rename).unwrap();
    world.cloud.call("ChangeVipState", json!({"uuid": vip, "stateEvent": "disable"})).unwrap();
    let shown = world.shown(Kind::Vip, &vip);
    assert_eq!(
        (&shown["name"], &shown["description"], &shown["state"]),
        (&json!("other"), &json!("text"), &json!("Disabled"))
    );
    let clear = json!({"uuid": vip, "description": null});
    world.cloud.call("UpdateVip", clear).unwrap();
    assert_eq!(world.shown(Kind::Vip, &vip).get("description"), None);
    let tag = json!({"resourceType": "VipVO", "resourceUuid": vip, "tag": "web"});
    world.cloud.made("CreateUserTag", tag);
    world.refused(
        "CreateEip",
        json!({"name": "e", "vipUuid": vip}),
        Code::OperationFailed,
        "vipUuid",
    );
    let rule = json!({"name": "r", "vipUuid": vip, "vipPortStart": 80, "protocolType": "TCP"});
    world.refused(RULE, rule, Code::OperationFailed, "vipUuid");
}

#[test]
fn the_statistic_of_a_network_has_its_vips() {
    let world = World::new();
    let vip = world.vip();
    world.cloud.made("CreateVmNic", json!({"l3NetworkUuid": world.public}));
    let ask = json!({"l3NetworkUuid": world.public, "resourceType": "VIP"});
    let answer = look(&world, "GetL3NetworkIpStatistic", ask);
    let [one] = answer["ipStatistics"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    assert_eq!((&one["vipUuid"], &one["vipName"]), (&json!(vip), &json!("vip")));
    assert_eq!(one["resourceTypes"], json!(["VIP"]));
    assert_eq!(one["ip"], world.shown(Kind::Vip, &vip)["ip"]);
}
