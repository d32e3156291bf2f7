//! Where etcd comes from.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use testcontainers::bollard::Docker;

use crate::engine;

/// Where the members of this process come from.
///
/// All kinds are driven through the same interface, so a test never asks which one it got. What embedded servers cannot do
/// (see [`Builder`](crate::Builder)) ends in a panic that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Containers of this image, on the host's network.
    Docker {
        /// Name and tag, such as `sereno/etcd:3.5.1`. The image must be there; nothing is pulled.
        image: String,
    },
    /// Child processes of this executable.
    Binary {
        /// Path of an `etcd` executable.
        path: PathBuf,
    },
    /// Embedded servers inside this process: one member, in memory, without TLS and authentication.
    Embed,
}

const ADVICE: &str = "run `cargo xtask test`, which finds or builds an etcd, or put an `etcd` on PATH";

impl Source {
    /// Decides from the environment; see the crate's documentation for the contract.
    ///
    /// # Errors
    /// A sentence that says what is missing and what to do about it.
    pub async fn find() -> Result<Self, String> {
        let var = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let wish = Wish::read(
            var("SERENO_ETCD_KIND").as_deref(),
            var("SERENO_ETCD_IMAGE"),
            var("SERENO_ETCD_BIN").map(PathBuf::from),
        )?;
        match wish {
            Wish::Docker(image) => match engine::run(has_image(image.clone())).await {
                Ok(()) => Ok(Self::Docker { image }),
                Err(why) => Err(format!("containers were asked for, but {why}; {ADVICE}")),
            },
            Wish::Binary(path) if path.is_file() => Ok(Self::Binary { path }),
            Wish::Binary(path) => Err(format!("there is no etcd at {}; {ADVICE}", path.display())),
            Wish::Embed => Ok(Self::Embed),
            Wish::Any(image) => {
                if let Some(image) = image
                    && engine::run(has_image(image.clone())).await.is_ok()
                {
                    return Ok(Self::Docker { image });
                }
                let found = engine::on_path("etcd").map(|path| Self::Binary { path });
                Ok(found.unwrap_or_else(|| {
                    eprintln!("testkit: there is no `etcd` on PATH: members are embedded servers");
                    Self::Embed
                }))
            }
        }
    }

    /// As [`Source::find`].
    ///
    /// # Panics
    /// When there is no etcd to be had, with the sentence that says what to do.
    pub async fn from_env() -> Self {
        match Self::find().await {
            Ok(source) => source,
            Err(why) => panic!("{why}"),
        }
    }
}

/// What the environment asks for, before anybody looked whether it is there.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Docker(String),
    Binary(PathBuf),
    Embed,
    Any(Option<String>),
}

impl Wish {
    fn read(kind: Option<&str>, image: Option<String>, path: Option<PathBuf>) -> Result<Self, String> {
        match kind {
            Some("docker") => image
                .map(Self::Docker)
                .ok_or_else(|| format!("SERENO_ETCD_KIND=docker needs SERENO_ETCD_IMAGE; {ADVICE}")),
            Some("binary") => path
                .map(Self::Binary)
                .ok_or_else(|| format!("SERENO_ETCD_KIND=binary needs SERENO_ETCD_BIN; {ADVICE}")),
            Some("embed") => Ok(Self::Embed),
            Some(other) => Err(format!("SERENO_ETCD_KIND is `docker`, `binary` or `embed`, not `{other}`")),
            None => Ok(match path {
                Some(path) if image.is_none() => Self::Binary(path),
                _ => Self::Any(image),
            }),
        }
    }
}

async fn has_image(image: String) -> Result<(), String> {
    let look = async {
        let docker = docker().await?;
        docker.inspect_image(&image).await.map_err(|error| format!("image {image} is not there ({error})"))
    };
    match tokio::time::timeout(Duration::from_secs(5), look).await {
        Ok(result) => result.map(drop),
        Err(_) => Err("the Docker daemon does not answer".to_owned()),
    }
}

pub(crate) async fn docker() -> Result<Docker, String> {
    testcontainers::core::client::docker_client_instance()
        .await
        .map_err(|error| format!("the Docker daemon does not answer ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Option<&str>, image: Option<&str>, path: Option<&str>) -> Result<Wish, String> {
        Wish::read(kind, image.map(str::to_owned), path.map(PathBuf::from))
    }

    #[test]
    fn a_named_kind_wins_over_what_else_is_set() {
        assert_eq!(read(Some("docker"), Some("i:1"), Some("/e")), Ok(Wish::Docker("i:1".to_owned())));
        assert_eq!(read(Some("binary"), Some("i:1"), Some("/e")), Ok(Wish::Binary(PathBuf::from("/e"))));
        assert_eq!(read(Some("embed"), Some("i:1"), Some("/e")), Ok(Wish::Embed));
    }

    #[test]
    fn without_a_kind_an_image_is_tried_first() {
        assert_eq!(read(None, Some("i:1"), None), Ok(Wish::Any(Some("i:1".to_owned()))));
        assert_eq!(read(None, None, Some("/e")), Ok(Wish::Binary(PathBuf::from("/e"))));
        assert_eq!(read(None, None, None), Ok(Wish::Any(None)));
    }

    #[test]
    fn a_kind_without_its_partner_says_which_variable_is_missing() {
        assert!(read(Some("docker"), None, None).unwrap_err().contains("SERENO_ETCD_IMAGE"));
        assert!(read(Some("binary"), None, None).unwrap_err().contains("SERENO_ETCD_BIN"));
        assert!(read(Some("podman"), None, None).unwrap_err().contains("podman"));
    }
}
