//! A server that is killed again and again while clients write: what it acknowledged is there
//! afterwards, whole, and traffic never noticed. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use lab::wait;
use netloom_tests::{LIMIT, TestLab, rest::Rest, root_or_skip, uuid};
use serde_json::{Value, json};

const KILLS: usize = 30;
/// Acknowledged writes before each kill.
const WRITES: usize = 15;

#[test]
fn what_was_acknowledged_survives_thirty_kills_and_nothing_is_half_done() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let network = make_network(&lab.rest());
    let (acknowledged, stop) =
        (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
    let rest = Arc::new(Mutex::new(lab.rest()));
    let writer = {
        let (acknowledged, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
        let (rest, network) = (Arc::clone(&rest), network.clone());
        thread::spawn(move || write(&rest, &network, &acknowledged, &stop))
    };
    let count = || acknowledged.lock().unwrap().len();
    for round in 0..KILLS {
        let goal = count() + WRITES;
        assert!(wait::holds(LIMIT, || count() >= goal), "round {round}: no writes any more");
        lab.kill(&["server"]);
        if round % 10 == 0 {
            lab.check();
        }
        lab.start(&["server"]);
        // Sessions are in memory only: log in again.
        *rest.lock().unwrap() = lab.rest();
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    lab.settle(&["h1", "h2"]);
    lab.check();
    judge(&lab.rest(), &network, &acknowledged.lock().unwrap());
}

/// A network of its own with room for all the NICs.
fn make_network(rest: &Rest) -> String {
    let pool = rest.all("/l2-networks/vxlan-pool")[0]["uuid"].clone();
    let (l2, l3) = (uuid(), uuid());
    let calls = [
        (
            "/l2-networks/vxlan".to_owned(),
            json!({"name": "w", "poolUuid": pool, "resourceUuid": l2}),
        ),
        ("/l3-networks".to_owned(), json!({"name": "w", "l2NetworkUuid": l2, "resourceUuid": l3})),
        (
            format!("/l3-networks/{l3}/ip-ranges"),
            json!({"name": "w", "startIp": "10.9.0.2", "endIp": "10.9.255.254",
                "netmask": "255.255.0.0", "gateway": "10.9.0.1"}),
        ),
    ];
    for (path, params) in calls {
        let answer = rest.post(&path, &params);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    l3
}

/// Writes as fast as it can. 202 means that the work is durable, whatever happens next.
fn write(
    rest: &Mutex<Rest>,
    network: &str,
    acknowledged: &Mutex<BTreeSet<String>>,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        let rest = rest.lock().unwrap().clone().with("x-job-uuid", &uuid());
        let nic = uuid();
        let params = json!({"params": {"l3NetworkUuid": network, "resourceUuid": nic}});
        match rest.send("POST", "/nics", &params.to_string()) {
            Ok(answer) if answer.status == 202 => {
                acknowledged.lock().unwrap().insert(nic);
            }
            // Dead, or alive again and without our session.
            Err(_) => {}
            Ok(answer) => assert_eq!(answer.code(), "ID.1001", "{answer:?}"),
        }
    }
}

fn judge(rest: &Rest, network: &str, acknowledged: &BTreeSet<String>) {
    let mut nics = rest.all("/vm-instances/nics");
    nics.retain(|nic| nic["l3NetworkUuid"] == network);
    let uuids: BTreeSet<String> = nics.iter().map(|nic| text(&nic["uuid"])).collect();
    let lost: Vec<_> = acknowledged.difference(&uuids).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let addresses: BTreeSet<String> = nics.iter().map(|nic| text(&nic["ip"])).collect();
    assert_eq!(addresses.len(), nics.len(), "one address each, no two the same");
    println!("{} acknowledged, {} there", acknowledged.len(), nics.len());
    // A claim without its NIC, or a NIC without its claim, shows here.
    let create = |ip: &str| rest.post("/nics", &json!({"l3NetworkUuid": network, "ip": ip}));
    for ip in addresses.iter().take(200) {
        assert_eq!(create(ip).code(), "L3.1000", "{ip} is taken");
    }
    let free = (2..=254).map(|last| format!("10.9.7.{last}"));
    for ip in free.filter(|ip| !addresses.contains(ip)).take(200) {
        let answer = create(&ip);
        assert_eq!(answer.status, 200, "{ip} is free: {answer:?}");
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
