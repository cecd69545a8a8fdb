//! Which server, and as whom.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use clap::Args;
use client::Client;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Which server, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Before a message or `login`: the server's REST address. By default that of the last login.
    #[arg(long, env = "NETLOOM_SERVER")]
    pub server: Option<String>,
    /// Before a message: log in as admin with the password in this file instead of using the last
    /// login.
    #[arg(long, env = "NETLOOM_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// Before a message or `login`: the certificate of the authority to trust for `https://`, such
    /// as the server's rest-ca.pem. By default that of the last login, else the system's.
    #[arg(long, env = "NETLOOM_CA")]
    pub ca: Option<PathBuf>,
}

/// Where the server listens if nothing else is said.
const DEFAULT_SERVER: &str = "http://127.0.0.1:7480";

/// The last login, as it is remembered.
#[derive(Serialize, Deserialize)]
struct Remembered {
    server: String,
    session: String,
    /// The authorities to trust, PEM.
    #[serde(default)]
    ca: Option<String>,
}

impl Connection {
    /// Does `work` with an open session. One that was opened for it is closed after it: the server
    /// keeps few for each account, and a script calls often.
    ///
    /// # Errors
    /// Those of [`open`](Self::open) and of `work`.
    pub fn with<T>(&self, work: impl FnOnce(&Client) -> Result<T, Error>) -> Result<T, Error> {
        let mut client = self.open()?;
        let result = work(&client);
        if self.password_file.is_some() {
            // The work's result is what counts; a session that stays open ends by itself.
            let _ = client.log_out();
        }
        result
    }

    /// A client with an open session.
    ///
    /// # Errors
    /// When there is neither a password nor a remembered session.
    pub fn open(&self) -> Result<Client, Error> {
        if let Some(file) = &self.password_file {
            let server = self.server.as_deref().unwrap_or(DEFAULT_SERVER);
            let mut client = trusting(Client::new(server), self.authorities()?.as_deref())?;
            client.log_in("admin", &password(file)?)?;
            return Ok(client);
        }
        let path = remembered_at();
        let login = "log in first: netloom login --password-file DIR/admin-password";
        let text = fs::read_to_string(&path)
            .map_err(|_| Error::Usage(format!("no session in {}; {login}", path.display())))?;
        let remembered: Remembered = serde_json::from_str(&text)
            .map_err(|_| Error::Usage(format!("{} is damaged; {login}", path.display())))?;
        let server = self.server.as_deref().unwrap_or(&remembered.server);
        let ca = self.authorities()?.or(remembered.ca);
        trusting(Client::with_session(server, remembered.session), ca.as_deref())
    }

    /// The text of `--ca`.
    pub(crate) fn authorities(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.ca else { return Ok(None) };
        let text = fs::read_to_string(path);
        text.map(Some).map_err(|cause| Error::File { path: path.clone(), cause })
    }
}

fn trusting(client: Client, ca: Option<&str>) -> Result<Client, Error> {
    Ok(match ca {
        Some(ca) => client.trusting(ca)?,
        None => client,
    })
}

/// Opens a session and remembers it, readable by the user alone.
pub(crate) fn log_in(connection: &Connection, account: &str, file: &Path) -> Result<(), Error> {
    let server = connection.server.as_deref().unwrap_or(DEFAULT_SERVER);
    let ca = connection.authorities()?;
    let mut client = trusting(Client::new(server), ca.as_deref())?;
    client.log_in(account, &password(file)?)?;
    let session = client.session().unwrap_or_default().to_owned();
    let path = remembered_at();
    let failed = |cause| Error::File { path: path.clone(), cause };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let remembered = Remembered { server: server.to_owned(), session, ca };
    let text = serde_json::to_string(&remembered).map_err(|e| failed(e.into()))?;
    let mut out = fs::OpenOptions::new();
    let out = out.write(true).create(true).truncate(true).mode(0o600).open(&path);
    let write = |mut file: fs::File| {
        // A file that was there before has kept its mode.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    out.and_then(write).map_err(failed)?;
    crate::print(&format_args!("logged in to {server} as {account}"))?;
    Ok(())
}

fn password(file: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(file);
    let text = text.map_err(|cause| Error::File { path: file.to_owned(), cause })?;
    Ok(text.trim_end_matches('\n').to_owned())
}

fn remembered_at() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    home.join(".netloom").join("session")
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        net::TcpListener,
    };

    use super::*;

    /// Answers so many requests, each with a session; gives their first lines.
    fn serve(listener: &TcpListener, requests: usize) -> Vec<String> {
        let answer = "{\"inventory\":{\"uuid\":\"abc\"}}";
        let serve_one = |_| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut first, mut length) = (String::new(), 0);
            reader.read_line(&mut first).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let Some((name, value)) = line.split_once(':') else { break };
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap();
                }
            }
            reader.take(length).read_to_end(&mut Vec::new()).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", answer.len());
            stream
                .write_all(format!("{head}Connection: close\r\n\r\n{answer}").as_bytes())
                .unwrap();
            first.trim_end().to_owned()
        };
        (0..requests).map(serve_one).collect()
    }

    #[test]
    fn a_session_for_one_call_is_closed_after_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Some(format!("http://{}", listener.local_addr().unwrap()));
        let file = std::env::temp_dir().join(format!("netloom-password-{}", std::process::id()));
        fs::write(&file, "secret\n").unwrap();
        let connection = Connection { server, password_file: Some(file.clone()), ca: None };
        let serving = std::thread::spawn(move || serve(&listener, 3));
        connection.with(|client| Ok(client.query("/zones", &[])?)).unwrap();
        fs::remove_file(file).unwrap();
        let seen = serving.join().unwrap();
        let expected = [
            "PUT /zstack/v1/accounts/login HTTP/1.1",
            "GET /zstack/v1/zones?limit=1000 HTTP/1.1",
            "DELETE /zstack/v1/accounts/sessions/abc HTTP/1.1",
        ];
        assert_eq!(seen, expected);
    }
}
