//! The ports of `nemo standalone`, opened first and held until their plane takes them: a taken one is reported before
//! anything slow, under the name of the option that changes it, and two processes that start together do not find
//! the same one free.

use std::net::SocketAddr;

use nemo_runtime::http_server::{self, BindError};
use tokio::net::TcpListener;

use crate::cli;

/// Health and metrics, where nobody said otherwise.
const NODE_OPS: u16 = 9080;
const CONTROL_OPS: u16 = 9081;

pub(super) struct Ports {
    pub node_ops: SocketAddr,
    pub control_ops: SocketAddr,
    held_for_control: Vec<TcpListener>,
    held_for_node: Vec<TcpListener>,
}

impl Ports {
    /// # Errors
    /// When a port that was asked for is taken. Of the ports for health and metrics nobody has to know the number, so
    /// their usual ones are replaced by free ones.
    pub(super) fn hold(options: &cli::Standalone) -> Result<Self, BindError> {
        let held_for_node = vec![http_server::bind(options.listen, "--listen")?];
        let held_for_control = vec![
            http_server::bind(options.admin_listen, "--admin-listen")?,
            http_server::bind(options.grpc_listen, "--grpc-listen")?,
        ];
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut ports = Self { node_ops: any, control_ops: any, held_for_control, held_for_node };
        ports.node_ops =
            given_or_usual(options.ops_listen, "--ops-listen", NODE_OPS, &mut ports.held_for_node)?;
        ports.control_ops = given_or_usual(
            options.admin_ops_listen,
            "--admin-ops-listen",
            CONTROL_OPS,
            &mut ports.held_for_control,
        )?;
        Ok(ports)
    }

    /// For the control plane, which opens them itself.
    pub(super) fn release_control(&mut self) {
        self.held_for_control.clear();
    }

    /// For the data plane.
    pub(super) fn release_node(&mut self) {
        self.held_for_node.clear();
    }
}

fn given_or_usual(
    given: Option<SocketAddr>,
    option: &'static str,
    usual: u16,
    held: &mut Vec<TcpListener>,
) -> Result<SocketAddr, BindError> {
    if let Some(addr) = given {
        held.push(http_server::bind(addr, option)?);
        return Ok(addr);
    }
    let usual = SocketAddr::from(([127, 0, 0, 1], usual));
    let Ok(listener) = http_server::bind(usual, option) else {
        return Ok(SocketAddr::from(([127, 0, 0, 1], 0)));
    };
    held.push(listener);
    Ok(usual)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options(arguments: &[&str]) -> cli::Standalone {
        let all = ["--listen", "--admin-listen", "--grpc-listen"]
            .into_iter()
            .flat_map(|option| [option, "127.0.0.1:0"]);
        let unset = all.collect::<Vec<_>>();
        let unset = unset.chunks(2).filter(|pair| !arguments.contains(&pair[0])).flatten();
        let line = ["nemo", "standalone"].iter().chain(unset).chain(arguments);
        let cli::Command::Standalone(options) = cli::Cli::parse_from(line).command else {
            panic!("not standalone")
        };
        *options
    }

    #[tokio::test]
    async fn two_options_cannot_name_the_same_port() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let Err(error) = Ports::hold(&options(&["--listen", &free, "--admin-listen", &free])) else {
            panic!("held")
        };
        assert!(error.to_string().starts_with(&format!("{free} is taken")), "{error}");
        assert!(error.to_string().contains("--admin-listen"), "{error}");
    }

    #[tokio::test]
    async fn usual_ports_for_health_give_way_and_given_ones_do_not() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let mut held = Vec::new();
        assert_eq!(given_or_usual(None, "--ops-listen", addr.port(), &mut held).unwrap().port(), 0);
        let error = given_or_usual(Some(addr), "--ops-listen", 1, &mut held).unwrap_err().to_string();
        assert!(error.contains("--ops-listen"), "{error}");
        assert!(held.is_empty());
    }

    #[tokio::test]
    async fn ports_are_held_until_their_plane_takes_them() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut ports = Ports::hold(&options(&["--listen", &free.to_string()])).unwrap();
        assert!(std::net::TcpListener::bind(free).is_err());
        ports.release_node();
        assert!(std::net::TcpListener::bind(free).is_ok());
    }
}
