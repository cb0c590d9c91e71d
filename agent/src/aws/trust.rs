//! Owns which certificates are trusted: those that the environment names, else those of the machine.
//! Touches files (reading).
//!
//! No list of authorities is built in: what a machine trusts is its owner's business, an old list inside a binary
//! cannot be repaired, and every Amazon Linux has its own.

use std::path::Path;

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use super::environment::Environment;
use crate::host::Files;

/// Variables that name a bundle: AWS's own, then the one that most other programs know.
const VARIABLES: [&str; 2] = ["AWS_CA_BUNDLE", "SSL_CERT_FILE"];

/// Where machines keep theirs: Amazon Linux (1, 2 and 2023), then Debian.
const PLACES: [&str; 3] = [
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/certs/ca-certificates.crt",
];

/// The trusted certificates, or what is wrong with them.
pub(super) fn roots(files: &Files, environment: &Environment) -> Result<RootCerts, String> {
    for variable in VARIABLES {
        if let Some(path) = environment.get(variable) {
            let found = read(files, Path::new(path)).map_err(|reason| format!("{variable}: {reason}"))?;
            return found.ok_or_else(|| format!("{variable} names {path}, which does not exist"));
        }
    }
    for place in PLACES {
        if let Some(found) = read(files, Path::new(place))? {
            return Ok(found);
        }
    }
    Err(format!(
        "this machine has no list of trusted authorities (looked for {})",
        PLACES.join(", ")
    ))
}

/// The certificates of a file; none if there is no such file.
fn read(files: &Files, path: &Path) -> Result<Option<RootCerts>, String> {
    let Some(content) = files
        .read(path)
        .map_err(|error| format!("{error}: {}", error.source))?
    else {
        return Ok(None);
    };
    let certificates: Vec<Certificate<'static>> = parse_pem(&content)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(Some(certificates.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

    fn count(roots: RootCerts) -> usize {
        match roots {
            RootCerts::Specific(certificates) => certificates.len(),
            _ => 0,
        }
    }

    #[test]
    fn the_environment_replaces_the_machines_list() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let error = roots(&files, &Environment::default()).unwrap_err();
        assert!(error.contains(PLACES[0]), "{error}");
        files.write_atomic(PLACES[2], PEM.as_bytes(), 0o644).unwrap();
        assert_eq!(count(roots(&files, &Environment::default()).unwrap()), 1);

        let own: Environment = [("AWS_CA_BUNDLE", "/etc/own.pem")].into_iter().collect();
        let error = roots(&files, &own).unwrap_err();
        assert!(
            error.contains("AWS_CA_BUNDLE names /etc/own.pem, which does not exist"),
            "{error}"
        );
        files.write_atomic("/etc/own.pem", b"nothing", 0o644).unwrap();
        assert!(roots(&files, &own).unwrap_err().contains("holds no certificate"));
        files
            .write_atomic("/etc/own.pem", [PEM, PEM].concat().as_bytes(), 0o644)
            .unwrap();
        assert_eq!(count(roots(&files, &own).unwrap()), 2);
    }
}
