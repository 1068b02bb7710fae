/*
 * The application behind every proxy of the benchmark: one process, one thread, as cheap as a keep-alive
 * HTTP/1.1 server on epoll can be, so that it is never what is measured.
 *
 *   upstream PORT          listens on 127.0.0.1:PORT and prints "ready"
 *
 *   GET  /bytes/N          N bytes
 *   GET  /count            how many requests have been answered, and the bytes of their bodies in and out; not
 *                          counted itself
 *   GET  anything else     1 KiB
 *   POST, PUT              reads the body to its end, with a length or in chunks, and tells how long it was
 *   Upgrade: websocket     101, then every byte comes back. The accept key is always that of the example in
 *                          RFC 6455 section 1.3, so clients must send the key of that example.
 *
 * It trusts its clients: a head that doesn't fit into the buffer or makes no sense ends the connection.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    INPUT_BYTES = 64 * 1024,
    HEAD_BYTES = 256,
    BLOCK_BYTES = 256 * 1024,
    SMALL_BYTES = 1024,
    EVENTS = 256,
    BACKLOG = 4096,
};

enum state { HEAD, SIZED_BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, ECHO };

struct connection {
    int fd;
    enum state state;
    bool wants_write;
    /* Bytes of the request's body that are still to come in this part, and all that came. */
    unsigned long long body_left, body_read;
    /* The head of the answer, and how much of head and body is still to be sent. */
    char head[HEAD_BYTES];
    size_t head_sent, head_length;
    unsigned long long answer_left;
    size_t used;
    char *input;
};

static char block[BLOCK_BYTES];
/* One buffer serves all connections; only what can't be consumed at once is copied to a connection's own. */
static char shared_input[INPUT_BYTES];
static int poller;
static unsigned long long answered, bytes_in, bytes_out;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void end(struct connection *c) {
    close(c->fd);
    free(c->input);
    free(c);
}

static void watch(struct connection *c, bool write) {
    if (c->wants_write == write)
        return;
    struct epoll_event event = { .events = write ? EPOLLOUT : EPOLLIN, .data.ptr = c };
    c->wants_write = write;
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static bool sending(const struct connection *c) {
    return c->head_sent < c->head_length || c->answer_left > 0;
}

/* Sends what the socket takes. False: the connection is over. */
static bool send_some(struct connection *c) {
    while (sending(c)) {
        size_t body = c->answer_left < BLOCK_BYTES ? (size_t)c->answer_left : BLOCK_BYTES;
        struct iovec parts[2] = {
            { c->head + c->head_sent, c->head_length - c->head_sent },
            { block, body },
        };
        ssize_t sent = writev(c->fd, parts, body > 0 ? 2 : 1);
        if (sent < 0) {
            if (errno == EAGAIN) {
                watch(c, true);
                return true;
            }
            return false;
        }
        size_t of_head = (size_t)sent < parts[0].iov_len ? (size_t)sent : parts[0].iov_len;
        c->head_sent += of_head;
        c->answer_left -= (unsigned long long)sent - of_head;
        bytes_out += (unsigned long long)sent - of_head;
    }
    watch(c, false);
    return true;
}

static bool answer(struct connection *c, unsigned long long length) {
    answered++;
    int written = snprintf(c->head, HEAD_BYTES,
                           "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %llu\r\n\r\n",
                           length);
    c->head_sent = 0;
    c->head_length = (size_t)written;
    c->answer_left = length;
    return send_some(c);
}

static bool answer_text(struct connection *c, const char *text) {
    int written = snprintf(c->head, HEAD_BYTES,
                           "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s",
                           strlen(text), text);
    c->head_sent = 0;
    c->head_length = (size_t)written;
    c->answer_left = 0;
    return send_some(c);
}

static bool answer_upload(struct connection *c) {
    char text[32];
    snprintf(text, sizeof text, "%llu\n", c->body_read);
    c->state = HEAD;
    answered++;
    return answer_text(c, text);
}

static bool answer_count(struct connection *c) {
    char text[96];
    snprintf(text, sizeof text, "%llu %llu %llu\n", answered, bytes_in, bytes_out);
    return answer_text(c, text);
}

static const char *header(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':') {
            const char *value = line + 3 + length;
            return value + strspn(value, " ");
        }
    }
    return NULL;
}

/* One request's head, ended by a zero byte. */
static bool begin(struct connection *c, const char *head) {
    const char *value;
    c->body_read = 0;
    if ((value = header(head, "upgrade")) != NULL && strncasecmp(value, "websocket", 9) == 0) {
        int written = snprintf(c->head, HEAD_BYTES,
                               "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
        c->head_sent = 0;
        c->head_length = (size_t)written;
        c->state = ECHO;
        return send_some(c);
    }
    if ((value = header(head, "expect")) != NULL && strncasecmp(value, "100-", 4) == 0) {
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        if (write(c->fd, go_on, sizeof go_on - 1) < 0)
            return false;
    }
    if ((value = header(head, "transfer-encoding")) != NULL) {
        c->state = CHUNK_SIZE;
        return true;
    }
    if ((value = header(head, "content-length")) != NULL && strtoull(value, NULL, 10) > 0) {
        c->body_left = strtoull(value, NULL, 10);
        c->state = SIZED_BODY;
        return true;
    }
    if (strncmp(head, "POST ", 5) == 0 || strncmp(head, "PUT ", 4) == 0)
        return answer_upload(c);
    if (strncmp(head, "GET /count ", 11) == 0)
        return answer_count(c);
    unsigned long long length = SMALL_BYTES;
    sscanf(head, "GET /bytes/%llu", &length);
    return answer(c, length);
}

/* Takes what it can from `length` bytes. Gives how many it took, or -1 when the connection is over. */
static ssize_t consume(struct connection *c, char *data, size_t length) {
    size_t at = 0;
    while (at < length && !sending(c)) {
        char *rest = data + at;
        size_t left = length - at, part;
        char *line;
        switch (c->state) {
        case HEAD:
            line = memmem(rest, left, "\r\n\r\n", 4);
            if (line == NULL)
                return (ssize_t)at;
            line[2] = 0;
            if (!begin(c, rest))
                return -1;
            at += (size_t)(line - rest) + 4;
            break;
        case SIZED_BODY:
        case CHUNK_DATA:
            part = c->body_left < left ? (size_t)c->body_left : left;
            at += part;
            c->body_left -= part;
            c->body_read += part;
            bytes_in += part;
            if (c->body_left > 0)
                break;
            if (c->state == CHUNK_DATA)
                c->state = CHUNK_END;
            else if (!answer_upload(c))
                return -1;
            break;
        case CHUNK_SIZE:
        case CHUNK_END:
        case TRAILER:
            line = memmem(rest, left, "\r\n", 2);
            if (line == NULL)
                return (ssize_t)at;
            at += (size_t)(line - rest) + 2;
            if (c->state == CHUNK_END) {
                c->state = CHUNK_SIZE;
            } else if (c->state == CHUNK_SIZE) {
                c->body_left = strtoull(rest, NULL, 16);
                c->state = c->body_left > 0 ? CHUNK_DATA : TRAILER;
            } else if (line == rest && !answer_upload(c)) {
                return -1;
            }
            break;
        case ECHO:
            /* Frames of the benchmark are small: the socket always takes them. */
            if (write(c->fd, rest, left) != (ssize_t)left)
                return -1;
            at = length;
            break;
        }
    }
    return (ssize_t)at;
}

/* Reads and works once. False: the connection is over. */
static bool serve(struct connection *c) {
    char *data = shared_input;
    if (c->used > 0)
        memcpy(data, c->input, c->used);
    if (c->used == INPUT_BYTES)
        return false;
    ssize_t got = read(c->fd, data + c->used, INPUT_BYTES - c->used);
    if (got == 0)
        return false;
    if (got < 0)
        return errno == EAGAIN;
    size_t length = c->used + (size_t)got;
    ssize_t taken = consume(c, data, length);
    if (taken < 0)
        return false;
    c->used = length - (size_t)taken;
    if (c->used > 0) {
        if (c->input == NULL && (c->input = malloc(INPUT_BYTES)) == NULL)
            return false;
        memcpy(c->input, data + taken, c->used);
    } else if (c->input != NULL) {
        free(c->input);
        c->input = NULL;
    }
    return true;
}

/* After an answer has been sent: requests that had come meanwhile. */
static bool go_on(struct connection *c) {
    if (!send_some(c))
        return false;
    while (!sending(c) && c->used > 0) {
        ssize_t taken = consume(c, c->input, c->used);
        if (taken < 0)
            return false;
        if (taken == 0)
            break;
        c->used -= (size_t)taken;
        memmove(c->input, c->input + taken, c->used);
    }
    return true;
}

static void take_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct connection *c = calloc(1, sizeof *c);
        if (c == NULL)
            die("calloc");
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->fd = fd;
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 64;
    }
    signal(SIGPIPE, SIG_IGN);
    memset(block, 'x', sizeof block);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((unsigned short)atoi(arguments[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    if (listen(listener, BACKLOG) < 0)
        die("listen");
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll");
    printf("ready\n");
    fflush(stdout);
    static struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int n = 0; n < ready; n++) {
            struct connection *c = events[n].data.ptr;
            if (c == NULL)
                take_all(listener);
            else if (!(c->wants_write ? go_on(c) : serve(c)))
                end(c);
        }
    }
}
