//! Sends the results of calls to the addresses that callers name in `X-Web-Hook`.
//!
//! The server connects to an address that it has checked itself, not to a name: a name may mean
//! another address a moment later. It follows no redirect, uses no proxy, and reads no answer but
//! its status. HTTP alone: there is nothing that says whose certificates a receiver's would be.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use axum::http::{
    Request, Uri,
    header::{CONTENT_TYPE, HOST},
};
use control::webhook::{About, NotSent, Post, Reach, URL_MAX};
use ureq::Agent;

/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a result is to be sent.
pub(crate) struct Target {
    host: String,
    port: u16,
    /// As the receiver knows itself.
    pub(crate) authority: String,
    pub(crate) path: String,
}

impl Target {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(url: &str) -> Result<Self, String> {
        if url.len() > URL_MAX {
            return Err(format!("is over {URL_MAX} bytes long"));
        }
        let uri: Uri = url.parse().map_err(|_| "is no URL".to_owned())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("is https, which is not served: use http".to_owned()),
            _ => return Err("is no http URL".to_owned()),
        }
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("has a user in it".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self { host, port, authority: authority.to_string(), path })
    }

    /// An address of its host that may be sent to.
    pub(crate) fn resolve(&self, reach: &Reach) -> Result<SocketAddr, NotSent> {
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let found: Vec<SocketAddr> =
            found.map_err(|cause| again(format!("{}: {cause}", self.host)))?.collect();
        let fitting = found.iter().find(|address| reach.includes(address.ip()));
        match (fitting, found.first()) {
            (Some(address), _) => Ok(*address),
            (None, Some(address)) => Err(never(forbidden(address.ip()))),
            (None, None) => Err(again(format!("{} has no address", self.host))),
        }
    }
}

/// Checks what a caller has written: all that can be said without asking anybody for an address.
///
/// # Errors
/// A text for `400`.
pub(crate) fn check(url: &str, reach: &Reach) -> Result<(), String> {
    let target = Target::read(url).map_err(|rule| format!("X-Web-Hook {rule}"))?;
    match target.host.parse() {
        Ok(ip) if !reach.includes(ip) => Err(format!("X-Web-Hook: {}", forbidden(ip))),
        _ => Ok(()),
    }
}

fn forbidden(ip: IpAddr) -> String {
    format!(
        "nothing is sent to {ip} for this account: it is not public, and not among the networks of \
         the setting rest/webHook.networks"
    )
}

fn again(why: String) -> NotSent {
    NotSent { why, is_tried_again: true }
}

fn never(why: String) -> NotSent {
    NotSent { why, is_tried_again: false }
}

/// What sends results.
#[derive(Clone, Debug)]
pub struct Sender(Agent);

impl Default for Sender {
    fn default() -> Self {
        Self(agent(TIMEOUT))
    }
}

/// What follows no redirect, uses no proxy, and ends after this time.
pub(crate) fn agent(timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .timeout_global(Some(timeout))
        .user_agent("netloom");
    config.build().into()
}

impl Sender {
    /// Sends a result, once. It takes some seconds at most, besides asking for the address.
    ///
    /// # Errors
    /// Why nobody has taken it.
    pub fn send(&self, post: &Post) -> Result<(), NotSent> {
        let target = Target::read(&post.url).map_err(never)?;
        let address = target.resolve(&post.reach)?;
        let [first, second] = match post.about {
            About::Result { job, is_success } => {
                [("x-job-uuid", job.to_string()), ("x-job-success", is_success.to_string())]
            }
            About::Changes { webhook, revision } => {
                [("x-webhook-uuid", webhook.to_string()), ("x-revision", revision.to_string())]
            }
        };
        let request = Request::post(format!("http://{address}{}", target.path))
            .header(HOST, &target.authority)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header(first.0, first.1)
            .header(second.0, second.1)
            .body(post.body.as_str())
            .map_err(|cause| never(cause.to_string()))?;
        let answer = self.0.run(request).map_err(|cause| again(format!("{address}: {cause}")))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(again(format!("{address} answered {status}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_to_a_host_that_may_be_reached_is_taken() {
        let nobody = Reach::Public(Vec::new());
        for (url, part) in [
            ("http://192.0.2.1.example/x?y=1", None),
            ("http://1.1.1.1:8080", None),
            ("https://1.1.1.1/", Some("https")),
            ("ftp://1.1.1.1/", Some("no http URL")),
            ("1.1.1.1:80", Some("no http URL")),
            ("/x", Some("no http URL")),
            ("", Some("no URL")),
            ("http://user:pass@1.1.1.1/", Some("user")),
            ("http://127.0.0.1/", Some("not public")),
            ("http://[::1]:80/", Some("not public")),
            ("http://169.254.169.254/latest/meta-data", Some("not public")),
            ("http://[::ffff:10.0.0.1]/", Some("not public")),
        ] {
            match (check(url, &nobody), part) {
                (Ok(()), None) => {}
                (Err(text), Some(part)) => assert!(text.contains(part), "{url}: {text}"),
                (other, part) => panic!("{url}: {other:?}, {part:?}"),
            }
        }
        assert!(check(&format!("http://1.1.1.1/{}", "x".repeat(URL_MAX)), &nobody).is_err());
        assert_eq!(check("http://127.0.0.1/", &Reach::Everywhere), Ok(()));
    }

    /// Other ways to write 127.0.0.1 that the C library reads.
    #[test]
    fn a_name_is_checked_by_the_addresses_that_it_has() {
        let reach = Reach::Public(Vec::new());
        for url in ["http://localhost/", "http://127.1/", "http://2130706433/", "http://0x7f.1/"] {
            let target = Target::read(url).unwrap();
            if let Ok(address) = target.resolve(&reach) {
                panic!("{url} is {address}");
            }
        }
        let local = Target::read("http://localhost:1/").unwrap();
        let refused = local.resolve(&reach).unwrap_err();
        assert!(!refused.is_tried_again && refused.why.contains("not public"), "{refused:?}");
        assert!(local.resolve(&Reach::Everywhere).unwrap().ip().is_loopback());
    }
}
