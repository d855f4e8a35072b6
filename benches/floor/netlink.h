// Requests in route netlink, as few bytes and system calls as it takes. Shared by the floor's programs.
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 64 // requests in one send; their answers fit the socket's buffer

typedef struct {
    char *bytes;
    size_t len, cap;
} Batch;

static int failures;

static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

// A socket in the calling thread's network namespace; it stays there when the thread moves on.
static inline int nl_open(void) {
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), one = 1, size = 4 << 20;
    if (s < 0) die("socket");
    setsockopt(s, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
    setsockopt(s, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof one);
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    if (bind(s, (void *)&a, sizeof a)) die("bind");
    return s;
}

static inline struct nlmsghdr *request(Batch *b, int type, int flags, const void *header, size_t len) {
    if (b->len + 4096 > b->cap) {
        b->cap = b->cap ? b->cap * 2 : 65536;
        b->bytes = realloc(b->bytes, b->cap);
        if (!b->bytes) die("realloc");
    }
    struct nlmsghdr *n = (void *)(b->bytes + b->len);
    memset(n, 0, 4096);
    n->nlmsg_type = (uint16_t)type;
    n->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    n->nlmsg_len = (uint32_t)NLMSG_LENGTH(len);
    memcpy(NLMSG_DATA(n), header, len);
    return n;
}

static inline struct rtattr *put(struct nlmsghdr *n, int type, const void *data, size_t len) {
    struct rtattr *a = (void *)((char *)n + NLMSG_ALIGN(n->nlmsg_len));
    a->rta_type = (uint16_t)type;
    a->rta_len = (uint16_t)RTA_LENGTH(len);
    if (len) memcpy(RTA_DATA(a), data, len);
    n->nlmsg_len = NLMSG_ALIGN(n->nlmsg_len) + RTA_ALIGN(a->rta_len);
    return a;
}

static inline void put_text(struct nlmsghdr *n, int type, const char *text) {
    put(n, type, text, strlen(text) + 1);
}

static inline void close_nest(struct nlmsghdr *n, struct rtattr *a) {
    a->rta_len = (uint16_t)((char *)n + NLMSG_ALIGN(n->nlmsg_len) - (char *)a);
}

static inline void done(Batch *b, struct nlmsghdr *n) {
    b->len += NLMSG_ALIGN(n->nlmsg_len);
}

static inline void answers(int s, int expected) {
    static __thread char buffer[1 << 17];
    while (expected > 0) {
        ssize_t len = recv(s, buffer, sizeof buffer, 0);
        if (len < 0) die("recv");
        for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
            if (h->nlmsg_type != NLMSG_ERROR) continue;
            struct nlmsgerr *e = NLMSG_DATA(h);
            expected--;
            if (e->error && failures++ < 5)
                fprintf(stderr, "request of type %d: %s\n", e->msg.nlmsg_type, strerror(-e->error));
        }
    }
}

// Sends everything, many requests at a time, and takes the kernel's answer to each.
static inline void flush(int s, Batch *b) {
    for (size_t off = 0; off < b->len;) {
        size_t start = off;
        int count = 0;
        for (; off < b->len && count < CHUNK; count++) {
            struct nlmsghdr *n = (void *)(b->bytes + off);
            n->nlmsg_flags |= NLM_F_ACK;
            off += NLMSG_ALIGN(n->nlmsg_len);
        }
        if (send(s, b->bytes + start, off - start, 0) < 0) die("send");
        answers(s, count);
    }
    b->len = 0;
}

// Begins a veth pair; the caller has put the near end's attributes. `index` 0 lets the kernel choose.
static inline void put_peer(struct nlmsghdr *n, const char *name, int index, int group, int nsfd) {
    struct rtattr *info = put(n, IFLA_LINKINFO, 0, 0);
    put(n, IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = put(n, IFLA_INFO_DATA, 0, 0);
    struct ifinfomsg i = {.ifi_index = index};
    struct rtattr *peer = put(n, VETH_INFO_PEER, &i, sizeof i);
    put_text(n, IFLA_IFNAME, name);
    if (group) put(n, IFLA_GROUP, &group, sizeof group);
    if (nsfd >= 0) put(n, IFLA_NET_NS_FD, &nsfd, sizeof nsfd);
    close_nest(n, peer);
    close_nest(n, data);
    close_nest(n, info);
}

static inline void set_link(Batch *b, int index, int up, int group) {
    struct ifinfomsg i = {.ifi_index = index, .ifi_flags = up ? IFF_UP : 0, .ifi_change = up ? IFF_UP : 0};
    struct nlmsghdr *n = request(b, RTM_NEWLINK, 0, &i, sizeof i);
    if (group) put(n, IFLA_GROUP, &group, sizeof group);
    done(b, n);
}

// One link by its index, or every link of a group.
static inline void delete_link(Batch *b, int index, int group) {
    struct ifinfomsg i = {.ifi_index = index};
    struct nlmsghdr *n = request(b, RTM_DELLINK, 0, &i, sizeof i);
    if (group) put(n, IFLA_GROUP, &group, sizeof group);
    done(b, n);
}

static inline void add_address(Batch *b, int index, uint32_t ip, int prefix) {
    struct ifaddrmsg a = {.ifa_family = AF_INET, .ifa_prefixlen = (uint8_t)prefix, .ifa_index = (uint32_t)index};
    struct nlmsghdr *n = request(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &a, sizeof a);
    ip = htonl(ip);
    put(n, IFA_LOCAL, &ip, 4);
    put(n, IFA_ADDRESS, &ip, 4);
    done(b, n);
}

// Reads one whole dump, of what `n` asks for, and counts its messages.
static inline int dump(int s, int type, int family) {
    static char buffer[1 << 18];
    Batch b = {0};
    struct nlmsghdr *n;
    if (type == RTM_GETLINK) {
        struct ifinfomsg i = {.ifi_family = (unsigned char)family};
        uint32_t skip = RTEXT_FILTER_SKIP_STATS;
        n = request(&b, type, NLM_F_DUMP, &i, sizeof i);
        put(n, IFLA_EXT_MASK, &skip, sizeof skip);
    } else if (type == RTM_GETADDR) {
        struct ifaddrmsg a = {.ifa_family = (unsigned char)family};
        n = request(&b, type, NLM_F_DUMP, &a, sizeof a);
    } else {
        struct rtmsg r = {.rtm_family = (unsigned char)family};
        n = request(&b, type, NLM_F_DUMP, &r, sizeof r);
    }
    if (send(s, b.bytes, n->nlmsg_len, 0) < 0) die("send");
    free(b.bytes);
    for (int count = 0;;) {
        ssize_t len = recv(s, buffer, sizeof buffer, 0);
        if (len < 0) die("recv");
        for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
            if (h->nlmsg_type == NLMSG_DONE) return count;
            if (h->nlmsg_type == NLMSG_ERROR) {
                failures++;
                return count;
            }
            count++;
        }
    }
}
