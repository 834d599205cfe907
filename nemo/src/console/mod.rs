//! The one writer to the terminal: results on standard output, progress, questions and errors on standard error.
//! Logs go through tracing instead. Called by every command.

mod step;
mod style;

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

pub use self::{
    step::{Bar, step},
    style::{Style, paint},
};

/// Columns of a terminal that does not tell.
const USUAL_WIDTH: usize = 80;

/// Writes a line of the command's result. A reader that went away (`| head`) is no error.
pub fn result(line: impl fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes a line about the command itself.
pub fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// True when somebody sits at both ends and can be asked.
pub fn interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks; anything but a yes is a no.
pub fn confirm(question: &str) -> bool {
    {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{question} [y/N] ");
        let _ = stderr.flush();
    }
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")
}

/// Columns that a line of the result may have; `None` when it does not go to a terminal.
pub fn width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok();
    Some(size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(USUAL_WIDTH))
}
