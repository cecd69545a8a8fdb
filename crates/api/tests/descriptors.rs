//! No file is left to open: idle connections make room, and afterwards all is as before.
//!
//! The only test in its process, because the limit on open files is the process's.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
};

use netloom_api::Limits;
use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
};
use support::{PATIENCE, Running};

#[test]
fn a_newcomer_is_served_though_no_file_is_left() {
    let running = Running::start(Limits::default());
    running.log_in();
    let idle: Vec<_> = (0..5).map(|_| running.open("")).collect();
    // One more, so that the server has taken the idle ones when it has answered.
    running.log_in();
    let ready = [(); 3]
        .map(|()| socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let highest = ready.iter().map(AsRawFd::as_raw_fd).max().unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, u64::try_from(highest).unwrap() + 1, hard).unwrap();
    let mut fill = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        fill.push(file);
    }
    for socket in ready {
        connect(socket.as_raw_fd(), &SockaddrStorage::from(running.address)).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"GET /v1/zones HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
        // Its files stay taken, as those of many strangers would.
        std::mem::forget(stream);
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    drop((fill, idle));
    running.log_in().query("/zones", &[]).unwrap();
}
