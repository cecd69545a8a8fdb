//! The admin's password: its file, and `netloom reset-password` for an operator who is locked out.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use control::{account, secret};
use wire::durable;

use crate::{Failure, data, installation, runtime};

/// Where a random password is written, in the data directory.
pub(crate) const FILE: &str = "admin-password";
/// The length of those that are made here.
const LENGTH: usize = 43;
/// The shortest that is taken from a file, in characters.
const SHORTEST: usize = 8;

/// What `netloom reset-password` takes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The server's data directory. The server must be stopped.
    #[arg(long)]
    data: PathBuf,
    /// Take the new password from the first line of this file instead of making one.
    #[arg(long)]
    new_password_file: Option<PathBuf>,
}

/// Gives the account admin another password. The store's lock keeps it from a running server's.
pub(crate) fn reset(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let data = &arguments.data;
    if !data.join(data::STORE).is_file() {
        installation::must_have_database(data)?;
        return Err(format!(
            "{} has no {}: name the server's data directory with --data",
            data.display(),
            data::STORE
        )
        .into());
    }
    let store = installation::open_store(data)?;
    // The file is written first: after a crash in between, running the command again helps. In the
    // other order, the password in force would be in no file.
    let (password, at) = match &arguments.new_password_file {
        Some(path) => (chosen(path)?, path.clone()),
        None => (write_random(data)?, data.join(FILE)),
    };
    let hash = account::hash(&account::client_digest(&password))?;
    account::reset_admin(&store, &hash, runtime::now())?;
    cli::print(&format!("admin's password is now the one in {}", at.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// A new random password in its file, for its owner alone.
pub(crate) fn write_random(data: &Path) -> Result<String, Failure> {
    let password = secret::random()?;
    let path = data.join(FILE);
    durable::replace(&path, password.as_bytes())
        .map_err(|cause| format!("cannot write {}: {cause}", path.display()))?;
    Ok(password)
}

/// The password in the file, if one is there as a whole.
pub(crate) fn left(data: &Path) -> Result<Option<String>, Failure> {
    let path = data.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text).filter(|text| text.len() == LENGTH)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display()).into()),
    }
}

fn chosen(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|cause| format!("cannot read {}: {cause}", path.display()))?;
    let password = text.lines().next().unwrap_or_default().to_owned();
    if password.chars().count() < SHORTEST {
        return Err(format!(
            "the first line of {} has under {SHORTEST} characters: choose a longer password",
            path.display()
        )
        .into());
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

    use model::Timestamp;

    use super::*;
    use crate::installation::{OnLoss, open, open_store};

    #[test]
    fn a_locked_out_operator_gets_in_again_once_the_server_is_stopped() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("d");
        let reset_with = |new_password_file: Option<PathBuf>| {
            reset(&Arguments { data: data.clone(), new_password_file }).map_err(|e| e.to_string())
        };
        let fits = |password: &str| {
            let snapshot = open_store(&data).unwrap().snapshot();
            account::authenticate(&snapshot, "admin", &account::client_digest(password)).is_ok()
        };
        let refused = reset_with(None).unwrap_err();
        assert!(refused.contains("--data") && !data.exists(), "{refused}");
        let running = open(&data, OnLoss::Refuse, (uuid::Uuid::nil(), Timestamp(0))).unwrap();
        let before = fs::read_to_string(data.join(FILE)).unwrap();
        let refused = reset_with(None).unwrap_err();
        assert!(refused.contains("stop that one"), "{refused}");
        assert_eq!(fs::read_to_string(data.join(FILE)).unwrap(), before);
        drop(running);
        reset_with(None).unwrap();
        let after = fs::read_to_string(data.join(FILE)).unwrap();
        assert!(after != before && fits(&after) && !fits(&before));

        let own = scratch.path().join("own");
        fs::write(&own, "short\n").unwrap();
        assert!(reset_with(Some(own.clone())).unwrap_err().contains("under 8"));
        fs::write(&own, "correct horse\nsecond line").unwrap();
        reset_with(Some(own)).unwrap();
        assert!(fits("correct horse") && !fits(&after));
    }
}
