//! What monitors ask for.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::Read;

use netloom_api::Limits;
use serde_json::json;
use support::Running;

/// The answer to a GET with these headers, by a connection that is closed after it.
fn get(running: &Running, path: &str, headers: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    let mut text = String::new();
    running.open(&head).read_to_string(&mut text).unwrap();
    text
}

fn figure(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
}

#[test]
fn figures_say_what_was_asked_for_and_what_there_is() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let params = json!({"name": "tenants-secret"}).as_object().unwrap().clone();
    client.call("CreateZone", params, &[]).unwrap();
    let missing = json!({"uuid": "0".repeat(31) + "9", "name": "x"}).as_object().unwrap().clone();
    client.call("UpdateZone", missing, &[]).unwrap_err();
    client.query("/zones", &[]).unwrap();
    client.query_pairs("/zones", &[("q".to_owned(), "nonsense=1".to_owned())]).unwrap_err();
    let page = get(&running, "/metrics", "");
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.contains("text/plain; version=0.0.4"), "{page}");
    assert!(!page.contains("tenants-secret"));
    let count = |labels: &str| figure(&page, &format!("netloom_requests_total{{{labels}}}"));
    assert_eq!(count("message=\"LogInByAccount\",status=\"200\",code=\"\""), 1.0);
    assert_eq!(count("message=\"QueryZone\",status=\"200\",code=\"\""), 1.0);
    assert!(page.contains("message=\"QueryZone\",status=\"503\",code=\"SYS.1007\""), "{page}");
    assert_eq!(figure(&page, "netloom_rows{kind=\"Zone\"}"), 1.0);
    assert_eq!(figure(&page, "netloom_sessions"), 1.0);
    assert_eq!(figure(&page, "netloom_jobs_refused_total{code=\"SYS.1003\"}"), 1.0);
    assert_eq!(figure(&page, "netloom_store_queue"), 0.0);
    assert!(figure(&page, "netloom_store_transactions_total") >= 2.0);
    assert!(figure(&page, "netloom_seats_taken") >= 1.0);
    let revision = figure(&page, "netloom_store_revision");
    assert!(revision >= figure(&page, "netloom_store_batches_total") / 2.0 && revision > 1.0);
}

#[test]
fn every_line_has_the_form_that_prometheus_reads() {
    let running = Running::start(Limits::default());
    running.log_in();
    let page = get(&running, "/metrics", "");
    let (_, body) = page.split_once("\r\n\r\n").unwrap();
    let mut families = std::collections::BTreeMap::new();
    for line in body.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, form) = head.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&form), "{line}");
            assert!(families.insert(name, form).is_none(), "{name} comes twice");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            let name = name.split('{').next().unwrap();
            let known = |name: &str| families.contains_key(name);
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(known(name) || stem.is_some_and(known), "{line} has no head");
        }
    }
    assert!(families.len() > 20);
}

#[test]
fn each_answer_says_by_what_it_is_found_in_the_log() {
    let running = Running::start(Limits::default());
    let id = |path| {
        let text = get(&running, path, "");
        let id = text.lines().find_map(|line| line.strip_prefix("x-request-id: "));
        id.map(str::to_owned).unwrap()
    };
    assert!(id("/healthz").len() == 32 && id("/v1/zones") != id("/v1/zones"));
}

#[test]
fn the_dashboard_draws_only_what_there_is() {
    let running = Running::start(Limits::default());
    let client = running.log_in();
    let missing = json!({"uuid": "0".repeat(31) + "9", "name": "x"}).as_object().unwrap().clone();
    client.call("UpdateZone", missing, &[]).unwrap_err();
    let page = get(&running, "/metrics", "");
    let dashboard = include_str!("../../../docs/grafana-dashboard.json");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = dashboard.split(|c| !is_part(c)).filter(|word| word.starts_with("netloom_"));
    let names: std::collections::BTreeSet<_> = names.collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let is_there =
            |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        assert!(page.lines().any(is_there), "{name} is drawn, and nobody counts it");
    }
}

#[test]
fn a_server_that_works_says_so() {
    let running = Running::start(Limits::default());
    assert!(get(&running, "/readyz", "").starts_with("HTTP/1.1 200 "));
    assert!(get(&running, "/healthz", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn figures_are_not_for_whoever_comes_from_elsewhere() {
    let believes = Limits { believe_forwarded_for: true, ..Limits::default() };
    let away = "X-Forwarded-For: 203.0.113.9\r\n";
    // A proxy whose header is not believed also says that somebody else asks.
    for limits in [believes, Limits::default()] {
        let running = Running::start(limits);
        for path in ["/metrics", "/readyz"] {
            let text = get(&running, path, away);
            assert!(text.contains(" 403 ") && text.contains("--metrics-from"), "{text}");
            assert!(!text.contains("netloom_"), "{text}");
        }
        assert!(get(&running, "/healthz", away).contains(" 200 "));
    }
}
