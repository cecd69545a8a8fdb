//! `netloom apply -f`, `diff -f`, `delete -f`: a topology file and what the server has.

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

use clap::Args;

use crate::{
    Connection, Error,
    output::Manner,
    plan::{Does, Plan},
    topology::Topology,
    work::{self, Outcome},
};

/// What `apply` takes.
#[derive(Debug, Args)]
pub struct Apply {
    /// The topology: docs/cli.md has the form; `-` is standard input.
    #[arg(short, long)]
    file: PathBuf,
    /// Delete what this topology has made earlier and no longer has.
    #[arg(long)]
    prune: bool,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

/// What `diff` takes.
#[derive(Debug, Args)]
pub struct Diff {
    /// The topology.
    #[arg(short, long)]
    file: PathBuf,
    /// Show also what `apply --prune` would delete.
    #[arg(long)]
    prune: bool,
}

/// What `delete` takes.
#[derive(Debug, Args)]
pub struct Delete {
    /// The topology whose resources go, the last first.
    #[arg(short, long)]
    file: PathBuf,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

pub(crate) fn apply(apply: &Apply, connection: &Connection, manner: &Manner) -> Result<(), Error> {
    let topology = Topology::read(&apply.file)?;
    connection.with(|client| {
        let plan = Plan::apply(client, &topology, apply.prune)?;
        carry_out(client, plan, apply.yes, manner)
    })
}

/// Shows what `apply` would do.
pub(crate) fn diff(diff: &Diff, connection: &Connection) -> Result<(), Error> {
    let topology = Topology::read(&diff.file)?;
    let plan = connection.with(|client| Plan::apply(client, &topology, diff.prune))?;
    crate::print(&plan.text())?;
    match plan.steps.is_empty() {
        true => Ok(()),
        false => Err(Error::Differs),
    }
}

pub(crate) fn delete(
    delete: &Delete,
    connection: &Connection,
    manner: &Manner,
) -> Result<(), Error> {
    let topology = Topology::read(&delete.file)?;
    connection.with(|client| {
        let plan = Plan::delete(client, &topology)?;
        carry_out(client, plan, delete.yes, manner)
    })
}

/// Shows a plan, asks, and does it step by step. What is done stays done when a step fails: the next
/// `apply` goes on from there.
fn carry_out(client: &client::Client, plan: Plan, yes: bool, manner: &Manner) -> Result<(), Error> {
    crate::print(&plan.text())?;
    let removes = plan.steps.iter().any(|step| step.does == Does::Removes);
    if plan.steps.is_empty() || !(yes || agreed(removes)?) {
        return Ok(());
    }
    let all = plan.steps.len();
    for (number, step) in (1..).zip(plan.steps) {
        let told = step.told();
        let result = work::send(client, step.call, manner);
        match result {
            Ok(Outcome::Done(_)) => crate::print(&format_args!("[{number}/{all}] {told}"))?,
            Ok(Outcome::Accepted(job)) => {
                crate::print(&format_args!("[{number}/{all}] {told}, job {}", job.uuid))?;
            }
            Err(error) => {
                let done =
                    format!("{} of {all} steps are done, this one failed: {told}", number - 1);
                // The error itself follows; it is what counts.
                let _ = writeln!(io::stderr(), "{done}");
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Asks on a terminal. Scripts need not be asked, unless something is deleted.
fn agreed(removes: bool) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        return match removes {
            true => Err(Error::Usage("this deletes: say --yes".into())),
            false => Ok(true),
        };
    }
    // A question that cannot be shown gets no yes.
    let _ = write!(io::stderr(), "go on? [y/N] ");
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(Error::Output)?;
    Ok(matches!(line.trim(), "y" | "yes"))
}
