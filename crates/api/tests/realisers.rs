//! Realisers of L2 networks over HTTP: what one is sent, and what its answers do.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::{io::Write, net::SocketAddr, time::Duration};

use client::Client;
use netloom_api::Limits;
use serde_json::{Map, Value, json};
use support::{
    PATIENCE, Running,
    receiver::{Got, receiver},
};

const SECRET: &str = "0123456789abcdef";

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn made(client: &Client, message: &str, params: Value) -> String {
    let answer = client.call(message, object(params), &[]).unwrap();
    answer["inventory"]["uuid"].as_str().unwrap().to_owned()
}

/// A VLAN that may be attached to a cluster, if its realiser says yes.
fn vlan(client: &Client, realiser: SocketAddr) -> Map<String, Value> {
    let zone = made(client, "CreateZone", json!({"name": "z"}));
    let cluster = json!({"name": "c", "zoneUuid": zone, "hypervisorType": "KVM"});
    let cluster = made(client, "CreateCluster", cluster);
    let vlan = json!({"name": "v", "zoneUuid": zone, "physicalInterface": "eth1", "vlan": 10});
    let vlan = made(client, "CreateL2VlanNetwork", vlan);
    let url = format!("http://{realiser}/netloom?x=1");
    let params = json!({"name": "switches", "url": url, "secret": SECRET});
    made(client, "CreateL2Realiser", params);
    object(json!({"l2NetworkUuid": vlan, "clusterUuid": cluster}))
}

#[test]
fn a_realiser_is_called_with_a_signed_body_until_it_is_done() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let (address, all) = receiver(&[(503, "busy"), (302, ""), (202, ""), (204, "")]);
    let attach = vlan(&client, address);
    client.call("AttachL2NetworkToCluster", attach.clone(), &[]).unwrap();
    let got: Vec<Got> = (0..4).map(|_| all.recv_timeout(PATIENCE).unwrap()).collect();
    for got in &got {
        assert_eq!(got.line, "POST /netloom?x=1 HTTP/1.1");
        assert_eq!(got.headers["host"], address.to_string());
        let body: Value = serde_json::from_str(&got.text).unwrap();
        assert_eq!((&body["action"], &body["moment"]), (&json!("realise"), &json!("Attached")));
        assert_eq!(body["l2Network"]["vlan"], 10);
        assert_eq!(body["cluster"]["uuid"], attach["clusterUuid"]);
        assert_eq!(got.headers["x-netloom-signature"], format!("sha256={}", hmac(&got.text)));
    }
    client.call("DetachL2NetworkFromCluster", attach, &[]).unwrap();
    let last = all.recv_timeout(PATIENCE).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&last.text).unwrap()["action"], "release");
}

/// As OpenSSL computes it.
fn hmac(text: &str) -> String {
    let mut child = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", SECRET, "-r"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn a_no_is_told_to_the_caller_and_a_long_answer_is_cut() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let text: &str = Box::leak(format!("VLAN 10 is taken{}", "x".repeat(1 << 20)).into_boxed_str());
    let answers: &[(u16, &str)] = Box::leak(vec![(409, text), (204, "")].into_boxed_slice());
    let (address, all) = receiver(answers);
    let attach = vlan(&client, address);
    let error = client.call("AttachL2NetworkToCluster", attach, &[]).unwrap_err().to_string();
    for part in ["NL.1008", "switches", "409", "VLAN 10 is taken"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(error.len() < 2_000, "{}", error.len());
    let calls = (0..2).map(|_| all.recv_timeout(PATIENCE).unwrap().text);
    let actions = calls.map(|text| serde_json::from_str::<Value>(&text).unwrap()["action"].clone());
    assert_eq!(actions.collect::<Vec<_>>(), ["realise", "release"], "it is undone");
    assert!(all.recv_timeout(Duration::from_millis(50)).is_err());
}
