//! `/openapi.json` says the truth: real answers are what its schemas say, and its page asks nobody
//! else.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::time::Duration;

use netloom_api::Limits;
use serde_json::{Value, json};
use support::Running;

struct Asked {
    status: u16,
    headers: ureq::http::HeaderMap,
    text: String,
}

impl Asked {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text))
    }
}

struct Sender<'a> {
    running: &'a Running,
    agent: ureq::Agent,
    session: String,
}

impl Sender<'_> {
    fn new(running: &Running) -> Sender<'_> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)));
        let session = running.log_in().session().unwrap().to_owned();
        Sender { running, agent: config.build().into(), session }
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Asked {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.running.address))
            .header("authorization", format!("OAuth {}", self.session))
            .header("x-json-schema", "true")
            .header("prefer", "wait=30");
        let answer = self.agent.run(request.body(body.to_owned()).unwrap()).unwrap();
        let (parts, body) = answer.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        let text = body.into_with_config().read_to_string().unwrap();
        Asked { status, headers, text }
    }
}

/// The document, and how it judges answers.
struct Judge(Value);

impl Judge {
    /// Checks an answer against the schema of the operation.
    fn check(&self, method: &str, path: &str, asked: &Asked) {
        let operation = &self.0["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not in the document");
        let mut answer = &operation["responses"][asked.status.to_string()];
        if let Value::String(to) = &answer["$ref"] {
            answer = self.0.pointer(&to[1..]).unwrap();
        }
        let mut whole = answer["content"]["application/json"]["schema"].clone();
        assert!(whole.is_object(), "{method} {path}: {} is not foreseen", asked.status);
        whole["components"] = self.0["components"].clone();
        let validator = jsonschema::validator_for(&whole).unwrap();
        let body = asked.json();
        let wrong: Vec<String> =
            validator.iter_errors(&body).map(|e| format!("{}: {e}", e.instance_path)).collect();
        assert!(wrong.is_empty(), "{method} {path}: {wrong:#?}\n{body:#}");
    }
}

#[test]
fn answers_are_what_the_document_says() {
    let running = Running::start(Limits::default());
    let sender = Sender::new(&running);
    let judge = Judge(sender.send("GET", "/openapi.json", "").json());
    let post = |path: &str, template: &str, params: Value| {
        let answer = sender.send("POST", &format!("/zstack/v1{path}"), &params.to_string());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        judge.check("POST", template, &answer);
        answer.json()["inventory"]["uuid"].as_str().unwrap().to_owned()
    };
    let create = |path: &str, params: Value| post(path, path, json!({"params": params}));
    let zone = create("/zones", json!({"name": "z", "description": "d"}));
    let kvm = json!({"name": "c", "zoneUuid": zone, "hypervisorType": "KVM", "shade": 1});
    let cluster = create("/clusters", kvm);
    create(
        "/hosts/kvm",
        json!({"name": "h", "managementIp": "172.30.0.1", "clusterUuid": cluster}),
    );
    let pool = create("/l2-networks/vxlan-pool", json!({"name": "p", "zoneUuid": zone}));
    let vnis = json!({"params": {"name": "r", "startVni": 1, "endVni": 9}});
    let template = "/l2-networks/vxlan-pool/{l2NetworkUuid}/vni-ranges";
    post(&format!("/l2-networks/vxlan-pool/{pool}/vni-ranges"), template, vnis);
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.30.0.0/24}}");
    let template = "/l2-networks/{l2NetworkUuid}/clusters/{clusterUuid}";
    let path = format!("/l2-networks/{pool}/clusters/{cluster}");
    post(&path, template, json!({"systemTags": [tag]}));
    let l2 = create("/l2-networks/vxlan", json!({"name": "l2", "poolUuid": pool}));
    let l3 = create("/l3-networks", json!({"name": "l3", "l2NetworkUuid": l2}));
    let range = json!({"params": {
        "name": "r", "startIp": "10.0.0.10", "endIp": "10.0.0.20", "netmask": "255.255.255.0",
    }});
    let template = "/l3-networks/{l3NetworkUuid}/ip-ranges";
    post(&format!("/l3-networks/{l3}/ip-ranges"), template, range);
    create("/accounts", json!({"name": "a", "password": "0".repeat(128)}));
    create("/user-tags", json!({"resourceType": "ZoneVO", "resourceUuid": zone, "tag": "t"}));
    let vm = json!({"params": {"name": "vm", "l3NetworkUuids": [l3]}}).to_string();
    // No host is connected, so that is a refusal with the status of its code.
    let refused = sender.send("POST", "/zstack/v1/vm-instances", &vm);
    assert_eq!(refused.status, 409);
    let failure =
        json!({"$ref": "#/components/schemas/Failure", "components": judge.0["components"]});
    assert!(jsonschema::is_valid(&failure, &refused.json()), "{}", refused.text);

    let (mut asked, mut found) = (0, 0);
    for (path, methods) in judge.0["paths"].as_object().unwrap() {
        let id = methods["get"]["operationId"].as_str().unwrap_or_default();
        if !id.starts_with("Query") || path.contains('{') {
            continue;
        }
        let answer = sender.send("GET", &format!("/zstack/v1{path}?replyWithCount=true"), "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        judge.check("GET", path, &answer);
        asked += 1;
        found += usize::from(answer.json()["total"] != 0);
    }
    assert!(asked >= 20 && found >= 14, "{asked} asked, {found} have something to show");
    judge.check("GET", "/zones", &sender.send("GET", "/v1/zones?q=colour=red", ""));
}

#[test]
fn the_page_and_the_document_need_no_session_and_nobody_else() {
    let running = Running::start(Limits::default());
    let mut sender = Sender::new(&running);
    sender.session = "nobody".to_owned();
    for (path, kind, within) in [
        ("/", "text/html", "/docs/try.js"),
        ("/docs", "text/html", "/docs/try.js"),
        ("/docs/try.js", "text/javascript", "/openapi.json"),
        ("/docs/try.css", "text/css", "display"),
        ("/openapi.json", "application/json", "\"openapi\":\"3.1.0\""),
    ] {
        let answer = sender.send("GET", path, "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with(kind), "{path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        assert!(answer.text.contains(within), "{path}");
        let elsewhere = ["http://", "https://", "innerHTML", "eval("];
        let strange = elsewhere
            .iter()
            .find(|word| kind != "application/json" && answer.text.contains(**word));
        assert_eq!(strange, None, "{path}");
    }
}
