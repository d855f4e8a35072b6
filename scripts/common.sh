# Sourced by the scripts: the repository's root as the working directory, programs, and one place for guest images.
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."
export PATH="$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin"
# As netloom itself decides; said here, so that root inside the full-kernel VM, which cannot download packages, finds the
# image that this user built outside.
if [ -z "${NETLOOM_STATE_DIR:-}" ]; then
    if [ "$(id -u)" = 0 ]; then
        NETLOOM_STATE_DIR=/var/lib/netloom
    else
        NETLOOM_STATE_DIR=${XDG_STATE_HOME:-$HOME/.local/state}/netloom
    fi
fi
export NETLOOM_STATE_DIR
