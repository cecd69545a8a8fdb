//! A lab that lives as long as a value.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use client::Client;
use hostnet::Namespace;
use lab::{CheckReport, Report, UpOptions, scratch::Root, wait};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{machine::Machine, rest::Rest};

pub use hostnet::scratch::root_or_skip;

/// How long anything may take until it is in effect.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Where the bridge is that joins the hosts of a lab.
const WIRE: &str = "fabric";

/// The example topology, up; taken down when dropped.
pub struct TestLab {
    /// What it was made of.
    pub options: UpOptions,
    _root: Root,
}

impl TestLab {
    /// Brings [`two_tenants`] up under a name of its own.
    pub fn up() -> Self {
        Self::of(&two_tenants())
    }

    /// The same with its networks in GRE, and a pool of such.
    pub fn in_gre() -> Self {
        Self::of(&gre(&two_tenants()))
    }

    /// `examples/two-tenants.yaml` itself, before anything is made.
    pub fn unmade() -> Self {
        let root = Root::new().unwrap();
        Self { options: options(root.labs()), _root: root }
    }

    /// That of [`TestLab::up`] with a third host, h3, and on it the VM red-3 of the network red, 10.0.0.13.
    pub fn of_three_hosts() -> Self {
        Self::of(&three_hosts())
    }

    /// One of this topology.
    pub fn of(topology: &str) -> Self {
        Self::unmade().made_of(topology)
    }

    fn made_of(self, topology: &str) -> Self {
        let mut this = self;
        fs::create_dir_all(this.root()).unwrap();
        let path = this.root().join("topology.yaml");
        fs::write(&path, topology).unwrap();
        this.options.topology = path;
        this.apply();
        this
    }

    /// That of [`TestLab::up`], whose agents compare all verdicts of their programs with what rules say.
    pub fn sampled() -> Self {
        let mut this = Self::unmade();
        this.options.agent_options = vec!["--sample=1".to_owned()];
        this.made_of(&two_tenants())
    }

    /// How many verdicts these hosts have compared.
    ///
    /// # Panics
    /// When one was not what rules say.
    pub fn compared(&self, hosts: &[&str]) -> u64 {
        let of = |host: &&str| {
            let sampled = self.inspect(host)["agent"]["sampled"].clone();
            assert_eq!(sampled["differed"], 0, "{host}: {sampled:#}");
            sampled["compared"].as_u64().unwrap_or_default()
        };
        hosts.iter().map(of).sum()
    }

    /// Applies the topology once more.
    pub fn apply(&self) -> Report {
        lab::up(&self.options).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Takes the lab down.
    pub fn down(&self) {
        lab::down(self.name(), self.root()).unwrap();
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Where its files are.
    pub fn root(&self) -> &Path {
        &self.options.state_root
    }

    /// Where the data of `server` or of a host's agent is.
    pub fn data(&self, process: &str) -> PathBuf {
        self.root().join(self.name()).join(process)
    }

    /// Ends processes as a crash would.
    pub fn kill(&self, processes: &[&str]) {
        processes.iter().for_each(|name| lab::kill(self.name(), self.root(), name).unwrap());
    }

    /// Ends processes as an operator would.
    pub fn stop(&self, processes: &[&str]) {
        processes.iter().for_each(|name| lab::stop(self.name(), self.root(), name).unwrap());
    }

    /// Starts processes again, with the data that they have.
    pub fn start(&self, processes: &[&str]) {
        for name in processes {
            lab::start(self.name(), self.root(), name).unwrap();
        }
    }

    /// Fails unless exactly those reach each other who shall.
    pub fn check(&self) -> CheckReport {
        let report = lab::check(self.name(), self.root()).unwrap();
        assert!(report.is_as_expected(), "{report}");
        report
    }

    /// Waits until the server answers, and opens a session.
    pub fn client(&self) -> Client {
        let mut found = None;
        assert!(wait::holds(LIMIT, || {
            found = self.try_client();
            found.is_some()
        }));
        found.unwrap()
    }

    fn try_client(&self) -> Option<Client> {
        let password = fs::read_to_string(self.data("server").join("admin-password")).ok()?;
        let mut client = Client::new(&self.url());
        client.log_in("admin", &password).ok()?;
        Some(client)
    }

    /// Raw REST calls, once the server answers.
    pub fn rest(&self) -> Rest {
        Rest::new(&self.url(), self.client().session())
    }

    /// Where the server answers REST.
    pub fn url(&self) -> String {
        let found = lab::status(self.root()).unwrap();
        found.into_iter().find(|status| status.name == self.name()).unwrap().url
    }

    /// Waits until the hosts' agents are connected and hold what they should.
    pub fn settle(&self, hosts: &[&str]) {
        let client = self.client();
        for host in hosts {
            let asked =
                [&format!("name={host}"), "status=Connected", "synced=true"].map(str::to_owned);
            let is_settled = || client.query("/hosts", &asked).is_ok_and(|found| found.len() == 1);
            assert!(wait::holds(LIMIT, is_settled), "{host} does not settle");
        }
    }

    /// The machine as it is, as far as it is this lab's.
    pub fn machine(&self) -> Machine {
        Machine::look(self.name(), &self.root().join(self.name()))
    }

    /// What `netloom inspect` says of a host, there.
    pub fn inspect(&self, host: &str) -> Value {
        let mut command = Command::new(&self.options.binary);
        command.arg("inspect").arg("--data").arg(self.data(host));
        command.arg("--bpffs").arg(self.data(host).join("bpf")).args(["-o", "json"]);
        let output = self.namespace(host).run_in(|| command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The digests of what a host was told to hold and of what its maps hold; they agree.
    pub fn digests(&self, host: &str) -> Value {
        let inspection = self.inspect(host);
        assert_eq!(inspection["asDesired"], true, "{inspection:#}");
        assert_eq!(inspection["saved"]["kernel"], inspection["kernel"], "{inspection:#}");
        json!([inspection["saved"]["objects"], inspection["kernel"]])
    }

    /// Runs `ip` as a user of a VM or host would; it must succeed.
    pub fn ip(&self, node: &str, words: &str) {
        let mut command = Command::new("ip");
        command.args(words.split(' '));
        let output = self.namespace(node).run_in(|| command.output()).unwrap().unwrap();
        assert!(output.status.success(), "{node}: ip {words}: {output:?}");
    }

    /// The resource of this name below a path.
    pub fn named(&self, path: &str, name: &str) -> Value {
        let found = self.rest().all(path).into_iter().find(|found| found["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {path}"))
    }

    /// The host's device of a VM's first NIC, as the agent names it.
    pub fn host_end(&self, vm: &str) -> String {
        let vm = self.named("/vm-instances", vm);
        let digits = vm["vmNics"][0]["uuid"].as_str().unwrap();
        format!("nl{}", &digits[digits.len() - 12..])
    }

    /// The namespace of a VM or host, or of the bridge between hosts: `fabric`.
    pub fn namespace(&self, node: &str) -> Namespace {
        if node == WIRE {
            return Namespace::open(&format!("nl-{}-{WIRE}", self.name())).unwrap();
        }
        lab::namespace(self.name(), self.root(), node).unwrap()
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        if let Err(error) = lab::down(self.name(), self.root()) {
            eprintln!("lab {} stays behind: {error}", self.name());
        }
    }
}

impl TestLab {
    fn show_logs(&self) {
        for process in ["server", "h1", "h2"] {
            let log = self.root().join(self.name()).join(format!("{process}.log"));
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {process}: the end of its log");
            lines[lines.len().saturating_sub(20)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A topology with networks in GRE in the place of those in VXLAN.
pub fn gre(topology: &str) -> String {
    topology.replace("- pool:", "- gre-pool:").replace("- vxlan:", "- gre:")
}

/// The topology of [`TestLab::of_three_hosts`].
pub fn three_hosts() -> String {
    let text = two_tenants();
    let h3 = "  - host: {name: h3, cluster: cluster, managementIp: $host.h3.ip}\n";
    let vm = "  - vm: {name: red-3, l3: red-l3, host: h3, ip: 10.0.0.13}\n";
    let mut reach = "  reach:\n".to_owned();
    for vm in ["red-1", "red-2"] {
        reach += &format!("    - [{vm}, red-3]\n    - [red-3, {vm}]\n");
    }
    text.replace("hosts: [h1, h2]", "hosts: [h1, h2, h3]")
        .replace("\n  # VXLAN networks", &format!("{h3}\n  # VXLAN networks"))
        .replace("\nexpect:", &format!("{vm}\nexpect:"))
        .replace("  reach:\n", &reach)
}

/// The example topology, in whose networks hosts serve nobody: their VMs find their addresses set. Most
/// tests are about something else than how these come.
fn two_tenants() -> String {
    let text = fs::read_to_string(example()).unwrap();
    let (before, rest) = text.split_once("  - AttachNetworkService").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    format!("{before}\n{after}")
}

/// The example topology.
pub fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/two-tenants.yaml")
}

/// Options for a lab that no other test has.
fn options(state_root: PathBuf) -> UpOptions {
    UpOptions {
        topology: example(),
        name: format!("t{}", &uuid()[..11]),
        state_root,
        binary: binary(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        agent_options: Vec::new(),
    }
}

/// The binary under test.
///
/// # Panics
/// When it is not there, saying how to build it.
pub fn binary() -> PathBuf {
    if let Some(given) = env::var_os("NETLOOM_BIN") {
        return PathBuf::from(given);
    }
    // The test is target/<profile>/deps/<test>.
    let test = env::current_exe().unwrap();
    let found = test.ancestors().nth(2).unwrap().join("netloom");
    let how = "run `cargo build -p netloom` first, or set NETLOOM_BIN";
    assert!(found.exists(), "there is no {}: {how}", found.display());
    found
}

/// A uuid as the API writes it.
pub fn uuid() -> String {
    Uuid::new_v4().simple().to_string()
}
