//! README's tour by nouns and verbs, and what becomes of a wait. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Output, Stdio},
};

use lab::wait;
use netloom_tests::{LIMIT, TestLab, binary, root_or_skip, traffic::one_packet_passes};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

#[test]
fn the_tour_works_and_its_machines_are_exported_as_they_are() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let made = say(&lab, &["vm", "create", "red-3", "--l3", "red-l3", "--ip", "10.0.0.13"]);
    assert!(made.contains("10.0.0.13") && made.contains("Running"), "{made}");
    let (old, new) = (lab.namespace("red-1"), lab.namespace("red-3"));
    assert!(one_packet_passes(&old, &new, [10, 0, 0, 13].into()));
    let nics = say(&lab, &["nic", "list", "ip=10.0.0.11"]);
    assert!(nics.contains("red-1") && nics.contains("blue-1"), "{nics}");
    let status = say(&lab, &["status"]);
    assert!(status.contains("2 connected") && status.contains("5 running"), "{status}");
    let taken = run(&lab, &["vm", "create", "red-4", "--l3", "red-l3", "--ip", "10.0.0.13"]);
    assert_eq!(taken.status.code(), Some(3), "{taken:?}");

    let file = lab.data("all.yaml").display().to_string();
    say(&lab, &["-O", &file, "export"]);
    let diff = say(&lab, &["diff", "-f", &file]);
    assert!(diff.starts_with("nothing to do"), "{diff}");
    say(&lab, &["vm", "delete", "red-3"]);
    // Destroyed, it keeps its MAC, so that it can be recovered.
    let diff = run(&lab, &["diff", "-f", &file]);
    let text = String::from_utf8(diff.stderr).unwrap();
    assert_eq!(diff.status.code(), Some(1), "{text}");
    assert!(text.contains("recover") && text.contains("expunge"), "{text}");
    say(&lab, &["vm", "expunge", "red-3"]);
    let diff = run(&lab, &["diff", "-f", &file]);
    let text = String::from_utf8(diff.stdout).unwrap();
    assert_eq!(diff.status.code(), Some(2), "{text}");
    assert!(text.starts_with("+ vm red-3") && text.contains("to add: 1,"), "{text}");
    say(&lab, &["apply", "-f", &file]);
    let (old, new) = (lab.namespace("red-1"), lab.namespace("red-3"));
    assert!(one_packet_passes(&old, &new, [10, 0, 0, 13].into()), "with the address that it had");
}

#[test]
fn a_wait_that_ends_early_tells_where_the_job_is() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    lab.kill(&["h2"]);
    say(&lab, &["wait", "host", "h2", "status=Disconnected", "--timeout", "60"]);

    let late = run(&lab, &["vm", "delete", "red-2", "--timeout", "1"]);
    assert_eq!(late.status.code(), Some(4), "{late:?}");
    let told = String::from_utf8(late.stderr).unwrap();
    assert!(told.contains("waiting: host ") && told.contains("netloom wait "), "{told}");

    let mut waits = command(&lab, &["vm", "delete", "blue-2"]);
    let mut waits = waits.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(waits.stderr.take().unwrap());
    let mut told = String::new();
    stderr.read_line(&mut told).unwrap();
    assert!(told.starts_with("waiting: "), "{told}");
    kill(Pid::from_raw(waits.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(waits.wait().unwrap().code(), Some(130));
    stderr.read_to_string(&mut told).unwrap();
    let job = told.rsplit_once("netloom wait ").unwrap().1.trim().to_owned();

    lab.start(&["h2"]);
    say(&lab, &["wait", &job, "--timeout", "60"]);
    let state = || say(&lab, &["QueryVmInstance", "name=blue-2", "fields=state"]);
    assert!(wait::holds(LIMIT, || state().contains("Destroyed")), "{}", state());

    let job = say(&lab, &["vm", "delete", "red-1", "--no-wait", "-o", "json"]);
    let job: serde_json::Value = serde_json::from_str(&job).unwrap();
    say(&lab, &["wait", job["job"].as_str().unwrap()]);
}

fn command(lab: &TestLab, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(words).env("NETLOOM_SERVER", lab.url()).stdin(Stdio::null());
    command.env("NETLOOM_PASSWORD_FILE", lab.data("server").join("admin-password"));
    command
}

fn run(lab: &TestLab, words: &[&str]) -> Output {
    command(lab, words).output().unwrap()
}

/// What a command that succeeds prints.
fn say(lab: &TestLab, words: &[&str]) -> String {
    let output = run(lab, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
