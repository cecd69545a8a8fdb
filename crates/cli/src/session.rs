//! Opening and closing sessions: `login`, `logout`, `whoami`, `passwd`.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Write},
    os::fd::AsFd,
    path::PathBuf,
};

use clap::Args;
use client::Client;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::{Map, Value, json};

use crate::{
    Connection, Error,
    connection::{password, trusting},
    profile::{self, Profile, Profiles},
};

/// What `login` takes.
#[derive(Debug, Args)]
pub struct Login {
    /// The account.
    #[arg(long, default_value = "admin")]
    account: String,
    /// A file with the password, such as `DIR/admin-password` of the server; asked for if absent.
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// The server's REST address: `host`, `host:port` or a URL.
    #[arg(long)]
    server: Option<String>,
    /// Remember the login under this name; later commands take it by `--profile` as well.
    #[arg(long)]
    profile: Option<String>,
}

/// What `passwd` takes.
#[derive(Debug, Args)]
pub struct Passwd {
    /// A file with the present password; asked for if absent.
    #[arg(long)]
    old_password_file: Option<PathBuf>,
    /// A file with the new password; asked for twice if absent.
    #[arg(long)]
    new_password_file: Option<PathBuf>,
}

/// Opens a session and remembers it.
pub(crate) fn log_in(login: &Login, above: &Connection) -> Result<(), Error> {
    let given = login.server.as_ref().or(above.server.as_ref());
    let server = given.map_or_else(|| profile::DEFAULT_SERVER.to_owned(), |one| profile::url(one));
    let file = login.password_file.as_ref().or(above.password_file.as_ref());
    let secret = match file {
        Some(file) => password(file)?,
        None => ask(&format!("password of {}", login.account))?,
    };
    let ca = above.authorities()?;
    let mut client = trusting(Client::new(&server), ca.as_deref())?;
    client.log_in(&login.account, &secret)?;
    let name = login.profile.as_ref().or(above.profile.as_ref());
    let name = name.map_or(profile::DEFAULT, String::as_str).to_owned();
    let mut profiles = Profiles::load()?;
    let fresh = Profile {
        server: server.clone(),
        account: login.account.clone(),
        account_uuid: client.account().unwrap_or_default().to_owned(),
        session: client.session().unwrap_or_default().to_owned(),
        ca,
    };
    let before = profiles.profiles.insert(name.clone(), fresh);
    profiles.current.clone_from(&name);
    profiles.save()?;
    if let Some(before) = before {
        // The server keeps few sessions for each account; one that is gone already is fine.
        let _ = before.client().and_then(|mut client| Ok(client.log_out()?));
    }
    let of_profile = match name == profile::DEFAULT {
        true => String::new(),
        false => format!(", profile {name}"),
    };
    crate::print(&format_args!("logged in to {server} as {}{of_profile}", login.account))
}

/// Closes a profile's session and forgets it.
pub(crate) fn log_out(connection: &Connection) -> Result<(), Error> {
    let mut profiles = Profiles::load()?;
    let (name, found) = profiles.get(connection.profile.as_deref())?;
    let (name, found) = (name.to_owned(), found.clone());
    let closed = found.client().and_then(|mut client| Ok(client.log_out()?));
    profiles.profiles.remove(&name);
    if profiles.current == name {
        profiles.current = profiles.profiles.keys().next().cloned().unwrap_or_default();
    }
    profiles.save()?;
    // Forgotten here in any case; a session that the server does not know has ended.
    match closed {
        Err(error @ Error::Client(client::Error::Unreachable { .. })) => Err(error),
        _ => crate::print(&format_args!("logged out of {}", found.server)),
    }
}

/// Says who one is, and whether the server agrees.
pub(crate) fn who_am_i(connection: &Connection) -> Result<(), Error> {
    let profiles = Profiles::load()?;
    let (name, found) = profiles.get(connection.profile.as_deref())?;
    let client = found.client()?;
    let params = object(json!({"sessionUuid": found.session}));
    let answer = client.call("ValidateSession", params, &[])?;
    let session = match answer["valid"].as_bool() {
        Some(true) => "open",
        _ => "ended; log in again",
    };
    let text = format!(
        "profile  {name}\nserver   {}\naccount  {} ({})\nsession  {session}",
        found.server, found.account, found.account_uuid
    );
    crate::print(&text)
}

/// Changes one's own password.
pub(crate) fn change_password(passwd: &Passwd, connection: &Connection) -> Result<(), Error> {
    let profiles = Profiles::load()?;
    let (_, found) = profiles.get(connection.profile.as_deref())?;
    let old = match &passwd.old_password_file {
        Some(file) => password(file)?,
        None => ask("present password")?,
    };
    let new = match &passwd.new_password_file {
        Some(file) => password(file)?,
        None => {
            let new = ask("new password")?;
            if new != ask("new password again")? {
                return Err(Error::Usage("the two are not the same; nothing is changed".into()));
            }
            new
        }
    };
    let params = object(json!({
        "uuid": found.account_uuid,
        "password": client::digest(&new),
        "oldPassword": client::digest(&old),
    }));
    let client = found.client()?;
    client.call("UpdateAccount", params, &[])?;
    crate::print(&"the password is changed; other sessions of the account have ended")
}

/// Asks for a secret on the terminal, unseen.
pub(crate) fn ask(what: &str) -> Result<String, Error> {
    let input = io::stdin();
    if !input.is_terminal() {
        let text = format!("{what} is needed, and there is no terminal to ask; give it by a file");
        return Err(Error::Usage(text));
    }
    let terminal =
        File::open("/dev/tty").map_err(|cause| Error::File { path: "/dev/tty".into(), cause })?;
    let failed =
        |error: nix::Error| Error::Usage(format!("the terminal cannot be hidden: {error}"));
    let seen = tcgetattr(terminal.as_fd()).map_err(failed)?;
    let mut unseen = seen.clone();
    unseen.local_flags.remove(LocalFlags::ECHO);
    // A prompt that cannot be shown is no reason to give up.
    let _ = write!(io::stderr(), "{what}: ");
    tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &unseen).map_err(failed)?;
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    let _ = tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &seen);
    let _ = writeln!(io::stderr());
    read.map_err(Error::Output)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
