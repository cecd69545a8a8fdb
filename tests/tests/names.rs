//! Names: guests ask with dig at their network's resolver, on their own host; what is not of their
//! network goes to a dnsmasq. Needs root, bind9-dnsutils and dnsmasq-base.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    process::{Child, Command, Stdio},
    thread,
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{LIMIT, TestLab, networks::services, rest::Rest, root_or_skip};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];
/// Where the bridge between the hosts is, and with it a server that both reach.
const ELSEWHERE: &str = "172.31.255.1";
const RESOLVER: &str = "169.254.169.254";

/// A server of names that has nothing to do with netloom; it ends with the value.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(lab: &TestLab) -> Self {
        let long: Vec<_> = (0..40)
            .map(|number| format!("--txt-record=long.example.org,{number}-{}", "x".repeat(60)))
            .collect();
        let mut command = Command::new("dnsmasq");
        command.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
        command.args(["--pid-file=", "--bind-interfaces", "--user=root", "--local-ttl=300"]);
        command.arg(format!("--listen-address={ELSEWHERE}"));
        command.args(["--host-record=www.example.org,192.0.2.80,2001:db8::80"]);
        command.args(["--cname=alias.example.org,www.example.org", "--local=/example.org/"]);
        command.args(long);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(lab.namespace("fabric").run_in(|| command.spawn()).unwrap().unwrap())
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What dig prints.
fn dig(guest: &Namespace, words: &str) -> String {
    let mut command = Command::new("dig");
    command.args(["+tries=1", "+timeout=5"]).args(words.split(' '));
    let output = guest.run_in(|| command.output()).unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn short(guest: &Namespace, name: &str) -> String {
    let mut lines: Vec<_> =
        dig(guest, &format!("@{RESOLVER} +short {name}")).lines().map(str::to_owned).collect();
    lines.sort();
    lines.join(" ")
}

/// Gives a network a domain, a resolver, and somebody who is asked about the rest.
fn serve(rest: &Rest, l3: &str, domain: &str) {
    let uuid = rest.uuid("/l3-networks", l3);
    let body = json!({"updateL3Network": {"dnsDomain": domain}}).to_string();
    let act = format!("/l3-networks/{uuid}/actions");
    let done = rest.clone().with("prefer", "wait=30").send("PUT", &act, &body).unwrap();
    assert_eq!(done.status, 200, "{done:?}");
    rest.made(&format!("/l3-networks/{uuid}/dns"), &json!({"dns": ELSEWHERE}));
    services(rest, &uuid, &["DNS"]);
}

#[test]
fn guests_ask_their_own_host_about_names() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let rest = lab.rest();
    for (l3, domain) in [("red-l3", "red.test"), ("blue-l3", "blue.test")] {
        serve(&rest, l3, domain);
    }
    lab.settle(&HOSTS);
    let [red, blue] = ["red-1", "blue-1"].map(|name| lab.namespace(name));
    // An instance without a hostname is known by its address, here and elsewhere.
    assert!(wait::holds(LIMIT, || short(&red, "10-0-0-11.red.test") == "10.0.0.11"));
    assert_eq!(short(&red, "10-0-0-12.red.test"), "10.0.0.12");
    assert_eq!(short(&red, "10-0-0-12.red.test AAAA"), "fd00::12");
    assert_eq!(short(&red, "-x 10.0.0.12"), "10-0-0-12.red.test.");
    assert_eq!(short(&red, "-x fd00::12"), "10-0-0-12.red.test.");
    assert_eq!(short(&red, "10-0-0-12.red.test +tcp"), "10.0.0.12");
    let found = dig(&red, &format!("@{RESOLVER} 10-0-0-12.red.test"));
    assert!(found.contains("status: NOERROR") && found.contains("flags: qr aa rd ra"), "{found}");
    let none = dig(&red, &format!("@{RESOLVER} nobody.red.test"));
    assert!(none.contains("status: NXDOMAIN") && none.contains("SOA\tred.test."), "{none}");
    let any = dig(&red, &format!("@{RESOLVER} 10-0-0-12.red.test ANY"));
    assert!(any.contains("\"RFC8482\""), "{any}");
    // By IPv6, too.
    let by_ipv6 = dig(&red, "@fe80::a9fe:a9fe%eth0 +short 10-0-0-12.red.test");
    assert_eq!(by_ipv6, "10.0.0.12");

    // What is not theirs is asked elsewhere, from the host; what is long comes by TCP.
    assert!(dig(&red, &format!("@{RESOLVER} www.example.org")).contains("status: SERVFAIL"));
    let dnsmasq = Dnsmasq::start(&lab);
    assert!(wait::holds(LIMIT, || short(&red, "www.example.org") == "192.0.2.80"));

    // Two tenants with the same addresses, at once: each gets its own.
    thread::scope(|scope| {
        for (guest, own, other) in [(&red, "red", "blue"), (&blue, "blue", "red")] {
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(short(guest, "-x 10.0.0.11"), format!("10-0-0-11.{own}.test."));
                    assert_eq!(short(guest, &format!("10-0-0-11.{other}.test")), "");
                }
            });
        }
    });

    assert_eq!(short(&red, "www.example.org AAAA"), "2001:db8::80");
    assert_eq!(short(&red, "alias.example.org"), "192.0.2.80 www.example.org.");
    assert_eq!(short(&red, "long.example.org TXT").matches("-xxxx").count(), 40);
    let cut = dig(&red, &format!("@{RESOLVER} +ignore +bufsize=4096 long.example.org TXT"));
    assert!(cut.contains("flags: qr tc rd ra"), "{cut}");
    let none = dig(&red, &format!("@{RESOLVER} nobody.example.org"));
    assert!(none.contains("status: NXDOMAIN"), "{none}");
    // It is remembered for those who have asked, and for nobody else.
    drop(dnsmasq);
    assert_eq!(short(&red, "www.example.org"), "192.0.2.80");
    assert!(dig(&blue, &format!("@{RESOLVER} www.example.org")).contains("status: SERVFAIL"));

    // Neither agent nor server is needed for long: the next agent answers, without a server.
    lab.kill(&["server", "h1"]);
    lab.start(&["h1"]);
    assert!(wait::holds(LIMIT, || short(&red, "10-0-0-12.red.test") == "10.0.0.12"));
}
