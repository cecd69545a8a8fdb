//! The native door over real HTTP: sessions, jobs, errors, queries.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use client::{Client, Error};
use model::status::HostStatus;
use netloom_api::Limits;
use serde_json::{Map, Value, json};
use support::Running;

/// What only these tests ask of it.
impl Running {
    fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A request as it is, without the client's help: status and body.
    fn raw(&self, request: ureq::http::Request<String>) -> (u16, String) {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent: ureq::Agent =
            config.timeout_global(Some(Duration::from_secs(30))).build().into();
        let answer = agent.run(request).unwrap();
        (answer.status().as_u16(), answer.into_body().read_to_string().unwrap())
    }

    fn post(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let session = self.log_in().session().unwrap().to_owned();
        let mut request = ureq::http::Request::builder()
            .method("POST")
            .uri(format!("{}{path}", self.base()))
            .header("authorization", format!("OAuth {session}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.raw(request.body(body.to_owned()).unwrap())
    }

    fn get_as(&self, client: &Client, path: &str) -> (u16, String) {
        let request = ureq::http::Request::get(format!("{}{path}", self.base()))
            .header("authorization", format!("OAuth {}", client.session().unwrap()));
        self.raw(request.body(String::new()).unwrap())
    }

    /// All hosts are connected and have confirmed what they were told up to `revision`.
    fn connect_hosts(&self, client: &Client, revision: u64) {
        let hosts = client.query("/hosts", &[]).unwrap();
        self.board.send_modify(|board| {
            for host in &hosts {
                let status =
                    HostStatus { connected: true, confirmed: true, ..HostStatus::default() };
                board.put(host["uuid"].as_str().unwrap().parse().unwrap(), status);
            }
            board.revision = revision;
        });
    }

    fn get(&self, path: &str) -> (u16, String) {
        let request = ureq::http::Request::get(format!("{}{path}", self.base()));
        self.raw(request.body(String::new()).unwrap())
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn made(client: &Client, message: &str, params: Value) -> String {
    let answer = client.call(message, object(params), &[]).unwrap();
    answer["inventory"]["uuid"].as_str().unwrap().to_owned()
}

#[test]
fn a_zone_is_made_shown_and_deleted() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let answer = client.call("CreateZone", object(json!({"name": "z"})), &[]).unwrap();
    let zone = &answer["inventory"];
    assert_eq!(zone["name"], "z");
    assert_eq!(zone["createDate"], "Nov 14, 2017 10:20:57 PM");
    assert!(zone.get("description").is_none(), "empty fields are left out");
    let uuid = zone["uuid"].as_str().unwrap();
    assert_eq!(client.query("/zones", &["name~=%z%".into()]).unwrap().len(), 1);
    assert_eq!(client.query("/zones", &[format!("uuid={uuid}")]).unwrap().len(), 1);
    client.call("DeleteZone", object(json!({"uuid": uuid})), &[]).unwrap();
    assert!(client.query("/zones", &[]).unwrap().is_empty());
}

#[test]
fn a_post_is_answered_by_a_job_that_its_owner_can_poll_and_others_only_if_they_could_not_guess_it()
{
    let running = Running::start(Limits::default());
    let job = "0123456789abcdef0123456789abcdef";
    let body = r#"{"params": {"name": "z"}, "userTags": ["mine"]}"#;
    let (status, text) = running.post("/v1/zones", body, &[("X-Job-UUID", job)]);
    assert_eq!(status, 202, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    let location = answer["location"].as_str().unwrap();
    assert!(location.ends_with(&format!("/zstack/v1/api-jobs/{job}")), "{location}");
    assert_eq!(answer["apiTimeout"], 1_800_000);
    let own = format!("/zstack/v1/api-jobs/{job}");
    let (status, text) = running.get_as(&running.log_in(), &own);
    assert!(status == 200 && text.contains("\"inventory\""), "{status} {text}");
    assert_eq!(running.get(&own).0, 404, "its caller chose the uuid: it proves nothing");
    let (_, text) = running.post("/v1/zones", body, &[]);
    let drawn: Value = serde_json::from_str(&text).unwrap();
    let drawn = drawn["location"].as_str().unwrap();
    let (status, text) = running.get(&drawn[drawn.find("/zstack").unwrap()..]);
    assert!(status == 200 && text.contains("\"inventory\""), "{status} {text}");
    let (status, text) = running.post("/v1/zones", body, &[("X-Job-UUID", job)]);
    assert_eq!(status, 400, "the same job again: {text}");
    assert_eq!(running.get("/v1/api-jobs/ffffffffffffffffffffffffffffffff").0, 404);
}

#[test]
fn a_refusal_shows_on_the_job_with_field_rule_and_hint() {
    let running = Running::start(Limits::default());
    let cases = [
        (r#"{"params": {"name": 7}}"#, "SYS.1007", "name"),
        (r#"{"params": {"name": "z", "colour": "red"}}"#, "SYS.1007", "colour"),
        (r#"{"params": {"name": "z"}, "colour": "red"}"#, "SYS.1007", "colour"),
        (r#"{"params": {}}"#, "SYS.1007", "name"),
        (r#"{"params": {"name": "z", "resourceUuid": "x"}}"#, "SYS.1007", "resourceUuid"),
        (r#"{"params": {"name": "z"}, "systemTags": ["a::b"]}"#, "SYS.1007", "systemTags"),
    ];
    for (body, code, field) in cases {
        let strict = [("Prefer", "handling=strict")];
        let (status, text) = running.post("/v1/zones", body, &strict);
        assert_eq!(status, 202, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let location = answer["location"].as_str().unwrap();
        let (status, text) = running.get(&location[location.find("/zstack").unwrap()..]);
        assert_eq!(status, 503, "{text}");
        let error: Value = serde_json::from_str(&text).unwrap();
        let error = &error["error"];
        assert_eq!((&error["code"], &error["opaque"]["field"]), (&json!(code), &json!(field)));
        assert!(error["details"].is_string() && error["opaque"]["rule"].is_string(), "{text}");
    }
    assert!(running.log_in().query("/zones", &[]).unwrap().is_empty());
}

#[test]
fn broken_requests_are_told_in_plain_text() {
    let running = Running::start(Limits::default());
    assert_eq!(running.post("/v1/zones", "{", &[]).0, 400);
    assert_eq!(running.post("/v1/zones", r#"{"createZone": {}}"#, &[]).0, 400);
    assert_eq!(running.post("/v1/zones", r#"{"params": {}}"#, &[("X-Job-UUID", "short")]).0, 400);
    assert_eq!(running.post("/v1/nothing", "{}", &[]).0, 404);
    let twice = r#"{"params": {"name": "a", "name": "b"}}"#;
    let (status, text) = running.post("/v1/zones", twice, &[]);
    assert!(status == 400 && text.contains("\"name\" is there twice"), "{text}");
    let fine = r#"{"params": {"name": "z"}}"#;
    for (header, value, says) in [
        ("X-API-Timeout", "soon", "1 to 86400"),
        ("X-API-Timeout", "0", "1 to 86400"),
        ("Prefer", "wait=long", "0 to 3600"),
        ("Prefer", "wait=86400", "0 to 3600"),
    ] {
        let (status, text) = running.post("/v1/zones", fine, &[(header, value)]);
        assert!(status == 400 && text.contains(says), "{header}: {value}: {status} {text}");
    }
    assert!(running.log_in().query("/zones", &[]).unwrap().is_empty());
    let (status, text) = running.get("/v1/zones");
    assert_eq!(status, 400, "no Authorization: {text}");
}

#[test]
fn strangers_are_refused_before_their_body_is_read() {
    let running = Running::start(Limits::default());
    let first_line = |head: &str| {
        let mut stream = TcpStream::connect(running.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    };
    // None of these sends the body that it promises.
    let body = "Content-Length: 1000000";
    let no_header = format!("POST /v1/zones HTTP/1.1\r\nHost: x\r\n{body}");
    assert!(first_line(&no_header).contains(" 400 "));
    let no_session = format!("{no_header}\r\nAuthorization: OAuth nobody");
    assert!(first_line(&no_session).contains(" 503 "));
    let login = format!("PUT /v1/accounts/login HTTP/1.1\r\nHost: x\r\n{body}");
    assert!(first_line(&format!("{login}\r\n\r\n{}", "x".repeat(9_000))).contains(" 413 "));
}

#[test]
fn sessions_are_needed_checked_and_closed() {
    let running = Running::start(Limits::default());
    let mut stranger = Client::new(&running.base());
    let refused = stranger.log_in("admin", "wrong").unwrap_err();
    assert!(matches!(refused, Error::Refused { ref code, .. } if code == "ID.1000"), "{refused}");
    let refused = stranger.log_in("nobody", "wrong").unwrap_err();
    assert!(matches!(refused, Error::Refused { ref code, .. } if code == "ID.1000"), "{refused}");
    let client = running.log_in();
    let session = client.session().unwrap().to_owned();
    let valid = |session: &str| {
        let params = object(json!({"sessionUuid": session}));
        client.call("ValidateSession", params, &[]).unwrap()["valid"].clone()
    };
    assert_eq!(valid(&session), json!(true));
    client.call("LogOut", object(json!({"sessionUuid": session})), &[]).unwrap();
    assert_eq!(valid(&session), json!(false));
    let refused = client.query("/zones", &[]).unwrap_err();
    assert!(matches!(refused, Error::Refused { ref code, .. } if code == "ID.1001"), "{refused}");
}

#[test]
fn pages_after_a_uuid_show_each_living_one_once_while_others_are_deleted() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let mut living = BTreeSet::new();
    for n in 0..230 {
        let made = made(&client, "CreateZone", json!({"name": format!("z{n}")}));
        living.insert(made);
    }
    let page = |after: &str, more: &[(&str, &str)]| -> Value {
        let mut pairs = vec![("limit".to_owned(), "50".to_owned())];
        if !after.is_empty() {
            pairs.push(("after".to_owned(), after.to_owned()));
        }
        pairs.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        client.query_pairs("/zones", &pairs).unwrap()
    };
    let (mut seen, mut last) = (Vec::new(), String::new());
    loop {
        let answer = page(&last, &[("q", "name~=z%"), ("replyWithCount", "true")]);
        assert_eq!(answer["total"], living.len(), "all that meet the conditions");
        let found = answer["inventories"].as_array().unwrap();
        let Some(end) = found.last() else { break };
        assert_eq!(answer["inventories"], page(&last, &[])["inventories"]);
        seen.extend(found.iter().map(|zone| zone["uuid"].as_str().unwrap().to_owned()));
        last = end["uuid"].as_str().unwrap().to_owned();
        // The last one seen, which the next page comes after, and the first one of all.
        for gone in [last.clone(), living.first().unwrap().clone()] {
            client.call("DeleteZone", object(json!({"uuid": gone})), &[]).unwrap();
            living.remove(&gone);
        }
    }
    let once: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "none is shown twice");
    assert!(living.is_subset(&once), "none is missed");
    for wrong in [("sort", "name"), ("start", "1")] {
        let pairs = [("after".to_owned(), last.clone()), (wrong.0.into(), wrong.1.into())];
        let refused = client.query_pairs("/zones", &pairs).unwrap_err().to_string();
        assert!(refused.contains("neither start nor sort"), "{refused}");
    }
}

#[test]
fn queries_filter_sort_page_and_count() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    for name in ["b", "a", "c"] {
        made(&client, "CreateZone", json!({"name": name, "description": format!("zone {name}")}));
    }
    let query = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        client.query_pairs("/zones", &pairs)
    };
    let names = |answer: &Value| -> Vec<String> {
        let found = answer["inventories"].as_array().unwrap().iter();
        found.map(|zone| zone["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&query(&[("sort", "+name")]).unwrap()), ["a", "b", "c"]);
    assert_eq!(names(&query(&[("sort", "-name"), ("limit", "1"), ("start", "1")]).unwrap()), ["b"]);
    assert_eq!(names(&query(&[("q", "name?=a,c"), ("q", "name!=a")]).unwrap()), ["c"]);
    let counted = query(&[("count", "true"), ("q", "name>a")]).unwrap();
    assert_eq!(counted, json!({"total": 2}));
    let some = query(&[("fields", "name"), ("q", "name=a"), ("replyWithCount", "true")]).unwrap();
    assert_eq!(some, json!({"inventories": [{"name": "a"}], "total": 1}));
    let odd = [
        ("q", "colour=red"),
        ("q", "createDate>yesterday"),
        ("limit", "x"),
        ("limit", "-1"),
        ("count", "maybe"),
        ("sort", "colour"),
        ("fields", "name,colour"),
        ("filter", "x"),
        ("q", "uuid=nonsense"),
        ("limit", ""),
        ("start", "1.5"),
        ("after", "1"),
        ("replyWithCount", "1"),
    ];
    for bad in odd {
        let refused = query(&[bad]).unwrap_err();
        let Error::Refused { code, field, hint, .. } = refused else {
            panic!("{bad:?}: {refused}")
        };
        assert!(hint.is_some(), "{bad:?}: {code}");
        assert_eq!((code.as_str(), field.as_deref()), ("SYS.1007", Some(bad.0)), "{bad:?}");
    }
}

#[test]
fn a_uuid_is_understood_in_each_form_and_everywhere() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let plain = "0123456789abcdef0123456789abcdef";
    let dashed = "01234567-89AB-CDEF-0123-456789abcdef";
    let zone = made(&client, "CreateZone", json!({"name": "z", "resourceUuid": dashed}));
    assert_eq!(zone, plain, "shown in one form");
    let cluster = json!({"name": "c", "zoneUuid": dashed, "hypervisorType": "KVM"});
    made(&client, "CreateCluster", cluster);
    let session = client.session().unwrap();
    let session = session.to_uppercase();
    let get = |path: &str| {
        let request = ureq::http::Request::get(format!("{}{path}", running.base()))
            .header("authorization", format!("OAuth {session}"));
        running.raw(request.body(String::new()).unwrap())
    };
    for path in [
        format!("/v1/zones/{dashed}"),
        format!("/v1/zones?q=uuid={dashed}"),
        format!("/v1/clusters?q=zoneUuid={dashed}"),
    ] {
        let (status, text) = get(&path);
        assert!(status == 200 && text.contains(plain), "{path}: {text}");
    }
    let job = "AAAAAAAA-0000-0000-0000-00000000000A";
    let body = r#"{"params": {"name": "y"}}"#;
    assert_eq!(running.post("/v1/zones", body, &[("X-Job-UUID", job)]).0, 202);
    for form in [job, &job.replace('-', "").to_lowercase()] {
        assert_eq!(get(&format!("/v1/api-jobs/{form}")).0, 200);
    }
    let (status, text) = get("/v1/zones/nonsense");
    assert!(status == 503 && text.contains("is not a uuid") && text.contains("hint"), "{text}");
    let (status, text) = get(&format!("/v1/zones/{}", "f".repeat(32)));
    assert_eq!((status, text.as_str()), (200, r#"{"inventories":[],"schema":{}}"#));
    client
        .call(
            "DeleteCluster",
            object(json!({"uuid": client.query("/clusters", &[]).unwrap()[0]["uuid"]})),
            &[],
        )
        .unwrap();
    client.call("DeleteZone", object(json!({"uuid": dashed})), &[]).unwrap();
}

/// Field case F35: a name is stored as it is given, or refused with the rule; and found again, by
/// REST and as the command line asks.
#[test]
fn a_name_is_kept_as_it_is_and_found_again_or_refused_with_the_rule() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let (longest, longest_wide) = ("x".repeat(255), "\u{7f51}".repeat(255));
    let kept = [
        "W\u{fc}rfel \u{df} \u{e9}",
        "\u{7f51}\u{7edc}\u{4e00}",
        "\u{1f5a7} \u{1f680}",
        " spaces around ",
        "\"double\" 'single'",
        "100%",
        "%",
        "_",
        "a=b",
        "=",
        "a&b",
        "a?=b",
        "a,b",
        "a/b\\c",
        "#;+:@",
        "name is null",
        "null",
        &longest,
        &longest_wide,
    ];
    let uuids = kept.map(|name| made(&client, "CreateZone", json!({"name": name})));
    for (name, uuid) in kept.into_iter().zip(&uuids) {
        let pairs = [("q".to_owned(), format!("name={name}"))];
        let by_rest = client.query_pairs("/zones", &pairs).unwrap()["inventories"].clone();
        let by_word = client.query("/zones", &[format!("name={name}")]).unwrap();
        for found in [by_rest.as_array().unwrap(), &by_word] {
            let found: Vec<_> = found.iter().map(|zone| (&zone["name"], &zone["uuid"])).collect();
            assert_eq!(found, [(&json!(name), &json!(uuid))], "{name}");
        }
    }
    let refused = [
        ("", "blank"),
        ("  ", "blank"),
        ("a\tb", "U+0009"),
        ("a\nb", "U+000A"),
        ("\u{2601}\u{fe0f}", "U+FE0F"),
        (&"x".repeat(256), "255 characters"),
        (&"\u{7f51}".repeat(256), "255 characters"),
    ];
    for (name, rule) in refused {
        let error = client.call("CreateZone", object(json!({"name": name})), &[]).unwrap_err();
        let text = error.to_string();
        let Error::Refused { code, field, .. } = error else { panic!("{name}: {text}") };
        assert_eq!((code.as_str(), field.as_deref()), ("SYS.1007", Some("name")), "{text}");
        assert!(text.contains(rule), "{text}");
    }
    assert_eq!(client.query("/zones", &[]).unwrap().len(), kept.len());
}

#[test]
fn every_shown_field_can_be_chosen_and_lists_are_asked_for_their_items() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    two_hosts(&client);
    let query = |path: &str, pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        client.query_pairs(path, &pairs).unwrap()["inventories"].as_array().unwrap().clone()
    };
    for path in ["/l2-networks/vxlan-pool", "/l2-networks/vxlan", "/l3-networks", "/hosts"] {
        let whole = query(path, &[]).remove(0);
        for field in whole.as_object().unwrap().keys() {
            let one = query(path, &[("fields", field.as_str())]).remove(0);
            assert_eq!(one, json!({field.as_str(): whole[field]}), "{path}");
        }
    }
    let cluster = query("/clusters", &[])[0]["uuid"].as_str().unwrap().to_owned();
    for (operator, expected) in [("=", 1), ("!=", 0), ("?=", 1), ("!?=", 0)] {
        let q = format!("attachedClusterUuids{operator}{cluster}");
        let found = query("/l2-networks/vxlan", &[("q", q.as_str()), ("sort", "virtualNetworkId")]);
        assert_eq!(found.len(), expected, "{q}");
        let counted = client.query_pairs(
            "/l2-networks/vxlan",
            &[("q".to_owned(), q.clone()), ("count".to_owned(), "true".to_owned())],
        );
        assert_eq!(counted.unwrap(), json!({"total": expected}), "{q}");
    }
}

/// Field case F36, over HTTP.
#[test]
fn a_caller_chosen_uuid_is_taken_once() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let uuid = "0123456789abcdef0123456789abcdef";
    let params = |name: &str| json!({"name": name, "resourceUuid": uuid});
    assert_eq!(made(&client, "CreateZone", params("a")), uuid);
    let tagged = |tags: Value| object(json!({"name": "t", "tagUuids": tags}));
    for odd in [json!("x"), json!(["x"]), json!([1])] {
        let refused = client.call("CreateZone", tagged(odd), &[]).unwrap_err();
        assert!(
            matches!(&refused, Error::Refused { field: Some(field), .. } if field == "tagUuids")
        );
    }
    client.call("CreateZone", tagged(json!([uuid])), &[]).unwrap();
    let refused = client.call("CreateZone", object(params("b")), &[]).unwrap_err();
    assert!(matches!(refused, Error::Refused { ref code, .. } if code == "NL.1002"), "{refused}");
}

#[test]
fn an_instance_is_a_success_only_once_its_host_has_acknowledged() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let ids = two_hosts(&client);
    let job = "0123456789abcdef0123456789abcdef";
    running.connect_hosts(&client, 0);
    let body = json!({"params": {"name": "vm", "l3NetworkUuids": [ids["l3"]]}}).to_string();
    let (status, _) = running.post("/v1/vm-instances", &body, &[("X-Job-UUID", job)]);
    assert_eq!(status, 202);
    let poll = || running.get_as(&client, &format!("/v1/api-jobs/{job}"));
    let (status, text) = poll();
    assert_eq!(status, 202, "durable, not in effect");
    let host = client.query("/vm-instances", &[]).unwrap()[0]["hostUuid"].clone();
    assert!(text.contains("waitsFor") && text.contains(host.as_str().unwrap()), "{text}");
    running.connect_hosts(&client, u64::MAX);
    let (status, text) = poll();
    assert_eq!(status, 200, "{text}");
    let shown: Value = serde_json::from_str(&text).unwrap();
    let nic = &shown["inventory"]["vmNics"][0];
    assert_eq!(nic["mac"], "fa:4c:00:00:00:01");
    assert!(!text.contains("null"), "empty fields are left out: {text}");
    let enrolment = client.call("CreateHostEnrolment", object(json!({"uuid": host})), &[]).unwrap();
    assert_eq!(enrolment["inventory"]["ca"], "PEM");
    assert!(enrolment["inventory"]["token"].as_str().unwrap().len() >= 43, "256 bits");
}

#[test]
fn it_stops_in_time_whatever_its_clients_do() {
    let running = Running::start(Limits::default());
    let open = |text: &str| {
        let mut stream = TcpStream::connect(running.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let idle = open("GET /v1/zones HTTP/1.1\r\nHost: x\r\n\r\n");
    let half_a_head = open("GET /v1/zones HTTP/1.1\r\nHost:");
    let half_a_body = open("POST /v1/zones HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{");
    running.log_in().query("/zones", &[]).unwrap();
    let started = Instant::now();
    drop(running);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    drop((idle, half_a_head, half_a_body));
}

#[test]
fn addresses_are_asked_for_by_each_of_zstacks_paths() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let l3 = two_hosts(&client)["l3"].clone();
    let range = client.query("/l3-networks/ip-ranges", &[]).unwrap().remove(0);
    let range = range["uuid"].as_str().unwrap();
    let answer = |path: &str| -> Value {
        let (status, text) = running.get_as(&client, &format!("/v1{path}"));
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    };
    for path in [
        format!("/l3-networks/ip/free?l3NetworkUuid={l3}&limit=1"),
        format!("/l3-networks/{l3}/ip/free?limit=1"),
        format!("/l3-networks/ip-ranges/{range}/ip/free?limit=1"),
    ] {
        let free = &answer(&path)["inventories"];
        assert_eq!((&free[0]["ip"], free.as_array().unwrap().len()), (&json!("10.0.0.10"), 1));
    }
    assert_eq!(answer(&format!("/l3-networks/{l3}/ip/10.0.0.1/availability"))["reason"], "GATEWAY");
    let path = format!("/ip-capacity?l3NetworkUuids={l3}&l3NetworkUuids={l3}");
    assert_eq!(answer(&path)["totalCapacity"], 11);
    let params = object(json!({"l3NetworkUuids": [l3]}));
    assert_eq!(client.call("GetIpAddressCapacity", params, &[]).unwrap()["totalCapacity"], 11);
    let provider = client.query("/network-services/providers", &["type=Flat".into()]).unwrap();
    let provider = provider[0]["uuid"].as_str().unwrap();
    let services = json!({"l3NetworkUuid": l3, "networkServices": {provider: ["DHCP"]}});
    client.call("AttachNetworkServiceToL3Network", object(services.clone()), &[]).unwrap();
    let refs = "/l3-networks/network-services/refs";
    let by_name = ["serviceProvider.name=Flat".to_owned()];
    assert_eq!(client.query(refs, &by_name).unwrap().len(), 1);
    assert_eq!(client.query("/l3-networks", &by_name).unwrap().len(), 1);
    client.call("DetachNetworkServiceFromL3Network", object(services), &[]).unwrap();
    assert!(client.query(refs, &[]).unwrap().is_empty());
}

#[test]
fn a_message_that_makes_two_shows_both() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let l3 = two_hosts(&client)["l3"].clone();
    let range = client.query("/l3-networks/ip-ranges", &[]).unwrap().remove(0);
    client.call("DeleteIpRange", object(json!({"uuid": range["uuid"]})), &[]).unwrap();
    let params = json!({
        "name": "r", "l3NetworkUuid": l3, "networkCidr": "192.168.214.0/24",
        "gateway": "192.168.214.100",
    });
    let answer = client.call("AddIpRangeByNetworkCidr", object(params), &[]).unwrap();
    let ranges = answer["inventories"].as_array().unwrap();
    let starts: Vec<_> = ranges.iter().map(|range| range["startIp"].as_str().unwrap()).collect();
    assert_eq!(starts, ["192.168.214.1", "192.168.214.101"]);
    assert_eq!(answer["inventory"], ranges[0]);
    assert!(client.query("/l3-networks/address-pools", &[]).unwrap().is_empty());
}

/// A cloud in which an instance can be made: uuids by name.
fn two_hosts(client: &Client) -> BTreeMap<&'static str, String> {
    let mut ids = BTreeMap::new();
    let zone = made(client, "CreateZone", json!({"name": "z"}));
    let cluster = json!({"name": "c", "zoneUuid": zone, "hypervisorType": "KVM"});
    let cluster = made(client, "CreateCluster", cluster);
    for (name, ip) in [("h1", "172.30.0.1"), ("h2", "172.30.0.2")] {
        let host = json!({"name": name, "managementIp": ip, "clusterUuid": cluster});
        made(client, "AddKVMHost", host);
    }
    let pool = made(client, "CreateL2VxlanNetworkPool", json!({"name": "p", "zoneUuid": zone}));
    let range = json!({"name": "r", "startVni": 1, "endVni": 9, "l2NetworkUuid": pool});
    made(client, "CreateVniRange", range);
    let tag = format!("l2NetworkUuid::{pool}::clusterUuid::{cluster}::cidr::{{172.30.0.0/24}}");
    let attach = object(json!({"l2NetworkUuid": pool, "clusterUuid": cluster}));
    client.call("AttachL2NetworkToCluster", attach, &[tag]).unwrap();
    let l2 = made(client, "CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": pool}));
    let l3 = made(client, "CreateL3Network", json!({"name": "l3", "l2NetworkUuid": l2}));
    let range = json!({
        "l3NetworkUuid": l3, "name": "r", "startIp": "10.0.0.10", "endIp": "10.0.0.20",
        "netmask": "255.255.255.0",
    });
    made(client, "AddIpRange", range);
    ids.insert("l3", l3);
    ids
}
