//! `nemo completion`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{cli::Cli, console};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(nemo completion bash)                            in ~/.bashrc
  nemo completion zsh > \"${fpath[1]}/_nemo\"
  nemo completion fish > ~/.config/fish/completions/nemo.fish
  nemo completion powershell | Out-String | Invoke-Expression")]
pub struct Completion {
    /// For this shell
    shell: Shell,
}

/// # Errors
/// Never in practice.
pub fn run(options: &Completion) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "nemo", &mut script);
    console::result(String::from_utf8(script)?.trim_end());
    Ok(())
}
