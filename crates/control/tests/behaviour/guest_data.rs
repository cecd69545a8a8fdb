//! What instances may read: user data, keys and names; and what operators add to DHCP.

use model::{
    Code, Kind, Resource, Timestamp,
    resource::{
        dhcp_option::DhcpOption, guest_data::GuestData, tag::SystemTag, vm_instance::VmInstance,
    },
    status::LeaseSeen,
};
use serde_json::{Value, json};
use store::Read;

use crate::{
    harness::{ADMINISTRATOR, Cloud},
    l3::shown,
};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@home";

fn look(cloud: &Cloud, message: &str, vm: &str) -> Value {
    cloud.look(ADMINISTRATOR, message, json!({"uuid": vm})).unwrap()
}

fn made(cloud: &Cloud, params: Value, tags: &[&str]) -> String {
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let reply = cloud.call_tagged("CreateVmInstance", params, &tags).unwrap();
    reply.subject.unwrap().1.simple().to_string()
}

fn refusal(cloud: &Cloud, params: Value, tags: &[&str]) -> (Code, Option<String>, String) {
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let error = cloud.call_tagged("CreateVmInstance", params, &tags).unwrap_err();
    (error.code, error.field.clone(), error.to_string())
}

fn tags(cloud: &Cloud) -> Vec<String> {
    let mut tags: Vec<_> =
        cloud.contents().iter().filter_map(SystemTag::of).map(|t| t.tag.clone()).collect();
    tags.sort_unstable();
    tags
}

fn data(cloud: &Cloud) -> Vec<GuestData> {
    cloud.contents().iter().filter_map(GuestData::of).cloned().collect()
}

/// User data of so many bytes, in base64: three become four letters.
fn base64(triples: usize) -> String {
    "YWJj".repeat(triples)
}

#[test]
fn user_data_comes_with_the_making_or_later_and_goes_with_the_instance() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let params = json!({"name": "vm", "l3NetworkUuids": [l3]});
    let long = base64(65_535 / 3);
    let all = [format!("userdata::{long}"), format!("sshkey::{KEY}")];
    let tagged: Vec<&str> = all.iter().map(String::as_str).collect();
    let vm = made(&cloud, params, &tagged);
    assert_eq!(look(&cloud, "GetVmUserdata", &vm), json!({"userdata": long}));
    assert_eq!(look(&cloud, "GetVmSshKey", &vm), json!({"sshKey": KEY}));
    assert_eq!(tags(&cloud), [format!("sshkey::{KEY}")], "user data is no tag");

    cloud.call("SetVmUserdata", json!({"uuid": vm, "userdata": "aGk="})).unwrap();
    assert_eq!(look(&cloud, "GetVmUserdata", &vm), json!({"userdata": "aGk="}));
    cloud.call("DeleteVmUserdata", json!({"uuid": vm})).unwrap();
    cloud.call("DeleteVmUserdata", json!({"uuid": vm})).unwrap();
    assert_eq!(look(&cloud, "GetVmUserdata", &vm), json!({}));
    cloud.call("DeleteVmSshKey", json!({"uuid": vm})).unwrap();
    assert_eq!((data(&cloud), tags(&cloud)), (vec![], vec![]), "no row without anything in it");

    cloud.call("SetVmSshKey", json!({"uuid": vm, "SshKey": KEY})).unwrap();
    assert_eq!(data(&cloud).len(), 1);
    cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    assert_eq!(data(&cloud).len(), 1, "it may be recovered");
    cloud.call("ExpungeVmInstance", json!({"uuid": vm})).unwrap();
    assert_eq!((data(&cloud), tags(&cloud)), (vec![], vec![]));
}

#[test]
fn a_key_is_a_tag_too_whichever_way_it_came() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let tag = |key: &str| {
        json!({
            "resourceType": "VmInstanceVO", "resourceUuid": vm, "tag": format!("sshkey::{key}"),
        })
    };
    let made = cloud.made("CreateSystemTag", tag(KEY));
    assert_eq!(look(&cloud, "GetVmSshKey", &vm), json!({"sshKey": KEY}));
    assert_eq!(cloud.refusal("CreateSystemTag", tag("ssh-rsa AAAA")).0, Code::OperationFailed);
    let other = json!({"uuid": made, "tag": "sshkey::ssh-rsa AAAA"});
    cloud.call("UpdateSystemTag", other).unwrap();
    assert_eq!(look(&cloud, "GetVmSshKey", &vm), json!({"sshKey": "ssh-rsa AAAA"}));
    cloud.call("SetVmSshKey", json!({"uuid": vm, "SshKey": KEY})).unwrap();
    assert_eq!(tags(&cloud), [format!("sshkey::{KEY}")]);
    cloud.call("DeleteTag", json!({"uuid": made})).unwrap();
    assert_eq!(look(&cloud, "GetVmSshKey", &vm), json!({}));
}

#[test]
fn what_is_too_long_or_no_such_thing_is_refused_and_changes_nothing() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let before = cloud.contents();
    let user_data =
        |text: &str| ("SetVmUserdata", json!({"uuid": vm, "userdata": text}), "userdata");
    let key = |text: &str| ("SetVmSshKey", json!({"uuid": vm, "SshKey": text}), "SshKey");
    let name = |text: &str| ("SetVmHostname", json!({"uuid": vm, "hostname": text}), "hostname");
    let cases = [
        user_data("#cloud-config"),
        user_data(""),
        user_data(&base64(65_537 / 3 + 1)),
        user_data(&base64(60_000)),
        key("-----BEGIN OPENSSH PRIVATE KEY-----"),
        key(&format!("ssh-rsa {}", "A".repeat(2040))),
        name("bücher"),
        name(&"a".repeat(64)),
        name(&"a.".repeat(200)),
        name("-a"),
    ];
    for (message, params, field) in cases {
        let (code, seen, text) = cloud.refusal(message, params);
        assert_eq!((code, seen.as_deref()), (Code::InvalidArgument, Some(field)), "{text}");
        assert!(text.len() < 1000, "{text}");
    }
    let made = json!({"name": "other", "l3NetworkUuids": [l3]});
    for tag in ["userdata::#cloud-config", "sshkey::tea", "userdata::"] {
        let (code, field, text) = refusal(&cloud, made.clone(), &[tag]);
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("systemTags")), "{text}");
    }
    let twice = ["userdata::aGk=", "userdata::YQ=="];
    assert_eq!(refusal(&cloud, made, &twice).0, Code::InvalidArgument);
    let later =
        json!({"resourceType": "VmInstanceVO", "resourceUuid": vm, "tag": "userdata::aGk="});
    let (_, _, text) = cloud.refusal("CreateSystemTag", later);
    assert!(text.contains("SetVmUserdata"), "{text}");
    let now: Vec<_> =
        cloud.contents().into_iter().filter(|row| row.kind() != Kind::Audit).collect();
    let before: Vec<_> = before.into_iter().filter(|row| row.kind() != Kind::Audit).collect();
    assert_eq!(now, before);
}

#[test]
fn p27_a_hostname_is_there_by_tag_and_belongs_to_one_instance_of_a_network() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let params = |name: &str| json!({"name": name, "l3NetworkUuids": [l3]});
    let vm = made(&cloud, params("vm"), &["hostname::web"]);
    let vm = cloud.get::<VmInstance>(vm.parse().unwrap()).unwrap();
    assert_eq!(vm.hostname.as_deref(), Some("web"));
    let taken = refusal(&cloud, params("other"), &["hostname::WEB"]);
    assert_eq!(taken.1.as_deref(), Some("systemTags"), "{}", taken.2);
}

fn options(cloud: &Cloud, kind: Kind, uuid: &str) -> Vec<(u64, String)> {
    let shown = shown(cloud, kind, uuid);
    let options = shown["dhcpOptions"].as_array().unwrap().iter();
    options
        .map(|it| (it["code"].as_u64().unwrap(), it["value"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn operators_add_options_of_dhcp_to_networks_and_nics() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    let set = |options: Value| json!({"l3NetworkUuid": l3, "options": options});
    let two = json!([
        {"name": "tftp-server", "value": "10.0.0.5"},
        {"name": 67, "value": "pxelinux.0", "ipVersion": 4},
    ]);
    cloud.call("SetL3NetworkDhcpOptions", set(two.clone())).unwrap();
    let expected = [(66, "10.0.0.5".to_owned()), (67, "pxelinux.0".to_owned())];
    assert_eq!(options(&cloud, Kind::L3Network, &l3), expected);
    let before = cloud.contents();
    let rows = |contents: &[model::Record]| -> Vec<_> {
        contents.iter().filter(|row| row.kind() == Kind::DhcpOption).cloned().collect()
    };
    cloud.call("SetL3NetworkDhcpOptions", set(two)).unwrap();
    assert_eq!(rows(&cloud.contents()), rows(&before), "nothing has changed");

    let of_nic = json!({"vmNicUuid": nic, "options": [{"name": "66", "value": "10.0.0.6"}]});
    cloud.call("SetVmNicDhcpOptions", of_nic).unwrap();
    assert_eq!(options(&cloud, Kind::VmNic, &nic), [(66, "10.0.0.6".to_owned())]);
    cloud.call("SetL3NetworkDhcpOptions", set(json!([]))).unwrap();
    assert_eq!(options(&cloud, Kind::L3Network, &l3), []);
    cloud.call("DeleteVmNic", json!({"uuid": nic})).unwrap();
    assert_eq!(cloud.contents().iter().filter_map(DhcpOption::of).count(), 0);
}

#[test]
fn an_option_that_netloom_computes_or_that_nobody_can_read_is_refused() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let many: Vec<_> = (200..233).map(|code| json!({"name": code, "value": "x"})).collect();
    let cases = [
        json!([{"name": "3", "value": "10.0.0.1"}]),
        json!([{"name": 121, "value": "hex:00"}]),
        json!([{"name": 23, "value": "fd00::53", "ipVersion": 6}]),
        json!([{"name": "tea", "value": "x"}]),
        json!([{"name": 300, "value": "x"}]),
        json!([{"name": "ntp-server", "value": "time.example.org"}]),
        json!([{"name": 66, "value": "x".repeat(256)}]),
        json!([{"name": 66, "value": ""}]),
        json!([{"name": 66}]),
        json!([{"name": 66, "value": "x", "ipVersion": 5}]),
        json!([{"name": 66, "value": "x", "tea": 1}]),
        json!([{"name": 66, "value": "x"}, {"name": "tftp-server", "value": "y"}]),
        json!(["tea"]),
        json!(many),
    ];
    for options in cases {
        let params = json!({"l3NetworkUuid": l3, "options": options});
        let (code, field, text) = cloud.refusal("SetL3NetworkDhcpOptions", params);
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("options")), "{text}");
    }
    assert_eq!(cloud.snapshot().total(Kind::DhcpOption), 0);
}

#[test]
fn a_setting_of_guests_is_of_its_sort() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let set = |category: &str, name: &str, value: &str| json!({"category": category, "name": name, "value": value});
    cloud.call("UpdateGlobalConfig", set("metadata", "vendorData", "#cloud-config")).unwrap();
    let long = "x".repeat(16_385);
    for (category, name, value) in [
        ("dhcp", "leaseTime", "59"),
        ("dhcp", "slaacAddresses", "all"),
        ("metadata", "token", "yes"),
        ("metadata", "vendorData", &long),
    ] {
        let (code, field, _) = cloud.refusal("UpdateGlobalConfig", set(category, name, value));
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("value")), "{name}");
    }
    let mut own = set("dhcp", "leaseTime", "3600");
    own["resourceUuid"] = json!(l3);
    cloud.call("UpdateResourceConfig", own).unwrap();
}

fn told(cloud: &Cloud, nic: &str) -> Value {
    cloud.look(ADMINISTRATOR, "GetVmNicTold", json!({"vmNicUuid": nic})).unwrap()
}

fn attach(cloud: &Cloud, l3: &str, services: &[&str]) {
    let flat = model::resource::network_service::ProviderType::Flat.provider().to_string();
    let params = json!({"l3NetworkUuid": l3, "networkServices": {flat: services}});
    cloud.call("AttachNetworkServiceToL3Network", params).unwrap();
}

#[test]
fn what_a_client_will_be_told_is_asked_for_by_nic() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let params = json!({"name": "vm", "l3NetworkUuids": [l3]});
    let vm = made(&cloud, params, &["hostname::web", &format!("staticIp::{l3}::10.0.0.11")]);
    let nic = cloud.nics(&vm)[0].uuid.to_string();
    assert!(told(&cloud, &nic)["why"].as_str().unwrap().contains("DHCP"));
    attach(&cloud, &l3, &["DHCP", "Userdata"]);
    cloud.call("AddDnsToL3Network", json!({"l3NetworkUuid": l3, "dns": "10.0.0.53"})).unwrap();
    let now = told(&cloud, &nic);
    assert_eq!(now["services"], json!(["DHCP", "Userdata"]));
    assert_eq!((&now["hostname"], &now["isDefault"]), (&json!("web"), &json!(true)));
    assert_eq!(now["dns"], json!(["10.0.0.53"]));
    let address = json!({
        "ip": "10.0.0.11", "prefixLen": 24, "gateway": "10.0.0.1", "l3NetworkUuid": l3, "by": "DHCP",
    });
    assert_eq!(now["addresses"], json!([address]));
    let server =
        cloud.look(ADMINISTRATOR, "GetL3NetworkDhcpIpAddress", json!({"l3NetworkUuid": l3}));
    assert_eq!(now["servers"][0]["ip"], server.unwrap()["ip"]);

    assert_eq!((&now["slaacAddresses"], &now["notInEffect"]), (&json!("Assigned"), &Value::Null));
    let any = json!({"category": "dhcp", "name": "slaacAddresses", "value": "Any"});
    cloud.call("UpdateGlobalConfig", any).unwrap();
    let now = told(&cloud, &nic);
    assert!(now["notInEffect"].as_str().unwrap().contains("EUI-64"), "nothing without effect");

    // Live: the next renewal carries what has changed.
    let free = if now["servers"][0]["ip"] == "10.0.0.12" { "10.0.0.10" } else { "10.0.0.12" };
    let moved = json!({"vmInstanceUuid": vm, "l3NetworkUuid": l3, "ip": free});
    cloud.call("SetVmStaticIp", moved).unwrap();
    assert_eq!(told(&cloud, &nic)["addresses"].as_array().unwrap().len(), 1, "q03: one answer");
    assert_eq!(told(&cloud, &nic)["addresses"][0]["ip"], free);
    cloud.call("SetL3NetworkMtu", json!({"l3NetworkUuid": l3, "mtu": 1400})).unwrap();
}

/// What a host has heard of a guest last is shown with what that will be told, and a guest that has found
/// somebody else at its address is trouble.
#[test]
fn what_a_client_has_asked_last_is_shown() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    attach(&cloud, &l3, &["DHCP"]);
    let vm = made(&cloud, json!({"name": "vm", "l3NetworkUuids": [l3]}), &[]);
    let nic = cloud.nics(&vm).remove(0);
    let (id, host) = (nic.uuid, nic.host_uuid.unwrap());
    assert_eq!(told(&cloud, &id.to_string())["asked"], json!([]));
    let mut heard = |kind| {
        let ip = "10.0.0.11".parse().unwrap();
        let (at, address, hostname) = (Timestamp(0), Some(ip), Some("box".to_owned()));
        let seen = LeaseSeen { at, kind, address, hostname, client_id: vec![1, 0xab] };
        let mut status = cloud.board.status(host).clone();
        let key = (id.uuid(), false);
        let before = status.leases.get(&key).map_or(Vec::new(), |seen| seen.to_vec());
        status.leases.insert(key, before.into_iter().chain([seen]).collect());
        cloud.board.put(host, status);
        let shown = shown(&cloud, Kind::VmNic, &id.to_string());
        (
            told(&cloud, &id.to_string())["asked"].clone(),
            shown.get("notInEffect").cloned().unwrap_or_default(),
        )
    };
    let (asked, trouble) = heard("leased");
    let expected = json!([{
        "ipVersion": 4, "date": "Jan 1, 1970 12:00:00 AM", "outcome": "leased", "ip": "10.0.0.11",
        "hostname": "box", "clientId": "01ab",
    }]);
    assert_eq!((asked, trouble), (expected, Value::Null));
    let (asked, trouble) = heard("declined");
    assert_eq!(
        (asked.as_array().map(Vec::len), &asked[0]["outcome"]),
        (Some(1), &json!("declined"))
    );
    let events = told(&cloud, &id.to_string())["events"].clone();
    assert_eq!(
        (&events[0]["outcome"], &events[1]["outcome"]),
        (&json!("leased"), &json!("declined"))
    );
    let trouble = trouble.as_str().unwrap_or_default();
    assert!(trouble.contains("10.0.0.11") && trouble.contains("SetVmStaticIp"), "{trouble}");
}

#[test]
fn q07_only_the_default_nic_is_told_of_router_and_name_servers() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (red, blue) = (cloud.l3(&fixture, "red"), cloud.l3(&fixture, "blue"));
    for l3 in [&red, &blue] {
        attach(&cloud, l3, &["DHCP"]);
        cloud.call("AddDnsToL3Network", json!({"l3NetworkUuid": l3, "dns": "10.0.0.53"})).unwrap();
    }
    let params = json!({
        "name": "vm", "l3NetworkUuids": [red, blue], "defaultL3NetworkUuid": blue,
    });
    let vm = cloud.made("CreateVmInstance", params);
    for nic in cloud.nics(&vm) {
        let is_default = nic.l3_network_uuid.to_string() == blue;
        let now = told(&cloud, &nic.uuid.to_string());
        assert_eq!(now["isDefault"], json!(is_default));
        assert_eq!(now["dns"].as_array().unwrap().is_empty(), !is_default);
        assert_eq!(now["addresses"][0]["gateway"].is_null(), !is_default);
    }
}

#[test]
fn p25_reboot_stop_and_start_change_nothing_that_is_told() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    attach(&cloud, &l3, &["DHCP", "DNS", "Userdata"]);
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let nic = cloud.nics(&vm)[0].uuid.to_string();
    let before = told(&cloud, &nic);
    assert_eq!(before["services"], json!(["DHCP", "Userdata", "DNS"]));
    assert_eq!(
        before["dns"],
        json!([before["servers"][0]["ip"]]),
        "hosts answer at DHCP's address"
    );
    for message in ["RebootVmInstance", "StopVmInstance", "StartVmInstance"] {
        cloud.call(message, json!({"uuid": vm})).unwrap();
        assert_eq!(told(&cloud, &nic), before, "{message}");
    }
}
