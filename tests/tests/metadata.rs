//! What instances read about themselves, on their own host: with sockets, and with cloud-init's own data
//! sources. Needs root, and what `scripts/setup test` fetches.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream},
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    machine::{drops, leftovers},
    networks::{self, services},
    rest::Rest,
    root_or_skip,
};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
const METADATA: &str = "169.254.169.254:80";
const HOST: &str = "Host: 169.254.169.254";
/// "#!/bin/sh\necho red\n".
const USER_DATA: &str = "IyEvYmluL3NoCmVjaG8gcmVkCg==";
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMe4BB9ogoGC1A6M2xOpTSPQYx8hA1q0zNAbU8A2n4tV me";
const CLOUD_INIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cloud_init.py");

/// What `guest` is answered: the whole of it.
fn ask(guest: &Namespace, to: SocketAddr, request: &str) -> io::Result<String> {
    let request = format!("{request}\r\nConnection: close\r\n\r\n");
    let asked = guest.run_in(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    asked.unwrap()
}

/// Status and body.
fn exchange(guest: &Namespace, request: &str) -> (u16, String) {
    let answer = ask(guest, METADATA.parse().unwrap(), request).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn get(guest: &Namespace, path: &str) -> String {
    let (status, body) = exchange(guest, &format!("GET {path} HTTP/1.1\r\n{HOST}"));
    if status == 200 { body } else { status.to_string() }
}

/// The directory where cargo builds, and with it what tests need of others.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().to_owned()
}

/// What cloud-init finds out as its data source of this name.
fn cloud_init(guest: &Namespace, source: &str) -> Value {
    let modules = built().join("cloud-init/usr/lib/python3/dist-packages");
    assert!(modules.exists(), "run `scripts/setup test` first: there is no {}", modules.display());
    let mut command = Command::new(built().join("python/bin/python"));
    command.arg(CLOUD_INIT).arg(modules).arg(source);
    // It looks for names that nobody has, where nobody answers.
    command.env("RES_OPTIONS", "timeout:1 attempts:1");
    let output = guest.run_in(|| command.output()).unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let found = serde_json::from_str(&text);
    found.unwrap_or_else(|error| {
        panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr))
    })
}

fn act(rest: &Rest, path: &str, body: &Value) {
    let rest = rest.clone().with("prefer", "wait=30");
    let done = rest.send("PUT", path, &body.to_string()).unwrap();
    assert_eq!(done.status, 200, "{path} {body}: {done:?}");
}

/// Where metadata is by IPv6: at the guest's own link.
fn by_ipv6(guest: &Namespace) -> SocketAddr {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let link = runtime.block_on(async { guest.netlink().await.unwrap().existing("eth0").await });
    SocketAddrV6::new("fe80::a9fe:a9fe".parse().unwrap(), 80, 0, link.unwrap().index).into()
}

/// An instance with user data and a key.
fn create(rest: &Rest, name: &str, l3: &str, ips: &[IpAddr]) -> String {
    let host = rest.uuid("/hosts", "h1");
    let mut tags: Vec<String> = ips
        .iter()
        .map(|ip| format!("staticIp::{l3}::{}", ip.to_string().replace(':', "--")))
        .collect();
    tags.push(format!("userdata::{USER_DATA}"));
    tags.push(format!("sshkey::{KEY}"));
    tags.push(format!("hostname::{name}"));
    let params = json!({"name": name, "l3NetworkUuids": [l3], "hostUuid": host});
    let body = json!({"params": params, "systemTags": tags}).to_string();
    let rest = rest.clone().with("prefer", "wait=30");
    let made = rest.send("POST", "/vm-instances", &body).unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    made.body["inventory"]["uuid"].as_str().unwrap().to_owned()
}

#[test]
fn an_instance_reads_about_itself_on_its_own_host() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let [red_l3, blue_l3] = ["red-l3", "blue-l3"].map(|name| rest.uuid("/l3-networks", name));
    // Without the service nothing is there.
    let bare = ask(&lab.namespace("red-1"), METADATA.parse().unwrap(), "GET / HTTP/1.1");
    assert!(bare.is_err(), "{bare:?}");
    for l3 in [&red_l3, &blue_l3] {
        services(&rest, l3, &["Userdata"]);
    }
    let uuid =
        create(&rest, "red-web", &red_l3, &["10.0.0.21", "fd00::21"].map(|ip| ip.parse().unwrap()));
    create(&rest, "blue-web", &blue_l3, &["10.0.0.21".parse().unwrap()]);
    lab.settle(&HOSTS);
    let [red, blue] = ["red-web", "blue-web"].map(|name| lab.namespace(name));
    let path = "/latest/meta-data/local-hostname";
    assert!(wait::holds(LIMIT, || get(&red, path) == "red-web"));
    assert_eq!(get(&red, "/latest/meta-data/instance-id"), uuid);
    assert_eq!(get(&red, "/latest/meta-data/local-ipv4"), "10.0.0.21");
    assert_eq!(get(&red, "/latest/user-data"), "#!/bin/sh\necho red\n");

    // Two tenants with the same addresses, at once: each reads what is its own.
    thread::scope(|scope| {
        for (guest, name) in [(&red, "red-web"), (&blue, "blue-web")] {
            scope.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(get(guest, path), name);
                }
            });
        }
    });

    // By IPv6 it is there, too.
    let request = format!("GET {path} HTTP/1.1\r\nHost: [fe80::a9fe:a9fe%eth0]");
    let answer = ask(&red, by_ipv6(&red), &request).unwrap();
    assert!(answer.ends_with("\r\n\r\nred-web"), "{answer}");

    // A request of several segments, which the guest leaves to its device to make, arrives.
    let long = format!("GET {path} HTTP/1.1\r\n{HOST}\r\nX-Long: {}", "x".repeat(6000));
    assert_eq!(exchange(&red, &long), (200, "red-web".to_owned()));
    let long = format!("{long}{}", "x".repeat(60_000));
    assert!(
        !matches!(ask(&red, METADATA.parse().unwrap(), &long), Ok(answer) if answer.contains("200 OK"))
    );

    // It never has more under way than the agent is handed at a time.
    assert_eq!(drops(&lab.data("h1")).get("hand_off_refused"), None);

    // Whoever is made to ask for others gets nothing.
    for header in ["X-Forwarded-For: 10.0.0.11", "Forwarded: for=10.0.0.11"] {
        assert_eq!(exchange(&red, &format!("GET {path} HTTP/1.1\r\n{HOST}\r\n{header}")).0, 403);
    }
    assert_eq!(exchange(&red, &format!("GET {path} HTTP/1.1\r\nHost: evil.example.org")).0, 403);
    assert_eq!(
        exchange(&red, &format!("POST {path} HTTP/1.1\r\n{HOST}\r\nContent-Length: 0")).0,
        405
    );

    // One that opens many connections keeps nobody else out.
    let held: Vec<_> = red
        .run_in(|| {
            (0..200)
                .map(|_| TcpStream::connect_timeout(&METADATA.parse().unwrap(), LIMIT))
                .collect()
        })
        .unwrap();
    assert_eq!(get(&blue, path), "blue-web");
    assert_eq!(get(&red, path), "red-web", "nor itself: the longest idle ones make room");
    drop(held);

    // The agent is killed: the next one answers, also without a server.
    lab.kill(&["server", "h1"]);
    assert!(ask(&red, METADATA.parse().unwrap(), "GET / HTTP/1.1").is_err());
    lab.start(&["h1"]);
    assert!(wait::holds(LIMIT, || {
        let request = format!("GET {path} HTTP/1.1\r\n{HOST}");
        ask(&red, METADATA.parse().unwrap(), &request)
            .is_ok_and(|answer| answer.ends_with("red-web"))
    }));
    let (name, root) = (lab.name().to_owned(), lab.root().to_owned());
    lab.down();
    assert_eq!(leftovers(&name, &root), Vec::<String>::new());
}

#[test]
fn cloud_init_finds_all_that_it_looks_for() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let l3 = rest.uuid("/l3-networks", "red-l3");
    services(&rest, &l3, &["Userdata", "DHCP"]);
    networks::dhcp_last(&rest, &l3, "10.0.0");
    let body = json!({"updateL3Network": {"dnsDomain": "red.test"}});
    act(&rest, &format!("/l3-networks/{l3}/actions"), &body);
    let ips = ["10.0.0.21", "fd00::21"].map(|ip| ip.parse().unwrap());
    let uuid = create(&rest, "red-web", &l3, &ips);
    lab.settle(&HOSTS);
    let red = lab.namespace("red-web");
    let mac = rest.named("/vm-instances", "red-web")["vmNics"][0]["mac"].clone();
    assert!(wait::holds(LIMIT, || get(&red, "/latest/meta-data/instance-id") == uuid));

    let found = cloud_init(&red, "openstack");
    let metadata = &found["metadata"];
    let same = metadata["uuid"].as_str().unwrap().replace('-', "");
    assert_eq!(same, uuid, "{found:#}");
    assert_eq!(metadata["name"], "red-web");
    assert_eq!(metadata["local-hostname"], "red-web.red.test");
    assert_eq!(metadata["public_keys"].as_object().unwrap().len(), 1);
    assert_eq!(
        (&found["userdata"], &found["seeded"]),
        (&json!("#!/bin/sh\necho red\n"), &json!(512))
    );
    let network = &found["network"]["config"][0];
    assert_eq!((&network["type"], &network["name"]), (&json!("physical"), &json!("eth0")));
    assert_eq!(network["mac_address"], mac);
    assert_eq!(network["subnets"], json!([{"type": "dhcp4"}, {"type": "ipv6_dhcpv6-stateful"}]));

    for source in ["ec2", "aws"] {
        let found = cloud_init(&red, source);
        let metadata = &found["metadata"];
        assert_eq!(metadata["instance-id"], uuid, "{found:#}");
        assert_eq!(metadata["local-ipv4"], "10.0.0.21");
        assert_eq!(metadata["public-keys"].as_object().unwrap().len(), 1);
        assert_eq!(found["userdata"], "#!/bin/sh\necho red\n");
        assert_eq!(found["token"], source == "aws", "only there it takes a token");
        let network = &found["network"]["ethernets"]["eth0"];
        assert_eq!((&network["match"]["macaddress"], &network["dhcp4"]), (&mac, &json!(true)));
    }
}
