//! What is likely to be the same at the next request of a connection: who sends it, and what the application is told of
//! the client.
//!
//! Owns the memory of one connection. What it remembers counts only for the very same bytes, and never keeps a session
//! in memory: that is up to [`super::callers`].

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use super::admit::Arrived;
use super::callers::Recent;
use super::entry::Entry;
use super::host::RequestHost;
use crate::proxy::{Client, ClientInfo};
use crate::server::Connection;

/// The memory of one connection.
#[derive(Debug, Default)]
pub(super) struct Recollection {
    /// Who sent the last request.
    pub(super) presented: Recent,
    told: RefCell<Option<Rc<Told>>>,
}

/// What the application was told last of the client.
#[derive(Debug)]
pub(super) struct Told {
    address: IpAddr,
    host: Rc<RequestHost>,
    /// As it is told.
    pub(super) fields: Client,
}

impl Recollection {
    /// That of `connection`.
    pub(super) fn of(connection: &Connection) -> Rc<Self> {
        let mut memory = connection.memory.borrow_mut();
        if let Some(known) = memory.as_ref().and_then(|memory| memory.clone().downcast().ok()) {
            return known;
        }
        let new = Rc::<Self>::default();
        *memory = Some(new.clone());
        new
    }

    /// What the application is told of the client.
    pub(super) fn told(&self, entry: &Entry, arrived: &Arrived<'_>, tls: bool) -> Rc<Told> {
        let mut told = self.told.borrow_mut();
        if let Some(last) = &*told
            && last.address == entry.client
            && last.host == arrived.host
        {
            return last.clone();
        }
        let fields = Client::new(&ClientInfo {
            address: entry.client,
            scheme: if tls { "https" } else { "http" },
            host: &arrived.host.authority,
            port: arrived.host.port.unwrap_or(if tls { 443 } else { 80 }),
        });
        let made = Rc::new(Told { address: entry.client, host: arrived.host.clone(), fields });
        *told = Some(made.clone());
        made
    }
}
