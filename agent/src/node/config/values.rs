//! Owns the types of single values in a `NodeConfig`: each can only hold what the product that reads it takes.
//! Touches nothing.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::check;
use super::record::{Read, Reader, record, texts, words};
use super::tree::{Node, Value};

texts! {
    /// A datacenter of Consul: 1 to 64 of lower-case letters, digits, `-` and `_`.
    ConsulDatacenter: check::consul_datacenter, "^[a-z0-9_-]{1,64}$";
    /// 1 to 64 of letters, digits, `-` and `_`.
    NomadName: check::nomad_name, "^[A-Za-z0-9_-]{1,64}$";
    /// 1 to 128 of letters, digits, `-` and `_`, but not `all`.
    NodePool: check::node_pool, "^(?!all$)[A-Za-z0-9_-]{1,128}$";
    /// 1 to 128 of letters, digits, `-`, `_` and `.`.
    MetaKey: check::meta_key, "^[A-Za-z0-9_.-]{1,128}$";
    /// A text without control characters, `${` and `%{`.
    PlainText: check::plain_text, "^((?![$%]\\{)[^\\u0000-\\u001f\\u007f-\\u009f])*$";
    /// The key of an EC2 tag: 1 to 128 characters, none of them `*` or `?`.
    TagKey: |text| check::tag(text, 128), "^[^*?\\u0000-\\u001f\\u007f-\\u009f]{1,128}$";
    /// The value of an EC2 tag: 1 to 256 characters, none of them `*` or `?`.
    TagValue: |text| check::tag(text, 256), "^[^*?\\u0000-\\u001f\\u007f-\\u009f]{1,256}$";
    /// An address or a host name, with a port or without.
    JoinAddress: check::join_address, "^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}|(?![0-9.]+(:|$))[A-Za-z0-9][A-Za-z0-9-]*(\\.[A-Za-z0-9][A-Za-z0-9-]*)*)(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$|^[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*$|^\\[[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\\]:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";
    /// An AWS account: twelve digits, in quotes.
    Account: check::account, "^[0-9]{12}$";
    /// An AWS region, such as eu-central-1.
    Region: check::region, "^[a-z]+(-[a-z]+)+-[0-9]+$";
    /// A user of this machine.
    UserName: check::user_name, "^[a-z_][a-z0-9_-]{0,31}$";
    /// An absolute path without `.` and `..`, white space, quotes, `$`, `%` or `\`.
    AbsolutePath: check::absolute_path, "^(/(?!\\.{1,2}(/|$))[^/\\s\\ufeff\"'$%\\\\\\u0000-\\u001f\\u007f-\\u009f]+)+$";
    /// The name of an environment variable.
    EnvironmentName: check::environment_name, "^[A-Za-z_][A-Za-z0-9_]{0,255}$";
    /// A value of `StandardOutput=` and `StandardError=` as systemd.exec(5) has them.
    StandardStream: check::standard_stream,
        "^(inherit|null|tty|journal|kmsg|journal\\+console|kmsg\\+console|syslog|syslog\\+console|(file|append|truncate):(/(?!\\.{1,2}(/|$))[^/\\s\\ufeff\"'$%\\\\\\u0000-\\u001f\\u007f-\\u009f]+)+)$";
    /// The name of a parameter of Systems Manager, such as `/cos/leader/node`.
    ParameterName: check::parameter_name, "^(?=.{1,1011}$)/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,14}$";
    /// The id of an EBS volume, such as vol-0123456789abcdef0.
    VolumeId: check::volume_id, "^vol-([0-9a-f]{8}|[0-9a-f]{17})$";
    /// A device as the launch template names it (`/dev/sdf`, `/dev/xvdf`), or as the machine does.
    DeviceName: check::device_name, "^/dev/[a-z0-9/_-]+$";
    /// Options of mount(8), with commas between them.
    MountOptions: check::mount_options, "^[A-Za-z0-9_.=:/+-]+(,[A-Za-z0-9_.=:/+-]+)*$";
    /// The id of an EFS file system, such as fs-0123456789abcdef0.
    FileSystemId: check::file_system_id, "^fs-([0-9a-f]{8}|[0-9a-f]{17})$";
    /// The id of an EFS access point, such as fsap-0123456789abcdef0.
    AccessPointId: check::access_point_id, "^fsap-[0-9a-f]{17}$";
    /// The name of a host volume of Nomad: 1 to 128 of letters, digits, `-` and `_`.
    VolumeName: check::volume_name, "^[A-Za-z0-9_-]{1,128}$";
    /// The name of a lifecycle hook of Auto Scaling.
    HookName: check::hook_name, "^[A-Za-z0-9/_-]{1,255}$";
    /// A key of KMS: its id, its ARN, or `alias/` and its name, also as an ARN.
    KmsKey: check::kms_key, "^(arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:)?(alias/[A-Za-z0-9/_-]{1,250}|(key/)?(mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}))$";
    /// A key of Nomad's `client.options`.
    OptionKey: check::meta_key, "^[A-Za-z0-9_.-]{1,128}$";
}

/// An IP address.
impl Read for IpAddr {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        reader.text(node, path, check::address)
    }

    fn schema() -> Json {
        json!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] })
    }
}

/// Where a secret is. The secret itself has no place in a document: every process of an instance can read its user-data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretSource {
    /// A `SecureString` of Systems Manager: `ssm:/cos/consul/gossip-key`.
    Parameter(ParameterName),
    /// A file on this machine, which something else puts there: `file:/run/vault/gossip-key`.
    File(PathBuf),
}

impl SecretSource {
    /// Whether a text says where a secret is, and is not one itself.
    pub(super) fn is_one(text: &str) -> bool {
        match text.split_once(':') {
            Some(("ssm", name)) => check::parameter_name(name).is_ok(),
            Some(("file", path)) => check::absolute_path(path).is_ok(),
            _ => false,
        }
    }
}

impl Read for SecretSource {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        reader.text(node, path, |text| {
            let wrong = |why: &str| {
                // What was given may be the secret itself: it is not repeated.
                Err(format!(
                    "must be ssm:/parameter/name or file:/path, never the secret itself{why}"
                ))
            };
            match text.split_once(':') {
                Some(("ssm", name)) => match ParameterName::new(name) {
                    Ok(name) => Ok(Self::Parameter(name)),
                    Err(message) => wrong(&format!("; the name {message}")),
                },
                Some(("file", path)) => match AbsolutePath::new(path) {
                    Ok(path) => Ok(Self::File(path.as_str().into())),
                    Err(message) => wrong(&format!("; the path {message}")),
                },
                _ => wrong(""),
            }
        })
    }

    fn schema() -> Json {
        json!({
            "type": "string",
            "pattern": "^(ssm:(?=.{1,1011}$)/?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,14}|file:(/(?!\\.{1,2}(/|$))[^/\\s\\ufeff\"'$%\\\\\\u0000-\\u001f\\u007f-\\u009f]+)+)$",
            "description": "Where the secret is: `ssm:/parameter/name` or `file:/path`; never the secret itself.",
        })
    }
}

impl std::fmt::Display for SecretSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Parameter(name) => write!(formatter, "ssm:{name}"),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
        }
    }
}

/// How many servers form a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootstrapExpect {
    /// So many.
    Servers(u32),
    /// As many as the instance's Auto Scaling group should have.
    AutoScalingGroup,
}

impl BootstrapExpect {
    const GROUP: &str = "auto-scaling-group";
}

impl Read for BootstrapExpect {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text == Self::GROUP => Some(Self::AutoScalingGroup),
            Value::Number(number) => match check::bootstrap_expect(*number) {
                Ok(number) => Some(Self::Servers(number)),
                Err(message) => {
                    reader.fault(path, &node.said, message);
                    None
                }
            },
            _ => {
                reader.expected(node, path, &format!("a number or {}", Self::GROUP));
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "enum": [1, 3, 5, 7, 9, Self::GROUP] })
    }
}

record! {
    /// Instances of this region with a tag.
    pub struct JoinTag {
        /// Tag key.
        tag_key: TagKey,
        /// Tag value.
        tag_value: TagValue,
    }
}

/// How Consul servers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryJoin {
    /// Instances of this region with this tag. The instance profile needs `ec2:DescribeInstances`.
    Tag(JoinTag),
    /// Addresses or host names, each with a port if it is not 8301.
    Addresses(Vec<JoinAddress>),
}

impl Read for RetryJoin {
    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        match &node.value {
            Value::Map(_) => JoinTag::read(node, path, reader).map(Self::Tag),
            Value::List(list) if !list.is_empty() => Vec::read(node, path, reader).map(Self::Addresses),
            _ => {
                reader.expected(
                    node,
                    path,
                    "a mapping with tag_key and tag_value, or a list of addresses",
                );
                None
            }
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [
            JoinTag::schema(),
            { "type": "array", "items": JoinAddress::schema(), "minItems": 1 },
        ]})
    }
}

words! {
    /// How much a product says.
    pub enum LogLevel {
        /// Everything.
        Trace = "trace",
        /// For finding faults.
        Debug = "debug",
        /// The usual.
        Info = "info",
        /// What may need a look.
        Warn = "warn",
        /// What needs one.
        Error = "error",
    }
}

words! {
    /// What Consul's access control does where no rule speaks.
    pub enum DefaultPolicy {
        /// Permit.
        Allow = "allow",
        /// Refuse.
        Deny = "deny",
    }
}

words! {
    /// What a Nomad server asks of a client that it does not know yet (Nomad 1.11).
    pub enum ClientIntroduction {
        /// Nothing.
        None = "none",
        /// A token, and a warning without one.
        Warn = "warn",
        /// A token.
        Strict = "strict",
    }
}

words! {
    /// The file system of a disk.
    pub enum FileSystem {
        /// XFS.
        Xfs = "xfs",
        /// ext4.
        Ext4 = "ext4",
    }
}

words! {
    /// When a disk is formatted. Never because it could not be mounted.
    pub enum Format {
        /// If every piece of evidence says that it is blank.
        IfBlank = "if-blank",
        /// Never.
        Never = "never",
    }
}

words! {
    /// How names that end in `.consul` resolve on the node.
    pub enum DnsMode {
        /// By what the base has: systemd-resolved, else dnsmasq, else a redirect of port 53.
        Automatic = "automatic",
        /// By systemd-resolved.
        Resolved = "systemd-resolved",
        /// By dnsmasq.
        Dnsmasq = "dnsmasq",
        /// By Consul itself, to which port 53 of the loopback interface is redirected.
        Redirect = "redirect",
        /// Not at all.
        Off = "off",
    }
}

words! {
    /// What is done about a node that is no longer what its configuration says, its parameters' values included.
    pub enum OnDrift {
        /// What needs no unit to start or stop is put right, the rest is told.
        Repair = "repair",
        /// It is told.
        Report = "report",
        /// Nobody looks.
        Ignore = "ignore",
    }
}

words! {
    /// What a node does when EC2 recommends to leave it for another.
    pub enum OnRebalance {
        /// It takes no new jobs.
        Ineligible = "ineligible",
        /// Its jobs go elsewhere.
        Drain = "drain",
        /// Nothing.
        Ignore = "ignore",
    }
}
