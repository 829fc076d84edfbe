// The far ends of the benchmarks, natively, so that they are never what limits a run. Each prints JSON lines.
//
//   wire send PORT FILE BYTES CONNECTIONS single|blocks RATE SECONDS   sends the first BYTES bytes of a file of lines over TLS
//   wire drain PORT CERT KEY                                   takes TLS connections and discards what comes: the sender's ceiling
//   wire serve PORT CERT KEY FILE BYTES JWT single|blocks      answers as LimaCharlie's stream service does, over HTTPS
//
// `send`: each connection has a thread and an equal share, cut at a line end. With `single` each line is a TLS record of its own,
// else TLS records are 16 KiB. RATE is lines per second over all connections, over and over
// for so many SECONDS; 0 is once, as fast as the other side takes them.
// `serve`: a request for /stream… is confirmed, and gets the file after a line on standard input; any other gets the JWT. With
// `single` each line is a chunk and a TLS record of its own.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TLS_RECORD = 16384, WRITE_BUFFER = 65536, SLICE_US = 5000 };

typedef struct {
    pthread_t thread;
    const char *data;
    size_t size;
    double rate;
    size_t sent;
} Share;

static int port, single;
static SSL_CTX *context;
static const char *corpus, *jwt;
static size_t sent_lines;
static size_t corpus_size;
static double began, duration;

static void fail(const char *what) {
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void report(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_utime.tv_usec / 1e6 + used.ru_stime.tv_sec + used.ru_stime.tv_usec / 1e6;
    printf("{\"wall\": %.6f, \"cpu\": %.6f, \"lines\": %zu}\n", now() - began, cpu, sent_lines);
    fflush(stdout);
}

static const char *map(const char *path, size_t size) {
    int file = open(path, O_RDONLY);
    const char *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (file < 0 || data == MAP_FAILED) fail("corpus");
    return data;
}

static SSL *tls_on(int fd) {
    // Records are gathered before the system call, so that a record for each line costs this side little more than blocks do.
    BIO *sock = BIO_new_socket(fd, BIO_NOCLOSE), *buffer = BIO_new(BIO_f_buffer());
    BIO_set_write_buffer_size(buffer, WRITE_BUFFER);
    BIO_up_ref(sock);
    SSL *tls = SSL_new(context);
    SSL_set_bio(tls, sock, BIO_push(buffer, sock));
    return tls;
}

// How much goes into the next TLS record.
static size_t piece(const char *data, size_t left) {
    if (!single) return left > TLS_RECORD ? TLS_RECORD : left;
    const char *end = memchr(data, '\n', left);
    return end != NULL ? (size_t)(end + 1 - data) : left;
}

static void write_all(SSL *tls, const char *data, size_t size) {
    for (size_t at = 0, next; at < size; at += next) {
        next = piece(data + at, size - at);
        if (SSL_write(tls, data + at, next) != (int)next) fail("write");
    }
}

// So many lines of it in bytes; `count` becomes what there is.
static size_t lines(const char *data, size_t left, size_t *count) {
    const char *at = data;
    size_t found = 0;
    for (; found < *count && (size_t)(at - data) < left; found++) at = (const char *)memchr(at, '\n', left - (at - data)) + 1;
    *count = found;
    return at - data;
}

static void *send_share(void *argument) {
    Share *share = argument;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
    SSL *tls = tls_on(fd);
    if (SSL_connect(tls) != 1) fail("handshake");
    if (share->rate == 0) {
        write_all(tls, share->data, share->size);
    } else {
        size_t at = 0;
        for (double start = now(), passed; (passed = now() - start) < duration;) {
            for (size_t due = passed * share->rate, count, size; share->sent < due; share->sent += count) {
                if (at == share->size) at = 0;
                count = due - share->sent;
                size = lines(share->data + at, share->size - at, &count);
                write_all(tls, share->data + at, size);
                at += size;
            }
            if (BIO_flush(SSL_get_wbio(tls)) != 1) fail("flush");
            usleep(SLICE_US);
        }
    }
    SSL_shutdown(tls);
    BIO_flush(SSL_get_wbio(tls));
    shutdown(fd, SHUT_WR);
    for (char rest[4096]; read(fd, rest, sizeof rest) > 0;) continue;
    close(fd);
    return NULL;
}

static void send_all(int connections, double rate) {
    context = SSL_CTX_new(TLS_client_method());
    began = now();
    Share *shares = calloc(connections, sizeof *shares);
    size_t start = 0;
    for (int number = 0; number < connections; number++) {
        size_t end = corpus_size;
        if (number + 1 < connections) {
            end = corpus_size / connections * (number + 1);
            if (end < start) end = start;
            end = (const char *)memchr(corpus + end, '\n', corpus_size - end) + 1 - corpus;
        }
        shares[number] = (Share){.data = corpus + start, .size = end - start, .rate = rate / connections};
        if (pthread_create(&shares[number].thread, NULL, send_share, &shares[number])) fail("thread");
        start = end;
    }
    for (int number = 0; number < connections; number++) {
        pthread_join(shares[number].thread, NULL);
        sent_lines += shares[number].sent;
    }
    report();
}

static void *drain_one(void *argument) {
    int fd = (int)(long)argument;
    SSL *tls = tls_on(fd);
    static __thread char taken[1 << 17];
    if (SSL_accept(tls) == 1)
        while (SSL_read(tls, taken, sizeof taken) > 0) continue;
    SSL_free(tls);
    close(fd);
    return NULL;
}

static void *serve_one(void *argument) {
    int fd = (int)(long)argument;
    SSL *tls = tls_on(fd);
    char request[16384] = "";
    int filled = 0, got, wanted = 1;
    if (SSL_accept(tls) != 1) return NULL;
    while (filled < wanted && (got = SSL_read(tls, request + filled, sizeof request - 1 - filled)) > 0) {
        request[filled += got] = 0;
        const char *body = strstr(request, "\r\n\r\n"), *length = strcasestr(request, "\r\nContent-Length:");
        wanted = body == NULL ? filled + 1 : body + 4 - request + (length != NULL && length < body ? atoi(length + 17) : 0);
    }
    char answer[16384];
    if (strstr(request, " /stream") == NULL) {
        snprintf(answer, sizeof answer,
                 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n{\"jwt\":\"%s\"}",
                 strlen(jwt) + 10, jwt);
        SSL_write(tls, answer, strlen(answer));
        BIO_flush(SSL_get_wbio(tls));
        SSL_shutdown(tls);
        BIO_flush(SSL_get_wbio(tls));
        close(fd);
        return NULL;
    }
    const char *trace = "{\"__trace\":\"connected\"}\n";
    snprintf(answer, sizeof answer,
             "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n%zx\r\n%s\r\n",
             strlen(trace), trace);
    SSL_write(tls, answer, strlen(answer));
    BIO_flush(SSL_get_wbio(tls));
    printf("{\"connected\": true}\n");
    fflush(stdout);
    if (fgets(request, sizeof request, stdin) == NULL) return NULL;
    began = now();
    static char chunk[TLS_RECORD];
    for (size_t at = 0, size; at < corpus_size; at += size) {
        size = piece(corpus + at, corpus_size - at);
        if (size > TLS_RECORD - 16) size = TLS_RECORD - 16;
        int head = sprintf(chunk, "%zx\r\n", size);
        memcpy(chunk + head, corpus + at, size);
        memcpy(chunk + head + size, "\r\n", 2);
        if (SSL_write(tls, chunk, head + size + 2) <= 0) fail("write");
    }
    BIO_flush(SSL_get_wbio(tls));
    report();
    while (SSL_read(tls, request, sizeof request) > 0) continue;
    return NULL;
}

static void take(const char *cert, const char *key, void *(*one)(void *)) {
    context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, cert) != 1 || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        fail("certificate");
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 64) < 0) fail("listen");
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd < 0 || pthread_create(&thread, NULL, one, (void *)(long)fd)) fail("accept");
        pthread_detach(thread);
    }
}

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN);
    if (count < 3) return 2;
    port = atoi(arguments[2]);
    if (strcmp(arguments[1], "send") == 0 && count == 9) {
        duration = atof(arguments[8]);
        corpus_size = strtoull(arguments[4], NULL, 10);
        corpus = map(arguments[3], corpus_size);
        single = strcmp(arguments[6], "single") == 0;
        send_all(atoi(arguments[5]), atof(arguments[7]));
        return 0;
    }
    if (strcmp(arguments[1], "drain") == 0 && count == 5) take(arguments[3], arguments[4], drain_one);
    if (strcmp(arguments[1], "serve") == 0 && count == 9) {
        single = strcmp(arguments[8], "single") == 0;
        corpus_size = strtoull(arguments[6], NULL, 10);
        corpus = map(arguments[5], corpus_size);
        jwt = arguments[7];
        take(arguments[3], arguments[4], serve_one);
    }
    return 2;
}
