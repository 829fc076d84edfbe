// Sends a file of lines over TLS as fast as the other side takes it: sender PORT FILE BYTES CONNECTIONS single|blocks
//
// Each connection has a thread and an equal share of the first BYTES bytes, cut at a line end. With `single` each line is a
// TLS record of its own, else TLS records are 16 KiB. Prints its wall and CPU seconds as JSON.

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TLS_RECORD = 16384, WRITE_BUFFER = 65536 };

typedef struct {
    pthread_t thread;
    const char *data;
    size_t size;
} Share;

static int port, single;
static SSL_CTX *context;

static void fail(const char *what) {
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void *send_share(void *argument) {
    const Share *share = argument;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
    // Records are gathered before the system call, so that a record for each line costs this side little more than blocks do.
    BIO *sock = BIO_new_socket(fd, BIO_NOCLOSE), *buffer = BIO_new(BIO_f_buffer());
    BIO_set_write_buffer_size(buffer, WRITE_BUFFER);
    BIO_up_ref(sock);
    SSL *tls = SSL_new(context);
    SSL_set_bio(tls, sock, BIO_push(buffer, sock));
    if (SSL_connect(tls) != 1) fail("handshake");
    for (size_t at = 0, size; at < share->size; at += size) {
        size = share->size - at;
        if (single) {
            const char *end = memchr(share->data + at, '\n', size);
            if (end != NULL) size = end + 1 - (share->data + at);
        } else if (size > TLS_RECORD) {
            size = TLS_RECORD;
        }
        if (SSL_write(tls, share->data + at, size) != (int)size) fail("write");
    }
    SSL_shutdown(tls);
    BIO_flush(buffer);
    shutdown(fd, SHUT_WR);
    for (char rest[4096]; read(fd, rest, sizeof rest) > 0;) continue;
    close(fd);
    return NULL;
}

static double seconds(struct timeval time) { return time.tv_sec + time.tv_usec / 1e6; }

int main(int count, char **arguments) {
    if (count != 6) return 2;
    port = atoi(arguments[1]);
    size_t size = strtoull(arguments[3], NULL, 10);
    int connections = atoi(arguments[4]);
    single = strcmp(arguments[5], "single") == 0;
    int file = open(arguments[2], O_RDONLY);
    char *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (file < 0 || data == MAP_FAILED) fail("corpus");
    context = SSL_CTX_new(TLS_client_method());
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    Share *shares = calloc(connections, sizeof *shares);
    size_t start = 0;
    for (int number = 0; number < connections; number++) {
        size_t end = size;
        if (number + 1 < connections) {
            end = size * (number + 1) / connections;
            if (end < start) end = start;
            end = (const char *)memchr(data + end, '\n', size - end) + 1 - data;
        }
        shares[number].data = data + start;
        shares[number].size = end - start;
        if (pthread_create(&shares[number].thread, NULL, send_share, &shares[number])) fail("thread");
        start = end;
    }
    for (int number = 0; number < connections; number++) pthread_join(shares[number].thread, NULL);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"wall\": %.6f, \"cpu\": %.6f}\n", ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) / 1e9,
           seconds(usage.ru_utime) + seconds(usage.ru_stime));
    return 0;
}
