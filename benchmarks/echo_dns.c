/* The cheapest DNS server there is: sends each UDP question back as its own answer, from the address it
 * was aimed at. What remains when it is measured is the way of the packet.
 *
 * usage: echo_dns PORT [transparent]      serves IPv4 and IPv6; prints "ready"
 */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif

static int open_socket(int family, int port, int transparent) {
    int fd = socket(family, SOCK_DGRAM, 0), one = 1, big = 16 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (family == AF_INET) {
        if (transparent) setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof one);
        setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    } else {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
        if (transparent) setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &one, sizeof one);
        setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
    }
    if (bind(fd, family == AF_INET ? (void *)&a4 : (void *)&a6, family == AF_INET ? sizeof a4 : sizeof a6)) {
        perror("bind");
        exit(1);
    }
    return fd;
}

static void serve(int fd) {
    unsigned char q[2048], control[256];
    struct sockaddr_storage from;
    struct iovec iov = {q, sizeof q};
    struct msghdr m = {&from, sizeof from, &iov, 1, control, sizeof control, 0};
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT);
    if (n < 12) return;
    q[2] |= 0x80;
    q[3] |= 0x80;
    iov.iov_len = n;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *p = (struct in_pktinfo *)CMSG_DATA(c);
            p->ipi_ifindex = 0;
            p->ipi_spec_dst = p->ipi_addr;
        }
        if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) ((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_ifindex = 0;
    }
    sendmsg(fd, &m, 0);
}

int main(int argc, char **argv) {
    if (argc < 2) { fprintf(stderr, "usage: echo_dns PORT [transparent]\n"); return 2; }
    struct pollfd p[2];
    p[0].fd = open_socket(AF_INET, atoi(argv[1]), argc > 2);
    p[1].fd = open_socket(AF_INET6, atoi(argv[1]), argc > 2);
    p[0].events = p[1].events = POLLIN;
    puts("ready");
    fflush(stdout);
    while (poll(p, 2, -1) > 0)
        for (int i = 0; i < 2; i++)
            if (p[i].revents) serve(p[i].fd);
    return 0;
}
