//! Owns AWS's endpoint inside the VPC: TLS for any `*.amazonaws.com` name, passed on to the sandbox's API.
//! Touches one listener in the VPC's namespace, and connections to the API on the host's loopback.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::namespace::Namespace;
use super::network::RESOLVER;

/// Serves `https://ANY.amazonaws.com` in the VPC from the plain HTTP API at `api`, until `stop` is cancelled.
///
/// Bytes are passed through untouched, the Host header among them: the API sees what the node sent.
pub(crate) async fn serve(
    namespace: &Namespace,
    authority: Arc<Authority>,
    api: SocketAddr,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(authority);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let secure = namespace.listen(SocketAddrV4::new(RESOLVER, 443)).await?;
    tokio::spawn(
        stop.clone()
            .run_until_cancelled_owned(accept(secure, acceptor, api, stop)),
    );
    Ok(())
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, api: SocketAddr, stop: CancellationToken) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: wait for some to be closed.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let acceptor = acceptor.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            // A handshake or connection that fails is the client's to report.
            if let Ok(mut secure) = acceptor.accept(stream).await
                && let Ok(mut plain) = TcpStream::connect(api).await
            {
                let _ended = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
            }
        }));
    }
}
