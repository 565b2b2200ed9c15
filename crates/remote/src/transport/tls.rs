//! Certificates, keys, and the cryptography behind them.

use std::path::Path;
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::files::read_bounded;
use crate::{RemoteError, Tls};

/// The largest file of certificates: a system's bundle has about 250 KiB.
const MAX_PEM: u64 = 4 << 20;

/// Where distributions keep the authorities that they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reads the files and returns the configuration of encrypted connections.
pub(super) fn config(files: &Tls) -> Result<TlsConfig, RemoteError> {
    cpu_can_encrypt()?;
    let provider = rustls_graviola::default_provider();
    let client = match (&files.certificate, &files.key) {
        (None, None) => None,
        (Some(chain), Some(key)) => {
            let chain = certificates(chain)?;
            let key = private_key(key)?;
            // A key of an unknown kind would otherwise fail within the first request.
            let der = rustls_key(&key)?;
            provider.key_provider.load_private_key(der).map_err(|e| {
                RemoteError::Option(format!(
                    "the client key cannot be used: {e}; expected RSA, ECDSA P-256/P-384 or Ed25519"
                ))
            })?;
            Some(ClientCert::new_with_certs(&chain, key))
        }
        (Some(_), None) => {
            return Err(RemoteError::Option("a client certificate without its key: give both".into()));
        }
        (None, Some(_)) => {
            return Err(RemoteError::Option("a client key without its certificate: give both".into()));
        }
    };
    let roots = match &files.ca {
        Some(path) => certificates(path)?,
        None => system_roots()?,
    };
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(client)
        .build())
}

fn rustls_key(key: &PrivateKey<'_>) -> Result<rustls::pki_types::PrivateKeyDer<'static>, RemoteError> {
    rustls::pki_types::PrivateKeyDer::try_from(key.der().to_vec())
        .map_err(|e| RemoteError::Option(format!("the client key cannot be read: {e}")))
}

/// The cryptography panics where the CPU lacks its instructions. This check says so before.
fn cpu_can_encrypt() -> Result<(), RemoteError> {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("adx", std::arch::is_x86_feature_detected!("adx")),
        ("aes", std::arch::is_x86_feature_detected!("aes")),
        ("avx", std::arch::is_x86_feature_detected!("avx")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("bmi1", std::arch::is_x86_feature_detected!("bmi1")),
        ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
        ("pclmulqdq", std::arch::is_x86_feature_detected!("pclmulqdq")),
        ("ssse3", std::arch::is_x86_feature_detected!("ssse3")),
    ];
    #[cfg(target_arch = "aarch64")]
    let features = [
        ("aes", std::arch::is_aarch64_feature_detected!("aes")),
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("pmull", std::arch::is_aarch64_feature_detected!("pmull")),
        ("sha2", std::arch::is_aarch64_feature_detected!("sha2")),
    ];
    let missing: Vec<&str> = features.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(RemoteError::Option(format!(
        "this CPU cannot encrypt: it lacks {}; use http, or a proxy on this host that encrypts",
        missing.join(", ")
    )))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RemoteError> {
    let pem = read_bounded(path, MAX_PEM, "certificate")?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(e) => {
                return Err(RemoteError::Option(format!("{}: no PEM certificate: {e}", path.display())));
            }
        }
    }
    if found.is_empty() {
        return Err(RemoteError::Option(format!(
            "{}: no certificate: expected PEM, `-----BEGIN CERTIFICATE-----`",
            path.display()
        )));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, RemoteError> {
    let pem = read_bounded(path, MAX_PEM, "key")?;
    let holds = |what: &[u8]| pem.windows(what.len()).any(|window| window == what);
    if holds(b"ENCRYPTED") {
        return Err(RemoteError::Option(format!(
            "{}: the key is encrypted: decrypt it with `openssl pkey -in FILE -out PLAIN`",
            path.display()
        )));
    }
    PrivateKey::from_pem(&pem).map_err(|_| {
        RemoteError::Option(format!(
            "{}: no private key: expected PEM, `-----BEGIN PRIVATE KEY-----`",
            path.display()
        ))
    })
}

fn system_roots() -> Result<Vec<Certificate<'static>>, RemoteError> {
    let chosen = std::env::var_os("SSL_CERT_FILE");
    let places = chosen.iter().map(Path::new).chain(SYSTEM_BUNDLES.iter().map(Path::new));
    for place in places {
        if place.exists() {
            return certificates(place);
        }
    }
    Err(RemoteError::Option(format!(
        "no certificate authorities: none given, and none of {} exists; name a file",
        SYSTEM_BUNDLES.join(", ")
    )))
}
