//! Owns the plan: a bake with no choice left open, and the checks that cost nothing.
//! Touches the port `Cloud`, reads only.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp, Zoned, tz::TimeZone};
use serde::Serialize;

use crate::base::Base;
use crate::cloud::{
    Cloud, CloudError, CloudErrorKind, ImageFacts, ImageId, ImageState, LaunchSpec, RootVolume, Subnet,
};
use crate::error::BakeError;
use crate::lock::Lock;
use crate::recipe::{Recipe, image_name_fault};
use crate::release::{Arch, Product};

/// Tag with the id of the bake that made a resource.
pub const TAG_BAKE_ID: &str = "cos:bake-id";
/// Tag with the time after which a resource may be swept, RFC 3339.
pub const TAG_EXPIRES_AT: &str = "cos:expires-at";
/// Tag with what a resource is for.
pub const TAG_PURPOSE: &str = "cos:purpose";
/// Tag with the SHA-256 of the bundle on a payload snapshot, on an image and on the image's snapshots.
pub const TAG_BUNDLE: &str = "cos:bundle";
/// Tag with the SHA-256 of the bundle on a payload snapshot, and on nothing else.
pub const TAG_PAYLOAD: &str = "cos:payload";

/// Longest life of a machine: its dead-man timer ends it then. Each stops or goes long before.
pub const LIFETIME: SignedDuration = SignedDuration::from_hours(2);

/// Time until a sweep may take what a bake made. Longer than all deadlines of its stages together (some four hours), so
/// that a sweep on another machine, which sees no process, takes nothing from a bake that runs.
pub const EXPIRY: SignedDuration = SignedDuration::from_hours(5);

/// Account that owns Amazon Linux in the commercial regions; elsewhere only the owner alias tells.
const AMAZON: &str = "137112412989";

/// A bake with no choice left open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Id of the bake.
    pub bake_id: String,
    /// Account.
    pub account: String,
    /// Region.
    pub region: String,
    /// Amazon Linux to bake on.
    pub base: Base,
    /// Architecture.
    pub arch: Arch,
    /// Public parameter that named the base image.
    pub base_parameter: String,
    /// The base image.
    pub base_image: ImageFacts,
    /// Name of the image to be.
    pub name: String,
    /// Description of the image to be.
    pub description: String,
    /// The user's tags of image and snapshots.
    pub tags: BTreeMap<String, String>,
    /// Instance type of builder and boot test.
    pub instance_type: String,
    /// Subnet of builder and boot test.
    pub subnet: Subnet,
    /// Security groups; empty takes the network's default group.
    pub security_groups: Vec<String>,
    /// Instance profile of builder and boot test.
    pub profile: Option<String>,
    /// Size of the root volume in GiB.
    pub root_size_gib: u32,
    /// Whether the payload snapshot stays for the next bake.
    pub keep_payload: bool,
    /// Versions, by component.
    pub versions: BTreeMap<String, String>,
    /// When everything temporary expires, RFC 3339.
    pub expires_at: String,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Resolves a recipe against what exists. Refuses what would fail later; all refusals at once where they are
/// independent of one another.
pub async fn resolve<C: Cloud>(
    recipe: &Recipe,
    lock: &Lock,
    region: &str,
    now: Timestamp,
    cloud: &C,
) -> Result<Plan, BakeError> {
    recipe.check()?;
    let Recipe { base, arch, .. } = *recipe;
    let parameter = base.parameter(arch).ok_or_else(|| {
        BakeError::refused(
            format!("{} was never made for {}", base.title(), arch.name()),
            "take --base al2023 for arm64",
        )
    })?;
    let bake_id = new_bake_id(now);
    let name = match &recipe.name {
        Some(name) => name.clone(),
        None => format!("cos-{}-{}-{}", base.name(), arch.name(), time_stamp(now)),
    };
    debug_assert_eq!(image_name_fault(&name), None);
    let instance_type = recipe
        .instance_type
        .clone()
        .unwrap_or_else(|| base.instance_type(arch).to_owned());

    // Independent questions are asked side by side.
    let (account, base_image, taken, subnets, zones) = tokio::join!(
        cloud.account(),
        find_base(cloud, &parameter),
        cloud.image_named(&name),
        cloud.subnets(),
        cloud.zones_offering(&instance_type)
    );
    let account = account.map_err(BakeError::cloud("ask who the caller is"))?;
    let base_image = base_image?;
    let taken = taken.map_err(BakeError::cloud("look up the image's name"))?;
    let subnets = subnets.map_err(BakeError::cloud("list subnets"))?;
    let zones = zones.map_err(BakeError::cloud("list zones that offer the instance type"))?;

    let mut refusals = Vec::new();
    if let Some(image) = taken {
        refusals.push(format!("the name `{name}` is taken by {}", image.id));
    }
    if base_image.architecture != arch.name() {
        refusals.push(format!(
            "{} is for {}, not {}",
            base_image.id,
            base_image.architecture,
            arch.name()
        ));
    }
    let root_size_gib = recipe.root_size_gib.unwrap_or(base_image.root_size_gib);
    if root_size_gib < base_image.root_size_gib {
        let base_size = base_image.root_size_gib;
        refusals.push(format!(
            "a root volume of {root_size_gib} GiB is smaller than the base's {base_size} GiB"
        ));
    }
    let versions: BTreeMap<String, String> = Product::ALL
        .into_iter()
        .filter_map(|product| Some((product.to_string(), lock.find(product, arch)?.version.clone())))
        .collect();
    for product in Product::ALL
        .into_iter()
        .filter(|product| !versions.contains_key(product.name()))
    {
        refusals.push(format!("the lock has no {product} for {}", arch.name()));
    }
    let subnet = match choose_subnet(recipe.subnet.as_deref(), &subnets, &zones, &instance_type) {
        Ok(subnet) => Some(subnet),
        Err(refusal) => {
            refusals.push(refusal);
            None
        }
    };
    let (Some(subnet), true) = (subnet, refusals.is_empty()) else {
        return Err(BakeError::refused(
            refusals.join("; "),
            "`cos-bake plan` with other arguments shows what would work",
        ));
    };

    let mut warnings = Vec::new();
    let ended = base.end_of_life() <= day(now).as_str();
    if ended {
        let (title, day) = (base.title(), base.end_of_life());
        warnings.push(format!(
            "{title} is past its end of life ({day}): no security fixes come; plan to move to al2023"
        ));
    }
    if base_image.description.contains("stand-in") {
        warnings.push(format!(
            "{} is a stand-in: {}",
            base_image.id, base_image.description
        ));
    }
    if recipe.profile.is_none() {
        warnings.push(
            "no --instance-profile: the machines' SSM agent relies on Default Host Management Configuration"
                .into(),
        );
    }
    let plan = Plan {
        description: format!("{} with Nomad and Consul, baked by cos-bake", base.title()),
        bake_id,
        account,
        region: region.to_owned(),
        base,
        arch,
        base_parameter: parameter,
        name,
        tags: recipe.tags.clone(),
        instance_type,
        subnet,
        security_groups: recipe.security_groups.clone(),
        profile: recipe.profile.clone(),
        root_size_gib,
        keep_payload: recipe.keep_payload,
        versions,
        expires_at: now.checked_add(EXPIRY).unwrap_or(now).to_string(),
        warnings,
        base_image,
    };
    cloud
        .may_launch(&plan.builder("builder"))
        .await
        .map_err(may_not_launch)?;
    Ok(plan)
}

impl Plan {
    /// Tags that every resource of the bake carries from its creation on.
    pub fn tags_for(&self, purpose: &str) -> BTreeMap<String, String> {
        BTreeMap::from([
            (TAG_BAKE_ID.to_owned(), self.bake_id.clone()),
            (TAG_EXPIRES_AT.to_owned(), self.expires_at.clone()),
            (TAG_PURPOSE.to_owned(), purpose.to_owned()),
            ("Name".to_owned(), format!("{} {purpose}", self.bake_id)),
        ])
    }

    /// The builder to launch.
    pub fn builder(&self, purpose: &str) -> LaunchSpec {
        self.machine(purpose, &self.base_image.id)
    }

    /// A machine of the bake that starts from `image`.
    pub fn machine(&self, purpose: &str, image: &ImageId) -> LaunchSpec {
        LaunchSpec {
            image: image.clone(),
            instance_type: self.instance_type.clone(),
            subnet: Some(self.subnet.id.clone()),
            profile: self.profile.clone(),
            security_groups: self.security_groups.clone(),
            user_data: dead_man_timer(),
            root_volume: Some(RootVolume {
                device: self.base_image.root_device.clone(),
                size_gib: self.root_size_gib,
            }),
            volumes: Vec::new(),
            instance_tags: false,
            token_required: self.base.token_required(),
            terminate_on_shutdown: true,
            tags: self.tags_for(purpose),
            token: format!("{}-{purpose}", self.bake_id),
        }
    }

    /// The plan as a table for people.
    pub fn table(&self) -> String {
        let mut table = String::new();
        let mut row = |key: &str, value: &str| {
            let _ = writeln!(table, "{key:<14} {value}");
        };
        row("bake", &self.bake_id);
        row("account", &self.account);
        row("region", &self.region);
        row(
            "base",
            &format!(
                "{} ({}, made {})",
                self.base_image.id, self.base_image.name, self.base_image.created
            ),
        );
        row("architecture", self.arch.name());
        row("image name", &self.name);
        row(
            "builder",
            &format!(
                "{} in {} ({})",
                self.instance_type, self.subnet.id, self.subnet.zone
            ),
        );
        row("profile", self.profile.as_deref().unwrap_or("none"));
        row("root volume", &format!("{} GiB gp3", self.root_size_gib));
        for (component, version) in &self.versions {
            row(component, version);
        }
        for (key, value) in &self.tags {
            row("tag", &format!("{key}={value}"));
        }
        row("expires", &self.expires_at);
        table
    }
}

/// User data of builder and boot test: ends the machine when its bake is surely dead. The timer is transient (it lives
/// in /run), so it is not in the image; a shutdown from inside terminates the instance.
fn dead_man_timer() -> String {
    let minutes = LIFETIME.as_mins();
    format!(
        "#!/bin/sh\n\
         systemd-run --unit=cos-dead-man --on-active={minutes}m /bin/systemctl poweroff 2>/dev/null ||\n\
         \x20   nohup /sbin/shutdown -h +{minutes} >/dev/null 2>&1 &\n"
    )
}

async fn find_base<C: Cloud>(cloud: &C, parameter: &str) -> Result<ImageFacts, BakeError> {
    let missing = |message: String| {
        BakeError::refused(
            message,
            "the region may lack this base; try another --region or --base",
        )
    };
    let id = cloud
        .parameter(parameter)
        .await
        .map_err(BakeError::cloud(format!("read the parameter {parameter}")))?
        .ok_or_else(|| missing(format!("the public parameter {parameter} does not exist")))?;
    let id = ImageId(id);
    let image = cloud
        .image(&id)
        .await
        .map_err(BakeError::cloud(format!("look at the base image {id}")))?
        .ok_or_else(|| missing(format!("{parameter} names {id}, which does not exist")))?;
    if image.state != ImageState::Available {
        return Err(missing(format!("the base image {id} is not available")));
    }
    if image.owner != AMAZON && image.owner_alias.as_deref() != Some("amazon") {
        return Err(missing(format!("{id} belongs to {}, not to Amazon", image.owner)));
    }
    Ok(image)
}

fn choose_subnet(
    wanted: Option<&str>,
    subnets: &[Subnet],
    zones: &[String],
    instance_type: &str,
) -> Result<Subnet, String> {
    let offers = |subnet: &&Subnet| zones.contains(&subnet.zone);
    if let Some(wanted) = wanted {
        let subnet = subnets
            .iter()
            .find(|subnet| subnet.id == wanted)
            .ok_or(format!("there is no subnet {wanted} with a free address"))?;
        return Some(subnet).filter(offers).cloned().ok_or(format!(
            "{} does not offer {instance_type}; {} do",
            subnet.zone,
            if zones.is_empty() {
                "no zones".to_owned()
            } else {
                zones.join(", ")
            }
        ));
    }
    let mut defaults = subnets.iter().filter(|subnet| subnet.default_for_zone).peekable();
    if defaults.peek().is_none() {
        return Err("there is no default subnet, and no --subnet was named".to_owned());
    }
    defaults
        .find(offers)
        .cloned()
        .ok_or(format!("no zone with a default subnet offers {instance_type}"))
}

fn may_not_launch(error: CloudError) -> BakeError {
    match error.kind {
        CloudErrorKind::Denied => BakeError::refused(
            format!("the builder may not be launched: {}", error.message),
            "the caller's policy lacks ec2:RunInstances, or iam:PassRole for the profile",
        ),
        _ => BakeError::cloud("try the launch of the builder without doing it (DryRun)")(error),
    }
}

fn new_bake_id(now: Timestamp) -> String {
    let random: u32 = rand::random_range(0..0x0100_0000);
    format!("cos-{}-{random:06x}", time_stamp(now))
}

/// Whether a string has the form of [`Plan::bake_id`]; a sweep touches nothing else.
pub fn is_bake_id(id: &str) -> bool {
    let mut parts = id.split('-');
    let (Some("cos"), Some(time), Some(random), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    time.len() == 14
        && time.bytes().all(|byte| byte.is_ascii_digit())
        && random.len() == 6
        && random
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn time_stamp(now: Timestamp) -> String {
    utc(now).strftime("%Y%m%d%H%M%S").to_string()
}

fn day(now: Timestamp) -> String {
    utc(now).strftime("%Y-%m-%d").to_string()
}

fn utc(now: Timestamp) -> Zoned {
    now.to_zoned(TimeZone::UTC)
}
