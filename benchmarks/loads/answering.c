/* The upstream of a benchmark: a name's number is its answer, and every question is counted.
 *
 * usage: answering PORT ADDRESSES DELAY_MS COUNTER
 *   PORT       on 127.0.0.1, UDP
 *   ADDRESSES  A records in an answer; those of h7.… begin at 45.0.0.0 + 7 × ADDRESSES, TTL 300
 *   DELAY_MS   so much later each answer leaves
 *   COUNTER    a file; its first eight octets are the number of questions so far, for whoever maps it
 * Any other type has no data. Prints "ready".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 1 << 16, MESSAGE_BYTES = 1024 };
struct late { double due; struct sockaddr_in to; int length; unsigned char wire[MESSAGE_BYTES]; };

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static unsigned char *u16(unsigned char *at, unsigned value) { *at++ = value >> 8; *at++ = value; return at; }
static unsigned char *u32(unsigned char *at, uint32_t value) { return u16(u16(at, value >> 16), value & 0xffff); }

/* The question stands in p, n octets long; returns the length of the answer, 0 for what is no question. */
static int answer(unsigned char *p, int n, unsigned addresses) {
    int at = 12;
    while (at < n && p[at]) at += p[at] + 1;
    at += 5;
    if (n < 17 || at > n) return 0;
    int type = p[at - 4] << 8 | p[at - 3], has_options = p[11];
    uint32_t number = 0;
    for (int i = 13; i < 13 + p[12]; i++) if (p[i] >= '0' && p[i] <= '9') number = number * 10 + p[i] - '0';
    unsigned char *out = p + at;
    p[2] = 0x84 | (p[2] & 1);
    p[3] = 0x80;
    u16(p + 6, type == 1 ? addresses : 0);
    u16(p + 8, type == 1 ? 0 : 1);
    u16(p + 10, has_options ? 1 : 0);
    for (unsigned i = 0; type == 1 && i < addresses; i++) {
        out = u32(u16(u16(u16(out, 0xc00c), 1), 1), 300);
        out = u32(u16(out, 4), 45u << 24 | ((number * addresses + i) & 0xffffff));
    }
    if (type != 1) {  /* SOA of the name without its first label */
        out = u32(u16(u16(u16(out, 0xc000 | (13 + p[12])), 6), 1), 60);
        out = u16(out, 24);
        out = u16(u16(out, 0xc000 | (13 + p[12])), 0xc000 | (13 + p[12]));
        for (int i = 0; i < 5; i++) out = u32(out, i == 4 ? 60 : 3600);
    }
    if (has_options) {
        *out++ = 0;
        out = u16(u32(u16(u16(out, 41), 1232), 0), 0);
    }
    return out - p;
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "usage: answering PORT ADDRESSES DELAY_MS COUNTER\n"); return 2; }
    unsigned addresses = atoi(argv[2]);
    double delay_s = atof(argv[3]) / 1e3;
    int file = open(argv[4], O_RDWR | O_CREAT, 0644), fd = socket(AF_INET, SOCK_DGRAM, 0), big = 32 << 20;
    if (file < 0 || ftruncate(file, 4096)) { perror(argv[4]); return 1; }
    volatile uint64_t *counter = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    inet_aton("127.0.0.1", &here.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
    if (addresses > 40 || bind(fd, (void *)&here, sizeof here)) { perror("bind"); return 1; }
    struct late *queue = malloc(sizeof *queue * ROOM);
    unsigned head = 0, tail = 0;
    if (!queue) return 1;
    puts("ready");
    fflush(stdout);
    for (;;) {
        double now = now_s();
        for (; head != tail && queue[head % ROOM].due <= now; head++) {
            struct late *l = &queue[head % ROOM];
            sendto(fd, l->wire, l->length, 0, (void *)&l->to, sizeof l->to);
        }
        struct timespec wait = {0, head != tail ? (long)((queue[head % ROOM].due - now) * 1e9) % 1000000000 : 999999999};
        struct pollfd p = {fd, POLLIN, 0};
        if (ppoll(&p, 1, &wait, 0) <= 0) continue;
        for (int i = 0; i < 256; i++) {
            struct late *l = &queue[tail % ROOM];
            socklen_t size = sizeof l->to;
            int n = recvfrom(fd, l->wire, MESSAGE_BYTES, MSG_DONTWAIT, (void *)&l->to, &size);
            if (n < 0) break;
            ++*counter;
            if ((l->length = answer(l->wire, n, addresses)) == 0) continue;
            if (delay_s == 0) sendto(fd, l->wire, l->length, 0, (void *)&l->to, size);
            else if (tail - head < ROOM - 1) { l->due = now_s() + delay_s; tail++; }
        }
    }
}
