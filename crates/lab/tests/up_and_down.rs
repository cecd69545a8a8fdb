//! What a lab makes on the machine, and that it goes again. Needs root.
//!
//! The server stands in: these tests are about what happens around it. With the real one, see the
//! package `netloom-tests`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use hostnet::{Namespace, scratch::root_or_skip};
use lab::{Error, UpOptions, scratch::Root, wait};
use netloom_lab as lab;
use uuid::Uuid;

/// Options for a lab below `root`, with a "server" that does what `script` says.
fn options(root: &Root, script: &str) -> UpOptions {
    let binary = root.path().join("netloom");
    fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let topology =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/two-tenants.yaml");
    UpOptions {
        topology,
        name: format!("u{}", &Uuid::new_v4().simple().to_string()[..11]),
        state_root: root.labs(),
        binary,
        listen: "127.0.0.1:0".parse().unwrap(),
        agent_options: Vec::new(),
    }
}

/// The lab's namespaces, half-made ones too.
fn leftovers(name: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|found| found.starts_with(&format!("nl-{name}-"))).collect()
}

#[test]
fn a_lab_whose_server_ends_says_why_and_leaves_nothing() {
    if !root_or_skip() {
        return;
    }
    let root = Root::new().unwrap();
    let options = options(&root, "echo no space left on disk; exit 3");
    let error = lab::up(&options).unwrap_err();
    assert!(matches!(error, Error::Ended { .. }), "{error}");
    assert!(error.to_string().contains("no space left on disk"), "{error}");
    assert_eq!(leftovers(&options.name), Vec::<String>::new());
    assert!(!options.state_root.join(&options.name).exists());
}

#[test]
fn down_removes_what_a_killed_up_has_left_and_may_be_repeated() {
    if !root_or_skip() {
        return;
    }
    let root = Root::new().unwrap();
    let options = options(&root, "exit 0");
    let dir = options.state_root.join(&options.name);
    // As far as `up` may have come: some namespaces, one of them half made, a mount, no settings.
    fs::create_dir_all(dir.join("h1/bpf")).unwrap();
    Namespace::create(&format!("nl-{}-fabric", options.name)).unwrap();
    let vm = format!("nl-{}-h1-0123456789abcdef0123456789abcdef", options.name);
    fs::write(format!("/run/netns/{vm}"), "").unwrap();
    let bpf = dir.join("h1/bpf");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("bpf"), &bpf, Some("bpf"), flags, None::<&str>).unwrap();
    for _ in 0..2 {
        lab::down(&options.name, &options.state_root).unwrap();
        assert_eq!(leftovers(&options.name), Vec::<String>::new());
        assert!(!PathBuf::from(format!("/run/netns/{vm}")).exists());
        assert!(!dir.exists());
    }
    assert!(lab::status(&options.state_root).unwrap().is_empty());
}

#[test]
fn down_removes_what_an_agent_makes_while_it_ends() {
    if !root_or_skip() {
        return;
    }
    let root = Root::new().unwrap();
    // An agent finishes its pass over the instances before it ends.
    let options = options(
        &root,
        "trap 'echo > /run/netns/$7-0123456789abcdef0123456789abcdef; exit' TERM\n\
         echo > \"$3/ready\"\n\
         while :; do sleep 0.02; done",
    );
    let dir = options.state_root.join(&options.name);
    fs::create_dir_all(&dir).unwrap();
    let settings = serde_json::json!({"listen": "127.0.0.1:1", "binary": options.binary,
        "topology": options.topology, "hosts": ["h1"]});
    fs::write(dir.join("lab.json"), settings.to_string()).unwrap();
    Namespace::create(&format!("nl-{}-h1", options.name)).unwrap();
    lab::start(&options.name, &options.state_root, "h1").unwrap();
    let is_ready = || dir.join("h1/ready").exists();
    assert!(wait::holds(Duration::from_secs(5), is_ready), "the agent has started");
    lab::down(&options.name, &options.state_root).unwrap();
    assert_eq!(leftovers(&options.name), Vec::<String>::new());
}

#[test]
fn a_state_root_may_be_given_by_a_symbolic_link() {
    if !root_or_skip() {
        return;
    }
    let root = Root::new().unwrap();
    let (name, link) = (options(&root, "exit 0").name, root.path().join("link"));
    let bpf = root.labs().join(&name).join("h1/bpf");
    fs::create_dir_all(&bpf).unwrap();
    std::os::unix::fs::symlink(root.labs(), &link).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("bpf"), &bpf, Some("bpf"), flags, None::<&str>).unwrap();
    lab::down(&name, &link).unwrap();
    assert!(!bpf.exists());
}

#[test]
fn a_lab_needs_loopback_a_free_port_and_a_plain_name() {
    if !root_or_skip() {
        return;
    }
    let root = Root::new().unwrap();
    let good = options(&root, "exit 0");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cases = [
        (UpOptions { name: "a-b".into(), ..good.clone() }, "lower-case letters and digits"),
        (UpOptions { listen: "0.0.0.0:0".parse().unwrap(), ..good.clone() }, "not on loopback"),
        (UpOptions { listen: taken.local_addr().unwrap(), ..good.clone() }, "choose another"),
        (UpOptions { topology: "/nowhere.yaml".into(), ..good.clone() }, "/nowhere.yaml"),
    ];
    for (options, part) in cases {
        let error = lab::up(&options).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(leftovers(&options.name), Vec::<String>::new());
    }
}
