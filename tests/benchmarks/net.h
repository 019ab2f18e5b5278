/* What the upstream and the load share: a clock, buffers, a search across pieces, timers, epoll. Linux only. */
#ifndef NET_H
#define NET_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Microseconds of CLOCK_MONOTONIC: the same clock in every process of this machine. */
static inline uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

__attribute__((format(printf, 1, 2), noreturn)) static inline void die(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    exit(1);
}

static inline void *grown(void *old, size_t size) {
    void *memory = realloc(old, size);
    if (!memory) die("out of memory");
    return memory;
}

/* Bytes [start, end) wait; what is taken is given back once nothing waits. */
struct buffer {
    char *data;
    size_t start, end, room;
};

static inline size_t buffer_length(const struct buffer *b) { return b->end - b->start; }

static inline void buffer_add(struct buffer *b, const void *data, size_t length) {
    if (b->end + length + 1 > b->room) { /* one more: whoever searches text ends it with a zero byte */
        if (b->start) memmove(b->data, b->data + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
        if (b->end + length + 1 > b->room) {
            b->room = (b->end + length + 1) * 2;
            b->data = grown(b->data, b->room);
        }
    }
    memcpy(b->data + b->end, data, length);
    b->end += length;
}

static inline void buffer_take(struct buffer *b, size_t length) {
    b->start += length;
    if (b->start == b->end) b->start = b->end = 0;
}

static inline void buffer_clear(struct buffer *b) { b->start = b->end = 0; }

static inline void buffer_free(struct buffer *b) {
    free(b->data);
    *b = (struct buffer){0};
}

/* Looks for a text in data that comes in pieces. */
struct finder {
    const char *text; /* at most 64 bytes; NULL: always found */
    char tail[64];
    size_t kept;
    bool found;
};

static inline void finder_reset(struct finder *f, const char *text) {
    f->text = text;
    f->kept = 0;
    f->found = !text;
}

static inline void finder_feed(struct finder *f, const char *data, size_t length) {
    if (f->found) return;
    size_t wanted = strlen(f->text), most = wanted - 1;
    char seam[128];
    size_t taken = length < most ? length : most;
    memcpy(seam, f->tail, f->kept);
    memcpy(seam + f->kept, data, taken);
    size_t joined = f->kept + taken;
    f->found = memmem(seam, joined, f->text, wanted) || memmem(data, length, f->text, wanted);
    if (length >= most) {
        memcpy(f->tail, data + length - most, most);
        f->kept = most;
    } else {
        size_t keep = joined < most ? joined : most;
        memcpy(f->tail, seam + joined - keep, keep);
        f->kept = keep;
    }
}

/* The value of a header inside a zero-terminated head; NULL where it is absent. */
static inline const char *header(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, length) && line[2 + length] == ':') {
            const char *value = line + 3 + length;
            while (*value == ' ' || *value == '\t') value++;
            return value;
        }
    return NULL;
}

static inline void raise_open_files(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static inline void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline void watch(int epoll, int operation, int fd, uint32_t events, void *owner) {
    struct epoll_event event = {.events = events, .data.ptr = owner};
    epoll_ctl(epoll, operation, fd, &event);
}

/* epoll_wait in microseconds where the kernel can (5.11), else rounded up to milliseconds. -1: no limit. */
static inline int wait_events(int epoll, struct epoll_event *events, int most, int64_t timeout_us) {
#ifdef SYS_epoll_pwait2
    static bool unknown;
    if (!unknown) {
        struct timespec limit = {timeout_us / 1000000, timeout_us % 1000000 * 1000};
        long found = syscall(SYS_epoll_pwait2, epoll, events, most, timeout_us < 0 ? NULL : &limit, NULL, 0);
        if (found >= 0 || errno != ENOSYS) return (int)found;
        unknown = true;
    }
#endif
    return epoll_wait(epoll, events, most, timeout_us < 0 ? -1 : (int)((timeout_us + 999) / 1000));
}

#endif
