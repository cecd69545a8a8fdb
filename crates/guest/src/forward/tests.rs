//! A server to ask, on loopback. Needs root for its port.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, UdpSocket},
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use hickory_proto::{
    op::MessageType,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, SOA, TXT},
    },
};
use hostnet::scratch::root_or_skip;

use super::*;

/// Serves until the process ends; the questions it got by UDP and TCP.
fn server(number: u8) -> (IpAddr, Arc<[AtomicUsize; 2]>) {
    let [.., high, low] = process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 100 + number, high, low);
    let asked: Arc<[AtomicUsize; 2]> = Arc::default();
    let (udp, counts) = (UdpSocket::bind((ip, 53)).unwrap(), Arc::clone(&asked));
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut bytes) {
            counts[0].fetch_add(1, Ordering::Relaxed);
            let answer = answer(&bytes[..length]);
            let cut =
                if answer.to_vec().unwrap().len() > 1232 { answer.truncate() } else { answer };
            udp.send_to(&cut.to_vec().unwrap(), from).unwrap();
        }
    });
    let (tcp, counts) = (TcpListener::bind((ip, 53)).unwrap(), Arc::clone(&asked));
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let (mut stream, counts) = (stream.unwrap(), Arc::clone(&counts));
            thread::spawn(move || {
                let mut length = [0; 2];
                while stream.read_exact(&mut length).is_ok() {
                    counts[1].fetch_add(1, Ordering::Relaxed);
                    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
                    stream.read_exact(&mut bytes).unwrap();
                    let answer = answer(&bytes).to_vec().unwrap();
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&length[..], &answer].concat()).unwrap();
                }
            });
        }
    });
    (ip.into(), asked)
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn answer(bytes: &[u8]) -> Message {
    let mut message = Message::from_vec(bytes).unwrap();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    let asked = message.queries[0].name().clone();
    let record = |of: &Name, data| Record::from_rdata(of.clone(), 300, data);
    match asked.to_lowercase().to_ascii().as_str() {
        "www.example.org." => {
            let other = name("web.example.org.");
            message.add_answer(record(&asked, RData::CNAME(CNAME(other.clone()))));
            message.add_answer(record(&other, RData::A(A::new(192, 0, 2, 80))));
        }
        "long.example.org." => {
            for number in 0..60 {
                let text = format!("{number} {}", "x".repeat(60));
                message.add_answer(record(&asked, RData::TXT(TXT::new(vec![text]))));
            }
        }
        "refused.example.org." => message.metadata.response_code = ResponseCode::Refused,
        _ => {
            message.metadata.response_code = ResponseCode::NXDomain;
            let zone = name("example.org.");
            let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 60);
            message.add_authority(record(&zone, RData::SOA(soa)));
        }
    }
    message
}

async fn ask(
    own: &Forwarders,
    subnet: u128,
    server: IpAddr,
    text: &str,
    kind: RecordType,
) -> Message {
    let empty = Message::response(7, hickory_proto::op::OpCode::Query);
    let query = Query::query(name(text), kind);
    own.ask(Uuid::from_u128(subnet), &[server], &query, empty).await
}

#[tokio::test]
async fn others_are_asked_once_for_each_network() {
    if !root_or_skip() {
        return;
    }
    let (ip, asked) = server(1);
    let counts = || [0, 1].map(|kind| asked[kind].load(Ordering::Relaxed));
    let own = Forwarders::default();
    for _ in 0..3 {
        let found = ask(&own, 1, ip, "www.example.org.", RecordType::A).await;
        assert_eq!((found.answers.len(), found.metadata.id), (2, 7), "{found:?}");
        assert_eq!(found.answers[1].data, RData::A(A::new(192, 0, 2, 80)));
    }
    assert_eq!(counts(), [1, 0], "the cache has it");
    ask(&own, 2, ip, "www.example.org.", RecordType::A).await;
    assert_eq!(counts(), [2, 0], "which nobody else sees");
    for _ in 0..2 {
        let nothing = ask(&own, 1, ip, "nothing.example.org.", RecordType::A).await;
        assert_eq!(nothing.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(nothing.authorities.len(), 1, "a client needs it to remember that");
    }
    assert_eq!(counts(), [3, 0]);
    let long = ask(&own, 1, ip, "long.example.org.", RecordType::TXT).await;
    assert_eq!(long.answers.len(), 60);
    assert_eq!(counts(), [4, 1], "what is cut is asked for by TCP");
    let refused = ask(&own, 1, ip, "refused.example.org.", RecordType::A).await;
    assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
    // Other servers have another cache.
    let (other, theirs) = server(2);
    ask(&own, 1, other, "www.example.org.", RecordType::A).await;
    assert_eq!(theirs[0].load(Ordering::Relaxed), 1);
    own.retain(|subnet| subnet == Uuid::from_u128(2));
    assert_eq!(own.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_silent_is_not_waited_for_for_ever() {
    if !root_or_skip() {
        return;
    }
    let [.., high, low] = process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 103, high, low);
    let _silent = UdpSocket::bind((ip, 53)).unwrap();
    let (own, begin) = (Forwarders::default(), Instant::now());
    let failed = ask(&own, 1, ip.into(), "www.example.org.", RecordType::A).await;
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
}
