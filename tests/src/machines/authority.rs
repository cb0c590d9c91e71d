//! Owns the sandbox's certificate authority, which base disks trust, and the certificates it makes for AWS's names.
//! Touches two files in the cache folder; the key is readable by its owner only.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Names on the certificate for a client that sends no server name.
const COMMON_NAMES: &[&str] = &["amazonaws.com", "*.amazonaws.com", "*.us-east-1.amazonaws.com"];

/// A certificate authority with its key.
pub struct Authority {
    pem: String,
    key: KeyPair,
    made: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads the authority kept in `folder`, or makes one for ten years and keeps it there.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let (key_path, certificate_path) = (folder.join("ca.key.pem"), folder.join("ca.pem"));
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Two sandboxes that start at once must not make two authorities.
        let lock = fs::File::create(folder.join("ca.lock"))?;
        lock.lock()?;
        if !certificate_path.exists() {
            let key = KeyPair::generate()?;
            let certificate = params().self_signed(&key)?;
            // The certificate is renamed into place last: where it is, the key is too.
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&key_path)?;
            file.write_all(key.serialize_pem().as_bytes())?;
            let temporary = folder.join(".ca.pem");
            fs::write(&temporary, certificate.pem())?;
            fs::rename(&temporary, &certificate_path)?;
        }
        let key = fs::read_to_string(&key_path).context("cannot read the key of the sandbox's authority")?;
        Ok(Self {
            pem: fs::read_to_string(&certificate_path)?,
            key: KeyPair::from_pem(&key).context("the key of the sandbox's authority is damaged")?,
            made: Mutex::default(),
        })
    }

    /// The authority's certificate, PEM: what clients trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for `name`, or for AWS's common names; made once, then kept in memory.
    fn certificate(&self, name: Option<&str>) -> anyhow::Result<Arc<CertifiedKey>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(name.unwrap_or_default()) {
            return Ok(Arc::clone(known));
        }
        let names: Vec<String> = match name {
            Some(name) => vec![name.to_owned()],
            None => COMMON_NAMES.iter().map(ToString::to_string).collect(),
        };
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name = DistinguishedName::new();
        leaf.distinguished_name
            .push(DnType::CommonName, "COS sandbox endpoint");
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        // The issuer is rebuilt from the same parameters that the kept certificate was made from.
        let signed = leaf.signed_by(&key, &Issuer::new(params(), &self.key))?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let certified = Arc::new(CertifiedKey::new(
            vec![CertificateDer::from(signed.der().to_vec())],
            rustls::crypto::ring::sign::any_supported_type(&private)?,
        ));
        made.insert(name.unwrap_or_default().to_owned(), Arc::clone(&certified));
        Ok(certified)
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        // Only AWS's names: any other client came here by mistake and must see that.
        if name.is_some_and(|name| name != "amazonaws.com" && !name.ends_with(".amazonaws.com")) {
            return None;
        }
        self.certificate(name).ok()
    }
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "COS sandbox authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2044, 1, 1);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_is_kept_and_its_key_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::open(folder.path()).unwrap().pem().to_owned();
        let second = Authority::open(folder.path()).unwrap();
        assert_eq!(first, second.pem());
        let mode = fs::metadata(folder.path().join("ca.key.pem"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
