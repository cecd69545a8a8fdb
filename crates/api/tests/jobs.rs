//! Jobs over HTTP: listed and canceled, long ones, and results sent to a receiver (`X-Web-Hook`).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::time::Duration;

use client::Client;
use netloom_api::Limits;
use serde_json::{Map, Value, json};
use support::{PASSWORD, PATIENCE, Running, receiver::receiver};

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// Sends a write with these headers: status and body.
fn write(
    running: &Running,
    client: &Client,
    (path, body): (&str, &Value),
    headers: &[(&str, &str)],
) -> (u16, String) {
    let mut request = ureq::http::Request::post(format!("http://{}{path}", running.address))
        .header("authorization", format!("OAuth {}", client.session().unwrap()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.timeout_global(Some(Duration::from_secs(30))).build().into();
    let answer = agent.run(request.body(body.to_string()).unwrap()).unwrap();
    (answer.status().as_u16(), answer.into_body().read_to_string().unwrap())
}

const JOB: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn the_result_of_a_call_is_sent_as_zstacks_sdks_expect_it() {
    let running = Running::start(Limits::default());
    let admin = running.log_in();
    let (address, got) = receiver(&[(200, "")]);
    let hook = format!("http://localhost:{}/results?of=me", address.port());
    let headers = [("X-Web-Hook", hook.as_str()), ("X-Job-UUID", JOB)];
    let zone = json!({"params": {"name": "z"}});
    let (status, text) = write(&running, &admin, ("/v1/zones", &zone), &headers);
    assert_eq!(status, 202, "{text}");
    let told = got.recv_timeout(PATIENCE).unwrap();
    assert_eq!(told.line, "POST /results?of=me HTTP/1.1");
    assert_eq!(told.headers["host"], format!("localhost:{}", address.port()));
    assert_eq!(told.headers["x-job-uuid"], JOB);
    assert_eq!(told.headers["x-job-success"], "true");
    assert!(told.headers["content-type"].starts_with("application/json"));
    assert_eq!(told.body()["inventory"]["name"], "z");
    // One that is refused before it runs.
    let headers = [("X-Web-Hook", hook.as_str())];
    let (status, _) = write(&running, &admin, ("/v1/zones", &json!({"params": {}})), &headers);
    assert_eq!(status, 202);
    let told = got.recv_timeout(PATIENCE).unwrap();
    assert_eq!(told.headers["x-job-success"], "false");
    assert_eq!(told.body()["error"]["code"], "SYS.1007");
}

/// A redirect is not followed: it could lead where the server must not go.
#[test]
fn a_receiver_that_does_not_take_it_is_asked_again() {
    let running = Running::start(Limits::default());
    let admin = running.log_in();
    let (address, got) = receiver(&[(503, ""), (302, ""), (204, "")]);
    let hook = format!("http://{address}/");
    let zone = json!({"params": {"name": "z"}});
    write(&running, &admin, ("/v1/zones", &zone), &[("X-Web-Hook", &hook)]);
    for _ in 0..3 {
        assert_eq!(got.recv_timeout(PATIENCE).unwrap().body()["inventory"]["name"], "z");
    }
    let start = std::time::Instant::now();
    while !admin.query("/web-hooks/calls", &[]).unwrap().is_empty() {
        assert!(start.elapsed() < PATIENCE, "it was taken");
    }
}

fn tenant(running: &Running, name: &str) -> Client {
    let digest = control::account::client_digest(PASSWORD);
    let account = json!({"name": name, "password": digest});
    running.log_in().call("CreateAccount", object(account), &[]).unwrap();
    let mut client = Client::new(&format!("http://{}", running.address));
    client.log_in(name, PASSWORD).unwrap();
    client
}

#[test]
fn a_normal_account_makes_the_server_call_only_where_it_may() {
    let running = Running::start(Limits::default());
    let (admin, red) = (running.log_in(), tenant(&running, "red"));
    let (address, got) = receiver(&[(200, "")]);
    let image = json!({"params": {"name": "i", "url": "http://192.0.2.1/i", "format": "raw"}});
    let send = |client: &Client, hook: &str| {
        write(&running, client, ("/v1/images", &image), &[("X-Web-Hook", hook)])
    };
    let here = format!("http://{address}/");
    for odd in [here.as_str(), "http://169.254.169.254/latest", "https://1.1.1.1/", "x", ""] {
        let (status, text) = send(&red, odd);
        assert_eq!(status, 400, "{odd}: {text}");
    }
    assert!(red.query("/images", &[]).unwrap().is_empty(), "nothing was done");
    // A name is looked at when it is called, by the address that it has.
    let (status, _) = send(&red, &format!("http://localhost:{}/", address.port()));
    assert_eq!(status, 202);
    let start = std::time::Instant::now();
    let failed = loop {
        let calls = red.query("/web-hooks/calls", &["state=Failed".to_owned()]).unwrap();
        if let Some(call) = calls.into_iter().next() {
            break call;
        }
        assert!(start.elapsed() < PATIENCE);
    };
    assert!(failed["error"].as_str().unwrap().contains("not public"), "{failed}");
    assert!(tenant(&running, "blue").query("/web-hooks/calls", &[]).unwrap().is_empty());
    let allow = json!({"category": "rest", "name": "webHook.networks", "value": "127.0.0.0/8"});
    admin.call("UpdateGlobalConfig", object(allow), &[]).unwrap();
    assert_eq!(send(&red, &here).0, 202);
    assert_eq!(got.recv_timeout(PATIENCE).unwrap().body()["inventory"]["name"], "i");
    assert!(got.try_recv().is_err(), "and nothing else has arrived");
}

#[test]
fn jobs_are_listed_to_their_account_and_told_of_by_their_progress() {
    let running = Running::start(Limits::default());
    let (admin, red) = (running.log_in(), tenant(&running, "red"));
    let zone = json!({"params": {"name": "z"}});
    write(&running, &admin, ("/v1/zones", &zone), &[("X-Job-UUID", JOB)]);
    let rows = admin.query("/jobs", &[format!("uuid={JOB}")]).unwrap();
    assert_eq!(
        (&rows[0]["message"], &rows[0]["state"]),
        (&json!("CreateZone"), &json!("Succeeded"))
    );
    assert!(red.query("/jobs", &[]).unwrap().iter().all(|row| row["uuid"] != JOB));
    let progress = |client: &Client| {
        client.call("GetTaskProgress", object(json!({"apiId": JOB})), &[]).unwrap()
    };
    assert_eq!(progress(&admin)["inventories"][0]["content"], "100");
    assert_eq!(progress(&red)["inventories"], json!([]));
    let over = admin.call("CancelJob", object(json!({"uuid": JOB})), &[]).unwrap_err();
    assert!(over.to_string().contains("nothing to cancel"), "{over}");
    assert!(
        red.call("CancelJob", object(json!({"uuid": JOB})), &[])
            .unwrap_err()
            .to_string()
            .contains("SYS.1003")
    );
}

#[test]
fn a_long_job_is_submitted_found_and_forgotten() {
    let running = Running::start(Limits::default());
    let admin = running.log_in();
    let data = json!({"name": "z"}).to_string();
    let submit = json!({"jobName": "APICreateZoneMsg", "jobData": data, "name": "later"});
    let made = admin.call("SubmitLongJob", object(submit), &[]).unwrap();
    let uuid = made["inventory"]["uuid"].as_str().unwrap().to_owned();
    let start = std::time::Instant::now();
    let done = loop {
        let found = admin.query(&format!("/longjobs/{uuid}"), &[]).unwrap();
        if found[0]["state"] == "Succeeded" {
            break found[0].clone();
        }
        assert!(start.elapsed() < PATIENCE, "{found:?}");
    };
    let result: Value = serde_json::from_str(done["jobResult"].as_str().unwrap()).unwrap();
    assert_eq!(result["inventory"]["name"], "z");
    let progress = json!({"apiId": done["apiId"]});
    let progress = admin.call("GetTaskProgress", object(progress), &[]).unwrap();
    assert_eq!(progress["inventories"][0]["content"], "100");
    admin.call("DeleteLongJob", object(json!({"uuid": uuid})), &[]).unwrap();
    assert!(admin.query("/longjobs", &[]).unwrap().is_empty());
}
