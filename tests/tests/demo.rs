//! The example, from nothing to nothing. Needs root.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use lab::wait;
use netloom_tests::{LIMIT, TestLab, example, machine, root_or_skip};

#[test]
fn the_example_comes_up_isolates_its_tenants_stays_and_goes_without_a_trace() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::unmade();
    lab.apply();
    let report = lab.check();
    // Twelve pairs of VMs; red's have two addresses each.
    assert_eq!((report.expected, report.as_expected), (18, 18), "{report}");
    let blue = report.pairs.iter().find(|pair| (&*pair.from, &*pair.to) == ("red-1", "blue-2"));
    assert_eq!(blue.unwrap().answered_by, ["red-2"], "the tenants share addresses");

    let before = lab.machine();
    assert_eq!(before.namespaces.len(), 7, "underlay, two hosts, four VMs: {before:#?}");
    let again = lab.apply();
    assert!(again.was_up && again.done.is_empty(), "{again}");
    assert_eq!(lab.machine(), before, "applying again changes nothing");
    lab.check();
    lab.kill(&["server", "h1"]);
    lab.apply();
    assert_eq!(lab.machine(), before, "what had ended runs again, and the rest never stopped");
    lab.check();

    for _ in 0..2 {
        lab.down();
        assert_eq!(machine::leftovers(lab.name(), lab.root()), Vec::<String>::new());
    }
}

/// Groups, their rules and who is in them, from a file.
#[test]
fn a_web_server_reaches_its_database_at_its_port_and_nobody_else_does() {
    if !root_or_skip() {
        return;
    }
    let text = fs::read_to_string(example().with_file_name("web-and-database.yaml")).unwrap();
    let lab = TestLab::of(&text);
    let report = lab.check();
    assert_eq!(report.expected, 4 * 3 * 3, "{report}");
    let again = lab.apply();
    assert!(again.done.is_empty(), "rules are found again: {again}");
    // The database moves to another port, and the web server is one no more.
    let later = text.replace("5432", "3306").replace("[role=web]", "[role=was]");
    let later = later.replace("web-1, 80]", "web-1]").replace("    - [web-1, db-1, 3306]\n", "");
    fs::write(&lab.options.topology, later).unwrap();
    let report = lab.apply();
    let told = report.done.join("\n");
    assert!(told.contains("3306") && told.contains("2 rules of security group"), "{told}");
    lab.check();
}

#[test]
fn what_a_later_file_says_differently_is_changed_and_what_it_leaves_out_goes() {
    if !root_or_skip() {
        return;
    }
    let first = fs::read_to_string(example()).unwrap();
    let lab = TestLab::of(&first);
    let gone = "  - vm: {name: blue-2, l3: blue-l3, host: h2, ip: 10.0.0.12}\n";
    let later = first
        .replace("ip: [10.0.0.12, \"fd00::12\"]", "ip: [10.0.0.22, \"fd00::12\"]")
        .replace("{name: blue, pool: pool}", "{name: blue, pool: pool, description: the sea}")
        .replace(gone, "")
        .replace("    - [blue-1, blue-2]\n    - [blue-2, blue-1]", "");
    fs::write(&lab.options.topology, later).unwrap();
    let report = lab.apply();
    assert_eq!(
        report.done.len(),
        3,
        "an address, a description, an instance that goes: {report:?}"
    );
    // An instance is cut off at once; what is left of it is deleted by and by.
    let is_gone = || lab.machine().namespaces.len() == 6;
    assert!(wait::holds(LIMIT, is_gone), "underlay, two hosts, three VMs");
    lab.check();
    let has = |vm: &str, what: &str| {
        let script = format!("ip -o addr | grep -q 'inet {what}/24 '");
        let argv = ["sh", "-c", &script].map(str::to_owned);
        lab::exec(lab.name(), lab.root(), vm, &argv).unwrap() == 0
    };
    assert!(has("red-2", "10.0.0.22") && !has("red-2", "10.0.0.12"));
    assert!(lab.apply().done.is_empty());
}

#[test]
fn a_command_runs_where_a_vm_or_a_host_is_and_passes_its_status_on() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let run = |node: &str, script: &str| {
        let argv = ["sh", "-c", script].map(str::to_owned);
        lab::exec(lab.name(), lab.root(), node, &argv)
    };
    assert_eq!(run("red-2", "ip -o addr | grep -q 'inet 10.0.0.12/24 '").unwrap(), 0);
    assert_eq!(run("h2", "ip -o addr | grep -q 'inet 172.31.255.12/24 '").unwrap(), 0);
    assert_eq!(run("h1", "exit 7").unwrap(), 7);
    assert_eq!(run("h1", "kill -9 $$").unwrap(), 128 + 9);
    let error = run("green-1", "true").unwrap_err().to_string();
    assert!(error.contains("no green-1") && error.contains("red-1"), "{error}");
}

#[test]
fn down_leaves_nothing_of_an_up_that_was_killed_at_any_point() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::unmade();
    let options = &lab.options;
    for milliseconds in [5, 20, 40, 80, 150, 300, 600, 1200, 2400] {
        let mut up = Command::new(&options.binary)
            .args(["lab", "up", "--listen", "127.0.0.1:0", "--name", lab.name(), "--state-root"])
            .args([&options.state_root, &options.topology])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait::holds(Duration::from_millis(milliseconds), || up.try_wait().unwrap().is_some());
        up.kill().unwrap();
        up.wait().unwrap();
        lab.down();
        let left = machine::leftovers(lab.name(), lab.root());
        assert_eq!(left, Vec::<String>::new(), "killed after {milliseconds} ms");
    }
    lab.apply();
    lab.check();
}

#[test]
fn a_check_notices_a_vm_that_has_lost_its_network() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let down = ["ip", "link", "set", "eth0", "down"].map(str::to_owned);
    assert_eq!(lab::exec(lab.name(), lab.root(), "red-2", &down).unwrap(), 0);
    let report = lab::check(lab.name(), lab.root()).unwrap();
    // Both ways between red-1 and red-2, over two address families.
    assert_eq!((report.expected, report.as_expected), (18, 14), "{report}");
}
