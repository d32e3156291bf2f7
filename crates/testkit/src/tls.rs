//! Certificates made for one test, good and bad ones.

use std::fs;
use std::path::{Path, PathBuf};

use etcd_client::{Certificate, ConnectOptions, Identity as ClientIdentity, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use tempfile::TempDir;

/// A certificate with its private key, as text and as files.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PEM (PKCS#8).
    pub key_pem: String,
    /// File that holds `cert_pem`.
    pub cert_path: PathBuf,
    /// File that holds `key_pem`.
    pub key_path: PathBuf,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cert_path", &self.cert_path).finish_non_exhaustive()
    }
}

/// A certificate authority: the certificate to trust.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// File that holds `cert_pem`.
    pub cert_path: PathBuf,
}

/// Everything a TLS test needs. The files live as long as this value.
#[derive(Debug)]
pub struct TlsMaterial {
    /// The authority that signed all of ours.
    pub ca: Authority,
    /// Valid for `127.0.0.1` and `localhost`, as a server and as a client.
    pub server: Identity,
    /// A client certificate (common name `client`).
    pub client: Identity,
    /// Signed by `ca`, but ended in 2001.
    pub expired_server: Identity,
    /// A client certificate signed by `ca` that ended in 2001.
    pub expired_client: Identity,
    /// Signed by `ca`, valid today, for `wrong.example` only.
    pub wrong_san_server: Identity,
    /// An authority that signed none of ours.
    pub other_ca: Authority,
    /// A client certificate signed by `other_ca`.
    pub other_client: Identity,
    _folder: TempDir,
}

const YEARS: (i32, i32) = (2000, 4000);
const LONG_AGO: (i32, i32) = (2000, 2001);
const HERE: &[&str] = &["127.0.0.1", "localhost"];

impl TlsMaterial {
    /// Makes new keys and certificates in a temporary folder. No I/O beyond that folder.
    #[must_use]
    pub fn generate() -> Self {
        let folder = crate::place::folder();
        let path = folder.path();
        let (ca, signer) = authority(path, "ca");
        let (other_ca, other_signer) = authority(path, "other-ca");
        Self {
            server: signed(path, "server", HERE, YEARS, &signer),
            client: signed(path, "client", &[], YEARS, &signer),
            expired_server: signed(path, "expired-server", HERE, LONG_AGO, &signer),
            expired_client: signed(path, "expired-client", &[], LONG_AGO, &signer),
            wrong_san_server: signed(path, "wrong-san-server", &["wrong.example"], YEARS, &signer),
            other_client: signed(path, "other-client", &[], YEARS, &other_signer),
            ca,
            other_ca,
            _folder: folder,
        }
    }

    /// Options for the oracle client: trusts `ca` and shows the client certificate.
    #[must_use]
    pub fn connect_options(&self) -> ConnectOptions {
        options(&self.ca.cert_pem, Some(&self.client))
    }
}

pub(crate) fn options(ca_pem: &str, client: Option<&Identity>) -> ConnectOptions {
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca_pem));
    if let Some(client) = client {
        tls = tls.identity(ClientIdentity::from_pem(&client.cert_pem, &client.key_pem));
    }
    ConnectOptions::new().with_tls(tls)
}

fn authority(folder: &Path, name: &str) -> (Authority, Issuer<'static, KeyPair>) {
    let mut params = params(name, &[], YEARS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key pair");
    let cert_pem = params.self_signed(&key).expect("a self-signed certificate").pem();
    let cert_path = write(folder, &format!("{name}.crt"), &cert_pem);
    (Authority { cert_pem, cert_path }, Issuer::new(params, key))
}

fn signed(
    folder: &Path,
    name: &str,
    subjects: &[&str],
    years: (i32, i32),
    signer: &Issuer<'_, KeyPair>,
) -> Identity {
    let mut params = params(name, subjects, years);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // etcd's own gateway dials its server with the server's certificate, so a server is a client too.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a key pair");
    let cert_pem = params.signed_by(&key, signer).expect("a signed certificate").pem();
    let key_pem = key.serialize_pem();
    Identity {
        cert_path: write(folder, &format!("{name}.crt"), &cert_pem),
        key_path: write(folder, &format!("{name}.key"), &key_pem),
        cert_pem,
        key_pem,
    }
}

fn params(name: &str, subjects: &[&str], years: (i32, i32)) -> CertificateParams {
    let subjects: Vec<String> = subjects.iter().map(|&subject| subject.to_owned()).collect();
    let mut params = CertificateParams::new(subjects).expect("subjects are plain names and addresses");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    params
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("the temporary folder must take a file");
    path
}
