//! What is wrong between hosts shows before a tenant meets it: agents ask each other's VTEPs. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use lab::wait;
use netloom_tests::{LIMIT, TestLab, root_or_skip};
use serde_json::{Value, json};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

/// What a host says of the ways to its peers.
fn tunnels(lab: &TestLab, host: &str) -> Value {
    lab.named("/hosts", host)["tunnels"].clone()
}

/// Waits until a host names exactly these ways, with all of these words in each.
fn names(lab: &TestLab, host: &str, ways: &[&[&str]]) {
    let is_so = || {
        let told = tunnels(lab, host);
        let blocked = told["blocked"].as_array().cloned().unwrap_or_default();
        let fits = |text: &Value, words: &[&str]| {
            words.iter().all(|word| text.as_str().unwrap().contains(word))
        };
        told["probed"] == 2
            && blocked.len() == ways.len()
            && ways.iter().all(|words| blocked.iter().any(|text| fits(text, words)))
    };
    assert!(wait::holds(LIMIT, is_so), "{host}: {:#}", tunnels(lab, host));
}

#[test]
fn a_blocked_way_and_an_mtu_that_is_too_small_are_named_by_both_hosts_until_they_are_mended() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::of_three_hosts();
    HOSTS.iter().for_each(|host| names(&lab, host, &[]));
    assert_eq!(lab.named("/hosts", "h1")["notInEffect"], Value::Null);

    // What h1 sends to h2 as tunnels do does not come in there. Rules are asked before what is local.
    let rule = "priority 10 iif eth0 from 172.31.255.11 ipproto udp dport 8472 blackhole";
    lab.ip("h2", "rule add priority 100 lookup local");
    lab.ip("h2", "rule delete priority 0");
    lab.ip("h2", &format!("rule add {rule}"));
    let way: &[&str] = &["h1 -> h2: nothing", "172.31.255.12 UDP 8472", "firewall"];
    names(&lab, "h1", &[way]);
    names(&lab, "h2", &[way]);
    names(&lab, "h3", &[]);
    let says = lab.named("/hosts", "h1")["notInEffect"].to_string();
    assert!(says.contains("h1 -> h2"), "{says}");
    lab.ip("h2", &format!("rule delete {rule}"));
    HOSTS.iter().for_each(|host| names(&lab, host, &[]));

    // A switch between h3 and the others with a smaller MTU than tunnels need.
    lab.ip("fabric", "link set p-h3 mtu 1400");
    let way = ["packets of 100 bytes", "those of 1500 do not", "raise the MTU"];
    let [to_h3, from_h3]: [&[&str]; 2] = [&way, &way];
    names(&lab, "h3", &[to_h3, from_h3]);
    names(&lab, "h1", &[&way]);
    names(&lab, "h2", &[&way]);
    lab.ip("fabric", "link set p-h3 mtu 1600");
    HOSTS.iter().for_each(|host| names(&lab, host, &[]));

    // An agent that is dead is no way that is blocked; and nothing of it is dropped or counted.
    lab.kill(&["h2"]);
    let away = || lab.named("/hosts", "h2")["status"] == "Disconnected";
    assert!(wait::holds(LIMIT, away));
    // Three are not answered by then.
    let told = || {
        let before = lab.inspect("h1")["agent"].clone();
        before != Value::Null && tunnels(&lab, "h1")["blocked"] == json!([])
    };
    assert!(wait::holds(LIMIT, told));
    lab.start(&["h2"]);
    lab.settle(&HOSTS);
    HOSTS.iter().for_each(|host| names(&lab, host, &[]));
    for host in HOSTS {
        let drops = lab.named("/hosts", host)["drops"].to_string();
        assert!(!drops.contains("vtep") && !drops.contains("tunnel"), "{host}: {drops}");
    }
    lab.check();
}
