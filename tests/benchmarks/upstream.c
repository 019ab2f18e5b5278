/* A fast upstream that speaks OpenAI's wire: what a hub in front of it costs is then the hub's own cost.
 *
 *   upstream PORT [--chunks N] [--interval-ms D] [--first-ms F]
 *
 * POST .../chat/completions  one completion; with "stream": true an SSE stream of N content chunks, D ms apart
 *                            (0: as fast as the socket takes them), the first after F ms
 * POST .../embeddings        one embedding
 * GET  .../models, /stats    the models; {requests, streams, cut}: cut streams were hung up on
 *
 * One thread, 127.0.0.1 only. A content chunk says when it was written, as t<microseconds of CLOCK_MONOTONIC>:
 * whoever reads it, however often it was parsed and written anew, knows how late it is. */
#define _GNU_SOURCE
#include "answers.h"
#include "net.h"
#include "timers.h"

#include <signal.h>

#define MOST_BODY (32u << 20)
#define MOST_HEAD 16384
#define CARRY 32        /* longer than any spelling of "stream" : true */
#define PIECE (256 << 10)
#define BURST 32        /* events that one unpaced stream sends before the others have their turn */
#define LATE_US 1000000 /* a stream that is further behind does not catch up */

enum state { HEAD, BODY, PAUSE, STREAM, DEAD };
enum answer { CHAT, EMBEDDING, MODELS, STATS, NOTHING };

struct conn {
    int fd;
    enum state state;
    enum answer answer;
    struct buffer head, out;
    size_t body_left;
    char carry[CARRY];
    size_t carried;
    bool wants_stream;
    long sent;          /* events of this stream */
    uint64_t stamp;     /* of its last one */
    struct timer timer; /* when its next one is due, or its pause is over */
    struct conn *next;  /* in the graveyard */
};

static struct {
    long chunks;
    uint64_t interval, first;
    long requests, streams, cut;
} run = {.chunks = 100};

static int epoll;
static struct conn *graveyard;
static char *embedding;

/* --- connections */

/* Events of this round may still name it: it is freed after them. */
static void drop(struct conn *c) {
    if (c->state == DEAD) return;
    if (c->state == STREAM) run.cut++;
    timer_clear(&c->timer);
    close(c->fd);
    c->state = DEAD;
    c->next = graveyard;
    graveyard = c;
}

static void bury(void) {
    while (graveyard) {
        struct conn *c = graveyard;
        graveyard = c->next;
        buffer_free(&c->head);
        buffer_free(&c->out);
        free(c);
    }
}

static void say(struct conn *c, const char *data, size_t length) {
    if (c->state == DEAD) return;
    if (!buffer_length(&c->out)) {
        ssize_t written = write(c->fd, data, length);
        if (written < 0 && errno != EAGAIN) {
            drop(c);
            return;
        }
        if (written == (ssize_t)length) return;
        if (written > 0) {
            data += written;
            length -= (size_t)written;
        }
        watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, c);
    }
    buffer_add(&c->out, data, length);
}

static void respond(struct conn *c, const char *status, const char *body, size_t length) {
    char head[1024];
    int size = snprintf(head, sizeof head, HEAD_FORMAT, status, length, run.requests);
    if (length < PIECE) { /* one write, as one segment where it fits */
        static char whole[PIECE + sizeof head];
        memcpy(whole, head, (size_t)size);
        memcpy(whole + size, body, length);
        say(c, whole, (size_t)size + length);
    } else {
        say(c, head, (size_t)size);
        say(c, body, length);
    }
}

static void refuse(struct conn *c, const char *status, const char *text) {
    char body[256];
    int size = snprintf(body, sizeof body,
                        "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\",\"param\":null,"
                        "\"code\":null}}", text);
    respond(c, status, body, (size_t)size);
}

/* --- streams */

static void event(struct conn *c, const char *text, int length) {
    char framed[1100];
    int size = snprintf(framed, sizeof framed, "%x\r\ndata: %.*s\n\n\r\n", (unsigned)length + 8, length, text);
    say(c, framed, (size_t)size);
}

static void chunk(struct conn *c, const char *choices, const char *usage) {
    char text[1000];
    int size = snprintf(text, sizeof text, CHUNK_FORMAT, choices, usage);
    event(c, text, size);
}

/* Its own time, later than the one before: two chunks of a stream are never taken for one. */
static uint64_t next_stamp(struct conn *c) {
    uint64_t now = now_us();
    c->stamp = now > c->stamp ? now : c->stamp + 1;
    return c->stamp;
}

static void finish_stream(struct conn *c) {
    char usage[256];
    snprintf(usage, sizeof usage, USAGE_FORMAT, run.chunks, run.chunks + 24);
    chunk(c, LAST_CHOICE, "");
    chunk(c, "", usage);
    event(c, "[DONE]", 6);
    if (c->state == STREAM) c->state = HEAD;
    say(c, "0\r\n\r\n", 5);
}

/* The next event of a stream: its role first, then its content, then all that ends it. */
static void next_event(struct conn *c) {
    char choice[256];
    if (c->sent == 0) {
        chunk(c, ROLE_CHOICE, "");
    } else if (c->sent <= run.chunks) {
        snprintf(choice, sizeof choice, CONTENT_CHOICE, (unsigned long long)next_stamp(c));
        chunk(c, choice, "");
    }
    c->sent++;
    if (c->sent > run.chunks) finish_stream(c);
}

/* Streams that begin together tick apart: the golden ratio spreads any number of them evenly. */
static uint64_t phase(void) {
    double turn = (double)run.streams * 0.6180339887498949;
    return (uint64_t)((turn - (double)(uint64_t)turn) * (double)run.interval);
}

static void begin_stream(struct conn *c) {
    run.streams++;
    c->sent = 0;
    c->state = STREAM;
    say(c, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    next_event(c);
    if (c->state == STREAM && !buffer_length(&c->out)) timer_set(&c->timer, now_us() + phase());
}

/* A timer went off: a pause is over, or a stream's next event is due. */
static void tick(struct conn *c) {
    if (c->state == PAUSE && !c->wants_stream) {
        c->state = HEAD;
        respond(c, "200 OK", completion, sizeof completion - 1);
        return;
    }
    if (c->state == PAUSE) {
        begin_stream(c);
        return;
    }
    int left = run.interval ? 1 : BURST;
    while (left-- && c->state == STREAM && !buffer_length(&c->out)) next_event(c);
    if (c->state != STREAM || buffer_length(&c->out)) return; /* EPOLLOUT goes on with it */
    uint64_t now = now_us(), due = run.interval ? c->timer.due + run.interval : now;
    timer_set(&c->timer, due + LATE_US < now ? now : due);
}

/* --- requests */

static void answer(struct conn *c) {
    char body[256];
    c->state = HEAD;
    if (c->answer == MODELS) {
        respond(c, "200 OK", models, sizeof models - 1);
    } else if (c->answer == STATS) {
        snprintf(body, sizeof body, "{\"requests\":%ld,\"streams\":%ld,\"cut\":%ld}", run.requests, run.streams,
                 run.cut);
        respond(c, "200 OK", body, strlen(body));
    } else if (c->answer == NOTHING) {
        refuse(c, "404 Not Found", "There is no such path.");
    } else if (run.requests++, c->answer == EMBEDDING) {
        respond(c, "200 OK", embedding, strlen(embedding));
    } else if (run.first) {
        c->state = PAUSE;
        timer_set(&c->timer, now_us() + run.first);
    } else if (c->wants_stream) {
        begin_stream(c);
    } else {
        respond(c, "200 OK", completion, sizeof completion - 1);
    }
}

static bool asks_to_stream(const char *data, size_t length) {
    const char *end = data + length, *at = data;
    while ((at = memmem(at, (size_t)(end - at), "\"stream\"", 8))) {
        at += 8;
        while (at < end && (*at == ' ' || *at == ':')) at++;
        if (at < end && *at == 't') return true;
    }
    return false;
}

/* A piece of the body: looked at, never kept. Before `data` are CARRY bytes that may be written over. */
static void scan(struct conn *c, char *data, size_t length) {
    if (c->wants_stream) return;
    memcpy(data - c->carried, c->carry, c->carried);
    data -= c->carried;
    length += c->carried;
    c->wants_stream = asks_to_stream(data, length);
    c->carried = length < CARRY ? length : CARRY;
    memcpy(c->carry, data + length - c->carried, c->carried);
}

static bool ends_with(const char *text, size_t length, const char *end) {
    size_t wanted = strlen(end);
    return length >= wanted && !memcmp(text + length - wanted, end, wanted);
}

static enum answer asked(const char *head) {
    const char *path = strchr(head, ' ');
    if (!path) return NOTHING;
    size_t length = strcspn(++path, " ?\r");
    if (!strncmp(head, "POST ", 5)) {
        if (ends_with(path, length, "/chat/completions")) return CHAT;
        return ends_with(path, length, "/embeddings") ? EMBEDDING : NOTHING;
    }
    if (ends_with(path, length, "/models")) return MODELS;
    return ends_with(path, length, "/stats") ? STATS : NOTHING;
}

/* A whole, zero-terminated head. */
static void begin_request(struct conn *c, const char *head) {
    const char *length = header(head, "content-length"), *coding = header(head, "transfer-encoding");
    c->answer = asked(head);
    c->wants_stream = false;
    c->carried = 0;
    c->body_left = length ? strtoull(length, NULL, 10) : 0;
    if (coding || c->body_left > MOST_BODY) {
        if (coding) refuse(c, "411 Length Required", "This upstream reads bodies with Content-Length only.");
        else refuse(c, "413 Content Too Large", "The body is larger than 32 MiB.");
        drop(c);
        return;
    }
    c->state = BODY;
    if (!c->body_left) answer(c);
}

/* Bytes of a head; how many of them belong to it. */
static size_t feed_head(struct conn *c, const char *data, size_t length) {
    size_t had = buffer_length(&c->head);
    size_t taken = length < MOST_HEAD - had ? length : MOST_HEAD - had;
    buffer_add(&c->head, data, taken);
    char *end = memmem(c->head.data, c->head.end, "\r\n\r\n", 4);
    if (!end) {
        if (c->head.end >= MOST_HEAD) drop(c);
        return taken;
    }
    size_t whole = (size_t)(end - c->head.data) + 4;
    end[2] = 0;
    buffer_clear(&c->head);
    begin_request(c, c->head.data);
    return whole - had;
}

static void feed(struct conn *c, char *data, size_t length) {
    while (length && c->state != DEAD) {
        size_t taken = length;
        if (c->state == HEAD) {
            taken = feed_head(c, data, length);
        } else if (c->state == BODY) {
            if (taken > c->body_left) taken = c->body_left;
            scan(c, data, taken);
            c->body_left -= taken;
            if (!c->body_left) answer(c);
        } else {
            drop(c); /* a request before the answer to the one before it: no client of ours does that */
        }
        data += taken;
        length -= taken;
    }
}

static void receive(struct conn *c) {
    static char room[CARRY + PIECE];
    for (;;) {
        ssize_t got = read(c->fd, room + CARRY, PIECE);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            drop(c);
            return;
        }
        feed(c, room + CARRY, (size_t)got);
        if (c->state == DEAD || got < PIECE) return;
    }
}

static void flush(struct conn *c) {
    while (buffer_length(&c->out)) {
        ssize_t written = write(c->fd, c->out.data + c->out.start, buffer_length(&c->out));
        if (written < 0 && errno == EAGAIN) return;
        if (written < 0) {
            drop(c);
            return;
        }
        buffer_take(&c->out, (size_t)written);
    }
    watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
    if (c->state == STREAM && !c->timer.place) timer_set(&c->timer, now_us());
}

static void greet(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = grown(NULL, sizeof *c);
        *c = (struct conn){.fd = fd, .timer.owner = c};
        no_delay(fd);
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

/* --- the program */

static void read_options(int count, char **words) {
    for (int i = 2; i < count; i += 2) {
        char *end = NULL;
        double value = i + 1 < count ? strtod(words[i + 1], &end) : -1;
        if (!end || end == words[i + 1] || *end || value < 0) die("%s wants a number of 0 or more", words[i]);
        if (!strcmp(words[i], "--chunks")) run.chunks = (long)value;
        else if (!strcmp(words[i], "--interval-ms")) run.interval = (uint64_t)(value * 1000);
        else if (!strcmp(words[i], "--first-ms")) run.first = (uint64_t)(value * 1000);
        else die("unknown option %s", words[i]);
    }
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8192))
        die("cannot listen on 127.0.0.1:%d: %s", port, strerror(errno));
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    return listener;
}

int main(int count, char **words) {
    if (count < 2 || atoi(words[1]) < 1)
        die("usage: upstream PORT [--chunks N] [--interval-ms D] [--first-ms F]");
    read_options(count, words);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1);
    raise_open_files();
    embedding = embedding_answer();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on(atoi(words[1]));
    struct epoll_event events[512];
    for (;;) {
        int found = wait_events(epoll, events, 512, timer_pause(now_us()));
        for (int i = 0; i < found; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) greet(listener);
            if (c && c->state != DEAD && events[i].events & EPOLLOUT) flush(c);
            if (c && c->state != DEAD && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
        }
        uint64_t now = now_us();
        for (struct conn *c; (c = timer_due(now));) tick(c);
        bury();
    }
}
