//! A client of the native REST API: logs in, calls messages, waits for their jobs, queries.
//!
//! It knows messages by their declarations only, so it can call each one. Blocking on purpose: the
//! CLI, the lab and the tests are sequential.

mod trust;

use std::time::{Duration, Instant};

use model::{
    MessageDef,
    declare::{FieldsIn, Method},
    resource::messages,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use ureq::{Agent, http, tls::Certificate};

/// How long one request may take, in seconds; a job is waited for with several.
const REQUEST_SECONDS: u64 = 60;
/// How long the server is asked to hold a call until its job is decided: longer than most jobs
/// take, and short enough that the caller soon hears what the others wait for.
pub const MOMENT: Duration = Duration::from_secs(2);
/// How long the server is asked to hold a later request for a job, in seconds.
const HOLD_SECONDS: u64 = 30;

/// How long a job is waited for, if nobody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(1800);

/// Resources in one answer, when all are asked for.
const PAGE: usize = 1000;

/// Longest answer that is read, in bytes: a query without a limit of its own, over the largest cloud
/// that one server is made for.
const ANSWER_MAX_BYTES: u64 = 256 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error("{url} does not answer: {cause}; is `netloom server` running there?")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What went wrong.
        cause: String,
    },
    /// It answers, with a certificate that is not trusted.
    #[error(
        "{url} shows a certificate that is not trusted: {cause}; name the file of the authority that \
         made it with --ca FILE"
    )]
    Untrusted {
        /// What was asked.
        url: String,
        /// What is wrong with the certificate.
        cause: String,
    },
    /// A file of certificates that has none, or a damaged one.
    #[error(
        "the certificates of authorities cannot be read: {0}; a PEM file with one or more does"
    )]
    Authorities(String),
    /// More than is read.
    #[error(
        "the answer of {url} is over {max_bytes} bytes long; ask for less: limit=, fields=, conditions"
    )]
    TooLarge {
        /// What was asked.
        url: String,
        /// What is read at most.
        max_bytes: u64,
    },
    /// The server did not understand the request.
    #[error("the server refused the request ({status}): {text}")]
    Protocol {
        /// HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// The call failed; nothing changed.
    #[error(
        "{}{details} [{code}]{}",
        named(field.as_deref(), details),
        hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default()
    )]
    Refused {
        /// The stable code.
        code: String,
        /// What happened.
        details: String,
        /// The field that breaks a rule.
        field: Option<String>,
        /// What to do.
        hint: Option<String>,
    },
    /// The job was not decided in time.
    #[error("{message} is not done after {seconds} s; its job goes on: {job}")]
    Timeout {
        /// The message.
        message: String,
        /// How long it was waited for.
        seconds: u64,
        /// The job's uuid.
        job: String,
    },
    /// No such message.
    #[error("there is no message {0}; `netloom messages` lists them")]
    UnknownMessage(String),
}

/// What has become of a call.
#[derive(Debug)]
pub enum Started {
    /// It is done: the answer.
    Done(Value),
    /// It is accepted; its job goes on.
    Job(Job),
}

/// A call that the server has accepted.
#[derive(Clone, Debug)]
pub struct Job {
    /// The message, for people.
    pub message: String,
    /// Its uuid.
    pub uuid: String,
}

/// The field in front of what is wrong with it, unless that names it itself.
fn named(field: Option<&str>, details: &str) -> String {
    let field = field.filter(|field| !details.starts_with(&format!("field {field}:")));
    field.map(|field| format!("{field}: ")).unwrap_or_default()
}

/// A connection to one server.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    session: Option<String>,
    account: Option<String>,
    /// The authorities that it trusts, for TLS.
    trusted: Vec<Certificate<'static>>,
    agent: Agent,
}

/// The declaration of a message, by its name.
///
/// # Errors
/// [`Error::UnknownMessage`].
pub fn message(name: &str) -> Result<&'static MessageDef, Error> {
    let found = messages().find(|def| def.name == name);
    found.ok_or_else(|| Error::UnknownMessage(name.to_owned()))
}

/// A password as messages carry it: ZStack's clients send its SHA-512.
#[must_use]
pub fn digest(password: &str) -> String {
    Sha512::digest(password.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:7480`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        // Thousands of certificates are read only by those who need them.
        let trusted = base.starts_with("https:").then(trust::system).unwrap_or_default();
        let limit = Duration::from_secs(REQUEST_SECONDS);
        let agent = agent(trusted.clone(), limit);
        Self { base, session: None, account: None, trusted, agent }
    }

    /// The same, whose requests take so long at most.
    #[must_use]
    pub fn hasty(self, limit: Duration) -> Self {
        Self { agent: agent(self.trusted.clone(), limit), ..self }
    }

    /// The same, trusting the authorities in this PEM text and no others.
    ///
    /// # Errors
    /// [`Error::Authorities`].
    pub fn trusting(self, authorities: &str) -> Result<Self, Error> {
        let trusted = trust::read(authorities.as_bytes()).map_err(Error::Authorities)?;
        let agent = agent(trusted.clone(), Duration::from_secs(REQUEST_SECONDS));
        Ok(Self { trusted, agent, ..self })
    }

    /// The same, with a session that is open already.
    #[must_use]
    pub fn with_session(base: &str, session: String) -> Self {
        Self { session: Some(session), ..Self::new(base) }
    }

    /// The open session.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// The uuid of the account that has logged in.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// Opens a session.
    ///
    /// # Errors
    /// A wrong name or password, or no answer.
    pub fn log_in(&mut self, account: &str, password: &str) -> Result<(), Error> {
        let params = object(json!({"accountName": account, "password": digest(password)}));
        let answer = self.call("LogInByAccount", params, &[])?;
        self.session = answer["inventory"]["uuid"].as_str().map(str::to_owned);
        self.account = answer["inventory"]["accountUuid"].as_str().map(str::to_owned);
        Ok(())
    }

    /// Closes the session, if there is one.
    ///
    /// # Errors
    /// No answer; the session ends by itself then, hours later.
    pub fn log_out(&mut self) -> Result<(), Error> {
        let Some(session) = self.session.take() else { return Ok(()) };
        self.call("LogOut", object(json!({"sessionUuid": session})), &[]).map(|_| ())
    }

    /// Calls a message and waits until its job is decided, half an hour at most.
    ///
    /// # Errors
    /// The call's own, or no answer.
    pub fn call(
        &self,
        name: &str,
        params: Map<String, Value>,
        system_tags: &[String],
    ) -> Result<Value, Error> {
        self.call_and_hear(name, params, system_tags, |_| ())
    }

    /// The same. `hear` is given what the job waits for, at once and whenever that changes: texts
    /// such as "host node1 is not connected".
    ///
    /// # Errors
    /// The call's own, or no answer.
    pub fn call_and_hear(
        &self,
        name: &str,
        params: Map<String, Value>,
        system_tags: &[String],
        hear: impl FnMut(&[&str]),
    ) -> Result<Value, Error> {
        match self.start(name, params, system_tags, MOMENT)? {
            Started::Done(answer) => Ok(answer),
            Started::Job(job) => self.wait(&job, PATIENCE, hear),
        }
    }

    /// Calls a message, and waits a moment for its job: so long, in whole seconds.
    ///
    /// # Errors
    /// The call's own, or no answer.
    pub fn start(
        &self,
        name: &str,
        params: Map<String, Value>,
        system_tags: &[String],
        moment: Duration,
    ) -> Result<Started, Error> {
        let def = message(name)?;
        let (path, body) = shape(def, params, system_tags);
        let (status, answer) = self.send(def.method, &path, body.as_ref(), moment.as_secs())?;
        let location = answer["location"].as_str().unwrap_or_default();
        match location.rsplit_once('/') {
            Some((_, uuid)) if status == http::StatusCode::ACCEPTED => {
                Ok(Started::Job(Job { message: name.to_owned(), uuid: uuid.to_owned() }))
            }
            _ => Ok(Started::Done(answer)),
        }
    }

    /// Waits until a job is decided. `hear` is given what it waits for, at once and whenever that
    /// changes.
    ///
    /// # Errors
    /// The job's own, no answer, or [`Error::Timeout`].
    pub fn wait(
        &self,
        job: &Job,
        patience: Duration,
        mut hear: impl FnMut(&[&str]),
    ) -> Result<Value, Error> {
        let start = Instant::now();
        let (mut hold_seconds, mut heard) = (0, Value::Null);
        let path = format!("/zstack/v1/api-jobs/{}", encode(&job.uuid));
        loop {
            let (status, answer) = self.send(Method::Get, &path, None, hold_seconds)?;
            if status != http::StatusCode::ACCEPTED {
                return Ok(answer);
            }
            if answer["waitsFor"] != heard {
                heard = answer["waitsFor"].clone();
                let reasons = heard.as_array().into_iter().flatten().filter_map(Value::as_str);
                hear(&reasons.collect::<Vec<_>>());
            }
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                let (message, uuid) = (job.message.clone(), job.uuid.clone());
                return Err(Error::Timeout { message, seconds: patience.as_secs(), job: uuid });
            }
            // A second at least: the server holds for whole ones.
            hold_seconds = left.as_secs().clamp(1, HOLD_SECONDS);
        }
    }

    /// Resources of a kind, by conditions such as `name=web`.
    ///
    /// # Errors
    /// A condition that is not understood, or no answer.
    pub fn query(&self, path: &str, conditions: &[String]) -> Result<Vec<Value>, Error> {
        let pairs: Vec<_> = conditions.iter().map(|c| ("q".to_owned(), c.clone())).collect();
        self.query_all(path, &pairs)
    }

    /// All that a query with these pairs finds, in the order of uuids, page by page: none that lives
    /// meanwhile is missed, none is there twice. The pairs are conditions and `fields`.
    ///
    /// # Errors
    /// A pair that is not understood, or no answer.
    pub fn query_all(&self, path: &str, pairs: &[(String, String)]) -> Result<Vec<Value>, Error> {
        let mut pairs = pairs.to_vec();
        let fields = pairs.iter_mut().find(|(key, _)| key == "fields");
        let lacks_uuid = fields.is_some_and(|(_, names)| {
            let lacks = names.split(',').all(|name| name.trim() != "uuid");
            if lacks {
                names.push_str(",uuid");
            }
            lacks
        });
        pairs.push(("limit".to_owned(), PAGE.to_string()));
        let (mut all, known) = (Vec::new(), pairs.len());
        loop {
            let mut answer = self.query_pairs(path, &pairs)?;
            let Value::Array(mut page) = answer["inventories"].take() else { return Ok(all) };
            let last = page.last().and_then(|last| last["uuid"].as_str()).map(str::to_owned);
            let is_last = page.len() < PAGE;
            if lacks_uuid {
                let objects = page.iter_mut().filter_map(Value::as_object_mut);
                objects.for_each(|object| drop(object.remove("uuid")));
            }
            all.append(&mut page);
            let Some(last) = last.filter(|_| !is_last) else { return Ok(all) };
            pairs.truncate(known);
            pairs.push(("after".to_owned(), last));
        }
    }

    /// The whole answer to a query with these pairs in its query string.
    ///
    /// # Errors
    /// A pair that is not understood, or no answer.
    pub fn query_pairs(&self, path: &str, pairs: &[(String, String)]) -> Result<Value, Error> {
        let encoded: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
        let path = format!("/zstack/v1{path}?{}", encoded.join("&"));
        self.send(Method::Get, &path, None, 0).map(|(_, answer)| answer)
    }

    /// What the server would pass over for ZStack's clients it refuses here: whoever uses this client
    /// wants to hear of a typing error.
    fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        hold_seconds: u64,
    ) -> Result<(http::StatusCode, Value), Error> {
        let url = format!("{}{path}", self.base);
        let verb = match method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::Delete => http::Method::DELETE,
        };
        let unreachable = |cause: String| Error::Unreachable { url: url.clone(), cause };
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut request = http::Request::builder()
            .method(verb)
            .uri(&url)
            .header("content-type", "application/json")
            // A field that the server does not know is a mistake here, not something to pass over.
            .header("prefer", format!("wait={hold_seconds}, handling=strict"))
            .header("x-json-schema", "false");
        if let Some(session) = &self.session {
            request = request.header("authorization", format!("OAuth {session}"));
        }
        let request = request.body(text).map_err(|cause| unreachable(cause.to_string()))?;
        let answer = self.agent.run(request).map_err(|cause| match trust::refusal(&cause) {
            Some(cause) => Error::Untrusted { url: url.clone(), cause },
            None => unreachable(cause.to_string()),
        })?;
        let status = answer.status();
        let text = whole(answer.into_body(), ANSWER_MAX_BYTES).map_err(|cause| match cause {
            ureq::Error::BodyExceedsLimit(max_bytes) => {
                Error::TooLarge { url: url.clone(), max_bytes }
            }
            other => unreachable(other.to_string()),
        })?;
        read(status, text)
    }
}

/// What sends requests, to servers that one of these authorities vouches for if it is by TLS.
fn agent(trusted: Vec<Certificate<'static>>, limit: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(limit))
        .tls_config(trust::config(trusted))
        .build()
        .into()
}

/// A body as text.
fn whole(body: ureq::Body, max_bytes: u64) -> Result<String, ureq::Error> {
    body.into_with_config().limit(max_bytes).read_to_string()
}

/// Tells results from errors.
fn read(status: http::StatusCode, text: String) -> Result<(http::StatusCode, Value), Error> {
    let answer: Option<Value> = serde_json::from_str(&text).ok();
    match answer {
        Some(answer) if status.is_success() => Ok((status, answer)),
        Some(answer) if answer["error"].is_object() => {
            let error = &answer["error"];
            let text = |value: &Value| value.as_str().map(str::to_owned);
            Err(Error::Refused {
                code: text(&error["code"]).unwrap_or_default(),
                details: text(&error["details"]).unwrap_or_default(),
                field: text(&error["opaque"]["field"]),
                hint: text(&error["elaboration"]),
            })
        }
        _ => Err(Error::Protocol { status: status.as_u16(), text }),
    }
}

/// Path and body of a call: placeholders are filled in, the rest goes where the message wants it.
fn shape(
    def: &MessageDef,
    mut params: Map<String, Value>,
    system_tags: &[String],
) -> (String, Option<Value>) {
    let mut path = format!("/zstack/v1{}", def.path);
    for field in def.fields {
        let placeholder = format!("{{{}}}", field.name);
        if path.contains(&placeholder)
            && let Some(value) = params.remove(field.name)
        {
            path = path.replace(&placeholder, &encode(&plain(&value)));
        }
    }
    let mut body = Map::new();
    // Beside the fields, as `systemTags` is.
    if let Some(tags) = params.remove("userTags") {
        body.insert("userTags".into(), tags);
    }
    match def.fields_in {
        FieldsIn::Below(key) => drop(body.insert(key.to_owned(), Value::Object(params))),
        FieldsIn::Path | FieldsIn::Query => {
            let pairs =
                params.iter().map(|(key, value)| format!("{key}={}", encode(&plain(value))));
            let pairs: Vec<String> = pairs.collect();
            if !pairs.is_empty() {
                path = format!("{path}?{}", pairs.join("&"));
            }
        }
    }
    if !system_tags.is_empty() {
        body.insert("systemTags".into(), json!(system_tags));
    }
    (path, (!body.is_empty()).then_some(Value::Object(body)))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_answers_are_read_and_longer_ones_told_as_such() {
        let body = |bytes: usize| ureq::Body::builder().data("x".repeat(bytes));
        assert_eq!(whole(body(11 << 20), ANSWER_MAX_BYTES).unwrap().len(), 11 << 20);
        let refused = whole(body(11), 10).unwrap_err();
        assert!(matches!(refused, ureq::Error::BodyExceedsLimit(10)), "{refused}");
    }

    #[test]
    fn lists_are_written_as_the_server_reads_them() {
        let params = object(json!({"l3NetworkUuids": ["ab", "cd"], "all": true}));
        let (path, body) = shape(message("GetIpAddressCapacity").unwrap(), params, &[]);
        assert_eq!(path, "/zstack/v1/ip-capacity?all=true&l3NetworkUuids=ab%2Ccd");
        assert_eq!(body, None);
    }

    #[test]
    fn path_variables_leave_the_body() {
        let params = object(json!({"l3NetworkUuid": "ab", "name": "r"}));
        let (path, body) = shape(message("AddIpRange").unwrap(), params, &[]);
        assert_eq!(path, "/zstack/v1/l3-networks/ab/ip-ranges");
        assert_eq!(body, Some(json!({"params": {"name": "r"}})));
        let params = object(json!({"name": "z", "userTags": ["a"]}));
        let (_, body) = shape(message("CreateZone").unwrap(), params, &[]);
        assert_eq!(body, Some(json!({"params": {"name": "z"}, "userTags": ["a"]})));
        let params = object(json!({"uuid": "a/b", "deleteMode": "Permissive"}));
        let (path, body) = shape(message("DeleteZone").unwrap(), params, &[]);
        assert_eq!((path.as_str(), body), ("/zstack/v1/zones/a%2Fb?deleteMode=Permissive", None));
    }
}
