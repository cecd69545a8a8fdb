//! Machines that move from one host to another while they run. Needs root, and QEMU; by TCG, so that it
//! is the same on every machine.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs,
    net::IpAddr,
    process::{Child, Command, Stdio},
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    rest::Answer,
    root_or_skip,
    vm::{Flow, Machine, connect, install_guest},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

const HOSTS: [&str; 2] = ["h1", "h2"];
/// Of probes every 10 ms, so many may be lost by a move: the guest stands still for a moment.
const LOST_MAX: usize = 150;

/// Pings every 10 ms.
struct Probes(Child);

impl Probes {
    fn start(from: &Namespace, to: IpAddr) -> Self {
        let mut command = Command::new("ping");
        command.args(["-n", "-q", "-i", "0.01", &to.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        Self(from.run_in(|| command.spawn()).unwrap().unwrap())
    }

    /// How many were sent, and how many of them were not answered.
    fn finish(self) -> (usize, usize) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT).unwrap();
        let said = String::from_utf8(self.0.wait_with_output().unwrap().stdout).unwrap();
        let line = said.lines().find(|line| line.contains("packets transmitted")).unwrap();
        let numbers = line.split_whitespace().filter_map(|word| word.parse::<usize>().ok());
        let [sent, answered] = numbers.take(2).collect::<Vec<_>>()[..] else { panic!("{said}") };
        (sent, sent - answered)
    }
}

/// A lab with a machine on h1 that both hosts have the image of.
struct Stage {
    lab: TestLab,
}

impl Stage {
    fn new() -> Self {
        let lab = TestLab::up();
        HOSTS.iter().for_each(|host| _ = install_guest(&lab, host));
        Self { lab }
    }

    fn machine(&self) -> Machine<'_> {
        let l3 = self.lab.rest().uuid("/l3-networks", "red-l3");
        Machine::create(&self.lab, "machine", &l3, "h1")
    }

    /// Sends `MigrateVm`, and waits for what becomes of it.
    fn migrate(&self, vm: &str, host: &str) -> Answer {
        self.ended(&self.begun(vm, host))
    }

    /// Sends `MigrateVm`, again as long as the host may still have what it had before; its job.
    fn begun(&self, vm: &str, host: &str) -> Result<String, Answer> {
        let rest = self.lab.rest().with("prefer", "wait=0");
        let body = json!({"migrateVm": {"hostUuid": rest.uuid("/hosts", host)}}).to_string();
        let path = format!("/vm-instances/{vm}/actions");
        let mut answer = None;
        let is_taken = || {
            let given = answer.insert(rest.send("PUT", &path, &body).unwrap());
            !given.body["error"].to_string().contains("has not confirmed")
        };
        assert!(wait::holds(LIMIT, is_taken));
        let answer = answer.unwrap();
        let location = answer.body["location"].as_str().map(str::to_owned);
        let job = location.as_ref().and_then(|at| Some(at[at.find("/api-jobs")?..].to_owned()));
        job.ok_or(answer)
    }

    /// What has become of a job.
    fn ended(&self, job: &Result<String, Answer>) -> Answer {
        let job = match job {
            Ok(job) => job,
            Err(answer) => return Answer { status: answer.status, body: answer.body.clone() },
        };
        let rest = self.lab.rest();
        let mut answer = None;
        let is_over = || {
            let given = answer.insert(rest.send("GET", job, "").unwrap());
            given.status != 202
        };
        assert!(wait::holds(LIMIT * 2, is_over), "{answer:?}");
        answer.unwrap()
    }

    fn is_on(&self, vm: &Machine<'_>, host: &str) -> bool {
        vm.shown()["hostUuid"] == *self.lab.rest().uuid("/hosts", host)
    }

    /// What is there of a machine on a host.
    fn left(&self, vm: &Machine<'_>, host: &str) -> Vec<String> {
        let directory = self.lab.data(host).join("vm");
        let paths = fs::read_dir(directory).into_iter().flatten().flatten();
        let paths = paths.map(|entry| entry.path().display().to_string());
        let mut left: Vec<String> = paths.filter(|path| path.contains(&vm.uuid)).collect();
        let mut command = Command::new("ip");
        command.args(["-o", "link", "show", "type", "tun"]);
        let links = self.lab.namespace(host).run_in(|| command.output()).unwrap().unwrap();
        let links = String::from_utf8(links.stdout).unwrap();
        left.extend(links.lines().map(str::to_owned));
        left
    }

    /// Whether a machine has been let run on a host that it came to.
    fn speaks_on(&self, vm: &Machine<'_>, host: &str) -> bool {
        let record = fs::read_to_string(vm.on(host).directory().join("record.json"));
        record.is_ok_and(|record| record.contains("\"is_coming\":false"))
    }

    fn nothing_left(&self, vm: &Machine<'_>, host: &str) {
        let left = || self.left(vm, host);
        assert!(wait::holds(LIMIT, || left().is_empty()), "{host}: {:?}", left());
    }
}

#[test]
fn a_machine_moves_with_memory_and_connections_and_comes_back() {
    if !root_or_skip() {
        return;
    }
    let stage = Stage::new();
    let lab = &stage.lab;
    let vm = stage.machine();
    let (guest, _) = vm.nic();
    let mut console = vm.configured(24);
    console.run("echo kept-in-memory >/tmp/mark");
    for port in [7001, 7002] {
        console.run(&format!("nc -l -p {port} -e cat >/dev/null 2>&1 </dev/null &"));
    }
    drop(console);
    let flows = [("red-1", 7001), ("red-2", 7002)]
        .map(|(peer, port)| Flow::start(connect(&lab.namespace(peer), (guest, port))));
    for (from, to) in [("h1", "h2"), ("h2", "h1")] {
        let probes = ["red-1", "red-2"].map(|peer| Probes::start(&lab.namespace(peer), guest));
        flows.iter().for_each(Flow::goes_on);
        let moved = stage.migrate(&vm.uuid, to);
        assert_eq!(moved.status, 200, "{moved:?}");
        assert!(stage.is_on(&vm, to), "{:#}", vm.shown());
        flows.iter().for_each(Flow::goes_on);
        lab.settle(&HOSTS);
        let vm = vm.on(to);
        vm.settle();
        assert_eq!(vm.console().run("cat /tmp/mark").trim().lines().last(), Some("kept-in-memory"));
        flows.iter().for_each(Flow::goes_on);
        for (peer, probes) in ["red-1", "red-2"].into_iter().zip(probes) {
            let (sent, lost) = probes.finish();
            println!(
                "{from} to {to}: {peer}: {lost} of {sent} probes lost, about {} ms",
                lost * 10
            );
            assert!(lost <= LOST_MAX, "{lost} of {sent}");
        }
        stage.nothing_left(&vm, from);
        HOSTS.iter().for_each(|host| _ = lab.digests(host));
    }
    flows.into_iter().for_each(Flow::finish);
    lab.check();
}

#[test]
fn a_machine_whose_new_host_fails_goes_on_and_leaves_nothing_there() {
    if !root_or_skip() {
        return;
    }
    let stage = Stage::new();
    let lab = &stage.lab;
    let vm = stage.machine();
    let (guest, _) = vm.nic();
    let mut console = vm.configured(24);
    console.run("nc -l -p 7001 -e cat >/dev/null 2>&1 </dev/null &");
    // So that it takes some time to send.
    console.run("dd if=/dev/urandom of=/tmp/noise bs=1M count=60 2>/dev/null");
    let flow = Flow::start(connect(&lab.namespace("red-2"), (guest, 7001)));
    let there = vm.on("h2");
    let goes_on = |moved: &Answer, why: &str| {
        assert!(moved.body["error"].to_string().contains(why), "{moved:?}");
        assert!(stage.is_on(&vm, "h1"), "{:#}", vm.shown());
        flow.goes_on();
    };

    // Its QEMU there is killed while it gets the memory.
    let job = stage.begun(&vm.uuid, "h2");
    let told = || vm.shown()["notInEffect"].as_str().unwrap_or_default().to_owned();
    assert!(wait::holds(LIMIT, || told().contains("is moving")), "{:#}", vm.shown());
    kill(Pid::from_raw(there.pid().unwrap()), Signal::SIGKILL).unwrap();
    goes_on(&stage.ended(&job), "was not moved");
    stage.nothing_left(&vm, "h2");
    vm.settle();

    // The agent there is killed.
    let job = stage.begun(&vm.uuid, "h2");
    assert!(wait::holds(LIMIT, || there.pid().is_some()), "{job:?}");
    lab.kill(&["h2"]);
    goes_on(&stage.ended(&job), "was not moved");
    lab.start(&["h2"]);
    stage.nothing_left(&vm, "h2");
    lab.settle(&HOSTS);

    // The agent here is killed: the next one does not know how far it was.
    let job = stage.begun(&vm.uuid, "h2");
    assert!(wait::holds(LIMIT, || told().contains("is moving")), "{job:?}");
    lab.kill(&["h1"]);
    lab.start(&["h1"]);
    goes_on(&stage.ended(&job), "was not moved");
    stage.nothing_left(&vm, "h2");
    lab.settle(&HOSTS);

    // The server is killed: the hosts do not need it.
    let job = stage.begun(&vm.uuid, "h2");
    assert!(wait::holds(LIMIT, || there.pid().is_some()), "{job:?}");
    lab.kill(&["server"]);
    let has_left = || !stage.left(&vm, "h2").is_empty() && stage.speaks_on(&vm, "h2");
    assert!(wait::holds(LIMIT, has_left), "it does not run there");
    flow.goes_on();
    lab.start(&["server"]);
    assert!(wait::holds(LIMIT, || stage.is_on(&vm, "h2")), "{:#}", vm.shown());
    flow.goes_on();
    flow.finish();
    stage.nothing_left(&vm, "h1");
    lab.settle(&HOSTS);
    lab.check();
}

#[test]
fn a_host_that_is_to_be_maintained_is_emptied_without_a_stop() {
    if !root_or_skip() {
        return;
    }
    let stage = Stage::new();
    let lab = &stage.lab;
    // What runs in a namespace cannot be moved, and that is said with a remedy.
    let netns = lab.named("/vm-instances", "red-1")["uuid"].as_str().unwrap().to_owned();
    let refused = stage.migrate(&netns, "h2");
    let told = refused.body["error"].to_string();
    assert!(told.contains("netns cannot move") && told.contains("StartVmInstance"), "{refused:?}");

    let vm = stage.machine();
    let (guest, _) = vm.nic();
    let mut console = vm.configured(24);
    console.run("nc -l -p 7001 -e cat >/dev/null 2>&1 </dev/null &");
    let flow = Flow::start(connect(&lab.namespace("red-2"), (guest, 7001)));
    let host = lab.rest().uuid("/hosts", "h1");
    let rest = lab.rest().with("prefer", "wait=28");
    let body = json!({"changeHostState": {"stateEvent": "maintain"}}).to_string();
    let done = rest.send("PUT", &format!("/hosts/{host}/actions"), &body).unwrap();
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(lab.named("/hosts", "h1")["state"], "Maintenance");
    assert!(stage.is_on(&vm, "h2"), "{:#}", vm.shown());
    flow.goes_on();
    flow.finish();
    stage.nothing_left(&vm, "h1");
}
