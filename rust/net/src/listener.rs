//! A socket that others connect to.

use crate::address::Address;
use crate::sys;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A listening TCP or Unix socket, shared (in an `Arc`) by all reactors that accept from it.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    address: Address,
}

impl Listener {
    /// Listens at `address`; with port 0 at one that is free, see [`Listener::local_address`].
    ///
    /// A Unix socket's file is made accessible to its owner only, and removed again with the listener. One that was
    /// left behind by a process that is gone is replaced; one that somebody listens at is not, nor any other file.
    pub fn bind(address: &Address) -> io::Result<Self> {
        if let Address::Unix(path) = address {
            remove_stale(path)?;
        }
        let fd = sys::listen(address)?;
        let address = match address {
            Address::Tcp(_) => Address::Tcp(sys::local_address(&fd)?),
            Address::Unix(path) => {
                fs::set_permissions(path, Permissions::from_mode(0o600))?;
                address.clone()
            }
        };
        Ok(Self { fd, address })
    }

    /// Where it listens, with the port that it really has.
    pub fn local_address(&self) -> &Address {
        &self.address
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            // Nothing to be done if it is gone already.
            let _ = fs::remove_file(path);
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    let stale = found.file_type().is_socket()
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    if stale { fs::remove_file(path) } else { Err(io::ErrorKind::AddrInUse.into()) }
}
