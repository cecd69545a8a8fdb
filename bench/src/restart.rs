//! How long a server takes to start with a cloud in its database, and how much memory it has then.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use client::Client;
use store::Sqlite;

use crate::{
    Failure,
    cloud::{Cloud, Shape},
    machine::memory,
    scratch::Scratch,
    server::{DATA, SERVER_LIMIT, Server},
    stats,
};

/// How long a server must do nothing until it is believed to have nothing to do.
const IDLE: Duration = Duration::from_millis(400);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A data directory with a cloud in it.
pub(crate) struct Restart {
    binary: PathBuf,
    directory: Scratch,
}

impl Restart {
    /// Has a server make the directory, then fills its database in this process.
    pub(crate) fn new(binary: &Path, scratch: &Path, shape: Shape) -> Result<Self, Failure> {
        let directory = Scratch::new(scratch, &format!("restart-{}", shape.ports()))?;
        let mut server = Server::start(binary, &directory)?;
        server.log_in(&directory)?;
        drop(server);
        let database = directory.0.join(DATA).join("netloom.db");
        Cloud::new(Box::new(Sqlite::open(database)?), shape)?.fill()?;
        Ok(Self { binary: binary.to_owned(), directory })
    }

    /// Starts a server, and logs in.
    pub(crate) fn serve(&self) -> Result<(Server, Client), Failure> {
        let mut server = Server::start(&self.binary, &self.directory)?;
        let client = server.log_in(&self.directory)?;
        Ok((server, client))
    }

    /// Starts a server and ends it: ms until it answers, ms until it has nothing more to do, MiB
    /// that it has in memory then, and had at most.
    pub(crate) fn sample(&self) -> Result<Vec<Vec<f64>>, Failure> {
        let start = Instant::now();
        let mut server = Server::start(&self.binary, &self.directory)?;
        server.until(&self.directory, |server| answers(server.listen()))?;
        let answered = start.elapsed();
        let idle = idle(server.pid(), start)?;
        let (now, most) = (memory(server.pid(), "VmRSS")?, memory(server.pid(), "VmHWM")?);
        Ok(vec![vec![stats::ms(answered)], vec![stats::ms(idle)], vec![now], vec![most]])
    }
}

/// Whether REST answers: that nobody has logged in is an answer.
fn answers(listen: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect(listen).ok()?;
    stream.set_read_timeout(Some(SERVER_LIMIT)).ok()?;
    let ask = "GET /zstack/v1/zones HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).ok()?;
    let mut answer = [0_u8; 9];
    stream.read_exact(&mut answer).ok()?;
    answer.starts_with(b"HTTP/1.1").then_some(())
}

/// When a process did something last, after `start`, once it has done nothing for a while.
fn idle(pid: u32, start: Instant) -> Result<Duration, Failure> {
    let (mut last, mut busy) = (start.elapsed(), ticks(pid)?);
    while start.elapsed() - last < IDLE {
        thread::park_timeout(LOOK);
        let now = ticks(pid)?;
        if now != busy {
            (last, busy) = (start.elapsed(), now);
        }
        if last > SERVER_LIMIT {
            return Err("the server is never idle".into());
        }
    }
    Ok(last)
}

/// The CPU time that a process has used, in ticks of 10 ms.
fn ticks(pid: u32) -> Result<u64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may have anything in it; after it, utime and stime are the 12th and
    // the 13th field (proc_pid_stat(5)).
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next().ok_or("/proc has no CPU times");
    let (user, system) = (next()?, next()?);
    Ok(user.parse::<u64>()? + system.parse::<u64>()?)
}
