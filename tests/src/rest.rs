//! REST as any client may send it, also wrongly.

use std::net::IpAddr;

use serde_json::{Value, json};
use ureq::{Agent, http};

/// Sends what it is told to.
#[derive(Clone, Debug)]
pub struct Rest {
    base: String,
    headers: Vec<(String, String)>,
    agent: Agent,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON, or the text as a JSON string.
    pub body: Value,
}

impl Rest {
    /// Calls to the server at `base`, with a session if there is one.
    pub fn new(base: &str, session: Option<&str>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(crate::LIMIT))
            .build();
        let this = Self { base: base.to_owned(), headers: Vec::new(), agent: config.into() };
        match session {
            Some(session) => this.with("authorization", &format!("OAuth {session}")),
            None => this,
        }
    }

    /// The same, with one more header on every call.
    #[must_use]
    pub fn with(mut self, header: &str, value: &str) -> Self {
        self.headers.push((header.to_owned(), value.to_owned()));
        self
    }

    /// Sends a request below `/zstack/v1`.
    ///
    /// # Errors
    /// No answer: whether it took effect is unknown.
    pub fn send(&self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}/zstack/v1{path}", self.base))
            .header("content-type", "application/json");
        for (header, value) in &self.headers {
            request = request.header(header, value);
        }
        let request = request.body(body.to_owned()).unwrap();
        let answer = self.agent.run(request).map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let text = answer.into_body().read_to_string().map_err(|error| error.to_string())?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, body })
    }

    /// Sends a message and waits for what becomes of it.
    pub fn post(&self, path: &str, params: &Value) -> Answer {
        let body = json!({"params": params}).to_string();
        self.clone().with("prefer", "wait=30").send("POST", path, &body).unwrap()
    }

    /// The same, which must succeed; the uuid of what is there now.
    ///
    /// # Panics
    /// When it fails.
    pub fn made(&self, path: &str, params: &Value) -> String {
        let answer = self.post(path, params);
        assert_eq!(answer.status, 200, "{path} {params}: {answer:?}");
        answer.body["inventory"]["uuid"].as_str().unwrap_or_default().to_owned()
    }

    /// Makes an instance with one NIC on the host of this name, and these addresses if any are
    /// given.
    pub fn create_vm(&self, name: &str, (l3, host): (&str, &str), addresses: &[IpAddr]) -> Answer {
        let host = self.named("/hosts", host)["uuid"].clone();
        let tag = |ip: &IpAddr| format!("staticIp::{l3}::{}", ip.to_string().replace(':', "--"));
        let tags: Vec<String> = addresses.iter().map(tag).collect();
        let params = json!({"name": name, "l3NetworkUuids": [l3], "hostUuid": host});
        let body = json!({"params": params, "systemTags": tags}).to_string();
        self.clone().with("prefer", "wait=30").send("POST", "/vm-instances", &body).unwrap()
    }

    /// Deletes what is there at a path, and waits for it.
    pub fn delete(&self, path: &str) -> Answer {
        self.clone().with("prefer", "wait=30").send("DELETE", path, "").unwrap()
    }

    /// The one resource of this name below a path.
    ///
    /// # Panics
    /// When there is none.
    pub fn named(&self, path: &str, name: &str) -> Value {
        let found = self.all(path).into_iter().find(|found| found["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} below {path}"))
    }

    /// Its uuid.
    pub fn uuid(&self, path: &str, name: &str) -> String {
        self.named(path, name)["uuid"].as_str().unwrap().to_owned()
    }

    /// All resources below a path, page by page.
    pub fn all(&self, path: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().and_then(|last| last["uuid"].as_str());
            let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
            let answer = self.send("GET", &format!("{path}?limit=10000{after}"), "").unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            let page = answer.body["inventories"].as_array().unwrap();
            if page.is_empty() {
                return all;
            }
            all.extend(page.iter().cloned());
        }
    }
}

impl Answer {
    /// The error's code; empty if it is none.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }
}
