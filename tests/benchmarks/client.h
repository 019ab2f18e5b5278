/* The load in three parts: client.c drives it, client_http.c and client_ws.c speak the two protocols. */
#ifndef CLIENT_H
#define CLIENT_H

#define _GNU_SOURCE
#include "net.h"

#include "timers.h"

#define SAMPLE 300 /* bytes of an answer that are kept to be shown when it is a wrong one */

enum mode { POST, STREAM, POLL, WS, WS_IDLE };
enum link { CLOSED, CONNECTING, READY };
enum part { SIZE, DATA, DATA_END, TRAILER };

/* An HTTP answer as it comes in. */
struct answer {
    struct buffer head;
    bool in_body, chunked, until_close, complete, closes;
    int status;
    enum part part;
    bool past_size;  /* in a chunk's size line, after its digits */
    size_t line;     /* of the trailer */
    uint64_t left;   /* of the body, or of its chunk */
    char sample[SAMPLE + 1];
    size_t sampled;
};

/* Time stamps t<digits> in a stream, wherever it is cut. One that is not newer is a repetition. */
struct stamps {
    bool armed;
    char before;
    int digits;
    uint64_t value, newest;
};

struct conn {
    int fd;
    enum link link;
    bool busy;             /* a request waits for its answer */
    uint64_t began;        /* when that was sent */
    struct timer timer;    /* when to connect, or to poll again */
    struct buffer out;
    struct answer answer;
    struct stamps stamps;
    struct finder wanted;
    bool upgraded;         /* a websocket */
    struct buffer in, message;
};

/* Counts in buckets at most 0.8 % wide. */
#define FINE 128
struct histogram {
    uint64_t count, most, buckets[FINE * 58];
};

struct run {
    enum mode mode;
    const char *host, *path, *key, *expect;
    int port;
    long connections;
    bool unique;
    double seconds, warmup, every_ms;
    char *body;
    size_t body_length;
    char *marker;          /* in the body: what a counter replaces */
    uint64_t counter;
    uint64_t now;          /* of this round of events */
    bool counting, over;
    uint64_t requests, streams, chunks, frames, pings, errors;
    long busy, open;
    char first_error[600];
    struct histogram times;
};

extern struct run run;

/* client.c */
void note(struct histogram *h, uint64_t value);
void scan_stamps(struct conn *c, const char *data, size_t length);
void send_bytes(struct conn *c, const char *data, size_t length);
void count_off(char *marker);
void hang_up(struct conn *c);
void done(struct conn *c);
__attribute__((format(printf, 2, 3))) void fail(struct conn *c, const char *format, ...);

/* client_http.c */
void ask(struct conn *c);
void answer_reset(struct answer *a);
size_t answer_feed(struct conn *c, const char *data, size_t length);
void http_receive(struct conn *c, const char *data, size_t length);

/* client_ws.c */
void ws_greet(struct conn *c);
void ws_receive(struct conn *c, const char *data, size_t length);

#endif
