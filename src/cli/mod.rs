//! The command line: one verb a file. Verbs load a file or name a lab, enter the lab's sandbox where it has one, and
//! print data on stdout, everything else on stderr.

mod against;
mod compare;
mod completions;
mod console;
mod context;
mod doctor;
mod down;
mod exec;
mod hidden;
mod image;
mod list;
mod modes;
mod plan;
mod schema;
mod status;
mod test;
mod ui;
mod up;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Error, Result};

/// Network labs on libvirt and the Linux kernel, from one file: built, proven by probes, removed without trace.
#[derive(Debug, Parser)]
#[command(name = "netloom", version, max_term_width = 100)]
struct Cli {
    /// Say less: no progress on stderr
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a file alone: every error at once, each with its line and a caret
    Validate(validate::Arguments),
    /// Show what `up` would change and why; change nothing
    Plan(plan::Arguments),
    /// Build what a file describes, or change what differs, and wait until the guests are ready
    Up(up::Arguments),
    /// Remove exactly what a lab owns
    Down(down::Arguments),
    /// Show what runs, its addresses and whether it differs from its file
    Status(status::Arguments),
    /// List the labs of this host
    List(list::Arguments),
    /// Measure a lab's expectations
    Test(test::Arguments),
    /// Build networking modes, measure who reaches whom, and set it against what their systems promise
    Compare(compare::Arguments),
    /// Run a command in a guest, or in LAB/host: the host as the lab sees it
    Exec(exec::Arguments),
    /// Attach to a guest's console
    Console(console::Arguments),
    /// Guest images: build the built-in one, list, import, remove
    Image(image::Arguments),
    /// Say what this host can and cannot do, with the mend for each
    Doctor(doctor::Arguments),
    /// List the networking modes, or explain one
    Modes(modes::Arguments),
    /// Print the JSON Schema of the language
    Schema,
    /// Print shell completions
    Completions(completions::Arguments),
}

/// Parses the command line, runs the verb, reports the error; returns the documented exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(code) = hidden::run(&arguments) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    start_logging();
    ui::set_quiet(cli.quiet);
    let code = match run(cli.command) {
        Ok(code) => code,
        Err(e) => {
            ui::report(&e);
            e.kind.exit_code()
        }
    };
    ExitCode::from(code)
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Up(arguments) => up::run(&arguments),
        Command::Down(arguments) => down::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::List(arguments) => list::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Exec(arguments) => exec::run(&arguments),
        Command::Console(arguments) => console::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Modes(arguments) => modes::run(&arguments),
        Command::Schema => schema::run(),
        Command::Completions(arguments) => completions::run(&arguments),
    }
}

fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("NETLOOM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .try_init();
}

/// Runs a verb's asynchronous part. Started only after a sandbox was entered, which needs a single thread.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(work)
}

/// tokio's runtime panics where the system refuses it a thread, and can then wait for ever for those that it has got. So
/// another thread makes it, which is left to itself when that happens; nothing has been begun by then.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let (done, made) = std::sync::mpsc::channel();
    let panicked = done.clone();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |_| drop(panicked.send(None))));
    let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let thread = std::thread::Builder::new().spawn(move || drop(done.send(Some(build()))));
    let made = thread.map(|_| made.recv());
    std::panic::set_hook(usual);
    let refused = Error::host("cannot start a thread");
    match made {
        Ok(Ok(Some(runtime))) => runtime.map_err(|e| Error::failed("cannot start the runtime").caused_by(e)),
        Ok(_) => {
            Err(refused
                .hint("raise the limit of processes (`ulimit -u`, or `pids.max` of the control group)"))
        }
        Err(e) => Err(refused.caused_by(e)),
    }
}
