//! A member as a container.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use testcontainers::bollard::query_parameters::{
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use testcontainers::core::Mount;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use crate::{engine, reaper, source};

const OWNER: &str = "sereno.testkit.owner";
const PATIENCE: Duration = Duration::from_secs(20);

/// A container that is removed when dropped. All its methods must run on the harness runtime.
pub(crate) struct Container {
    handle: Option<ContainerAsync<GenericImage>>,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("id", &self.handle().id()).finish()
    }
}

impl Container {
    /// Starts `image` on the host's network with `folders` mounted at the same paths.
    ///
    /// The same network and the same paths mean the same flags as for a process.
    pub(crate) async fn start(image: &str, arguments: &[String], data: &Path, folders: &[PathBuf]) -> Self {
        sweep().await;
        let (name, tag) = split(image);
        // Files in the data directory then belong to us, whoever runs the daemon.
        let owner = fs::metadata(data).expect("the data directory exists");
        let mut request = GenericImage::new(name, tag)
            .with_entrypoint(&program(image).await)
            .with_cmd(arguments)
            .with_network("host")
            .with_user(format!("{}:{}", owner.uid(), owner.gid()))
            .with_label(OWNER, owner_label())
            .with_startup_timeout(Duration::from_secs(30));
        for folder in folders {
            let path = folder.to_str().expect("temporary paths are UTF-8");
            request = request.with_mount(Mount::bind_mount(path, path));
        }
        match request.start().await {
            Ok(handle) => {
                reaper::container(handle.id());
                Self { handle: Some(handle) }
            }
            Err(error) => panic!("no container of {image}: {error}"),
        }
    }

    fn handle(&self) -> &ContainerAsync<GenericImage> {
        self.handle.as_ref().expect("only a drop takes the handle")
    }

    pub(crate) async fn start_again(&self) {
        self.handle().start().await.expect("a stopped container starts again");
    }

    pub(crate) async fn is_running(&self) -> bool {
        self.handle().is_running().await.expect("the daemon knows the container")
    }

    /// SIGTERM, and SIGKILL when that is not heeded for ten seconds.
    pub(crate) async fn stop(&self) {
        self.handle().stop_with_timeout(Some(10)).await.expect("a container can be stopped");
    }

    /// SIGKILL at once: no hand-over of leadership, no flush.
    pub(crate) async fn kill(&self) {
        let docker = source::docker().await.expect("the daemon answered before");
        let signal = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        docker.kill_container(self.handle().id(), Some(signal)).await.expect("a container can be killed");
        let end = Instant::now() + PATIENCE;
        while self.is_running().await {
            assert!(Instant::now() < end, "a killed container must end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn pause(&self) {
        self.handle().pause().await.expect("a running container can be paused");
    }

    pub(crate) async fn resume(&self) {
        self.handle().unpause().await.expect("a paused container can be resumed");
    }

    pub(crate) async fn log(&self) -> String {
        let bytes = self.handle().stderr_to_vec().await.unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            // The handle's own drop needs a runtime around it, and there may be none here. When the limit passes, the
            // reaper still removes the container at the end of the process.
            engine::block(PATIENCE, handle.rm());
        }
    }
}

/// What starts etcd in this image: some name it as their entry point, the public one only as its command.
async fn program(image: &str) -> String {
    let docker = source::docker().await.expect("the daemon answered before");
    let config = match docker.inspect_image(image).await {
        Ok(found) => found.config.unwrap_or_default(),
        Err(error) => panic!("no image {image}: {error}"),
    };
    let words = config.entrypoint.into_iter().chain(config.cmd).flatten();
    words
        .into_iter()
        .find(|word| word.rsplit('/').next() == Some("etcd"))
        .unwrap_or_else(|| "etcd".to_owned())
}

/// Name and tag; a registry's port is not a tag.
fn split(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

/// Which process owns a container.
fn owner_label() -> String {
    format!("{}/{}", world(), std::process::id())
}

/// Where our process ids mean something: this boot, this namespace. Empty where the system does not say.
fn world() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{}{}", boot.trim(), namespace.display())
}

/// Removes, once per process, containers whose test process no longer lives, in case no reaper outlived it.
async fn sweep() {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.set(()).is_err() || world().is_empty() {
        return;
    }
    let docker = source::docker().await.expect("the daemon answered before");
    let filter = HashMap::from([("label".to_owned(), vec![OWNER.to_owned()])]);
    let list = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
    let found = docker.list_containers(Some(list)).await.unwrap_or_default();
    for container in found {
        let label = container.labels.as_ref().and_then(|labels| labels.get(OWNER));
        let Some((place, pid)) = label.and_then(|label| label.rsplit_once('/')) else { continue };
        if place == world() && !Path::new("/proc").join(pid).exists() {
            let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            // Another process may be sweeping the same one: that it is gone is all we want.
            docker.remove_container(container.id.as_deref().unwrap_or_default(), Some(force)).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_tag_is_what_follows_the_last_colon_of_the_last_segment() {
        assert_eq!(split("sereno/etcd:3.5.1"), ("sereno/etcd", "3.5.1"));
        assert_eq!(split("localhost:5000/etcd"), ("localhost:5000/etcd", "latest"));
        assert_eq!(split("localhost:5000/etcd:v3"), ("localhost:5000/etcd", "v3"));
    }
}
