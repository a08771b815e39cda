//! TLS to the database, as an address asks for it.

use std::path::{Path, PathBuf};

use activation_lock::time::Timestamp;
use escrow::clock::ManualClock;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::server;
use crate::support::{CODE_A, Vault, open_in};

/// Who signs certificates, and the file with its own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = folder.join(name);
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            file,
        }
    }

    /// The certificate of a server, and its key.
    fn server(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn a_server_proves_its_name_or_is_not_spoken_to() {
    let folder = TempDir::new().unwrap();
    let ours = Authority::new(folder.path(), "ours.pem");
    let other = Authority::new(folder.path(), "other.pem");
    let server = server();
    server.create("vault").unwrap();
    let (certificate, key) = ours.server("localhost");
    server.encrypt(&certificate, &key).unwrap();
    server.stop().unwrap();
    server.begin().unwrap();
    let port = server.port();
    let address = |host: &str, mode: &str, authority: &Authority| {
        let file = authority.file.display();
        format!(
            "postgres://lockwarden@{host}:{port}/vault?sslmode={mode}&sslrootcert={file}&connections=2"
        )
    };

    let vault = Vault::on(&address("localhost", "verify-full", &ours)).await;
    vault.type_code("SERIAL000001", CODE_A).await;
    assert!(vault.reveal("SERIAL000001").await[0].text.expose() == CODE_A);
    let sql = "SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'lockwarden' AND ssl";
    let encrypted: u32 = server.sql("vault", sql).unwrap().parse().unwrap();
    assert!(encrypted >= 3, "{encrypted} connections are encrypted");

    let open = async |address: String| {
        let clock = ManualClock::new(Timestamp(1_780_000_000_000));
        let folder = TempDir::new().unwrap();
        let database = escrow::Database::Postgres(address.parse().unwrap());
        let opened = open_in(folder.path(), database, &clock, 7).await;
        match opened {
            Ok(vault) => {
                vault.close().await;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    };
    for (what, refused) in [
        (
            "signed by another",
            address("localhost", "verify-full", &other),
        ),
        (
            "of another name",
            address("127.0.0.1", "verify-full", &ours),
        ),
    ] {
        let error = open(refused).await.expect_err(what);
        assert!(error.contains("certificate"), "{what}: {error}");
    }
    let plain = format!("postgres://lockwarden@127.0.0.1:{port}/vault?sslmode=disable");
    assert!(open(plain).await.is_err(), "in the clear");
    open(address("127.0.0.1", "verify-ca", &ours))
        .await
        .unwrap();
}
