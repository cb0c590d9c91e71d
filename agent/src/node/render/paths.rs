//! Owns where the files of a node lie.
//! Touches nothing.

/// Folder of Consul's configuration. Operators add files whose names sort after COS's.
pub const CONSUL_FOLDER: &str = "/opt/consul/config";
/// Consul's configuration that COS writes.
pub const CONSUL_CONFIGURATION: &str = "/opt/consul/config/cos.json";
/// Tokens of Consul's access control. `-` sorts before `.`, so this too comes before operators' files.
pub const CONSUL_TOKENS: &str = "/opt/consul/config/cos-tokens.json";
/// Consul's key for gossip.
pub const CONSUL_GOSSIP: &str = "/opt/consul/config/cos-gossip.json";
/// What Consul's unit needs to know beside what the image's unit says.
pub const CONSUL_DROP_IN: &str = "/etc/systemd/system/consul.service.d/10-cos.conf";
/// Folder of Consul's certificates.
pub const CONSUL_TLS: &str = "/opt/consul/tls";
/// Certificate of the authority that Consul trusts.
pub const CONSUL_CA: &str = "/opt/consul/tls/cos-ca.pem";
/// Consul's own certificate.
pub const CONSUL_CERTIFICATE: &str = "/opt/consul/tls/cos-certificate.pem";
/// Key of Consul's certificate.
pub const CONSUL_KEY: &str = "/opt/consul/tls/cos-key.pem";

/// Folder of Nomad's configuration. Operators add files whose names sort after COS's.
pub const NOMAD_FOLDER: &str = "/opt/nomad/config";
/// Nomad's configuration that COS writes.
pub const NOMAD_CONFIGURATION: &str = "/opt/nomad/config/cos.hcl";
/// Nomad's token for Consul.
pub const NOMAD_TOKENS: &str = "/opt/nomad/config/cos-tokens.hcl";
/// Nomad's key for gossip.
pub const NOMAD_GOSSIP: &str = "/opt/nomad/config/cos-gossip.hcl";
/// What Nomad's unit needs to know beside what the image's unit says.
pub const NOMAD_DROP_IN: &str = "/etc/systemd/system/nomad.service.d/10-cos.conf";
/// Keeps Nomad from starting before disks are mounted, where there are any.
pub const NOMAD_DISKS_DROP_IN: &str = "/etc/systemd/system/nomad.service.d/20-cos-disks.conf";
/// Folder of Nomad's certificates.
pub const NOMAD_TLS: &str = "/opt/nomad/tls";
/// Certificate of the authority that Nomad trusts.
pub const NOMAD_CA: &str = "/opt/nomad/tls/cos-ca.pem";
/// Nomad's own certificate.
pub const NOMAD_CERTIFICATE: &str = "/opt/nomad/tls/cos-certificate.pem";
/// Key of Nomad's certificate.
pub const NOMAD_KEY: &str = "/opt/nomad/tls/cos-key.pem";
/// What a Nomad client introduces itself with, below its folder of state.
pub const INTRODUCTION_TOKEN: &str = "/client/intro_token.jwt";

/// What Nomad's Docker driver and root's Docker client read to find credentials.
pub const DOCKER_CLIENT_CONFIGURATION: &str = "/etc/docker/config.json";
/// What `apply` made of this node, for `health` and for people.
pub const RECORD: &str = "/var/lib/cos-agent/node.json";
