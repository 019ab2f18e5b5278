/* HTTP as a client: a request in one piece, an answer in any. */
#include "client.h"

/* Send the one request of this run. */
void ask(struct conn *c) {
    char head[1024];
    int size = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: %s:%d\r\nAccept: */*\r\n",
                        run.mode == POLL ? "GET" : "POST", run.path, run.host, run.port);
    if (*run.key) size += snprintf(head + size, sizeof head - (size_t)size, "Authorization: Bearer %s\r\n", run.key);
    if (run.mode != POLL)
        size += snprintf(head + size, sizeof head - (size_t)size,
                         "Content-Type: application/json\r\nContent-Length: %zu\r\n", run.body_length);
    size += snprintf(head + size, sizeof head - (size_t)size, "\r\n");
    answer_reset(&c->answer);
    finder_reset(&c->wanted, run.expect);
    c->stamps = (struct stamps){0};
    c->busy = true;
    run.busy++;
    c->began = now_us();
    if (run.mode == POLL) {
        send_bytes(c, head, (size_t)size);
        return;
    }
    static struct buffer whole;
    count_off(run.marker);
    buffer_clear(&whole);
    buffer_add(&whole, head, (size_t)size);
    buffer_add(&whole, run.body, run.body_length);
    send_bytes(c, whole.data, whole.end);
}

void answer_reset(struct answer *a) {
    buffer_clear(&a->head);
    *a = (struct answer){.head = a->head};
}

static void take_body(struct conn *c, const char *data, size_t length) {
    struct answer *a = &c->answer;
    if (a->sampled < SAMPLE) {
        size_t kept = length < SAMPLE - a->sampled ? length : SAMPLE - a->sampled;
        memcpy(a->sample + a->sampled, data, kept);
        a->sampled += kept;
    }
    finder_feed(&c->wanted, data, length);
    if (run.mode == STREAM && a->status == 200) scan_stamps(c, data, length);
}

static int hex(char letter) {
    if (letter >= '0' && letter <= '9') return letter - '0';
    letter |= 32;
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* One byte of what frames the chunks. */
static void chunk_frame(struct answer *a, char letter) {
    if (a->part == SIZE) {
        int digit = hex(letter);
        if (letter == '\n') {
            a->part = a->left ? DATA : TRAILER;
            a->past_size = false;
            a->line = 0;
        } else if (digit >= 0 && !a->past_size) {
            a->left = a->left * 16 + (uint64_t)digit;
        } else {
            a->past_size = true;
        }
    } else if (a->part == DATA_END) {
        if (letter == '\n') a->part = SIZE;
    } else if (letter == '\n') {
        a->complete = !a->line;
        a->line = 0;
    } else if (letter != '\r') {
        a->line++;
    }
}

static size_t feed_chunks(struct conn *c, const char *data, size_t length) {
    struct answer *a = &c->answer;
    size_t at = 0;
    while (at < length && !a->complete) {
        if (a->part != DATA) {
            chunk_frame(a, data[at++]);
            continue;
        }
        size_t taken = length - at < a->left ? length - at : (size_t)a->left;
        take_body(c, data + at, taken);
        at += taken;
        a->left -= taken;
        if (!a->left) a->part = DATA_END;
    }
    return at;
}

static void read_head(struct answer *a, const char *head) {
    const char *length = header(head, "content-length"), *coding = header(head, "transfer-encoding");
    const char *connection = header(head, "connection");
    a->status = !strncmp(head, "HTTP/1.", 7) ? atoi(head + 9) : 0;
    a->in_body = true;
    a->chunked = coding && !strncasecmp(coding, "chunked", 7);
    a->closes = connection && !strncasecmp(connection, "close", 5);
    if (a->chunked || a->status == 101) return;
    a->left = length ? strtoull(length, NULL, 10) : 0;
    a->until_close = !length && a->status != 204 && a->status != 304;
    a->complete = !a->left && !a->until_close;
}

/* Bytes of an answer; how many of them belong to it. */
size_t answer_feed(struct conn *c, const char *data, size_t length) {
    struct answer *a = &c->answer;
    size_t taken = 0;
    if (!a->in_body) {
        size_t had = buffer_length(&a->head);
        buffer_add(&a->head, data, length);
        char *end = memmem(a->head.data, a->head.end, "\r\n\r\n", 4);
        if (!end && a->head.end > 65536) a->complete = true; /* with status 0: no HTTP at all */
        if (!end) return length;
        end[2] = 0;
        taken = (size_t)(end + 4 - a->head.data) - had;
        read_head(a, a->head.data);
        buffer_clear(&a->head);
    }
    if (a->complete || a->status == 101) return taken;
    if (a->chunked) return taken + feed_chunks(c, data + taken, length - taken);
    size_t rest = length - taken;
    if (!a->until_close && rest > a->left) rest = (size_t)a->left;
    take_body(c, data + taken, rest);
    if (!a->until_close) a->complete = !(a->left -= rest);
    return taken + rest;
}

static void finish(struct conn *c) {
    struct answer *a = &c->answer;
    if (a->status != 200) {
        fail(c, "HTTP %d: %s", a->status, a->sample);
        return;
    }
    if (!c->wanted.found) {
        fail(c, "an answer without %s: %s", run.expect, a->sample);
        return;
    }
    done(c);
}

void http_receive(struct conn *c, const char *data, size_t length) {
    if (!c->busy) {
        fail(c, "an answer to nothing");
        return;
    }
    size_t taken = answer_feed(c, data, length);
    if (!c->answer.complete) return;
    if (taken == length) finish(c);
    else fail(c, "HTTP %d, and more after its answer: %s", c->answer.status, c->answer.sample);
}
