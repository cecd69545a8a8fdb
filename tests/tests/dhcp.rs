//! Real DHCP clients in instances: they lease, renew, hear of changes and give back, whether or not there
//! is a server, and whichever agent is there. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{LIMIT, TestLab, networks, root_or_skip};
use serde_json::{Value, json};

/// What clients run when something happens: it writes down what it was told, and configures nothing.
const SCRIPT: &str = "#!/bin/sh\nenv > \"DIR/${1:-$reason}\"\n";

/// An instance whose network is not configured, and a place for what its client writes.
struct Guest {
    inside: Namespace,
    directory: tempfile::TempDir,
}

impl Guest {
    fn of(lab: &TestLab, name: &str) -> Self {
        let (inside, directory) = (lab.namespace(name), tempfile::tempdir().unwrap());
        let guest = Self { inside, directory };
        let here = guest.directory.path().to_str().unwrap();
        fs::write(guest.path("script"), SCRIPT.replace("DIR", here)).unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(guest.path("script"), mode).unwrap();
        guest
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn output(&self, program: &str, words: &str) -> Output {
        let mut command = Command::new(program);
        let here = self.directory.path().to_str().unwrap();
        command.args(words.replace("DIR", here).split(' '));
        self.inside.run_in(|| command.output()).unwrap().unwrap()
    }

    /// Runs a program inside; it must succeed.
    fn run(&self, program: &str, words: &str) -> String {
        let output = self.output(program, words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {words}: {text}{error}");
        text + &error
    }

    /// What the client was told when this happened, by the names of its script's variables.
    fn told(&self, event: &str) -> BTreeMap<String, String> {
        let Ok(text) = fs::read_to_string(self.path(event)) else {
            let files = fs::read_dir(self.directory.path()).unwrap();
            let files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
            panic!("no {event} among {files:?}");
        };
        fs::remove_file(self.path(event)).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Leases an address as BusyBox does; what it was told.
    fn udhcpc(&self) -> BTreeMap<String, String> {
        let words = "udhcpc -f -q -n -t 5 -T 1 -i eth0 -s DIR/script -x hostname:of-guest \
             -O mtu -O staticroutes -O search";
        self.run("busybox", words);
        self.told("bound")
    }
}

/// An L3 network whose hosts answer DHCP.
fn leased(lab: &TestLab, number: u8) -> String {
    let rest = lab.rest();
    let pool = rest.all("/l2-networks/vxlan-pool")[0]["uuid"].clone();
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "leased", "poolUuid": pool}));
    let l3 = networks::l3(&rest, "leased", &l2, number);
    networks::services(&rest, &l3, &["DHCP"]);
    networks::dhcp_last(&rest, &l3, &format!("10.{number}.0"));
    networks::addresses(&rest, &l3, "None");
    l3
}

/// What the agent of h1 has seen of leases.
fn seen(lab: &TestLab) -> Vec<Value> {
    lab.inspect("h1")["agent"]["leases"].as_array().cloned().unwrap_or_default()
}

fn has_seen(lab: &TestLab, kind: &str, is_v6: bool) -> bool {
    wait::holds(LIMIT, || {
        seen(lab).iter().any(|lease| lease["kind"] == kind && lease["isV6"] == is_v6)
    })
}

#[test]
fn a_guest_leases_its_address_whether_or_not_there_is_a_server() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let l3 = leased(&lab, 6);
    let made = lab.rest().create_vm("guest", (&l3, "h1"), &["10.6.0.42".parse().unwrap()]);
    assert_eq!(made.status, 200, "{made:?}");
    let guest = Guest::of(&lab, "guest");
    let told = guest.udhcpc();
    assert_eq!((&*told["ip"], &*told["subnet"]), ("10.6.0.42", "255.255.255.0"), "{told:?}");
    assert_eq!((&*told["router"], &*told["lease"]), ("10.6.0.1", "86400"), "{told:?}");
    assert_eq!(told["hostname"], "10-6-0-42", "{told:?}");
    assert_eq!(told["staticroutes"], "0.0.0.0/0 10.6.0.1", "{told:?}");
    assert!(has_seen(&lab, "leased", false), "{:?}", seen(&lab));
    assert_eq!(seen(&lab)[0]["hostname"], "of-guest");

    lab.kill(&["server"]);
    assert_eq!(guest.udhcpc()["ip"], "10.6.0.42");
    lab.kill(&["h1"]);
    lab.start(&["h1"]);
    // A client asks for some seconds; the agent needs less to start.
    assert_eq!(guest.udhcpc(), told, "the same, from what the agent has on disk");
    lab.start(&["server"]);
    lab.settle(&["h1", "h2"]);
}

#[test]
fn a_guest_hears_that_its_address_is_another_one_and_gives_it_back() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let l3 = leased(&lab, 6);
    let made = lab.rest().create_vm("guest", (&l3, "h1"), &["10.6.0.42".parse().unwrap()]);
    assert_eq!(made.status, 200, "{made:?}");
    let guest = Guest::of(&lab, "guest");
    let dhclient = "-4 -1 -sf DIR/script -lf DIR/leases -pf DIR/pid eth0";
    let end = || guest.output("dhclient", "-4 -x -sf DIR/script -lf DIR/leases -pf DIR/pid eth0");
    guest.run("dhclient", dhclient);
    assert_eq!(guest.told("BOUND")["new_ip_address"], "10.6.0.42");
    end();
    // It asks for what it had (RFC 2131, INIT-REBOOT).
    guest.run("dhclient", dhclient);
    assert_eq!(guest.told("REBOOT")["new_ip_address"], "10.6.0.42");
    end();

    let vm = lab.named("/vm-instances", "guest")["uuid"].as_str().unwrap().to_owned();
    let params = json!({"setVmStaticIp": {"l3NetworkUuid": l3, "ip": "10.6.0.77"}}).to_string();
    let path = format!("/vm-instances/{vm}/actions");
    let changed = lab.rest().with("prefer", "wait=30").send("PUT", &path, &params).unwrap();
    assert_eq!(changed.status, 200, "{changed:?}");
    // Refused at once, and not after a while without an answer.
    guest.run("dhclient", dhclient);
    assert!(has_seen(&lab, "leased", false), "{:?}", seen(&lab));
    assert_eq!(guest.told("BOUND")["new_ip_address"], "10.6.0.77");
    let said = fs::read_to_string(guest.path("EXPIRE")).unwrap_or_default();
    assert!(said.contains("10.6.0.42"), "{said}");
    // A release comes from the address.
    guest.run("ip", "addr replace 10.6.0.77/24 dev eth0");
    guest.run("ip", "route replace default via 10.6.0.1");
    guest.output("dhclient", "-4 -r -sf DIR/script -lf DIR/leases -pf DIR/pid eth0");
    assert!(has_seen(&lab, "released", false), "{:?}", seen(&lab));
}

#[test]
fn a_guest_leases_its_ipv6_address_and_hears_of_routers() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let l3 = leased(&lab, 6);
    let made = lab.rest().create_vm("guest", (&l3, "h1"), &["fd06::42".parse().unwrap()]);
    assert_eq!(made.status, 200, "{made:?}");
    let guest = Guest::of(&lab, "guest");
    guest.run("ip", "-6 addr flush dev eth0 scope global");
    let ready = || !guest.run("ip", "-6 addr show dev eth0 scope link -tentative").is_empty();
    assert!(wait::holds(LIMIT, ready));
    guest.run("dhclient", "-6 -1 -sf DIR/script -lf DIR/leases6 -pf DIR/pid6 eth0");
    let told = guest.told("BOUND6");
    assert_eq!(told["new_ip6_address"], "fd06::42", "{told:?}");
    assert!(has_seen(&lab, "leased", true), "{:?}", seen(&lab));
    guest.output("dhclient", "-6 -r -sf DIR/script -lf DIR/leases6 -pf DIR/pid6 eth0");
    assert!(has_seen(&lab, "released", true), "{:?}", seen(&lab));
}

#[test]
fn a_guest_makes_its_address_of_the_prefix_that_it_hears() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    let pool = rest.all("/l2-networks/vxlan-pool")[0]["uuid"].clone();
    let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "slaac", "poolUuid": pool}));
    let l3 = rest.made("/l3-networks", &json!({"name": "slaac", "l2NetworkUuid": l2}));
    let range = json!({"name": "v6", "networkCidr": "fd08::/64", "addressMode": "SLAAC"});
    rest.made(&format!("/l3-networks/{l3}/ipv6-ranges/by-cidr"), &range);
    networks::services(&rest, &l3, &["DHCP"]);
    networks::addresses(&rest, &l3, "None");
    for (name, host) in [("one", "h1"), ("two", "h2")] {
        let made = rest.create_vm(name, (&l3, host), &[]);
        assert_eq!(made.status, 200, "{made:?}");
    }
    let own = |name: &str| lab.named("/vm-instances", name)["vmNics"][0]["ip"].clone();
    for name in ["one", "two"] {
        let guest = Guest::of(&lab, name);
        // As a guest with a kernel of its own has it; the driver gives addresses itself.
        guest.run("busybox", "sysctl -w net.ipv6.conf.eth0.accept_ra=1");
        guest.run("busybox", "sysctl -w net.ipv6.conf.eth0.autoconf=1");
        guest.run("ip", "link set eth0 down");
        guest.run("ip", "-6 addr flush dev eth0 scope global");
        guest.run("ip", "link set eth0 up");
        let ip = own(name).as_str().unwrap().to_owned();
        let made = || guest.run("ip", "-6 addr show dev eth0 -tentative").contains(&ip);
        assert!(wait::holds(LIMIT, made), "{ip}: {}", guest.run("ip", "addr show dev eth0"));
    }
    let guest = Guest::of(&lab, "one");
    let ip = own("two").as_str().unwrap().to_owned();
    assert!(wait::holds(LIMIT, || guest.output("ping", &format!("-c1 -W1 {ip}")).status.success()));
}

/// What clients need that leave files on the machine or look for those of a booted one: places of their
/// own for them, which go with the process.
const APART: &str = "mount -t tmpfs own /run && mount -t tmpfs own /etc/systemd/network && \
    mkdir -p /var/lib/dhcpcd && mount -t tmpfs own /var/lib/dhcpcd && mount -t sysfs -o ro own /sys";
/// systemd-networkd as at the boot of a machine with one network device.
const NETWORKD: &str = "mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp && \
    chown -R systemd-network:systemd-network /run/systemd/netif && \
    printf '[Match]\\nName=eth0\\n[Network]\\nDHCP=yes\\nIPv6AcceptRA=yes\\n' >/etc/systemd/network/a.network && \
    exec /lib/systemd/systemd-networkd";

/// A client that stays, which ends with this.
struct Client(Child);

impl Client {
    fn start(guest: &Guest, script: &str) -> Self {
        let mut command = Command::new("unshare");
        // Whatever it starts goes with it. Nothing outlives a killed test for long.
        command.args(["-m", "--pid", "--fork", "--kill-child", "timeout", "120"]);
        command.args(["sh", "-c", &format!("{APART} && {script}")]);
        let log = fs::File::create(guest.path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(guest.inside.run_in(|| command.spawn()).unwrap().unwrap())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Whoever configures a machine by himself: dhcpcd, and systemd-networkd.
#[test]
fn clients_that_configure_the_machine_get_addresses_of_both_families_and_a_route() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let l3 = leased(&lab, 6);
    let addresses = ["10.6.0.42", "fd06::42"];
    let both = addresses.map(|ip| ip.parse().unwrap());
    let made = lab.rest().create_vm("guest", (&l3, "h1"), &both);
    assert_eq!(made.status, 200, "{made:?}");
    // The scripts that dhcpcd comes with would write this machine's resolv.conf.
    for script in ["exec dhcpcd -B --noarp -f /dev/null -c /bin/true eth0", NETWORKD] {
        let guest = Guest::of(&lab, "guest");
        guest.run("ip", "link set eth0 down");
        guest.run("ip", "-6 addr flush dev eth0 scope global");
        guest.run("ip", "link set eth0 up");
        assert!(guest.run("ip", "route").is_empty());
        let client = Client::start(&guest, script);
        let has_all = || {
            let shown = guest.run("ip", "addr show dev eth0 scope global -tentative");
            let routes = guest.run("ip", "route");
            addresses.iter().all(|ip| shown.contains(&format!("{ip}/")))
                && routes.contains("default via 10.6.0.1 ")
        };
        let log = || fs::read_to_string(guest.path("log")).unwrap();
        assert!(wait::holds(LIMIT, has_all), "{}{}", guest.run("ip", "addr"), log());
        drop(client);
    }
}

/// The pids that are noted of DHCP clients of a host's instances.
fn clients(lab: &TestLab, host: &str) -> Vec<i32> {
    let Ok(files) = fs::read_dir(lab.data(host).join("clients")) else { return Vec::new() };
    let names = files.map(|file| file.unwrap().path());
    let notes = names.filter(|path| path.extension().is_some_and(|word| word == "client"));
    let pid = |path: PathBuf| {
        let noted: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        i32::try_from(noted["pid"].as_i64().unwrap()).unwrap()
    };
    notes.map(pid).collect()
}

/// An instance that is nothing but a namespace has a client that is run for it, which is as good as any.
#[test]
fn an_instance_without_software_asks_for_its_addresses_like_any_guest() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let l3 = leased(&lab, 6);
    let rest = lab.rest();
    networks::addresses(&rest, &l3, "Client");
    let both = ["10.6.0.42", "fd06::42"].map(|ip| ip.parse().unwrap());
    let made = rest.create_vm("guest", (&l3, "h1"), &both);
    assert_eq!(made.status, 200, "{made:?}");
    let guest = Guest::of(&lab, "guest");
    let has = |ip: &str| {
        let shown = guest.run("ip", "addr show dev eth0 scope global -tentative");
        let routes = guest.run("ip", "route");
        [ip, "fd06::42"].iter().all(|ip| shown.contains(&format!("{ip}/")))
            && routes.contains("default via 10.6.0.1 ")
    };
    assert!(wait::holds(LIMIT, || has("10.6.0.42")), "{}", guest.run("ip", "addr"));
    assert!(has_seen(&lab, "leased", false) && has_seen(&lab, "leased", true));
    let first = clients(&lab, "h1");
    assert_eq!(first.len(), 1, "one for all of its NICs");

    // The next agent finds it as it is.
    lab.kill(&["h1"]);
    lab.start(&["h1"]);
    lab.settle(&["h1"]);
    assert_eq!(clients(&lab, "h1"), first);
    assert!(has("10.6.0.42"));

    // Another address is asked for at once.
    let own = lab.named("/vm-instances", "guest")["uuid"].as_str().unwrap().to_owned();
    let params = json!({"setVmStaticIp": {"l3NetworkUuid": l3, "ip": "10.6.0.77"}}).to_string();
    let path = format!("/vm-instances/{own}/actions");
    let changed = rest.clone().with("prefer", "wait=30").send("PUT", &path, &params).unwrap();
    assert_eq!(changed.status, 200, "{changed:?}");
    let shown = || guest.run("ip", "-4 addr show dev eth0");
    assert!(
        wait::holds(LIMIT, || shown().contains("10.6.0.77/") && !shown().contains("10.6.0.42/"))
    );
    assert_eq!(clients(&lab, "h1"), first);

    // Set by the host, and asked for again.
    networks::addresses(&rest, &l3, "Injected");
    assert!(wait::holds(LIMIT, || clients(&lab, "h1").is_empty() && has("10.6.0.77")));
    let has_ended = |pid: i32| fs::metadata(format!("/proc/{pid}/ns/net")).is_err();
    assert!(wait::holds(LIMIT, || has_ended(first[0])));
    networks::addresses(&rest, &l3, "Client");
    assert!(wait::holds(LIMIT, || clients(&lab, "h1").len() == 1 && has("10.6.0.77")));

    let last = clients(&lab, "h1")[0];
    assert_eq!(rest.delete(&format!("/vm-instances/{own}")).status, 200);
    assert!(wait::holds(LIMIT, || clients(&lab, "h1").is_empty()));
    assert!(wait::holds(LIMIT, || has_ended(last)));
}
