//! Traffic between VMs that goes on while something is done to the lab.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use hostnet::Namespace;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Between two probes.
const PACE: Duration = Duration::from_millis(10);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A probe every 10 ms and a TCP connection, from one VM to another.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    probes: JoinHandle<Probes>,
    flow: JoinHandle<Result<(), String>>,
    /// Bytes that came back over the connection.
    bytes: Arc<AtomicU64>,
    echoes: Vec<JoinHandle<()>>,
}

/// What became of the probes.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    /// Probes sent.
    pub sent: usize,
    /// Probes that were never answered.
    pub lost: usize,
}

impl Traffic {
    /// Starts both, from `from` to `to`, which has the address `ip`.
    pub fn start(from: &Namespace, to: &Namespace, ip: IpAddr) -> Self {
        Self::with_patience(from, to, ip, ANSWER)
    }

    /// The same, with a connection that waits so long for an answer.
    pub fn with_patience(from: &Namespace, to: &Namespace, ip: IpAddr, patience: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (udp, tcp) = to
            .run_in(|| (UdpSocket::bind((ip, 0)).unwrap(), TcpListener::bind((ip, 0)).unwrap()))
            .unwrap();
        let (udp_to, tcp_to) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let mut echoes = vec![spawn(&stop, move |stop| echo_udp(&udp, stop))];
        echoes.push(spawn(&stop, move |stop| echo_tcp(&tcp, stop)));
        let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = from.run_in(|| UdpSocket::bind(any)).unwrap().unwrap();
        let stream = from.run_in(|| TcpStream::connect_timeout(&tcp_to, ANSWER)).unwrap().unwrap();
        let probes = spawn(&stop, move |stop| probe(&socket, udp_to, stop));
        stream.set_read_timeout(Some(patience)).unwrap();
        let bytes = Arc::default();
        let counted = Arc::clone(&bytes);
        let flow = spawn(&stop, move |stop| flow(stream, stop, &counted));
        Self { stop, probes, flow, bytes, echoes }
    }

    /// Lets it run for a while.
    pub fn run_for(&self, time: Duration) {
        // Both threads run until told to stop, unless the connection is lost.
        lab::wait::holds(time, || self.flow.is_finished());
    }

    /// Bytes that have come back over the connection so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends it; the connection must have lived.
    pub fn finish(self) -> Probes {
        self.stop.store(true, Ordering::Relaxed);
        self.flow.join().unwrap().unwrap_or_else(|error| panic!("TCP: {error}"));
        assert!(self.bytes.load(Ordering::Relaxed) > 0, "nothing passed");
        let probes = self.probes.join().unwrap();
        self.echoes.into_iter().for_each(|echo| echo.join().unwrap());
        probes
    }
}

fn spawn<T: Send + 'static>(
    stop: &Arc<AtomicBool>,
    work: impl FnOnce(&AtomicBool) -> T + Send + 'static,
) -> JoinHandle<T> {
    let stop = Arc::clone(stop);
    thread::spawn(move || work(&stop))
}

/// Answers after the sender has stopped too: its last probes are still on their way.
fn echo_udp(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_read_timeout(Some(ANSWER + PACE)).unwrap();
    let mut buffer = [0; 64];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => drop(socket.send_to(&buffer[..length], source)),
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
    }
}

fn echo_tcp(listener: &TcpListener, stop: &AtomicBool) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if stream.write_all(&buffer[..length]).is_err() => return,
            Ok(_) => {}
            Err(error) if is_timeout(&error) && !stop.load(Ordering::Relaxed) => {}
            Err(_) => return,
        }
    }
}

/// Numbered probes at an even pace, however the answers come.
fn probe(socket: &UdpSocket, to: SocketAddr, stop: &AtomicBool) -> Probes {
    let mut answered: Vec<bool> = Vec::new();
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = u32::try_from(answered.len()).unwrap();
        socket.send_to(&number.to_be_bytes(), to).ok();
        answered.push(false);
        receive(socket, &mut answered, start + PACE * (number + 1));
    }
    let last = Instant::now() + ANSWER;
    while answered.contains(&false) && Instant::now() < last {
        receive(socket, &mut answered, Instant::now() + PACE);
    }
    Probes { sent: answered.len(), lost: answered.iter().filter(|one| !**one).count() }
}

fn receive(socket: &UdpSocket, answered: &mut [bool], until: Instant) {
    let mut buffer = [0; 4];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        socket.set_read_timeout(Some(left)).unwrap();
        if let Ok((4, _)) = socket.recv_from(&mut buffer) {
            let number = usize::try_from(u32::from_be_bytes(buffer)).unwrap();
            if let Some(one) = answered.get_mut(number) {
                *one = true;
            }
        }
    }
}

/// Sends and reads back, over one connection, as long as it lives.
fn flow(mut stream: TcpStream, stop: &AtomicBool, counted: &AtomicU64) -> Result<(), String> {
    stream.set_nodelay(true).unwrap();
    let (mut bytes, mut buffer) = (0u64, [0; 1024]);
    while !stop.load(Ordering::Relaxed) {
        let sent = [u8::try_from(bytes % 251).unwrap(); 1024];
        let failed = |error: std::io::Error| format!("after {bytes} bytes: {error}");
        stream.write_all(&sent).map_err(failed)?;
        stream.read_exact(&mut buffer).map_err(failed)?;
        if buffer != sent {
            return Err(format!("after {bytes} bytes: other bytes came back"));
        }
        bytes += 1024;
        counted.store(bytes, Ordering::Relaxed);
        thread::park_timeout(PACE);
    }
    Ok(())
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Sends so many bytes that look like noise over TCP; each must arrive as it was.
///
/// # Panics
/// When one does not.
pub fn transfer(from: &Namespace, to: &Namespace, ip: IpAddr, bytes: usize) {
    let listener = to.run_in(|| TcpListener::bind((ip, 0))).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    let mut stream = from.run_in(|| TcpStream::connect_timeout(&address, ANSWER)).unwrap().unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(ANSWER)).unwrap();
    stream.set_write_timeout(Some(ANSWER)).unwrap();
    let sent = noise(bytes);
    let copy = sent.clone();
    let sender = thread::spawn(move || stream.write_all(&copy));
    let mut got = Vec::with_capacity(bytes);
    let ended = accepted.read_to_end(&mut got);
    assert!(ended.is_ok() && got.len() == bytes, "{} of {bytes} bytes: {ended:?}", got.len());
    let same = got.iter().zip(&sent).take_while(|(got, sent)| got == sent).count();
    assert_eq!(same, bytes, "bytes from here on are others");
    sender.join().unwrap().unwrap();
}

/// Bytes of which no part is like another (a xorshift generator, Marsaglia 2003).
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let (mut state, mut noise) = (0x9e37_79b9_7f4a_7c15_u64, Vec::with_capacity(bytes + 8));
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// What becomes of a packet that must not be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ping {
    /// It is answered.
    Answered,
    /// The sender's own stack says that it is too big.
    TooBig,
    /// Nothing comes back.
    Lost,
}

/// Pings once with so many bytes behind the ICMP header, and "don't fragment" set.
pub fn ping(from: &Namespace, ip: IpAddr, bytes: usize) -> Ping {
    let mut command = Command::new("ping");
    command.args(["-n", "-c", "1", "-W", "2", "-M", "do", "-s", &bytes.to_string()]);
    command.arg(ip.to_string());
    let output = from.run_in(|| command.output()).unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    match output.status.success() {
        true => Ping::Answered,
        false if String::from_utf8_lossy(&said).contains("too long") => Ping::TooBig,
        false => Ping::Lost,
    }
}

/// Pings every 20 ms, from the kernel of one VM to that of another.
pub struct Pings {
    child: Child,
}

impl Pings {
    /// Starts, whether or not there is somebody who answers.
    pub fn start(from: &Namespace, ip: IpAddr) -> Self {
        let mut command = Command::new("ping");
        command.args(["-n", "-D", "-i", "0.02", &ip.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        Self { child: from.run_in(|| command.spawn()).unwrap().unwrap() }
    }

    /// Ends it, and tells how many were sent, and how many answered; the last one may be on its way.
    pub fn finish_counted(self) -> (u64, u64) {
        let text = self.end();
        let line = text.lines().find(|line| line.contains("packets transmitted")).unwrap();
        let mut numbers = line.split(' ').filter_map(|word| word.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Ends it, and gives the times of the answers.
    pub fn finish(self) -> Vec<SystemTime> {
        let text = self.end();
        let answers = text.lines().filter(|line| line.contains("bytes from"));
        let time = |line: &str| {
            let seconds = line.strip_prefix('[')?.split_once(']')?.0.parse().ok()?;
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds))
        };
        answers.filter_map(time).collect()
    }

    /// Ends it; what it has said.
    fn end(self) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
        let output = self.child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Sends one datagram, once, and tells whether its echo came back.
pub fn one_packet_passes(from: &Namespace, to: &Namespace, ip: IpAddr) -> bool {
    let receiver = to.run_in(|| UdpSocket::bind((ip, 0))).unwrap().unwrap();
    receiver.set_read_timeout(Some(ANSWER)).unwrap();
    let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sender = from.run_in(|| UdpSocket::bind(any)).unwrap().unwrap();
    let to = receiver.local_addr().unwrap();
    let mut buffer = [0; 16];
    sender.send_to(b"first", to).is_ok()
        && receiver.recv_from(&mut buffer).is_ok_and(|(length, _)| &buffer[..length] == b"first")
}
