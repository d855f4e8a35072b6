// The floor: what the kernel itself takes for a lab's fabric, asked with as few bytes and calls as possible.
//
//   floor create N [linear]      N x (bridge, namespace, veth between them, addresses, everything up)
//   floor create N one linear    the same with one bridge for all ports, and no cable up, which would close a loop there:
//                                what one that tells networks apart by VLANs would take at least
//   floor delete N HOW [linear]  removes it: `group` (or `one`) all links in one request, `chunks` eight bridges at a time,
//                                `each` one by one; then the namespaces
//   floor dump                   reads links, addresses and routes here and in every named namespace
//   floor settle                 returns when every network namespace that was left before is really gone
//   floor hold                   adds and removes a link of its own until its input ends; says what it had to wait
//   floor run FILE CMD...        runs a command; FILE gets its time from exec to exit, and the memory and CPU it took
//
// gcc -O2 -o floor floor.c. Run it in namespaces of your own (`unshare -nm`) with a tmpfs on /run/netns.
#include "netlink.h"
#include <dirent.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define GROUP 0x5046
#define FIRST 200000 // indexes are chosen, so that no request has to wait for the answer to another
#define AT_ONCE 8

static int count, linear, one;
static int bridge(int i) { return FIRST + (one ? 0 : i); }
static int port(int i) { return FIRST + count + i; }
static int cable(int i, int end) { return FIRST + 2 * count + 2 * i + end; }
static uint32_t subnet(int i) { return (10u << 24) | ((uint32_t)i << 8); }

static int move_to_new_namespace(const char *pin) {
    if (unshare(CLONE_NEWNET)) die("unshare");
    int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (pin) {
        int file = open(pin, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
        if (file < 0) die(pin);
        close(file);
        if (mount("/proc/thread-self/ns/net", pin, "none", MS_BIND, NULL)) die("mount");
    }
    return fd;
}

static void add_bridges(int s, Batch *b) {
    char name[32];
    for (int i = 0; i < (one ? 1 : count); i++) {
        struct ifinfomsg m = {.ifi_index = bridge(i), .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
        struct nlmsghdr *n = request(b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m);
        int group = GROUP;
        snprintf(name, sizeof name, "pf-b%d", i);
        put_text(n, IFLA_IFNAME, name);
        put(n, IFLA_GROUP, &group, sizeof group);
        struct rtattr *info = put(n, IFLA_LINKINFO, 0, 0);
        put(n, IFLA_INFO_KIND, "bridge", 6);
        close_nest(n, info);
        done(b, n);
        if (!linear) add_address(b, bridge(i), subnet(i) | 1, 24);
    }
    flush(s, b);
}

// A veth whose near end is a port of bridge `master`, up from the start or not.
static struct nlmsghdr *veth(Batch *b, const char *name, int index, int master, int flags) {
    struct ifinfomsg m = {.ifi_index = index, .ifi_flags = flags, .ifi_change = IFF_UP};
    struct nlmsghdr *n = request(b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m);
    int group = GROUP;
    put_text(n, IFLA_IFNAME, name);
    put(n, IFLA_GROUP, &group, sizeof group);
    put(n, IFLA_MASTER, &master, sizeof master);
    return n;
}

static void add_cables(Batch *b) {
    char name[32], peer[32];
    int flags = one ? 0 : IFF_UP;
    for (int i = 0; i + 1 < count; i++) {
        snprintf(name, sizeof name, "pf-l%d", i);
        snprintf(peer, sizeof peer, "pf-m%d", i);
        struct nlmsghdr *n = veth(b, name, cable(i, 0), bridge(i), flags);
        put_peer(n, peer, cable(i, 1), GROUP, -1);
        done(b, n);
        struct ifinfomsg m = {.ifi_index = cable(i, 1), .ifi_flags = flags, .ifi_change = IFF_UP};
        int master = bridge(i + 1);
        n = request(b, RTM_NEWLINK, 0, &m, sizeof m);
        put(n, IFLA_MASTER, &master, sizeof master);
        done(b, n);
    }
}

static void create(void) {
    char name[64];
    Batch b = {0};
    int *fds = calloc((size_t)count, sizeof *fds), *sockets = calloc((size_t)count, sizeof *sockets);
    if (!fds || !sockets) die("calloc");
    int here = nl_open();
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "/run/netns/pf-n%d", i);
        fds[i] = move_to_new_namespace(name);
        sockets[i] = nl_open();
    }
    add_bridges(here, &b);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "pf-v%d", i);
        struct nlmsghdr *n = veth(&b, name, port(i), bridge(i), IFF_UP);
        put_peer(n, "eth0", 0, 0, fds[i]);
        done(&b, n);
    }
    if (linear) add_cables(&b);
    flush(here, &b);
    for (int i = 0; i < count; i++) { // in a fresh namespace lo is 1 and the first other link 2
        if (linear) add_address(&b, 2, (10u << 24) | (uint32_t)(i + 1), 8);
        else add_address(&b, 2, subnet(i) | 2, 24);
        set_link(&b, 1, 1, 0);
        set_link(&b, 2, 1, 0);
        flush(sockets[i], &b);
    }
}

static void delete(const char *how) {
    Batch b = {0};
    int s = nl_open();
    char name[64];
    if (!strcmp(how, "group") || !strcmp(how, "one")) {
        delete_link(&b, 0, GROUP);
    } else if (!strcmp(how, "each")) {
        for (int i = 0; linear && i + 1 < count; i++) delete_link(&b, cable(i, 0), 0);
        for (int i = 0; i < count; i++) delete_link(&b, port(i), 0);
        for (int i = 0; i < count; i++) delete_link(&b, bridge(i), 0);
    } else { // a few at a time, each few in a group of their own, so that others get their turn in between
        for (int i = 0; i < count; i += AT_ONCE) {
            for (int k = i; k < count && k < i + AT_ONCE; k++) {
                set_link(&b, port(k), 0, GROUP + 1);
                set_link(&b, bridge(k), 0, GROUP + 1);
                if (linear && k + 1 < count) set_link(&b, cable(k, 0), 0, GROUP + 1);
            }
            delete_link(&b, 0, GROUP + 1);
            flush(s, &b);
        }
    }
    flush(s, &b);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "/run/netns/pf-n%d", i);
        umount2(name, MNT_DETACH);
        unlink(name);
    }
}

static int read_all(int s) {
    return dump(s, RTM_GETLINK, AF_UNSPEC) + dump(s, RTM_GETADDR, AF_UNSPEC) + dump(s, RTM_GETROUTE, AF_INET);
}

static void read_everything(void) {
    int s = nl_open(), messages = read_all(s), namespaces = 0;
    close(s);
    DIR *dir = opendir("/run/netns");
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        int fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || setns(fd, CLONE_NEWNET)) continue;
        close(fd);
        s = nl_open();
        messages += read_all(s);
        close(s);
        namespaces++;
    }
    printf("{\"namespaces\":%d,\"messages\":%d}\n", namespaces, messages);
}

// Namespaces are cleaned up in the order they were left, and a veth goes when its peer's namespace does.
static void settle(void) {
    Batch b = {0};
    int s = nl_open(), here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    int there = move_to_new_namespace(NULL);
    if (setns(here, CLONE_NEWNET)) die("setns");
    struct ifinfomsg m = {0};
    struct nlmsghdr *n = request(&b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m);
    put_text(n, IFLA_IFNAME, "pf-settle");
    put_peer(n, "x", 0, 0, there);
    done(&b, n);
    flush(s, &b);
    close(there);
    while (if_nametoindex("pf-settle")) usleep(500);
}

static void hold(void) {
    Batch b = {0};
    move_to_new_namespace(NULL);
    int s = nl_open(), tries = 0;
    double worst_add = 0, worst_delete = 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    puts("ready");
    fflush(stdout);
    while (poll(&input, 1, 2) == 0) {
        struct ifinfomsg m = {.ifi_index = 10};
        struct nlmsghdr *n = request(&b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &m, sizeof m);
        put_text(n, IFLA_IFNAME, "pf-hold");
        put_peer(n, "pf-held", 11, 0, -1);
        done(&b, n);
        double t0 = now();
        flush(s, &b);
        double t1 = now();
        delete_link(&b, 10, 0);
        flush(s, &b);
        double t2 = now();
        if (t1 - t0 > worst_add) worst_add = t1 - t0;
        if (t2 - t1 > worst_delete) worst_delete = t2 - t1;
        tries++;
    }
    printf("{\"tries\":%d,\"add\":%.4f,\"delete\":%.4f}\n", tries, worst_add, worst_delete);
}

static int run(const char *file, char **command) {
    double start = now();
    pid_t child = fork();
    if (child == 0) {
        execvp(command[0], command);
        perror(command[0]);
        _exit(127);
    }
    int status;
    struct rusage u;
    if (child < 0 || wait4(child, &status, 0, &u) < 0) die("wait4");
    double seconds = now() - start;
    FILE *f = fopen(file, "w");
    if (!f) die(file);
    fprintf(f, "{\"seconds\":%.6f,\"rss_kb\":%ld,\"user\":%.6f,\"system\":%.6f}\n", seconds, u.ru_maxrss,
            (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6,
            (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6);
    fclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int c, char **v) {
    const char *verb = c > 1 ? v[1] : "";
    struct rlimit files = {65536, 65536};
    if (!strcmp(verb, "run") && c > 3) return run(v[2], v + 3);
    setrlimit(RLIMIT_NOFILE, &files);
    mkdir("/run/netns", 0755);
    count = c > 2 ? atoi(v[2]) : 0;
    linear = c > 3 && !strcmp(v[c - 1], "linear");
    one = c > 3 && !strcmp(v[3], "one");
    if (!strcmp(verb, "create") && count > 0) create();
    else if (!strcmp(verb, "delete") && count > 0 && c > 3) delete(v[3]);
    else if (!strcmp(verb, "dump")) read_everything();
    else if (!strcmp(verb, "settle")) settle();
    else if (!strcmp(verb, "hold")) hold();
    else {
        fprintf(stderr, "usage: see the head of floor.c\n");
        return 2;
    }
    fflush(stdout);
    _exit(failures != 0); // without freeing and closing what the kernel takes back faster
}
