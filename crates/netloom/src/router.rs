//! `netloom router`: the agent of a virtual router, in its machine. The driver that makes the machine
//! starts it.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use router::{
    Machine,
    bootstrap::Bootstrap,
    serve::{Agent, listen},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Failure,
    runtime::{self, LogFormat},
};

/// What `netloom router` takes.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the driver has put what the router is to know of itself and its host.
    #[arg(long)]
    directory: PathBuf,
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    runtime::log(arguments.log_format, None)?;
    let bootstrap = Bootstrap::read(&arguments.directory)?;
    tokio::runtime::Runtime::new()?.block_on(serve(bootstrap))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(bootstrap: Bootstrap) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let machine = Machine::open(hostnet::Namespace::current()?).await?;
    let (listener, tls) = (listen(bootstrap.listen)?, bootstrap.server()?);
    let agent = Arc::new(Agent::new(bootstrap.router, machine));
    tracing::info!(router = %bootstrap.router.simple(), at = %bootstrap.listen, "serving");
    let served = agent.serve(listener, tls, stop.clone());
    tokio::select! {
        ended = runtime::ended(&stop) => ended,
        served = served => served.map_err(Into::into),
    }
}
