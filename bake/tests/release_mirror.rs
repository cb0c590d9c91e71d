//! From the mirror of real archives (made by `cos-parts`) to a payload: versions, signatures, lock, bundle.
//! Touches loopback and a temporary folder; skipped, loudly, where there is no mirror.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: its helpers fail it, and it tells what it measured"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cos_bake::bundle::{AgentBinary, AgentOrigin, prepare};
use cos_bake::lock::{LockRequest, Source, resolve};
use cos_bake::payload::Payload;
use cos_bake::release::signature::TrustedKeys;
use cos_bake::release::{Arch, ArchiveCache, Fetcher, Upstream};

/// Most memory that a bake may take, in KiB; this test serves the mirror on top of it.
const MEMORY_LIMIT: u64 = 100 * 1024;

/// The newest mirror below the cache folder.
fn mirror() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let folders = std::fs::read_dir(cache.join("cos/parts"))
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let complete = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        name.starts_with("mirror-")
            && path.join("test-key.asc").is_file()
            && path.join("cni/releases").is_dir()
    };
    folders
        .filter(complete)
        .max_by_key(|path| std::fs::metadata(path).and_then(|data| data.modified()).ok())
}

/// Serves a folder on loopback until the process ends.
fn serve(root: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let root = root.clone();
            std::thread::spawn(move || answer(stream, &root));
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream, root: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = first
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .trim_start_matches('/')
        .to_owned();
    let path = if path.ends_with('/') {
        root.join(path).join("index.html")
    } else {
        root.join(path)
    };
    let Ok(mut file) = File::open(path) else {
        return stream.write_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let length = file.metadata()?.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    std::io::copy(&mut file, &mut stream).map(drop)
}

/// Peak memory of this process in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn real_archives_become_a_payload_in_little_memory() {
    let Some(mirror) = mirror() else {
        assert!(
            std::env::var_os("CI").is_none(),
            "no mirror of real archives: run cos-parts first"
        );
        println!("SKIPPED: no mirror of real archives in the cache folder; run cos-parts first");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::mirror(&serve(mirror.clone())).unwrap();
    let fetcher = Fetcher::new(Arc::new(|_| ())).unwrap();
    let cache = ArchiveCache::open(folder.path()).unwrap();
    let keys = TrustedKeys::with_file(Some(&mirror.join("test-key.asc"))).unwrap();
    let source = Source {
        upstream: &upstream,
        fetcher: &fetcher,
        cache: &cache,
        keys: &keys,
    };
    let start = Instant::now();
    let request = LockRequest {
        versions: BTreeMap::new(),
        arches: BTreeSet::from([Arch::X86_64]),
    };
    let lock = resolve(&request, &source, None).await.unwrap();
    println!("lock after {:?}\n{}", start.elapsed(), lock.render());

    // This test's own program stands for the agent: what counts is that it is an ELF file of some size.
    let agent = AgentBinary {
        path: std::env::current_exe().unwrap(),
        origin: AgentOrigin::Argument,
    };
    let bundles = folder.path().join("bundles");
    let bundle = prepare(&source, &lock, Arch::X86_64, &agent, &bundles)
        .await
        .unwrap();
    println!("bundle of {} MiB after {:?}", bundle.size >> 20, start.elapsed());
    let again = prepare(&source, &lock, Arch::X86_64, &agent, &bundles)
        .await
        .unwrap();
    assert!(again.reused && !bundle.reused);
    assert_eq!(again.sha256, bundle.sha256);
    println!("found again after {:?}", start.elapsed());
    let payload = Payload::open(&bundle).unwrap();
    let zeros = (0..payload.blocks())
        .filter(|&index| payload.read_block(index).unwrap().is_zero())
        .count();
    println!(
        "{} blocks ({zeros} of zeros) after {:?}; peak {} MiB",
        payload.blocks(),
        start.elapsed(),
        peak() >> 10
    );
    assert!(peak() < MEMORY_LIMIT, "peak of {} KiB", peak());
}
