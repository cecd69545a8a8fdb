//! Cases of ZStack's own test suite that are about the wire, named by their numbers there.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod support;

use netloom_api::Limits;
use serde_json::{Value, json};
use support::Running;

/// The wire, as the administrator.
struct Wire {
    running: Running,
    agent: ureq::Agent,
    session: String,
}

impl Wire {
    fn open() -> Self {
        let running = Running::start(Limits::default());
        let session = running.log_in().session().unwrap().to_owned();
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self { running, agent: config.build().into(), session }
    }

    /// Sends a request with another header: status and body.
    fn send(&self, to: (&str, &str), (name, value): (&str, &str), body: &str) -> (u16, String) {
        let (method, path) = to;
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}/zstack/v1{path}", self.running.address))
            .header("authorization", format!("OAuth {}", self.session))
            .header(name, value);
        let answer = self.agent.run(request.body(body.to_owned()).unwrap()).unwrap();
        (answer.status().as_u16(), answer.into_body().read_to_string().unwrap())
    }
}

/// ZStack's QueryWithReplyCountCase.
#[test]
fn p60_a_page_tells_how_many_there_are_in_all() {
    let wire = Wire::open();
    let waits = ("Prefer", "wait=30");
    for number in 0..100 {
        let body = json!({"params": {"name": format!("z{number}")}}).to_string();
        let (status, text) = wire.send(("POST", "/zones"), waits, &body);
        assert_eq!(status, 200, "{text}");
    }
    let page = "/zones?start=0&limit=50&replyWithCount=true";
    let (status, text) = wire.send(("GET", page), waits, "");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, answer["total"].as_u64()), (200, Some(100)), "{text}");
    assert_eq!(answer["inventories"].as_array().unwrap().len(), 50);
}

/// ZStack's DuplicateJobUuidCase.
#[test]
fn p61_a_job_has_a_uuid_of_its_own() {
    let wire = Wire::open();
    let body = r#"{"params": {"name": "z"}}"#;
    let post = |job: &str| wire.send(("POST", "/zones"), ("X-Job-UUID", job), body);
    let job = "0123456789abcdef0123456789abcdef";
    assert_eq!(post(job).0, 202);
    let (status, text) = post(job);
    assert!(status == 400 && text.contains(job) && text.contains("job"), "{status} {text}");
    for wrong in ["0", &job[1..], &format!("{job}0")] {
        let (status, text) = post(wrong);
        assert!(status == 400 && text.contains("X-Job-UUID"), "{wrong:?}: {status} {text}");
    }
    assert_eq!(wire.running.log_in().query("/zones", &[]).unwrap().len(), 1, "of one job");
}
