//! Questions and answers.

use hickory_proto::op::EdnsFlags;
use proptest::prelude::*;
use uuid::Uuid;
use wire::{object::Object, shared::Shared};

use super::*;
use crate::sample::{self, INSTANCE, ip, network, peer, port, put};

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn ask(name: &str, kind: RecordType) -> Decision {
    let (directory, subnet) = network();
    decide(&directory, &subnet, &query(name, kind))
}

/// As one reads it: the code, the answers, and the zone of the authority.
fn told(name: &str, kind: RecordType) -> String {
    match ask(name, kind) {
        Decision::Drop => "drop".to_owned(),
        Decision::Forward(query, answer) => {
            assert!(answer.answers.is_empty() && !answer.metadata.authoritative);
            assert!(answer.metadata.recursion_available);
            format!("forward {} {}", query.name(), query.query_type())
        }
        Decision::Answer(answer) => {
            assert_eq!(answer.queries.len(), 1);
            let code = match answer.metadata.response_code {
                ResponseCode::NoError => "ok",
                ResponseCode::NXDomain => "none",
                ResponseCode::Refused => "refused",
                _ => "other",
            };
            let mut parts = vec![code.to_owned()];
            if answer.metadata.authoritative {
                parts.push("aa".to_owned());
            }
            parts.extend(answer.answers.iter().map(|record| record.data.to_string()));
            parts.extend(answer.authorities.iter().map(|record| format!("@{}", record.name)));
            parts.join(" ")
        }
    }
}

#[test]
fn names_of_instances_are_answered_with_authority() {
    use RecordType::{A, AAAA, ANY, MX, NS, PTR, SOA, TXT};
    let cases = [
        ("red-1.example.internal.", A, "ok aa 10.0.0.5"),
        ("red-1.example.internal.", AAAA, "ok aa fd00:1::5"),
        ("RED-1.Example.INTERNAL.", A, "ok aa 10.0.0.5"),
        ("red-1.", A, "ok aa 10.0.0.5"),
        // Of the addresses of a NIC elsewhere, those that are not of the network are not told.
        ("red-2.example.internal.", A, "ok aa 10.0.0.6"),
        ("red-2.example.internal.", AAAA, "ok aa @example.internal."),
        ("red-1.example.internal.", MX, "ok aa @example.internal."),
        ("red-1.example.internal.", ANY, "ok aa RFC8482 "),
        ("red-3.example.internal.", A, "none aa @example.internal."),
        ("red-3.example.internal.", ANY, "none aa @example.internal."),
        ("a.red-1.example.internal.", A, "none aa @example.internal."),
        ("example.internal.", A, "ok aa @example.internal."),
        ("red-3.", A, "none aa"),
        ("com.", NS, "forward com. NS"),
        ("com.", A, "none aa"),
        ("www.example.org.", TXT, "forward www.example.org. TXT"),
        ("www.example.org.", ANY, "ok RFC8482 "),
        ("notexample.internal.", A, "forward notexample.internal. A"),
        ("5.0.0.10.in-addr.arpa.", PTR, "ok aa red-1.example.internal."),
        ("6.0.0.10.in-addr.arpa.", PTR, "ok aa Red-2.example.internal."),
        ("7.0.0.10.in-addr.arpa.", PTR, "none aa @0.0.10.in-addr.arpa."),
        ("5.0.0.10.in-addr.arpa.", A, "ok aa @0.0.10.in-addr.arpa."),
        ("0.0.10.in-addr.arpa.", PTR, "ok aa @0.0.10.in-addr.arpa."),
        ("0.10.in-addr.arpa.", PTR, "forward 0.10.in-addr.arpa. PTR"),
        ("5.1.0.10.in-addr.arpa.", PTR, "forward 5.1.0.10.in-addr.arpa. PTR"),
        ("99.2.0.192.in-addr.arpa.", PTR, "forward 99.2.0.192.in-addr.arpa. PTR"),
        (
            "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            "ok aa red-1.example.internal.",
        ),
        (
            "0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            "ok aa @0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.",
        ),
        ("red-1.example.internal.", RecordType::AXFR, "refused"),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(told(name, kind), expected, "{name} {kind}");
    }
    let start = told("example.internal.", SOA);
    assert!(start.starts_with("ok aa example.internal. hostmaster.example.internal. "), "{start}");
}

#[test]
fn what_is_no_query_gets_no_answer_of_another() {
    let (directory, subnet) = network();
    let code = |bytes: &[u8]| match decide(&directory, &subnet, bytes) {
        Decision::Answer(answer) => Some((answer.metadata.id, answer.metadata.response_code)),
        _ => None,
    };
    let good = query("red-1.", RecordType::A);
    let id = u16::from_be_bytes([good[0], good[1]]);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    assert_eq!(code(&good), Some((id, ResponseCode::NoError)));
    assert_eq!(code(&good[..good.len() - 1]), Some((id, ResponseCode::FormErr)));
    assert_eq!(code(&good[..11]), None, "no header");
    assert_eq!(code(&with(2, good[2] | 0x80)), None, "an answer");
    assert_eq!(code(&with(2, 0x28)), Some((id, ResponseCode::NotImp)), "an update");
    assert_eq!(code(&with(good.len() - 1, 3)), Some((id, ResponseCode::Refused)), "class CH");
    assert_eq!(code(&with(5, 0)), Some((id, ResponseCode::FormErr)), "no question");
    let mut newer = Message::from_vec(&good).unwrap();
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    assert_eq!(code(&newer.to_vec().unwrap()), Some((id, ResponseCode::BADVERS)));
    // Without the wish for recursion, and without anybody to ask.
    let elsewhere = query("www.example.org.", RecordType::A);
    let mut iterative = elsewhere.clone();
    iterative[2] &= !1;
    assert_eq!(code(&iterative).map(|(_, code)| code), Some(ResponseCode::Refused));
    let mut alone = subnet.clone();
    alone.resolver.as_mut().unwrap().forwarders.clear();
    let Decision::Answer(answer) = decide(&directory, &alone, &elsewhere) else { panic!() };
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert!(!answer.metadata.recursion_available);
}

#[test]
fn a_long_answer_is_cut_and_comes_whole_by_tcp() {
    let mut directory = sample::network().0;
    let many = (0..200_u32).map(|number| {
        let ip = format!("10.0.0.{}", number + 20);
        Object::Peer(peer(0x1000 + u128::from(number), "many", &[&ip]))
    });
    put(&mut directory, many);
    let request = query("many.example.internal.", RecordType::A);
    let Decision::Answer(answer) = decide(&directory, &sample::subnet(), &request) else {
        panic!()
    };
    assert_eq!(answer.answers.len(), 200);
    let cut = Message::from_vec(&encode(&answer, payload_max(&request, 1450)).unwrap()).unwrap();
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    let whole = Message::from_vec(&encode(&answer, usize::from(u16::MAX)).unwrap()).unwrap();
    assert!(!whole.metadata.truncation && whole.answers.len() == 200);
}

#[test]
fn a_client_says_how_much_it_takes() {
    let mut message = Message::from_vec(&query("x.", RecordType::A)).unwrap();
    assert_eq!(payload_max(&message.to_vec().unwrap(), 1450), 512);
    for (asked, mtu_bytes, expected) in
        [(100, 1450, 512), (900, 1450, 900), (4096, 1450, 1232), (4096, 1000, 952), (512, 68, 20)]
    {
        let mut edns = Edns::new();
        edns.set_max_payload(asked);
        message.set_edns(edns);
        assert_eq!(payload_max(&message.to_vec().unwrap(), mtu_bytes), expected, "{asked}");
    }
    // It is answered in kind.
    message.edns.as_mut().unwrap().set_dnssec_ok(true);
    let (directory, subnet) = network();
    let Decision::Answer(answer) = decide(&directory, &subnet, &message.to_vec().unwrap()) else {
        panic!()
    };
    let edns = answer.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.flags()), (PAYLOAD, &EdnsFlags { dnssec_ok: true, z: 0 }));
}

#[test]
fn names_go_with_their_nic() {
    let (mut directory, subnet) = network();
    let find = |directory: &Directory, name: &str| directory.addresses_of(&subnet, name);
    // Two with one name are both told; one moves here and is a peer and a port for some time.
    put(&mut directory, [Object::Peer(peer(0x101, "red-1", &["10.0.0.5"]))]);
    put(&mut directory, [Object::Port(port(2, INSTANCE, "red-1", &["10.0.0.8"]))]);
    let both = [ip("10.0.0.5"), ip("10.0.0.8"), ip("fd00:1::5")];
    assert_eq!(find(&directory, "red-1"), Some(both.into()));
    let gone = Shared::from(Object::Port(port(1, INSTANCE, "red-1", &["10.0.0.5"])));
    directory.set(gone.key(), None);
    assert_eq!(find(&directory, "red-1"), Some([ip("10.0.0.5"), ip("10.0.0.8")].into()));
    assert!(directory.port(1).is_none() && directory.port(2).is_some());
    // A new name takes the place of the old one.
    put(&mut directory, [Object::Port(port(2, INSTANCE, "blue", &["10.0.0.8"]))]);
    assert_eq!(find(&directory, "blue"), Some([ip("10.0.0.8")].into()));
    assert_eq!(find(&directory, "red-1"), Some([ip("10.0.0.5")].into()));
    assert_eq!(directory.names_of(&subnet, ip("10.0.0.8")), ["blue"].into());
}

proptest! {
    /// After any history the index is what it is when made anew.
    #[test]
    fn the_index_forgets_what_is_gone(
        history in prop::collection::vec((0..6_u32, 0..3_usize, 0..4_usize, any::<bool>()), 0..40)
    ) {
        let (hosts, ips) = (["a", "B", "c"], ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00:1::4"]);
        let mut directory = Directory::default();
        let mut left = std::collections::BTreeMap::new();
        for (nic, host, ip, stays) in history {
            let object = match nic % 2 {
                0 => Object::Port(port(nic, Uuid::from_u128(ip as u128), hosts[host], &[ips[ip]])),
                _ => Object::Peer(peer(0x100 + u128::from(nic) - 1, hosts[host], &[ips[ip]])),
            };
            let object = Shared::from(object);
            directory.set(object.key(), stays.then_some(&object));
            match stays {
                true => _ = left.insert(object.key(), object),
                false => _ = left.remove(&object.key()),
            }
        }
        let mut anew = Directory::default();
        left.iter().for_each(|(key, object)| anew.set(*key, Some(object)));
        let subnet = sample::subnet();
        for host in ["a", "b", "c"] {
            prop_assert_eq!(directory.addresses_of(&subnet, host), anew.addresses_of(&subnet, host));
        }
        for text in ips {
            prop_assert_eq!(
                directory.names_of(&subnet, ip(text)), anew.names_of(&subnet, ip(text))
            );
        }
        for instance in 0..4 {
            let instance = Uuid::from_u128(instance);
            prop_assert_eq!(directory.nics_of(instance), anew.nics_of(instance));
        }
        for key in left.keys() {
            directory.set(*key, None);
        }
        prop_assert!(directory.is_empty());
    }
}
