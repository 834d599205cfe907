//! A control plane with settings of its own, in the pairing that the environment names. For tests of the admin API that
//! need no upstream and no traffic.

use std::net::SocketAddr;

use rustix::process::Signal;

use crate::admin::Admin;
use crate::fleet::Pairing;
use crate::postgres::{Database, Server};
use crate::process::Process;
use crate::site::{Site, wait_ready};

/// A running control plane; in the standalone pairing with a data plane beside it.
pub struct ControlPlane {
    /// With the operator's token.
    pub admin: Admin,
    pub database: Database,
    pub process: Process,
    pairing: Pairing,
    site: Site,
}

impl ControlPlane {
    /// Starts it with these options besides those that the harness needs.
    pub async fn start(options: &[&str]) -> anyhow::Result<Self> {
        Self::start_as(Pairing::from_env()?, options).await
    }

    /// The control plane as a process of its own, whatever the pairing.
    pub async fn start_alone(options: &[&str]) -> anyhow::Result<Self> {
        Self::start_as(Pairing::Fleet, options).await
    }

    async fn start_as(pairing: Pairing, options: &[&str]) -> anyhow::Result<Self> {
        let database = Server::shared().await?.create_database().await?;
        let site = Site::new(database.url())?;
        let process = run(&site, pairing, options).await?;
        let token = match pairing {
            Pairing::Standalone => std::fs::read_to_string(site.dir().join("data/admin-token"))?,
            Pairing::Fleet => site.operator_token().await?,
        };
        Ok(Self { admin: Admin::new(site.ports.rest, token.trim()), database, process, pairing, site })
    }

    /// Stops it and starts it with other options.
    pub async fn restart(&mut self, options: &[&str]) -> anyhow::Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait_exit().await?;
        self.process = run(&self.site, self.pairing, options).await?;
        Ok(())
    }

    pub fn rest_addr(&self) -> SocketAddr {
        self.site.ports.rest
    }

    pub fn grpc_addr(&self) -> SocketAddr {
        self.site.ports.grpc
    }

    /// Somebody with another token.
    pub fn with_token(&self, token: &str) -> Admin {
        Admin::new(self.rest_addr(), token)
    }
}

async fn run(site: &Site, pairing: Pairing, options: &[&str]) -> anyhow::Result<Process> {
    let (spec, ops) = match pairing {
        Pairing::Standalone => (site.standalone()?, site.ports.ops),
        Pairing::Fleet => (site.control_plane()?, site.ports.control_ops),
    };
    let process = spec.args(options).spawn()?;
    wait_ready(&process, ops).await?;
    Ok(process)
}
