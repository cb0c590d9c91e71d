//! Owns the recipe: what a user asks to be baked, checked by itself, all faults at once.
//! Touches nothing.

use std::collections::BTreeMap;

use crate::base::Base;
use crate::error::BakeError;
use crate::release::Arch;

/// What a user asks to be baked. Defaults exist here only; the plan has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Amazon Linux to bake on.
    pub base: Base,
    /// Architecture.
    pub arch: Arch,
    /// Name of the image; none makes one of base, architecture and time.
    pub name: Option<String>,
    /// Tags of image and snapshots.
    pub tags: BTreeMap<String, String>,
    /// Instance type of builder and boot test.
    pub instance_type: Option<String>,
    /// Subnet of builder and boot test.
    pub subnet: Option<String>,
    /// Security groups of builder and boot test.
    pub security_groups: Vec<String>,
    /// Instance profile of builder and boot test, for their SSM agent.
    pub profile: Option<String>,
    /// Size of the root volume in GiB; none keeps the base's.
    pub root_size_gib: Option<u32>,
    /// Whether the payload snapshot stays for the next bake.
    pub keep_payload: bool,
}

/// Tags that begin so are COS's own.
pub const OWN_TAGS: &str = "cos:";

/// Most tags on a resource (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html>), less COS's own.
const MOST_TAGS: usize = 50 - 8;

impl Recipe {
    /// Checks what can be checked without asking anyone.
    pub fn check(&self) -> Result<(), BakeError> {
        let mut faults = Vec::new();
        if let Some(name) = &self.name {
            faults.extend(image_name_fault(name));
        }
        if self.tags.len() > MOST_TAGS {
            faults.push(format!(
                "{} tags are more than the {MOST_TAGS} that EC2 leaves",
                self.tags.len()
            ));
        }
        for (key, value) in &self.tags {
            faults.extend(tag_fault(key, value));
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(BakeError::usage(
            faults.join("; "),
            "`cos-bake ami --help` shows each option with its limits",
        ))
    }
}

/// What is wrong with an image name, if anything: 3 to 128 of letters, digits and `()[] ./-'@_`
/// (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html>).
pub fn image_name_fault(name: &str) -> Option<String> {
    let length = name.chars().count();
    if !(3..=128).contains(&length) {
        return Some(format!(
            "image name `{name}` has {length} characters, and EC2 takes 3 to 128"
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    let wrong = name.chars().find(|c| !allowed(*c))?;
    Some(format!(
        "image name `{name}` has the character `{wrong}`; EC2 takes letters, digits and ()[] ./-'@_"
    ))
}

fn tag_fault(key: &str, value: &str) -> Option<String> {
    if key.is_empty() || key.chars().count() > 128 {
        return Some(format!("tag key `{key}` must have 1 to 128 characters"));
    }
    if key.starts_with("aws:") || key.starts_with(OWN_TAGS) {
        return Some(format!(
            "tag key `{key}` begins with a prefix that is not yours (aws:, {OWN_TAGS})"
        ));
    }
    (value.chars().count() > 256).then(|| format!("the value of tag `{key}` has more than 256 characters"))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn recipe() -> Recipe {
        Recipe {
            base: Base::Al2,
            arch: Arch::X86_64,
            name: None,
            tags: BTreeMap::new(),
            instance_type: None,
            subnet: None,
            security_groups: vec![],
            profile: None,
            root_size_gib: None,
            keep_payload: false,
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let mut recipe = recipe();
        recipe.name = Some("a{b".into());
        recipe.tags.insert("aws:x".into(), String::new());
        recipe.tags.insert("cos:bake-id".into(), String::new());
        let message = recipe.check().unwrap_err().to_string();
        assert!(
            message.contains("`{`") && message.contains("aws:x") && message.contains("cos:bake-id"),
            "{message}"
        );
    }

    #[test]
    fn names_at_the_limits() {
        assert_eq!(image_name_fault("abc"), None);
        assert_eq!(image_name_fault(&"a".repeat(128)), None);
        assert!(image_name_fault("ab").is_some());
        assert!(image_name_fault(&"a".repeat(129)).is_some());
    }

    proptest! {
        #[test]
        fn a_name_with_a_foreign_character_is_refused(name in "[a-z]{2,20}[^a-zA-Z0-9()\\[\\] ./'@_-][a-z]{2,20}") {
            prop_assert!(image_name_fault(&name).is_some());
        }
    }
}
