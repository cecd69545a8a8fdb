//! `netloom doctor`: asks the server, or looks into the database of one that is stopped.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{Failure, data, installation};

/// What `netloom doctor` takes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Look into this data directory instead of asking a server. Its server must be stopped.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
}

pub(crate) fn run(
    arguments: &Arguments,
    connection: &cli::Connection,
    manner: &cli::Manner,
) -> Result<ExitCode, Failure> {
    let Some(directory) = &arguments.data else {
        cli::doctor(connection, manner)?;
        return Ok(ExitCode::SUCCESS);
    };
    if !directory.join(data::STORE).is_file() {
        installation::must_have_database(directory)?;
        return Err(format!(
            "{} has no {}: name the server's data directory with --data",
            directory.display(),
            data::STORE
        )
        .into());
    }
    // The store's lock keeps it from a running server's.
    let store = installation::open_store(directory)?;
    let report = control::doctor::examine(&store.snapshot());
    cli::show_report(&report.show(), manner)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

    use clap::Parser;
    use model::{
        Id, Kind, Meta, Record, Timestamp,
        resource::zone::{EnableState, Zone, ZoneType},
    };
    use store::{Read, Tx};
    use uuid::Uuid;

    use super::*;
    use crate::installation::{OnLoss, open, open_store};

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        connection: cli::Connection,
        #[command(flatten)]
        manner: cli::Manner,
        #[command(flatten)]
        arguments: Arguments,
    }

    fn asked(directory: &std::path::Path) -> Result<ExitCode, Failure> {
        let words = Words::parse_from(["doctor", "--data", directory.to_str().unwrap()]);
        run(&words.arguments, &words.connection, &words.manner)
    }

    #[test]
    fn the_database_of_a_stopped_server_is_looked_at_and_a_running_ones_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("d");
        assert!(asked(&directory).unwrap_err().to_string().contains("--data"));
        let running = open(&directory, OnLoss::Refuse, (Uuid::nil(), Timestamp(0))).unwrap();
        assert!(asked(&directory).unwrap_err().to_string().contains("stop that one"));
        drop(running);
        assert_eq!(asked(&directory).unwrap(), ExitCode::SUCCESS);

        let store = open_store(&directory).unwrap();
        let zone = Zone {
            uuid: Id::new(Uuid::from_u128(7)),
            name: "z".to_owned(),
            description: None,
            state: EnableState::Enabled,
            zone_type: ZoneType::Zstack,
            is_default: false,
        };
        let (owner, created) = (None, Timestamp(0));
        let row = Record::new(zone, Meta { owner, created, changed: created });
        let plant = move |tx: &mut Tx<Record>| Ok(tx.put(row.clone()).is_ok());
        assert!(store.transact(plant).unwrap().value);
        assert_eq!(store.snapshot().total(Kind::Zone), 1);
        drop(store);
        let told = asked(&directory).unwrap_err();
        let told = told.downcast_ref::<cli::Error>().unwrap();
        assert_eq!((told.exit_code(), told.to_string().as_str()), (2, "the doctor has 1 findings"));
    }
}
