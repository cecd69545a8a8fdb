//! What becomes of packets and why, asked of hosts that really forward and drop them. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use client::Client;
use lab::wait;
use netloom_tests::{LIMIT, TestLab, binary, networks, rest::Rest, root_or_skip};
use serde_json::{Map, Value, json};

/// How long a try to connect may take: that it is dropped is seen by what hosts tell.
const TRY: Duration = Duration::from_millis(250);

/// Two hosts, a database on one behind a group, web servers on both.
struct Shop {
    lab: TestLab,
    rest: Rest,
    l3: String,
}

impl Shop {
    fn open() -> Self {
        let lab = TestLab::up();
        let rest = lab.rest();
        let pool = rest.all("/l2-networks/vxlan-pool")[0]["uuid"].clone();
        let l2 = rest.made("/l2-networks/vxlan", &json!({"name": "shop", "poolUuid": pool}));
        let l3 = networks::l3(&rest, "shop", &l2, 6);
        networks::groups(&rest, &l3);
        for (name, host, ip) in [("web", "h1", 21), ("near", "h1", 22), ("db", "h2", 23)] {
            let made = rest.create_vm(name, (&l3, host), &[IpAddr::from([10, 6, 0, ip])]);
            assert_eq!(made.status, 200, "{made:?}");
        }
        Self { lab, rest, l3 }
    }

    fn nic(&self, vm: &str) -> String {
        let nic = self.lab.named("/vm-instances", vm)["vmNics"][0]["uuid"].clone();
        nic.as_str().unwrap().to_owned()
    }

    /// A group with an instance, and with these rules if there are any.
    fn group(&self, name: &str, vm: &str, rules: &Value) -> String {
        let group = self.rest.made("/security-groups", &json!({"name": name}));
        let path = format!("/security-groups/{group}/rules");
        if *rules != json!([]) {
            let done = self.rest.post(&path, &json!({"rules": rules}));
            assert_eq!(done.status, 200, "{done:?}");
        }
        let path = format!("/security-groups/{group}/vm-instances/nics");
        let done = self.rest.post(&path, &json!({"vmNicUuids": [self.nic(vm)]}));
        assert_eq!(done.status, 200, "{done:?}");
        group
    }

    fn rule(&self, group: &str, port: &str) -> Value {
        let rules = self.lab.named("/security-groups", group)["rules"].clone();
        let found = rules.as_array().unwrap().iter().find(|rule| rule["dstPortRange"] == port);
        found.unwrap()["uuid"].clone()
    }

    /// A trace that is sure of itself.
    fn trace(&self, from: &str, to: &str, port: u16) -> Value {
        let path =
            format!("/vm-instances/nics/{}/trace?to={to}&protocol=TCP&port={port}", self.nic(from));
        let mut told = Value::Null;
        let is_sure = wait::holds(LIMIT, || {
            let answer = self.rest.send("GET", &path, "").unwrap();
            told = answer.body;
            answer.status == 200 && told["inconclusive"] == json!([])
        });
        assert!(is_sure, "{told:#}");
        told
    }

    fn hosts(told: &Value) -> Vec<&str> {
        let hosts = told["hosts"].as_array().unwrap().iter();
        hosts.map(|hop| hop["host"]["name"].as_str().unwrap()).collect()
    }

    /// A drop of a NIC that is like this, once it is there.
    fn drop(&self, vm: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/vm-instances/nics/{}/drops", self.nic(vm));
        let (mut found, mut all) = (None, Value::Null);
        let seen = wait::holds(LIMIT, || {
            let answer = self.rest.send("GET", &path, "").unwrap();
            all = answer.body;
            let drops = all["drops"].as_array().into_iter().flatten();
            found = drops.into_iter().find(|one| is_it(one)).cloned();
            found.is_some()
        });
        assert!(seen, "{all:#}");
        found.unwrap()
    }

    fn cli(&self, words: &[&str]) -> String {
        let password = self.lab.data("server").join("admin-password");
        let mut command = Command::new(binary());
        command.args(["--server", &self.lab.url(), "--password-file"]).arg(password);
        let output = command.args(words).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn a_trace_names_the_rule_that_decides_and_a_drop_that_which_did() {
    if !root_or_skip() {
        return;
    }
    let shop = Shop::open();
    let web = shop.group("web", "web", &json!([]));
    let database = json!([
        {"type": "Ingress", "protocol": "TCP", "dstPortRange": "3306", "remoteSecurityGroupUuid": web},
        {"type": "Ingress", "protocol": "TCP", "dstPortRange": "22", "action": "DROP"},
    ]);
    shop.group("database", "db", &database);

    // Across hosts, allowed by a rule.
    let told = shop.trace("web", "10.6.0.23", 3306);
    assert_eq!(told["verdict"], "Delivered", "{told:#}");
    assert_eq!(Shop::hosts(&told), ["h1", "h2"]);
    assert_eq!(told["decidedBy"]["rule"]["uuid"], shop.rule("database", "3306"), "{told:#}");
    assert_eq!(told["decidedBy"]["securityGroup"]["name"], "database");
    // Denied by one, and by none.
    let told = shop.trace("web", "10.6.0.23", 22);
    assert_eq!((&told["verdict"], &told["reason"]), (&json!("Dropped"), &json!("policy_ingress")));
    assert_eq!(told["decidedBy"]["rule"]["uuid"], shop.rule("database", "22"), "{told:#}");
    let told = shop.trace("near", &shop.nic("db"), 3306);
    assert_eq!((&told["verdict"], &told["decidedBy"]["by"]), (&json!("Dropped"), &json!("Policy")));
    // On one host.
    let told = shop.trace("near", "10.6.0.21", 80);
    assert_eq!((&told["verdict"], &told["decidedBy"]["by"]), (&json!("Dropped"), &json!("Policy")));
    assert_eq!(Shop::hosts(&told), ["h1"]);
    let told = shop.trace("web", "10.6.0.22", 80);
    assert_eq!((&told["verdict"], Shop::hosts(&told)), (&json!("Delivered"), vec!["h1"]));
    // Nobody's address.
    let told = shop.trace("web", "10.6.0.77", 80);
    assert_ne!(told["verdict"], "Delivered", "{told:#}");
    assert_eq!(Shop::hosts(&told), ["h1"]);

    // A real packet that is dropped by the same rule.
    let to = SocketAddr::from(([10, 6, 0, 23], 22));
    let web = shop.lab.namespace("web");
    let denied = |drop: &Value| drop["reason"] == "policy_ingress" && drop["port"] == 22;
    assert!(web.run_in(|| TcpStream::connect_timeout(&to, TRY)).unwrap().is_err());
    let drop = shop.drop("db", denied);
    assert_eq!(drop["rule"]["uuid"], shop.rule("database", "22"), "{drop:#}");
    assert_eq!((&drop["direction"], &drop["source"]), (&json!("ToNic"), &json!("10.6.0.21")));
    let text = shop.cli(&["why-dropped", "db"]);
    assert!(text.contains("policy_ingress") && text.contains("security group database"), "{text}");
    let text =
        shop.cli(&["trace", "--from", "web", "--to", "db", "--proto", "tcp", "--port", "22"]);
    assert!(text.contains("Dropped (policy_ingress)") && text.contains("group database"), "{text}");

    no_other_is_named(&shop);
    a_stopped_agent_is_named(&shop);
}

/// A tenant asks from its own NIC about others'.
fn no_other_is_named(shop: &Shop) {
    let admin = shop.lab.client();
    let params = |value: Value| value.as_object().unwrap().clone();
    let account = json!({"name": "tenant", "password": client::digest("secret")});
    admin.call("CreateAccount", params(account), &[]).unwrap();
    let share = json!({"resourceUuids": [shop.l3], "toPublic": true});
    admin.call("ShareResource", params(share), &[]).unwrap();
    let mut tenant = Client::new(&shop.lab.url());
    tenant.log_in("tenant", "secret").unwrap();
    let own = json!({"name": "own", "l3NetworkUuids": [shop.l3]});
    let made = tenant.call("CreateVmInstance", params(own), &[]).unwrap();
    let nic = made["inventory"]["vmNics"][0]["uuid"].clone();
    let ask = json!({"vmNicUuid": nic, "to": "10.6.0.23", "protocol": "TCP", "port": 22});
    let told = tenant.call("GetVmNicTrace", params(ask), &[]).unwrap();
    assert_eq!(told["verdict"], "Dropped", "{told:#}");
    let text = told.to_string();
    let secrets = [shop.nic("db"), shop.lab.named("/hosts", "h1")["uuid"].to_string()];
    let secrets = secrets.iter().map(|uuid| uuid.trim_matches('"'));
    for secret in secrets.chain(["database", "\"h1\"", "\"h2\"", "\"db\"", "instance db"]) {
        assert!(!text.contains(secret), "{secret}: {told:#}");
    }
    let of_other = Map::from_iter([("vmNicUuid".to_owned(), json!(shop.nic("db")))]);
    let refused = tenant.call("GetVmNicDrops", of_other, &[]).unwrap_err();
    assert!(refused.to_string().contains("SYS.1003"), "{refused}");
}

/// What cannot be asked is named; what is known is told.
fn a_stopped_agent_is_named(shop: &Shop) {
    shop.lab.kill(&["h2"]);
    let path = format!("/vm-instances/nics/{}/drops", shop.nic("db"));
    let mut answer = None;
    let is_named = wait::holds(LIMIT, || {
        let last = answer.insert(shop.rest.send("GET", &path, "").unwrap());
        let text = last.body.to_string();
        last.status == 503 && text.contains("host h2") && text.contains("is not connected")
    });
    assert!(is_named, "{answer:?}");
    let path =
        format!("/vm-instances/nics/{}/trace?to=10.6.0.23&protocol=TCP&port=3306", shop.nic("web"));
    let told = shop.rest.send("GET", &path, "").unwrap().body;
    assert_eq!(told["verdict"], "Unknown", "{told:#}");
    assert!(told["words"].as_str().unwrap().contains("h2"), "{told:#}");
    assert_eq!(Shop::hosts(&told), ["h1"]);
}
