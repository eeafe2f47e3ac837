//! Flags of the processes that stay: `up`, `coordinator`, `agent`, and the hidden `launcher`.

use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Shown below the help of `up`.
pub const UP_EXAMPLES: &str = "\
Examples:
  platform up                                        with this machine's NVIDIA devices, if any
  platform up --devices 8xA100-80G                   eight simulated A100 where there is none
  platform up --devices 4xA100-80G --devices 4xT4    mixed models
  platform up --data /srv/platform --listen 127.0.0.1:7478

Ctrl-C stops the platform, not the runs: they go on and are adopted at the next `platform up`.";

/// Shown below the help of `agent`.
pub const AGENT_EXAMPLES: &str = "\
Example:
  platform tokens create --user node-7 --role agent
  platform agent --url http://127.0.0.1:7477 --token TOKEN --node node-7 --data /srv/platform-agent";

/// How a process that stays writes its own log, to standard error.
#[derive(Debug, Clone, Args)]
pub struct Logging {
    /// What to log: error, warn, info, debug, or a filter like coordinator=debug
    #[arg(
        long,
        value_name = "FILTER",
        env = "PLATFORM_LOG",
        hide_env_values = true,
        default_value = "warn"
    )]
    pub log: String,
    /// How to log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `platform up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Folder for everything that is kept [default: $PLATFORM_HOME/data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address to answer on, loopback only; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7477")]
    pub listen: SocketAddr,
    /// Simulated devices, repeatable: 8xA100-80G, or 8xA100-80G/4 in NVLink islands of 4 [default:
    /// the machine's own]
    #[arg(long, value_name = "NxMODEL")]
    pub devices: Vec<String>,
    /// Where simulated devices read how much they are used, for trials: a JSON file such as
    /// {"0": {"used_percent": 0, "memory_used_mib": 300}}, by index
    #[arg(long, value_name = "FILE", requires = "devices")]
    pub simulated_readings: Option<PathBuf>,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Pool of this node
    #[arg(long, value_name = "POOL", default_value = "default")]
    pub pool: String,
    /// Rack of this node: gangs keep to few racks
    #[arg(long, value_name = "NAME")]
    pub rack: Option<String>,
    /// How to log.
    #[command(flatten)]
    pub logging: Logging,
}

/// `platform coordinator`.
#[derive(Debug, Args)]
pub struct Coordinator {
    /// Folder for everything that is kept [default: $PLATFORM_HOME/data/coordinator]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address to answer on, loopback only; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7477")]
    pub listen: SocketAddr,
    /// How to log.
    #[command(flatten)]
    pub logging: Logging,
}

/// `platform agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// Folder for attempts, environments and the outbox [default: $PLATFORM_HOME/data/agent]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Simulated devices, repeatable: 8xA100-80G, or 8xA100-80G/4 in NVLink islands of 4 [default:
    /// the machine's own]
    #[arg(long, value_name = "NxMODEL")]
    pub devices: Vec<String>,
    /// Where simulated devices read how much they are used, for trials: a JSON file such as
    /// {"0": {"used_percent": 0, "memory_used_mib": 300}}, by index
    #[arg(long, value_name = "FILE", requires = "devices")]
    pub simulated_readings: Option<PathBuf>,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Pool of this node
    #[arg(long, value_name = "POOL", default_value = "default")]
    pub pool: String,
    /// Rack of this node: gangs keep to few racks
    #[arg(long, value_name = "NAME")]
    pub rack: Option<String>,
    /// How to log.
    #[command(flatten)]
    pub logging: Logging,
}

/// `platform launcher`.
#[derive(Debug, Args)]
pub struct Launcher {
    /// Socket to answer the agent on
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
}
