//! TLS as AWS speaks it: a server with a certificate of an authority of its own, found by its name.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use cos_agent::aws::{Client, Environment, Kind, Settings};
use cos_agent::error::chain;
use cos_agent::host::Files;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::fake;
use crate::server::Server;

/// A server for `name`, and the certificate of the authority that signed its own.
fn serve(name: &str) -> (Server, String) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // By name, so that the way there leads through the machine's name service.
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let wrap = move |stream: TcpStream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        Box::new(StreamOwned::new(connection, stream)) as Box<dyn crate::server::Stream>
    };
    (Server::wrapped(listener, url, Arc::new(wrap), fake::aws), pem)
}

fn client(server: &Server, root: &tempfile::TempDir, bundle: Option<&str>) -> Client {
    let mut variables = vec![
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("AWS_ENDPOINT_URL", &server.url),
    ];
    variables.extend(bundle.map(|bundle| ("AWS_CA_BUNDLE", bundle)));
    let environment: Environment = variables.into_iter().collect();
    Client::new(Settings {
        files: Files::new(root.path()),
        deadline: Duration::from_secs(5),
        ..Settings::new(fake::REGION, environment)
    })
}

#[test]
fn the_machines_authorities_and_the_environments_are_trusted() {
    let (server, authority) = serve("localhost");
    let root = tempfile::tempdir().unwrap();
    let files = Files::new(root.path());
    files
        .write_atomic("/etc/own.pem", authority.as_bytes(), 0o644)
        .unwrap();
    client(&server, &root, Some("/etc/own.pem"))
        .get_parameters(["/cos/key"])
        .unwrap();
    // Where Amazon Linux has them.
    files
        .write_atomic("/etc/pki/tls/certs/ca-bundle.crt", authority.as_bytes(), 0o644)
        .unwrap();
    client(&server, &root, None).get_parameters(["/cos/key"]).unwrap();
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_stranger_is_told_at_once() {
    let (server, _) = serve("localhost");
    let (_, other) = serve("localhost");
    let root = tempfile::tempdir().unwrap();
    Files::new(root.path())
        .write_atomic("/etc/ssl/certs/ca-certificates.crt", other.as_bytes(), 0o644)
        .unwrap();
    let error = client(&server, &root, None)
        .get_parameters(["/cos/key"])
        .unwrap_err();
    assert!(
        matches!(&error.kind, Kind::Distrusted { .. }),
        "{}",
        chain(&error)
    );
    assert_eq!(error.tries, 1);
    assert!(error.hint().unwrap().contains("AWS_CA_BUNDLE"));
    assert!(
        server.asked().is_empty(),
        "no request, and so no secret, reached it"
    );
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let (server, authority) = serve("ssm.eu-central-1.amazonaws.com");
    let root = tempfile::tempdir().unwrap();
    Files::new(root.path())
        .write_atomic("/etc/own.pem", authority.as_bytes(), 0o644)
        .unwrap();
    let error = client(&server, &root, Some("/etc/own.pem"))
        .get_parameters(["/cos/key"])
        .unwrap_err();
    assert!(
        matches!(&error.kind, Kind::Distrusted { reason, .. } if reason.contains("Name")),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_machine_without_authorities_is_told() {
    let (server, _) = serve("localhost");
    let root = tempfile::tempdir().unwrap();
    let error = client(&server, &root, None)
        .get_parameters(["/cos/key"])
        .unwrap_err();
    assert!(
        matches!(&error.kind, Kind::Configuration(reason) if reason.contains("no list of trusted authorities")),
        "{}",
        chain(&error)
    );
}
