//! Ports for listeners that another process will bind. They come from below the range from which the kernel
//! takes ports for outgoing connections, so that nobody takes one between the choice and its use.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::TcpSocket;

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that nobody listens on, and that no other test of this process gets.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let seed = std::process::id().wrapping_mul(2_654_435_761) >> 8;
        AtomicU16::new((seed % u32::from(COUNT)) as u16)
    });
    for _ in 0..COUNT {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if nobody_listens(port) {
            return port;
        }
    }
    panic!("no port from {FIRST} on is free");
}

/// Binds, but never listens: a process that another test starts at this moment holds a copy of our sockets until
/// it executes its program, and a copy of a listener would keep the port from whoever asked for it.
fn nobody_listens(port: u16) -> bool {
    let bound = |socket: TcpSocket, address: &str| {
        let address: SocketAddr = format!("{address}:{port}").parse().unwrap();
        socket.set_reuseaddr(true).and_then(|()| socket.bind(address)).is_ok()
    };
    bound(TcpSocket::new_v4().unwrap(), "0.0.0.0") && bound(TcpSocket::new_v6().unwrap(), "[::]")
}
