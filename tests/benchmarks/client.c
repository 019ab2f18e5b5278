/* The load: connections that ask, read and measure, on one thread.
 *
 *   client post|stream|poll|ws|ws-idle HOST PORT PATH KEY [options]
 *
 * post     POST over and over on kept connections, each answer must be 200 and hold --expect
 * stream   POST, read server-sent events to their end, which must hold --expect, and again
 * poll     GET every --every-ms on one connection
 * ws       on each websocket: start a stream, read it to its "done", and again
 * ws-idle  hold websockets open, answer pings
 *
 * --body-file F  --connections C  --seconds S  --warmup W  --expect TEXT  --every-ms E
 * --unique       a counter takes the place of @@@@@@@@ in the body: no two requests are the same
 *
 * Connections open one after the other during the warm-up. Prints {"event": "warm"} when counting begins, and
 * what was found in one line when it ends; then waits a moment with all connections open, for whoever wants to
 * look at the server. Errors count from the beginning. In stream and ws the lateness of a chunk is the time
 * since the stamp t<microseconds> in it. KEY may be "". */
#include "client.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#define MARKER "@@@@@@@@"
#define AGAIN_US 100000      /* after a failure */
#define GRACE_SECONDS 15     /* past all that was asked for, the process ends itself */
#define LOOK_US 150000
#define MOST_LATE_US 3600000000ull

struct run run = {.connections = 1, .seconds = 5, .warmup = 1, .every_ms = 2};
static int epoll;
static struct conn *conns;

/* --- what is measured */

void note(struct histogram *h, uint64_t value) {
    uint64_t place = value;
    if (value >= FINE) {
        int shift = 56 - __builtin_clzll(value);
        place = (uint64_t)(shift + 1) * FINE + (value >> shift) - FINE;
    }
    h->buckets[place]++;
    h->count++;
    if (value > h->most) h->most = value;
}

static uint64_t quantile(const struct histogram *h, double share) {
    uint64_t wanted = (uint64_t)((double)h->count * share), seen = 0;
    for (uint64_t place = 0; place < FINE * 58; place++)
        if ((seen += h->buckets[place]) > wanted) {
            uint64_t octave = place / FINE;
            uint64_t value = octave ? (place % FINE + FINE) << (octave - 1) : place;
            return value < h->most ? value : h->most;
        }
    return h->most;
}

static void stamp(struct conn *c, uint64_t value) {
    if (value <= c->stamps.newest || value > run.now || run.now - value > MOST_LATE_US) return;
    c->stamps.newest = value;
    if (!run.counting) return;
    run.chunks++;
    note(&run.times, run.now - value);
}

void scan_stamps(struct conn *c, const char *data, size_t length) {
    struct stamps *s = &c->stamps;
    for (const char *at = data; at < data + length; at++) {
        bool digit = *at >= '0' && *at <= '9';
        if (s->armed && digit && s->digits < 18) {
            s->value = s->value * 10 + (uint64_t)(*at - '0');
            s->digits++;
        } else if (s->armed) {
            s->armed = false;
            if (s->digits >= 12) stamp(c, s->value);
        } else if (*at == 't') {
            char letter = s->before | 32;
            bool word = (letter >= 'a' && letter <= 'z') || s->before == '_';
            s->armed = !word;
            s->digits = 0;
            s->value = 0;
        }
        s->before = *at;
    }
}

void done(struct conn *c) {
    uint64_t took = now_us() - c->began;
    c->busy = false;
    run.busy--;
    if (run.counting && (run.mode == POST || run.mode == POLL)) note(&run.times, took);
    if (run.counting) run.requests++;
    if (run.mode == WS) return;
    if (c->answer.closes) {
        hang_up(c);
        timer_set(&c->timer, run.now);
    } else if (run.mode == POLL) {
        timer_set(&c->timer, c->began + (uint64_t)(run.every_ms * 1000));
    } else {
        ask(c);
    }
}

/* --- connections */

void hang_up(struct conn *c) {
    if (c->link == CLOSED) return;
    close(c->fd);
    if (c->busy) run.busy--;
    if (c->upgraded) run.open--;
    c->link = CLOSED;
    c->busy = c->upgraded = false;
    buffer_clear(&c->out);
}

/* Counted, the first one told; the connection begins anew in a while. */
void fail(struct conn *c, const char *format, ...) {
    run.errors++;
    if (!*run.first_error) {
        va_list values;
        va_start(values, format);
        vsnprintf(run.first_error, sizeof run.first_error, format, values);
        va_end(values);
    }
    hang_up(c);
    timer_set(&c->timer, now_us() + AGAIN_US);
}

static void dial(struct conn *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)run.port)};
    inet_pton(AF_INET, run.host, &address.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("no more sockets (%s): raise the limit of open files", strerror(errno));
    no_delay(c->fd);
    c->link = CONNECTING;
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) {
        fail(c, "cannot connect: %s", strerror(errno));
        return;
    }
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN | EPOLLOUT, c);
}

void send_bytes(struct conn *c, const char *data, size_t length) {
    if (!buffer_length(&c->out)) {
        ssize_t written = write(c->fd, data, length);
        if (written == (ssize_t)length) return;
        if (written > 0) {
            data += written;
            length -= (size_t)written;
        }
        watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | EPOLLOUT, c); /* a real failure comes back as an event */
    }
    buffer_add(&c->out, data, length);
}

static void flush(struct conn *c) {
    while (buffer_length(&c->out)) {
        ssize_t written = write(c->fd, c->out.data + c->out.start, buffer_length(&c->out));
        if (written < 0 && errno == EAGAIN) return;
        if (written < 0) {
            fail(c, "cannot send: %s", strerror(errno));
            return;
        }
        buffer_take(&c->out, (size_t)written);
    }
    watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
}

static void writable(struct conn *c) {
    if (c->link == READY) {
        flush(c);
        return;
    }
    int problem = 0;
    socklen_t size = sizeof problem;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &problem, &size);
    if (problem) {
        fail(c, "cannot connect: %s", strerror(problem));
        return;
    }
    c->link = READY;
    watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
    if (run.mode == WS || run.mode == WS_IDLE) ws_greet(c);
    else ask(c);
}

static void readable(struct conn *c) {
    static char room[256 << 10];
    ssize_t got = read(c->fd, room, sizeof room);
    if (got > 0) {
        run.now = now_us();
        if (run.mode == WS || run.mode == WS_IDLE) ws_receive(c, room, (size_t)got);
        else http_receive(c, room, (size_t)got);
        return;
    }
    if (got < 0 && errno == EAGAIN) return;
    if (!got && !c->busy && !c->upgraded && run.mode != WS && run.mode != WS_IDLE) {
        hang_up(c); /* an idle connection may be closed */
        timer_set(&c->timer, run.now);
        return;
    }
    fail(c, "the connection was lost (%s): %s", got ? strerror(errno) : "closed by the server", c->answer.sample);
}

/* --- the program */

/* Write the next number over the marker. */
void count_off(char *marker) {
    if (!marker) return;
    uint64_t number = ++run.counter;
    for (int i = sizeof MARKER - 2; i >= 0; i--) {
        marker[i] = (char)('0' + number % 10);
        number /= 10;
    }
}

static void print_text(const char *text) {
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') printf("\\%c", *text);
        else if ((unsigned char)*text < 32) printf("\\u%04x", *text);
        else putchar(*text);
    }
}

static void number(const char *name, uint64_t value) { printf("\"%s\": %llu, ", name, (unsigned long long)value); }

static void report(double seconds) {
    bool answers = run.mode == POST || run.mode == POLL;
    const char *prefix = answers ? "" : "late_";
    putchar('{');
    if (run.mode == WS_IDLE) {
        number("pings", run.pings);
    } else {
        number(answers ? "requests" : "streams_finished", run.requests);
        if (!answers) number("chunks", run.chunks);
        if (run.mode == WS) number("frames", run.frames);
        printf("\"%sp50_us\": %llu, ", prefix, (unsigned long long)quantile(&run.times, 0.5));
        printf("\"%sp99_us\": %llu, ", prefix, (unsigned long long)quantile(&run.times, 0.99));
        printf("\"%smax_us\": %llu, ", prefix, (unsigned long long)run.times.most);
        number("busy", (uint64_t)run.busy);
    }
    if (run.mode == WS || run.mode == WS_IDLE) number("open", (uint64_t)run.open);
    number("errors", run.errors);
    printf("\"seconds\": %.3f, \"first_error\": \"", seconds);
    print_text(run.first_error);
    printf("\"}\n");
    fflush(stdout);
}

static void read_body(const char *name) {
    int fd = open(name, O_RDONLY);
    struct stat facts;
    if (fd < 0 || fstat(fd, &facts)) die("cannot read %s: %s", name, strerror(errno));
    run.body = grown(NULL, (size_t)facts.st_size + 1);
    for (ssize_t got; (got = read(fd, run.body + run.body_length, (size_t)facts.st_size - run.body_length)) > 0;)
        run.body_length += (size_t)got;
    close(fd);
}

static double positive(const char *name, const char *text) {
    char *end = NULL;
    double value = text ? strtod(text, &end) : -1;
    if (!end || end == text || *end || value < 0) die("%s wants a number of 0 or more", name);
    return value;
}

static void read_options(int count, char **words) {
    for (int i = 6; i < count; i++) {
        const char *name = words[i];
        if (!strcmp(name, "--unique")) {
            run.unique = true;
            continue;
        }
        const char *value = ++i < count ? words[i] : NULL;
        if (!value) die("%s wants a value", name);
        if (!strcmp(name, "--body-file")) read_body(value);
        else if (!strcmp(name, "--expect")) run.expect = value;
        else if (!strcmp(name, "--connections")) run.connections = (long)positive(name, value);
        else if (!strcmp(name, "--seconds")) run.seconds = positive(name, value);
        else if (!strcmp(name, "--warmup")) run.warmup = positive(name, value);
        else if (!strcmp(name, "--every-ms")) run.every_ms = positive(name, value);
        else die("unknown option %s", name);
    }
    if (run.expect && (!*run.expect || strlen(run.expect) > 64)) die("--expect wants 1 to 64 bytes");
    if (!run.body && run.mode != POLL && run.mode != WS_IDLE) die("--body-file is missing");
    if (run.unique && !(run.marker = memmem(run.body, run.body_length, MARKER, sizeof MARKER - 1)))
        die("--unique wants " MARKER " in the body");
}

static void read_words(int count, char **words) {
    static const char *modes[] = {"post", "stream", "poll", "ws", "ws-idle"};
    struct in_addr address;
    if (count < 6) die("usage: client post|stream|poll|ws|ws-idle HOST PORT PATH KEY [options]");
    while (run.mode < 5 && strcmp(words[1], modes[run.mode])) run.mode++;
    if (run.mode == 5) die("unknown mode %s", words[1]);
    run.host = words[2];
    run.port = atoi(words[3]);
    run.path = words[4];
    run.key = words[5];
    if (inet_pton(AF_INET, run.host, &address) != 1) die("HOST is an address such as 127.0.0.1, not %s", run.host);
    if (run.mode == STREAM) run.expect = "[DONE]";
    read_options(count, words);
    if (run.mode == POLL) run.connections = 1;
    if (strlen(run.path) + strlen(run.key) > 700) die("PATH and KEY are too long");
}

static void out_of_time(int signal) {
    static const char text[] = "the load did not end in time\n";
    _exit(write(2, text, sizeof text - 1) < 0 ? 2 : signal);
}

/* A timer went off: connect, or on an open connection, poll. */
static void tick(struct conn *c) {
    if (c->link == CLOSED) dial(c);
    else if (c->link == READY && !c->busy) ask(c);
}

static void turn(uint64_t until) {
    struct epoll_event events[512];
    int64_t pause = timer_pause(run.now);
    if (pause < 0 || pause > (int64_t)(until - run.now)) pause = (int64_t)(until - run.now);
    int found = wait_events(epoll, events, 512, pause);
    run.now = now_us();
    for (int i = 0; i < found; i++) {
        struct conn *c = events[i].data.ptr;
        if (c->link != CLOSED && events[i].events & (EPOLLOUT | EPOLLERR)) writable(c);
        if (c->link != CLOSED && events[i].events & (EPOLLIN | EPOLLHUP)) readable(c);
    }
    run.now = now_us();
    for (struct conn *c; (c = timer_due(run.now));) tick(c);
}

static void open_one_by_one(uint64_t began, double over_us) {
    conns = grown(NULL, (size_t)run.connections * sizeof *conns);
    for (long i = 0; i < run.connections; i++) {
        conns[i] = (struct conn){.timer.owner = &conns[i]};
        timer_set(&conns[i].timer, began + (uint64_t)(over_us * (double)i / (double)run.connections));
    }
}

int main(int count, char **words) {
    read_words(count, words);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, out_of_time);
    alarm((unsigned)(run.warmup + run.seconds) + GRACE_SECONDS);
    prctl(PR_SET_TIMERSLACK, 1);
    raise_open_files();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    run.now = now_us();
    uint64_t warm = run.now + (uint64_t)(run.warmup * 1e6), end = warm + (uint64_t)(run.seconds * 1e6);
    bool spread = run.mode != POST && run.mode != POLL;
    open_one_by_one(run.now, spread ? run.warmup * 0.8e6 : 0);
    while (run.now < warm) turn(warm);
    printf("{\"event\": \"warm\"}\n");
    fflush(stdout);
    run.counting = true;
    warm = run.now;
    while (run.now < end) turn(end);
    report((double)(run.now - warm) / 1e6);
    usleep(LOOK_US);
    return 0;
}
