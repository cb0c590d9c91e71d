//! Owns what lies where in the mirror, and the publishers' own forms of lists: HashiCorp's index and digest
//! lists, Docker's HTML page, GitHub's release. Touches the folder it is given.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::debian::Docker;
use super::golang::Built;
use super::signing::Signer;
use super::{PartsError, archive, hex};

/// Platforms that HashiCorp releases for. Only linux_amd64 has an archive here; the other lines are there
/// because a reader of the real lists must choose among them too.
const PLATFORMS: &[(&str, &str)] = &[
    ("darwin", "amd64"),
    ("darwin", "arm64"),
    ("linux", "amd64"),
    ("linux", "arm64"),
    ("linux", "s390x"),
    ("windows", "amd64"),
];

/// The one platform that is in the mirror.
const PLATFORM: (&str, &str) = ("linux", "amd64");

/// Writes the whole mirror into an empty folder.
pub(super) fn write(
    root: &Path,
    programs: &[Built],
    docker: &Docker,
    signer: &Signer,
) -> Result<(), PartsError> {
    for built in programs {
        match built.program.name {
            "cni-plugins" => cni(root, built)?,
            _ => hashicorp(root, built, signer)?,
        }
    }
    docker_page(root, docker)?;
    put(&root.join("test-key.asc"), &signer.public()?)
}

fn hashicorp(root: &Path, built: &Built, signer: &Signer) -> Result<(), PartsError> {
    let (name, version) = (built.program.name, built.program.version);
    let product = root.join("hashicorp").join(name);
    let folder = make(product.join(version))?;
    let zip = folder.join(archive_name(name, version, PLATFORM));
    let mut members = archive::files(&built.executables)?;
    members.push(("LICENSE.txt".to_owned(), built.license.clone()));
    members.sort();
    archive::zip(&zip, &members)?;

    let digest = archive::sha256(&zip)?;
    let mut sums = String::new();
    for &platform in PLATFORMS {
        let file = archive_name(name, version, platform);
        let absent = || hex(&Sha256::digest(format!("{file} is not in this mirror")));
        let digest = if platform == PLATFORM {
            digest.clone()
        } else {
            absent()
        };
        sums.extend([digest.as_str(), "  ", &file, "\n"]);
    }
    put(
        &folder.join(format!("{name}_{version}_SHA256SUMS")),
        sums.as_bytes(),
    )?;
    let signature = signer.sign(sums.as_bytes())?;
    put(
        &folder.join(format!("{name}_{version}_SHA256SUMS.sig")),
        &signature,
    )?;
    put(
        &folder.join(format!("{name}_{version}_SHA256SUMS.{}.sig", signer.short_id())),
        &signature,
    )?;
    put(
        &product.join("index.json"),
        index(name, version, &signer.short_id()).to_string().as_bytes(),
    )
}

fn archive_name(name: &str, version: &str, (os, arch): (&str, &str)) -> String {
    format!("{name}_{version}_{os}_{arch}.zip")
}

/// HashiCorp's list of all versions. The pre-release and the enterprise build are only listed, as traps.
fn index(name: &str, version: &str, key: &str) -> Value {
    let versions = [
        version.to_owned(),
        format!("{version}+ent"),
        format!("{version}-rc.1"),
    ];
    let entries = versions.map(|version| {
        let entry = release(name, &version, key);
        (version, entry)
    });
    json!({ "name": name, "versions": serde_json::Map::from_iter(entries) })
}

fn release(name: &str, version: &str, key: &str) -> Value {
    let builds: Vec<Value> = PLATFORMS
        .iter()
        .map(|&platform| {
            let file = archive_name(name, version, platform);
            json!({
                "name": name, "version": version, "os": platform.0, "arch": platform.1, "filename": file,
                "url": format!("https://releases.hashicorp.com/{name}/{version}/{file}"),
            })
        })
        .collect();
    let sums = format!("{name}_{version}_SHA256SUMS");
    json!({
        "name": name, "version": version, "builds": builds, "shasums": sums,
        "shasums_signature": format!("{sums}.sig"),
        "shasums_signatures": [format!("{sums}.{key}.sig"), format!("{sums}.sig")],
    })
}

fn docker_page(root: &Path, docker: &Docker) -> Result<(), PartsError> {
    let folder = make(root.join("docker/linux/static/stable/x86_64"))?;
    let name = format!("docker-{}.tgz", docker.version);
    let path = folder.join(&name);
    archive::tgz(&path, "docker/", &archive::files(&docker.executables)?)?;
    let size = std::fs::metadata(&path)
        .map_err(PartsError::io("read", &path))?
        .len()
        >> 20;
    // The second line is only listed, as upstream does: a reader must not take it for the engine.
    let extras = format!("docker-rootless-extras-{}.tgz", docker.version);
    let page = format!(
        "<html>\n<head><title>Index of linux/static/stable/x86_64/</title></head>\n<body>\n\
         <h1>Index of linux/static/stable/x86_64/</h1><hr>\n<pre><a href=\"../\">../</a>\n\
         <a href=\"{name}\">{name}</a>                  2025-01-01 00:00:00 {size}.0 MiB\n\
         <a href=\"{extras}\">{extras}</a>  2025-01-01 00:00:00 20.0 MiB\n\
         </pre><hr></body>\n</html>\n"
    );
    put(&folder.join("index.html"), page.as_bytes())
}

fn cni(root: &Path, built: &Built) -> Result<(), PartsError> {
    let tag = format!("v{}", built.program.version);
    let releases = root.join("cni/releases");
    let folder = make(releases.join("download").join(&tag))?;
    let name = format!("cni-plugins-linux-amd64-{tag}.tgz");
    let path = folder.join(&name);
    let mut members = archive::files(&built.executables)?;
    members.push(("LICENSE".to_owned(), built.license.clone()));
    members.sort();
    archive::tgz(&path, "./", &members)?;
    let digest = archive::sha256(&path)?;
    let list = format!("{digest}  {name}\n");
    put(&folder.join(format!("{name}.sha256")), list.as_bytes())?;

    let page = "https://github.com/containernetworking/plugins/releases";
    let asset = |file: &str, size: u64, kind: &str| {
        json!({
            "name": file, "size": size, "content_type": kind, "state": "uploaded",
            "browser_download_url": format!("{page}/download/{tag}/{file}"),
        })
    };
    let size = std::fs::metadata(&path)
        .map_err(PartsError::io("read", &path))?
        .len();
    let mut archive_asset = asset(&name, size, "application/gzip");
    archive_asset["digest"] = json!(format!("sha256:{digest}"));
    let latest = json!({
        "tag_name": tag, "name": format!("CNI plugins {tag}"), "draft": false, "prerelease": false,
        "html_url": format!("{page}/tag/{tag}"),
        "assets": [archive_asset, asset(&format!("{name}.sha256"), list.len() as u64, "text/plain")],
    });
    put(&releases.join("latest.json"), latest.to_string().as_bytes())
}

fn make(folder: PathBuf) -> Result<PathBuf, PartsError> {
    std::fs::create_dir_all(&folder).map_err(PartsError::io("make the folder", &folder))?;
    Ok(folder)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), PartsError> {
    std::fs::write(path, bytes).map_err(PartsError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_lists_the_release_among_others() {
        let index = index("nomad", "1.11.0", "DEADBEEF");
        let versions: Vec<_> = index["versions"].as_object().unwrap().keys().collect();
        assert_eq!(versions, ["1.11.0", "1.11.0+ent", "1.11.0-rc.1"]);
        let release = &index["versions"]["1.11.0"];
        assert_eq!(release["shasums"], "nomad_1.11.0_SHA256SUMS");
        assert_eq!(
            release["shasums_signatures"][0],
            "nomad_1.11.0_SHA256SUMS.DEADBEEF.sig"
        );
        let builds = release["builds"].as_array().unwrap();
        let ours = builds
            .iter()
            .find(|build| build["os"] == "linux" && build["arch"] == "amd64")
            .unwrap();
        assert_eq!(ours["filename"], "nomad_1.11.0_linux_amd64.zip");
    }
}
