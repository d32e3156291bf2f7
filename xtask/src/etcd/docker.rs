//! etcd as a container, by testcontainers.

use std::fmt;
use std::future::Future;
use std::process;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::ListImagesOptions;
use testcontainers::core::Mount;
use testcontainers::core::client::docker_client_instance;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::server::{ATTEMPTS, Ports, Server, port_was_taken, tail};
use super::{START_LIMIT, http};
use crate::undertaker::Undertaker;

/// Pulled when no image is named and the daemon holds none.
const PUBLIC: &str = "gcr.io/etcd-development/etcd:v3.5.21";
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const PULL_LIMIT: Duration = Duration::from_secs(180);
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

/// A Docker daemon that answers.
pub(super) struct Engine {
    runtime: Runtime,
    docker: Docker,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    pub(super) fn connect() -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let docker = wait(&runtime, ANSWER_LIMIT, async {
            let docker = docker_client_instance().await?;
            docker.ping().await?;
            anyhow::Ok(docker)
        })
        // The causes above the first one say "client error" in several ways.
        .map_err(|error| anyhow!("no Docker daemon answers ({})", error.root_cause()))?;
        Ok(Self { runtime, docker })
    }

    /// This very image: held already, or pulled now.
    pub(super) fn named(&self, image: String) -> anyhow::Result<String> {
        if self.holds(&image).is_err() {
            self.pull(&image)?;
        }
        Ok(image)
    }

    /// An image that the daemon holds already, else the public one.
    pub(super) fn any(&self) -> anyhow::Result<String> {
        self.held().or_else(|_| self.named(PUBLIC.to_owned()))
    }

    /// Whether the daemon holds this image.
    pub(super) fn holds(&self, image: &str) -> anyhow::Result<()> {
        wait(&self.runtime, ANSWER_LIMIT, self.docker.inspect_image(image))
            .map(drop)
            .with_context(|| format!("the daemon does not hold {image}"))
    }

    /// The public image if the daemon holds it, else the newest that is called `etcd`, whoever published it.
    pub(super) fn held(&self) -> anyhow::Result<String> {
        let options = ListImagesOptions::default();
        let images = wait(&self.runtime, ANSWER_LIMIT, self.docker.list_images(Some(options)))?;
        let tags = images.into_iter().flat_map(|image| image.repo_tags);
        newest(tags).context("the daemon holds no image of etcd")
    }

    fn pull(&self, image: &str) -> anyhow::Result<()> {
        eprintln!("etcd: pulling {image}");
        wait(&self.runtime, PULL_LIMIT, generic(image).pull_image())
            .map(drop)
            .with_context(|| format!("cannot pull {image}"))
    }

    /// Starts a container on the host's network, listening on loopback, and returns it with its client URL once it
    /// answers.
    pub(super) fn start(self, image: &str) -> anyhow::Result<(Server, String)> {
        let program = self.program(image)?;
        let mut engine = self;
        let mut attempt = 1;
        loop {
            let ports = Ports::free()?;
            let mut container = Container::start(engine, image, &program, ports)?;
            let endpoint = ports.endpoint();
            let Err(error) = http::wait_until_ready(&endpoint, START_LIMIT, || container.check()) else {
                return Ok((Server::Container(Box::new(container)), endpoint));
            };
            let log = container.log();
            if attempt < ATTEMPTS && port_was_taken(&log) {
                attempt += 1;
                engine = Self::connect()?;
                continue;
            }
            return Err(error)
                .with_context(|| format!("a container of {image} does not start:{}\n ", tail(&log)));
        }
    }

    /// Which program in the image is etcd. Images differ: some start it by `ENTRYPOINT`, others by `CMD`.
    fn program(&self, image: &str) -> anyhow::Result<String> {
        let found = wait(&self.runtime, ANSWER_LIMIT, self.docker.inspect_image(image))?;
        let config = found.config.unwrap_or_default();
        let words = config.entrypoint.into_iter().chain(config.cmd).flatten();
        Ok(words
            .into_iter()
            .find(|word| word.rsplit('/').next() == Some("etcd"))
            .unwrap_or_else(|| "etcd".to_owned()))
    }
}

/// A running container. Dropping it removes it.
pub(super) struct Container {
    engine: Engine,
    handle: Option<ContainerAsync<GenericImage>>,
    undertaker: Option<Undertaker>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("id", &self.handle.as_ref().map(|handle| handle.id())).finish()
    }
}

impl Container {
    fn start(engine: Engine, image: &str, program: &str, ports: Ports) -> anyhow::Result<Self> {
        let name = format!("sereno-xtask-{}-{}", process::id(), ports.client);
        // Hired before there is anything to remove: a kill may come in between.
        let undertaker = Undertaker::hire("docker rm -f -v \"$1\"", &[&name])?;
        let request = generic(image)
            .with_entrypoint(program)
            .with_cmd(ports.arguments("/sereno-data/etcd"))
            .with_container_name(&name)
            .with_network("host")
            .with_mount(Mount::tmpfs_mount("/sereno-data"));
        let handle = wait(&engine.runtime, START_LIMIT, request.start())
            .with_context(|| format!("cannot start a container of {image}"))?;
        Ok(Self { engine, handle: Some(handle), undertaker: Some(undertaker) })
    }

    /// Fails when the container has stopped.
    fn check(&mut self) -> anyhow::Result<()> {
        let handle = self.handle.as_ref().context("the container has been removed")?;
        if wait(&self.engine.runtime, ANSWER_LIMIT, handle.is_running())? {
            return Ok(());
        }
        bail!("it has stopped")
    }

    fn log(&self) -> String {
        let Some(handle) = &self.handle else { return String::new() };
        match wait(&self.engine.runtime, ANSWER_LIMIT, handle.stderr_to_vec()) {
            Ok(log) => String::from_utf8_lossy(&log).into_owned(),
            Err(error) => format!("{error:#}"),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        match wait(&self.engine.runtime, REMOVAL_LIMIT, handle.rm()) {
            Ok(()) => self.undertaker = None,
            Err(error) => eprintln!("etcd: the container could not be removed: {error:#}"),
        }
    }
}

/// Runs a future to its end or its limit. On a thread of its own: whoever calls may be inside another runtime.
fn wait<T, E>(
    runtime: &Runtime,
    limit: Duration,
    work: impl Future<Output = Result<T, E>> + Send,
) -> anyhow::Result<T>
where
    T: Send,
    E: Into<anyhow::Error> + Send,
{
    thread::scope(|scope| {
        let result = scope.spawn(|| runtime.block_on(async { timeout(limit, work).await })).join();
        match result {
            Ok(Ok(result)) => result.map_err(Into::into),
            Ok(Err(_)) => Err(anyhow!("no answer within {limit:?}")),
            Err(_) => Err(anyhow!("the Docker client panicked")),
        }
    })
}

fn generic(image: &str) -> GenericImage {
    let (name, tag) = split(image);
    GenericImage::new(name, tag)
}

/// Name and tag; a colon before a slash belongs to the registry's port.
fn split(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

fn newest(tags: impl Iterator<Item = String>) -> Option<String> {
    let is_etcd = |tag: &String| split(tag).0.rsplit('/').next() == Some("etcd");
    tags.filter(is_etcd).max_by_key(|tag| (tag == PUBLIC, numbers(split(tag).1), tag.clone()))
}

/// The numbers of a version: `v3.5.21-0` gives 3, 5, 21, 0.
fn numbers(tag: &str) -> Vec<u64> {
    tag.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_told_from_a_port() {
        assert_eq!(split("etcd:3.5.1"), ("etcd", "3.5.1"));
        assert_eq!(split("host:5000/some/etcd"), ("host:5000/some/etcd", "latest"));
        assert_eq!(split("host:5000/some/etcd:v3"), ("host:5000/some/etcd", "v3"));
    }

    #[test]
    fn the_public_image_comes_first_then_the_newest_and_nothing_that_is_not_etcd() {
        let pick = |tags: &[&str]| newest(tags.iter().map(|tag| (*tag).to_owned()));
        assert_eq!(
            pick(&["a/etcd:3.5.9", "b/etcd:v3.5.21", "etcd:3.4.23"]).as_deref(),
            Some("b/etcd:v3.5.21")
        );
        assert_eq!(pick(&["a/etcd:3.6.0", PUBLIC]).as_deref(), Some(PUBLIC));
        assert_eq!(pick(&["redis:8", "etcd-browser:9", "<none>:<none>"]), None);
    }
}
