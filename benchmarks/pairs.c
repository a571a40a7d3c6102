/* A stub resolver's worst habit, many times: A and AAAA back to back from one fresh socket.
 *
 * usage: pairs PAIRS THREADS TIMEOUT_MS how SERVER [SERVER...]
 *   how = mmsg     both questions in one sendmmsg (glibc)
 *         threads  both questions from two threads at the same time
 * Every question goes to every SERVER (musl). A pair is lost unless, for both questions, every server's
 * answer came back from the address it was sent to. No question is sent twice.
 * Prints: pairs lost answers
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_storage servers[8];
static int server_count, pairs, timeout_ms, two_threads;
static int next_pair, lost, answers;

static int question(unsigned char *q, unsigned id, int type) {
    static const unsigned char tail[] = "\3www\7pairs00\3com\0";
    memset(q, 0, 12);
    q[0] = id >> 8; q[1] = id; q[2] = 1; q[5] = 1;
    memcpy(q + 12, tail, 17);
    q[29] = 0; q[30] = type; q[31] = 0; q[32] = 1;
    return 33;
}

struct one { int fd; unsigned id; int type; };

static void *send_one(void *p) {
    struct one *o = p;
    unsigned char q[64];
    int n = question(q, o->id, o->type);
    for (int s = 0; s < server_count; s++)
        sendto(o->fd, q, n, 0, (struct sockaddr *)&servers[s],
               servers[s].ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
    return 0;
}

static void send_pair(int fd, unsigned id) {
    if (two_threads) {
        struct one a = {fd, id, 1}, b = {fd, id + 1, 28};
        pthread_t t;
        pthread_create(&t, 0, send_one, &b);
        send_one(&a);
        pthread_join(t, 0);
        return;
    }
    unsigned char q[2][64];
    struct iovec iov[2];
    struct mmsghdr m[16];
    memset(m, 0, sizeof m);
    for (int i = 0; i < 2; i++) { iov[i].iov_base = q[i]; iov[i].iov_len = question(q[i], id + i, i ? 28 : 1); }
    int n = 0;
    for (int s = 0; s < server_count; s++)
        for (int i = 0; i < 2; i++, n++) {
            m[n].msg_hdr.msg_name = &servers[s];
            m[n].msg_hdr.msg_namelen = servers[s].ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
            m[n].msg_hdr.msg_iov = &iov[i];
            m[n].msg_hdr.msg_iovlen = 1;
        }
    sendmmsg(fd, m, n, 0);
}

static int server_of(struct sockaddr_storage *from) {
    for (int s = 0; s < server_count; s++) {
        if (from->ss_family != servers[s].ss_family) continue;
        if (from->ss_family == AF_INET &&
            !memcmp(&((struct sockaddr_in *)from)->sin_addr, &((struct sockaddr_in *)&servers[s])->sin_addr, 4)) return s;
        if (from->ss_family == AF_INET6 &&
            !memcmp(&((struct sockaddr_in6 *)from)->sin6_addr, &((struct sockaddr_in6 *)&servers[s])->sin6_addr, 16)) return s;
    }
    return -1;
}

static void *run(void *unused) {
    (void)unused;
    for (;;) {
        int i = __atomic_fetch_add(&next_pair, 1, __ATOMIC_RELAXED);
        if (i >= pairs) return 0;
        unsigned id = (i * 2) & 0xffff, seen = 0, all = (1u << 2 * server_count) - 1;
        int fd = socket(servers[0].ss_family, SOCK_DGRAM, 0);
        /* Bound first: two threads that send from an unbound socket race in the kernel's autobind, and
         * the loser's packet leaves from port 0 (seen: 1 or 2 of 10,000, whatever the way). */
        struct sockaddr_storage any = {.ss_family = servers[0].ss_family};
        bind(fd, (struct sockaddr *)&any, any.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        send_pair(fd, id);
        struct timespec start, now;
        clock_gettime(CLOCK_MONOTONIC, &start);
        while (seen != all) {
            clock_gettime(CLOCK_MONOTONIC, &now);
            int left = timeout_ms - (int)((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000);
            struct pollfd p = {fd, POLLIN, 0};
            if (left <= 0 || poll(&p, 1, left) <= 0) break;
            unsigned char r[2048];
            struct sockaddr_storage from;
            socklen_t len = sizeof from;
            int n = recvfrom(fd, r, sizeof r, 0, (struct sockaddr *)&from, &len);
            int s = server_of(&from);
            if (n < 12 || s < 0) continue;
            unsigned got = r[0] << 8 | r[1];
            __atomic_fetch_add(&answers, 1, __ATOMIC_RELAXED);
            if (got == id) seen |= 1u << 2 * s;
            if (got == id + 1) seen |= 2u << 2 * s;
        }
        if (seen != all) __atomic_fetch_add(&lost, 1, __ATOMIC_RELAXED);
        close(fd);
    }
}

int main(int argc, char **argv) {
    if (argc < 6) { fprintf(stderr, "usage: pairs PAIRS THREADS TIMEOUT_MS mmsg|threads SERVER...\n"); return 2; }
    pairs = atoi(argv[1]);
    int threads = atoi(argv[2]);
    timeout_ms = atoi(argv[3]);
    two_threads = !strcmp(argv[4], "threads");
    for (int i = 5; i < argc && server_count < 8; i++, server_count++) {
        struct sockaddr_in *a4 = (struct sockaddr_in *)&servers[server_count];
        struct sockaddr_in6 *a6 = (struct sockaddr_in6 *)&servers[server_count];
        if (inet_pton(AF_INET, argv[i], &a4->sin_addr) == 1) { a4->sin_family = AF_INET; a4->sin_port = htons(53); }
        else if (inet_pton(AF_INET6, argv[i], &a6->sin6_addr) == 1) { a6->sin6_family = AF_INET6; a6->sin6_port = htons(53); }
        else { fprintf(stderr, "not an address: %s\n", argv[i]); return 2; }
    }
    pthread_t t[64];
    if (threads > 64) threads = 64;
    for (int i = 0; i < threads; i++) pthread_create(&t[i], 0, run, 0);
    for (int i = 0; i < threads; i++) pthread_join(t[i], 0);
    printf("%d %d %d\n", pairs, lost, answers);
    return 0;
}
