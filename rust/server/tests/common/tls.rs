//! A TLS client that is not ours, whose every byte on the network the test can see, hold back, and cut.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use server::options::Options;

/// A certificate for `localhost` that signs itself, in files that go with it.
pub struct Certificate {
    directory: PathBuf,
}

impl Certificate {
    pub fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("server-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(directory.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        Self { directory }
    }

    /// Has a server speak TLS.
    pub fn give(&self, options: &mut Options) {
        options.tls = Some((self.directory.join("cert.pem"), self.directory.join("key.pem")));
    }

    fn client(&self) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.directory.join("cert.pem")).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What is read and written inside TLS.
pub struct TlsStream {
    pub tcp: TcpStream,
    tls: ClientConnection,
    /// What is to go onto the network, when it is not sent at once.
    pub outgoing: Vec<u8>,
    /// Only [`TlsStream::drip`] sends.
    pub drips: bool,
}

impl TlsStream {
    pub fn new(address: SocketAddr, certificate: &Certificate) -> Self {
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_nonblocking(true).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { tcp, tls: certificate.client(), outgoing: Vec::new(), drips: false }
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// One byte goes onto the network, if there is one.
    pub fn drip(&mut self) {
        self.pump().unwrap();
        if !self.outgoing.is_empty() {
            self.tcp.write_all(&[self.outgoing.remove(0)]).unwrap();
        }
    }

    /// Announces the end of what is sent.
    pub fn close_notify(&mut self) {
        self.tls.send_close_notify();
        self.pump().unwrap();
    }

    fn pump(&mut self) -> io::Result<()> {
        loop {
            match self.tls.read_tls(&mut self.tcp) {
                Ok(0) => break,
                Ok(_) => _ = self.tls.process_new_packets().map_err(io::Error::other)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.outgoing)?;
        }
        if !self.drips {
            self.tcp.write_all(&self.outgoing)?;
            self.outgoing.clear();
        }
        Ok(())
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pump()?;
        self.tls.reader().read(buffer)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.tls.writer().write(bytes)?;
        self.pump()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
