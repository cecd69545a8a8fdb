//! An address that two VMs share, and of which keepalived decides who answers for it. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    networks::gre_pool,
    root_or_skip,
    traffic::{Ping, one_packet_passes, ping},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
/// Outside of every range of the network.
const SHARED: [&str; 2] = ["10.0.0.250", "fd00::250"];

/// keepalived in a VM.
struct Keepalived {
    child: Child,
    dir: PathBuf,
}

impl Keepalived {
    fn start(lab: &TestLab, vm: &str, priority: u8) -> Self {
        let dir = lab.root().join(format!("keepalived-{vm}"));
        fs::create_dir_all(&dir).unwrap();
        let [v4, v6] = SHARED;
        let text = format!(
            "global_defs {{\n vrrp_version 3\n}}\nvrrp_instance shared {{\n state BACKUP\n interface \
             eth0\n virtual_router_id 7\n priority {priority}\n advert_int 0.2\n virtual_ipaddress \
             {{\n {v4}/32 dev eth0\n }}\n virtual_ipaddress_excluded {{\n {v6}/128 dev eth0\n }}\n}}\n"
        );
        fs::write(dir.join("conf"), text).unwrap();
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--vrrp"]);
        for (option, file) in [("use-file", "conf"), ("pid", "pid"), ("vrrp_pid", "vrrp-pid")] {
            command.arg(format!("--{option}={}", dir.join(file).display()));
        }
        let log = fs::File::create(dir.join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        let child = lab.namespace(vm).run_in(|| command.spawn()).unwrap().unwrap();
        Self { child, dir }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// As if its machine lost its power: nobody is told.
    fn kill(mut self) {
        let vrrp = fs::read_to_string(self.dir.join("vrrp-pid")).unwrap();
        // The one that would start the other anew goes first.
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL).unwrap();
        kill(Pid::from_raw(vrrp.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Whether a VM has the shared address now.
fn has(vm: &Namespace) -> bool {
    let list = || Command::new("ip").args(["-o", "address", "show", "dev", "eth0"]).output();
    let output = vm.run_in(list).unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap().contains(SHARED[0])
}

/// A network with both families, and a VM and a client in it on each host.
fn network(lab: &TestLab, of: &str) -> [[Namespace; 2]; 2] {
    let rest = lab.rest();
    let pool = match of {
        "gre" => gre_pool(&rest),
        _ => rest.uuid("/l2-networks/vxlan-pool", "pool"),
    };
    let path = format!("/l2-networks/{of}");
    let l2 = rest.made(&path, &json!({"name": "shared", "poolUuid": pool}));
    let l3 = rest.made("/l3-networks", &json!({"name": "shared", "l2NetworkUuid": l2}));
    let v4 = json!({"name": "v4", "startIp": "10.0.0.10", "endIp": "10.0.0.99",
        "netmask": "255.255.255.0", "gateway": "10.0.0.1"});
    rest.made(&format!("/l3-networks/{l3}/ip-ranges"), &v4);
    let v6 = json!({"name": "v6", "startIp": "fd00::10", "endIp": "fd00::99", "gateway": "fd00::1",
        "prefixLen": 64, "addressMode": "Stateful-DHCP"});
    rest.made(&format!("/l3-networks/{l3}/ipv6-ranges"), &v6);
    let numbers = [["11", "12"], ["21", "22"]];
    ["router", "client"].map(|role| {
        HOSTS.map(|host| {
            let at = (usize::from(role == "client"), usize::from(host == "h2"));
            let number = numbers[at.0][at.1];
            let addresses = [format!("10.0.0.{number}"), format!("fd00::{number}")];
            let addresses = addresses.map(|text| text.parse::<IpAddr>().unwrap());
            let name = format!("{role}-{host}");
            let made = rest.create_vm(&name, (&l3, host), &addresses);
            assert_eq!(made.status, 200, "{made:?}");
            lab.namespace(&name)
        })
    })
}

/// Whether both families of the shared address are at this VM, as the clients see it.
fn is_reached(clients: &[Namespace; 2], at: &Namespace) -> bool {
    let all = clients.iter().flat_map(|client| SHARED.map(|text| (client, text.parse().unwrap())));
    all.into_iter().all(|(client, shared)| {
        ping(client, shared, 1400) == Ping::Answered && one_packet_passes(client, at, shared)
    })
}

#[test]
fn keepalived_moves_an_address_between_vms_of_two_hosts_and_peers_follow() {
    if root_or_skip() {
        passes_on("vxlan");
    }
}

/// Questions and answers of ARP are in GRE, too.
#[test]
fn keepalived_does_so_in_gre() {
    if root_or_skip() {
        passes_on("gre");
    }
}

/// In a network of this type.
fn passes_on(of: &str) {
    let lab = TestLab::up();
    let [routers, clients] = network(&lab, of);
    // Before both NICs may have it, nobody does.
    lab.ip("router-h1", &format!("address add {}/32 dev eth0", SHARED[0]));
    assert_eq!(ping(&clients[0], SHARED[0].parse().unwrap(), 56), Ping::Lost);
    lab.ip("router-h1", &format!("address del {}/32 dev eth0", SHARED[0]));
    let rest = lab.rest();
    for router in ["router-h1", "router-h2"] {
        let nic: Value = rest.named("/vm-instances", router)["vmNics"][0]["uuid"].clone();
        let [v4, v6] = SHARED;
        let prefixes = [format!("{v4}/32"), format!("{v6}/128")];
        let body = json!({"setVmNicAllowedPrefixes": {"prefixes": prefixes}}).to_string();
        let path = format!("/vm-instances/nics/{}/actions", nic.as_str().unwrap());
        let answer = rest.clone().with("prefer", "wait=30").send("PUT", &path, &body).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    lab.settle(&HOSTS);

    let first = Keepalived::start(&lab, "router-h1", 200);
    assert!(wait::holds(LIMIT, || has(&routers[0])), "{}", first.log());
    let second = Keepalived::start(&lab, "router-h2", 100);
    assert!(wait::holds(LIMIT, || second.log().contains("BACKUP")), "{}", second.log());
    assert!(wait::holds(LIMIT, || is_reached(&clients, &routers[0])), "{}", first.log());
    assert!(!has(&routers[1]), "it hears the other one: {}", second.log());

    // The address passes to the other one, and whoever has talked to the first follows.
    first.kill();
    for (address, bits) in SHARED.into_iter().zip([32, 128]) {
        lab.ip("router-h1", &format!("address del {address}/{bits} dev eth0"));
    }
    assert!(wait::holds(LIMIT, || has(&routers[1])), "{}", second.log());
    assert!(wait::holds(LIMIT, || is_reached(&clients, &routers[1])), "{}", second.log());
    drop(second);
    lab.settle(&HOSTS);
}
