//! Requests as ZStack's own clients send them, byte for byte: method, path, headers and body.
//!
//! The Go SDK's are as `pkg/client/zstack_http_client.go` of terraform-zstack-modules/zstack-sdk-go
//! makes them, the Java SDK's as `ZSClient.java` of zstackio/zstack does.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::time::Duration;

use netloom_api::Limits;
use serde_json::{Value, json};
use support::{PASSWORD, Running};

/// An answer: status and body.
type Answer = (u16, Value);

/// A client that sends what it is told to send.
struct Sender<'a> {
    running: &'a Running,
    agent: ureq::Agent,
    /// What it has in every request.
    headers: Vec<(&'static str, String)>,
}

impl<'a> Sender<'a> {
    fn new(running: &'a Running) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)));
        Self { running, agent: config.build().into(), headers: Vec::new() }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let uri = format!("http://{}{path}", self.running.address);
        let mut request = ureq::http::Request::builder().method(method).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.agent.run(request.body(body.to_owned()).unwrap()).unwrap();
        let status = answer.status().as_u16();
        let text = answer.into_body().read_to_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A write as both SDKs do it: 202, then polls of the location cut at the literal that the Go SDK
    /// cuts it at.
    fn write(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Value {
        let (status, accepted) = self.send(method, path, headers, body);
        assert_eq!(status, 202, "{method} {path} {body}: {accepted}");
        let location = accepted["location"].as_str().unwrap();
        let at = location.find("/zstack/v1/api-jobs").unwrap();
        let (status, result) = self.send("GET", &location[at..], headers, "");
        assert_eq!(status, 200, "{method} {path} {body}: {result}");
        result
    }
}

fn digest() -> String {
    control::account::client_digest(PASSWORD)
}

fn uuid_of(result: &Value) -> String {
    result["inventory"]["uuid"].as_str().unwrap().to_owned()
}

#[test]
fn the_go_sdk_builds_a_network_and_takes_it_away() {
    let running = Running::start(Limits::default());
    let mut go = Sender::new(&running);
    go.headers.push(("Content-Type", "application/json".to_owned()));
    let login =
        format!(r#"{{"logInByAccount":{{"accountName":"admin","password":"{}"}}}}"#, digest());
    let (status, session) = go.send("PUT", "/zstack/v1/accounts/login", &[], &login);
    assert_eq!(status, 200, "{session}");
    let session = uuid_of(&session);
    go.headers.push(("Authorization", format!("OAuth {session}")));
    let valid = go.send("GET", &format!("/zstack/v1/accounts/sessions/{session}/valid"), &[], "");
    assert_eq!((valid.0, &valid.1["valid"]), (200, &json!(true)));

    let post = |path: &str, body: Value| go.write("POST", path, &[], &body.to_string());
    // `omitempty` is not on every field of its structs: empty tags and nulls come along.
    let zone = uuid_of(&post("/zstack/v1/zones", json!({"params": {"name": "z"}})));
    let body = json!({
        "systemTags": null, "userTags": null,
        "params": {"name": "c", "zoneUuid": zone, "hypervisorType": "KVM", "hypervisorVersion": ""},
    });
    let cluster = post("/zstack/v1/clusters", body);
    let passed_over = cluster["messages"][0].as_str().unwrap().to_owned();
    assert!(passed_over.contains("hypervisorVersion"), "{passed_over}");
    let cluster = uuid_of(&cluster);
    let pool = json!({"params": {"name": "p", "zoneUuid": zone}});
    let pool = uuid_of(&post("/zstack/v1/l2-networks/vxlan-pool", pool));
    let vnis = json!({"params": {"name": "r", "startVni": 1, "endVni": 9}});
    post(&format!("/zstack/v1/l2-networks/vxlan-pool/{pool}/vni-ranges"), vnis);
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.30.0.0/24}}");
    let attach = format!("/zstack/v1/l2-networks/{pool}/clusters/{cluster}");
    post(&attach, json!({"systemTags": [tag]}));
    let l2 = json!({"params": {"name": "l2", "poolUuid": pool}});
    let l2 = uuid_of(&post("/zstack/v1/l2-networks/vxlan", l2));
    let l3 = json!({"params": {"name": "l3", "l2NetworkUuid": l2, "category": "Private"}});
    let l3 = uuid_of(&post("/zstack/v1/l3-networks", l3));
    let range = json!({"params": {
        "name": "r", "startIp": "10.0.0.10", "endIp": "10.0.0.20", "netmask": "255.255.255.0",
    }});
    let range = uuid_of(&post(&format!("/zstack/v1/l3-networks/{l3}/ip-ranges"), range));

    // GetZone writes the slash twice; ListAll pages with start and limit.
    for path in [format!("/zstack/v1/zones//{zone}"), format!("/zstack/v1/zones/{zone}/")] {
        let (status, found) = go.send("GET", &path, &[], "");
        assert_eq!((status, &found["inventories"][0]["name"]), (200, &json!("z")), "{found}");
    }
    let all = "/zstack/v1/l3-networks?limit=50&replyWithCount=true&start=0";
    let (status, found) = go.send("GET", all, &[], "");
    assert_eq!((status, &found["total"]), (200, &json!(1)));
    assert_eq!(found["inventories"][0]["ipRanges"][0]["uuid"], range.as_str());

    for path in [
        format!("/zstack/v1/l3-networks/{l3}?deleteMode="),
        format!("/zstack/v1/l2-networks/{l2}?deleteMode=Permissive"),
        format!("/zstack/v1/zones/{zone}?deleteMode=Enforcing"),
        format!("/zstack/v1/zones/{zone}?deleteMode="),
    ] {
        assert_eq!(go.write("DELETE", &path, &[], ""), json!({}), "{path}");
    }
    let out =
        go.send("DELETE", &format!("/zstack/v1/accounts/sessions/{session}?deleteMode="), &[], "");
    assert_eq!(out.0, 200, "{}", out.1);
}

#[test]
fn the_java_sdk_has_tags_among_the_fields_and_learns_classes() {
    let running = Running::start(Limits::default());
    let mut java = Sender::new(&running);
    java.headers.push(("Content-Type", "application/json; charset=utf-8".to_owned()));
    java.headers.push(("X-JSON-Schema", "true".to_owned()));
    let login = json!({"logInByAccount": {"password": digest(), "accountName": "admin"}});
    let job = [("X-Job-UUID", "00000000000000000000000000000001")];
    let (status, session) = java.send("PUT", "/v1/accounts/login", &job, &login.to_string());
    assert_eq!(status, 200, "{session}");
    let session = uuid_of(&session);
    java.headers.push(("Authorization", format!("OAuth {session}")));
    let jobs = std::cell::Cell::new(1);
    let write = |method: &str, path: &str, body: &str| {
        jobs.set(jobs.get() + 1);
        let job = format!("{:032}", jobs.get());
        java.write(method, path, &[("X-Job-UUID", &job)], body)
    };
    let post = |path: &str, body: Value| write("POST", path, &body.to_string());

    let tagged = json!({"params": {"name": "z", "userTags": ["mine"]}});
    let zone = post("/v1/zones", tagged);
    assert_eq!(zone["schema"], json!({"inventory": "org.zstack.header.zone.ZoneInventory"}));
    let zone = uuid_of(&zone);
    let cluster = json!({"params": {"zoneUuid": zone, "hypervisorType": "KVM", "name": "c"}});
    let cluster = uuid_of(&post("/v1/clusters", cluster));
    let pool = json!({"params": {"zoneUuid": zone, "name": "p"}});
    let pool = uuid_of(&post("/v1/l2-networks/vxlan-pool", pool));
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.30.0.0/24}}");
    let attach = format!("/v1/l2-networks/{pool}/clusters/{cluster}");
    let attached =
        post(&attach, json!({"null": {"systemTags": [tag], "l2ProviderType": "LinuxBridge"}}));
    assert_eq!(attached["inventory"]["attachedClusterUuids"], json!([cluster]));
    assert!(attached["messages"][0].as_str().unwrap().contains("l2ProviderType"), "{attached}");

    let get = |path: &str| java.send("GET", path, &[], "").1;
    let found =
        get(&format!("/v1/l2-networks?q=zoneUuid%3D{zone}&q=attachedClusterUuids%20not%20null"));
    let class = "org.zstack.network.l2.vxlan.vxlanNetworkPool.L2VxlanNetworkPoolInventory";
    assert_eq!(found["schema"]["inventories[0]"], class, "{found}");
    let found = get("/v1/zones?q=__userTag__%3Dmine&sort=%2Bname&limit=10&limit=0");
    assert_eq!(found["inventories"][0]["uuid"], zone.as_str(), "{found}");
    assert!(found["messages"][0].as_str().unwrap().contains("twice"), "it sends start as limit");

    let gone = write("DELETE", &format!("/v1/zones/{zone}?deleteMode=Permissive"), "");
    assert_eq!(gone, json!({}));
}

#[test]
fn what_is_not_known_is_passed_over_and_named_or_refused_if_the_caller_is_strict() {
    let running = Running::start(Limits::default());
    let mut sender = Sender::new(&running);
    let session = running.log_in().session().unwrap().to_owned();
    sender.headers.push(("Authorization", format!("OAuth {session}")));
    let body = r#"{"params": {"name": "z", "colour": "red", "isDefault": "true"}, "shade": 1}"#;
    let made = sender.write("POST", "/v1/zones", &[], body);
    assert_eq!(
        (&made["inventory"]["name"], &made["inventory"]["isDefault"]),
        (&json!("z"), &json!(true))
    );
    let messages = made["messages"].as_array().unwrap();
    let named = |word: &str| messages.iter().any(|text| text.as_str().unwrap().contains(word));
    assert!(messages.len() == 2 && named("colour") && named("shade"), "{messages:?}");
    for (body, field) in [
        (r#"{"params": {"name": "y", "colour": "red"}}"#, "colour"),
        (r#"{"params": {"name": "y", "isDefault": "true"}}"#, "isDefault"),
        (r#"{"params": {"name": "y"}, "shade": 1}"#, "shade"),
    ] {
        let strict = [("Prefer", "handling=strict, wait=30")];
        let (status, refused) = sender.send("POST", "/v1/zones", &strict, body);
        assert_eq!(status, 400, "the status of the code, not ZStack's 503: {refused}");
        assert_eq!(refused["error"]["opaque"]["field"], field, "{refused}");
    }
    let many: String = (0..100).map(|n| format!(r#", "f{n}": 1"#)).collect();
    let made =
        sender.write("POST", "/v1/zones", &[], &format!(r#"{{"params": {{"name": "x"{many}}}}}"#));
    let messages = made["messages"].as_array().unwrap();
    assert_eq!((messages.len(), &messages[19]), (20, &json!("and 81 more")));
    // The same where an answer comes at once, and for a query.
    let (_, valid) =
        sender.send("GET", &format!("/v1/accounts/sessions/{session}/valid?a=b"), &[], "");
    assert!(valid["messages"][0].as_str().unwrap().contains("field a"), "{valid}");
    let (_, found) = sender.send("GET", "/v1/zones?filterName=x:y", &[], "");
    assert!(found["messages"][0].as_str().unwrap().contains("filterName"), "{found}");
    assert_eq!(found["inventories"].as_array().unwrap().len(), 2);
}

#[test]
fn a_write_that_waits_has_its_result_or_the_status_of_its_error() {
    let running = Running::start(Limits::default());
    let mut sender = Sender::new(&running);
    let session = running.log_in().session().unwrap().to_owned();
    sender.headers.push(("Authorization", format!("OAuth {session}")));
    let wait = [("Prefer", "wait=30"), ("X-JSON-Schema", "true")];
    let (status, made) = sender.send("POST", "/v1/zones", &wait, r#"{"params": {"name": "z"}}"#);
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["schema"]["inventory"], "org.zstack.header.zone.ZoneInventory");
    let nowhere =
        json!({"params": {"name": "c", "zoneUuid": "f".repeat(32), "hypervisorType": "KVM"}});
    let (status, refused) = sender.send("POST", "/v1/clusters", &wait, &nowhere.to_string());
    assert_eq!((status, &refused["error"]["code"]), (404, &json!("SYS.1003")));
    let (status, refused) = sender.send("POST", "/v1/zones", &wait, r#"{"params": {}}"#);
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("SYS.1007")));
}

#[test]
fn what_is_no_request_has_the_status_that_zstack_gives_it() {
    let running = Running::start(Limits::default());
    let mut sender = Sender::new(&running);
    let session = running.log_in().session().unwrap().to_owned();
    sender.headers.push(("Authorization", format!("OAuth {session}")));
    for (method, path, expected, says) in [
        ("GET", "/v1/nothing", 404, "nothing is here"),
        ("GET", "/v1//nothing", 404, "nothing is here"),
        ("GET", "//nothing//", 404, "nothing is here"),
        ("PATCH", "/v1/zones", 405, "method"),
        ("DELETE", "/v1/api-jobs/00000000000000000000000000000001", 405, "method"),
        ("GET", "/v1/zones?q=name", 400, "has no operator"),
        ("DELETE", "/v1/zones/1?deleteMode=Permissive&deleteMode=Enforcing", 400, "several values"),
    ] {
        let (status, text) = sender.send(method, path, &[], "");
        let text = text.as_str().unwrap();
        assert!(status == expected && text.contains(says), "{method} {path}: {status} {text}");
    }
}

#[test]
fn path_variables_override_the_body() {
    let running = Running::start(Limits::default());
    let mut sender = Sender::new(&running);
    let session = running.log_in().session().unwrap().to_owned();
    sender.headers.push(("Authorization", format!("OAuth {session}")));
    let zone = |name: &str| {
        uuid_of(&sender.write(
            "POST",
            "/v1/zones",
            &[],
            &json!({"params": {"name": name}}).to_string(),
        ))
    };
    let (first, second) = (zone("a"), zone("b"));
    let body = json!({"updateZone": {"uuid": second, "name": "c"}}).to_string();
    let changed = sender.write("PUT", &format!("/v1/zones/{first}/actions"), &[], &body);
    assert_eq!(uuid_of(&changed), first);
}
