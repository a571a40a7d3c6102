/* getaddrinfo(3) of whichever libc this is linked with, then a TCP connection to each address.
 * Usage: addrinfo NAME PORT. Prints "CODE MILLISECONDS", then "ADDRESS connected|ERRNO" lines. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC}, *found = NULL;
    long started = now_ms();
    int code = getaddrinfo(argv[1], argv[2], &hints, &found);
    printf("%s %ld\n", code ? gai_strerror(code) : "OK", now_ms() - started);
    for (struct addrinfo *each = code ? NULL : found; each; each = each->ai_next) {
        char text[64];
        getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
        int fd = socket(each->ai_family, SOCK_STREAM, 0);
        int failed = connect(fd, each->ai_addr, each->ai_addrlen);
        printf("%s %s\n", text, failed ? strerror(errno) : "connected");
        close(fd);
    }
    return code ? 1 : 0;
}
