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

int main(void)
{
    the_default_is_available_and_permitted();
    a_list_larger_than_its_buffer_is_refused_not_cut();
    what_is_chosen_is_read_back();
    a_name_that_cannot_be_is_refused();
    what_is_no_tcp_socket_is_refused();
    return CHECK_RESULT;
}
