/* Counts the calls by which a program changes its system, and spoils one of them: it is refused, or the program is
 * killed or interrupted at it. Put before a program with LD_PRELOAD; children that inherit the environment count along,
 * so that a number means one call of the whole run, whichever thread or process makes it.
 *
 *   SPOIL_COUNT  file that is shared by all: how many calls there were, and the process that began
 *   SPOIL_LOG    a line for each call: its number, its class, its name, what it was about
 *   SPOIL_CLASS  classes that count, as letters; all by default
 *   SPOIL_AT     number of the call to spoil, from 1; none by default
 *   SPOIL_HOW    a number: this errno; `refuse`: the kernel itself says no (netlink); `kill`, `kill-after`: SIGKILL to
 *                the process that began; `signal N`: that signal to it, and the call goes on
 *   SPOIL_AGAIN  with `signal`: as many calls later once more
 *
 * Classes: n netlink requests that change and what makes taps, l netlink requests that look, s programs, t threads,
 * m mounts and namespaces, f files made, renamed, removed, w what is written into files, k kernel settings, p signals to
 * processes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/netlink.h>

struct shared { _Atomic long count; _Atomic int first; };
static struct shared *shared;
static int log_fd = -1;
static long at, again;
static int how_errno, how_refuse, how_kill, how_after, how_signal;
static const char *classes;

#define REAL(type, name) static type (*real_##name)
#define FIND(name) do { if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name); } while (0)

REAL(int, open)(const char *, int, ...);
REAL(ssize_t, write)(int, const void *, size_t);

__attribute__((constructor)) static void begin(void) {
    FIND(open);
    FIND(write);
    const char *path = getenv("SPOIL_COUNT"), *log = getenv("SPOIL_LOG"), *how = getenv("SPOIL_HOW");
    if (!path) return;
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED) return;
    if (log) log_fd = real_open(log, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log_fd >= 0) {
        int high = fcntl(log_fd, F_DUPFD_CLOEXEC, 900); /* out of the way of programs that close what they know */
        if (high >= 0) { close(log_fd); log_fd = high; }
    }
    at = getenv("SPOIL_AT") ? atol(getenv("SPOIL_AT")) : 0;
    again = getenv("SPOIL_AGAIN") ? atol(getenv("SPOIL_AGAIN")) : 0;
    classes = getenv("SPOIL_CLASS");
    if (how) {
        how_refuse = !strcmp(how, "refuse");
        how_kill = !strcmp(how, "kill");
        how_after = !strcmp(how, "kill-after");
        if (!strncmp(how, "signal ", 7)) how_signal = atoi(how + 7);
        else how_errno = atoi(how);
    }
    shared = map;
    int nobody = 0;
    atomic_compare_exchange_strong(&shared->first, &nobody, getpid());
}

REAL(int, kill)(pid_t, int);

static void strike(int number) {
    FIND(kill);
    /* Inside a sandbox numbers of processes mean others. */
    real_kill(getenv("NETLOOM_INSIDE") ? getpid() : atomic_load(&shared->first), number);
    if (number == SIGKILL) for (;;) pause();
}

enum { GO, FAIL, REFUSE, AFTER };

/* Says what shall become of a call. */
static int judge(char class, const char *name, const char *detail) {
    if (!shared || (classes && *classes && !strchr(classes, class))) return GO;
    long number = atomic_fetch_add(&shared->count, 1) + 1;
    if (log_fd >= 0) {
        char line[256];
        int length = snprintf(line, sizeof line, "%ld %c %s %s\n", number, class, name, detail ? detail : "");
        if (length > (int)sizeof line - 1) length = sizeof line - 1;
        int kept = errno;
        if (real_write(log_fd, line, length) < 0) {}
        errno = kept;
    }
    if (at && again && how_signal && number == at + again) {
        usleep(100000); /* two signals before anybody has heard of the first would be one */
        strike(how_signal);
    }
    if (number != at) return GO;
    if (how_signal) { strike(how_signal); return GO; }
    if (how_kill) strike(SIGKILL);
    if (how_after) return AFTER;
    if (how_refuse) return class == 'n' || class == 'l' ? REFUSE : (errno = EPERM, FAIL);
    if (how_errno) { errno = how_errno; return FAIL; }
    return GO;
}

#define PASS(class, detail, bad, type, call) do { \
    int verdict = judge(class, __func__, detail); \
    if (verdict == FAIL) return bad; \
    type result = call; \
    if (verdict == AFTER) strike(SIGKILL); \
    return result; } while (0)

/* ---- netlink ---- */

static char netlink_class(int fd, const struct nlmsghdr *header, size_t length, char *detail, size_t size) {
    int domain = 0, protocol = 0, kept = errno;
    socklen_t is = sizeof domain;
    char class = 0;
    if (!getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &is) && domain == AF_NETLINK && length >= sizeof *header) {
        is = sizeof protocol;
        getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &is);
        if (protocol == NETLINK_NETFILTER) class = header->nlmsg_type == 0x10 ? 'n' : 'l';
        else class = (header->nlmsg_type & 3) == 2 ? 'l' : 'n';
        snprintf(detail, size, "type %d of protocol %d", header->nlmsg_type, protocol);
    }
    errno = kept;
    return class;
}

/* The kernel knows no such request, and answers so under the request's own number. */
static void spoil(struct nlmsghdr *header) { header->nlmsg_type = 0x7ff0; }

REAL(ssize_t, sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
ssize_t sendto(int fd, const void *text, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
    FIND(sendto);
    char detail[64];
    char class = netlink_class(fd, text, length, detail, sizeof detail);
    if (!class) return real_sendto(fd, text, length, flags, to, size);
    int verdict = judge(class, "sendto", detail);
    if (verdict == FAIL) return -1;
    char *copy = NULL;
    if (verdict == REFUSE && (copy = malloc(length))) {
        memcpy(copy, text, length);
        spoil((struct nlmsghdr *)copy);
        text = copy;
    }
    ssize_t result = real_sendto(fd, text, length, flags, to, size);
    free(copy);
    if (verdict == AFTER) strike(SIGKILL);
    return result;
}

ssize_t send(int fd, const void *text, size_t length, int flags) { return sendto(fd, text, length, flags, NULL, 0); }

REAL(ssize_t, sendmsg)(int, const struct msghdr *, int);
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    FIND(sendmsg);
    char detail[64], class = 0;
    if (message->msg_iovlen > 0)
        class = netlink_class(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len, detail, sizeof detail);
    if (!class) return real_sendmsg(fd, message, flags);
    int verdict = judge(class, "sendmsg", detail);
    if (verdict == FAIL) return -1;
    if (verdict == REFUSE) spoil(message->msg_iov[0].iov_base);
    ssize_t result = real_sendmsg(fd, message, flags);
    if (verdict == AFTER) strike(SIGKILL);
    return result;
}

/* A tap is made by what is asked of its descriptor. */
REAL(int, ioctl)(int, unsigned long, ...);
int ioctl(int fd, unsigned long request, ...) {
    FIND(ioctl);
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (_IOC_TYPE(request) != 'T' || _IOC_DIR(request) != _IOC_WRITE) return real_ioctl(fd, request, argument);
    char detail[32];
    snprintf(detail, sizeof detail, "tun %lu", (unsigned long)_IOC_NR(request));
    PASS('n', detail, -1, int, real_ioctl(fd, request, argument));
}

/* ---- programs and threads ---- */

#define SPAWN(name) \
    REAL(int, name)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, \
                    char *const[], char *const[]); \
    int name(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes, \
             char *const argv[], char *const environment[]) { \
        FIND(name); \
        int verdict = judge('s', #name, path); \
        if (verdict == FAIL) return errno; \
        int result = real_##name(pid, path, actions, attributes, argv, environment); \
        if (verdict == AFTER) strike(SIGKILL); \
        return result; }
SPAWN(posix_spawn)
SPAWN(posix_spawnp)

REAL(pid_t, fork)(void);
pid_t fork(void) {
    FIND(fork);
    int verdict = judge('s', "fork", "");
    if (verdict == FAIL) return -1;
    pid_t result = real_fork();
    if (result > 0 && verdict == AFTER) strike(SIGKILL);
    return result;
}

REAL(int, pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*work)(void *), void *with) {
    FIND(pthread_create);
    int verdict = judge('t', "pthread_create", "");
    if (verdict == FAIL) return EAGAIN;
    int result = real_pthread_create(thread, attributes, work, with);
    if (verdict == AFTER) strike(SIGKILL);
    return result;
}

int kill(pid_t pid, int number) {
    FIND(kill);
    if (number == 0) return real_kill(pid, number);
    PASS('p', "", -1, int, real_kill(pid, number));
}

/* What has no function of its own. */
REAL(long, syscall)(long, ...);
long syscall(long which, ...) {
    FIND(syscall);
    va_list rest;
    va_start(rest, which);
    long a[6];
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    if (which != SYS_pidfd_send_signal || a[1] == 0) return real_syscall(which, a[0], a[1], a[2], a[3], a[4], a[5]);
    PASS('p', "pidfd_send_signal", -1, long, real_syscall(which, a[0], a[1], a[2], a[3], a[4], a[5]));
}

/* ---- mounts and namespaces ---- */

REAL(int, mount)(const char *, const char *, const char *, unsigned long, const void *);
int mount(const char *from, const char *to, const char *type, unsigned long flags, const void *data) {
    FIND(mount);
    PASS('m', to, -1, int, real_mount(from, to, type, flags, data));
}
REAL(int, umount2)(const char *, int);
int umount2(const char *at_, int flags) { FIND(umount2); PASS('m', at_, -1, int, real_umount2(at_, flags)); }
REAL(int, unshare)(int);
int unshare(int flags) { FIND(unshare); PASS('m', "", -1, int, real_unshare(flags)); }
REAL(int, setns)(int, int);
int setns(int fd, int type) { FIND(setns); PASS('m', "", -1, int, real_setns(fd, type)); }

/* ---- files ---- */

REAL(int, mkdir)(const char *, mode_t);
int mkdir(const char *path, mode_t mode) { FIND(mkdir); PASS('f', path, -1, int, real_mkdir(path, mode)); }
REAL(int, rmdir)(const char *);
int rmdir(const char *path) { FIND(rmdir); PASS('f', path, -1, int, real_rmdir(path)); }
REAL(int, rename)(const char *, const char *);
int rename(const char *from, const char *to) { FIND(rename); PASS('f', to, -1, int, real_rename(from, to)); }
REAL(int, unlink)(const char *);
int unlink(const char *path) { FIND(unlink); PASS('f', path, -1, int, real_unlink(path)); }
REAL(int, unlinkat)(int, const char *, int);
int unlinkat(int fd, const char *path, int flags) { FIND(unlinkat); PASS('f', path, -1, int, real_unlinkat(fd, path, flags)); }
REAL(int, chmod)(const char *, mode_t);
int chmod(const char *path, mode_t mode) { FIND(chmod); PASS('f', path, -1, int, real_chmod(path, mode)); }
REAL(int, fsync)(int);
int fsync(int fd) { FIND(fsync); PASS('w', "", -1, int, real_fsync(fd)); }

#define FILES(name, parameters, arguments, about) \
    REAL(int, name) parameters; \
    int name parameters { FIND(name); PASS('f', about, -1, int, real_##name arguments); }
FILES(mkdirat, (int fd, const char *path, mode_t mode), (fd, path, mode), path)
FILES(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), to)
FILES(renameat2, (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags), to)
FILES(symlink, (const char *target, const char *path), (target, path), path)
FILES(symlinkat, (const char *target, int fd, const char *path), (target, fd, path), path)
FILES(link, (const char *from, const char *to), (from, to), to)
FILES(linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), to)
FILES(mknod, (const char *path, mode_t mode, dev_t device), (path, mode, device), path)
FILES(fchmod, (int fd, mode_t mode), (fd, mode), "")
FILES(fchmodat, (int fd, const char *path, mode_t mode, int flags), (fd, path, mode, flags), path)
FILES(chown, (const char *path, uid_t user, gid_t group), (path, user, group), path)
FILES(lchown, (const char *path, uid_t user, gid_t group), (path, user, group), path)
FILES(fchown, (int fd, uid_t user, gid_t group), (fd, user, group), "")
FILES(fchownat, (int fd, const char *path, uid_t user, gid_t group, int flags), (fd, path, user, group, flags), path)
FILES(ftruncate, (int fd, off_t length), (fd, length), "")
FILES(ftruncate64, (int fd, off64_t length), (fd, length), "")

static char open_class(const char *path, int flags) {
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    /* Also in an instance of procfs that is mounted nowhere. */
    if (writes && (!strncmp(path, "/proc/sys/", 10) || !strncmp(path, "sys/net/", 8))) return 'k';
    return flags & O_CREAT ? 'f' : 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        FIND(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        char class = open_class(path, flags); \
        if (!class) return real_##name(path, flags, mode); \
        PASS(class, path, -1, int, real_##name(path, flags, mode)); }
OPEN(open)
REAL(int, open64)(const char *, int, ...);
OPEN(open64)

#define OPEN_AT(name) \
    REAL(int, name)(int, const char *, int, ...); \
    int name(int fd, const char *path, int flags, ...) { \
        FIND(name); \
        mode_t mode = 0; \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
        char class = open_class(path, flags); \
        if (!class) return real_##name(fd, path, flags, mode); \
        PASS(class, path, -1, int, real_##name(fd, path, flags, mode)); }
OPEN_AT(openat)
OPEN_AT(openat64)

static int is_file(int fd) {
    struct stat found;
    int kept = errno, is = fd > 2 && !fstat(fd, &found) && S_ISREG(found.st_mode);
    errno = kept;
    return is;
}

ssize_t write(int fd, const void *text, size_t length) {
    FIND(write);
    if (!shared || !is_file(fd)) return real_write(fd, text, length);
    PASS('w', "", -1, ssize_t, real_write(fd, text, length));
}

#define WRITES(name, parameters, arguments) \
    REAL(ssize_t, name) parameters; \
    ssize_t name parameters { \
        FIND(name); \
        if (!shared || !is_file(fd)) return real_##name arguments; \
        PASS('w', "", -1, ssize_t, real_##name arguments); }
WRITES(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
WRITES(pwrite, (int fd, const void *text, size_t length, off_t at_), (fd, text, length, at_))
WRITES(pwrite64, (int fd, const void *text, size_t length, off64_t at_), (fd, text, length, at_))
WRITES(sendfile, (int fd, int from, off_t *at_, size_t length), (fd, from, at_, length))
WRITES(sendfile64, (int fd, int from, off64_t *at_, size_t length), (fd, from, at_, length))

REAL(ssize_t, copy_file_range)(int, off64_t *, int, off64_t *, size_t, unsigned);
ssize_t copy_file_range(int from, off64_t *a, int fd, off64_t *b, size_t length, unsigned flags) {
    FIND(copy_file_range);
    if (!shared || !is_file(fd)) return real_copy_file_range(from, a, fd, b, length, flags);
    PASS('w', "", -1, ssize_t, real_copy_file_range(from, a, fd, b, length, flags));
}
