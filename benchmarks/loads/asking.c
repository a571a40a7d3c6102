/* Pods that ask, many at once: paced or as fast as answers come, each from its own address.
 *
 * usage: asking SERVER SECONDS RATE WINDOW POD0 PODS NAME FIRST NAMES TYPES WARM_S MOST DEVICE ROUTER
 *   SERVER  IPv4 address (port 53)
 *   RATE    questions a second of all pods together; 0: as many as WINDOW allows; -1: each pod one, at once
 *   WINDOW  questions without an answer at one time, at most; 0: no bound (an open load, which does not wait)
 *   POD0    address of the first of PODS pods, which follow one another; they take turns
 *   NAME    e.g. h%u.bench.com; question n asks NAME with FIRST + n modulo NAMES
 *   TYPES   1 (A), 28 (AAAA) …; 16,1/20: twenty questions of one, twenty of the other, and so on
 *   WARM_S  so long latencies are not counted
 *   MOST    then it ends, whatever SECONDS say; 0: no bound
 *   DEVICE  the pods' end of the veth; ROUTER the Ethernet address of the other end
 * Questions leave as frames that are written here (half of what a UDP socket costs: the load of twice what a core can
 * serve has to fit on another); for the node they are what any pod's socket sends. Answers come to UDP sockets: all pods'
 * addresses are local here by a route (ip route add local …), so one socket can be all of them.
 * Nothing is asked twice. Prints one JSON object: counts by outcome, answers before SECONDS were over ("in_time"),
 * latencies in microseconds by type, counts by pod.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, SOCKETS = 16, MAX_PODS = 4096, MAX_TYPES = 4, QUESTION_BYTES = 300, WAIT_MS = 2500, STALLED_MS = 500 };
enum { ANSWERED, NODATA, REFUSED, NXDOMAIN, SERVFAIL, OTHER, OUTCOMES };
static const char *outcome_names[OUTCOMES] = {"answered", "nodata", "refused", "nxdomain", "servfail", "other"};

struct flight { double at; uint32_t pod; uint16_t open, kind; };
struct timed { float *us; size_t count, room; uint64_t sent, back; };
struct __attribute__((packed)) frame {
    struct ether_header ethernet;
    struct iphdr ip;
    struct udphdr udp;
    unsigned char question[QUESTION_BYTES];
};
static struct flight flights[SOCKETS][65536];
static uint16_t next_id[SOCKETS];
static int fds[SOCKETS], door;
static uint16_t ports[SOCKETS];
static struct frame blank, frames[BATCH];
static struct timed timed[MAX_TYPES];
static int types[MAX_TYPES], type_count;
static uint64_t block;
static uint32_t pods, pod0, counts[MAX_PODS][OUTCOMES], sent_by[MAX_PODS];
static uint64_t sent, unsent, back, strange, in_time, totals[OUTCOMES];
static int64_t open_count;
static double warm_until, last_answer, until;

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

static struct mmsghdr out[BATCH], in[BATCH];
static struct iovec out_iov[BATCH], in_iov[BATCH];
static unsigned char received[BATCH][2048];
static char in_controls[BATCH][128];

/* The internet checksum of an even number of octets, added to a sum that is begun. */
static uint16_t checksum(const void *octets, int length, uint32_t sum) {
    const unsigned char *at = octets;
    for (int i = 0; i < length; i += 2) sum += at[i] << 8 | at[i + 1];
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return htons(~sum & 0xffff);
}

/* Makes the frame of a question that lies in it, from a pod's port; returns its length. */
static int framed(struct frame *f, int length, uint32_t pod, uint16_t port) {
    int datagram = sizeof f->udp + length;
    memcpy(f, &blank, offsetof(struct frame, question));
    f->question[length] = 0;  /* of an odd number of octets the last is summed with a zero */
    f->ip.saddr = htonl(pod0 + pod);
    f->ip.tot_len = htons(sizeof f->ip + datagram);
    f->ip.check = checksum(&f->ip, sizeof f->ip, 0);
    f->udp.source = htons(port);
    f->udp.len = htons(datagram);
    f->udp.check = checksum(&f->ip.saddr, 8 + datagram + datagram % 2, IPPROTO_UDP + datagram);
    if (!f->udp.check) f->udp.check = 0xffff;
    return offsetof(struct frame, question) + length;
}

static void send_some(int s, int many, uint64_t number, const char *pattern, unsigned first, unsigned names) {
    double at = now_s();
    for (int i = 0; i < many; i++) {
        uint64_t n = number + i;
        uint32_t pod = n % pods;
        uint16_t id = next_id[s]++, kind = n / block % type_count;
        struct flight *f = &flights[s][id];
        if (f->open) open_count--;
        *f = (struct flight){at, pod, 1, kind};
        int length = question(frames[i].question, id, pattern, first + (unsigned)(n % names), types[kind]);
        out_iov[i] = (struct iovec){&frames[i], framed(&frames[i], length, pod, ports[s])};
        out[i].msg_hdr = (struct msghdr){.msg_iov = &out_iov[i], .msg_iovlen = 1};
        sent_by[pod]++;
        timed[kind].sent++;
    }
    open_count += many;
    for (int done = 0; done < many;) {
        int n = sendmmsg(door, out + done, many - done, 0);
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
    struct timed *t = &timed[f->kind];
    t->back++;
    in_time += what <= NODATA && at <= until;
    if (f->at < warm_until || what > NODATA) return;
    if (t->count == t->room) {
        t->room = t->room ? t->room * 2 : 1 << 16;
        t->us = realloc(t->us, t->room * sizeof *t->us);
        if (!t->us) exit(1);
    }
    t->us[t->count++] = (at - f->at) * 1e6;
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

static double quantile(struct timed *t, double share) {
    return t->count ? t->us[(size_t)(share * (t->count - 1))] : 0;
}

static void report(double took) {
    printf("{\"sent\":%lu,\"unsent\":%lu,\"back\":%lu,\"strange\":%lu,\"in_time\":%lu,\"seconds\":%.3f", sent, unsent, back, strange, in_time, took);
    for (int o = 0; o < OUTCOMES; o++) printf(",\"%s\":%lu", outcome_names[o], totals[o]);
    printf(",\"types\":[");
    for (struct timed *t = timed; t < timed + type_count; t++) {
        if (t->count) qsort(t->us, t->count, sizeof *t->us, by_value);
        printf("%s{\"type\":%d,\"sent\":%lu,\"back\":%lu,\"timed\":%zu,", t > timed ? "," : "", types[t - timed], t->sent, t->back, t->count);
        printf("\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}", quantile(t, 0.5), quantile(t, 0.9), quantile(t, 0.99), quantile(t, 1));
    }
    printf("],\"by_pod\":[");
    for (uint32_t p = 0; p < pods; p++) {
        printf("%s[%u", p ? "," : "", sent_by[p]);
        for (int o = 0; o < OUTCOMES; o++) printf(",%u", counts[p][o]);
        printf("]");
    }
    printf("]}\n");
}

static int read_types(char *text) {
    for (;; text++) {
        if (type_count == MAX_TYPES) return 0;
        types[type_count++] = strtol(text, &text, 10);
        if (*text != ',') break;
    }
    block = *text == '/' ? strtoul(text + 1, 0, 10) : 1;
    return block > 0;
}

/* Opens the socket that frames leave by, and makes what all of them have in common. */
static int open_door(const char *device, const char *router, struct in_addr server) {
    struct ifreq request = {0};
    struct sockaddr_ll end = {.sll_family = AF_PACKET};
    unsigned char *to = blank.ethernet.ether_dhost;
    int one = 1, big = 32 << 20;
    strncpy(request.ifr_name, device, IFNAMSIZ - 1);
    door = socket(AF_PACKET, SOCK_RAW, 0);
    end.sll_ifindex = if_nametoindex(device);
    if (door < 0 || ioctl(door, SIOCGIFHWADDR, &request) || bind(door, (void *)&end, sizeof end)) return 0;
    setsockopt(door, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);
    setsockopt(door, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
    memcpy(blank.ethernet.ether_shost, request.ifr_hwaddr.sa_data, ETH_ALEN);
    blank.ethernet.ether_type = htons(ETHERTYPE_IP);
    blank.ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .frag_off = htons(IP_DF), .daddr = server.s_addr};
    blank.udp.dest = htons(53);
    return sscanf(router, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", to, to + 1, to + 2, to + 3, to + 4, to + 5) == ETH_ALEN;
}

int main(int argc, char **argv) {
    if (argc != 15) { fprintf(stderr, "usage: see the head of asking.c\n"); return 2; }
    struct in_addr first_pod, server;
    if (!inet_aton(argv[1], &server) || !inet_aton(argv[5], &first_pod) || !read_types(argv[10])) return 2;
    double seconds = atof(argv[2]), rate = atof(argv[3]);
    int64_t window = atoll(argv[4]);
    pod0 = ntohl(first_pod.s_addr);
    pods = atoi(argv[6]);
    const char *pattern = argv[7];
    unsigned first = atoi(argv[8]), names = atoi(argv[9]);
    int at_once = rate < 0, sockets = rate > 0 && rate < 5000 ? 1 : SOCKETS;
    uint64_t most = atoll(argv[12]) > 0 ? atoll(argv[12]) : UINT64_MAX;
    if (at_once) most = pods;
    if (!pods || pods > MAX_PODS || !names) return 2;
    if (!open_door(argv[13], argv[14], server)) { perror(argv[13]); return 1; }
    prctl(PR_SET_TIMERSLACK, 1);
    for (int s = 0; s < sockets; s++) {
        int one = 1, big = 32 << 20;
        fds[s] = socket(AF_INET, SOCK_DGRAM, 0);
        setsockopt(fds[s], SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
        setsockopt(fds[s], IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
        struct sockaddr_in any = {.sin_family = AF_INET};
        socklen_t size = sizeof any;
        if (bind(fds[s], (void *)&any, size) || getsockname(fds[s], (void *)&any, &size)) { perror("bind"); return 1; }
        ports[s] = ntohs(any.sin_port);
    }
    double begun = now_s();
    until = begun + seconds;
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
            send_some(s, due, sent, pattern, first, names);
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
