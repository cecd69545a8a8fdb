//! Agent and server lose each other without a word: packets of their connection vanish. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::time::{Duration, Instant};

use lab::wait;
use netloom_tests::{LIMIT, TestLab, rest::Answer, root_or_skip};
use serde_json::{Value, json};

/// The silence that the server takes for the end, and what it takes to notice.
const NOTICED: Duration = Duration::from_secs(20);

#[test]
fn a_silent_loss_is_noticed_told_and_mended_while_traffic_goes_on() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rules = ["ipproto tcp dport 7481 blackhole", "ipproto tcp sport 7481 blackhole"];
    rules.iter().for_each(|rule| lab.ip("h2", &format!("rule add priority 0 {rule}")));
    let started = Instant::now();
    let status = || host(&lab)["status"].as_str().unwrap().to_owned();
    assert!(wait::holds(LIMIT, || status() == "Disconnected"), "{}", status());
    assert!(started.elapsed() < NOTICED, "{:?}", started.elapsed());
    lab.check();
    let refused = create(&lab);
    let text = refused.body.to_string();
    assert!(refused.status != 200 && text.contains("connected"), "{refused:?}");

    rules.iter().for_each(|rule| lab.ip("h2", &format!("rule delete priority 0 {rule}")));
    lab.settle(&["h1", "h2"]);
    assert_eq!(create(&lab).status, 200);
    lab.check();
}

fn host(lab: &TestLab) -> Value {
    lab.rest().all("/hosts").into_iter().find(|host| host["name"] == "h2").unwrap()
}

/// Makes an instance on h2.
fn create(lab: &TestLab) -> Answer {
    let rest = lab.rest();
    let networks = rest.all("/l3-networks");
    let l3 = networks.iter().find(|l3| l3["name"] == "red-l3").unwrap();
    let params = json!({"name": "late", "l3NetworkUuids": [l3["uuid"]],
        "hostUuid": host(lab)["uuid"]});
    rest.post("/vm-instances", &params)
}
