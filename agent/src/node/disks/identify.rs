//! Owns reading what an NVMe disk of EC2 says of itself: two pages of 4096 bytes. Total: any bytes give an answer.
//! Touches nothing.
//!
//! Places of the fields: NVM Express base specification, Identify controller (vendor id at 0, serial number at 4,
//! model number at 24, vendor's own area at 3072) and Identify namespace (vendor's own area at 384); what Amazon
//! puts into its own areas: amazon-ec2-utils, `ebsnvme-id` (32 bytes of device name, and in the namespace page
//! 65 more of volume id).

use serde::Serialize;

/// Size of an identify page.
pub const PAGE: usize = 4096;
/// Amazon's vendor id.
const AMAZON: u16 = 0x1d0f;
/// Model of an EBS volume.
pub const EBS_MODEL: &str = "Amazon Elastic Block Store";
/// Model of an instance-store disk.
pub const INSTANCE_STORE_MODEL: &str = "Amazon EC2 NVMe Instance Storage";

/// What a disk of EC2 says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// Model.
    pub model: String,
    /// Serial number: of an EBS volume its id without the hyphen.
    pub serial: String,
    /// Id of the volume, `vol-…`.
    pub volume: Option<String>,
    /// Device name that was asked for when it was attached, without `/dev/`.
    pub requested: Option<String>,
}

/// Reads the controller's page; none if it is not Amazon's or too short.
pub fn controller(page: &[u8]) -> Option<Identity> {
    if page.len() < PAGE || u16::from_le_bytes([page[0], page[1]]) != AMAZON {
        return None;
    }
    let serial = text(&page[4..24]);
    Some(Identity {
        model: text(&page[24..64]),
        volume: volume_id(&serial),
        requested: device_name(&text(&page[3072..3104])),
        serial,
    })
}

/// Adds what the namespace's page says: with several namespaces on one controller, each is a volume of its own.
pub fn add_namespace(identity: &mut Identity, page: &[u8]) {
    if page.len() < PAGE {
        return;
    }
    if let Some(name) = device_name(&text(&page[384..416])) {
        identity.requested = Some(name);
    }
    if let Some(volume) = volume_id(&text(&page[416..481])) {
        identity.volume = Some(volume);
    }
}

/// `vol0abc…` or `vol-0abc…` as `vol-0abc…`; none if it is no id of a volume.
pub fn volume_id(text: &str) -> Option<String> {
    let digits = text.strip_prefix("vol")?;
    let digits = digits.strip_prefix('-').unwrap_or(digits);
    let valid = (8..=40).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| format!("vol-{}", digits.to_ascii_lowercase()))
}

/// A device name, without `/dev/`; none if it is none that the kernel could have (an instance-store disk may say
/// `ephemeral0:none`).
fn device_name(text: &str) -> Option<String> {
    let name = text.strip_prefix("/dev/").unwrap_or(text);
    let name = name.rsplit_once(':').map_or(name, |(_, name)| name);
    let valid = !name.is_empty() && name != "none" && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    valid.then(|| name.to_owned())
}

/// Printable text up to the first zero byte, without the spaces that fill the field.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let printable = field[..end].iter().filter(|byte| (0x20..0x7f).contains(*byte));
    let text: String = printable.map(|byte| char::from(*byte)).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(serial: &str, model: &str, name: &str) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[..2].copy_from_slice(&AMAZON.to_le_bytes());
        page[4..64].fill(b' ');
        page[4..4 + serial.len()].copy_from_slice(serial.as_bytes());
        page[24..24 + model.len()].copy_from_slice(model.as_bytes());
        page[3072..3104].fill(b' ');
        page[3072..3072 + name.len()].copy_from_slice(name.as_bytes());
        page
    }

    #[test]
    fn names_of_both_kinds_are_read() {
        for name in ["/dev/sdf", "sdf", "sdf\0\0junk"] {
            let identity = controller(&page("vol0123456789abcdef0", EBS_MODEL, name)).unwrap();
            assert_eq!(identity.volume.as_deref(), Some("vol-0123456789abcdef0"));
            assert_eq!(identity.requested.as_deref(), Some("sdf"), "{name}");
            assert_eq!(identity.model, EBS_MODEL);
        }
    }

    #[test]
    fn an_instance_store_disk_has_no_volume() {
        for (name, requested) in [
            ("ephemeral0:sdb", Some("sdb")),
            ("ephemeral0:none", None),
            ("", None),
        ] {
            let identity = controller(&page("AWS1234567890ABCDEF0", INSTANCE_STORE_MODEL, name)).unwrap();
            assert_eq!(identity.volume, None);
            assert_eq!(identity.requested.as_deref(), requested);
        }
    }

    #[test]
    fn the_namespace_has_the_last_word() {
        let mut identity = controller(&page("vol0123456789abcdef0", EBS_MODEL, "sdf")).unwrap();
        let mut namespace = vec![0; PAGE];
        add_namespace(&mut identity, &namespace);
        assert_eq!(identity.requested.as_deref(), Some("sdf"));
        namespace[384..392].copy_from_slice(b"/dev/sdg");
        namespace[416..437].copy_from_slice(b"vol-0fedcba9876543210");
        add_namespace(&mut identity, &namespace);
        assert_eq!(identity.requested.as_deref(), Some("sdg"));
        assert_eq!(identity.volume.as_deref(), Some("vol-0fedcba9876543210"));
    }

    #[test]
    fn another_vendor_says_nothing() {
        let mut other = page("vol0123456789abcdef0", EBS_MODEL, "sdf");
        other[0] = 0x36;
        assert_eq!(controller(&other), None);
        assert_eq!(controller(&other[..4095]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(mut bytes in prop::collection::vec(any::<u8>(), 0..5000), amazon: bool) {
            if amazon && bytes.len() > 1 {
                bytes[..2].copy_from_slice(&AMAZON.to_le_bytes());
            }
            let identity = controller(&bytes);
            prop_assert_eq!(identity.is_some(), bytes.len() >= PAGE && bytes[..2] == AMAZON.to_le_bytes());
            let mut identity = identity.unwrap_or_default();
            add_namespace(&mut identity, &bytes);
            for text in [&identity.volume, &identity.requested].into_iter().flatten() {
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
            }
            prop_assert!(identity.model.len() <= 40 && identity.serial.len() <= 20);
        }
    }
}
