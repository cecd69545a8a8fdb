//! The server as a process, and how to reach it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
};

use client::Client;
use serde_json::Value;

use crate::PATIENCE;

/// Where a server answers, and a session there.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    base: String,
    session: String,
    agent: ureq::Agent,
}

impl Default for Access {
    /// Nobody answers there yet.
    fn default() -> Self {
        Self {
            base: String::new(),
            session: String::new(),
            agent: ureq::Agent::new_with_defaults(),
        }
    }
}

/// A server that answers.
pub(crate) struct Server {
    process: Child,
    access: Access,
}

/// A server that is about to start.
pub(crate) struct Scheduled(Child);

impl Scheduled {
    pub(crate) fn start(data: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_netloom"))
            .args(["server", "--listen", "127.0.0.1:0", "--link-listen", "127.0.0.1:0"])
            .args(["--log-format", "json", "--data"])
            .arg(data)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Kills it when it has so many files open, or by the time when it serves.
    pub(crate) fn kill_at(mut self, files: u32) {
        let open = format!("/proc/{}/fd", self.0.id());
        let count = || fs::read_dir(&open).map_or(0, Iterator::count);
        let mut lines = BufReader::new(self.0.stderr.take().unwrap());
        let log = thread::spawn(move || serves_at(&mut lines));
        while count() < files as usize && !log.is_finished() {
            thread::yield_now();
        }
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        log.join().unwrap();
    }
}

/// Where it says that it serves; `None` if it ends before.
fn serves_at(lines: &mut BufReader<ChildStderr>) -> Option<String> {
    let mut line = String::new();
    while lines.read_line(&mut line).ok()? > 0 {
        let told: Value = serde_json::from_str(&line).unwrap_or_default();
        if told["message"] == "serving" {
            return told["rest"].as_str().map(str::to_owned);
        }
        eprint!("{line}");
        line.clear();
    }
    None
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        let Scheduled(process) = Scheduled::start(data);
        let mut server = Self { process, access: Access::default() };
        let mut lines = BufReader::new(server.process.stderr.take().unwrap());
        let address = serves_at(&mut lines).expect("it serves");
        // Nobody reads the rest, and it must not stand still for that. It ends with the process.
        thread::spawn(move || while lines.read_line(&mut String::new()).is_ok_and(|n| n > 0) {});
        let base = format!("http://{address}");
        let mut client = Client::new(&base);
        client.log_in("admin", &fs::read_to_string(data.join("admin-password")).unwrap()).unwrap();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE));
        let agent = config.build().into();
        server.access = Access { base, session: client.session().unwrap().to_owned(), agent };
        server
    }

    pub(crate) fn access(&self) -> Access {
        self.access.clone()
    }

    /// Kills it, as the end of the value does.
    pub(crate) fn kill(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        // Also when the test has failed: nothing must go on.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Access {
    /// Sends a request; its status and body, if there is an answer.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        job: Option<&str>,
        body: &str,
    ) -> Option<(u16, String)> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/zstack/v1{path}", self.base))
            .header("authorization", format!("OAuth {}", self.session));
        if let Some(job) = job {
            request = request.header("x-job-uuid", job);
        }
        let answer = self.agent.run(request.body(body.to_owned()).unwrap()).ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.into_body().read_to_string().ok()?))
    }
}
