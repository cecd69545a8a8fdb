//! Connections over real sockets: slow, idle and too many ones end, and none keeps a login out.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use netloom_api::Limits;
use support::{PATIENCE, Running};

/// What comes until the server closes; how long that took.
fn until_closed(mut stream: &TcpStream) -> (String, Duration) {
    let (started, mut text) = (Instant::now(), Vec::new());
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        // Closed while something was still on its way to it.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("still open after {:?}: {error}", started.elapsed()),
    }
    (String::from_utf8(text).unwrap(), started.elapsed())
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn short(milliseconds: u64) -> Limits {
    let wait = Duration::from_millis(milliseconds);
    Limits { head_wait: wait, body_wait: wait, idle_wait: wait, ..Limits::default() }
}

/// One answer with a body of a known length, off an open connection.
fn one_answer(mut stream: &TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    text
}

const GET: &str = "GET /v1/zones HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn each_wait_for_a_client_has_an_end() {
    let running = Running::start(short(700));
    let login = "PUT /v1/accounts/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{";
    let silent = running.open("");
    let half_a_head = running.open("GET /v1/zones HTTP/1.1\r\nHo");
    let half_a_body = running.open(login);
    let asked = running.open(GET);
    assert!(one_answer(&asked).contains(" 400 "));
    for stream in [&silent, &half_a_head, &half_a_body, &asked] {
        let (text, took) = until_closed(stream);
        assert!(took < Duration::from_secs(5), "{text} after {took:?}");
    }
}

#[test]
fn a_body_that_trickles_is_refused_with_a_reason() {
    let running = Running::start(short(700));
    let head = "PUT /v1/accounts/login HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n";
    let mut stream = running.open(head);
    let started = Instant::now();
    let mut answer = [0; 4096];
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let read = loop {
        // The server may have closed its end already; the answer is there then.
        let _ = stream.write_all(b" ");
        match stream.read(&mut answer) {
            Ok(read) => break read,
            Err(_) => assert!(started.elapsed() < PATIENCE, "no answer"),
        }
    };
    let text = String::from_utf8_lossy(&answer[..read]);
    assert!(text.contains(" 400 ") && text.contains("in time"), "{text}");
}

#[test]
fn a_quiet_connection_gives_its_buffers_back_and_goes_on_later() {
    let running = Running::start(Limits { idle_wait: PATIENCE, ..short(500) });
    let mut stream = running.open(&GET.repeat(3));
    for _ in 0..3 {
        assert!(one_answer(&stream).contains(" 400 "), "pipelined");
    }
    // Longer than it keeps buffers, and longer than a head may take.
    for part in ["GET /v1/zones HTTP/1.1\r\n", "Host: x\r\n\r\n"] {
        assert!(is_open(&stream));
        if part.starts_with("GET") {
            stream.set_read_timeout(Some(Duration::from_millis(3500))).unwrap();
            assert!(stream.peek(&mut [0]).is_err(), "nothing comes by itself");
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        stream.write_all(part.as_bytes()).unwrap();
    }
    assert!(one_answer(&stream).contains(" 400 "));
    stream.write_all(b"GET /v1/zones HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let (text, took) = until_closed(&stream);
    assert!(text.contains(" 400 ") && took < Duration::from_secs(1), "{took:?} {text}");
}

#[test]
fn strangers_without_number_keep_nobody_out() {
    let limits = Limits { connections_max: 20, ..Limits::default() };
    let running = Running::start(limits);
    let session = running.log_in();
    let login = "PUT /v1/accounts/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{";
    let kinds = ["", "GET /v1/zones HTTP/1.1\r\nHo", login, GET];
    let strangers: Vec<_> = (0..100).map(|at| running.open(kinds[at % 4])).collect();
    running.log_in().query("/zones", &[]).unwrap();
    session.query("/zones", &[]).unwrap();
    assert!(strangers.iter().filter(|stream| is_open(stream)).count() <= 20);
    until_closed(&strangers[0]);
    drop(strangers);
    running.log_in();
}

#[test]
fn whoever_does_not_read_its_answer_is_cut() {
    let limits = Limits { unread_wait: Duration::from_millis(700), ..Limits::default() };
    let running = Running::start(limits);
    let session = running.log_in().session().unwrap().to_owned();
    let request =
        format!("GET /v1/zones HTTP/1.1\r\nHost: x\r\nAuthorization: OAuth {session}\r\n\r\n");
    let mut stream = running.open("");
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // Until the answers fill both sockets' buffers the server reads on; then it must give up.
    let (started, batch) = (Instant::now(), request.repeat(1000));
    while stream.write_all(batch.as_bytes()).is_ok() {
        assert!(started.elapsed() < PATIENCE, "still served");
    }
}
