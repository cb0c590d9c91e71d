//! Owns whether a certificate and a key belong together.
//! Touches nothing.
//!
//! They are two parameters, which change one after the other. An agent that is told to read a pair that does not fit
//! would refuse it at best; Nomad ends.

use rustls::InconsistentKeys;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Whether they are certainly not a pair. Of what cannot be read here (a kind of key that is unknown), the product is
/// the judge.
pub(super) fn is_mismatched(certificate: &str, key: &str) -> bool {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let (Ok(chain), Ok(key)) = (chain, PrivateKeyDer::from_pem_slice(key.as_bytes())) else {
        return false;
    };
    let certified = CertifiedKey::from_der(chain, key, &default_provider());
    matches!(
        certified,
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_certificate_is_found() {
        let make = || {
            let made = rcgen::generate_simple_self_signed(vec!["server.main.consul".to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let ((certificate, key), (other, other_key)) = (make(), make());
        assert!(!is_mismatched(&certificate, &key));
        assert!(!is_mismatched(&other, &other_key));
        assert!(is_mismatched(&certificate, &other_key));
        // A chain is judged by its first certificate.
        assert!(!is_mismatched(&format!("{certificate}{other}"), &key));
        assert!(is_mismatched(&format!("{other}{certificate}"), &key));
        // Nobody here can tell.
        assert!(!is_mismatched("no certificate", &key));
        assert!(!is_mismatched(&certificate, "no key"));
    }
}
