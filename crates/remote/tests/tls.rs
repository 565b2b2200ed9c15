//! Encrypted connections as MindIE's default has them: own authority, client certificate.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use glmbench_remote::testing::{Step, faults};
use glmbench_remote::{
    Api, Client, Endpoint, Failure, FailureKind, Generation, Prompt, RemoteError, Response, Retry, Tls,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// Starts a server that demands a client certificate, answers one request a connection, and returns its URL.
fn start() -> String {
    let provider = Arc::new(rustls_graviola::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.pem")).unwrap()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(file("server.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(file("server.key")).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            // A client that refuses the certificate ends its connection only.
            let _ = serve(StreamOwned::new(connection, stream));
        }
    });
    url
}

fn serve(stream: StreamOwned<ServerConnection, std::net::TcpStream>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let request = glmbench_remote::testing::Request {
        method: "POST".into(),
        path: "/joined/v1/completions".into(),
        headers: Vec::new(),
        body: Vec::new(),
        connection: 0,
        number: 0,
    };
    for step in faults::behave("joined", &request, 1).steps {
        if let Step::Write(bytes) = step {
            reader.get_mut().write_all(&bytes)?;
        }
    }
    reader.get_mut().conn.send_close_notify();
    reader.get_mut().flush()
}

fn ask(url: &str, tls: Tls) -> Result<Result<Response, Failure>, RemoteError> {
    let mut endpoint = Endpoint::new(url.parse().unwrap(), Api::OpenAi);
    endpoint.model = Some("stub".into());
    endpoint.retry = Retry::NEVER;
    endpoint.tls = tls;
    let client = Client::new(endpoint)?;
    Ok(client.generate(&Generation::greedy(Prompt::Text("a".into()), 4), &mut |_| {}))
}

fn mutual() -> Tls {
    Tls { ca: Some(file("ca.pem")), certificate: Some(file("client.pem")), key: Some(file("client.key")) }
}

#[test]
fn both_sides_may_be_certified() {
    let response = ask(&start(), mutual()).unwrap().unwrap();
    assert_eq!(response.text, " 0 1 2 3");
    assert!(response.times.connected.unwrap() <= response.times.sent.unwrap());
}

#[test]
fn an_unknown_authority_is_refused() {
    let tls = Tls { ca: Some(file("other-ca.pem")), ..mutual() };
    let failure = ask(&start(), tls).unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
    assert!(failure.text.contains("certificate"), "{failure}");
}

#[test]
fn a_missing_client_certificate_is_named() {
    let tls = Tls { certificate: None, key: None, ..mutual() };
    let failure = ask(&start(), tls).unwrap().unwrap_err();
    // The server's alert comes with the first bytes of its answer, or is lost behind the closed connection.
    assert!(matches!(failure.kind, FailureKind::Tls | FailureKind::Cut), "{failure}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let cases = [
        (Tls { certificate: None, ..mutual() }, "a client key without its certificate"),
        (Tls { key: None, ..mutual() }, "a client certificate without its key"),
        (Tls { ca: Some(file("server.key")), ..mutual() }, "server.key: no certificate"),
        (Tls { key: Some(file("client.pem")), ..mutual() }, "client.pem: no private key"),
        (Tls { key: Some(file("encrypted.key")), ..mutual() }, "openssl pkey"),
        (Tls { ca: Some(file("none.pem")), ..mutual() }, "none.pem"),
    ];
    for (tls, expected) in cases {
        let error = ask("https://127.0.0.1:1", tls).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn encryption_is_set_up_only_where_it_is_needed() {
    let mut endpoint = Endpoint::new("http://127.0.0.1:1".parse().unwrap(), Api::Tgi);
    endpoint.tls.ca = Some(file("none.pem"));
    assert!(Client::new(endpoint).is_ok());
}
