//! A VM comes, and goes; its address rests until every host has let go of it. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    net::IpAddr,
    process::{Command, Stdio},
};

use hostnet::scratch::Scratch;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab, binary, rest::Answer, root_or_skip, traffic::one_packet_passes,
};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];

#[test]
fn the_first_packet_passes_as_soon_as_the_job_says_so() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    for host in HOSTS {
        let name = format!("red-on-{host}");
        let (vm, ip) = create(&lab, &name, host);
        if host != "h1" {
            // A job waits for its own host; the others learn of it at the same time, or later.
            lab.settle(&["h1"]);
        }
        let (old, new) = (lab.namespace("red-1"), lab.namespace(&name));
        assert!(one_packet_passes(&new, &old, [10, 0, 0, 11].into()), "from {name}");
        assert!(one_packet_passes(&old, &new, ip), "to {name}");
        destroy(&lab, &vm);
        let ports = lab.inspect(host)["ports"].to_string();
        assert!(!ports.contains(&format!("\"{ip}\"")), "{name} is cut off with its job: {ports}");
        drop(new);
        let is_gone = || lab::namespace(lab.name(), lab.root(), &name).is_err();
        assert!(wait::holds(LIMIT, is_gone), "{name} goes when there is time");
    }
    lab.check();
}

#[test]
fn an_address_rests_until_every_host_has_let_go_of_it() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let (vm, ip) = create(&lab, "red-3", "h1");
    let l3 = network(&lab);
    let take = || rest.post("/nics", &json!({"l3NetworkUuid": l3, "ip": ip}));
    assert_eq!(take().code(), "L3.1000", "in use");

    // h2 knows where red-3 is, and cannot be told that it is gone.
    lab.kill(&["h2"]);
    // A host that is away blocks nobody.
    destroy(&lab, &vm);
    assert_eq!(take().code(), "L3.1000", "h2 still holds it");

    lab.start(&["h2"]);
    lab.settle(&HOSTS);
    assert!(wait::holds(LIMIT, || take().status == 200), "{:?}", take());
    lab.check();
}

#[test]
fn a_destroy_on_a_dead_host_says_at_once_what_it_waits_for() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let (vm, _) = create(&lab, "red-3", "h2");
    lab.kill(&["h2"]);
    let client = lab.client();
    let is_away = ["name=h2", "status=Disconnected"].map(str::to_owned);
    let is_away = || client.query("/hosts", &is_away).is_ok_and(|found| found.len() == 1);
    assert!(wait::holds(LIMIT, is_away));

    let password = lab.data("server").join("admin-password");
    let mut command = Command::new(binary())
        .args([OsStr::new("--password-file"), password.as_os_str()])
        .args(["--server", &lab.url(), "DestroyVmInstance", &format!("uuid={vm}")])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut heard = String::new();
    BufReader::new(command.stderr.take().unwrap()).read_line(&mut heard).unwrap();
    assert!(heard.starts_with("waiting: host ") && heard.ends_with("is disconnected\n"), "{heard}");
    assert!(command.try_wait().unwrap().is_none(), "it still waits");

    lab.start(&["h2"]);
    assert!(command.wait().unwrap().success());
    lab.check();
}

#[test]
fn a_vm_keeps_its_address_when_it_stops_starts_elsewhere_and_reboots() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let (vm, ip) = create(&lab, "red-3", "h1");
    let act = |action: &str, params: Value| {
        let (path, body) = (format!("/vm-instances/{vm}/actions"), json!({action: params}));
        let rest = rest.clone().with("prefer", "wait=30");
        let answer = rest.send("PUT", &path, &body.to_string()).unwrap();
        assert_eq!(answer.status, 200, "{action}: {answer:?}");
    };
    let passes = || {
        let (red_1, red_2, red_3) =
            (lab.namespace("red-1"), lab.namespace("red-2"), lab.namespace("red-3"));
        lab.settle(&HOSTS);
        [&red_1, &red_2].into_iter().all(|from| one_packet_passes(from, &red_3, ip))
            && one_packet_passes(&red_3, &red_1, [10, 0, 0, 11].into())
    };
    assert!(passes(), "new");
    act("stopVmInstance", json!({}));
    assert!(!lab.inspect("h1")["ports"].to_string().contains(&format!("\"{ip}\"")));
    act("startVmInstance", json!({"hostUuid": rest.uuid("/hosts", "h2")}));
    assert!(passes(), "on the other host");
    lab.ip("red-3", "link add mark type bridge");
    act("rebootVmInstance", json!({}));
    assert!(passes(), "after a reboot");
    let marked = ["sh", "-c", "ip link show mark"].map(str::to_owned);
    let status = lab::exec(lab.name(), lab.root(), "red-3", &marked).unwrap();
    assert_ne!(status, 0, "it was made anew");
    lab.check();
}

/// The peers of its former owner still have that one's MAC in their caches.
#[test]
fn a_new_owner_of_an_address_is_reached_at_once() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let red = |number| lab.namespace(&format!("red-{number}"));
    let static_ip = format!("staticIp::{}::10.0.0.77", network(&lab));
    for host in HOSTS {
        let mut made = create_with(&lab, "red-3", host, &[&static_ip]);
        let is_made = || {
            // Until the former owner's address is free.
            if made.status != 200 {
                made = create_with(&lab, "red-3", host, &[&static_ip]);
            }
            made.status == 200
        };
        assert!(wait::holds(LIMIT, is_made), "{made:?}");
        lab.settle(&HOSTS);
        for peer in [1, 2] {
            let passes = one_packet_passes(&red(peer), &red(3), [10, 0, 0, 77].into());
            assert!(passes, "from red-{peer} to {host}");
        }
        destroy(&lab, made.body["inventory"]["uuid"].as_str().unwrap());
    }
}

/// A guest with all rights in its namespace can move its NIC where nobody finds it.
#[test]
fn a_vm_that_hides_its_nic_loses_it_and_gets_a_new_one() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let before = lab.machine().links.len();
    let nested = Scratch::new("nested").unwrap();
    let script = format!("ip link set eth0 netns {0} && ip -n {0} link set eth0 up", nested.name());
    let hide = ["sh", "-c", &script].map(str::to_owned);
    assert_eq!(lab::exec(lab.name(), lab.root(), "red-1", &hide).unwrap(), 0);
    lab.stop(&["h1"]);
    lab.start(&["h1"]);
    lab.settle(&HOSTS);
    lab.check();
    // What is no port any more is deleted a little later.
    let is_as_before = || lab.machine().links.len() == before;
    assert!(wait::holds(LIMIT, is_as_before), "each port has its two programs, and no more");
    assert_eq!(lab.inspect("h1")["asDesired"], true);
}

/// Makes a VM of tenant red, and gives its uuid and address.
fn create(lab: &TestLab, name: &str, host: &str) -> (String, IpAddr) {
    let answer = create_with(lab, name, host, &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let vm = &answer.body["inventory"];
    let ip = vm["vmNics"][0]["ip"].as_str().unwrap();
    (vm["uuid"].as_str().unwrap().to_owned(), ip.parse().unwrap())
}

fn create_with(lab: &TestLab, name: &str, host: &str, system_tags: &[&str]) -> Answer {
    let rest = lab.rest();
    let hosts = rest.all("/hosts");
    let host = hosts.iter().find(|found| found["name"] == host).unwrap();
    let params = json!({"name": name, "l3NetworkUuids": [network(lab)], "hostUuid": host["uuid"]});
    let body = json!({"params": params, "systemTags": system_tags}).to_string();
    rest.with("prefer", "wait=30").send("POST", "/vm-instances", &body).unwrap()
}

fn destroy(lab: &TestLab, vm: &str) {
    let rest = lab.rest().with("prefer", "wait=30");
    let answer = rest.send("DELETE", &format!("/vm-instances/{vm}"), "").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn network(lab: &TestLab) -> String {
    let networks = lab.rest().all("/l3-networks");
    let red = networks.iter().find(|network| network["name"] == "red-l3").unwrap();
    red["uuid"].as_str().unwrap().to_owned()
}
