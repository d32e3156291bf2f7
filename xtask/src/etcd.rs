//! Provides an etcd to run something against, and takes it away again.
//!
//! ```text
//! let etcd = etcd::provide(&flags.etcd, Profile::Dev)?;  // says on stderr which one it is, and why not the others
//! etcd.export(&mut command);                         // ETCD_ENDPOINTS and what testkit needs
//! drop(etcd);                                        // stops and removes what was started
//! ```
//! What was started also goes when this process is killed: see `undertaker.rs`.

mod binary;
mod docker;
mod embed;
mod http;
mod server;

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::program::{self, Profile};
use docker::Engine;

const ENDPOINTS: &str = "ETCD_ENDPOINTS";
const KIND: &str = "SERENO_ETCD_KIND";
const IMAGE: &str = "SERENO_ETCD_IMAGE";
const BINARY: &str = "SERENO_ETCD_BIN";

/// Where etcd shall come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The first that works: `ETCD_ENDPOINTS`, a container, a child process, the embedded server.
    #[default]
    Auto,
    /// A container, or nothing.
    Docker,
    /// A child process, or nothing.
    Binary,
    /// This workspace's own server, which needs nothing on the machine.
    Embed,
    /// A server that runs already.
    Url(Vec<String>),
}

impl FromStr for Choice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "docker" => Ok(Self::Docker),
            "binary" => Ok(Self::Binary),
            "embed" => Ok(Self::Embed),
            urls => Ok(Self::Url(endpoints(urls)?)),
        }
    }
}

/// What kind of server was provided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A container that goes when [`Provided`] is dropped.
    Docker,
    /// A child process that goes when [`Provided`] is dropped.
    Binary,
    /// This workspace's own server, a child process that goes when [`Provided`] is dropped.
    Embed,
    /// Somebody else's server.
    Url,
}

/// How tests start servers of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Members {
    /// Containers of this image.
    Docker {
        /// Name and tag.
        image: String,
    },
    /// Child processes of this program.
    Binary {
        /// Path of the `etcd` program.
        path: PathBuf,
    },
    /// Embedded servers inside the test process: what they cannot stand in for has to be left out.
    Embed,
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker { image } => write!(f, "a container of {image}"),
            Self::Binary { path } => write!(f, "a process of {}", path.display()),
            Self::Embed => f.write_str("the embedded server of this workspace"),
        }
    }
}

/// An etcd that answers. Dropping it stops and removes what was started for it.
#[derive(Debug)]
pub(crate) struct Provided {
    /// Client URLs, at least one.
    pub(crate) endpoints: Vec<String>,
    /// What it is.
    pub(crate) kind: Kind,
    /// What it says it is, such as `3.5.1`.
    pub(crate) version: String,
    /// How tests can start more of it.
    pub(crate) members: Members,
    /// Held for its `Drop`.
    _server: Option<server::Server>,
}

impl Provided {
    /// A stand-in for tests of what is done with one.
    #[cfg(test)]
    pub(crate) fn running(endpoint: &str, members: Members) -> Self {
        let version = "3.5.1".to_owned();
        Self { endpoints: vec![endpoint.to_owned()], kind: Kind::Url, version, members, _server: None }
    }

    /// Sets what the tests and programs that `command` starts read.
    ///
    /// `ETCD_ENDPOINTS` names the server, joined by commas. Servers of a test's own come from
    /// `SERENO_ETCD_KIND=docker` with `SERENO_ETCD_IMAGE`, from `SERENO_ETCD_KIND=binary` with `SERENO_ETCD_BIN`, or
    /// from `SERENO_ETCD_KIND=embed`.
    pub(crate) fn export(&self, command: &mut Command) {
        command.env_remove(KIND).env_remove(IMAGE).env_remove(BINARY);
        command.env(ENDPOINTS, self.endpoints.join(","));
        match &self.members {
            Members::Docker { image } => command.env(KIND, "docker").env(IMAGE, image),
            Members::Binary { path } => command.env(KIND, "binary").env(BINARY, path),
            Members::Embed => command.env(KIND, "embed"),
        };
    }
}

impl fmt::Display for Provided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd: {} at {}, ", self.version, self.endpoints.join(","))?;
        match self.kind {
            Kind::Url => f.write_str("which runs already"),
            _ => self.members.fmt(f),
        }
    }
}

/// Gets an etcd, waits until it answers, and says on stderr which one it is.
///
/// `profile` is how the embedded server is built, when it comes to that. Bounded but for that build: 3 minutes to pull an
/// image, half a minute for a server to answer. Blocks; may be called from anywhere.
///
/// # Errors
/// What was asked for cannot be had; under [`Choice::Auto`], nothing can, and the error says what to install.
pub(crate) fn provide(choice: &Choice, profile: Profile) -> anyhow::Result<Provided> {
    let provided = match choice {
        Choice::Docker => from_docker().context("--etcd docker")?,
        Choice::Binary => from_binary().context("--etcd binary")?,
        Choice::Embed => from_embed(profile).context("--etcd embed")?,
        Choice::Url(endpoints) => from_url(endpoints.clone())?,
        Choice::Auto => match variable(ENDPOINTS) {
            Some(urls) => endpoints(&urls).and_then(from_url).context(ENDPOINTS)?,
            None => first_that_works(profile)?,
        },
    };
    eprintln!("{provided}");
    if provided.kind == Kind::Url {
        eprintln!("etcd: a test that needs a server of its own starts {}", provided.members);
    }
    Ok(provided)
}

fn first_that_works(profile: Profile) -> anyhow::Result<Provided> {
    let docker = match from_docker() {
        Ok(provided) => return Ok(provided),
        Err(error) => error,
    };
    eprintln!("etcd: not from docker: {docker:#}");
    let binary = match from_binary() {
        Ok(provided) => return Ok(provided),
        Err(error) => error,
    };
    eprintln!("etcd: not from a binary: {binary:#}");
    match from_embed(profile) {
        Ok(provided) => Ok(provided),
        Err(embed) => bail!(
            "no etcd to be had\n  \
             docker: {docker:#}\n  \
             binary: {binary:#}\n  \
             embed: {embed:#}\n\
             Start Docker, or install etcd (Debian: etcd-server, Homebrew: etcd), or set ETCD_ENDPOINTS to one that runs."
        ),
    }
}

fn from_docker() -> anyhow::Result<Provided> {
    let engine = Engine::connect()?;
    let image = match variable(IMAGE) {
        Some(image) => engine.named(image)?,
        None => engine.any()?,
    };
    let (server, endpoint) = engine.start(&image)?;
    provided(server, endpoint, Kind::Docker, Members::Docker { image })
}

fn from_binary() -> anyhow::Result<Provided> {
    let path = binary::find(variable(BINARY))?;
    let (server, endpoint) = binary::start(&path)?;
    provided(server, endpoint, Kind::Binary, Members::Binary { path })
}

fn from_embed(profile: Profile) -> anyhow::Result<Provided> {
    let program = program::build(embed::NAME, profile)?;
    let (server, endpoint) = embed::start(&program)?;
    provided(server, endpoint, Kind::Embed, Members::Embed)
}

fn provided(
    server: server::Server,
    endpoint: String,
    kind: Kind,
    members: Members,
) -> anyhow::Result<Provided> {
    let version = http::version(&endpoint)?;
    Ok(Provided { endpoints: vec![endpoint], kind, version, members, _server: Some(server) })
}

fn from_url(endpoints: Vec<String>) -> anyhow::Result<Provided> {
    let mut version = Err(anyhow::anyhow!("no endpoint"));
    for endpoint in &endpoints {
        version = http::version(endpoint);
        if version.is_ok() {
            break;
        }
    }
    let version = version.with_context(|| format!("no etcd answers at {}", endpoints.join(",")))?;
    // Nothing is pulled for a server that is there already.
    let image = Engine::connect().and_then(|engine| match variable(IMAGE) {
        Some(image) => engine.holds(&image).map(|()| image),
        None => engine.held(),
    });
    let members = match image {
        Ok(image) => Members::Docker { image },
        Err(_) => match binary::find(variable(BINARY)) {
            Ok(path) => Members::Binary { path },
            Err(_) => Members::Embed,
        },
    };
    Ok(Provided { endpoints, kind: Kind::Url, version, members, _server: None })
}

/// URLs as core understands them, with the port that etcd has when none is given. xtask has to build without core.
fn endpoints(urls: &str) -> anyhow::Result<Vec<String>> {
    urls.split(',').map(|url| endpoint(url.trim())).collect()
}

fn endpoint(url: &str) -> anyhow::Result<String> {
    // What stands before an @ may be a password.
    if url.contains('@') {
        bail!("an etcd URL holds no user and password here: give it as http://host:port");
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        bail!("`{url}` is neither docker, nor binary, nor embed, nor a URL such as http://127.0.0.1:2379")
    };
    let scheme = scheme.to_ascii_lowercase();
    let authority = rest.trim_end_matches('/');
    if !["http", "https"].contains(&scheme.as_str()) || authority.contains(['/', '?', '#']) {
        bail!("`{url}` is not a URL such as http://127.0.0.1:2379");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "2379"),
    };
    if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
        bail!("`{url}` names no host; an IPv6 address needs brackets: http://[::1]:2379");
    }
    match port.parse::<u16>() {
        Ok(port @ 1..) => Ok(format!("{scheme}://{host}:{port}")),
        _ => bail!("`{url}`: {port:?} is not a port; ports are 1 to 65535, etcd's is 2379"),
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// How long a server may take from its start to its first answer.
const START_LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
