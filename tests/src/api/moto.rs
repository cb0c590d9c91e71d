//! Owns the moto child process: its configuration, its start with our plug-in, its readiness, its end.
//! Touches Python, one process, and a few files in the sandbox's folder.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::process::{Child, Command};

/// How long moto may take to answer; 3 to 4 s alone, much longer on a machine that builds something.
const READY: Duration = Duration::from_secs(90);

/// A file of the plug-in and its name.
type Source = (&'static str, &'static str);

/// The plug-in travels in the binary, so that it cannot be of another version.
const PLUGIN: [Source; 11] = [
    ("plugin.py", include_str!("../../moto/plugin.py")),
    ("cos_wire.py", include_str!("../../moto/cos_wire.py")),
    ("cos_state.py", include_str!("../../moto/cos_state.py")),
    ("cos_images.py", include_str!("../../moto/cos_images.py")),
    ("cos_instances.py", include_str!("../../moto/cos_instances.py")),
    ("cos_scaling.py", include_str!("../../moto/cos_scaling.py")),
    ("cos_volumes.py", include_str!("../../moto/cos_volumes.py")),
    ("cos_ebs.py", include_str!("../../moto/cos_ebs.py")),
    ("cos_ecr.py", include_str!("../../moto/cos_ecr.py")),
    ("cos_ssm.py", include_str!("../../moto/cos_ssm.py")),
    ("cos_start.py", include_str!("../../moto/cos_start.py")),
];

/// A base image, as the plug-in tells moto of it.
#[derive(Debug, Clone, Serialize)]
pub struct BaseImage {
    /// `al1`, `al2` or `al2023`.
    pub base: String,
    /// Architecture in EC2's words.
    pub architecture: String,
    /// AMI id.
    pub image: String,
    /// Snapshot id of its root.
    pub snapshot: String,
    /// Name in Amazon's manner.
    pub name: String,
    /// Says that it is a stand-in.
    pub description: String,
    /// RFC 3339 in UTC.
    pub created: String,
    /// Size of the root volume in GiB.
    pub gib: u64,
    /// Why it cannot be started here, if so.
    pub refuse: Option<String>,
    /// Public SSM parameters that name it.
    pub parameters: Vec<String>,
}

/// What is the same for every start of a base.
struct Known {
    base: &'static str,
    architecture: &'static str,
    name: &'static str,
    created: &'static str,
    title: &'static str,
    parameter: &'static str,
}

/// Amazon's own names, as its public parameters and images have them.
const KNOWN: [Known; 5] = [
    Known {
        base: "al1",
        architecture: "x86_64",
        name: "amzn-ami-hvm-2018.03.0.20231218.0-x86_64-gp2",
        created: "2023-12-19T01:10:12.000Z",
        title: "Amazon Linux AMI 2018.03",
        parameter: "amzn-ami-hvm-x86_64-gp2",
    },
    Known {
        base: "al2",
        architecture: "x86_64",
        name: "amzn2-ami-hvm-2.0.20260615.0-x86_64-gp2",
        created: "2026-06-16T02:20:24.000Z",
        title: "Amazon Linux 2",
        parameter: "amzn2-ami-hvm-x86_64-gp2",
    },
    Known {
        base: "al2",
        architecture: "arm64",
        name: "amzn2-ami-hvm-2.0.20260615.0-arm64-gp2",
        created: "2026-06-16T02:21:48.000Z",
        title: "Amazon Linux 2",
        parameter: "amzn2-ami-hvm-arm64-gp2",
    },
    Known {
        base: "al2023",
        architecture: "x86_64",
        name: "al2023-ami-2023.9.20261109.0-kernel-6.1-x86_64",
        created: "2026-11-10T03:30:36.000Z",
        title: "Amazon Linux 2023",
        parameter: "al2023-ami-kernel-default-x86_64",
    },
    Known {
        base: "al2023",
        architecture: "arm64",
        name: "al2023-ami-2023.9.20261109.0-kernel-6.1-arm64",
        created: "2026-11-10T03:31:00.000Z",
        title: "Amazon Linux 2023",
        parameter: "al2023-ami-kernel-default-arm64",
    },
];

/// Every base image there is. Those without a disk in `disks` exist in the API and refuse to start.
pub fn base_images(disks: &[(String, PathBuf)]) -> Result<Vec<BaseImage>> {
    KNOWN.iter().map(|known| base_image(known, disks)).collect()
}

fn base_image(known: &Known, disks: &[(String, PathBuf)]) -> Result<BaseImage> {
    let Known {
        base,
        architecture,
        title,
        ..
    } = known;
    let disk = disks
        .iter()
        .find(|(name, _)| name == base && *architecture == "x86_64")
        .map(|(_, path)| path);
    let refuse = match disk {
        Some(_) => None,
        None if *architecture == "x86_64" => {
            Some(format!("the sandbox was started without a disk for base {base}"))
        }
        None => Some(format!(
            "the sandbox's machines are x86_64 and cannot run {architecture}"
        )),
    };
    // A base disk of another content is another image, so its file is part of what makes the ids.
    let (mut gib, mut stamp) = (8, String::new());
    if let Some(path) = disk {
        let metadata =
            fs::metadata(path).with_context(|| format!("base disk {} is missing", path.display()))?;
        gib = metadata.len().div_ceil(super::store::GIB).max(8);
        stamp = format!("{}:{}", path.display(), metadata.len());
    }
    let digest = Sha256::digest(format!("{base}/{architecture}/{stamp}"));
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_u64, |word, byte| (word << 8) | u64::from(*byte))
    };
    let (image, snapshot) = (word(&digest[..8]), word(&digest[8..16]));
    Ok(BaseImage {
        base: (*base).to_owned(),
        architecture: (*architecture).to_owned(),
        image: format!("ami-0{image:016x}"),
        snapshot: format!("snap-0{snapshot:016x}"),
        name: known.name.to_owned(),
        description: format!(
            "COS sandbox: a Debian stand-in for {title} ({architecture}), not Amazon's image"
        ),
        created: known.created.to_owned(),
        gib,
        refuse,
        parameters: vec![format!(
            "/aws/service/ami-amazon-linux-latest/{}",
            known.parameter
        )],
    })
}

/// How to start moto.
#[derive(Debug)]
pub struct Options<'a> {
    /// The interpreter of an environment that has moto.
    pub python: &'a Path,
    /// Folder for the plug-in's files, its socket and its log.
    pub folder: &'a Path,
    /// The socket of the executor.
    pub socket: &'a Path,
    /// Region of the base images.
    pub region: &'a str,
    /// Base images.
    pub images: &'a [BaseImage],
}

/// A moto that answers.
#[derive(Debug)]
pub struct Moto {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    child: Child,
}

#[derive(Serialize)]
struct Configuration<'a> {
    socket: &'a Path,
    region: &'a str,
    images: &'a [BaseImage],
}

impl Moto {
    /// Starts moto with the plug-in and waits until it answers. The process ends when this value is dropped.
    pub async fn start(options: Options<'_>) -> Result<Self> {
        let folder = options.folder.join("plugin");
        fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        for (name, text) in PLUGIN {
            fs::write(folder.join(name), text)
                .with_context(|| format!("plug-in file {name} cannot be written"))?;
        }
        let Options {
            socket,
            region,
            images,
            ..
        } = options;
        let configuration = serde_json::to_vec_pretty(&Configuration {
            socket,
            region,
            images,
        })?;
        let path = folder.join("configuration.json");
        fs::write(&path, configuration).with_context(|| format!("{} cannot be written", path.display()))?;

        let port = free_port()?;
        let log_path = options.folder.join("moto.log");
        let log =
            File::create(&log_path).with_context(|| format!("{} cannot be written", log_path.display()))?;
        let mut child = Command::new(options.python)
            .arg(folder.join("plugin.py"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("COS_SANDBOX_CONFIGURATION", &path)
            .env("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
            .env("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("python {} cannot be started", options.python.display()))?;

        let url = format!("http://127.0.0.1:{port}");
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("moto ended at its start ({status}): {}", last_lines(&log_path));
            }
            let reply = client.get(format!("{url}/moto-api/cos/held")).send().await;
            if reply.is_ok_and(|reply| reply.status().is_success()) {
                first_calls(&url, options.region).await?;
                return Ok(Self { url, child });
            }
            if begun.elapsed() > READY {
                bail!(
                    "moto did not answer within {} s: {}",
                    READY.as_secs(),
                    last_lines(&log_path)
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Process id, while it runs.
    pub fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends, which it does not do by itself.
    pub async fn ended(&mut self) -> Result<()> {
        let status = self.child.wait().await.context("moto cannot be waited for")?;
        bail!("moto ended by itself ({status})")
    }

    /// Ends it and waits for its end.
    pub async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}

/// One call to each service, one after the other: moto makes a backend at the first call, under several locks, and two
/// first calls at once have been seen to block each other for good.
async fn first_calls(url: &str, region: &str) -> Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(READY).build()?;
    let calls = [
        ("ec2", None, "Action=DescribeSubnets&Version=2016-11-15"),
        ("ssm", Some("AmazonSSM.DescribeParameters"), "{}"),
        ("sts", None, "Action=GetCallerIdentity&Version=2011-06-15"),
    ];
    for (service, target, body) in calls {
        let scope = format!("Credential=sandbox/20260101/{region}/{service}/aws4_request");
        let mut request = client
            .post(url)
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"),
            )
            .header("host", format!("{service}.{region}.amazonaws.com"));
        request = match target {
            Some(target) => request
                .header("x-amz-target", target)
                .header("content-type", "application/x-amz-json-1.1"),
            None => request.header("content-type", "application/x-www-form-urlencoded"),
        };
        let reply = request.body(body).send().await?;
        let status = reply.status();
        anyhow::ensure!(
            status.is_success(),
            "moto's first call of {service} ended with {status}"
        );
    }
    Ok(())
}

fn free_port() -> Result<u16> {
    let probe = TcpListener::bind(("127.0.0.1", 0)).context("no loopback port is free")?;
    Ok(probe.local_addr()?.port())
}

fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(3)
        .collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_base_image_is_distinct_and_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("al2.raw");
        fs::write(&disk, b"x").unwrap();
        let images = base_images(&[("al2".into(), disk)]).unwrap();
        let mut ids: Vec<_> = images.iter().map(|it| &it.image).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), KNOWN.len());
        assert!(
            images
                .iter()
                .all(|it| it.description.contains("Debian stand-in") && it.image.len() == 21)
        );
        let startable: Vec<_> = images
            .iter()
            .filter(|it| it.refuse.is_none())
            .map(|it| it.base.as_str())
            .collect();
        assert_eq!(startable, ["al2"]);
    }
}
