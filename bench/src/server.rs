//! A `netloom server` of the benchmark's own, without hosts.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use client::Client;
use lab::wait;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Failure, scratch::Scratch};

/// How long the server may take to answer for the first time, or to end.
pub(crate) const SERVER_LIMIT: Duration = Duration::from_secs(60);
/// The directory with what it keeps.
pub(crate) const DATA: &str = "data";
/// What it says.
const LOG: &str = "server.log";

/// A process; it ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    listen: SocketAddr,
}

impl Server {
    /// Starts it in a directory, and does not wait until it answers.
    pub(crate) fn start(binary: &Path, directory: &Scratch) -> Result<Self, Failure> {
        // Kept open together, so that they differ; free again right before the server needs them.
        let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [listen, link] = [ports[0].local_addr()?, ports[1].local_addr()?];
        drop(ports);
        let mut command = Command::new(binary);
        command.arg("server").arg("--data").arg(directory.0.join(DATA));
        command.args(["--listen", &listen.to_string(), "--link-listen", &link.to_string()]);
        command.env("NETLOOM_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(directory.0.join(LOG))?);
        let server = Self { child: command.spawn()?, listen };
        directory.belongs_to(server.pid())?;
        Ok(server)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it answers REST.
    pub(crate) const fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Its base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.listen)
    }

    /// Asks until it gives an answer, unless it ends.
    pub(crate) fn until<T>(
        &mut self,
        directory: &Scratch,
        mut ask: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, Failure> {
        let answer = wait::until(SERVER_LIMIT, || {
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(directory.0.join(LOG)).unwrap_or_default();
                return Err(format!("the server ended: {status}: {}", log.trim()).into());
            }
            Ok::<_, Failure>(ask(self))
        })?;
        Ok(answer.ok_or("the server does not answer")?)
    }

    /// A session, once it answers.
    pub(crate) fn log_in(&mut self, directory: &Scratch) -> Result<Client, Failure> {
        let data = directory.0.join(DATA);
        self.until(directory, |server| {
            let password = fs::read_to_string(data.join("admin-password")).ok()?;
            let mut client = Client::new(&server.url());
            client.log_in("admin", password.trim()).ok()?;
            Some(client)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let ended = wait::until(SERVER_LIMIT, || self.child.try_wait());
        if !matches!(ended, Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
