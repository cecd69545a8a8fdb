//! Traces: what a collector gets of a running server, and that nothing depends on a collector.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use client::Client;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value, trace::v1::Span,
};
use prost::Message;
use serde_json::Value;

/// Any wait of a test; far more than what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the spans that wait for a collector.
const MANY: usize = 5000;

/// A collector on this machine.
struct Collector {
    address: SocketAddr,
    spans: Receiver<Span>,
}

impl Collector {
    /// It serves until the test is over.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, (sender, spans)) = (listener.local_addr().unwrap(), channel());
        thread::spawn(move || collect(listener, sender));
        Self { address, spans }
    }

    /// The next span that is so; what comes before it is gone.
    fn span(&self, is_it: impl Fn(&Span) -> bool) -> Span {
        loop {
            let span = self.spans.recv_timeout(PATIENCE).expect("no such span came");
            if is_it(&span) {
                return span;
            }
        }
    }
}

fn collect(listener: TcpListener, sender: Sender<Span>) {
    let take = async move |body: Bytes| {
        let batch = ExportTraceServiceRequest::decode(body).unwrap();
        for of_service in batch.resource_spans {
            let service = of_service.resource.unwrap();
            assert_eq!(text(&service.attributes, "service.name"), "netloom-server");
            for span in of_service.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                // Nobody listens any more once the test is over.
                let _ = sender.send(span);
            }
        }
        StatusCode::OK
    };
    let app = Router::new().route("/v1/traces", post(take));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await.unwrap();
    });
}

fn text<'a>(
    attributes: &'a [opentelemetry_proto::tonic::common::v1::KeyValue],
    key: &str,
) -> &'a str {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        _ => "",
    }
}

/// A server that answers, and what it logs.
struct Server {
    process: Child,
    base: String,
    lines: Receiver<Value>,
}

impl Server {
    fn start(data: &Path, collector: SocketAddr) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_netloom"))
            .args(["server", "--listen", "127.0.0.1:0", "--link-listen", "127.0.0.1:0"])
            .args(["--otlp-endpoint", &format!("http://{collector}")])
            .args(["--log-format", "json", "--data"])
            .arg(data)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let log = BufReader::new(process.stderr.take().unwrap());
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                // Who does not want them has dropped the other end.
                let _ = sender.send(serde_json::from_str(&line).unwrap_or_default());
            }
        });
        let mut server = Self { process, base: String::new(), lines };
        let serving = server.line("serving");
        server.base = format!("http://{}", serving["rest"].as_str().unwrap());
        server
    }

    /// The next line that begins so.
    fn line(&self, start: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("no such line came");
            if line["message"].as_str().is_some_and(|message| message.starts_with(start)) {
                return line;
            }
        }
    }

    fn session(&self, data: &Path) -> String {
        let password = std::fs::read_to_string(data.join("admin-password")).unwrap();
        let mut client = Client::new(&self.base);
        client.log_in("admin", &password).unwrap();
        client.session().unwrap().to_owned()
    }

    /// Ends it as an operator does.
    fn end(mut self) {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Also when the test has failed: nothing must go on.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_request_and_its_job_are_spans_of_one_trace() {
    let (directory, collector) = (tempfile::tempdir().unwrap(), Collector::start());
    let data = directory.path().join("d");
    let server = Server::start(&data, collector.address);
    let job = "0123456789abcdef0123456789abcdef";
    let answer = ureq::post(format!("{}/zstack/v1/zones", server.base))
        .header("authorization", format!("OAuth {}", server.session(&data)))
        .header("x-job-uuid", job)
        .send(r#"{"params": {"name": "z"}}"#);
    assert_eq!(answer.unwrap().status(), 202);
    let of_job = |span: &Span| text(&span.attributes, "job") == job;
    let (one, other) = (collector.span(of_job), collector.span(of_job));
    let (request, of_job) = if one.name == "request" { (one, other) } else { (other, one) };
    assert_eq!((request.name.as_str(), of_job.name.as_str()), ("request", "job"));
    assert_eq!(text(&request.attributes, "method"), "POST");
    assert_eq!(text(&request.attributes, "call"), "CreateZone");
    assert_eq!(text(&of_job.attributes, "message"), "CreateZone");
    assert_eq!(text(&of_job.attributes, "outcome"), "done");
    assert_eq!(of_job.trace_id, request.trace_id);
    assert_eq!(of_job.parent_span_id, request.span_id);
    server.end();
}

#[test]
fn the_last_spans_are_sent_before_the_server_ends() {
    let (directory, collector) = (tempfile::tempdir().unwrap(), Collector::start());
    let server = Server::start(&directory.path().join("d"), collector.address);
    let answer = ureq::get(format!("{}/healthz", server.base)).call().unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    server.end();
    let last = collector.span(|span| text(&span.attributes, "id") == id);
    assert_eq!(text(&last.attributes, "method"), "GET");
}

#[test]
fn a_collector_that_never_answers_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    // The kernel takes its connections, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start(&directory.path().join("d"), silent.local_addr().unwrap());
    let agent = ureq::Agent::new_with_defaults();
    for _ in 0..MANY {
        let answer = agent.get(format!("{}/healthz", server.base)).call().unwrap();
        assert_eq!(answer.status(), 200);
        drop(answer.into_body().read_to_vec().unwrap());
    }
    server.end();
}

#[test]
fn a_collector_that_is_not_there_is_told_once() {
    let directory = tempfile::tempdir().unwrap();
    // The client's end of a connection: its port is taken, and nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = Server::start(&directory.path().join("d"), taken.local_addr().unwrap());
    let agent = ureq::Agent::new_with_defaults();
    let ask = || agent.get(format!("{}/healthz", server.base)).call().unwrap().status();
    assert_eq!(ask(), 200);
    server.line("spans are lost");
    assert_eq!(ask(), 200);
    let pid = Pid::from_raw(server.process.id().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    // The log ends with the process; the spans of the second request were no second line.
    let rest: Vec<Value> = server.lines.iter().collect();
    let again = rest.iter().filter(|line| {
        line["message"].as_str().is_some_and(|message| message.starts_with("spans are lost"))
    });
    assert_eq!(again.count(), 0, "{rest:?}");
}
