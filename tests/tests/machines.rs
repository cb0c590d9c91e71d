//! Boots one virtual machine and one container from a real base disk and looks at them from inside.
//!
//! Needs root, QEMU, systemd-nspawn, mmdebstrap and Debian's archive; minutes on a small machine. Where a tool is
//! missing it fails if `CI` is set and says loudly that it was skipped if not.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test: what fails must panic, and what it measures is told on stderr"
)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cos_tests::base::{self, Base};
use cos_tests::machines::{
    Authority, Disk, ExecOutput, Fleet, Kind, MachineSpec, MachineState, Machines, Metadata, Options,
};

const TOOLS: &[&str] = &[
    "qemu-system-x86_64",
    "systemd-nspawn",
    "mmdebstrap",
    "dnsmasq",
    "debugfs",
    "mke2fs",
    "nsenter",
    "ip",
];
const MINUTE: Duration = Duration::from_mins(1);

/// Whether the machines can run here; says so where they cannot.
fn ready() -> bool {
    let found = |tool: &&&str| {
        std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path)
                .chain(["/usr/sbin".into(), "/sbin".into()])
                .any(|at| at.join(tool).exists())
        })
    };
    let mut missing: Vec<&str> = TOOLS.iter().filter(|tool| !found(tool)).copied().collect();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root");
    }
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "CI must have {missing:?}");
    eprintln!("SKIPPED: no real machine was booted, because this host lacks {missing:?}");
    false
}

fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    std::env::var_os("COS_TESTS_CACHE").map_or_else(|| home.join(".cache/cos"), PathBuf::from)
}

/// A server on loopback in place of the API: answers with the host that was asked for.
async fn api() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(|headers: axum::http::HeaderMap| async move {
        format!("host={}", headers["host"].to_str().unwrap())
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

struct Scene {
    fleet: Fleet,
    folder: PathBuf,
    disk: PathBuf,
}

async fn scene(name: &str) -> Scene {
    let authority = Arc::new(Authority::open(&cache().join("authority")).unwrap());
    let base = base::ensure(&cache(), Base::AmazonLinux2, authority.pem(), |line| {
        eprintln!("{line}");
    })
    .await
    .unwrap();
    eprintln!("base disk built in {:?}", base.built_in);
    // A run that failed left its things in a known place: they are cleaned up as after a crash.
    let folder = cache().join("tests");
    let cleaned = Fleet::clean_after_crash(&folder, name).await.unwrap();
    eprintln!("left by an earlier run: {cleaned:?}");
    let disk = folder.join(format!("{name}.raw"));
    std::fs::create_dir_all(&folder).unwrap();
    let copied = Command::new("cp")
        .args(["--sparse=always"])
        .arg(&base.disk)
        .arg(&disk)
        .status()
        .unwrap();
    assert!(copied.success());
    let options = Options {
        api: api().await,
        region: "us-east-1".to_owned(),
        authority,
        record: None,
    };
    let fleet = Fleet::open(&folder, name, options).await.unwrap();
    Scene { fleet, folder, disk }
}

fn spec(id: &str, kind: Kind, address: Ipv4Addr, root: &Path) -> MachineSpec {
    MachineSpec {
        id: id.to_owned(),
        kind,
        address,
        root: Disk {
            volume: "vol-0aaaaaaaaaaaaaaa0".to_owned(),
            device: "/dev/xvda".to_owned(),
            path: root.to_owned(),
        },
        volumes: Vec::new(),
        metadata: Metadata {
            image: "ami-0123456789abcdef0".to_owned(),
            account: "123456789012".to_owned(),
            region: "us-east-1".to_owned(),
            zone: "us-east-1a".to_owned(),
            instance_type: "m5.large".to_owned(),
            architecture: "x86_64".to_owned(),
            user_data: Some(b"#!/bin/sh\necho from-user-data > /var/tmp/user-data-ran\n".to_vec()),
            tags: BTreeMap::from([("Role".to_owned(), "server".to_owned())]),
            instance_tags: true,
            token_required: true,
            role: Some("node".to_owned()),
            notices: BTreeMap::new(),
        },
    }
}

async fn until(fleet: &Fleet, id: &str, wanted: MachineState, patience: Duration) -> Duration {
    let began = Instant::now();
    while fleet.state(id).await != Some(wanted.clone()) {
        if began.elapsed() > patience {
            let console = fleet.console(id).await.unwrap();
            let tail = String::from_utf8_lossy(&console[console.len().saturating_sub(4000)..]).into_owned();
            panic!(
                "{id} is {:?}, not {wanted:?}, after {patience:?}:\n{tail}",
                fleet.state(id).await
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    began.elapsed()
}

async fn sh(fleet: &Fleet, id: &str, script: &str) -> String {
    let output: ExecOutput = match fleet.exec(id, script, 3 * MINUTE).await {
        Ok(output) => output,
        Err(error) => {
            let look = "systemctl list-jobs --no-pager; systemctl --failed --no-pager; ip address; \
                tail -5 /var/log/cloud-init.log";
            let seen = fleet.exec(id, look, MINUTE).await.unwrap_or_default();
            panic!(
                "{script}: {error:#}
{}",
                String::from_utf8_lossy(&seen.stdout)
            );
        }
    };
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status, 0, "{script}\n{out}\n{err}");
    out.trim().to_owned()
}

/// What holds in every machine, whatever it is made of.
async fn looks_like_ec2(fleet: &Fleet, id: &str, address: Ipv4Addr) {
    let status = sh(
        fleet,
        id,
        "cloud-init status --wait >/dev/null; cloud-init status --long; true",
    )
    .await;
    assert!(status.contains("status: done"), "{status}");
    assert!(status.contains("Ec2"), "{status}");
    assert_eq!(
        sh(fleet, id, "cat /var/tmp/user-data-ran").await,
        "from-user-data"
    );
    let name = format!("ip-{}", address.to_string().replace('.', "-"));
    assert_eq!(sh(fleet, id, "hostname | cut -d. -f1").await, name);

    let imds = "curl -sf -H \"X-aws-ec2-metadata-token: $(curl -sf -X PUT \
        -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)\" \
        http://169.254.169.254/latest";
    assert_eq!(sh(fleet, id, &format!("{imds}/meta-data/instance-id")).await, id);
    assert_eq!(
        sh(fleet, id, &format!("{imds}/meta-data/local-ipv4")).await,
        address.to_string()
    );
    let plain = "curl -s -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/";
    assert_eq!(sh(fleet, id, plain).await, "401");
    fleet
        .set_tags(id, BTreeMap::from([("Role".to_owned(), "client".to_owned())]))
        .await;
    assert_eq!(
        sh(fleet, id, &format!("{imds}/meta-data/tags/instance/Role")).await,
        "client"
    );
    let notice = ("spot/instance-action".to_owned(), "{}".to_owned());
    fleet.set_notices(id, BTreeMap::from([notice])).await;
    assert_eq!(
        sh(fleet, id, &format!("{imds}/meta-data/spot/instance-action")).await,
        "{}"
    );

    // AWS's names are the endpoint in the VPC, trusted like any other; nothing else resolves.
    let endpoint = "ec2.us-east-1.amazonaws.com";
    assert_eq!(
        sh(fleet, id, &format!("curl -sSf https://{endpoint}/")).await,
        format!("host={endpoint}")
    );
    assert_eq!(
        sh(fleet, id, "getent ahosts example.com || echo none").await,
        "none"
    );
    assert_eq!(
        sh(
            fleet,
            id,
            "test -s /etc/machine-id && ls /etc/ssh/ssh_host_ed25519_key.pub"
        )
        .await
        .lines()
        .count(),
        1
    );

    // Output of any size, status and error stream come back as they were.
    let output = fleet
        .exec(id, "head -c 3000000 /dev/zero; echo oops >&2; exit 7", MINUTE)
        .await
        .unwrap();
    assert_eq!(
        (output.status, output.stdout.len(), output.stderr.as_slice()),
        (7, 3_000_000, b"oops\n".as_slice())
    );
    let began = Instant::now();
    let late = fleet
        .exec(id, "sleep 4321 & sleep 4321", Duration::from_secs(3))
        .await
        .unwrap_err();
    assert!(
        late.to_string().contains("killed") && began.elapsed() < MINUTE,
        "{late}"
    );
    assert_eq!(
        sh(
            fleet,
            id,
            "sleep 1; ps ax -o args | grep -c '^sleep 432[1]' || true"
        )
        .await,
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_of_the_same_name_in_another_folder_is_left_alone() {
    if !ready() {
        return;
    }
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options = Options {
        api: api().await,
        region: "us-east-1".to_owned(),
        authority: Arc::new(Authority::open(one.path()).unwrap()),
        record: None,
    };
    let first = Fleet::open(one.path(), "test-two", options.clone())
        .await
        .unwrap();
    let refused = Fleet::open(other.path(), "test-two", options)
        .await
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("another state folder"),
        "{refused:#}"
    );
    let listed = Command::new("ip")
        .args(["netns", "pids", "cos-test-two"])
        .output()
        .unwrap();
    assert!(
        !listed.stdout.is_empty(),
        "the first sandbox lost its DHCP server"
    );
    ends_without_trace(first, "cos-test-two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_boots_as_ec2_does() {
    if !ready() {
        return;
    }
    let Scene { fleet, folder, disk } = scene("test-vm").await;
    let (id, address) = ("i-0123456789abcdef0", Ipv4Addr::new(172, 31, 16, 10));
    let began = Instant::now();
    fleet
        .start(spec(id, Kind::VirtualMachine, address, &disk))
        .await
        .unwrap();
    let online = until(&fleet, id, MachineState::Online, 5 * MINUTE).await;
    eprintln!("virtual machine: agent online after {online:.1?}");
    sh(&fleet, id, "cloud-init status --wait >/dev/null; true").await;
    eprintln!("virtual machine: cloud-init done after {:.1?}", began.elapsed());
    eprintln!(
        "{}",
        sh(
            &fleet,
            id,
            "systemd-analyze; systemd-analyze blame --no-pager | head -12"
        )
        .await
    );
    looks_like_ec2(&fleet, id, address).await;
    sh(&fleet, id, "for m in overlay br_netfilter nf_tables veth bridge iptable_nat xt_conntrack; do modprobe $m; done; iptables -t nat -L -n").await;

    // A volume comes and goes while the machine runs.
    let volume = folder.join("test-volume.raw");
    std::fs::write(&volume, [b"COS".as_slice(), &vec![0; (1 << 20) - 3]].concat()).unwrap();
    let data = Disk {
        volume: "vol-0123456789abcdef1".to_owned(),
        device: "/dev/sdf".to_owned(),
        path: volume.clone(),
    };
    fleet.attach(id, data.clone()).await.unwrap();
    let device = "/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_vol0123456789abcdef1";
    let wait = format!("for i in $(seq 100); do test -e {device} && break; sleep 0.2; done");
    assert_eq!(
        sh(&fleet, id, &format!("{wait}; head -c 3 {device}")).await,
        "COS"
    );
    sh(
        &fleet,
        id,
        &format!("printf written | dd of={device} bs=512 seek=1 conv=sync,fsync 2>/dev/null"),
    )
    .await;
    fleet.detach(id, &data.volume).await.unwrap();
    assert_eq!(
        sh(&fleet, id, &format!("test -e {device} || echo gone")).await,
        "gone"
    );
    assert_eq!(&std::fs::read(&volume).unwrap()[512..519], b"written");

    // A reboot keeps the disk and is not a first boot.
    sh(
        &fleet,
        id,
        "rm /var/tmp/user-data-ran; cat /proc/sys/kernel/random/boot_id > /var/tmp/boot",
    )
    .await;
    fleet.reboot(id).await.unwrap();
    until(&fleet, id, MachineState::Starting, 2 * MINUTE).await;
    let again = until(&fleet, id, MachineState::Online, 5 * MINUTE).await;
    eprintln!("virtual machine: online again {again:.1?} after the reset");
    sh(
        &fleet,
        id,
        "! cmp -s /var/tmp/boot /proc/sys/kernel/random/boot_id",
    )
    .await;
    sh(&fleet, id, "test ! -e /var/tmp/user-data-ran").await;

    let began = Instant::now();
    fleet.stop(id, 2 * MINUTE).await.unwrap();
    assert_eq!(fleet.state(id).await, Some(MachineState::Off));
    assert!(
        began.elapsed() < 2 * MINUTE,
        "the guest did not heed the power button"
    );
    eprintln!("virtual machine: off after {:.1?}", began.elapsed());
    let checked = Command::new("e2fsck").args(["-fn"]).arg(&disk).status().unwrap();
    assert!(checked.success(), "the file holds everything, cleanly unmounted");
    fleet.forget(id).await.unwrap();
    assert_eq!(fleet.state(id).await, None);
    assert!(disk.exists());
    ends_without_trace(fleet, "cos-test-vm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_boots_as_ec2_does() {
    if !ready() {
        return;
    }
    let Scene { fleet, disk, .. } = scene("test-ct").await;
    let (id, address) = ("i-0fedcba9876543210", Ipv4Addr::new(172, 31, 32, 11));
    let began = Instant::now();
    fleet
        .start(spec(id, Kind::Container, address, &disk))
        .await
        .unwrap();
    let online = until(&fleet, id, MachineState::Online, MINUTE).await;
    eprintln!("container: online after {online:.1?}");
    // What all machines know as their router stays the same, whoever comes and goes.
    let bridge = Command::new("ip")
        .args(["-n", fleet.namespace().name(), "link", "show", "vpc"])
        .output()
        .unwrap();
    let bridge = String::from_utf8_lossy(&bridge.stdout).into_owned();
    assert!(bridge.contains("link/ether 0a:c0:ac:1f:00:02"), "{bridge}");
    sh(&fleet, id, "cloud-init status --wait >/dev/null; true").await;
    eprintln!("container: cloud-init done after {:.1?}", began.elapsed());
    looks_like_ec2(&fleet, id, address).await;

    // A Nomad client makes groups of its own; Docker sets forwarding.
    sh(&fleet, id, "for g in freezer cpuset memory; do test ! -d /sys/fs/cgroup/$g || { mkdir /sys/fs/cgroup/$g/try && rmdir /sys/fs/cgroup/$g/try; }; done").await;
    sh(
        &fleet,
        id,
        "echo 1 > /proc/sys/net/ipv4/ip_forward && iptables -t nat -A POSTROUTING -j MASQUERADE",
    )
    .await;
    sh(&fleet, id, "mkdir -p /tmp/o/l /tmp/o/u /tmp/o/w /tmp/o/m && mount -t overlay x -o lowerdir=/tmp/o/l,upperdir=/tmp/o/u,workdir=/tmp/o/w /tmp/o/m && umount /tmp/o/m").await;

    // From the host's loopback to a port of the instance.
    let forwarded = fleet.forward(address, 22).await.unwrap();
    let banner = tokio::task::spawn_blocking(move || {
        let mut stream = std::net::TcpStream::connect(forwarded).unwrap();
        let mut banner = [0; 4];
        std::io::Read::read_exact(&mut stream, &mut banner).unwrap();
        banner
    });
    assert_eq!(&banner.await.unwrap(), b"SSH-");

    let data = Disk {
        volume: "vol-1".to_owned(),
        device: "/dev/sdf".to_owned(),
        path: disk.clone(),
    };
    assert!(
        fleet
            .attach(id, data)
            .await
            .unwrap_err()
            .to_string()
            .contains("root disk only")
    );

    sh(&fleet, id, "rm /var/tmp/user-data-ran").await;
    fleet.reboot(id).await.unwrap();
    until(&fleet, id, MachineState::Starting, MINUTE).await;
    until(&fleet, id, MachineState::Online, MINUTE).await;
    sh(&fleet, id, "test ! -e /var/tmp/user-data-ran").await;

    // A power-off from inside is seen.
    sh(&fleet, id, "systemd-run --on-active=1 systemctl poweroff").await;
    until(&fleet, id, MachineState::Off, MINUTE).await;
    let checked = Command::new("e2fsck").args(["-fn"]).arg(&disk).status().unwrap();
    assert!(checked.success(), "the file holds everything, cleanly unmounted");
    fleet
        .start(spec(id, Kind::Container, address, &disk))
        .await
        .unwrap();
    until(&fleet, id, MachineState::Online, MINUTE).await;
    fleet.stop(id, MINUTE).await.unwrap();
    assert_eq!(fleet.state(id).await, Some(MachineState::Off));

    // A script that runs does not hold the shutdown up, and neither does what it leaves behind.
    fleet
        .start(spec(id, Kind::Container, address, &disk))
        .await
        .unwrap();
    until(&fleet, id, MachineState::Online, MINUTE).await;
    sh(&fleet, id, "cloud-init status --wait >/dev/null; true").await;
    let (scripts, off) = tokio::join!(
        futures::future::join_all(
            ["exec sleep 600", "sleep 600 & sleep 600"].map(|script| fleet.exec(id, script, 10 * MINUTE))
        ),
        async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let began = Instant::now();
            fleet.stop(id, 5 * MINUTE).await.unwrap();
            began.elapsed()
        }
    );
    assert!(
        scripts
            .iter()
            .all(|ended| ended.is_err() || ended.as_ref().is_ok_and(|it| it.status != 0))
    );
    eprintln!("container: off after {off:.1?}, with scripts running");
    assert!(
        off < MINUTE,
        "scripts that run kept the shutdown waiting for {off:?}"
    );

    // What is running at the end goes too.
    fleet
        .start(spec(id, Kind::Container, address, &disk))
        .await
        .unwrap();
    ends_without_trace(fleet, "cos-test-ct").await;
}

async fn ends_without_trace(fleet: Fleet, prefix: &str) {
    fleet.shutdown().await.unwrap();
    assert!(fleet.held().is_empty());
    let listed = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(
        !String::from_utf8_lossy(&listed.stdout).contains(prefix),
        "no namespace is left"
    );
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(&format!("{}/", prefix.trim_start_matches("cos-"))),
        "no mount is left"
    );
}
