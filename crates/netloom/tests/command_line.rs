//! The command line against a real server: the binary's commands, in this process.
//!
//! What is printed is compared with `golden/`; `GOLDEN=renew` writes the files anew.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use control::{Enrolment, Gate};
use model::{Record, Timestamp, status::Board};
use store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "correct horse";

/// A server, and a user who has logged in there.
struct Site {
    address: String,
    stop: CancellationToken,
    server: Option<std::thread::JoinHandle<()>>,
    home: tempfile::TempDir,
    _board: watch::Sender<Board>,
}

impl Site {
    fn new() -> Self {
        let store: Store<Record> = Store::in_memory().unwrap();
        let hash = control::account::hash(&control::account::client_digest(PASSWORD)).unwrap();
        control::account::create_admin(&store, &hash, Timestamp(0)).unwrap();
        control::platform::declare(&store, Timestamp(0)).unwrap();
        let (board, reports) = watch::channel(Board::default());
        let jobs = control::Jobs::new(store, reports, || Timestamp(1_510_698_057_000));
        let enrolment = Enrolment { server: "127.0.0.1:7481".into(), ca: "PEM".into() };
        let gate = Arc::new(Gate::new(jobs, enrolment));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let (identity, limits, metrics_from) = (None, api::Limits::default(), Vec::new());
            let door = api::Door { listener, identity, limits, metrics_from };
            runtime.block_on(api::serve(door, gate, ended)).unwrap();
        });
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("password"), PASSWORD).unwrap();
        let site = Self { address, stop, server: Some(server), home, _board: board };
        let password = site.path("password").display().to_string();
        site.ok(&["login", "--server", &site.address, "--password-file", &password]);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netloom"));
        command.args(words).env_clear().env("HOME", self.home.path()).output().unwrap()
    }

    /// What a command prints that succeeds.
    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The exit code and the error of a command that fails.
    fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        assert!(!output.status.success(), "{words:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
        self.server.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_shell_runs_its_lines_and_remembers_no_passwords() {
    let site = Site::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_netloom"));
    command.arg("shell").env_clear().env("HOME", site.home.path());
    let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = "zone create 'the first'\nzone create\nzone list -o name\n\
                 account create bob --password hush\nexit\nzone create no\n";
    shell.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nthe first\n") && text.contains("bob"), "{text}");
    let history = site.path(".config/netloom/history");
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    let history = fs::read_to_string(history).unwrap();
    assert!(history.contains("zone list") && !history.contains("hush"), "{history}");
}

/// A text with every uuid written as the same word, as long as one.
fn steady(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_hexdigit();
    let mut steady = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_hex) {
        let (before, from) = rest.split_at(at);
        let length = from.find(|c| !is_hex(c)).unwrap_or(from.len());
        steady.push_str(before);
        steady.push_str(if length == 32 {
            "<uuid of thirty-two hex digits.>"
        } else {
            &from[..length]
        });
        rest = &from[length..];
    }
    steady + rest
}

/// Compares with a golden file.
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = steady(text);
    if std::env::var_os("GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name}; GOLDEN=renew writes it anew");
}

/// Commands and what they print, one after the other.
fn transcript(site: &Site, commands: &[&str]) -> String {
    let mut text = String::new();
    for line in commands {
        let words: Vec<&str> = line.split(' ').collect();
        let output = site.run(&words);
        text.push_str(&format!("$ netloom {line}\n"));
        text.push_str(&String::from_utf8(output.stdout).unwrap());
        text.push_str(&String::from_utf8(output.stderr).unwrap());
        match output.status.code() {
            Some(0) => {}
            code => text.push_str(&format!("exit code {}\n", code.unwrap())),
        }
        text.push('\n');
    }
    text
}

/// A zone, a cluster, a host, a network.
const MAKE: [&str; 9] = [
    "zone create z1",
    "cluster create c1 --zone z1 --hypervisor-type KVM",
    "host create h1 --cluster c1 --management-ip 192.0.2.11",
    "pool create p1 --zone z1",
    "vnis create v1 --l2 p1 --start-vni 100 --end-vni 199",
    "l2 attach p1 c1 cidr=192.0.2.0/24",
    "vxlan create red --pool p1",
    "l3 create red-l3 --l2 red",
    "range create r1 --l3 red-l3 --network-cidr 10.0.0.0/24",
];

#[test]
fn a_network_is_made_by_nouns_verbs_and_names() {
    let site = Site::new();
    let mut commands = MAKE.to_vec();
    commands.extend([
        "l3 show red-l3",
        "l3 list zone=z1",
        "l3 list blue",
        "l3 free-ips red-l3 limit=2",
        "host disable h1",
        "host list -o name",
        "range update -h",
        "range update r1 --name r2",
        "zone delete z1 --out /dev/null",
        "zone list",
        "status",
    ]);
    check("network.txt", &transcript(&site, &commands));
}

#[test]
fn zstacks_words_take_names_and_short_arguments_too() {
    let site = Site::new();
    MAKE[..5].iter().for_each(|line| drop(site.ok(&line.split(' ').collect::<Vec<_>>())));
    let attach = ["AttachL2NetworkToCluster", "l2NetworkUuid=p1", "clusterUuid=c1"];
    let (code, error) = site.fails(&attach);
    assert_eq!(code, 3, "a pool needs its network: {error}");
    site.ok(&[&attach[..], &["cidr=192.0.2.0/24"]].concat());
    let found = site.ok(&["QueryL2Network", "name=p1", "fields=attachedCidrs"]);
    assert!(found.contains("192.0.2.0/24"), "{found}");
}

#[test]
fn what_goes_wrong_is_told_with_what_to_do() {
    let site = Site::new();
    let commands = [
        "zone create z1",
        "zone create z1",
        "zone create zone-two",
        "zone show zone-too",
        "zone delete z1",
        "zone create",
        "zone create a b",
        "zone create a colour=red",
        "zone list colour=red",
        "zone list name=%",
        "zone show 0123456789abcdef0123456789abcdef",
        "zone craete z",
        "zoen list",
        "CreateZome name=z",
        "CreateZone z1",
        "CreateZone name=z colour=red",
        "l3 create x --l2 nothing",
        "account create bob",
        "wait zone zone-two state=Disabled --timeout 0",
        "wait zoen zone-two state=Enabled",
        "wait zone zone-two state=Enabled",
    ];
    check("errors.txt", &transcript(&site, &commands));
}

#[test]
fn help_tells_what_a_verb_takes() {
    let site = Site::new();
    check("help.txt", &transcript(&site, &["vm -h", "l2 attach -h", "host -h", "range create -h"]));
}

#[test]
fn a_server_that_does_not_answer_has_an_exit_code_of_its_own() {
    let site = Site::new();
    let (code, error) = site.fails(&["zone", "list", "--server", "127.0.0.1:1"]);
    assert_eq!(code, 5, "{error}");
    assert!(error.contains("does not answer"), "{error}");
}

#[test]
fn profiles_are_kept_apart_and_a_logout_forgets_one() {
    let site = Site::new();
    let password = site.path("password").display().to_string();
    site.ok(&["account", "create", "bob", "--password", &format!("@{password}")]);
    let login = ["login", "--account", "bob", "--profile", "b", "--server", &site.address];
    site.ok(&[&login[..], &["--password-file", &password]].concat());
    assert!(site.ok(&["whoami"]).contains("account  bob"));
    assert!(site.ok(&["--profile", "default", "whoami"]).contains("account  admin"));
    let (code, error) = site.fails(&["zone", "create", "z"]);
    assert_eq!(code, 3, "{error}");
    site.ok(&["zone", "create", "z", "--profile", "default"]);

    fs::write(site.path("new"), "another horse").unwrap();
    let new = site.path("new").display().to_string();
    site.ok(&["passwd", "--old-password-file", &password, "--new-password-file", &new]);
    assert_eq!(site.fails(&[&login[..], &["--password-file", &password]].concat()).0, 3);
    site.ok(&[&login[..], &["--password-file", &new]].concat());

    let file = site.path(".config/netloom/profiles.json");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    site.ok(&["logout"]);
    assert!(site.ok(&["whoami"]).contains("account  admin"));
    site.ok(&["logout"]);
    let (code, error) = site.fails(&["zone", "list"]);
    assert_eq!((code, error.contains("netloom login")), (1, true), "{error}");
}

#[test]
fn a_result_goes_into_a_file_that_nobody_else_can_read() {
    let site = Site::new();
    MAKE[..3].iter().for_each(|line| drop(site.ok(&line.split(' ').collect::<Vec<_>>())));
    let file = site.path("enrol.json");
    fs::write(&file, "old").unwrap();
    let printed = site.ok(&["host", "enrol", "h1", "-O", &file.display().to_string()]);
    assert_eq!(printed, "");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains("\"token\""));
}

#[test]
fn completion_knows_nouns_verbs_and_names_that_there_are() {
    let site = Site::new();
    site.ok(&["zone", "create", "here"]);
    let complete = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_netloom"));
        let index = words.len().to_string();
        command.env_clear().env("HOME", site.home.path()).env("COMPLETE", "bash");
        command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", index);
        let output = command.args(["--", "netloom"]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["clu"]), ["cluster"]);
    assert!(complete(&["zone", ""]).contains(&"create".to_owned()));
    assert_eq!(complete(&["zone", "show", "he"]), ["here"]);
    assert_eq!(complete(&["cluster", "create", "c", "--zone", "he"]), ["here"]);
}

/// A shell that reads a script, with `netloom` on its path; nothing where it is not installed.
/// `scripts/setup test` installs it, and where `NETLOOM_NO_SKIP` is set it must be there.
fn in_shell(site: &Site, shell: &str, arguments: &[&str]) -> Option<String> {
    let bin = Path::new(env!("CARGO_BIN_EXE_netloom")).parent().unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(shell);
    command.env_clear().env("HOME", site.home.path()).env("TERM", "dumb");
    command.env("PATH", format!("{}:{path}", bin.display()));
    let output = match command.args(arguments).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("NETLOOM_NO_SKIP").is_none(), "{shell}: {error}");
            eprintln!("SKIPPED: {shell}: {error}; scripts/setup test installs it");
            return None;
        }
    };
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn fish_completes_nouns_verbs_and_names() {
    let site = Site::new();
    site.ok(&["zone", "create", "here"]);
    for (line, expected) in [("netloom clu", "cluster"), ("netloom zone show he", "here")] {
        let script = format!("COMPLETE=fish netloom | source; complete -C '{line}'");
        let Some(found) = in_shell(&site, "fish", &["--no-config", "-c", &script]) else { return };
        let words: Vec<_> = found.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(words, [expected], "{line}");
    }
}

/// A zsh of its own in a terminal: a line is typed, Tab is pressed, and then a key that shows the line.
const ZSH: &str = r#"
    zmodload zsh/zpty
    zpty inner zsh -f -i
    zpty -w inner "autoload -Uz compinit; compinit -u -D; source <(COMPLETE=zsh netloom)"
    zpty -w inner "show() { print -r -- \"<\$BUFFER>\" }; zle -N show; bindkey '^X' show; print -r -- re''ady"
    zpty -r -m inner seen '*ready*'
    zpty -w -n inner "$1"$'\t\x18'
    zpty -r -m inner seen '*<netloom *>*'
    print -r -- "$seen"
"#;

#[test]
fn zsh_completes_nouns_verbs_and_names() {
    let site = Site::new();
    site.ok(&["zone", "create", "here"]);
    for (line, expected) in [
        ("netloom clu", "<netloom cluster >"),
        ("netloom zone show he", "<netloom zone show here >"),
    ] {
        let Some(seen) = in_shell(&site, "zsh", &["-f", "-c", ZSH, "zsh", line]) else { return };
        assert!(seen.contains(expected), "{line}: {seen}");
    }
}

#[test]
fn the_examples_of_a_topic_work_one_after_the_other() {
    let site = Site::new();
    let text = site.ok(&["help", "networks"]);
    let mut done = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("  netloom ")) {
        let line = line.replace("enrol.json", &site.path("enrol.json").display().to_string());
        site.ok(&line.split(' ').collect::<Vec<_>>());
        done += 1;
    }
    assert_eq!(done, 11);
    assert!(site.path("enrol.json").exists());
    assert!(site.ok(&["help", "vm", "create"]).contains("netloom vm create"));
    let (code, error) = site.fails(&["help", "netwroks"]);
    assert!(code == 1 && error.contains("networks"), "{error}");
}

#[test]
fn what_a_file_says_of_an_instance_beside_its_fields_is_applied_later_too() {
    let site = Site::new();
    let file = site.path("topology.yaml");
    let path = file.display().to_string();
    let write = |vm: &str| {
        fs::write(
            &file,
            format!("{TOPOLOGY}  - vm: {{name: a, l3: web-l3, strategy: JustCreate{vm}}}\n"),
        )
        .unwrap()
    };
    let apply = || site.ok(&["apply", "-f", &path]);
    write("");
    apply();
    let vm = ", ip: 10.1.0.9, hostname: shop, mac: \"02:00:00:00:00:09\", userTags: [blue, web]";
    write(vm);
    let plan = apply();
    for change in
        ["ip=10.1.0.9", "hostname=shop", "mac=02:00:00:00:00:09", "user tag blue", "user tag web"]
    {
        assert!(plan.contains(&format!("~ vm a {change}\n")), "{plan}");
    }
    assert!(apply().starts_with("nothing to do"));
    let shown = site.ok(&["vm", "show", "a", "-o", "json"]);
    assert!(shown.contains("10.1.0.9") && shown.contains("02:00:00:00:00:09"), "{shown}");
    assert!(site.ok(&["QueryVmInstance", "__systemTag__=hostname::shop"]).contains("\"a\""));
    // The tags that are not named go; those of the topology itself stay.
    write(&vm.replace("blue, ", ""));
    let plan = apply();
    assert!(plan.contains("~ vm a no user tag blue\n") && plan.contains("to change: 1"), "{plan}");
    let tags = site.ok(&["QueryUserTag", "resourceType=VmInstanceVO"]);
    assert!(tags.contains("netloom.topology::one-network") && tags.contains("\"web\""), "{tags}");

    // Destroyed, it keeps its MAC, and the file cannot make another one with it.
    site.ok(&["vm", "destroy", "a"]);
    let (code, error) = site.fails(&["diff", "-f", &path]);
    assert!(code == 1 && error.contains("netloom vm recover"), "{code}: {error}");
    let uuid = error.split_once("netloom vm recover ").unwrap().1.split(' ').next().unwrap();
    site.ok(&["vm", "expunge", uuid]);
    let plan = site.run(&["diff", "-f", &path]);
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.starts_with("+ vm a ") && plan.contains("to add: 1"), "{plan}");
}

const TOPOLOGY: &str = include_str!("../../../examples/one-network.yaml");

#[test]
fn a_topology_is_applied_once_and_then_is_as_it_should_be() {
    let site = Site::new();
    let file = site.path("topology.yaml");
    let path = file.display().to_string();
    fs::write(&file, TOPOLOGY).unwrap();
    let mut text = String::new();
    let mut tell = |words: &[&str]| {
        let words: Vec<&str> = words.iter().copied().chain(["-f", &path]).collect();
        let output = site.run(&words);
        text.push_str(&format!("$ netloom {} -f FILE\n", words[..words.len() - 2].join(" ")));
        text.push_str(&String::from_utf8(output.stdout).unwrap());
        text.push_str(&String::from_utf8(output.stderr).unwrap().replace(&path, "FILE"));
        text.push_str(&format!("exit code {}\n\n", output.status.code().unwrap()));
    };
    tell(&["diff"]);
    tell(&["apply"]);
    tell(&["apply"]);
    tell(&["diff"]);
    let changed = TOPOLOGY.replace("category: Private", "category: Private, description: shops");
    let (before, _) = changed.split_once("  - range").unwrap();
    fs::write(&file, before).unwrap();
    tell(&["apply"]);
    tell(&["apply", "--prune"]);
    tell(&["apply", "--prune", "--yes"]);
    tell(&["diff", "--prune"]);
    let (_, after) = changed.split_once("  - l3").unwrap();
    let (middle, _) = changed.split_once("  - vxlan").unwrap();
    fs::write(&file, format!("{middle}  - l3{after}")).unwrap();
    tell(&["apply", "--prune", "--yes"]);
    fs::write(&file, changed.replace("pool: tunnels", "pool: other")).unwrap();
    tell(&["apply"]);
    fs::write(&file, changed.replace("hypervisorType: KVM", "hypervisorType: Simulator")).unwrap();
    tell(&["apply"]);
    fs::write(&file, &changed).unwrap();
    tell(&["delete"]);
    tell(&["delete", "--yes"]);
    tell(&["delete", "--yes"]);
    check("topology.txt", &text);
}

#[test]
fn a_topology_that_fails_in_the_middle_goes_on_from_there() {
    let site = Site::new();
    let file = site.path("topology.yaml");
    let path = file.display().to_string();
    let bad =
        "resources:\n  - zone: {name: z}\n  - cluster: {name: c, zone: z, hypervisorType: no}\n";
    fs::write(&file, bad).unwrap();
    let (code, error) = site.fails(&["apply", "-f", &path]);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("1 of 2 steps are done"), "{error}");
    fs::write(&file, bad.replace("no}", "KVM}")).unwrap();
    let done = site.ok(&["apply", "-f", &path]);
    assert!(done.contains("to add: 1, to change: 0, to remove: 0; as they should be: 1"), "{done}");
}

#[test]
fn what_is_exported_is_what_there_is_and_makes_it_again() {
    let (site, other) = (Site::new(), Site::new());
    let file = site.path("topology.yaml");
    let path = file.display().to_string();
    fs::write(&file, TOPOLOGY).unwrap();
    site.ok(&["apply", "-f", &path]);
    let exported = site.ok(&["export"]);
    fs::write(&file, &exported).unwrap();
    let diff = site.ok(&["diff", "-f", &path]);
    assert!(diff.starts_with("nothing to do"), "{diff}");
    other.ok(&["apply", "-f", &path]);
    assert_eq!(other.ok(&["export"]), exported);
    check("export.txt", &exported);
}
