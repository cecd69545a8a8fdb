//! Guests with sockets of their own, behind devices of this process. Needs root.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::Mutex,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType, rdata::A},
};
use hostnet::scratch::root_or_skip;
use uuid::Uuid;
use wire::object::{About, Object};

use super::*;
use crate::{
    Refusal,
    sample::{self, INSTANCE, about, ip, port, put},
};

const OTHER: Uuid = Uuid::from_u128(0x99);

/// A guest: a namespace that is behind a port.
struct Guest {
    namespace: Namespace,
    tun: Arc<Tun>,
}

impl Guest {
    async fn new(ips: &[&str]) -> Self {
        let namespace = Namespace::unnamed("a guest").unwrap();
        let settings = [("net/ipv6/conf/all/disable_ipv6", "0")];
        namespace.sysctls(&settings).unwrap();
        let tun = Arc::new(namespace.tun("eth0").unwrap());
        let netlink = namespace.netlink().await.unwrap();
        let link = netlink.existing("eth0").await.unwrap();
        netlink.set_up(link.index).await.unwrap();
        for text in ips {
            let bits = if text.contains(':') { 64 } else { 24 };
            netlink.address_add(link.index, ip(text), bits).await.unwrap();
        }
        let to = To::Device(link.index, 65_535);
        netlink.route_add(ip("169.254.169.254"), 32, to).await.unwrap();
        Self { namespace, tun }
    }

    /// A request by HTTP; the whole answer.
    async fn http(&self, at: &str, request: &str) -> String {
        let (namespace, at) = (self.namespace.clone(), at.to_owned());
        let request = format!("{request}\r\nConnection: close\r\n\r\n");
        let done = tokio::task::spawn_blocking(move || {
            namespace.run_in(|| {
                let mut stream = TcpStream::connect(&*at).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                stream.write_all(request.as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            })
        });
        done.await.unwrap().unwrap()
    }

    async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254");
        let answer = self.http("169.254.169.254:80", &request).await;
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// A question about a name.
    async fn ask(&self, at: &str, name: &str, kind: RecordType, is_tcp: bool) -> Message {
        let (namespace, at) = (self.namespace.clone(), SocketAddr::new(ip(at), 53));
        let question = question(name, kind);
        let done = tokio::task::spawn_blocking(move || {
            namespace.run_in(|| if is_tcp { by_tcp(at, &question) } else { by_udp(at, &question) })
        });
        Message::from_vec(&done.await.unwrap().unwrap()).unwrap()
    }
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn by_tcp(at: SocketAddr, question: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let length = u16::try_from(question.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn by_udp(at: SocketAddr, question: &[u8]) -> Vec<u8> {
    let any: IpAddr = if at.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect(at).unwrap();
    socket.send(question).unwrap();
    let mut answer = vec![0; 65_536];
    let length = socket.recv(&mut answer).unwrap();
    answer.truncate(length);
    answer
}

/// Two tenants with the same addresses, ports 1 and 2.
struct Host {
    guests: [Guest; 2],
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
    /// Lengths of all frames from guests.
    lengths: Arc<Mutex<Vec<usize>>>,
    /// How much guests were told that they may send.
    windows: Arc<Mutex<Vec<u16>>>,
}

impl Host {
    async fn new() -> Self {
        let ips = ["10.0.0.5", "fd00:1::5"];
        let guests = [Guest::new(&ips).await, Guest::new(&ips).await];
        let shared = Arc::new(Shared::new([9; 32]));
        shared.change(|directory| {
            let red = port(1, INSTANCE, "red-1", &ips);
            let mut blue = port(2, OTHER, "blue-1", &ips);
            let (mut theirs, theirs_uuid) = (sample::subnet(), Uuid::from_u128(8));
            theirs.uuid = theirs_uuid;
            blue.addresses.iter_mut().for_each(|address| address.subnet = Some(theirs_uuid));
            let other = About { uuid: OTHER, hostname: "blue-1".to_owned(), ..about() };
            let objects = [
                Object::Port(red),
                Object::Port(blue),
                Object::About(about()),
                Object::About(other),
                Object::Subnet(sample::subnet()),
                Object::Subnet(theirs),
            ];
            put(directory, objects);
        });
        let (frames, handed) = mpsc::channel(64);
        let lengths = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for (number, guest) in (1..).zip(&guests) {
            let (tun, frames, lengths) = (Arc::clone(&guest.tun), frames.clone(), lengths.clone());
            tasks.spawn(async move {
                let mut buffer = vec![0; 65_536];
                loop {
                    let length = tun.receive(&mut buffer).await.unwrap();
                    let kind: [u8; 2] = if buffer[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
                    let macs = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
                    let frame = [&macs[..], &kind, &buffer[..length]].concat();
                    lengths.lock().unwrap().push(frame.len());
                    frames.send(Handed { port: number, ifindex: number, frame }).await.unwrap();
                }
            });
        }
        let tuns = guests.each_ref().map(|guest| Arc::clone(&guest.tun));
        let windows = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&windows);
        let deliver = move |ifindex: u32, frame: &[u8]| {
            if let Ok((_, segment)) = crate::translate::read_frame(frame)
                && segment.protocol == crate::translate::Protocol::Tcp
            {
                let window = [segment.bytes[14], segment.bytes[15]];
                told.lock().unwrap().push(u16::from_be_bytes(window));
            }
            let _ = tuns[ifindex as usize - 1].send(&frame[14..]);
        };
        let serving = Arc::clone(&shared);
        tasks.spawn(serve(serving, handed, deliver, CancellationToken::new()));
        Self { guests, shared, _tasks: tasks, lengths, windows }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_with_the_same_addresses_read_what_is_theirs() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let path = "/latest/meta-data/local-hostname";
    let [red, blue] = &host.guests;
    for _ in 0..5 {
        let (mine, theirs) = tokio::join!(red.get(path), blue.get(path));
        assert_eq!([&*mine, &*theirs], ["red-1.example.internal", "blue-1"]);
    }
    // A head as long as nobody sends it takes many segments, none of which is too long.
    let long =
        format!("GET {path} HTTP/1.1\r\nHost: 169.254.169.254\r\nX-Long: {}", "x".repeat(6000));
    let answer = red.http("169.254.169.254:80", &long).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let longer = format!("{long}{}", "x".repeat(6000));
    let answer = red.http("169.254.169.254:80", &longer).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let longest = host.lengths.lock().unwrap().iter().max().copied();
    assert!(longest.is_some_and(|bytes| bytes <= 1300), "{longest:?}");
    // Nor may a guest that leaves segments to its device have more under way.
    let widest = host.windows.lock().unwrap().iter().max().copied();
    assert!(widest.is_some_and(|bytes| bytes <= 1400), "{widest:?}");
    // Long answers come whole.
    let user_data = "#!/bin/sh\n".repeat(6400);
    let told = wire::told::Bytes(user_data.clone().into_bytes());
    host.shared.change(|directory| {
        put(directory, [Object::About(About { user_data: Some(told), ..about() })]);
    });
    assert_eq!(red.get("/latest/user-data").await, user_data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_answered_by_udp_and_tcp_in_both_families() {
    if !root_or_skip() {
        return;
    }
    let host = Host::new().await;
    let [red, blue] = &host.guests;
    for at in ["10.0.0.3", "fd00:1::3"] {
        for is_tcp in [false, true] {
            let name = "red-1.example.internal.";
            let answer = red.ask(at, name, RecordType::A, is_tcp).await;
            let found: Vec<_> = answer.answers.iter().map(|record| record.data.clone()).collect();
            assert_eq!(found, [RData::A(A("10.0.0.5".parse().unwrap()))], "{at} {is_tcp}");
            // The other tenant has a network of its own.
            let answer = blue.ask(at, name, RecordType::A, is_tcp).await;
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{at} {is_tcp}");
        }
    }
    // Many at once, each the answer to its own.
    let many = futures_util::future::join_all((0..40).map(|number| {
        let guest = &host.guests[number % 2];
        let name = ["red-1.", "blue-1."][number % 2];
        guest.ask("10.0.0.3", name, RecordType::A, number % 3 == 0)
    }));
    for answer in many.await {
        assert_eq!(answer.answers.len(), 1, "{answer:?}");
    }
    // What is not served is counted.
    let namespace = red.namespace.clone();
    let send = move || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(&question("red-1.", RecordType::A), "10.0.0.77:53")
    };
    namespace.run_in(send).unwrap().unwrap();
    let limit = tokio::time::Instant::now() + Duration::from_secs(10);
    while !host
        .shared
        .refusals()
        .iter()
        .any(|(why, n)| (*why, *n > 0) == (Refusal::NotServed, true))
    {
        assert!(tokio::time::Instant::now() < limit, "{:?}", host.shared.refusals());
        sleep(Duration::from_millis(10)).await;
    }
}
