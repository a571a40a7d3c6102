/* Pods that ask, many at once: paced or as fast as answers come, each from its own address.
 *
 * usage: asking SERVER SECONDS RATE WINDOW POD0 PODS NAME FIRST NAMES TYPE WARM_S MOST
 *   SERVER  IPv4 address (port 53)
 *   RATE    questions a second of all pods together; 0: as many as WINDOW allows; -1: each pod one, at once
 *   WINDOW  questions without an answer at one time, at most; 0: no bound (an open load, which does not wait)
 *   POD0    address of the first of PODS pods, which follow one another; they take turns
 *   NAME    e.g. h%u.bench.com; question n asks NAME with FIRST + n modulo NAMES
 *   TYPE    1 (A), 28 (AAAA) …
 *   WARM_S  so long latencies are not counted
 *   MOST    then it ends, whatever SECONDS say; 0: no bound
 * All pods' addresses are local here by a route (ip route add local …), so one socket can be all of them.
 * Nothing is asked twice. Prints one JSON object: counts by outcome, latencies in microseconds, counts by pod.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, SOCKETS = 16, MAX_PODS = 4096, QUESTION_BYTES = 300, WAIT_MS = 2500, STALLED_MS = 500 };
enum { ANSWERED, NODATA, REFUSED, NXDOMAIN, SERVFAIL, OTHER, OUTCOMES };
static const char *outcome_names[OUTCOMES] = {"answered", "nodata", "refused", "nxdomain", "servfail", "other"};

struct flight { double at; uint32_t pod; uint32_t open; };
static struct flight flights[SOCKETS][65536];
static uint16_t next_id[SOCKETS];
static int fds[SOCKETS];
static uint32_t pods, pod0, counts[MAX_PODS][OUTCOMES], sent_by[MAX_PODS];
static uint64_t sent, unsent, back, strange, totals[OUTCOMES];
static int64_t open_count;
static float *latencies;
static size_t latency_count, latency_room;
static double warm_until, last_answer;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int question(unsigned char *q, uint16_t id, const char *pattern, unsigned number, int type) {
    char name[256];
    snprintf(name, sizeof name, pattern, number);
    memset(q, 0, 12);
    q[0] = id >> 8; q[1] = id; q[2] = 1; q[5] = 1;
    unsigned char *at = q + 12;
    for (char *label = name; *label;) {
        size_t length = strcspn(label, ".");
        *at++ = length;
        memcpy(at, label, length);
        at += length;
        label += length + (label[length] == '.');
    }
    *at++ = 0;
    *at++ = type >> 8; *at++ = type; *at++ = 0; *at++ = 1;
    return at - q;
}

static unsigned char packets[BATCH][QUESTION_BYTES];
static char controls[BATCH][CMSG_SPACE(sizeof(struct in_pktinfo))];
static struct mmsghdr out[BATCH], in[BATCH];
static struct iovec out_iov[BATCH], in_iov[BATCH];
static unsigned char received[BATCH][2048];
static char in_controls[BATCH][128];

static void send_some(int s, int many, struct sockaddr_in *server, uint64_t number, const char *pattern,
                      unsigned first, unsigned names, int type) {
    double at = now_s();
    for (int i = 0; i < many; i++) {
        uint32_t pod = (number + i) % pods;
        uint16_t id = next_id[s]++;
        struct flight *f = &flights[s][id];
        if (f->open) open_count--;
        f->at = at; f->pod = pod; f->open = 1;
        out_iov[i].iov_base = packets[i];
        out_iov[i].iov_len = question(packets[i], id, pattern, first + (unsigned)((number + i) % names), type);
        struct msghdr *m = &out[i].msg_hdr;
        memset(m, 0, sizeof *m);
        m->msg_name = server; m->msg_namelen = sizeof *server;
        m->msg_iov = &out_iov[i]; m->msg_iovlen = 1;
        m->msg_control = controls[i]; m->msg_controllen = sizeof controls[i];
        struct cmsghdr *c = CMSG_FIRSTHDR(m);
        c->cmsg_level = IPPROTO_IP; c->cmsg_type = IP_PKTINFO; c->cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo));
        struct in_pktinfo info = {0};
        info.ipi_spec_dst.s_addr = htonl(pod0 + pod);
        memcpy(CMSG_DATA(c), &info, sizeof info);
        sent_by[pod]++;
    }
    open_count += many;
    for (int done = 0; done < many;) {
        int n = sendmmsg(fds[s], out + done, many - done, 0);
        if (n <= 0) { unsent++; n = 1; }
        done += n;
    }
    sent += many;
}

static int outcome(const unsigned char *p) {
    int rcode = p[3] & 15, answers = p[6] << 8 | p[7];
    if (rcode == 0) return answers ? ANSWERED : NODATA;
    return rcode == 5 ? REFUSED : rcode == 3 ? NXDOMAIN : rcode == 2 ? SERVFAIL : OTHER;
}

static void take(int s, struct mmsghdr *m, double at) {
    const unsigned char *p = m->msg_hdr.msg_iov->iov_base;
    uint32_t to = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m->msg_hdr); c; c = CMSG_NXTHDR(&m->msg_hdr, c))
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO)
            to = ntohl(((struct in_pktinfo *)CMSG_DATA(c))->ipi_addr.s_addr);
    struct flight *f = &flights[s][p[0] << 8 | p[1]];
    if (m->msg_len < 12 || !f->open || to != pod0 + f->pod) { strange++; return; }
    f->open = 0;
    open_count--;
    back++;
    last_answer = at;
    int what = outcome(p);
    totals[what]++;
    counts[f->pod][what]++;
    if (f->at < warm_until || what > NODATA) return;
    if (latency_count == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 1 << 16;
        latencies = realloc(latencies, latency_room * sizeof *latencies);
        if (!latencies) exit(1);
    }
    latencies[latency_count++] = (at - f->at) * 1e6;
}

static int drain(int sockets) {
    int any = 0;
    for (int s = 0; s < sockets; s++) {
        for (;;) {
            for (int i = 0; i < BATCH; i++) {
                in_iov[i].iov_base = received[i]; in_iov[i].iov_len = sizeof received[i];
                memset(&in[i].msg_hdr, 0, sizeof in[i].msg_hdr);
                in[i].msg_hdr.msg_iov = &in_iov[i]; in[i].msg_hdr.msg_iovlen = 1;
                in[i].msg_hdr.msg_control = in_controls[i]; in[i].msg_hdr.msg_controllen = sizeof in_controls[i];
            }
            int n = recvmmsg(fds[s], in, BATCH, MSG_DONTWAIT, 0);
            if (n <= 0) break;
            double at = now_s();
            for (int i = 0; i < n; i++) take(s, &in[i], at);
            any += n;
            if (n < BATCH) break;
        }
    }
    return any;
}

static void wait_for(int sockets, double until) {
    struct pollfd p[SOCKETS];
    for (int s = 0; s < sockets; s++) p[s] = (struct pollfd){fds[s], POLLIN, 0};
    double left = until - now_s();
    if (left <= 0) return;
    struct timespec t = {(time_t)left, (long)((left - (time_t)left) * 1e9)};
    ppoll(p, sockets, &t, 0);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(double share) {
    return latency_count ? latencies[(size_t)(share * (latency_count - 1))] : 0;
}

static void report(double took) {
    if (latency_count) qsort(latencies, latency_count, sizeof *latencies, by_value);
    printf("{\"sent\":%lu,\"unsent\":%lu,\"back\":%lu,\"strange\":%lu,\"seconds\":%.3f", sent, unsent, back, strange, took);
    for (int o = 0; o < OUTCOMES; o++) printf(",\"%s\":%lu", outcome_names[o], totals[o]);
    printf(",\"timed\":%zu,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f,\"by_pod\":[",
           latency_count, quantile(0.5), quantile(0.9), quantile(0.99), quantile(1));
    for (uint32_t p = 0; p < pods; p++) {
        printf("%s[%u", p ? "," : "", sent_by[p]);
        for (int o = 0; o < OUTCOMES; o++) printf(",%u", counts[p][o]);
        printf("]");
    }
    printf("]}\n");
}

int main(int argc, char **argv) {
    if (argc != 13) { fprintf(stderr, "usage: see the head of asking.c\n"); return 2; }
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(53)};
    struct in_addr first_pod;
    if (!inet_aton(argv[1], &server.sin_addr) || !inet_aton(argv[5], &first_pod)) return 2;
    double seconds = atof(argv[2]), rate = atof(argv[3]);
    int64_t window = atoll(argv[4]);
    pod0 = ntohl(first_pod.s_addr);
    pods = atoi(argv[6]);
    const char *pattern = argv[7];
    unsigned first = atoi(argv[8]), names = atoi(argv[9]);
    int type = atoi(argv[10]), at_once = rate < 0, sockets = rate > 0 && rate < 5000 ? 1 : SOCKETS;
    uint64_t most = atoll(argv[12]) > 0 ? atoll(argv[12]) : UINT64_MAX;
    if (at_once) most = pods;
    if (!pods || pods > MAX_PODS || !names) return 2;
    for (int s = 0; s < sockets; s++) {
        int one = 1, big = 32 << 20;
        fds[s] = socket(AF_INET, SOCK_DGRAM, 0);
        setsockopt(fds[s], SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
        setsockopt(fds[s], SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
        setsockopt(fds[s], IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
        struct sockaddr_in any = {.sin_family = AF_INET};
        if (bind(fds[s], (void *)&any, sizeof any)) { perror("bind"); return 1; }
    }
    double begun = now_s(), until = begun + seconds;
    warm_until = begun + atof(argv[11]);
    last_answer = begun;
    int s = 0;
    for (double at = begun; at < until && sent < most; at = now_s()) {
        int64_t due = rate > 0 ? (int64_t)(rate * (at - begun)) - (int64_t)sent : BATCH;
        if (at_once) due = BATCH;
        if (window && at - last_answer > STALLED_MS / 1e3) { open_count = 0; last_answer = at; }
        if (window && due > window - open_count) due = window - open_count;
        if (due > BATCH) due = BATCH;
        if (due > 0 && (uint64_t)due > most - sent) due = most - sent;
        if (due > 0) {
            send_some(s, due, &server, sent, pattern, first, names, type);
            s = (s + 1) % sockets;
        }
        if (at_once) continue;
        if (!drain(sockets) && due <= 0) {
            double next = rate > 0 ? begun + (sent + 1) / rate : at + 0.01;
            wait_for(sockets, window && open_count >= window ? at + 0.01 : next < until ? next : until);
        }
    }
    double took = now_s() - begun;
    for (double end = now_s() + WAIT_MS / 1e3; back + strange < sent - unsent && now_s() < end;)
        if (!drain(sockets)) wait_for(sockets, end);
    report(at_once ? last_answer - begun : took);
    return 0;
}
