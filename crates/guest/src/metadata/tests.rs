//! What is told to whom.

use hyper::header::HeaderValue;
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;
use wire::{
    object::{Object, Port},
    told::AddressMode,
};

use super::*;
use crate::sample::{self, INSTANCE, about, network, port, put};

const MOMENT: Moment = Moment { now: 1000, seed: [3; SEED_BYTES] };

fn tokens() -> Tokens {
    Tokens::new([1; 32])
}

struct Sent {
    directory: Directory,
    port: u32,
    method: Method,
    headers: HeaderMap,
}

impl Sent {
    fn new() -> Self {
        let headers = [(header::HOST, HeaderValue::from_static("169.254.169.254"))];
        let headers = headers.into_iter().collect();
        Self { directory: network().0, port: 1, method: Method::GET, headers }
    }

    fn with(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    fn ask(&self, path: &str) -> Answer {
        let Self { directory, port, method, headers } = self;
        let ask = Ask { port: *port, method, path, headers };
        respond(directory, &tokens(), &ask, &MOMENT)
    }

    fn text(&self, path: &str) -> String {
        let answer = self.ask(path);
        match answer.status {
            StatusCode::OK => String::from_utf8(answer.body).unwrap(),
            status => status.as_str().to_owned(),
        }
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.ask(path).body).unwrap()
    }
}

#[test]
fn ec2_paths_tell_what_they_do_there() {
    let sent = Sent::new();
    let cases = [
        ("/latest", "dynamic/\nmeta-data/\nuser-data"),
        ("/latest/", "dynamic/\nmeta-data/\nuser-data"),
        (
            "/latest/meta-data/",
            "hostname\ninstance-action\ninstance-id\ninstance-type\nipv6\nlocal-hostname\n\
             local-ipv4\nmac\nnetwork/\nplacement/\npublic-keys/\ntags/",
        ),
        ("/2009-04-04/meta-data/instance-id", "00000000000000000000000000000010"),
        ("//latest//meta-data//local-hostname", "red-1.example.internal"),
        ("/latest/meta-data/hostname?x=1", "red-1.example.internal"),
        ("/latest/meta-data/local-ipv4", "10.0.0.5"),
        ("/latest/meta-data/mac", "fa:00:00:00:00:01"),
        ("/latest/meta-data/instance-type", "small"),
        ("/latest/meta-data/placement/availability-zone", "zone-1"),
        ("/latest/meta-data/public-keys/", "0=mine"),
        ("/latest/meta-data/public-keys/0/", "openssh-key"),
        ("/latest/meta-data/public-keys/0/openssh-key", "ssh-ed25519 AAAA me\n"),
        ("/latest/meta-data/public-keys/1", "404"),
        ("/latest/meta-data/network/interfaces/macs/", "fa:00:00:00:00:01/"),
        (
            "/latest/meta-data/network/interfaces/macs/fa:00:00:00:00:01/",
            "device-number\ninterface-id\nipv6s\nlocal-hostname\nlocal-ipv4s\nmac\nowner-id\n\
             subnet-id\nsubnet-ipv4-cidr-block\nsubnet-ipv6-cidr-blocks",
        ),
        (
            "/latest/meta-data/network/interfaces/macs/fa%3A00%3a00:00:00:01/subnet-ipv4-cidr-block",
            "10.0.0.0/24",
        ),
        ("/latest/meta-data/tags/instance/", "role\nplain"),
        ("/latest/meta-data/tags/instance/role", "web"),
        ("/latest/user-data", "#!/bin/sh\necho hello\n"),
        ("/latest/meta-data/ami-id", "404"),
        ("/latest/meta-data/mac/x", "404"),
        ("/1999-01-01/meta-data/", "404"),
        ("/latest/../latest", "404"),
        ("/%ff", "400"),
        ("/%0a", "400"),
        ("/%4", "400"),
    ];
    for (path, expected) in cases {
        assert_eq!(sent.text(path), expected, "{path}");
    }
    assert!(sent.text("/").ends_with("\nlatest"));
    let document = sent.json("/latest/dynamic/instance-identity/document");
    assert_eq!(document["privateIp"], "10.0.0.5");
    assert_eq!(document["accountId"], "00000000000000000000000000000020");
}

#[test]
fn openstack_files_are_novas() {
    let sent = Sent::new();
    assert!(sent.text("/openstack").contains("2018-08-27\n"));
    let files = "meta_data.json\nnetwork_data.json\nuser_data\nvendor_data.json\nvendor_data2.json";
    assert_eq!(sent.text("/openstack/latest/"), files);
    assert_eq!(sent.text("/openstack/2018-08-27/user_data"), "#!/bin/sh\necho hello\n");
    let meta = sent.json("/openstack/latest/meta_data.json");
    assert_eq!(meta["uuid"], "00000000-0000-0000-0000-000000000010");
    assert_eq!(meta["public_keys"], json!({"mine": "ssh-ed25519 AAAA me"}));
    assert_eq!(meta["meta"], json!({"role": "web", "plain": ""}));
    assert_eq!(meta["name"], "Red, the first");
    let vendor = json!({"cloud-init": "#cloud-config\n{}\n"});
    assert_eq!(sent.json("/openstack/latest/vendor_data.json"), vendor);
    assert_eq!(sent.json("/openstack/latest/vendor_data2.json"), json!({"static": vendor}));
    assert_eq!(sent.text("/openstack/latest/content"), "404");
    assert_eq!(sent.text("/openstack/2001-01-01"), "404");
}

fn networks(change: impl FnOnce(&mut Port, &mut wire::object::Subnet)) -> Value {
    let mut sent = Sent::new();
    let mut nic = port(1, INSTANCE, "red-1", &["10.0.0.5", "fd00:1::5"]);
    let mut subnet = sample::subnet();
    change(&mut nic, &mut subnet);
    put(&mut sent.directory, [Object::Port(nic), Object::Subnet(subnet)]);
    sent.json("/openstack/latest/network_data.json")
}

#[test]
fn network_data_says_how_a_guest_gets_its_addresses() {
    let kinds = |data: &Value| {
        let networks = data["networks"].as_array().unwrap();
        networks.iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let leased = networks(|_, _| {});
    assert_eq!(kinds(&leased), ["ipv4_dhcp", "ipv6_dhcpv6-stateful"]);
    assert_eq!(leased["links"][0]["mtu"], 1450);
    assert_eq!(leased["services"][0], json!({"type": "dns", "address": "10.0.0.3"}));
    assert!(leased["networks"][0].get("ip_address").is_none());
    let derived = networks(|_, subnet| subnet.ranges[1].mode = Some(AddressMode::Slaac));
    assert_eq!(kinds(&derived), ["ipv4_dhcp", "ipv6_slaac"]);
    let fixed = networks(|nic, _| nic.told.as_mut().unwrap().services = vec![Service::Metadata]);
    assert_eq!(kinds(&fixed), ["ipv4", "ipv6"]);
    assert_eq!(fixed["networks"][0]["netmask"], "255.255.255.0");
    assert_eq!(fixed["networks"][1]["netmask"], "ffff:ffff:ffff:ffff::");
    let default = json!({"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"});
    let other = json!({"network": "172.16.0.0", "netmask": "255.240.0.0", "gateway": "10.0.0.9"});
    assert_eq!(fixed["networks"][0]["routes"], json!([default, other]));
}

#[test]
fn what_comes_from_somewhere_else_is_refused() {
    let path = "/latest/meta-data/mac";
    let status = |sent: Sent| sent.ask(path).status.as_u16();
    assert_eq!(status(Sent::new()), 200);
    assert_eq!(status(Sent::new().with(FORWARDED_FOR, "10.0.0.1")), 403);
    assert_eq!(status(Sent::new().with(header::FORWARDED, "for=10.0.0.1")), 403);
    let hosts = [
        ("169.254.169.254:80", 200),
        ("[fe80::a9fe:a9fe]", 200),
        ("[fe80::a9fe:a9fe%25eth0]:80", 200),
        ("evil.example.org", 403),
        ("169.254.169.254.example.org", 403),
        ("169.254.169.254:8080", 403),
        ("", 403),
    ];
    for (host, expected) in hosts {
        assert_eq!(status(Sent::new().with(header::HOST, host)), expected, "{host}");
    }
    let mut two = Sent::new();
    two.headers.append(header::HOST, HeaderValue::from_static("evil.example.org"));
    assert_eq!(status(two), 403);
    let mut none = Sent::new();
    none.headers.clear();
    assert_eq!(status(none), 200, "HTTP/1.0");
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT] {
        let mut sent = Sent::new();
        sent.method = method;
        let answer = sent.ask(path);
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.header, Some((header::ALLOW, "GET, HEAD".to_owned())));
    }
}

#[test]
fn with_tokens_nothing_is_told_without_one() {
    let path = "/latest/meta-data/mac";
    let put_token = |seconds: Option<&str>| {
        let mut sent = Sent::new();
        sent.method = Method::PUT;
        if let Some(seconds) = seconds {
            sent = sent.with(TOKEN_TTL, seconds);
        }
        sent.ask("/latest/api/token")
    };
    for bad in [None, Some("0"), Some("21601"), Some("x"), Some("-1")] {
        assert_eq!(put_token(bad).status, StatusCode::BAD_REQUEST, "{bad:?}");
    }
    let given = put_token(Some("60"));
    assert_eq!(given.header, Some((TOKEN_TTL, "60".to_owned())));
    let token = String::from_utf8(given.body).unwrap();
    let strict = || {
        let mut sent = Sent::new();
        put(&mut sent.directory, [Object::About(About { needs_token: true, ..about() })]);
        sent
    };
    assert_eq!(strict().text(path), "401");
    assert_eq!(strict().text("/openstack/latest/meta_data.json"), "401");
    assert_eq!(strict().with(TOKEN, "nonsense").text(path), "401");
    assert_eq!(strict().with(TOKEN, &token).text(path), "fa:00:00:00:00:01");
    // A wrong one is refused, needed or not.
    assert_eq!(Sent::new().with(TOKEN, "nonsense").text(path), "401");
    // It is for one port, and for some time.
    let mut other = strict().with(TOKEN, &token);
    put(&mut other.directory, [Object::Port(port(2, INSTANCE, "red-1", &["10.0.0.7"]))]);
    other.port = 2;
    assert_eq!(other.text(path), "401");
    assert!(tokens().is_good(1, MOMENT.now + 59, token.as_bytes()));
    assert!(!tokens().is_good(1, MOMENT.now + 60, token.as_bytes()));
}

#[test]
fn who_asks_is_the_port_alone() {
    let mut sent = Sent::new();
    // Another tenant with the same addresses.
    let other = Uuid::from_u128(0x11);
    let mut blue = port(2, other, "blue-1", &["10.0.0.5"]);
    blue.network = Uuid::from_u128(2);
    let told = About { uuid: other, hostname: "blue-1".to_owned(), ..about() };
    put(&mut sent.directory, [Object::Port(blue), Object::About(told)]);
    let path = "/latest/meta-data/hostname";
    assert_eq!(sent.text(path), "red-1.example.internal");
    sent.port = 2;
    assert_eq!(sent.text(path), "blue-1");
    // Who is not told anything, or nobody at all, is told nothing.
    let mut silent = port(2, other, "blue-1", &["10.0.0.5"]);
    silent.told.as_mut().unwrap().services = vec![Service::Dhcp];
    put(&mut sent.directory, [Object::Port(silent)]);
    assert_eq!(sent.text(path), "404");
    sent.port = 99;
    assert_eq!(sent.text(path), "404");
}

proptest! {
    #[test]
    fn any_request_has_an_answer(
        method in "[A-Z]{1,8}",
        path in "(/(latest|openstack|meta-data|[ -~]{0,8})){0,6}|\\PC{0,40}",
        token in prop::collection::vec(32..127_u8, 0..80),
        port in 0..3_u32,
    ) {
        let mut sent = Sent::new();
        sent.method = method.parse().unwrap();
        sent.port = port;
        sent.headers.insert(TOKEN, HeaderValue::from_bytes(&token).unwrap());
        let answer = sent.ask(&path);
        prop_assert_ne!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        prop_assert!(!answer.status.is_redirection());
    }
}
