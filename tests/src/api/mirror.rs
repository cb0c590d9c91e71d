//! Owns the download mirror: a folder served over loopback, with listings, as the vendors' sites do.
//! Touches the folder, for reading only.

use std::path::{Component, Path, PathBuf};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, StatusCode, header};
use futures::stream;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// Answers with the file or folder at `path` below `root`.
pub async fn answer(root: &Path, path: &str) -> Response<Body> {
    let Some(file) = below(root, path) else {
        return plain(StatusCode::BAD_REQUEST, "not a path of this mirror\n");
    };
    if file.is_dir() {
        let index = file.join("index.html");
        if index.is_file() {
            return send(&index, "text/html").await;
        }
        return listing(&file);
    }
    let kind = match file.extension().and_then(|it| it.to_str()) {
        Some("json") => "application/json",
        Some("html") => "text/html",
        _ => "application/octet-stream",
    };
    send(&file, kind).await
}

fn below(root: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| root.join(relative))
}

async fn send(path: &Path, kind: &'static str) -> Response<Body> {
    let opened = async {
        let file = File::open(path).await?;
        let length = file.metadata().await?.len();
        Ok::<_, std::io::Error>((file, length))
    };
    let Ok((file, length)) = opened.await else {
        return plain(StatusCode::NOT_FOUND, "no such file\n");
    };
    let chunks = stream::unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        match file.read(&mut chunk).await {
            Ok(0) => None,
            Ok(count) => {
                chunk.truncate(count);
                Some((Ok(Bytes::from(chunk)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let mut response = Response::new(Body::from_stream(chunks));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// A listing in the manner of Apache and nginx, which readers of download sites parse.
fn listing(folder: &Path) -> Response<Body> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let slash = if entry.path().is_dir() { "/" } else { "" };
            entry.file_name().to_str().map(|name| format!("{name}{slash}"))
        })
        .collect();
    names.sort();
    let lines: Vec<String> = names
        .iter()
        .map(|name| format!("<a href=\"{name}\">{name}</a>"))
        .collect();
    let lines = lines.join("\n");
    let mut response = Response::new(Body::from(format!(
        "<html><body><pre>\n{lines}\n</pre></body></html>\n"
    )));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_listings_and_nothing_above_the_root() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/b.zip"), b"bytes").unwrap();
        let text = |response: Response<Body>| async {
            let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        assert_eq!(text(answer(folder.path(), "/a/b.zip").await).await, "bytes");
        assert!(
            text(answer(folder.path(), "/a/").await)
                .await
                .contains("href=\"b.zip\"")
        );
        assert_eq!(
            answer(folder.path(), "/a/../../etc/passwd").await.status(),
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            answer(folder.path(), "/none").await.status(),
            StatusCode::NOT_FOUND
        );
    }
}
