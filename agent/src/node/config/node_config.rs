//! Owns what a user may say of a node: `NodeConfig`, version 1. Its keys, their documentation and what each may hold
//! are defined here and nowhere else. Touches nothing.
//!
//! No secret has a place here: user-data is readable by every process of the instance.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::record::{Number, record};
use super::roles::Roles;
use super::values::{
    AbsolutePath, AccessPointId, Account, BootstrapExpect, ClientIntroduction, ConsulDatacenter,
    DefaultPolicy, DeviceName, DnsMode, EnvironmentName, FileSystem, FileSystemId, Format, HookName, KmsKey,
    LogLevel, MetaKey, MountOptions, NodePool, NomadName, OnDrift, OnRebalance, OptionKey, ParameterName,
    PlainText, Region, RetryJoin, SecretSource, StandardStream, UserName, VolumeId, VolumeName,
};

record! {
    /// What a COS node is for and how it does it. Read by `cos-agent apply`.
    pub struct NodeConfig {
        /// Version of this document: 1.
        version: Number<1, 1>,
        /// What the node is for; one role or a list of them.
        role: Roles,
        /// Nomad's datacenter; the availability zone if absent. COS's usual five are `leader`, `backoffice`,
        /// `public-services`, `private-services` and `content-connector`.
        datacenter: Option<NomadName>,
        /// Parameters of Systems Manager that hold more documents like this one. What they say gives way to
        /// user-data and to files on the machine.
        include: Vec<ParameterName>,
        /// Consul's part.
        consul: ConsulConfig,
        /// Nomad's part; nothing for `consul-server`.
        nomad: NomadConfig,
        /// Amazon ECR, from which Docker pulls.
        ecr: EcrConfig,
        /// Docker's part.
        docker: DockerConfig,
        /// Disks to mount before Nomad starts.
        disks: Vec<DiskConfig>,
        /// The instance's own disks, as one file system.
        instance_store: Option<InstanceStoreConfig>,
        /// EFS file systems to mount before Nomad starts.
        efs: Vec<EfsConfig>,
        /// Names that end in `.consul`.
        dns: DnsConfig,
        /// What happens before the node takes work.
        readiness: ReadinessConfig,
        /// What happens when the node must go.
        watch: WatchConfig,
        /// Where `cos-agent apply` writes what it says, besides the journal.
        log: LogConfig,
    }
}

record! {
    /// What a user says of Consul.
    pub struct ConsulConfig derives Default {
        /// Consul's datacenter; the AWS region if absent. All five Nomad datacenters share it.
        datacenter: Option<ConsulDatacenter>,
        /// How the Consul servers are found. Needed, unless `manage_configuration` is false.
        retry_join: Option<RetryJoin>,
        /// How many Consul servers form the cluster: 1, 3, 5, 7, 9, or `auto-scaling-group` for as many as the
        /// instance's group should have. Needed by `consul-server`, and never assumed.
        bootstrap_expect: Option<BootstrapExpect>,
        /// DNS servers for names outside `.consul`; the VPC's own if absent.
        recursors: Vec<IpAddr>,
        /// Where Consul keeps its state; /opt/consul/data if absent.
        data_dir: Option<AbsolutePath>,
        /// Whether a server shows the web interface; true if absent.
        ui: Option<bool>,
        /// Key that encrypts gossip: 32 bytes in base64, as `consul keygen` makes it. It counts when an agent starts
        /// for the first time; later the agents' own keyring does, which `consul keyring` rotates.
        gossip_key: Option<SecretSource>,
        /// Encryption of RPC and HTTPS; none if absent.
        tls: Option<ConsulTlsConfig>,
        /// Access control.
        acl: AclConfig,
        /// How servers look after each other.
        autopilot: AutopilotConfig,
        /// How much the agent says; info if absent.
        log_level: Option<LogLevel>,
        /// Whether cos-agent writes Consul's configuration; if false, it only starts what the image or an operator
        /// configured. True if absent.
        manage_configuration: Option<bool>,
        /// How the service runs.
        service: ServiceConfig,
    }
}

record! {
    /// Encryption between Consul's agents.
    pub struct ConsulTlsConfig {
        /// Certificate of the authority, PEM.
        ca: SecretSource,
        /// The node's own certificate, PEM. Absent on a client that gets its own from the servers (`auto_encrypt`).
        certificate: Option<SecretSource>,
        /// Key of the certificate, PEM.
        key: Option<SecretSource>,
        /// Whether others must show a certificate; true if absent.
        verify_incoming: Option<bool>,
        /// Whether the node checks the certificates of others; true if absent.
        verify_outgoing: Option<bool>,
        /// Whether a server must prove by its certificate that it is one; true if absent.
        verify_server_hostname: Option<bool>,
        /// Whether servers hand certificates to clients, and clients ask for one; false if absent.
        auto_encrypt: Option<bool>,
        /// Whether the HTTPS API listens on port 8501; true if absent.
        https: Option<bool>,
        /// Whether users of HTTPS must show a certificate, which a load balancer cannot; as `verify_incoming` if absent.
        verify_https_client: Option<bool>,
    }
}

record! {
    /// Access control of Consul.
    pub struct AclConfig derives Default {
        /// Whether it is on; false if absent.
        enabled: Option<bool>,
        /// What is done where no rule speaks; deny if absent.
        default_policy: Option<DefaultPolicy>,
        /// Token of the agent itself.
        agent_token: Option<SecretSource>,
        /// Token of requests that bring none, DNS among them.
        default_token: Option<SecretSource>,
        /// Token that may do everything, for the first start of a cluster.
        initial_management_token: Option<SecretSource>,
    }
}

record! {
    /// Autopilot of Consul's servers. What is absent is Consul's own default.
    pub struct AutopilotConfig derives Default {
        /// Whether dead servers are removed; true if absent.
        cleanup_dead_servers: Option<bool>,
        /// Longest time without contact with the leader of a healthy server; 200ms if absent.
        last_contact_threshold: Option<Duration>,
        /// How many log entries a healthy server may be behind; 250 if absent.
        max_trailing_logs: Option<Number<1, 1_000_000>>,
        /// How long a new server must be healthy before it may vote; 10s if absent.
        server_stabilization_time: Option<Duration>,
        /// Fewest servers that removal of dead ones leaves.
        min_quorum: Option<Number<0, 9>>,
        /// Consul Enterprise: key of `node_meta` that names the zone.
        redundancy_zone_tag: Option<MetaKey>,
        /// Consul Enterprise: whether upgrade migration is off.
        disable_upgrade_migration: Option<bool>,
        /// Consul Enterprise: key of `node_meta` that names the version.
        upgrade_version_tag: Option<MetaKey>,
    }
}

record! {
    /// Autopilot of Nomad's servers. What is absent is Nomad's own default.
    pub struct NomadAutopilotConfig derives Default {
        /// Whether dead servers are removed; true if absent.
        cleanup_dead_servers: Option<bool>,
        /// Longest time without contact with the leader of a healthy server; 200ms if absent.
        last_contact_threshold: Option<Duration>,
        /// How many log entries a healthy server may be behind; 250 if absent.
        max_trailing_logs: Option<Number<1, 1_000_000>>,
        /// How long a new server must be healthy before it may vote; 10s if absent.
        server_stabilization_time: Option<Duration>,
        /// Fewest servers that removal of dead ones leaves.
        min_quorum: Option<Number<0, 9>>,
        /// Nomad Enterprise: whether upgrade migration is off.
        disable_upgrade_migration: Option<bool>,
    }
}

record! {
    /// How a service runs.
    pub struct ServiceConfig derives Default {
        /// User; `consul` for Consul, `nomad` for a Nomad server and root for a client if absent.
        user: Option<UserName>,
        /// Environment variables of the service. They show in the process list: no place for secrets.
        environment: BTreeMap<EnvironmentName, PlainText>,
        /// Where standard output goes; systemd's default, the journal, if absent.
        standard_output: Option<StandardStream>,
        /// Where standard error goes; systemd's default, the journal, if absent.
        standard_error: Option<StandardStream>,
    }
}

record! {
    /// What a user says of Nomad.
    pub struct NomadConfig derives Default {
        /// Nomad's region; the AWS region if absent.
        region: Option<NomadName>,
        /// How many Nomad servers form the cluster: 1, 3, 5, 7, 9, or `auto-scaling-group` for as many as the
        /// instance's group should have. Needed by `nomad-server`, and never assumed.
        bootstrap_expect: Option<BootstrapExpect>,
        /// Where Nomad keeps its state; /opt/nomad/data if absent.
        data_dir: Option<AbsolutePath>,
        /// Folder of log files; only the journal if absent.
        log_dir: Option<AbsolutePath>,
        /// Pool of a client; Nomad's `default` if absent.
        node_pool: Option<NodePool>,
        /// Metadata of a client, which jobs may constrain on.
        meta: BTreeMap<MetaKey, PlainText>,
        /// Folders of a client that jobs may mount, by name. They must exist when Nomad starts.
        host_volumes: BTreeMap<VolumeName, HostVolumeConfig>,
        /// Free options of a client (`client.options`), but for those of Docker, which COS sets in its plugin block.
        client_options: BTreeMap<OptionKey, PlainText>,
        /// How long a client that stops waits for its jobs to move away; 5m if absent.
        drain_deadline: Option<Duration>,
        /// Key that encrypts gossip of servers: 32 bytes in base64, as `nomad operator gossip keyring generate`
        /// makes it. It counts when a server starts for the first time; later its own keyring does, which
        /// `nomad operator gossip keyring` rotates.
        gossip_key: Option<SecretSource>,
        /// Key of KMS, in the node's own region, that wraps the keys with which servers encrypt variables and sign
        /// identities; none if absent, and they lie beside the servers' state.
        kms_key: Option<KmsKey>,
        /// Encryption of RPC and HTTP; none if absent.
        tls: Option<NomadTlsConfig>,
        /// Whether access control is on; false if absent.
        acl: Option<bool>,
        /// Token with which Nomad speaks to Consul.
        consul_token: Option<SecretSource>,
        /// What servers ask of clients that they do not know yet; Nomad's own default if absent.
        client_introduction: Option<ClientIntroduction>,
        /// Token with which a client introduces itself (Nomad 1.11): Nomad reads it when it starts, until it is
        /// registered.
        introduction_token: Option<SecretSource>,
        /// How servers look after each other.
        autopilot: NomadAutopilotConfig,
        /// What Nomad measures.
        telemetry: TelemetryConfig,
        /// How much the agent says; info if absent.
        log_level: Option<LogLevel>,
        /// Whether cos-agent writes Nomad's configuration; if false, it only starts what the image or an operator
        /// configured. True if absent.
        manage_configuration: Option<bool>,
        /// How the service runs.
        service: ServiceConfig,
    }
}

record! {
    /// A folder that jobs may mount.
    pub struct HostVolumeConfig {
        /// The folder.
        path: AbsolutePath,
        /// Whether jobs may only read; false if absent.
        read_only: Option<bool>,
    }
}

record! {
    /// Encryption between Nomad's agents.
    pub struct NomadTlsConfig {
        /// Certificate of the authority, PEM.
        ca: SecretSource,
        /// The node's own certificate, PEM.
        certificate: SecretSource,
        /// Key of the certificate, PEM.
        key: SecretSource,
        /// Whether HTTP is encrypted too, and not only RPC; true if absent.
        http: Option<bool>,
        /// Whether a server must prove by its certificate that it is one; true if absent.
        verify_server_hostname: Option<bool>,
        /// Whether users of HTTP must show a certificate; false if absent.
        verify_https_client: Option<bool>,
    }
}

record! {
    /// What Nomad measures.
    pub struct TelemetryConfig derives Default {
        /// Use of resources by allocations; true if absent.
        publish_allocation_metrics: Option<bool>,
        /// Use of resources by the node; true if absent.
        publish_node_metrics: Option<bool>,
        /// In Prometheus's format at /v1/metrics?format=prometheus; true if absent.
        prometheus_metrics: Option<bool>,
    }
}

record! {
    /// Amazon ECR.
    pub struct EcrConfig derives Default {
        /// Registries beside the instance's own account and region.
        registries: Vec<Registry>,
        /// Users who get the same credentials for `docker pull` by hand, such as ec2-user. Their
        /// `.docker/config.json` is COS's then.
        users: Vec<UserName>,
    }
}

record! {
    /// A private ECR registry. What is absent is the instance's own.
    pub struct Registry derives Default {
        /// Account, twelve digits in quotes.
        account: Option<Account>,
        /// Region.
        region: Option<Region>,
    }
}

record! {
    /// Docker.
    pub struct DockerConfig derives Default {
        /// Whether jobs may ask for privileged containers; false if absent.
        privileged: Option<bool>,
    }
}

record! {
    /// A disk to mount.
    pub struct DiskConfig {
        /// The EBS volume. Either this or `device`.
        volume: Option<VolumeId>,
        /// The device, as the launch template or the machine names it. Either this or `volume`.
        device: Option<DeviceName>,
        /// Where it is mounted.
        mount: AbsolutePath,
        /// Its file system; xfs if absent.
        file_system: Option<FileSystem>,
        /// When it is formatted; never if absent.
        format: Option<Format>,
        /// Options of mount(8).
        options: Option<MountOptions>,
        /// Whether the file system grows with its volume; true if absent.
        grow: Option<bool>,
        /// Who owns the top folder; root if absent.
        owner: Option<UserName>,
    }
}

record! {
    /// The disks that belong to the instance and lose their content with it.
    pub struct InstanceStoreConfig {
        /// Where they are mounted, as one file system; several become a RAID 0.
        mount: AbsolutePath,
        /// The file system; xfs if absent.
        file_system: Option<FileSystem>,
    }
}

record! {
    /// An EFS file system to mount.
    pub struct EfsConfig {
        /// The file system.
        file_system: FileSystemId,
        /// Where it is mounted.
        mount: AbsolutePath,
        /// Whether the connection is encrypted, which needs amazon-efs-utils in the image; true if absent.
        tls: Option<bool>,
        /// Whether the instance's role signs in; false if absent.
        iam: Option<bool>,
        /// Access point; the root of the file system if absent.
        access_point: Option<AccessPointId>,
        /// More options of mount(8).
        options: Option<MountOptions>,
    }
}

record! {
    /// Names that end in `.consul`.
    pub struct DnsConfig derives Default {
        /// How they resolve; automatic if absent.
        consul: Option<DnsMode>,
    }
}

record! {
    /// What happens before the node takes work.
    pub struct ReadinessConfig derives Default {
        /// Whether a client takes jobs only when Consul, disks, Docker, CNI, DNS and ECR are proven; true if absent.
        eligible: Option<bool>,
        /// Launch hook of the Auto Scaling group, which goes on when the node is ready and is abandoned when it
        /// cannot become so; found by itself if absent.
        hook: Option<HookName>,
        /// Longest time until the node must be ready; 5m if absent.
        deadline: Option<Duration>,
    }
}

record! {
    /// What happens when the node must go.
    pub struct WatchConfig derives Default {
        /// Whether notices are watched for; true if absent.
        enabled: Option<bool>,
        /// What a recommendation to rebalance does; ineligible if absent.
        rebalance: Option<OnRebalance>,
        /// Longest time for the jobs to move away; 15m if absent, and never more than a notice leaves.
        drain_deadline: Option<Duration>,
        /// How long before a scheduled event the jobs move away; 15m if absent.
        scheduled_event_lead: Option<Duration>,
        /// Termination hook of the Auto Scaling group, which goes on when the node has left; found by itself if absent.
        hook: Option<HookName>,
        /// What is done, every quarter of an hour, about files and secrets that are no longer what they should be;
        /// repair if absent.
        drift: Option<OnDrift>,
    }
}

record! {
    /// Where `cos-agent apply` writes what it says, besides the journal.
    pub struct LogConfig derives Default {
        /// A file; /var/log/user-data.log if absent.
        file: Option<AbsolutePath>,
        /// Whether it is shown on the console too, where EC2's system log has it; true if absent.
        console: Option<bool>,
    }
}
