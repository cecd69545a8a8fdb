//! The protocol before REST, as `apibinding/api.py` of zstackio/zstack-utility and
//! `zstack_mcp/zstack_client.py` of the PyPI package zstack-mcp-server 0.1.7 speak it.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::time::Duration;

use netloom_api::Limits;
use serde_json::{Value, json};
use support::{PASSWORD, Running};

/// A client that does what both of them do.
struct Old<'a> {
    running: &'a Running,
    agent: ureq::Agent,
    session: Value,
}

impl<'a> Old<'a> {
    fn new(running: &'a Running) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)));
        Self { running, agent: config.build().into(), session: Value::Null }
    }

    fn http(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.running.address))
            .header("Content-Type", "application/json")
            .body(body.to_owned());
        let answer = self.agent.run(request.unwrap()).unwrap();
        let status = answer.status().as_u16();
        let text = answer.into_body().read_to_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Calls a message; gives the class of the event or reply, and what is in it.
    fn call(&self, class: &str, mut fields: Value) -> (String, Value) {
        if !self.session.is_null() {
            fields["session"] = json!({"uuid": self.session});
        }
        let (status, mut answer) =
            self.http("POST", "/zstack/api/", &json!({class: fields}).to_string());
        assert_eq!(status, 200, "{class}: {answer}");
        while answer["state"] != "Done" {
            assert_eq!(answer["state"], "Processing", "{answer}");
            let path = format!("/zstack/api/result/{}", answer["uuid"].as_str().unwrap());
            answer = self.http("GET", &path, "").1;
        }
        let result: Value = serde_json::from_str(answer["result"].as_str().unwrap()).unwrap();
        let (class, event) = result.as_object().unwrap().iter().next().unwrap();
        (class.clone(), event.clone())
    }

    fn done(&self, class: &str, fields: Value) -> Value {
        let (_, event) = self.call(class, fields);
        assert_eq!(event["success"], true, "{class}: {event}");
        event
    }

    fn made(&self, class: &str, fields: Value) -> String {
        self.done(class, fields)["inventory"]["uuid"].as_str().unwrap().to_owned()
    }

    fn log_in(&mut self) {
        let digest = control::account::client_digest(PASSWORD);
        let fields = json!({"accountName": "admin", "password": digest});
        let class = "org.zstack.header.identity.APILogInByAccountMsg";
        self.session = Value::Null;
        self.session = self.made(class, fields).into();
    }
}

#[test]
fn a_network_is_built_found_and_taken_away() {
    let running = Running::start(Limits::default());
    let mut old = Old::new(&running);
    old.log_in();
    // Python's classes have all fields, `None` where nothing was said, and a timeout in ms.
    let nothing = json!({
        "name": "z", "description": null, "resourceUuid": null, "userTags": null,
        "systemTags": null, "timeout": 1_800_000,
    });
    let (class, event) = old.call("org.zstack.header.zone.APICreateZoneMsg", nothing);
    assert_eq!(class, "org.zstack.header.zone.APICreateZoneEvent");
    let zone = event["inventory"]["uuid"].as_str().unwrap().to_owned();
    let fields = json!({"name": "c", "zoneUuid": zone, "hypervisorType": "KVM"});
    let cluster = old.made("org.zstack.header.cluster.APICreateClusterMsg", fields);
    let pools = "org.zstack.network.l2.vxlan.vxlanNetworkPool";
    let fields = json!({"name": "p", "zoneUuid": zone});
    let pool = old.made(&format!("{pools}.APICreateL2VxlanNetworkPoolMsg"), fields);
    // zstack-cli sends numbers as text.
    let fields = json!({"name": "r", "startVni": "1", "endVni": "9", "l2NetworkUuid": pool});
    old.done(&format!("{pools}.APICreateVniRangeMsg"), fields);
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.30.0.0/24}}");
    let fields = json!({"l2NetworkUuid": pool, "clusterUuid": cluster, "systemTags": [tag]});
    old.done("org.zstack.header.network.l2.APIAttachL2NetworkToClusterMsg", fields);
    let fields = json!({"name": "l2", "poolUuid": pool});
    let l2 =
        old.made("org.zstack.network.l2.vxlan.vxlanNetwork.APICreateL2VxlanNetworkMsg", fields);
    let fields = json!({"name": "l3", "l2NetworkUuid": l2});
    let l3 = old.made("org.zstack.header.network.l3.APICreateL3NetworkMsg", fields);
    let fields = json!({
        "l3NetworkUuid": l3, "name": "r", "startIp": "10.0.0.10", "endIp": "10.0.0.20",
        "netmask": "255.255.255.0",
    });
    old.done("org.zstack.header.network.l3.APIAddIpRangeMsg", fields);

    let query = "org.zstack.header.network.l3.APIQueryL3NetworkMsg";
    for (conditions, more, total) in [
        (json!([]), json!({}), 1),
        (json!([{"name": "name", "op": "=", "value": "l3"}]), json!({}), 1),
        (json!([{"name": "name", "op": "in", "value": "l2,l3"}]), json!({"limit": "5"}), 1),
        (json!([{"name": "name", "op": "not in", "value": ["l3"]}]), json!({}), 0),
        (json!([{"name": "description", "op": "is null", "value": ""}]), json!({"start": 0}), 1),
        (json!([{"name": "l2Network.name", "op": "like", "value": "l_"}]), json!({}), 1),
    ] {
        let mut fields = json!({"conditions": conditions, "replyWithCount": true});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (class, reply) = old.call(query, fields);
        assert_eq!(class, "org.zstack.header.network.l3.APIQueryL3NetworkReply");
        assert_eq!(
            (&reply["success"], &reply["total"]),
            (&json!(true), &json!(total)),
            "{conditions}"
        );
        assert_eq!(reply["inventories"].as_array().unwrap().len(), total);
    }
    let counted = json!({"conditions": [], "count": 1, "sortBy": "name", "sortDirection": "desc"});
    assert_eq!(old.done(query, counted)["total"], 1);
    let filtered = old.done(query, json!({"conditions": [], "filterName": "a:b"}));
    assert!(filtered["messages"][0].as_str().unwrap().contains("filterName"), "{filtered}");
    let zql = json!({"zql": "query l3network.name where name = 'l3' or name = 'x'"});
    let found = old.done("org.zstack.query.APIZQLQueryMsg", zql);
    assert_eq!(found["results"], json!([{"inventories": [{"name": "l3"}]}]));

    let gone = old.done("org.zstack.header.zone.APIDeleteZoneMsg", json!({"uuid": zone}));
    assert_eq!(gone, json!({"success": true}));
}

#[test]
fn errors_are_in_the_result() {
    let running = Running::start(Limits::default());
    let mut old = Old::new(&running);
    let code = |(_, event): (String, Value)| {
        assert_eq!(event["success"], false, "{event}");
        event["error"]["code"].as_str().unwrap().to_owned()
    };
    let zone = "org.zstack.header.zone.APICreateZoneMsg";
    let query = "org.zstack.header.zone.APIQueryZoneMsg";
    assert_eq!(code(old.call(zone, json!({"name": "z"}))), "ID.1001");
    assert_eq!(code(old.call(query, json!({"conditions": []}))), "ID.1001");
    old.session = "f".repeat(32).into();
    assert_eq!(code(old.call(query, json!({"conditions": []}))), "ID.1001");
    let login = "org.zstack.header.identity.APILogInByAccountMsg";
    let wrong = json!({"accountName": "admin", "password": "0"});
    assert_eq!(code(old.call(login, wrong)), "ID.1000", "an old session keeps nobody out");
    old.log_in();
    for (class, fields) in [
        (zone, json!({})),
        (zone, json!({"name": "z", "isDefault": "perhaps"})),
        ("org.zstack.header.APINothingMsg", json!({})),
        ("org.zstack.header.APIQueryNothingMsg", json!({})),
        (query, json!({"conditions": [{"name": "colour", "op": "=", "value": "red"}]})),
        (query, json!({"conditions": [{"name": "name", "op": "~", "value": "red"}]})),
        (query, json!({"conditions": [{"op": "=", "value": "red"}]})),
        (query, json!({"limit": "x"})),
    ] {
        assert_eq!(code(old.call(class, fields.clone())), "SYS.1007", "{class} {fields}");
    }
    let (class, refused) = old.call(
        "org.zstack.header.cluster.APICreateClusterMsg",
        json!({"name": "c", "zoneUuid": "f".repeat(32), "hypervisorType": "KVM"}),
    );
    assert_eq!(class, "org.zstack.header.cluster.APICreateClusterEvent");
    assert_eq!(refused["error"]["code"], "SYS.1003");
}

#[test]
fn what_is_no_request_is_told_by_its_status() {
    let running = Running::start(Limits::default());
    let old = Old::new(&running);
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"a": 1}"#,
        r#"{"x.APIaMsg": {}, "y.APIbMsg": {}}"#,
        r#"{"APIaMsg": {}}"#,
    ] {
        let (status, text) = old.http("POST", "/zstack/api", body);
        assert_eq!(status, 400, "{body}: {text}");
    }
    let long = format!(r#"{{"x.APIaMsg": {{"a": "{}"}}}}"#, "x".repeat(70_000));
    assert_eq!(old.http("POST", "/zstack/api", &long).0, 413);
    assert_eq!(old.http("GET", "/zstack/api", "").0, 405);
    for uuid in ["0", &"f".repeat(32)] {
        assert_eq!(old.http("GET", &format!("/zstack/api/result/{uuid}"), "").0, 404);
    }
}

#[test]
fn a_job_that_waits_is_polled_under_its_event() {
    let running = Running::start(Limits::default());
    let mut old = Old::new(&running);
    old.log_in();
    let zone = old.made("org.zstack.header.zone.APICreateZoneMsg", json!({"name": "z"}));
    // A job of another caller's choice is not found here: knowing its uuid proves nothing.
    let client = running.log_in();
    let session = client.session().unwrap();
    let job = "0123456789abcdef0123456789abcdef";
    let request = ureq::http::Request::builder()
        .method("DELETE")
        .uri(format!("http://{}/v1/zones/{zone}", running.address))
        .header("authorization", format!("OAuth {session}"))
        .header("x-job-uuid", job);
    assert_eq!(old.agent.run(request.body(String::new()).unwrap()).unwrap().status(), 202);
    assert_eq!(old.http("GET", &format!("/zstack/api/result/{job}"), "").0, 404);
    // One that the server drew is, with the class that ZStack gives the event.
    let request = ureq::http::Request::builder()
        .method("POST")
        .uri(format!("http://{}/v1/l2-networks/vxlan-pool", running.address))
        .header("authorization", format!("OAuth {session}"));
    let zone = old.made("org.zstack.header.zone.APICreateZoneMsg", json!({"name": "y"}));
    let body = json!({"params": {"name": "p", "zoneUuid": zone}}).to_string();
    let mut accepted = old.agent.run(request.body(body).unwrap()).unwrap();
    let accepted: Value = accepted.body_mut().read_json().unwrap();
    let job = accepted["location"].as_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
    let (_, answer) = old.http("GET", &format!("/zstack/api/result//{job}"), "");
    let class = "org.zstack.network.l2.vxlan.vxlanNetworkPool.APICreateL2VxlanNetworkPoolEvent";
    assert!(answer["result"].as_str().unwrap().contains(class), "{answer}");
}
