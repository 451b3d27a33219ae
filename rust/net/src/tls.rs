//! TLS by rustls: certificates from files, and one connection's state.

use crate::queue::SendQueue;
use crate::sys;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a server needs to speak TLS: its certificate and key.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    config: Arc<ServerConfig>,
}

impl TlsConfig {
    /// Reads a certificate chain and its private key from PEM files.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(cert)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::read(key, error))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self { config: Arc::new(config) })
    }
}

/// What a client needs to speak TLS: whom it trusts.
#[derive(Clone, Debug)]
pub struct TlsClientConfig {
    config: Arc<ClientConfig>,
}

impl TlsClientConfig {
    /// Trusts servers whose certificate is in this PEM file, or was signed by one that is.
    pub fn trusting(ca: &Path) -> Result<Self, TlsError> {
        let listed = certificates(ca)?;
        let mut roots = RootCertStore::empty();
        // The systems' own lists have some of which rustls knows nothing.
        roots.add_parsable_certificates(listed.iter().cloned());
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusted { listed, signed }))
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }
}

/// A certificate is believed if it is listed, or signed by one that is. rustls alone takes those that may sign others, as all are that
/// have signed themselves by openssl's defaults, for signers only.
#[derive(Debug)]
struct Trusted {
    listed: Vec<CertificateDer<'static>>,
    signed: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.listed.contains(end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Why certificates could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or is no PEM file.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: pem::Error,
    },
    /// The file has no certificate in it.
    #[error("{}: no certificate in this file (expected a PEM file with BEGIN CERTIFICATE)", .0.display())]
    NoCertificate(PathBuf),
    /// None of them can be one that is trusted.
    #[error("no certificate can be trusted: {0}")]
    Untrusted(#[from] VerifierBuilderError),
    /// rustls does not accept them: for instance, the key is not that of the certificate.
    #[error("the certificate and key cannot be used: {0}")]
    Rejected(#[from] rustls::Error),
}

impl TlsError {
    fn read(path: &Path, error: pem::Error) -> Self {
        Self::Read { path: path.to_owned(), error }
    }
}

/// One connection's TLS.
#[derive(Debug)]
pub(crate) struct Tls {
    connection: Connection,
}

impl Tls {
    pub(crate) fn server(config: &TlsConfig) -> Result<Self, rustls::Error> {
        Ok(Self { connection: ServerConnection::new(Arc::clone(&config.config))?.into() })
    }

    pub(crate) fn client(config: &TlsClientConfig, server_name: &str) -> io::Result<Self> {
        let name = ServerName::try_from(server_name.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(&config.config), name).map_err(io::Error::other)?;
        Ok(Self { connection: connection.into() })
    }

    /// Takes what the socket received and appends what it decrypts to. Says whether the peer has ended the stream.
    /// After an error there may be an alert to send.
    pub(crate) fn decrypt(&mut self, mut received: &[u8], plain: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            if !received.is_empty() {
                self.connection.read_tls(&mut received)?;
            }
            let state = self.connection.process_new_packets().map_err(io::Error::other)?;
            let waiting = state.plaintext_bytes_to_read();
            if waiting > 0 {
                let before = plain.len();
                plain.resize(before + waiting, 0);
                self.connection.reader().read_exact(&mut plain[before..])?;
            }
            if received.is_empty() || state.peer_has_closed() {
                return Ok(state.peer_has_closed());
            }
        }
    }

    /// Encrypts what is queued and sends it, as much as the socket takes. Returns how many bytes went onto the
    /// network; `Err(AGAIN)` in the second place means that more waits for the socket.
    pub(crate) fn send(&mut self, fd: &OwnedFd, queue: &mut SendQueue) -> (usize, Result<(), Errno>) {
        use rustix::fd::AsFd;
        let mut sent = 0;
        loop {
            while self.connection.wants_write() {
                let mut socket = Socket { fd: fd.as_fd(), error: None };
                match self.connection.write_tls(&mut socket) {
                    Ok(bytes) => sent += bytes,
                    Err(_) => return (sent, Err(socket.error.unwrap_or(Errno::IO))),
                }
            }
            if queue.is_empty() || self.connection.is_handshaking() {
                return (sent, Ok(()));
            }
            let mut pieces = [IoSlice::new(&[]); 16];
            let filled = queue.slices(&mut pieces);
            // Bounded by rustls's own buffer limit, which nothing is in now.
            match self.connection.writer().write_vectored(&pieces[..filled]) {
                Ok(taken) if taken > 0 => queue.advance(taken),
                _ => return (sent, Err(Errno::PIPE)),
            }
        }
    }

    /// Tells the peer that we will send no more.
    pub(crate) fn end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether TLS itself has something to say.
    pub(crate) fn has_to_answer(&self) -> bool {
        self.connection.wants_write()
    }
}

/// Where rustls writes to: straight to the socket, so that a broken pipe is no signal.
struct Socket<'a> {
    fd: BorrowedFd<'a>,
    error: Option<Errno>,
}

impl io::Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::send(self.fd, bytes).inspect_err(|&error| self.error = Some(error)).map_err(io::Error::from)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::send_vectored(self.fd, pieces)
            .inspect_err(|&error| self.error = Some(error))
            .map_err(io::Error::from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |error| TlsError::read(path, error);
    let found =
        CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
    if found.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(found) }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
