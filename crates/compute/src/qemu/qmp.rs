//! Talking to a QEMU: the QEMU Machine Protocol, JSON objects line by line over its socket.
//!
//! Source: QEMU's docs/interop/qmp-spec.rst. A QEMU talks to one client at a time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::files::{self, Files};
use crate::Error;

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Longest line, in bytes: a QEMU that its guest has taken over must not fill our memory.
const LINE_MAX: u64 = 1 << 20;

/// Most events that are passed over while an answer is waited for.
const EVENTS_MAX: usize = 1000;

/// A connection, ready for commands.
pub(super) struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// Connects to the QEMU whose files these are.
    pub(super) async fn connect(files: &Files) -> Result<Self, Error> {
        let connect = async {
            let mut this = Self(BufReader::new(files.connect(files::QMP).await?));
            this.read().await?;
            Ok(this)
        };
        let mut this = within("connect", connect).await?;
        this.call("qmp_capabilities", json!({})).await?;
        Ok(this)
    }

    /// Gives a command, and waits for its answer.
    pub(super) async fn call(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        let request = json!({"execute": command, "arguments": arguments});
        let exchange = async {
            let mut line = serde_json::to_vec(&request)?;
            line.push(b'\n');
            self.0.get_mut().write_all(&line).await?;
            for _ in 0..EVENTS_MAX {
                let answer = self.read().await?;
                if answer.get("return").is_some() || answer.get("error").is_some() {
                    return Ok(answer);
                }
            }
            Err(std::io::Error::other("it sends events and no answer"))
        };
        let mut answer = within(command, exchange).await?;
        match answer.get("error") {
            None => Ok(answer["return"].take()),
            Some(error) => Err(failed(command, error["desc"].as_str().unwrap_or("no reason"))),
        }
    }

    /// Its state: `running`, `paused`, `prelaunch` and so on.
    pub(super) async fn status(&mut self) -> Result<String, Error> {
        let answer = self.call("query-status", json!({})).await?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
    }

    async fn read(&mut self) -> Result<Value, std::io::Error> {
        let mut line = Vec::new();
        let read = (&mut self.0).take(LINE_MAX).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }
}

async fn within<T>(
    command: &str,
    work: impl Future<Output = Result<T, std::io::Error>>,
) -> Result<T, Error> {
    match timeout(LIMIT, work).await {
        Ok(done) => done.map_err(|error| failed(command, &error.to_string())),
        Err(_) => Err(failed(command, "it does not answer")),
    }
}

fn failed(command: &str, reason: &str) -> Error {
    Error::Qmp { command: command.to_owned(), reason: reason.to_owned() }
}
