#!/usr/bin/python3
"""Where a command waits in the kernel: waits.py COMMAND... (as root). Looks at the kernel stack of each of its threads every
5 ms and prints, of all looks at threads that slept in a system call, which functions they slept in, innermost first.
Threads that only wait for work (a futex, epoll, a child's end, a timer) are counted together."""
import collections
import os
import subprocess
import sys
import time

IDLE = ("futex_", "ep_poll", "do_epoll", "do_wait", "hrtimer_nanosleep", "poll_schedule", "do_sigtimedwait", "pipe_read")
COMMON = ("do_syscall_64", "entry_SYSCALL", "__x64_sys", "__sys_", "x64_sys_call", "ret_from_fork")
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
began, looks, idle, rounds = time.monotonic(), collections.Counter(), 0, 0
while child.poll() is None:
    try:
        tasks = os.listdir(f"/proc/{child.pid}/task")
    except OSError:
        break
    rounds += 1
    for task in tasks:
        try:
            with open(f"/proc/{child.pid}/task/{task}/stat") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
            with open(f"/proc/{child.pid}/task/{task}/stack") as file:
                stack = [line.split()[1].split("+")[0] for line in file]
        except (OSError, IndexError):
            continue
        if state not in "SD":
            continue
        stack = [name for name in stack if not name.startswith(COMMON)]
        if not stack or any(name.startswith(IDLE) for name in stack[:3]):
            idle += 1
        else:
            looks[" < ".join(stack[:6])] += 1
    time.sleep(0.005)
total = time.monotonic() - began
print(f"{total:.2f} s, {rounds} looks; seconds that some thread slept in:")
for stack, count in looks.most_common(12):
    print(f"{count * total / max(rounds, 1):8.2f}  {stack}")
