//! The certificates of the fakes: Apple's push certificate authority, and the one that signs the fake servers.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::Now;

/// The object identifier of a subject's `UID`, where Apple puts the topic.
const UID: [u64; 7] = [0, 9, 2342, 19_200_300, 100, 1, 1];

/// A certificate (with those of its chain that its holder was given) and its private key, both PEM; the key is PKCS#8.
#[derive(Clone)]
pub struct PushCertificate {
    /// The topic, which is the subject's UID: `com.apple.mgmt.External.<uuid>`.
    pub topic: String,
    /// The leaf first, then the chain.
    pub certificate_pem: String,
    /// Not encrypted.
    pub key_pem: String,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

impl PushCertificate {
    /// Certificate and key in one text, as `PUT /v1/pushcert` of NanoMDM takes them.
    pub fn bundle_pem(&self) -> String {
        format!("{}{}", self.certificate_pem, self.key_pem)
    }
}

/// Who signs a push certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Issuer {
    /// The authority the fake Apple trusts, directly.
    #[default]
    Trusted,
    /// An intermediate of that authority, whose certificate is in the PEM.
    IntermediateWithChain,
    /// The same intermediate, but its certificate is missing from the PEM: the fake Apple cannot build the chain.
    IntermediateWithoutChain,
    /// An authority the fake Apple does not know.
    Unknown,
}

/// What key a push certificate has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// ECDSA P-256: quick to make.
    #[default]
    P256,
    /// RSA with 2048 bits, as real push certificates have. Takes up to a second to make.
    Rsa2048,
}

/// What push certificate is wanted.
#[derive(Clone, Debug)]
pub struct PushCertificateOptions {
    /// The topic, the whole of it.
    pub topic: String,
    /// From when on it is valid.
    pub not_before: OffsetDateTime,
    /// Until when it is valid.
    pub not_after: OffsetDateTime,
    /// Who signs it.
    pub issuer: Issuer,
    /// What key it has.
    pub key: Key,
}

impl PushCertificateOptions {
    /// A certificate as Apple gives them: valid from a day ago, for a year.
    pub fn new(topic: impl Into<String>, now: OffsetDateTime) -> Self {
        Self {
            topic: topic.into(),
            not_before: now - Duration::days(1),
            not_after: now + Duration::days(364),
            issuer: Issuer::default(),
            key: Key::default(),
        }
    }

    /// One that ended yesterday.
    #[must_use]
    pub fn expired(mut self) -> Self {
        let length = self.not_after - self.not_before;
        self.not_after = self.not_before;
        self.not_before = self.not_after - length;
        self
    }

    /// One signed by this issuer.
    #[must_use]
    pub fn signed_by(mut self, issuer: Issuer) -> Self {
        self.issuer = issuer;
        self
    }

    /// One with this kind of key.
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.key = key;
        self
    }
}

/// Why a certificate could not be made: what rcgen says, such as a validity that ends before it begins.
#[derive(Debug, thiserror::Error)]
#[error("the fake authority could not make a certificate: {0}")]
pub struct AuthorityError(#[from] rcgen::Error);

/// All authorities of one fake Apple, made anew for each.
pub(crate) struct Authority {
    now: Now,
    servers: Root,
    foreign: Root,
    push: Root,
    intermediate: Root,
    unknown: Root,
}

type Root = CertifiedIssuer<'static, KeyPair>;

/// A server's certificate chain and key.
pub(crate) type ServerIdentity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    pub(crate) fn new(now: Now) -> Result<Self, AuthorityError> {
        let root = |name: &str| -> Result<Root, AuthorityError> {
            Ok(CertifiedIssuer::self_signed(
                authority(name),
                KeyPair::generate()?,
            )?)
        };
        let push = root("Sim Push Root CA")?;
        let intermediate = CertifiedIssuer::signed_by(
            authority("Sim Application Integration CA"),
            KeyPair::generate()?,
            &push,
        )?;
        Ok(Self {
            now,
            servers: root("Sim Server CA")?,
            foreign: root("Sim Foreign CA")?,
            push,
            intermediate,
            unknown: root("Sim Unknown Push CA")?,
        })
    }

    /// The authority a client of the fake must trust.
    pub(crate) fn servers_pem(&self) -> String {
        self.servers.pem()
    }

    /// The authority push certificates must chain to.
    pub(crate) fn push_root(&self) -> CertificateDer<'static> {
        self.push.der().clone()
    }

    /// A certificate for 127.0.0.1, ::1 and localhost; by an authority nobody trusts when `foreign`.
    pub(crate) fn server(&self, foreign: bool) -> Result<ServerIdentity, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        for address in [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()] {
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        params.distinguished_name = name("Sim deviceservices-external");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = if foreign {
            &self.foreign
        } else {
            &self.servers
        };
        let leaf = params.signed_by(&key, issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok((vec![leaf.der().clone()], key))
    }

    /// What a service makes its tokens from: the randomness of a key made anew, which nobody else has.
    pub(crate) fn seed(&self) -> Result<[u8; 32], AuthorityError> {
        use sha2::Digest;
        let key = KeyPair::generate()?;
        Ok(sha2::Sha256::digest(key.serialized_der()).into())
    }

    pub(crate) fn issue(
        &self,
        wanted: &PushCertificateOptions,
    ) -> Result<PushCertificate, AuthorityError> {
        let key = match wanted.key {
            Key::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Key::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        let uuid = wanted.topic.rsplit('.').next().unwrap_or_default();
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CustomDnType(UID.to_vec()), wanted.topic.as_str());
        subject.push(DnType::CommonName, format!("APSP:{uuid}"));
        subject.push(DnType::CountryName, "US");
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.not_before = wanted.not_before;
        params.not_after = wanted.not_after;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (issuer, chain) = match wanted.issuer {
            Issuer::Trusted => (&self.push, None),
            Issuer::IntermediateWithChain => (&self.intermediate, Some(self.intermediate.pem())),
            Issuer::IntermediateWithoutChain => (&self.intermediate, None),
            Issuer::Unknown => (&self.unknown, None),
        };
        let leaf = params.signed_by(&key, issuer)?;
        Ok(PushCertificate {
            topic: wanted.topic.clone(),
            certificate_pem: leaf.pem() + chain.as_deref().unwrap_or_default(),
            key_pem: key.serialize_pem(),
            not_after: wanted.not_after,
        })
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.now.get()
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn authority(common: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The subject of a client's certificate, as text, and its UID; nothing where it cannot be read.
pub(crate) fn subject_of(certificate: &CertificateDer<'_>) -> (Option<String>, Option<String>) {
    use x509_cert::der::{Decode, asn1::ObjectIdentifier, asn1::Utf8StringRef};
    let Ok(parsed) = x509_cert::Certificate::from_der(certificate) else {
        return (None, None);
    };
    let subject = parsed.tbs_certificate().subject();
    let oid = ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1");
    let uid = subject
        .iter()
        .find(|attribute| attribute.oid == oid)
        .and_then(|attribute| {
            attribute
                .value
                .decode_as::<Utf8StringRef<'_>>()
                .ok()
                .map(|text| text.as_str().to_owned())
        });
    (Some(subject.to_string()), uid)
}

/// When a certificate ends, RFC 3339.
pub(crate) fn not_after_of(certificate: &CertificateDer<'_>) -> Option<String> {
    use x509_cert::der::Decode;
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    Some(
        parsed
            .tbs_certificate()
            .validity()
            .not_after
            .to_date_time()
            .to_string(),
    )
}
