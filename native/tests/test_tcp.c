#include "nc_tcp.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "nc_err.h"

static void the_default_is_available_and_permitted(void)
{
    struct nc_err err = {0};
    char name[64];
    char available[4096];

    CHECK(nc_tcp_list(NC_TCP_DEFAULT, name, sizeof name, &err) == NC_ERR_OK);
    CHECK(strlen(name) > 0 && strlen(name) < NC_TCP_NAME_BYTES);
    CHECK(strchr(name, '\n') == NULL);
    CHECK(nc_tcp_list(NC_TCP_AVAILABLE, available, sizeof available, &err) == NC_ERR_OK);
    CHECK(strstr(available, name) != NULL);
    CHECK(nc_tcp_probe(name, &err) == NC_ERR_OK);
}

static void a_list_larger_than_its_buffer_is_refused_not_cut(void)
{
    struct nc_err err = {0};
    char tiny[3];

    CHECK(nc_tcp_list(NC_TCP_AVAILABLE, tiny, sizeof tiny, &err) == NC_ERR_LIMIT);
    CHECK(nc_tcp_list(NC_TCP_AVAILABLE, tiny, 0, &err) == NC_ERR_INVALID);
    CHECK(nc_tcp_list(-1, tiny, sizeof tiny, &err) == NC_ERR_INVALID);
    CHECK(nc_tcp_list(NC_TCP_DEFAULT + 1, tiny, sizeof tiny, &err) == NC_ERR_INVALID);
}

static void what_is_chosen_is_read_back(void)
{
    struct nc_err err = {0};
    char name[NC_TCP_NAME_BYTES];
    char small[2];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(fd >= 0);
    CHECK(nc_tcp_set(fd, "reno", &err) == NC_ERR_OK);
    CHECK(nc_tcp_get(fd, name, sizeof name, &err) == NC_ERR_OK);
    CHECK_TEXT(name, "reno");
    CHECK(nc_tcp_get(fd, small, sizeof small, &err) == NC_ERR_LIMIT);
    close(fd);
}

static void a_name_that_cannot_be_is_refused(void)
{
    struct nc_err err = {0};
    int code = nc_tcp_probe("nonesuch", &err);

    /* Without CAP_NET_ADMIN the kernel answers EPERM before it looks. */
    CHECK(code == NC_ERR_NOT_FOUND || code == NC_ERR_DENIED);
    CHECK(strlen(err.reason) > 0);
    CHECK(nc_tcp_probe("", &err) == NC_ERR_INVALID);
    CHECK(nc_tcp_probe("abcdefghijklmnop", &err) == NC_ERR_INVALID);
}

static void what_is_no_tcp_socket_is_refused(void)
{
    struct nc_err err = {0};
    char name[NC_TCP_NAME_BYTES];
    int pipes[2];

    CHECK(pipe(pipes) == 0);
    CHECK(nc_tcp_get(pipes[0], name, sizeof name, &err) == NC_ERR_INVALID);
    CHECK(nc_tcp_set(pipes[0], "reno", &err) == NC_ERR_INVALID);
    close(pipes[0]);
    close(pipes[1]);
    CHECK(nc_tcp_get(-1, name, sizeof name, &err) == NC_ERR_INVALID);
}

/* A connection over loopback; both ends are closed by the caller. */
static void connect_pair(int ends[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(ends[0], (struct sockaddr *)&address, sizeof address) == 0);
    ends[1] = accept(listener, NULL, NULL);
    CHECK(ends[1] >= 0);
    close(listener);
}

static void what_a_connection_did_is_counted_and_timed(void)
{
    struct nc_err err = {0};
    struct nc_tcp_info before;
    struct nc_tcp_info after;
    char byte = 'x';
    int ends[2];

    connect_pair(ends);
    CHECK(nc_tcp_info(ends[0], &before, &err) == NC_ERR_OK);
    for (int i = 0; i < 8; i++) {
        CHECK(write(ends[0], &byte, 1) == 1);
        CHECK(read(ends[1], &byte, 1) == 1);
        CHECK(write(ends[1], &byte, 1) == 1);
        CHECK(read(ends[0], &byte, 1) == 1);
    }
    CHECK(nc_tcp_info(ends[0], &after, &err) == NC_ERR_OK);
    /* Each byte waited for its answer: none could share a segment with another. */
    CHECK(after.segments_out - before.segments_out == 8);
    CHECK(after.delivered - before.delivered == 8);
    CHECK(after.rtt_us > 0 && after.min_rtt_us > 0 && after.min_rtt_us <= after.rtt_us);
    CHECK(after.total_retrans == 0 && after.needless_retrans == 0 && after.delivered_ce == 0);
    CHECK(after.delivery_rate > 0 && after.app_limited);
    close(ends[0]);
    close(ends[1]);
}

static void what_is_no_tcp_socket_has_no_figures(void)
{
    struct nc_err err = {0};
    struct nc_tcp_info info = {.rtt_us = 7};
    int pipes[2];
    int datagrams = socket(AF_INET, SOCK_DGRAM, 0);

    CHECK(pipe(pipes) == 0);
    CHECK(nc_tcp_info(pipes[0], &info, &err) == NC_ERR_INVALID);
    CHECK(nc_tcp_info(-1, &info, &err) == NC_ERR_INVALID);
    CHECK(nc_tcp_info(datagrams, &info, &err) != NC_ERR_OK);
    CHECK(info.rtt_us == 7);
    close(datagrams);
    close(pipes[0]);
    close(pipes[1]);
}

int main(void)
{
    the_default_is_available_and_permitted();
    a_list_larger_than_its_buffer_is_refused_not_cut();
    what_is_chosen_is_read_back();
    a_name_that_cannot_be_is_refused();
    what_is_no_tcp_socket_is_refused();
    what_a_connection_did_is_counted_and_timed();
    what_is_no_tcp_socket_has_no_figures();
    return CHECK_RESULT;
}
