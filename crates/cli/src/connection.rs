//! Which server, and as whom.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use client::Client;

use crate::{
    Error, names,
    noun::Noun,
    profile::{self, Profiles},
};

/// How long completion waits for the server.
const COMPLETION_LIMIT: Duration = Duration::from_secs(2);

/// Which server, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct Connection {
    /// The server's REST address: `host`, `host:port` or a URL. By default that of the login.
    #[arg(long, env = "NETLOOM_SERVER")]
    pub server: Option<String>,
    /// Log in as admin with the password in this file instead of using a login.
    #[arg(long, env = "NETLOOM_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// The certificate of the authority to trust for `https://`, such as the server's rest-ca.pem. By
    /// default that of the login, else the system's.
    #[arg(long, env = "NETLOOM_CA")]
    pub ca: Option<PathBuf>,
    /// The login to use; by default the last one.
    #[arg(long, env = "NETLOOM_PROFILE")]
    pub profile: Option<String>,
}

impl Connection {
    /// This, and what `other` says where this says nothing.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            server: self.server.or_else(|| other.server.clone()),
            password_file: self.password_file.or_else(|| other.password_file.clone()),
            ca: self.ca.or_else(|| other.ca.clone()),
            profile: self.profile.or_else(|| other.profile.clone()),
        }
    }

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
        let server = self.server.as_deref().map(profile::url);
        if let Some(file) = &self.password_file {
            let server = server.unwrap_or_else(|| profile::DEFAULT_SERVER.to_owned());
            let mut client = trusting(Client::new(&server), self.authorities()?.as_deref())?;
            client.log_in("admin", &password(file)?)?;
            return Ok(client);
        }
        let profiles = Profiles::load()?;
        let (_, found) = profiles.get(self.profile.as_deref())?;
        let server = server.as_ref().unwrap_or(&found.server);
        let ca = self.authorities()?.or_else(|| found.ca.clone());
        trusting(Client::with_session(server, found.session.clone()), ca.as_deref())
    }

    /// The text of `--ca`.
    pub(crate) fn authorities(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.ca else { return Ok(None) };
        let text = fs::read_to_string(path);
        text.map(Some).map_err(|cause| Error::File { path: path.clone(), cause })
    }
}

/// A client that trusts these authorities, PEM, if there are any.
pub(crate) fn trusting(client: Client, ca: Option<&str>) -> Result<Client, Error> {
    Ok(match ca {
        Some(ca) => client.trusting(ca)?,
        None => client,
    })
}

/// The names of a noun's resources, for completion: none if the server does not answer at once.
pub(crate) fn names_now(noun: &Noun) -> Vec<String> {
    let client = Connection::default().open().map(|client| client.hasty(COMPLETION_LIMIT));
    client.map(|client| names::some_names(&client, noun)).unwrap_or_default()
}

/// The password in a file.
pub(crate) fn password(file: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(file);
    let text = text.map_err(|cause| Error::File { path: file.to_owned(), cause })?;
    Ok(text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
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
        let connection =
            Connection { server, password_file: Some(file.clone()), ..Connection::default() };
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
