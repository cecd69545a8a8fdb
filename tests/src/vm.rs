//! A guest in QEMU, run by a host of a lab, and what is done with it from inside by its console.

use std::{
    env, fs,
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use hostnet::Namespace;
use serde_json::{Value, json};

use crate::{LIMIT, TestLab, traffic::noise};

/// How long a guest may take from its start to its console, and for anything that it is told: it is
/// translated, perhaps on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY_BYTES: u64 = 192 << 20;

/// What the guest's init says once it takes commands.
const UP: &str = "guest is up";

/// Puts the test guest where a host's agent looks for images, built if need be; the name of its image.
///
/// # Panics
/// When it cannot be built, with what that says.
pub fn install_guest(lab: &TestLab, host: &str) -> &'static str {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/build-guest");
    let mut command = Command::new(script);
    // The test is target/<profile>/deps/<test>.
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let built = command.env("CARGO_TARGET_DIR", target).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let guest = PathBuf::from(String::from_utf8(built.stdout).unwrap().trim());
    let image = lab.data(host).join("images/guest");
    fs::create_dir_all(&image).unwrap();
    for file in ["vmlinuz", "initrd"] {
        fs::copy(guest.join(file), image.join(file)).unwrap();
    }
    "guest"
}

/// An instance of driver qemu.
pub struct Machine<'a> {
    lab: &'a TestLab,
    host: String,
    /// Its uuid.
    pub uuid: String,
}

impl<'a> Machine<'a> {
    /// Makes one of the test guest's image, on a host, with a NIC in an L3 network.
    pub fn create(lab: &'a TestLab, name: &str, l3: &str, host: &str) -> Self {
        let image = install_guest(lab, host);
        let this = Self::create_of(lab, name, (l3, host), &image_of(lab, image));
        this.settle();
        this
    }

    /// The same of any image, without waiting until it runs.
    pub fn create_of(lab: &'a TestLab, name: &str, at: (&str, &str), image: &str) -> Self {
        Self::create_tagged(lab, name, at, (image, &[]))
    }

    /// The same with system tags; `at` is an L3 network and a host.
    pub fn create_tagged(
        lab: &'a TestLab,
        name: &str,
        (l3, host): (&str, &str),
        (image, tags): (&str, &[String]),
    ) -> Self {
        let rest = lab.rest().with("prefer", "wait=0");
        let params = json!({"name": name, "l3NetworkUuids": [l3], "driver": "qemu",
            "imageUuid": image, "memorySize": MEMORY_BYTES,
            "hostUuid": rest.uuid("/hosts", host)});
        let body = json!({"params": params, "systemTags": tags}).to_string();
        let answer = rest.send("POST", "/vm-instances", &body).unwrap();
        assert!(matches!(answer.status, 200 | 202), "{answer:?}");
        let uuid = lab.named("/vm-instances", name)["uuid"].as_str().unwrap().to_owned();
        Self { lab, host: host.to_owned(), uuid }
    }

    /// The same, on the host that it has moved to.
    pub fn on(&self, host: &str) -> Self {
        Self { lab: self.lab, host: host.to_owned(), uuid: self.uuid.clone() }
    }

    /// Waits until it runs and its host has nothing left to do.
    pub fn settle(&self) {
        // Its host may have nothing left to do because it has not noticed yet what happened.
        let runs = || {
            self.lab.settle(&[&self.host]);
            self.shown()["state"] == "Running"
        };
        assert!(lab::wait::holds(LIMIT, runs), "{:#}", self.shown());
    }

    /// It as the API shows it.
    pub fn shown(&self) -> Value {
        let found = self.lab.rest().all("/vm-instances");
        found.into_iter().find(|found| found["uuid"] == *self.uuid).unwrap()
    }

    /// The address and MAC of its first NIC.
    pub fn nic(&self) -> (IpAddr, String) {
        let nic = self.shown()["vmNics"][0].clone();
        let text = |field: &str| nic[field].as_str().unwrap().to_owned();
        (text("ip").parse().unwrap(), text("mac"))
    }

    /// Where its files are.
    pub fn directory(&self) -> PathBuf {
        self.lab.data(&self.host).join("vm").join(&self.uuid)
    }

    /// The pid of its QEMU, if that runs.
    pub fn pid(&self) -> Option<i32> {
        let pid = fs::read_to_string(self.directory().join("pid")).ok()?.trim().parse().ok()?;
        fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|line| !line.is_empty()).map(|_| pid)
    }

    /// Waits until the guest has started, and gives its console.
    pub fn console(&self) -> Console {
        Console::open(&self.directory())
    }

    /// The same, and gives the guest the address of its first NIC.
    pub fn configured(&self, prefix_bits: u8) -> Console {
        let mut console = self.console();
        let (ip, _) = self.nic();
        console.run(&format!("ip address add {ip}/{prefix_bits} dev eth0 && ip link set eth0 up"));
        console
    }
}

/// Makes an image known under a name of the host's directory of images; its uuid.
pub fn image_of(lab: &TestLab, name: &str) -> String {
    let params = json!({"name": name, "url": format!("file:///{name}"), "format": "kernel"});
    lab.rest().made("/images", &params)
}

/// The serial console of a guest, whose shell runs what it is sent.
pub struct Console {
    stream: UnixStream,
    /// What has come and was not looked at.
    heard: Vec<u8>,
    commands: usize,
}

impl Console {
    fn open(directory: &Path) -> Self {
        let mut this = None;
        let connect = || {
            // The whole way is too long for a socket's address.
            let Ok(opened) = File::open(directory) else { return false };
            let short = format!("/proc/self/fd/{}/console", opened.as_raw_fd());
            this = UnixStream::connect(short).ok();
            this.is_some()
        };
        assert!(lab::wait::holds(LIMIT, connect), "{} has no console", directory.display());
        let stream = this.unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut console = Self { stream, heard: Vec::new(), commands: 0 };
        // It may have said so before anybody listened; then it answers.
        console.send("echo guest is\" \"up");
        console.until(UP);
        console
    }

    /// Runs a command, which must succeed; what it said.
    pub fn run(&mut self, command: &str) -> String {
        let (said, status) = self.try_run(command);
        assert_eq!(status, 0, "{command}: {said}");
        said
    }

    /// Runs a command; what it said, and its status.
    pub fn try_run(&mut self, command: &str) -> (String, i32) {
        let marker = self.begin(command);
        self.end(&marker)
    }

    /// Runs a command until it succeeds.
    pub fn wait_for(&mut self, command: &str) {
        assert!(lab::wait::holds(PATIENCE, || self.try_run(command).1 == 0), "{command}");
    }

    /// Begins to run a command; what to wait for with [`Self::end`].
    pub fn begin(&mut self, command: &str) -> String {
        self.commands += 1;
        let marker = format!("<done {} with ", self.commands);
        self.send(&format!("{command}\necho \"<\"\"done {} with $?>\"", self.commands));
        marker
    }

    /// Waits for the end of a command.
    pub fn end(&mut self, marker: &str) -> (String, i32) {
        let said = self.until(marker);
        let status = self.until(">");
        (said, status.parse().unwrap_or_else(|_| panic!("{status:?}")))
    }

    fn send(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits until the guest says this; what came before.
    fn until(&mut self, text: &str) -> String {
        let (limit, text) = (Instant::now() + PATIENCE, text.as_bytes());
        loop {
            if let Some(at) = self.heard.windows(text.len()).position(|found| found == text) {
                let rest = self.heard.split_off(at + text.len());
                let before = std::mem::replace(&mut self.heard, rest);
                return String::from_utf8_lossy(&before[..at]).into_owned();
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the guest is gone: {}", String::from_utf8_lossy(&self.heard)),
                Ok(length) => self.heard.extend(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            let heard = String::from_utf8_lossy(&self.heard);
            assert!(
                Instant::now() < limit,
                "{} does not come: {heard}",
                String::from_utf8_lossy(text)
            );
        }
    }
}

/// How long a connection is to live on after something was done.
const WHILE: Duration = Duration::from_millis(300);

/// A connection over which something goes back and forth until it is told to stop.
pub struct Flow {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    work: JoinHandle<Result<(), String>>,
}

impl Flow {
    /// Starts it.
    pub fn start(mut stream: TcpStream) -> Self {
        let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (Arc::clone(&stop), Arc::clone(&bytes));
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let work = thread::spawn(move || {
            let (mut round, mut back) = (0_u8, vec![0; 4096]);
            while !told.load(Ordering::Relaxed) {
                let sent = vec![round; back.len()];
                let done = stream.write_all(&sent).and_then(|()| stream.read_exact(&mut back));
                done.map_err(|error| error.to_string())?;
                if back != sent {
                    return Err("other bytes came back".to_owned());
                }
                round = round.wrapping_add(1);
                counted.fetch_add(4096, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { stop, bytes, work }
    }

    /// Waits until more has come back, for a while.
    pub fn goes_on(&self) {
        let before = self.bytes.load(Ordering::Relaxed);
        lab::wait::holds(WHILE, || self.work.is_finished());
        let goes_on = || self.bytes.load(Ordering::Relaxed) > before;
        assert!(lab::wait::holds(LIMIT, goes_on), "nothing comes back any more");
    }

    /// Ends it; it must have lived.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.work.join().unwrap().unwrap_or_else(|error| panic!("TCP: {error}"));
    }
}

/// Sends so many bytes that look like noise to a guest over TCP, and back; each must arrive.
///
/// # Panics
/// When one does not.
pub fn exchange(
    console: &mut Console,
    (guest, ip): (IpAddr, IpAddr),
    peer: &Namespace,
    bytes: usize,
) {
    let sent = noise(bytes);
    let got = console.begin("nc -l -p 7000 >/tmp/got </dev/null");
    let mut stream = connect(peer, (guest, 7000));
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&sent).unwrap();
    drop(stream);
    let (said, status) = console.end(&got);
    assert_eq!(status, 0, "{said}");
    let listener = peer.run_in(|| TcpListener::bind((ip, 0))).unwrap().unwrap();
    let port = listener.local_addr().unwrap().port();
    let receiver = thread::spawn(move || {
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut got = Vec::new();
        accepted.read_to_end(&mut got).map(|_| got)
    });
    console.run(&format!("nc {ip} {port} </tmp/got"));
    let back = receiver.join().unwrap().unwrap();
    if back != sent {
        let same = back.iter().zip(&sent).take_while(|(back, sent)| back == sent).count();
        panic!("{} of {bytes} bytes came back, {same} of them as they were", back.len());
    }
}

/// Connects to a guest, which may have to begin to listen yet.
pub fn connect(from: &Namespace, to: (IpAddr, u16)) -> TcpStream {
    let mut stream = None;
    let connect = || {
        let tried = from.run_in(|| TcpStream::connect_timeout(&to.into(), Duration::from_secs(2)));
        stream = tried.unwrap().ok();
        stream.is_some()
    };
    assert!(lab::wait::holds(LIMIT, connect), "{to:?} does not listen");
    stream.unwrap()
}
