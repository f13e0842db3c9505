//! Whom to trust when a webhook is `https`.

use std::{io, sync::Arc, time::Duration};

use millpond_env::{Clock, Env, Stream};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
        time_provider::TimeProvider,
    },
};

use super::WebhookError;

/// Roots of trust. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Mozilla's roots, and the certificates in `pem`, for servers whose certificate is signed by the company's own authority.
    ///
    /// # Errors
    /// When `pem` has no certificate, or one that cannot be read.
    pub fn new(env: &Env, pem: Option<&[u8]>) -> Result<Trust, WebhookError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(pem) = pem {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| WebhookError::BadTrust(error.to_string()))?;
                roots.add(certificate).map_err(|error| WebhookError::BadTrust(error.to_string()))?;
            }
            if roots.len() == before {
                return Err(WebhookError::BadTrust("there is no certificate in PEM form".into()));
            }
        }
        let now = Arc::new(WallTime(env.clock.clone()));
        let config = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), now)
            .with_safe_default_protocol_versions()
            .map_err(|error| WebhookError::BadTrust(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust(Arc::new(config)))
    }

    pub(super) async fn connect(&self, host: &str, stream: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let secured = TlsConnector::from(self.0.clone()).connect(name, stream).await?;
        Ok(Box::new(secured))
    }
}

/// The node's own wall clock decides whether a certificate has expired.
#[derive(Debug)]
struct WallTime(Arc<dyn Clock>);

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        u64::try_from(self.0.wall().0).ok().map(|ns| UnixTime::since_unix_epoch(Duration::from_nanos(ns)))
    }
}
