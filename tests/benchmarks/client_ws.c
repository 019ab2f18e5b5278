/* A websocket as a client (RFC 6455): the handshake, frames both ways, and a stream of tokens over them. */
#include "client.h"

enum opcode { MORE = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

void ws_greet(struct conn *c) {
    char head[1024];
    int size = snprintf(head, sizeof head,
                        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: YmVuY2htYXJrLWNsaWVudA==\r\nSec-WebSocket-Version: 13\r\n",
                        run.path, run.host, run.port);
    if (*run.key) size += snprintf(head + size, sizeof head - (size_t)size, "Authorization: Bearer %s\r\n", run.key);
    size += snprintf(head + size, sizeof head - (size_t)size, "\r\n");
    answer_reset(&c->answer);
    finder_reset(&c->wanted, NULL);
    c->upgraded = false;
    buffer_clear(&c->in);
    buffer_clear(&c->message);
    send_bytes(c, head, (size_t)size);
}

/* A frame of ours, masked as a client's must be. */
static void send_frame(struct conn *c, enum opcode opcode, const char *data, size_t length) {
    static struct buffer frame;
    static uint32_t mask = 0x9e3779b9;
    unsigned char head[14] = {(unsigned char)(0x80 | opcode)};
    size_t size = 2;
    if (length < 126) {
        head[1] = (unsigned char)(0x80 | length);
    } else {
        int bytes = length < 65536 ? 2 : 8;
        head[1] = (unsigned char)(0x80 | (bytes == 2 ? 126 : 127));
        for (int i = bytes - 1; i >= 0; i--) head[size++] = (unsigned char)(length >> (8 * i));
    }
    mask = mask * 1664525 + 1013904223;
    memcpy(head + size, &mask, 4);
    buffer_clear(&frame);
    buffer_add(&frame, head, size + 4);
    buffer_add(&frame, data, length);
    char *payload = frame.data + size + 4;
    for (size_t i = 0; i < length; i++) payload[i] ^= (char)head[size + i % 4];
    send_bytes(c, frame.data, frame.end);
}

/* The next stream on this socket. */
static void start(struct conn *c) {
    static struct buffer text;
    static uint64_t streams;
    char head[64];
    int size = snprintf(head, sizeof head, "{\"type\":\"start\",\"id\":\"c%llu\",\"request\":",
                        (unsigned long long)++streams);
    count_off(run.marker);
    buffer_clear(&text);
    buffer_add(&text, head, (size_t)size);
    buffer_add(&text, run.body, run.body_length);
    buffer_add(&text, "}", 1);
    c->stamps = (struct stamps){0};
    c->busy = true;
    run.busy++;
    c->began = now_us();
    send_frame(c, TEXT, text.data, text.end);
}

static bool is_of_type(const char *text, size_t length, const char *type) {
    char compact[32], spaced[32];
    int size = snprintf(compact, sizeof compact, "\"type\":\"%s\"", type);
    snprintf(spaced, sizeof spaced, "\"type\": \"%s\"", type);
    return memmem(text, length, compact, (size_t)size) || memmem(text, length, spaced, (size_t)size + 1);
}

static void message(struct conn *c, const char *text, size_t length) {
    if (run.counting) run.frames++;
    if (is_of_type(text, length, "error")) {
        fail(c, "%.*s", (int)(length < SAMPLE ? length : SAMPLE), text);
        return;
    }
    scan_stamps(c, text, length);
    scan_stamps(c, "\n", 1); /* no stamp goes on in the next message */
    if (is_of_type(text, length, "done")) {
        done(c);
        if (c->link == READY) start(c);
    }
}

static void frame(struct conn *c, unsigned char first, const char *data, size_t length) {
    enum opcode opcode = first & 15;
    if (opcode == PING) {
        run.pings++;
        send_frame(c, PONG, data, length);
    } else if (opcode == CLOSE) {
        const unsigned char *code = (const unsigned char *)data;
        fail(c, "the socket was closed with code %d: %.*s", length < 2 ? 1005 : code[0] << 8 | code[1],
             length > 2 ? (int)length - 2 : 0, length > 2 ? data + 2 : "");
    } else if (opcode == TEXT && first & 0x80) {
        message(c, data, length);
    } else if (opcode == TEXT || opcode == MORE) {
        buffer_add(&c->message, data, length);
        if (!(first & 0x80)) return;
        size_t whole = buffer_length(&c->message);
        message(c, c->message.data + c->message.start, whole);
        buffer_clear(&c->message);
    } else if (opcode != PONG) {
        fail(c, "a frame of kind %d", opcode);
    }
}

/* The first frame that has come in whole; false where there is none. */
static bool next_frame(struct conn *c) {
    const unsigned char *at = (const unsigned char *)c->in.data + c->in.start;
    size_t length = buffer_length(&c->in), head = 2;
    if (length < head) return false;
    if (at[0] & 0x70 || at[1] & 0x80) {
        fail(c, "a frame that no server may send (first bytes %02x %02x)", at[0], at[1]);
        return false;
    }
    uint64_t size = at[1];
    if (size >= 126) {
        size_t bytes = size == 126 ? 2 : 8;
        if (length < (head += bytes)) return false;
        size = 0;
        for (size_t i = 2; i < head; i++) size = size << 8 | at[i];
    }
    if (size > length - head) return false;
    frame(c, at[0], (const char *)at + head, (size_t)size);
    if (c->link == READY) buffer_take(&c->in, head + (size_t)size);
    return c->link == READY;
}

void ws_receive(struct conn *c, const char *data, size_t length) {
    if (!c->upgraded) {
        size_t taken = answer_feed(c, data, length);
        data += taken;
        length -= taken;
        if (c->answer.in_body && c->answer.status != 101) {
            if (c->answer.complete) fail(c, "HTTP %d: %s", c->answer.status, c->answer.sample);
            return;
        }
        if (!c->answer.in_body) return;
        c->upgraded = true;
        run.open++;
        if (run.mode == WS) start(c);
    }
    if (length) buffer_add(&c->in, data, length);
    while (c->link == READY && next_frame(c)) continue;
}
