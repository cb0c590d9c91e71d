//! Owns the test key that signs the mirror's digest lists, in the shape of HashiCorp's: the primary key
//! certifies, a subkey signs. Touches one folder, outside the mirror, with the secret half.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use pgp::composed::{
    ArmorOptions, Deserializable as _, DetachedSignature, EncryptionCaps, KeyType, SecretKeyParamsBuilder,
    SignedPublicKey, SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails as _, Password};

use super::{PartsError, Say};

/// Like HashiCorp's, so that a verifier meets the same algorithm.
const KEY_BITS: u32 = 4096;

/// The test key.
#[derive(Debug)]
pub(super) struct Signer {
    key: SignedSecretKey,
}

impl Signer {
    /// Reads the key of `folder`, or makes one there (file mode 0600).
    pub(super) fn load_or_make(folder: &Path, say: Say<'_>) -> Result<Self, PartsError> {
        let path = folder.join("secret.asc");
        if path.is_file() {
            let text = std::fs::read_to_string(&path).map_err(PartsError::io("read", &path))?;
            let (key, _) = SignedSecretKey::from_string(&text).map_err(fault("read"))?;
            return Ok(Self { key });
        }
        say("making the test key");
        let signer = Self::make(KEY_BITS)?;
        std::fs::create_dir_all(folder).map_err(PartsError::io("make the folder", folder))?;
        let text = signer
            .key
            .to_armored_bytes(ArmorOptions::default())
            .map_err(fault("write"))?;
        let part = folder.join("secret.asc.part");
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part);
        let written = file.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
        written.map_err(PartsError::io("write", &part))?;
        std::fs::rename(&part, &path).map_err(PartsError::io("publish", &path))?;
        Ok(signer)
    }

    fn make(bits: u32) -> Result<Self, PartsError> {
        let builder_fault =
            |error: String| PartsError::Unfit(format!("the test key cannot be described: {error}"));
        let mut subkey = SubkeyParamsBuilder::default();
        subkey
            .key_type(KeyType::Rsa(bits))
            .can_sign(true)
            .can_encrypt(EncryptionCaps::None);
        let subkey = subkey.build().map_err(|error| builder_fault(error.to_string()))?;
        let mut parameters = SecretKeyParamsBuilder::default();
        parameters
            .key_type(KeyType::Rsa(bits))
            .can_certify(true)
            .can_sign(false)
            .can_encrypt(EncryptionCaps::None)
            .primary_user_id("COS sandbox test key <nobody@example.invalid>".to_owned())
            .subkey(subkey);
        let parameters = parameters
            .build()
            .map_err(|error| builder_fault(error.to_string()))?;
        let key = parameters
            .generate(rand_08::thread_rng())
            .map_err(fault("make"))?;
        Ok(Self { key })
    }

    /// The public half, ASCII-armoured.
    pub(super) fn public(&self) -> Result<Vec<u8>, PartsError> {
        SignedPublicKey::from(self.key.clone())
            .to_armored_bytes(ArmorOptions::default())
            .map_err(fault("write"))
    }

    /// The last 8 digits of the primary key's fingerprint, in upper case: how HashiCorp names signatures.
    pub(super) fn short_id(&self) -> String {
        let fingerprint = format!("{:X}", self.key.fingerprint());
        fingerprint[fingerprint.len().saturating_sub(8)..].to_owned()
    }

    /// A binary detached signature by the subkey.
    pub(super) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, PartsError> {
        let subkey = self.key.secret_subkeys.first();
        let subkey = subkey.ok_or_else(|| PartsError::Unfit("the test key has no subkey".to_owned()))?;
        let signature = DetachedSignature::sign_binary_data(
            rand_08::thread_rng(),
            &subkey.key,
            &Password::empty(),
            HashAlgorithm::Sha512,
            data,
        );
        signature
            .and_then(|signature| signature.to_bytes())
            .map_err(fault("sign with"))
    }
}

fn fault(action: &'static str) -> impl FnOnce(pgp::errors::Error) -> PartsError {
    move |source| PartsError::Key { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_subkey_signs_and_the_public_key_verifies() {
        let signer = Signer::make(2048).unwrap();
        let signature = DetachedSignature::from_bytes(signer.sign(b"digests").unwrap().as_slice()).unwrap();
        let public = String::from_utf8(signer.public().unwrap()).unwrap();
        let (public, _) = SignedPublicKey::from_string(&public).unwrap();
        public.verify_bindings().unwrap();
        let subkey = &public.public_subkeys[0];
        signature.verify(subkey, b"digests").unwrap();
        assert!(signature.verify(subkey, b"digestz").is_err());
        assert!(signature.verify(&public.primary_key, b"digests").is_err());
    }

    #[test]
    fn the_secret_half_is_private_and_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let made = Signer::load_or_make(folder.path(), &|_| {}).unwrap();
        let mode = std::fs::metadata(folder.path().join("secret.asc"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = Signer::load_or_make(folder.path(), &|_| {}).unwrap();
        assert_eq!(made.short_id(), read.short_id());
        assert_eq!(made.short_id().len(), 8);
    }
}
