//! Signatures by keys that are made here, good and bad, and the pinned key itself.

use std::time::{Duration, SystemTime};

use pgp::composed::{ArmorOptions, SignedPublicKey, SignedSecretKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{RevocationCode, SignatureConfig, Subpacket};
use pgp::types::{Password, Tag};
use proptest::prelude::*;

use super::*;
use crate::release::sample::{key, public, rsa_key, sign, sign_with};

const DATA: &[u8] = b"0000  nomad_1.11.0_linux_amd64.zip\n";

/// 2023-11-14, when the tests' keys are made.
const CREATED: u32 = 1_700_000_000;
const DAY: u32 = 24 * 3600;

fn made() -> SignedSecretKey {
    key(Timestamp::from_secs(CREATED))
}

fn trust(key: &str) -> TrustedKeys {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key).unwrap();
    TrustedKeys::with_file(Some(file.path())).unwrap()
}

fn at(seconds: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(seconds))
}

fn judge(keys: &TrustedKeys, data: &[u8], signature: &[u8]) -> Result<Signer, SignatureError> {
    verify(keys, data, signature, SystemTime::now())
}

fn armored(key: &SignedPublicKey) -> String {
    key.to_armored_string(ArmorOptions::default()).unwrap()
}

/// How the self-signatures of a key are made anew; all are dated [`CREATED`].
#[derive(Clone, Copy)]
struct Anew {
    primary_lifetime: Option<u32>,
    subkey_lifetime: Option<u32>,
    may_sign: bool,
    claim: bool,
}

const SOUND: Anew = Anew {
    primary_lifetime: None,
    subkey_lifetime: None,
    may_sign: true,
    claim: true,
};

fn anew(key: &SignedSecretKey, anew: Anew) -> String {
    let primary = &key.primary_key;
    let subkey = &key.secret_subkeys[0].key;
    let none = Password::empty();
    let config = |kind, signer: pgp::types::Fingerprint, lifetime: Option<u32>| {
        let mut config = SignatureConfig::v4(kind, primary.algorithm(), HashAlgorithm::Sha256);
        config.hashed_subpackets = vec![
            Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::from_secs(
                CREATED,
            )))
            .unwrap(),
            Subpacket::regular(SubpacketData::IssuerFingerprint(signer)).unwrap(),
        ];
        if let Some(lifetime) = lifetime {
            let lifetime = SubpacketData::KeyExpirationTime(pgp::types::Duration::from_secs(lifetime));
            config
                .hashed_subpackets
                .push(Subpacket::regular(lifetime).unwrap());
        }
        config
    };
    let mut public = SignedPublicKey::from(key.clone());

    let user = &mut public.details.users[0];
    let certification = config(
        SignatureType::CertPositive,
        primary.fingerprint(),
        anew.primary_lifetime,
    );
    user.signatures = vec![
        certification
            .sign_certification(primary, primary.public_key(), &none, Tag::UserId, &user.id)
            .unwrap(),
    ];

    let mut flags = pgp::packet::KeyFlags::default();
    flags.set_sign(anew.may_sign);
    let mut binding = config(
        SignatureType::SubkeyBinding,
        primary.fingerprint(),
        anew.subkey_lifetime,
    );
    binding
        .hashed_subpackets
        .push(Subpacket::regular(SubpacketData::KeyFlags(flags)).unwrap());
    if anew.claim {
        let back = config(SignatureType::KeyBinding, subkey.fingerprint(), None)
            .sign_primary_key_binding(subkey, subkey.public_key(), &none, primary.public_key())
            .unwrap();
        let embedded = SubpacketData::EmbeddedSignature(Box::new(back));
        binding
            .hashed_subpackets
            .push(Subpacket::regular(embedded).unwrap());
    }
    public.public_subkeys[0].signatures = vec![
        binding
            .sign_subkey_binding(primary, primary.public_key(), &none, subkey.public_key())
            .unwrap(),
    ];
    armored(&public)
}

/// A signature by the subkey, dated as wanted.
fn sign_at(
    key: &SignedSecretKey,
    signed: u32,
    more: Vec<SubpacketData>,
    unhashed: Vec<SubpacketData>,
) -> Vec<u8> {
    let subkey = &key.secret_subkeys[0].key;
    let mut config = SignatureConfig::v4(SignatureType::Binary, subkey.algorithm(), HashAlgorithm::Sha256);
    let own = vec![
        SubpacketData::SignatureCreationTime(Timestamp::from_secs(signed)),
        SubpacketData::IssuerFingerprint(subkey.fingerprint()),
    ];
    let regular = |data| Subpacket::regular(data).unwrap();
    config.hashed_subpackets = own.into_iter().chain(more).map(regular).collect();
    config.unhashed_subpackets = unhashed.into_iter().map(regular).collect();
    DetachedSignature::new(config.sign(subkey, &Password::empty(), DATA).unwrap())
        .to_bytes()
        .unwrap()
}

#[test]
fn the_pinned_key_is_hashicorps_and_its_current_subkey_may_sign() {
    let keys = TrustedKeys::pinned().unwrap();
    let issuer = |hex: &str| {
        let bytes: Vec<u8> = (0..20)
            .map(|index| u8::from_str_radix(&hex[index * 2..index * 2 + 2], 16).unwrap())
            .collect();
        let fingerprint = pgp::types::Fingerprint::new(pgp::types::KeyVersion::V4, &bytes).unwrap();
        Issuer {
            fingerprints: vec![fingerprint],
            key_ids: Vec::new(),
        }
    };
    let check = |hex: &str, signed, now| {
        let (certificate, subkey) = keys.find(&issuer(hex)).unwrap();
        assert!(certificate.is_pinned());
        certificate.check(subkey, Timestamp::from_secs(signed), Timestamp::from_secs(now))
    };
    let (signed, now, after_2030) = (1_750_000_000, 1_790_000_000, 1_900_000_000);
    let current = "374EC75B485913604A831CC7C820C6D5CD27AB87";
    check(current, signed, now).unwrap();
    assert!(matches!(
        check(current, signed, after_2030),
        Err(SignatureError::Expired { .. })
    ));
    assert!(matches!(
        check(current, after_2030, after_2030),
        Err(SignatureError::ExpiredAtSigning { .. })
    ));
    // The older signing subkey ended on 2022-04-20.
    let older = "B36CBA91A2C0730C435FC280B0B441097685B676";
    assert!(matches!(
        check(older, 1_640_000_000, now),
        Err(SignatureError::Expired { .. })
    ));
    assert!(matches!(
        check(older, signed, now),
        Err(SignatureError::ExpiredAtSigning { .. })
    ));
    let encryption = "E091216D7CC258B2EB97DC3654422F612379BA9A";
    assert!(matches!(
        check(encryption, signed, now),
        Err(SignatureError::MayNotSign(_))
    ));
    assert!(matches!(
        keys.find(&issuer(HASHICORP_FINGERPRINT)),
        Err(SignatureError::PrimaryKey(_))
    ));
}

#[test]
fn a_subkey_of_the_added_key_is_believed_and_named() {
    let key = made();
    let keys = trust(&public(&key));
    let signer = judge(&keys, DATA, &sign(&key.secret_subkeys[0].key, DATA)).unwrap();
    assert_eq!(signer.certificate, format!("{:X}", key.primary_key.fingerprint()));
    assert_eq!(
        signer.subkey,
        format!("{:X}", key.secret_subkeys[0].key.fingerprint())
    );
    assert!(!signer.pinned);
    assert_eq!(keys.added(), Some(signer.certificate.as_str()));
}

#[test]
fn another_key_is_refused_and_named() {
    let (key, other) = (made(), made());
    let signature = sign(&other.secret_subkeys[0].key, DATA);
    let error = judge(&trust(&public(&key)), DATA, &signature).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, SignatureError::UnknownSigner { .. }));
    assert!(
        text.contains(&format!("{:X}", other.secret_subkeys[0].key.fingerprint())),
        "{text}"
    );
    assert!(text.contains(HASHICORP_FINGERPRINT), "{text}");
    let error = judge(&TrustedKeys::pinned().unwrap(), DATA, &signature).unwrap_err();
    assert!(matches!(error, SignatureError::UnknownSigner { .. }));
    assert_eq!(error.exit_class(), FailureClass::Verification);
}

#[test]
fn another_keys_signature_under_a_trusted_name_is_refused() {
    let (key, other) = (made(), made());
    let signer = &other.secret_subkeys[0].key;
    let mut config = SignatureConfig::v4(SignatureType::Binary, signer.algorithm(), HashAlgorithm::Sha256);
    config.hashed_subpackets = vec![
        Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::now())).unwrap(),
        Subpacket::regular(SubpacketData::IssuerFingerprint(
            key.secret_subkeys[0].key.fingerprint(),
        ))
        .unwrap(),
    ];
    let signature = DetachedSignature::new(config.sign(signer, &Password::empty(), DATA).unwrap());
    let error = judge(&trust(&public(&key)), DATA, &signature.to_bytes().unwrap()).unwrap_err();
    assert!(matches!(error, SignatureError::Mismatch { .. }), "{error}");
}

#[test]
fn the_primary_key_is_refused_and_strong_digests_are_not() {
    let key = made();
    let keys = trust(&public(&key));
    let error = judge(&keys, DATA, &sign(&key.primary_key, DATA)).unwrap_err();
    assert!(matches!(error, SignatureError::PrimaryKey(_)), "{error}");
    assert!(
        judge(
            &keys,
            DATA,
            &sign_with(&key.secret_subkeys[0].key, DATA, HashAlgorithm::Sha512)
        )
        .is_ok()
    );
}

/// Ed25519 allows no short digest at all, RSA does.
#[test]
fn a_sha1_signature_is_refused() {
    let key = rsa_key();
    let keys = trust(&public(&key));
    let subkey = &key.secret_subkeys[0].key;
    assert!(judge(&keys, DATA, &sign(subkey, DATA)).is_ok());
    let error = judge(&keys, DATA, &sign_with(subkey, DATA, HashAlgorithm::Sha1)).unwrap_err();
    assert!(
        matches!(&error, SignatureError::WeakDigest { algorithm, .. } if algorithm == "SHA1"),
        "{error}"
    );
}

#[test]
fn expired_keys_are_refused_at_signing_time_and_now() {
    let key = made();
    let signature = |day: u32| sign_at(&key, CREATED + day * DAY, Vec::new(), Vec::new());
    for keys in [
        trust(&anew(
            &key,
            Anew {
                subkey_lifetime: Some(10 * DAY),
                ..SOUND
            },
        )),
        trust(&anew(
            &key,
            Anew {
                primary_lifetime: Some(10 * DAY),
                ..SOUND
            },
        )),
    ] {
        let judge = |signed, now: u32| verify(&keys, DATA, &signature(signed), at(CREATED + now * DAY));
        assert!(judge(1, 2).is_ok());
        assert!(matches!(judge(1, 11), Err(SignatureError::Expired { .. })));
        assert!(matches!(
            judge(11, 12),
            Err(SignatureError::ExpiredAtSigning { .. })
        ));
    }
}

#[test]
fn dates_that_cannot_be_are_refused() {
    let key = made();
    let keys = trust(&anew(&key, SOUND));
    let judge = |signed: u32, now: u32| {
        verify(
            &keys,
            DATA,
            &sign_at(&key, signed, Vec::new(), Vec::new()),
            at(now),
        )
    };
    assert!(judge(CREATED + DAY, CREATED + 2 * DAY).is_ok());
    assert!(matches!(
        judge(CREATED - 1, CREATED + DAY),
        Err(SignatureError::Date { .. })
    ));
    assert!(matches!(
        judge(CREATED + 2 * DAY, CREATED + DAY),
        Err(SignatureError::Date { .. })
    ));
    let lifetime = SubpacketData::SignatureExpirationTime(pgp::types::Duration::from_secs(DAY));
    let short = sign_at(&key, CREATED + DAY, vec![lifetime], Vec::new());
    assert!(verify(&keys, DATA, &short, at(CREATED + DAY + 60)).is_ok());
    let error = verify(&keys, DATA, &short, at(CREATED + 3 * DAY)).unwrap_err();
    assert!(
        matches!(error, SignatureError::SignatureExpired { .. }),
        "{error}"
    );
}

#[test]
fn a_subkey_needs_a_flag_a_binding_and_its_own_claim() {
    let key = made();
    let signature = sign(&key.secret_subkeys[0].key, DATA);
    assert!(judge(&trust(&anew(&key, SOUND)), DATA, &signature).is_ok());
    let error = judge(
        &trust(&anew(
            &key,
            Anew {
                may_sign: false,
                ..SOUND
            },
        )),
        DATA,
        &signature,
    )
    .unwrap_err();
    assert!(matches!(error, SignatureError::MayNotSign(_)), "{error}");
    let error = judge(
        &trust(&anew(
            &key,
            Anew {
                claim: false,
                ..SOUND
            },
        )),
        DATA,
        &signature,
    )
    .unwrap_err();
    assert!(matches!(error, SignatureError::Unbound(_)), "{error}");
    // The binding of another certificate: a stolen subkey.
    let other = made();
    let mut adopted = SignedPublicKey::from(other);
    adopted.public_subkeys = SignedPublicKey::from(key).public_subkeys;
    let error = judge(&trust(&armored(&adopted)), DATA, &signature).unwrap_err();
    assert!(matches!(error, SignatureError::Unbound(_)), "{error}");
}

#[test]
fn revoked_keys_are_refused() {
    let key = made();
    let primary = &key.primary_key;
    let config = |kind| {
        let mut config = SignatureConfig::v4(kind, primary.algorithm(), HashAlgorithm::Sha256);
        let reason = SubpacketData::RevocationReason(RevocationCode::KeyRetired, "".into());
        config.hashed_subpackets = vec![
            Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::now())).unwrap(),
            Subpacket::regular(SubpacketData::IssuerFingerprint(primary.fingerprint())).unwrap(),
            Subpacket::regular(reason).unwrap(),
        ];
        config
    };
    let none = Password::empty();
    let signature = sign(&key.secret_subkeys[0].key, DATA);

    let mut whole = SignedPublicKey::from(key.clone());
    let revocation = config(SignatureType::KeyRevocation)
        .sign_key(primary, &none, primary.public_key())
        .unwrap();
    whole.details.revocation_signatures.push(revocation);
    let error = judge(&trust(&armored(&whole)), DATA, &signature).unwrap_err();
    assert!(matches!(error, SignatureError::Revoked(_)), "{error}");

    let mut subkey = SignedPublicKey::from(key.clone());
    let revocation = config(SignatureType::SubkeyRevocation)
        .sign_subkey_binding(
            primary,
            primary.public_key(),
            &none,
            key.secret_subkeys[0].key.public_key(),
        )
        .unwrap();
    subkey.public_subkeys[0].signatures.push(revocation);
    let error = judge(&trust(&armored(&subkey)), DATA, &signature).unwrap_err();
    assert!(matches!(error, SignatureError::Revoked(_)), "{error}");
}

#[test]
fn only_one_bare_signature_is_read() {
    let key = made();
    let keys = trust(&public(&key));
    let good = sign(&key.secret_subkeys[0].key, DATA);
    let armor = b"-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n";
    for garbage in [
        b"".to_vec(),
        b"<html></html>".to_vec(),
        armor.to_vec(),
        [&good[..], &good].concat(),
    ] {
        let error = judge(&keys, DATA, &garbage).unwrap_err();
        assert!(matches!(error, SignatureError::Malformed(_)), "{error}");
        assert_eq!(error.exit_class(), FailureClass::Verification);
    }
    assert!(judge(&keys, DATA, &good[..good.len() - 1]).is_err());
    let stray = vec![SubpacketData::PolicyURI("x".to_owned())];
    let error = judge(&keys, DATA, &sign_at(&key, CREATED + DAY, Vec::new(), stray)).unwrap_err();
    assert!(matches!(error, SignatureError::Unprotected(_)), "{error}");
}

#[test]
fn a_key_file_holds_exactly_one_public_key() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let load = |content: &str| {
        std::fs::write(file.path(), content).unwrap();
        TrustedKeys::with_file(Some(file.path())).unwrap_err()
    };
    let error = load("not a key");
    assert!(
        matches!(
            error,
            SignatureError::KeySyntax { .. } | SignatureError::KeyCount { .. }
        ),
        "{error}"
    );
    let secret = made().to_armored_string(ArmorOptions::default()).unwrap();
    assert_eq!(load(&secret).exit_class(), FailureClass::Usage);
    let missing = TrustedKeys::with_file(Some(std::path::Path::new("/does/not/exist"))).unwrap_err();
    assert!(matches!(missing, SignatureError::KeyFile { .. }));
    let mut two = SignedPublicKey::from(made()).to_bytes().unwrap();
    two.extend(SignedPublicKey::from(made()).to_bytes().unwrap());
    std::fs::write(file.path(), two).unwrap();
    let error = TrustedKeys::with_file(Some(file.path())).unwrap_err();
    assert!(
        matches!(error, SignatureError::KeyCount { count: 2, .. }),
        "{error}"
    );
}

#[test]
fn no_byte_of_a_signature_can_change() {
    let key = made();
    let keys = trust(&public(&key));
    let good = sign(&key.secret_subkeys[0].key, DATA);
    for index in 0..good.len() {
        // Two flips a byte: one that moves with the place, and the highest bit, which lengths and types use.
        for change in [1 << (index % 7), 0x80] {
            let mut bad = good.clone();
            bad[index] ^= change;
            assert!(
                judge(&keys, DATA, &bad).is_err(),
                "byte {index} changed by {change:#x}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_byte_of_the_data_can_change(index in 0..DATA.len(), change in 1..=255u8) {
        static MADE: std::sync::OnceLock<(TrustedKeys, Vec<u8>)> = std::sync::OnceLock::new();
        let (keys, good) = MADE.get_or_init(|| {
            let key = made();
            (trust(&public(&key)), sign(&key.secret_subkeys[0].key, DATA))
        });
        let mut bad = DATA.to_vec();
        bad[index] ^= change;
        let refused = matches!(judge(keys, &bad, good), Err(SignatureError::Mismatch { .. }));
        prop_assert!(refused);
    }
}
