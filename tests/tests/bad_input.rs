//! Bad input gets an error that names field and rule, and changes nothing. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use lab::scratch::Root;
use netloom_tests::{TestLab, binary, rest::Rest, root_or_skip, uuid};
use serde_json::{Value, json};

/// Everything that can be queried.
const PATHS: [&str; 11] = [
    "/zones",
    "/clusters",
    "/hosts",
    "/l2-networks/vxlan-pool",
    "/l2-networks/vxlan-pool/vni-range",
    "/l2-networks/vteps",
    "/l2-networks/vxlan",
    "/l3-networks",
    "/l3-networks/ip-ranges",
    "/vm-instances",
    "/vm-instances/nics",
];

/// A call, the code of its error, and the field that it blames.
type Case = (&'static str, String, Value, &'static str, &'static str);

#[test]
fn every_bad_call_is_refused_by_field_and_rule_and_changes_nothing() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest().with("prefer", "handling=strict");
    let before = everything(&rest);
    let wrong: Vec<String> = cases(&rest).iter().filter_map(|case| judge(&rest, case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(everything(&rest), before, "nothing changed");
}

/// What is wrong with the answer to a bad call.
fn judge(rest: &Rest, (what, path, params, code, field): &Case) -> Option<String> {
    let answer = rest.post(path, params);
    let error = &answer.body["error"];
    let has = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let problem = if !(400..500).contains(&answer.status) || answer.code() != *code {
        format!("not the caller's fault and {code}")
    } else if error["opaque"]["field"] != *field {
        format!("does not blame {field}")
    } else if !["description", "details"].iter().all(|part| has(&error[part])) {
        "no description or details".to_owned()
    } else if !has(&error["opaque"]["rule"]) {
        "names no rule".to_owned()
    } else if !has(&error["elaboration"]) || error["elaboration"] != error["opaque"]["hint"] {
        "does not say what to do".to_owned()
    } else {
        return None;
    };
    Some(format!("{what}: {problem}: {} {}", answer.status, answer.body))
}

#[expect(clippy::too_many_lines, reason = "a uniform table")]
fn cases(rest: &Rest) -> Vec<Case> {
    let of = |path: &str, name: &str| {
        let found = rest.all(path);
        let found =
            found.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}"));
        found["uuid"].as_str().unwrap().to_owned()
    };
    let (zone, pool) = (of("/zones", "lab"), of("/l2-networks/vxlan-pool", "pool"));
    let (cluster, red) = (of("/clusters", "cluster"), of("/l3-networks", "red-l3"));
    let (red_l2, host) = (of("/l2-networks/vxlan", "red"), of("/hosts", "h1"));
    let vni = rest.all("/l2-networks/vxlan")[0]["vni"].clone();
    let ranges = format!("/l3-networks/{red}/ip-ranges");
    let vnis = format!("/l2-networks/vxlan-pool/{pool}/vni-ranges");
    let (zones, l2s) = ("/zones".to_owned(), "/l2-networks/vxlan".to_owned());
    let (vms, nics) = ("/vm-instances".to_owned(), "/nics".to_owned());
    let range = |start: &str, end: &str, gateway: &str| {
        json!({"name": "x", "startIp": start, "endIp": end, "netmask": "255.255.255.0",
            "gateway": gateway})
    };
    let bad = "SYS.1007";
    vec![
        ("no name", zones.clone(), json!({}), bad, "name"),
        ("a blank name", zones.clone(), json!({"name": " "}), bad, "name"),
        ("a long name", zones.clone(), json!({"name": "x".repeat(256)}), bad, "name"),
        ("a number as name", zones.clone(), json!({"name": 5}), bad, "name"),
        ("a name of other blanks", zones.clone(), json!({"name": "\u{2003}"}), bad, "name"),
        ("a name with nothing to see", zones.clone(), json!({"name": "\u{3164}"}), bad, "name"),
        ("a zero-width space", zones.clone(), json!({"name": "la\u{200b}b"}), bad, "name"),
        ("text turned around", zones.clone(), json!({"name": "la\u{202e}b"}), bad, "name"),
        ("an unknown field", zones.clone(), json!({"name": "z", "nmae": 1}), bad, "nmae"),
        (
            "a uuid of another form",
            zones.clone(),
            json!({"name": "z", "resourceUuid": "1-2"}),
            bad,
            "resourceUuid",
        ),
        (
            "a uuid that is taken",
            zones,
            json!({"name": "z", "resourceUuid": zone}),
            "NL.1002",
            "resourceUuid",
        ),
        (
            "no such zone",
            "/clusters".into(),
            json!({"name": "c", "zoneUuid": uuid(), "hypervisorType": "KVM"}),
            "SYS.1003",
            "zoneUuid",
        ),
        (
            "an unknown word",
            "/clusters".into(),
            json!({"name": "c", "zoneUuid": zone, "hypervisorType": "Xen"}),
            bad,
            "hypervisorType",
        ),
        (
            "a host at a bad address",
            "/hosts/kvm".into(),
            json!({"name": "h", "clusterUuid": cluster, "managementIp": "10.0.0"}),
            bad,
            "managementIp",
        ),
        (
            "a VNI that is taken",
            l2s.clone(),
            json!({"name": "n", "poolUuid": pool, "vni": vni}),
            "L2.1001",
            "vni",
        ),
        (
            "a VNI as text",
            l2s.clone(),
            json!({"name": "n", "poolUuid": pool, "vni": "7"}),
            bad,
            "vni",
        ),
        (
            "a VNI too large",
            l2s.clone(),
            json!({"name": "n", "poolUuid": pool, "vni": 16_777_215}),
            bad,
            "vni",
        ),
        (
            "a VNI outside the pool",
            l2s,
            json!({"name": "n", "poolUuid": pool, "vni": 5000}),
            bad,
            "vni",
        ),
        (
            "overlapping VNIs",
            vnis.clone(),
            json!({"name": "v", "startVni": 150, "endVni": 250}),
            bad,
            "startVni",
        ),
        (
            "VNIs the wrong way round",
            vnis,
            json!({"name": "v", "startVni": 9, "endVni": 8}),
            bad,
            "endVni",
        ),
        (
            "an overlapping range",
            ranges.clone(),
            range("10.0.0.50", "10.0.0.120", "10.0.0.1"),
            bad,
            "startIp",
        ),
        (
            "another gateway",
            ranges.clone(),
            range("10.0.0.150", "10.0.0.160", "10.0.0.2"),
            bad,
            "gateway",
        ),
        (
            "a gateway inside",
            ranges.clone(),
            range("10.0.0.150", "10.0.0.160", "10.0.0.155"),
            bad,
            "gateway",
        ),
        (
            "an end below the start",
            ranges.clone(),
            range("10.0.0.160", "10.0.0.150", "10.0.0.1"),
            bad,
            "endIp",
        ),
        (
            "an end outside the subnet",
            ranges.clone(),
            range("10.0.0.150", "10.0.1.9", "10.0.0.1"),
            bad,
            "endIp",
        ),
        (
            "IPv6 where IPv4 is wanted",
            ranges,
            range("fd00::5", "fd00::9", "fd00::1"),
            bad,
            "startIp",
        ),
        (
            "an address that is taken",
            nics.clone(),
            json!({"l3NetworkUuid": red, "ip": "10.0.0.11"}),
            "L3.1000",
            "ip",
        ),
        (
            "an address outside the ranges",
            nics,
            json!({"l3NetworkUuid": red, "ip": "10.0.0.200"}),
            bad,
            "ip",
        ),
        (
            "a VM without networks",
            vms.clone(),
            json!({"name": "v", "l3NetworkUuids": []}),
            bad,
            "l3NetworkUuids",
        ),
        (
            "a network twice",
            vms.clone(),
            json!({"name": "v", "l3NetworkUuids": [red, red], "hostUuid": host}),
            bad,
            "l3NetworkUuids",
        ),
        (
            "a network of another kind",
            vms,
            json!({"name": "v", "l3NetworkUuids": [red_l2]}),
            "SYS.1003",
            "l3NetworkUuids",
        ),
    ]
}

/// What a host reports, and what is made of it.
const REPORTED: [&str; 13] = [
    "status",
    "state",
    "statusSince",
    "synced",
    "digests",
    "watermark",
    "versions",
    "maps",
    "drops",
    "traffic",
    "vteps",
    "uplinks",
    "devices",
];

/// All that the API shows. When a host reports is its own business, so that is left out.
fn everything(rest: &Rest) -> BTreeMap<&'static str, Vec<Value>> {
    let mut shown = BTreeMap::new();
    for path in PATHS {
        let mut found = rest.all(path);
        for one in found.iter_mut().filter_map(Value::as_object_mut) {
            REPORTED.iter().for_each(|field| drop(one.remove(*field)));
        }
        shown.insert(path, found);
    }
    shown
}

/// Field case F31, through the door; by many at once in `crates/control`.
#[test]
fn a_full_range_gives_no_address_and_takes_none() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let pool = rest.all("/l2-networks/vxlan-pool")[0]["uuid"].clone();
    let (l2, l3) = (uuid(), uuid());
    let made = [
        rest.post(
            "/l2-networks/vxlan",
            &json!({"name": "s", "poolUuid": pool, "resourceUuid": l2}),
        ),
        rest.post("/l3-networks", &json!({"name": "s", "l2NetworkUuid": l2, "resourceUuid": l3})),
        rest.post(
            &format!("/l3-networks/{l3}/ip-ranges"),
            &json!({"name": "s", "startIp": "10.8.0.2", "endIp": "10.8.0.4",
                "netmask": "255.255.255.0", "gateway": "10.8.0.1"}),
        ),
    ];
    assert!(made.iter().all(|answer| answer.status == 200), "{made:?}");
    for _ in 0..3 {
        assert_eq!(rest.post("/nics", &json!({"l3NetworkUuid": l3})).status, 200);
    }
    let before = everything(&rest);
    let full = rest.post("/nics", &json!({"l3NetworkUuid": l3}));
    assert_eq!((full.status, full.code()), (409, "L3.1000"), "{full:?}");
    assert_eq!(everything(&rest), before);
}

#[test]
fn a_caller_without_a_session_or_with_a_wrong_one_is_told_which() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    lab.client();
    let nobody = Rest::new(&lab.url(), None);
    let without = nobody.send("GET", "/zones", "").unwrap();
    assert_eq!(without.status, 400, "{without:?}");
    let stranger = Rest::new(&lab.url(), Some(&uuid()));
    let expired = stranger.send("GET", "/zones", "").unwrap();
    assert_eq!((expired.status, expired.code()), (503, "ID.1001"), "{expired:?}");
    let body = json!({"logInByAccount": {"accountName": "admin", "password": "0".repeat(128)}});
    let wrong = nobody.send("PUT", "/accounts/login", &body.to_string()).unwrap();
    assert_eq!((wrong.status, wrong.code()), (503, "ID.1000"), "{wrong:?}");
    let broken = lab.rest().send("POST", "/zones", "{").unwrap();
    assert_eq!(broken.status, 400, "{broken:?}");
}

#[test]
fn a_server_that_cannot_start_says_what_to_do() {
    if !root_or_skip() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let root = Root::new().unwrap();
    let output = serve(&root.path().join("data"), &port);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&port) && text.contains("--listen"), "{text}");
    // Not even root makes directories there.
    let output = serve(Path::new("/proc/netloom"), "127.0.0.1:0");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("/proc/netloom") && text.contains("--data"), "{text}");
}

/// Field case F30: twice on one data directory, or on one bpffs.
#[test]
fn a_second_server_or_agent_on_the_same_files_is_refused_with_what_to_do() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let server = serve(&lab.data("server"), "127.0.0.1:0");
    let mut agent = Command::new(binary());
    agent.arg("agent").arg("--data").arg(lab.data("h1"));
    agent.arg("--bpffs").arg(lab.data("h1").join("bpf")).args(["--prefix", "nl-other"]);
    let agent = lab.namespace("h1").run_in(|| agent.output()).unwrap().unwrap();
    let cases = [
        (server, ["netloom.db is open in another process", "stop that one"]),
        (agent, ["another netloom agent", "stop it first"]),
    ];
    for (output, parts) in cases {
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    lab.settle(&["h1", "h2"]);
    lab.check();
}

fn serve(data: &Path, listen: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(["server", "--listen", listen, "--link-listen", "127.0.0.1:0", "--data"]);
    command.arg(data).output().unwrap()
}
