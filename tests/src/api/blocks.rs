//! Owns the data plane of the EBS direct APIs: blocks into and out of snapshots. Starting and sealing one is moto's.
//! Touches the disk store.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::unistd::{Whence, lseek};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::call::Call;
use super::executor::{Executor, Refusal};
use super::store::GIB;
use crate::machines::Machines;

/// Bytes of one block.
pub const BLOCK: u64 = 512 << 10;
/// Blocks in one page of a list, if the caller does not say (ListSnapshotBlocks allows 100 to 10,000).
const PAGE: u64 = 10_000;

/// Answers a call if it is one of the data plane.
pub async fn answer<M: Machines>(
    executor: &Arc<Executor<M>>,
    call: &Call,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<Response<Body>> {
    if call.service != "ebs" {
        return None;
    }
    let parts: Vec<String> = uri
        .path()
        .trim_matches('/')
        .split('/')
        .map(str::to_owned)
        .collect();
    let snapshot = parts.get(1).cloned().unwrap_or_default();
    let index = parts.get(3).and_then(|it| it.parse::<u64>().ok());
    let (executor, headers, body, query) = (
        Arc::clone(executor),
        headers.clone(),
        body.to_vec(),
        uri.query().unwrap_or_default().to_owned(),
    );
    let operation = call.operation.clone();
    let work = move || match operation.as_str() {
        "PutSnapshotBlock" => Some(put(&executor, &snapshot, index, &headers, &body)),
        "GetSnapshotBlock" => Some(get(&executor, &snapshot, index, &query)),
        "ListSnapshotBlocks" => Some(list(&executor, &snapshot, &query)),
        "ListChangedBlocks" => Some(changed(&executor, &snapshot, &query)),
        _ => None,
    };
    // Hashing and writing half a megabyte has no place on the threads that answer everybody else.
    let result = tokio::task::spawn_blocking(work).await;
    match result.unwrap_or_else(|error| Some(Err(Refusal::internal(error.to_string())))) {
        None => None,
        Some(Ok(response)) => Some(response),
        Some(Err(refusal)) => {
            let status = match refusal.code.as_str() {
                "ResourceNotFoundException" => StatusCode::NOT_FOUND,
                "InternalError" => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            };
            Some(call.error(status, &refusal.code, &refusal.message))
        }
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("ValidationException", message)
}

fn put<M: Machines>(
    executor: &Executor<M>,
    snapshot: &str,
    index: Option<u64>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    let room = executor.upload(snapshot)?;
    let index = index.ok_or_else(|| invalid("the block index is not a number"))?;
    let value = |name: &str| headers.get(name).and_then(|it| it.to_str().ok());
    if value("x-amz-data-length") != Some("524288") || body.len() as u64 != BLOCK {
        return Err(invalid(format!(
            "block {index} has {} bytes, not 524288",
            body.len()
        )));
    }
    if value("x-amz-checksum-algorithm") != Some("SHA256") {
        return Err(invalid("the checksum algorithm is not SHA256"));
    }
    let digest: [u8; 32] = Sha256::digest(body).into();
    let (found, said) = (BASE64.encode(digest), value("x-amz-checksum").unwrap_or_default());
    if found != said {
        return Err(invalid(format!(
            "block {index}: checksum is {said}, but the data has {found}"
        )));
    }
    if (index + 1) * BLOCK > room {
        return Err(invalid(format!("block {index} is beyond the volume size")));
    }
    let path = executor.store().path(snapshot);
    let file = File::options()
        .write(true)
        .open(&path)
        .map_err(|error| io_failed(&path, &error))?;
    file.write_all_at(body, index * BLOCK)
        .map_err(|error| io_failed(&path, &error))?;
    executor.note_block(snapshot, index, digest);
    let mut response = Response::new(Body::from("{}"));
    *response.status_mut() = StatusCode::CREATED;
    put_header(&mut response, "x-amz-checksum", &found);
    put_header(&mut response, "x-amz-checksum-algorithm", "SHA256");
    Ok(response)
}

fn get<M: Machines>(
    executor: &Executor<M>,
    snapshot: &str,
    index: Option<u64>,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let (file, length) = open(executor, snapshot)?;
    let index = index.ok_or_else(|| invalid("the block index is not a number"))?;
    if parameter(query, "blockToken").as_deref() != Some(&token(snapshot, index)) {
        return Err(invalid(format!(
            "the block token is not that of block {index} of {snapshot}"
        )));
    }
    let bytes = read_block(&file, length, index).map_err(|error| Refusal::internal(error.to_string()))?;
    let checksum = BASE64.encode(Sha256::digest(&bytes));
    let mut response = Response::new(Body::from(bytes));
    put_header(&mut response, "x-amz-data-length", "524288");
    put_header(&mut response, "x-amz-checksum", &checksum);
    put_header(&mut response, "x-amz-checksum-algorithm", "SHA256");
    put_header(
        &mut response,
        header::CONTENT_TYPE.as_str(),
        "application/octet-stream",
    );
    Ok(response)
}

fn list<M: Machines>(executor: &Executor<M>, snapshot: &str, query: &str) -> Result<Response<Body>, Refusal> {
    let (mut file, length) = open(executor, snapshot)?;
    let blocks = present(&mut file, length).map_err(|error| Refusal::internal(error.to_string()))?;
    let entry = |index: u64| json!({"BlockIndex": index, "BlockToken": token(snapshot, index)});
    Ok(page(&blocks, query, length, "Blocks", entry))
}

fn changed<M: Machines>(
    executor: &Executor<M>,
    second: &str,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let first = parameter(query, "firstSnapshotId").unwrap_or_default();
    let ((mut old, old_length), (mut new, length)) = (open(executor, &first)?, open(executor, second)?);
    let failed = |error: io::Error| Refusal::internal(error.to_string());
    let mut candidates = present(&mut old, old_length).map_err(failed)?;
    candidates.extend(present(&mut new, length).map_err(failed)?);
    candidates.sort_unstable();
    candidates.dedup();
    let mut differing = Vec::new();
    for index in candidates {
        let before = read_block(&old, old_length, index).map_err(failed)?;
        if before != read_block(&new, length, index).map_err(failed)? {
            differing.push(index);
        }
    }
    let entry = |index: u64| json!({"BlockIndex": index, "FirstBlockToken": token(&first, index), "SecondBlockToken": token(second, index)});
    Ok(page(&differing, query, length, "ChangedBlocks", entry))
}

fn page(
    blocks: &[u64],
    query: &str,
    length: u64,
    name: &str,
    entry: impl Fn(u64) -> serde_json::Value,
) -> Response<Body> {
    let number = |key: &str| parameter(query, key).and_then(|it| it.parse::<u64>().ok());
    let start = number("pageToken")
        .or_else(|| number("startingBlockIndex"))
        .unwrap_or(0);
    let limit = usize::try_from(number("maxResults").unwrap_or(PAGE).clamp(1, PAGE)).unwrap_or(usize::MAX);
    let rest: Vec<u64> = blocks.iter().copied().filter(|index| *index >= start).collect();
    let (now, later) = rest.split_at(limit.min(rest.len()));
    let mut answer = json!({
        name: now.iter().map(|index| entry(*index)).collect::<Vec<_>>(),
        "VolumeSize": length.div_ceil(GIB),
        "BlockSize": BLOCK,
    });
    if let Some(next) = later.first() {
        answer["NextToken"] = json!(next.to_string());
    }
    let mut response = Response::new(Body::from(answer.to_string()));
    put_header(&mut response, header::CONTENT_TYPE.as_str(), "application/json");
    response
}

/// Opens a snapshot for reading. Those of base images belong to another account and are not readable, as in AWS.
fn open<M: Machines>(executor: &Executor<M>, snapshot: &str) -> Result<(File, u64), Refusal> {
    let path = executor.store().path(snapshot);
    let file = File::open(&path).map_err(|_| {
        Refusal::new(
            "ResourceNotFoundException",
            format!("The snapshot '{snapshot}' does not exist."),
        )
    })?;
    let length = file.metadata().map_err(|error| io_failed(&path, &error))?.len();
    Ok((file, length))
}

/// Indices of the blocks that hold data; holes were never written.
fn present(file: &mut File, length: u64) -> io::Result<Vec<u64>> {
    let mut blocks = Vec::new();
    let mut at: i64 = 0;
    while u64::try_from(at).unwrap_or(u64::MAX) < length {
        let data = match lseek(&*file, at, Whence::SeekData) {
            Ok(data) => data,
            Err(nix::errno::Errno::ENXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let hole = lseek(&*file, data, Whence::SeekHole)?;
        let (first, end) = (data.unsigned_abs() / BLOCK, hole.unsigned_abs().div_ceil(BLOCK));
        let known = blocks.last().map_or(0, |last| last + 1);
        blocks.extend(first.max(known)..end);
        at = hole;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(blocks)
}

/// One block, filled up with zeros where the file ends.
fn read_block(file: &File, length: u64, index: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let start = index * BLOCK;
    if start < length {
        let mut view = file.try_clone()?;
        view.seek(SeekFrom::Start(start))?;
        view.take(BLOCK).read_to_end(&mut bytes)?;
    }
    bytes.resize(usize::try_from(BLOCK).unwrap_or_default(), 0);
    Ok(bytes)
}

fn token(snapshot: &str, index: u64) -> String {
    BASE64.encode(format!("{snapshot}/{index}"))
}

/// A parameter of a query string, with `%xx` resolved.
fn parameter(query: &str, name: &str) -> Option<String> {
    let raw = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        let hex = |it: Option<u8>| it.and_then(|it| char::from(it).to_digit(16));
        let value = match byte {
            b'%' => u8::try_from(hex(rest.next())? * 16 + hex(rest.next())?).ok()?,
            b'+' => b' ',
            other => other,
        };
        bytes.push(value);
    }
    String::from_utf8(bytes).ok()
}

fn put_header(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn io_failed(path: &Path, error: &io::Error) -> Refusal {
    Refusal::internal(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(
            parameter("a=1&blockToken=c25h%3D%3d", "blockToken").as_deref(),
            Some("c25h==")
        );
        assert_eq!(parameter("a=1", "b"), None);
        assert_eq!(parameter("b=%zz", "b"), None);
    }

    #[test]
    fn only_written_blocks_are_present() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(GIB).unwrap();
        file.write_all_at(&[1; 4096], 3 * BLOCK).unwrap();
        file.write_all_at(&[1; 4096], 3 * BLOCK + 100_000).unwrap();
        file.write_all_at(&[1; 4096], 9 * BLOCK).unwrap();
        assert_eq!(present(&mut file, GIB).unwrap(), [3, 9]);
    }
}
