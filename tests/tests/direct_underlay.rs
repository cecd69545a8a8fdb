//! Frames to another host leave past the tunnel device and come in past it, and are the same packets
//! on the wire.
//! Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{LIMIT, TestLab, frames::Wire, root_or_skip};

/// Requests of a conversation, each answered.
const REQUESTS: usize = 200;
/// Bytes that a connection carries: enough for segments to be gathered, which need the device.
const BYTES: usize = 4 << 20;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

#[test]
fn frames_leave_and_come_in_past_the_tunnel_device() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (red_1, red_2) = (lab.namespace("red-1"), lab.namespace("red-2"));
    let hosts = ["h1", "h2"].map(|host| lab.namespace(host));
    // The largest is as much as the VM's MTU holds.
    for (ip, largest) in [("10.0.0.12", 1_422), ("fd00::12", 1_402)] {
        for size in [1, 700, largest] {
            let before = hosts.each_ref().map(through_device);
            converse(&red_1, &red_2, ip.parse().unwrap(), size);
            let after = hosts.each_ref().map(through_device);
            assert_eq!(before, after, "{REQUESTS} requests of {size} bytes to {ip}");
        }
    }
}

/// Policies hold for what passes the device. They may come and go while agents run.
#[test]
fn where_a_host_has_ipsec_policies_its_frames_pass_the_tunnel_device() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (red_1, red_2) = (lab.namespace("red-1"), lab.namespace("red-2"));
    let hosts = ["h1", "h2"].map(|host| lab.namespace(host));
    let passed = || {
        let before = hosts.each_ref().map(through_device);
        converse(&red_1, &red_2, "10.0.0.12".parse().unwrap(), 700);
        let after = hosts.each_ref().map(through_device);
        let each = |host: usize| [0, 1].map(|way| after[host][way] - before[host][way]);
        [each(0), each(1)]
    };
    let some = u64::try_from(REQUESTS).unwrap();
    assert_eq!(passed(), [[0, 0]; 2]);
    // One that concerns nobody: what it is about is the host's business.
    let policy = "src 198.51.100.0/24 dst 203.0.113.0/24 dir out";
    lab.ip("h1", &format!("xfrm policy add {policy}"));
    let restart = |lab: &TestLab| {
        lab.kill(&["h1"]);
        lab.start(&["h1"]);
        lab.settle(&["h1", "h2"]);
    };
    restart(&lab);
    let [[received, sent], other] = passed();
    assert!(received >= some && sent >= some, "{received} and {sent} at the host with a policy");
    assert_eq!(other, [0, 0], "at the host without");
    lab.ip("h1", &format!("xfrm policy delete {policy}"));
    assert!(wait::holds(LIMIT, || passed() == [[0, 0]; 2]), "the agent looks again");
    lab.ip("h1", &format!("xfrm policy add {policy}"));
    let all_pass = || {
        let [[received, sent], _] = passed();
        received >= some && sent >= some
    };
    assert!(wait::holds(LIMIT, all_pass), "the agent looks again");
}

#[test]
fn a_connection_keeps_its_outer_port_on_both_ways() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (red_1, red_2) = (lab.namespace("red-1"), lab.namespace("red-2"));
    let (host, wire) = (lab.namespace("h1"), Wire::open(&lab.namespace("h2")));
    let [_, before] = through_device(&host);
    let is_over = AtomicBool::new(false);
    let (port, frames) = thread::scope(|scope| {
        // All the time, as the socket holds a few of the large ones only.
        let heard = scope.spawn(|| {
            let mut frames = Vec::new();
            loop {
                let is_last = is_over.load(Ordering::Relaxed);
                frames.extend(std::iter::from_fn(|| wire.take()));
                if is_last {
                    return frames;
                }
                thread::yield_now();
            }
        });
        let port = transfer(&red_1, &red_2, "10.0.0.12".parse().unwrap());
        is_over.store(true, Ordering::Relaxed);
        (port, heard.join().unwrap())
    });
    assert!(through_device(&host)[1] > before, "segments are gathered, and need the device");
    let (mut seen, mut lengths) = (BTreeSet::new(), Vec::new());
    for frame in frames {
        let Some(inner) = frame.get(14 + 36..) else { continue };
        let is_vxlan = frame[12..14] == [8, 0] && frame[23] == 17 && frame[36..38] == [0x21, 0x18];
        let is_tcp = inner.len() > 38 && inner[12..14] == [8, 0] && inner[23] == 6;
        if !is_vxlan || !is_tcp || inner[34..36] != port.to_be_bytes() {
            continue;
        }
        lengths.push(frame.len());
        seen.insert([frame[34], frame[35]]);
        assert_eq!(frame[42..46], [8, 0, 0, 0], "a plain VXLAN header");
        assert_eq!(frame[40..42], [0, 0], "no outer checksum");
        assert_eq!(frame[22], 64, "the hop limit");
    }
    let [short, long] =
        [lengths.iter().any(|length| *length < 200), lengths.iter().any(|length| *length > 1_600)];
    assert!(short && long, "both ways are taken: {lengths:?}");
    assert_eq!(seen.len(), 1, "one source port for one flow: {seen:?}");
}

/// Packets that the tunnel device of a host has received and sent.
fn through_device(host: &Namespace) -> [u64; 2] {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
    let text = host.run_in(read).unwrap().unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("nlvx:")).unwrap();
    let fields: Vec<_> = line.split_whitespace().collect();
    [1, 9].map(|field| fields[field].parse().unwrap())
}

/// Sends requests of so many bytes, one after the other, each answered by the same.
fn converse(from: &Namespace, to: &Namespace, ip: IpAddr, size: usize) {
    let server = to.run_in(|| UdpSocket::bind((ip, 0))).unwrap().unwrap();
    let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = from.run_in(|| UdpSocket::bind(any)).unwrap().unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    server.set_read_timeout(Some(ANSWER)).unwrap();
    client.set_read_timeout(Some(ANSWER)).unwrap();
    let mut buffer = vec![0; 2_000];
    for number in 0..REQUESTS {
        let request = vec![u8::try_from(number % 251).unwrap(); size];
        client.send(&request).unwrap();
        let (length, peer) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..length], peer).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], request, "request {number} of {size} bytes");
    }
}

/// Carries bytes over one connection, and back; the client's port.
fn transfer(from: &Namespace, to: &Namespace, ip: IpAddr) -> u16 {
    let server = to.run_in(|| TcpListener::bind((ip, 0))).unwrap().unwrap();
    let address = server.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut bytes = vec![0; BYTES];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let mut stream = from.run_in(|| TcpStream::connect_timeout(&address, ANSWER)).unwrap().unwrap();
    let port = stream.local_addr().unwrap().port();
    let bytes: Vec<u8> = (0..BYTES).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    stream.write_all(&bytes).unwrap();
    let mut back = vec![0; BYTES];
    stream.read_exact(&mut back).unwrap();
    assert!(back == bytes, "the bytes come back as they were sent");
    echo.join().unwrap();
    port
}
