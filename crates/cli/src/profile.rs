//! Logins that are remembered, by the names of profiles: one file that its owner alone can read.

use std::{collections::BTreeMap, ffi::OsString, fs, io, net::Ipv6Addr, path::PathBuf};

use client::Client;
use serde::{Deserialize, Serialize};

use crate::{Error, connection::trusting, output::write_private};

/// The profile where none is named.
pub(crate) const DEFAULT: &str = "default";
/// Where the server listens if nothing else is said.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:7480";
/// The port of REST.
const PORT: u16 = 7480;

/// All logins.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Profiles {
    /// The one that is used where none is named: that of the last login.
    pub(crate) current: String,
    pub(crate) profiles: BTreeMap<String, Profile>,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) server: String,
    pub(crate) account: String,
    #[serde(default)]
    pub(crate) account_uuid: String,
    pub(crate) session: String,
    /// The authorities to trust, PEM; the system's if there are none.
    #[serde(default)]
    pub(crate) ca: Option<String>,
}

impl Profile {
    /// A client with its session.
    pub(crate) fn client(&self) -> Result<Client, Error> {
        trusting(Client::with_session(&self.server, self.session.clone()), self.ca.as_deref())
    }
}

impl Profiles {
    /// What is remembered; nothing, before the first login.
    pub(crate) fn load() -> Result<Self, Error> {
        let path = path();
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|_| {
                Error::Usage(format!("{} is damaged; delete it and log in again", path.display()))
            }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(cause) => Err(Error::File { path, cause }),
        }
    }

    pub(crate) fn save(&self) -> Result<(), Error> {
        let path = path();
        let failed = |cause: io::Error| Error::File { path: path.clone(), cause };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|e| failed(e.into()))?;
        // In one step: a reader at the same time sees the old logins or the new ones.
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        write_private(&fresh, text.as_bytes())?;
        fs::rename(&fresh, &path).map_err(failed)
    }

    /// The profile of this name; without a name, the current one.
    pub(crate) fn get(&self, name: Option<&str>) -> Result<(&str, &Profile), Error> {
        let name = name.unwrap_or(match self.current.as_str() {
            "" => DEFAULT,
            current => current,
        });
        let known: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
        self.profiles.get_key_value(name).map(|(name, it)| (name.as_str(), it)).ok_or_else(|| {
            let others = match known.is_empty() {
                true => String::new(),
                false => format!("; profiles: {}", known.join(", ")),
            };
            let login = "log in first: netloom login --password-file DIR/admin-password";
            Error::Usage(format!("no session of profile {name}; {login}{others}"))
        })
    }
}

/// An address as people write it, as a URL: `cloud.example`, `192.0.2.1:7480`, `::1`.
pub(crate) fn url(server: &str) -> String {
    if server.contains("://") {
        return server.trim_end_matches('/').to_owned();
    }
    if let Ok(ip) = server.parse::<Ipv6Addr>() {
        return format!("http://[{ip}]:{PORT}");
    }
    let host = server.trim_end_matches('/');
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match has_port {
        true => format!("http://{host}"),
        false => format!("http://{host}:{PORT}"),
    }
}

/// Where the logins are: in the user's configuration, by the XDG base directory specification.
pub(crate) fn path() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let config = set("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || set("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    config.unwrap_or_else(|| home().join(".config")).join("netloom").join("profiles.json")
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_needs_neither_scheme_nor_port() {
        for (given, url) in [
            ("cloud", "http://cloud:7480"),
            ("192.0.2.1:80", "http://192.0.2.1:80"),
            ("::1", "http://[::1]:7480"),
            ("[::1]:80", "http://[::1]:80"),
            ("[::1]", "http://[::1]:7480"),
            ("https://cloud/", "https://cloud"),
            ("http://127.0.0.1:7480", "http://127.0.0.1:7480"),
        ] {
            assert_eq!(super::url(given), url);
        }
    }
}
