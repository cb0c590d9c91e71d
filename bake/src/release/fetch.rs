//! Owns downloads: one HTTP client, deadlines, retries of what may pass by itself, progress.
//! Touches the network, and temporary files in a folder that the caller names.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use tempfile::NamedTempFile;

use super::ReleaseError;
use crate::digest::{Digest, DigestMismatch, DigestWriter};

/// Time to reach a server.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest silence of a server in the middle of an answer.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// Longest time of one attempt: a server that drips must not hold a bake for ever.
const ATTEMPT_DEADLINE: Duration = Duration::from_mins(30);
/// Attempts at one download, the first included.
const ATTEMPTS: u32 = 5;
/// Longest pause that a server's `Retry-After` is granted.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Progress is told each time that so many bytes have come.
const PROGRESS_STEP: u64 = 4 * 1024 * 1024;
/// Largest archive taken when no size is locked: some four times today's largest.
const ARCHIVE_LIMIT: u64 = 1024 * 1024 * 1024;
/// Prefix of files in the cache that are not finished.
pub(crate) const PART_PREFIX: &str = ".part-";

/// Something to tell about a download.
#[derive(Debug, Clone)]
pub enum FetchEvent {
    /// A download has begun.
    Started {
        /// Address.
        url: String,
        /// Length in bytes, if the server tells.
        total: Option<u64>,
    },
    /// More of it has come.
    Progress {
        /// Address.
        url: String,
        /// Bytes so far.
        done: u64,
        /// Length in bytes, if the server tells.
        total: Option<u64>,
    },
    /// It is complete.
    Finished {
        /// Address.
        url: String,
        /// Length in bytes.
        bytes: u64,
    },
    /// An attempt failed; another follows.
    Retrying {
        /// Address.
        url: String,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Pause before the next.
        pause: Duration,
        /// Why it failed.
        reason: String,
    },
    /// A cached archive is not what its name says; it is downloaded again.
    CacheDamaged {
        /// The file that was removed.
        path: PathBuf,
        /// Its digests.
        mismatch: DigestMismatch,
    },
}

impl fmt::Display for FetchEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { url, .. } => write!(formatter, "downloading {url}"),
            Self::Progress {
                url,
                done,
                total: Some(total),
            } => {
                write!(
                    formatter,
                    "downloading {url}: {} of {} KiB",
                    done / 1024,
                    total.div_ceil(1024)
                )
            }
            Self::Progress {
                url,
                done,
                total: None,
            } => write!(formatter, "downloading {url}: {} KiB", done / 1024),
            Self::Finished { url, bytes } => {
                write!(formatter, "downloaded {url}: {} KiB", bytes.div_ceil(1024))
            }
            Self::Retrying {
                url,
                attempt,
                pause,
                reason,
            } => {
                let seconds = pause.as_secs_f32();
                write!(
                    formatter,
                    "attempt {attempt} at {url} failed ({reason}); the next in {seconds:.1} s"
                )
            }
            Self::CacheDamaged { mismatch, .. } => {
                write!(formatter, "damaged in the cache, made again: {mismatch}")
            }
        }
    }
}

/// Who hears of downloads.
pub type Observer = Arc<dyn Fn(FetchEvent) + Send + Sync>;

/// Downloads from an upstream.
#[derive(Clone)]
pub struct Fetcher {
    client: Client,
    direct: Client,
    observer: Observer,
    first_pause: Duration,
}

/// A finished download that has no name yet.
#[derive(Debug)]
pub struct Downloaded {
    /// The file; it is removed when this is dropped.
    pub file: NamedTempFile,
    /// Digest of what came.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// How one attempt ended, if not well.
enum Fault {
    /// Another attempt may go better; with the pause that the server asks for.
    Transient(TransientFault, Option<Duration>),
    /// No attempt will.
    Final(ReleaseError),
}

enum TransientFault {
    Transport(reqwest::Error),
    Status(StatusCode),
}

impl From<reqwest::Error> for Fault {
    fn from(error: reqwest::Error) -> Self {
        if error.is_builder() {
            return Self::Final(ReleaseError::Client(error));
        }
        if error.is_redirect() {
            return Self::Final(ReleaseError::Redirected(error));
        }
        Self::Transient(TransientFault::Transport(error), None)
    }
}

impl Fetcher {
    /// Clients that go through the proxy of the environment, or straight to this machine's own addresses.
    pub fn new(observer: Observer) -> Result<Self, ReleaseError> {
        let builder = || {
            Client::builder()
                .user_agent(concat!("cos-bake/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_DEADLINE)
                .read_timeout(READ_DEADLINE)
                .timeout(ATTEMPT_DEADLINE)
                .redirect(redirects())
        };
        let client = builder().build().map_err(ReleaseError::Client)?;
        let direct = builder().no_proxy().build().map_err(ReleaseError::Client)?;
        Ok(Self {
            client,
            direct,
            observer,
            first_pause: Duration::from_millis(500),
        })
    }

    /// The same with another pause after the first failure (it doubles from then on); tests have no time.
    #[must_use]
    pub fn with_first_pause(mut self, pause: Duration) -> Self {
        self.first_pause = pause;
        self
    }

    /// Tells the observer.
    pub(crate) fn tell(&self, event: FetchEvent) {
        (self.observer)(event);
    }

    /// Gets a small answer into memory, at most `limit` bytes. None if the address does not exist.
    pub async fn get(&self, url: &str, limit: u64) -> Result<Option<Vec<u8>>, ReleaseError> {
        self.attempt(url, async || {
            let Some(mut response) = self.request(url).await? else {
                return Ok(None);
            };
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 > limit {
                    return Err(Fault::Final(ReleaseError::TooLarge {
                        url: url.to_owned(),
                        limit,
                    }));
                }
            }
            Ok(Some(bytes))
        })
        .await
    }

    /// Downloads into a temporary file in `folder`. None if the address does not exist.
    ///
    /// With `size` known, a longer answer is dropped as soon as it is too long, and a shorter one refused.
    pub async fn download(
        &self,
        url: &str,
        folder: &Path,
        size: Option<u64>,
    ) -> Result<Option<Downloaded>, ReleaseError> {
        self.attempt(url, async || {
            let Some(mut response) = self.request(url).await? else {
                return Ok(None);
            };
            let total = response.content_length();
            self.tell(FetchEvent::Started {
                url: url.to_owned(),
                total,
            });
            let on_file = |source| {
                Fault::Final(ReleaseError::File {
                    path: folder.to_owned(),
                    source,
                })
            };
            let mut file = tempfile::Builder::new()
                .prefix(PART_PREFIX)
                .tempfile_in(folder)
                .map_err(on_file)?;
            // Writes block for microseconds (page cache); a thread for each chunk would cost more.
            let mut writer = DigestWriter::new(file.as_file_mut());
            let mut told = 0;
            while let Some(chunk) = response.chunk().await? {
                writer.write_all(&chunk).map_err(on_file)?;
                let done = writer.length();
                match size {
                    Some(expected) if done > expected => {
                        return Err(Fault::Final(ReleaseError::Size {
                            url: url.to_owned(),
                            expected,
                            actual: done,
                        }));
                    }
                    None if done > ARCHIVE_LIMIT => {
                        return Err(Fault::Final(ReleaseError::TooLarge {
                            url: url.to_owned(),
                            limit: ARCHIVE_LIMIT,
                        }));
                    }
                    _ => {}
                }
                if done - told >= PROGRESS_STEP {
                    told = done;
                    self.tell(FetchEvent::Progress {
                        url: url.to_owned(),
                        done,
                        total,
                    });
                }
            }
            let (digest, bytes) = writer.finish();
            if let Some(expected) = size.filter(|&expected| expected != bytes) {
                return Err(Fault::Final(ReleaseError::Size {
                    url: url.to_owned(),
                    expected,
                    actual: bytes,
                }));
            }
            self.tell(FetchEvent::Finished {
                url: url.to_owned(),
                bytes,
            });
            Ok(Some(Downloaded {
                file,
                digest,
                size: bytes,
            }))
        })
        .await
    }

    /// One request. None for an address that does not exist.
    async fn request(&self, url: &str) -> Result<Option<Response>, Fault> {
        let client = if is_loopback(url) {
            &self.direct
        } else {
            &self.client
        };
        let response = client.get(url).send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(Some(response));
        }
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(None);
        }
        let transient = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            );
        if !transient {
            return Err(Fault::Final(ReleaseError::Status {
                url: url.to_owned(),
                status,
            }));
        }
        let pause = response.headers().get(reqwest::header::RETRY_AFTER);
        let pause = pause.and_then(|seconds| seconds.to_str().ok()?.parse().ok().map(Duration::from_secs));
        Err(Fault::Transient(TransientFault::Status(status), pause))
    }

    /// Repeats an attempt while its failures may pass, with growing pauses and jitter.
    async fn attempt<T>(
        &self,
        url: &str,
        once: impl AsyncFn() -> Result<T, Fault>,
    ) -> Result<T, ReleaseError> {
        let mut attempt = 1;
        loop {
            let (fault, asked) = match once().await {
                Ok(value) => return Ok(value),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Transient(fault, asked)) => (fault, asked),
            };
            if attempt == ATTEMPTS {
                return Err(match fault {
                    TransientFault::Transport(source) => ReleaseError::Unreachable {
                        url: url.to_owned(),
                        attempts: ATTEMPTS,
                        source,
                    },
                    TransientFault::Status(status) => ReleaseError::Status {
                        url: url.to_owned(),
                        status,
                    },
                });
            }
            let grown = self.first_pause * 2_u32.pow(attempt - 1);
            let pause = asked
                .map_or(grown, |asked| asked.min(LONGEST_PAUSE))
                .mul_f64(0.75 + 0.5 * rand::random::<f64>());
            let reason = match fault {
                TransientFault::Transport(error) => chain(&error),
                TransientFault::Status(status) => status.to_string(),
            };
            self.tell(FetchEvent::Retrying {
                url: url.to_owned(),
                attempt,
                pause,
                reason,
            });
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

/// A few redirects (GitHub needs them), never from https to http.
fn redirects() -> Policy {
    Policy::custom(|attempt| {
        let secure = attempt.previous().iter().any(|url| url.scheme() == "https");
        if secure && attempt.url().scheme() != "https" {
            return attempt.error("redirected from https to http");
        }
        if attempt.previous().len() > 5 {
            attempt.error("redirected too often")
        } else {
            attempt.follow()
        }
    })
}

/// Whether an address is on this machine, where no proxy belongs in between.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse()
            .is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The last cause says most: reqwest's own text is only "error sending request".
fn chain(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, loopback) in [
            ("http://127.0.0.1:8480/x", true),
            ("http://localhost/", true),
            ("http://[::1]:1/x", true),
            ("http://127.0.0.1.example.org", false),
            ("https://github.com", false),
        ] {
            assert_eq!(is_loopback(url), loopback, "{url}");
        }
    }

    #[tokio::test]
    async fn a_circle_of_redirects_is_upstreams_fault() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let location = url.clone();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let fetcher = Fetcher::new(Arc::new(|_| ())).unwrap();
        let error = fetcher.get(&url, 10).await.unwrap_err();
        assert!(matches!(error, ReleaseError::Redirected(_)), "{error}");
        assert_eq!(error.exit_class(), crate::release::FailureClass::Network);
    }
}
