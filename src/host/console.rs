//! A guest's console: joins the user's terminal to the pty of the guest's serial port.

use std::fs::OpenOptions;
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Context, Error, Result};

/// `Ctrl-]`, as telnet and virsh have it.
const LEAVE: u8 = 0x1d;

/// Once input that is no terminal has ended, output is awaited until it pauses for this long.
const SILENCE: Duration = Duration::from_secs(1);
/// And at most this long in all.
const LAST_OUTPUT: Duration = Duration::from_secs(30);

/// Joins standard input and output to a console until the user types `Ctrl-]`, the guest goes, or, where input is no
/// terminal, it has ended and the guest has fallen silent. Blocks.
///
/// # Errors
/// When the pty does not open or the terminal cannot be set up.
pub fn attach(pty: &Path) -> Result<()> {
    let mut console = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(pty)
        .map_err(|e| {
            Error::failed(format!("cannot open the console {}", pty.display()))
                .caused_by(e)
                .hint("does the guest run? `netloom status` tells")
        })?;
    let stdin = std::io::stdin();
    let terminal = if stdin.is_terminal() {
        eprintln!("Ctrl-] leaves the console; Enter shows the prompt.");
        Some(Raw::new(stdin.as_fd())?)
    } else {
        None
    };
    let mut input = std::fs::File::from(
        stdin.as_fd().try_clone_to_owned().context(|| "cannot read standard input".into())?,
    );
    let end = join(&mut input, &mut std::io::stdout().lock(), &mut console, terminal.is_some());
    drop(terminal);
    match end? {
        End::Left => eprintln!("\nleft the console"),
        End::GuestGone => eprintln!("\nthe guest closed its console"),
        End::InputEnded => {}
    }
    Ok(())
}

/// Why a console was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    GuestGone,
    InputEnded,
}

/// Copies both ways. `keys` says that input comes from a keyboard, so that `Ctrl-]` counts.
fn join(
    input: &mut (impl Read + AsFd),
    output: &mut impl Write,
    console: &mut std::fs::File,
    keys: bool,
) -> Result<End> {
    let failed = || "cannot talk to the console".to_owned();
    let mut buffer = [0; 4096];
    let mut ended: Option<Instant> = None;
    loop {
        let (typed, written) = wait(input.as_fd(), console.as_fd(), ended.is_some())?;
        if written {
            match console.read(&mut buffer) {
                Ok(0) => return Ok(End::GuestGone),
                Ok(count) => {
                    output.write_all(&buffer[..count]).and_then(|()| output.flush()).context(failed)?;
                }
                // The emulator has closed the other side (EIO of pty(7)).
                Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(End::GuestGone),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::failed(failed()).caused_by(e)),
            }
        }
        if typed {
            let count = input.read(&mut buffer).context(failed)?;
            let keep = buffer[..count].iter().position(|&byte| keys && byte == LEAVE);
            match console.write_all(&buffer[..keep.unwrap_or(count)]) {
                Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(End::GuestGone),
                other => other.context(failed)?,
            }
            if keep.is_some() {
                return Ok(End::Left);
            }
            if count == 0 {
                ended = Some(Instant::now());
            }
        }
        let over = ended.is_some_and(|since| since.elapsed() > LAST_OUTPUT);
        if ended.is_some() && (over || !written && !typed) {
            return Ok(End::InputEnded);
        }
    }
}

/// Whether input and console can be read. Without `input_ended` it waits for as long as it takes.
fn wait(input: BorrowedFd<'_>, console: BorrowedFd<'_>, input_ended: bool) -> Result<(bool, bool)> {
    let readable = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    let console = PollFd::new(console, PollFlags::POLLIN);
    let mut both = [console, PollFd::new(input, PollFlags::POLLIN)];
    let count = if input_ended { 1 } else { 2 };
    let limit = if input_ended {
        PollTimeout::try_from(SILENCE).unwrap_or(PollTimeout::NONE)
    } else {
        PollTimeout::NONE
    };
    loop {
        match poll(&mut both[..count], limit) {
            Ok(_) => return Ok((!input_ended && readable(&both[1]), readable(&both[0]))),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(Error::failed("cannot wait for the console").caused_by(e)),
        }
    }
}

/// The terminal in raw mode until the value is dropped: every key goes to the guest, none to this program.
struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    fn new(terminal: BorrowedFd<'a>) -> Result<Self> {
        let failed = || "cannot set the terminal up".to_owned();
        let before = tcgetattr(terminal).context(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(terminal, SetArg::TCSANOW, &raw).context(failed)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// A pty in raw mode: what the emulator holds, and what `attach` opens.
    fn pty() -> (File, File) {
        let pair = nix::pty::openpty(None, None).unwrap();
        let mut raw = tcgetattr(&pair.slave).unwrap();
        cfmakeraw(&mut raw);
        tcsetattr(&pair.slave, SetArg::TCSANOW, &raw).unwrap();
        (File::from(pair.master), File::from(pair.slave))
    }

    fn keyboard(text: &[u8]) -> File {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        File::from(writer).write_all(text).unwrap();
        File::from(reader)
    }

    #[test]
    fn keys_before_the_leaving_one_reach_the_guest() {
        let (mut emulator, mut console) = pty();
        let mut input = keyboard(b"ls\r\x1dmore");
        let end = join(&mut input, &mut Vec::new(), &mut console, true).unwrap();
        assert_eq!(end, End::Left);
        let mut seen = [0; 16];
        let count = emulator.read(&mut seen).unwrap();
        assert_eq!(&seen[..count], b"ls\r");
    }

    #[test]
    fn piped_input_is_copied_to_its_end_and_the_answer_awaited() {
        let (mut emulator, mut console) = pty();
        let guest = std::thread::spawn(move || {
            let mut seen = [0; 16];
            let count = emulator.read(&mut seen).unwrap();
            std::thread::sleep(Duration::from_millis(300));
            emulator.write_all(b"answer").unwrap();
            (emulator, seen[..count].to_vec())
        });
        let mut output = Vec::new();
        let end = join(&mut keyboard(b"a\x1db"), &mut output, &mut console, false).unwrap();
        assert_eq!((end, output.as_slice()), (End::InputEnded, b"answer".as_slice()));
        assert_eq!(guest.join().unwrap().1, b"a\x1db");
    }

    #[test]
    fn a_guest_that_goes_ends_it() {
        let (emulator, mut console) = pty();
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        drop(emulator);
        let end = join(&mut File::from(reader), &mut Vec::new(), &mut console, true).unwrap();
        assert_eq!(end, End::GuestGone);
    }

    #[test]
    fn the_terminal_is_raw_for_as_long_as_it_must_and_then_as_before() {
        use nix::sys::termios::LocalFlags;
        let pair = nix::pty::openpty(None, None).unwrap();
        let modes = || tcgetattr(&pair.slave).unwrap().local_flags;
        let before = modes();
        assert!(before.contains(LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::ECHO));
        let raw = Raw::new(pair.slave.as_fd()).unwrap();
        assert!(!modes().intersects(LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::ECHO));
        drop(raw);
        assert_eq!(modes(), before);
    }
}
