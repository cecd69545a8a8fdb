//! The door with TLS, over real sockets.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use client::Client;
use netloom_api::{Identity, Limits};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::json;
use support::{PASSWORD, PATIENCE, Running};
use tokio::sync::watch;

/// A certificate for 127.0.0.1 that vouches for itself, and what is made of it and its key.
fn identity() -> (String, Identity) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::read(certificate.as_bytes(), key.as_bytes()).unwrap();
    (certificate, identity)
}

struct Secure {
    running: Running,
    certificate: String,
    identity: watch::Sender<Identity>,
}

fn start(limits: Limits) -> Secure {
    let (certificate, identity) = identity();
    let (identity, shown) = watch::channel(identity);
    Secure { running: Running::start_with(limits, Some(shown)), certificate, identity }
}

impl Secure {
    fn client(&self, trusted: &str) -> Client {
        let base = format!("https://{}", self.running.address);
        Client::new(&base).trusting(trusted).unwrap()
    }

    fn logs_in(&self, trusted: &str) -> Result<(), client::Error> {
        self.client(trusted).log_in("admin", PASSWORD)
    }

    fn raw(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(session, self.running.open(""))
    }
}

/// One answer with a body of a known length, off an open connection.
fn one_answer(stream: &mut impl Read) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

fn short(milliseconds: u64) -> Limits {
    let wait = Duration::from_millis(milliseconds);
    Limits { head_wait: wait, body_wait: wait, idle_wait: wait, ..Limits::default() }
}

const GET: &str = "GET /v1/zones HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn calls_go_over_tls_and_their_jobs_are_found_there() {
    let secure = start(Limits::default());
    let mut client = secure.client(&secure.certificate);
    client.log_in("admin", PASSWORD).unwrap();
    let params = json!({"name": "z"}).as_object().unwrap().clone();
    client.call("CreateZone", params, &[]).unwrap();
    let body = r#"{"params":{"name":"y"}}"#;
    let call = format!(
        "POST /v1/zones HTTP/1.1\r\nHost: here\r\nAuthorization: OAuth {}\r\n\
         X-Forwarded-Proto: gopher\r\nContent-Length: {}\r\n\r\n{body}",
        client.session().unwrap(),
        body.len()
    );
    let mut stream = secure.raw();
    stream.write_all(call.as_bytes()).unwrap();
    let answer = one_answer(&mut stream);
    assert!(answer.contains("location: https://here/zstack/v1/api-jobs/"), "{answer}");
}

#[test]
fn a_certificate_that_nobody_known_has_made_is_refused_with_a_hint() {
    let secure = start(Limits::default());
    let refused = secure.logs_in(&identity().0).unwrap_err();
    assert!(matches!(refused, client::Error::Untrusted { .. }), "{refused}");
    assert!(refused.to_string().contains("--ca"), "{refused}");
}

#[test]
fn plain_http_is_told_to_come_by_https() {
    let secure = start(Limits::default());
    let mut text = String::new();
    secure.running.open(GET).read_to_string(&mut text).unwrap_or_default();
    assert!(text.contains(" 400 ") && text.contains("https:"), "{text}");
}

#[test]
fn each_wait_for_a_handshake_has_an_end() {
    let secure = start(short(700));
    let silent = secure.running.open("");
    let mut half = secure.running.open("");
    half.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    for mut stream in [silent, half] {
        let started = Instant::now();
        let _ = stream.read_to_end(&mut Vec::new());
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[test]
fn strangers_who_say_nothing_or_half_a_word_keep_nobody_out() {
    let secure = start(Limits { connections_max: 20, ..Limits::default() });
    let strangers: Vec<_> = (0..60)
        .map(|number| {
            let mut stream = secure.running.open("");
            let word: &[u8] = if number % 2 == 0 { &[] } else { &[22, 3, 1, 2, 0, 1] };
            // Some have lost their seats to later ones already.
            let _ = stream.write_all(word);
            stream
        })
        .collect();
    secure.logs_in(&secure.certificate).unwrap();
    drop(strangers);
}

#[test]
fn a_new_certificate_is_shown_to_newcomers_and_old_connections_go_on() {
    let secure = start(Limits::default());
    let mut old = secure.raw();
    old.write_all(GET.as_bytes()).unwrap();
    assert!(one_answer(&mut old).contains(" 400 "));
    let (certificate, identity) = identity();
    secure.identity.send_replace(identity);
    secure.logs_in(&certificate).unwrap();
    assert!(secure.logs_in(&secure.certificate).is_err());
    old.write_all(GET.as_bytes()).unwrap();
    assert!(one_answer(&mut old).contains(" 400 "));
}

#[test]
fn a_quiet_connection_gives_its_buffers_back_and_goes_on_later() {
    let secure = start(Limits { idle_wait: PATIENCE, ..short(500) });
    let mut stream = secure.raw();
    // More than one read of the server takes in, in one piece.
    stream.write_all(GET.repeat(400).as_bytes()).unwrap();
    for _ in 0..400 {
        assert!(one_answer(&mut stream).contains(" 400 "), "pipelined");
    }
    stream.sock.set_read_timeout(Some(Duration::from_millis(3500))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "nothing comes by itself");
    stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(GET.as_bytes()).unwrap();
    assert!(one_answer(&mut stream).contains(" 400 "));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let pair = || rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    let (one, other) = (pair(), pair());
    let key = other.signing_key.serialize_pem();
    assert!(Identity::read(one.cert.pem().as_bytes(), key.as_bytes()).is_err());
    assert!(Identity::read(b"", key.as_bytes()).unwrap_err().contains("no certificate"));
    assert!(Identity::read(one.cert.pem().as_bytes(), b"").unwrap_err().contains("key"));
}
