//! What an instance may read about itself by HTTP: EC2's paths, which are ZStack's too, and
//! OpenStack's. A pure function of the objects and the request.
//!
//! Who asks is the port that the request came from, whatever it says. A guest's own software can be
//! made to ask for somebody else (SSRF): so whatever comes through a proxy is refused, as is what
//! was meant for another host (DNS rebinding), nothing is ever redirected, and with tokens on
//! nothing is told without one, which needs a PUT with a header of its own.
//!
//! Source: AWS, "Access instance metadata for an EC2 instance"; OpenStack nova, "Metadata service".

mod ec2;
mod openstack;
mod token;

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderName},
};
use wire::{
    object::{About, Port},
    told::Service,
};

use crate::directory::Directory;
pub(crate) use token::Tokens;

/// Where it is served (EC2 and OpenStack; nova for IPv6).
pub(crate) const ADDRESSES: [&str; 2] = ["169.254.169.254", "fe80::a9fe:a9fe"];
/// Bytes of OpenStack's `random_seed`.
pub(crate) const SEED_BYTES: usize = 512;

const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const TOKEN_PATH: [&str; 3] = ["latest", "api", "token"];
/// How long a token may be good for (EC2), in seconds.
const TTL_SECONDS_MAX: u32 = 6 * 3600;

/// A request.
pub(crate) struct Ask<'a> {
    /// The number of the port that it came from.
    pub(crate) port: u32,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

/// What is not the same each time.
pub(crate) struct Moment {
    /// On a clock that never goes back, in seconds.
    pub(crate) now: u64,
    pub(crate) seed: [u8; SEED_BYTES],
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) body: Vec<u8>,
    /// A header of its own.
    pub(crate) header: Option<(HeaderName, String)>,
}

/// All that can be told about one instance.
struct View<'a> {
    directory: &'a Directory,
    about: &'a About,
    /// In the order of its devices; never empty.
    nics: Vec<&'a Port>,
}

impl Answer {
    fn refused(status: StatusCode, why: &str) -> Self {
        Self { status, kind: TEXT, body: format!("{why}\n").into_bytes(), header: None }
    }

    fn found((kind, body): (&'static str, Vec<u8>)) -> Self {
        Self { status: StatusCode::OK, kind, body, header: None }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// Answers a request.
pub(crate) fn respond(
    directory: &Directory,
    tokens: &Tokens,
    ask: &Ask<'_>,
    moment: &Moment,
) -> Answer {
    if ask.headers.contains_key(FORWARDED_FOR) || ask.headers.contains_key(header::FORWARDED) {
        return Answer::refused(StatusCode::FORBIDDEN, "metadata is not for whom a proxy asks");
    }
    if !is_meant_for_us(ask.headers) {
        let why = "metadata is asked for at its address: another host was meant";
        return Answer::refused(StatusCode::FORBIDDEN, why);
    }
    let Some(path) = decoded(ask.path) else {
        return Answer::refused(StatusCode::BAD_REQUEST, "the path is no text");
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let none = || Answer::refused(StatusCode::NOT_FOUND, "there is nothing here");
    let Some(view) = View::of(directory, ask.port) else { return none() };
    if ask.method == Method::PUT && parts == TOKEN_PATH {
        return issue(tokens, ask, moment.now);
    }
    if ask.method != Method::GET && ask.method != Method::HEAD {
        let allow = if parts == TOKEN_PATH { "PUT" } else { "GET, HEAD" };
        let why = "metadata can be read, and nothing else";
        let header = Some((header::ALLOW, allow.to_owned()));
        return Answer { header, ..Answer::refused(StatusCode::METHOD_NOT_ALLOWED, why) };
    }
    let is_known = match ask.headers.get(TOKEN) {
        Some(token) => tokens.is_good(ask.port, moment.now, token.as_bytes()),
        None => !view.about.needs_token,
    };
    if !is_known {
        let why = "a token is needed: PUT /latest/api/token gives one";
        return Answer::refused(StatusCode::UNAUTHORIZED, why);
    }
    let found = match parts.split_first() {
        Some((&"openstack", rest)) => openstack::find(&view, rest, &moment.seed),
        _ => ec2::find(&view, &parts),
    };
    found.map_or_else(none, Answer::found)
}

fn issue(tokens: &Tokens, ask: &Ask<'_>, now: u64) -> Answer {
    let asked = ask.headers.get(TOKEN_TTL).and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(seconds) = asked.filter(|seconds| (1..=TTL_SECONDS_MAX).contains(seconds)) else {
        let why = format!("header {TOKEN_TTL} says how long: 1 to {TTL_SECONDS_MAX}");
        return Answer::refused(StatusCode::BAD_REQUEST, &why);
    };
    let token = tokens.issue(ask.port, now + u64::from(seconds));
    let header = Some((TOKEN_TTL, seconds.to_string()));
    Answer { header, ..Answer::found((TEXT, token.into_bytes())) }
}

/// A browser that was told that some name has our address sends that name.
fn is_meant_for_us(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        // HTTP/1.0 has none.
        (None, _) => return true,
        (Some(host), None) => host.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => return false,
    };
    let host = host.strip_suffix(":80").unwrap_or(host);
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // The zone of a link-local address is the guest's matter; some clients send it along.
    let ip = inner.split('%').next().unwrap_or_default();
    ADDRESSES.contains(&ip)
}

/// Without what follows a `?`, and with the bytes that are written as `%3a`.
fn decoded(path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or_default();
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|path| !path.contains(char::is_control))
}

impl<'a> View<'a> {
    fn of(directory: &'a Directory, port: u32) -> Option<Self> {
        let instance = directory.served(port, Service::Metadata)?.instance?;
        let about = directory.about(instance)?;
        Some(Self { directory, about, nics: directory.nics_of(instance) })
    }

    /// The NIC that its default route, DNS and name are those of; else its first one.
    fn main_nic(&self) -> Option<&'a Port> {
        let is_default = |port: &Port| port.told.as_ref().is_some_and(|told| told.is_default);
        self.nics.iter().find(|port| is_default(port)).or(self.nics.first()).copied()
    }

    /// As ZStack writes it.
    fn instance_id(&self) -> String {
        self.about.uuid.simple().to_string()
    }
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;
