/* A and AAAA of one name back to back from one fresh port, many times: what races in conntrack.
 * Usage: pairs SERVER NAME COUNT mmsg|threads. Prints "ANSWERED LOST": questions answered, and those
 * without an answer in half a minute. No retransmission. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct question { unsigned char wire[300]; size_t size; };
struct sending { int fd; struct question *question; };

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void ask(struct question *q, const char *name, unsigned id, unsigned type) {
    unsigned char head[12] = {id >> 8, id & 255, 1, 0, 0, 1};
    memcpy(q->wire, head, 12);
    unsigned char *at = q->wire + 12;
    for (const char *label = name; *label;) {
        size_t size = strcspn(label, ".");
        *at++ = size;
        memcpy(at, label, size);
        at += size;
        label += size + (label[size] == '.');
    }
    unsigned char tail[5] = {0, type >> 8, type & 255, 0, 1};
    memcpy(at, tail, 5);
    q->size = at + 5 - q->wire;
}

static void *send_one(void *argument) {
    struct sending *s = argument;
    send(s->fd, s->question->wire, s->question->size, 0);
    return NULL;
}

static void send_both(int fd, struct question *q, int threads) {
    if (threads) {
        pthread_t thread[2];
        struct sending sending[2] = {{fd, &q[0]}, {fd, &q[1]}};
        for (int i = 0; i < 2; i++) pthread_create(&thread[i], NULL, send_one, &sending[i]);
        for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
        return;
    }
    struct iovec parts[2] = {{q[0].wire, q[0].size}, {q[1].wire, q[1].size}};
    struct mmsghdr both[2] = {{.msg_hdr = {.msg_iov = &parts[0], .msg_iovlen = 1}},
                              {.msg_hdr = {.msg_iov = &parts[1], .msg_iovlen = 1}}};
    if (sendmmsg(fd, both, 2, 0) != 2) perror("sendmmsg");
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int v6 = strchr(argv[1], ':') != NULL, count = atoi(argv[3]), threads = !strcmp(argv[4], "threads");
    struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = htons(53)};
    struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(53)};
    if (inet_pton(v6 ? AF_INET6 : AF_INET, argv[1], v6 ? (void *)&to6.sin6_addr : (void *)&to4.sin_addr) != 1)
        return 2;
    int answered = 0, lost = 0;
    for (int round = 0; round < count; round++) {
        int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
        if (connect(fd, v6 ? (void *)&to6 : (void *)&to4, v6 ? sizeof to6 : sizeof to4)) return 1;
        struct question q[2];
        unsigned id = (round * 2) & 0xfffe;
        ask(&q[0], argv[2], id, 1);
        ask(&q[1], argv[2], id + 1, 28);
        long started = now_ms(), left;
        int missing = 3;
        send_both(fd, q, threads);
        while (missing && (left = started + 30000 - now_ms()) > 0) {
            struct pollfd waiting = {.fd = fd, .events = POLLIN};
            unsigned char reply[65536];
            if (poll(&waiting, 1, left) != 1) continue;
            ssize_t size = recv(fd, reply, sizeof reply, 0);
            if (size < 12) continue;
            int which = ((reply[0] << 8 | reply[1]) == (int)id) ? 1 : 2;
            int good = (reply[3] & 15) == 0 && (reply[6] << 8 | reply[7]) > 0;
            if (good && (missing & which)) {
                missing &= ~which;
                answered++;
            }
        }
        lost += (missing & 1) + (missing >> 1);
        close(fd);
    }
    printf("%d %d\n", answered, lost);
    return lost ? 1 : 0;
}
