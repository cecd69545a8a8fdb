//! README's "By hand, without the lab", word for word where it can be. Needs root.
//!
//! The server and the host are namespaces of this test alone, so the addresses and ports are those
//! that the text names. Directories and prefix are where a lab would have them: whatever a killed
//! run leaves goes like a lab.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{LIMIT, TestLab, machine, root_or_skip};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

#[test]
fn a_host_that_is_enrolled_by_hand_connects_now_and_after_a_restart() {
    if !root_or_skip() {
        return;
    }
    let site = Site::new();
    let data = site.path("server").into_os_string();
    let mut server = vec!["server".into(), "--data".into(), data];
    server.extend(["--link-listen", "192.0.2.1:7481"].map(Into::into));
    let server = site.start(&site.server, "server", &server);
    let password = site.path("server/admin-password");
    let login = [OsStr::new("login"), OsStr::new("--password-file"), password.as_os_str()];
    let is_open = || site.run(&login).status.success();
    assert!(wait::holds(LIMIT, is_open), "{:?}", site.run(&login));
    for words in [&["messages"][..], &["messages", "CreateZone"]] {
        assert!(site.say(words).contains("CreateZone"));
    }

    site.say(&["zone", "create", "z1"]);
    site.say(&["cluster", "create", "c1", "--zone", "z1", "--hypervisor-type", "KVM"]);
    site.say(&["host", "create", "h1", "--cluster", "c1", "--management-ip", "192.0.2.11"]);
    assert_ne!(site.status(), "Connected");

    let enrolment = site.path("enrol.json");
    site.say(&["host", "enrol", "h1", "-O", enrolment.to_str().unwrap()]);
    let agent = site.start_agent(&["--enrol".into(), enrolment.clone().into()]);
    site.wait_for("Connected");

    // "The file is needed this once."
    fs::remove_file(&enrolment).unwrap();
    end(agent);
    site.wait_for("Disconnected");
    let agent = site.start_agent(&[]);
    site.wait_for("Connected");

    end(agent);
    end(server);
    site.lab.down();
    let left = machine::leftovers(site.lab.name(), site.lab.root());
    assert_eq!(left, Vec::<String>::new());
}

/// Two namespaces and a cable.
struct Site {
    /// Only its name and its place on disk, and that all goes when this is dropped.
    lab: TestLab,
    server: Namespace,
    host: Namespace,
}

impl Site {
    fn new() -> Self {
        let lab = TestLab::unmade();
        // First of all: by its directory a later run knows what was made under the lab's name.
        fs::create_dir_all(lab.root().join(lab.name())).unwrap();
        let make = |name| Namespace::create(&format!("nl-{}-{name}", lab.name())).unwrap();
        let this = Self { server: make("server"), host: make("h1"), lab };
        let cable = format!("link add eth0 type veth peer name eth0 netns {}", this.host.name());
        ip(&this.server, &cable);
        for (namespace, address) in [(&this.server, "192.0.2.1"), (&this.host, "192.0.2.11")] {
            ip(namespace, &format!("address add {address}/24 dev eth0"));
            ip(namespace, "link set eth0 up");
            ip(namespace, "link set lo up");
        }
        this
    }

    /// A file or directory.
    fn path(&self, name: &str) -> PathBuf {
        self.lab.data(name)
    }

    /// A command of a user who has logged in nowhere else.
    fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(&self.lab.options.binary);
        command.args(words).env("HOME", self.path("home")).stdin(Stdio::null());
        for name in
            ["NETLOOM_SERVER", "NETLOOM_PASSWORD_FILE", "NETLOOM_PROFILE", "XDG_CONFIG_HOME"]
        {
            command.env_remove(name);
        }
        command
    }

    /// Starts what runs until it is told to stop.
    fn start<S: AsRef<OsStr>>(&self, namespace: &Namespace, name: &str, words: &[S]) -> Child {
        let log = self.path(&format!("{name}.log"));
        let log = File::options().append(true).create(true).open(log).unwrap();
        let mut command = self.command(words);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        namespace.run_in(|| command.spawn()).unwrap().unwrap()
    }

    /// The directories and the prefix are by default those of a machine that is a host.
    fn start_agent(&self, enrol: &[OsString]) -> Child {
        let data = self.path("h1");
        let mut words = vec!["agent".into()];
        words.extend_from_slice(enrol);
        words.extend(["--bpffs".into(), data.join("bpf").into()]);
        words.extend(["--data".into(), data.into(), "--prefix".into(), self.host.name().into()]);
        self.start(&self.host, "h1", &words)
    }

    /// Runs a command where the server's REST port is.
    fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        let mut command = self.command(words);
        self.server.run_in(|| command.output()).unwrap().unwrap()
    }

    /// What a command that succeeds prints.
    fn say(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The host's status.
    fn status(&self) -> String {
        let answer: Value = serde_json::from_str(&self.say(&["QueryHost", "name=h1"])).unwrap();
        answer["inventories"][0]["status"].as_str().unwrap().to_owned()
    }

    fn wait_for(&self, status: &str) {
        let is_so = wait::holds(LIMIT, || self.status() == status);
        assert!(is_so, "the host is {}, not {status}", self.status());
    }
}

/// Tells a process to end, as an operator does.
fn end(mut process: Child) {
    kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(process.wait().unwrap().success());
}

fn ip(namespace: &Namespace, words: &str) {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    let output = namespace.run_in(|| command.output()).unwrap().unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
}
