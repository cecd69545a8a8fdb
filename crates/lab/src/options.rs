//! What a lab is to be like.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

/// Where labs keep their files, each in a directory of its name.
pub const STATE_ROOT: &str = "/run/netloom/lab";

/// Where the server of a lab answers REST, if nobody says otherwise.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7480);

/// What a lab is to be like.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// The topology file.
    pub topology: PathBuf,
    /// The name of the lab: 1 to 12 lower-case letters and digits.
    pub name: String,
    /// Where labs keep their files, [`STATE_ROOT`] by default.
    pub state_root: PathBuf,
    /// The `netloom` binary that runs as server and agents.
    pub binary: PathBuf,
    /// Where the server answers REST, on loopback; port 0: a free one. A lab that is up already
    /// keeps its own.
    pub listen: SocketAddr,
    /// What every agent is started with besides, such as `--connection-mib=400`. A lab that is up already
    /// gives it to agents that are started anew.
    pub agent_options: Vec<String>,
}
