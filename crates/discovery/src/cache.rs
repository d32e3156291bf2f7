//! A view on disk, for a process that starts while etcd is away.
//!
//! One file per service: JSON, with its version, what it is of, and as of when. It is written beside and then renamed, so
//! that it is whole or not there; only its owner may read it, because it holds passwords.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use sereno_core::{Prefix, chance, pace, spread};

use crate::entry::{Entry, name_below};
use crate::host::Host;
use crate::service::Service;

const VERSION: u64 = 1;
/// No file is larger: 20,000 hosts have a tenth of it.
const MAX_FILE: u64 = 256 << 20;

/// The file of one service.
#[derive(Clone, Debug)]
pub(crate) struct Cache(Arc<File>);

#[derive(Debug)]
struct File {
    path: PathBuf,
    hosts: Prefix,
    service: String,
    /// The number of what was written last: an older view never takes the place of a newer one.
    written: Mutex<Option<u64>>,
}

/// What a file tells.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) age: Duration,
    pub(crate) revision: i64,
    pub(crate) record: Option<Service>,
    pub(crate) entries: Vec<Entry>,
}

/// Age, revision, record and hosts of a view.
pub(crate) type Known = (Duration, i64, Option<Service>, Vec<Arc<Entry>>);

impl Cache {
    /// No I/O.
    pub(crate) fn new(folder: &Path, hosts: &Prefix, service: &str) -> Self {
        let shown = service.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' });
        let shown: String = shown.take(64).collect();
        let path = folder.join(format!("{shown}-{:016x}.json", spread::hash(hosts.as_bytes())));
        let service = service.to_owned();
        Self(Arc::new(File { path, hosts: hosts.clone(), service, written: Mutex::new(None) }))
    }

    /// What is stored; `None` when there is no file. Errors say why the file cannot be used.
    pub(crate) async fn load(&self, longest: Duration) -> Result<Option<Stored>, String> {
        let (file, now) = (self.0.clone(), pace::wall());
        blocking(move || {
            file.load(longest, now).map_err(|reason| format!("{}: {reason}", file.path.display()))
        })
        .await
    }

    /// Writes what is known as number `seq`.
    pub(crate) async fn save(&self, seq: u64, known: Known) -> Result<(), String> {
        let (file, now) = (self.0.clone(), pace::wall());
        blocking(move || {
            file.save(seq, &known, now).map_err(|error| format!("{}: {error}", file.path.display()))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

impl File {
    fn load(&self, longest: Duration, now: Duration) -> Result<Option<Stored>, String> {
        match fs::metadata(&self.path) {
            Ok(found) if found.len() > MAX_FILE => return Err(format!("{} bytes", found.len())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
        let text = fs::read(&self.path).map_err(|error| error.to_string())?;
        self.parse(&text, longest, now).map(Some)
    }

    fn parse(&self, text: &[u8], longest: Duration, now: Duration) -> Result<Stored, String> {
        let json = serde_json::from_slice::<Value>(text);
        let json =
            json.map_err(|error| format!("not JSON at line {}, column {}", error.line(), error.column()))?;
        let field = |name: &str| json.get(name).ok_or_else(|| format!("no {name}"));
        if field("version")?.as_u64() != Some(VERSION) {
            return Err("of another version".into());
        }
        if field("keys")?.as_str() != Some(&self.hosts.to_string())
            || field("service")?.as_str() != Some(&self.service)
        {
            return Err("of another service".into());
        }
        let as_of = field("as_of_ms")?.as_u64().map(Duration::from_millis).ok_or("no time")?;
        let age = now.checked_sub(as_of).ok_or("from the future")?;
        if age > longest {
            return Err(format!("{age:?} old"));
        }
        let record = json.get("record").filter(|record| !record.is_null());
        let record = record.map(|record| Service::from_json(&self.service, record.to_string().as_bytes()));
        let entries = field("hosts")?.as_array().ok_or("no hosts")?.iter();
        Ok(Stored {
            age,
            revision: field("revision")?.as_i64().unwrap_or_default(),
            record: record.transpose()?,
            entries: entries.map(|entry| self.entry(entry)).collect::<Result<_, String>>()?,
        })
    }

    fn entry(&self, json: &Value) -> Result<Entry, String> {
        let number = |name| json.get(name).and_then(Value::as_i64).ok_or_else(|| format!("no {name}"));
        let name = json.get("name").and_then(Value::as_str).ok_or("no name")?;
        let host = json.get("host").ok_or("no host")?;
        let key = self.hosts.key(name).map_err(|error| error.to_string())?;
        Ok(Entry {
            host: Arc::new(Host::from_json(host.to_string().as_bytes())?),
            id: spread::hash(key.as_bytes()),
            key,
            created: number("created")?,
            revision: number("revision")?,
        })
    }

    fn save(&self, seq: u64, known: &Known, now: Duration) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.is_some_and(|written| written > seq) {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        make_folder(folder)?;
        let beside = self.path.with_extension(format!("{:016x}.tmp", chance::number()));
        let done = write(&beside, &self.text(known, now)).and_then(|()| fs::rename(&beside, &self.path));
        match done {
            Ok(()) => *written = Some(seq),
            Err(_) => drop(fs::remove_file(&beside)),
        }
        done
    }

    fn text(&self, (age, revision, record, entries): &Known, now: Duration) -> Vec<u8> {
        let parsed = |text: Vec<u8>| serde_json::from_slice::<Value>(&text).unwrap_or_default();
        let hosts = entries.iter().map(|entry| {
            let mut json = Map::new();
            // A name that others spell differently than we do is found again when etcd is back.
            let name = self.hosts.child(&entry.key);
            let stored = || String::from_utf8_lossy(name_below(&self.hosts, &entry.key)?).into_owned().into();
            json.insert("name".into(), name.or_else(stored).unwrap_or_default().into());
            json.insert("created".into(), entry.created.into());
            json.insert("revision".into(), entry.revision.into());
            json.insert("host".into(), parsed(entry.host.to_json()));
            Value::Object(json)
        });
        let as_of = u64::try_from(now.saturating_sub(*age).as_millis()).unwrap_or(u64::MAX);
        let mut json = Map::new();
        json.insert("version".into(), VERSION.into());
        json.insert("keys".into(), self.hosts.to_string().into());
        json.insert("service".into(), self.service.clone().into());
        json.insert("as_of_ms".into(), as_of.into());
        json.insert("revision".into(), (*revision).into());
        json.insert("record".into(), record.as_ref().map_or(Value::Null, |record| parsed(record.to_json())));
        json.insert("hosts".into(), hosts.collect());
        Value::Object(json).to_string().into_bytes()
    }
}

/// A folder that is made is its owner's alone; one that is there is left as it is.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
